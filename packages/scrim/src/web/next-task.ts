/**
 * A turn of the browser's event loop, without the 4 ms that nested timers are held back: a message to oneself. It
 * queues behind messages that have arrived, and lets timers, input and painting in between.
 */

/** Calls `step` in a later task. */
export function nextTask(step: () => void): void {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    step();
  };
  port2.postMessage(0);
}
