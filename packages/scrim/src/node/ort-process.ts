/**
 * Entry point of the child process that onnxruntime-node runs in: answers the messages of ort-process-host.ts.
 *
 * It ends when the host says so or is gone, never by the signals a terminal or a supervisor sends to the whole group: the
 * host still wants the answers of the requests under way.
 */
import { serveBackend } from '../engine/remote-backend.js';
import { ScrimError } from '../errors.js';
import { type RuntimeSettings, startOrtRuntime } from './ort-runtime.js';

const send = process.send?.bind(process);
if (send === undefined) throw new ScrimError('INTERNAL', 'ort-process.js is the entry point of a child process');
const settings = JSON.parse(process.argv[2] ?? '') as RuntimeSettings;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
process.on('disconnect', () => process.exit());
process.on(
  'message',
  serveBackend(
    () => startOrtRuntime(settings),
    // A pipe copies: buffers that would come back to be used again stay here.
    (message) => void send({ ...(message as object), returned: [] }),
    { defer: setImmediate, onClosed: () => process.disconnect() },
  ),
);
