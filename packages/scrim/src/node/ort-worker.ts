/**
 * Entry point of the worker thread that onnxruntime-node runs in: answers the messages of ort-worker-host.ts.
 *
 * Ending a thread while native code of onnxruntime-node runs aborts the whole process (its C++ exception finds no
 * JavaScript to go to), so every task is marked in shared memory; see ort-worker-data.ts.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { serveBackend } from '../engine/remote-backend.js';
import { ScrimError } from '../errors.js';
import { startOrtRuntime } from './ort-runtime.js';
import { markBusy, type OrtWorkerData } from './ort-worker-data.js';

const port = parentPort;
if (port === null) throw new ScrimError('INTERNAL', 'ort-worker.js is the entry point of a worker thread');
const { settings, flags } = workerData as OrtWorkerData;
port.on(
  'message',
  serveBackend(
    () => startOrtRuntime(settings),
    (message, transfer) => port.postMessage(message, transfer),
    // setImmediate lets the messages that arrived during a run be read before the next one starts.
    { defer: setImmediate, around: (task) => markBusy(flags, task), onClosed: () => endThread(port) },
  ),
);

/** Lets the thread end. Deno's parent port can't be closed: there the thread, which has nothing left to do, exits. */
function endThread(parent: Partial<Pick<MessagePort, 'close'>>): void {
  if (typeof parent.close === 'function') parent.close();
  else process.exit(0);
}
