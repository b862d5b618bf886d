/**
 * Entry point of the Web Worker that onnxruntime-web runs in. The first message holds the settings; the rest is
 * remote-backend.ts's. The page makes and ends it (ort-web-engine.ts).
 */
import { serveBackend } from '../engine/remote-backend.js';
import { startWebRuntime, type WebRuntimeSettings } from './ort-web-runtime.js';

interface WorkerScope {
  onmessage: ((event: MessageEvent<unknown>) => void) | null;
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
}

const scope = globalThis as unknown as WorkerScope;

// A message to oneself queues behind those that arrived during a run, so that cancellations are read first.
const { port1, port2 } = new MessageChannel();
const steps: (() => void)[] = [];
port2.onmessage = () => steps.shift()?.();
const defer = (step: () => void): void => {
  steps.push(step);
  port1.postMessage(0);
};

scope.onmessage = (first) => {
  const settings = first.data as WebRuntimeSettings;
  const serve = serveBackend(
    () => startWebRuntime(settings),
    (message, transfer) => scope.postMessage(message, transfer),
    { defer },
  );
  scope.onmessage = (event) => serve(event.data);
};
