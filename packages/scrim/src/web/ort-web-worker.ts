/**
 * Entry point of the Web Worker that onnxruntime-web runs in. The first message holds the settings; the rest is
 * remote-backend.ts's. The page makes and ends it (ort-web-engine.ts).
 */
import { serveBackend } from '../engine/remote-backend.js';
import { ScrimError } from '../errors.js';
import { nextTask } from './next-task.js';
import { startWebRuntime, type WebRuntimeSettings } from './ort-web-runtime.js';

interface WorkerScope {
  readonly name: string;
  onmessage: ((event: MessageEvent<unknown>) => void) | null;
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
}

const scope = globalThis as unknown as WorkerScope;

// onnxruntime-web starts its threads from the script that it stands in, by this name. A bundler that merges it into
// this one (Vite's default format for workers) would have each thread run this entry instead, and wait for ever.
if (scope.name.startsWith('em-pthread')) {
  throw new ScrimError(
    'UNSUPPORTED',
    "onnxruntime-web is merged into the worker's script, so its threads can't start; bundle workers as ES modules " +
      "(Vite: worker.format 'es') or ask for threads: 1",
  );
}

scope.onmessage = (first) => {
  const settings = first.data as WebRuntimeSettings;
  const serve = serveBackend(
    () => startWebRuntime(settings),
    (message, transfer) => scope.postMessage(message, transfer),
    // Cancellations that arrived during a run are read before the next one starts.
    { defer: nextTask },
  );
  scope.onmessage = (event) => serve(event.data);
};
