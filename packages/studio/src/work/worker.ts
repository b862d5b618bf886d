/** Entry of the studio's worker: orders in, reports out. One order is worked on at a time; a cancelled one is dropped. */
import { ScrimError } from 'scrim';
import type { Failure, Inspection, OpenedPhoto, Order, Report, Run } from './messages.js';
import { Pipeline } from './pipeline.js';

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<Order>) => void) | null;
  postMessage(report: Report, transfer?: Transferable[]): void;
};

const pipeline = new Pipeline();
const cancels = new Map<number, AbortController>();
let last: Promise<void> = Promise.resolve();

scope.onmessage = ({ data: order }) => {
  if (order.kind === 'cancel') {
    cancels.get(order.id)?.abort(new ScrimError('CANCELLED', 'it was cancelled'));
    return;
  }
  const controller = new AbortController();
  cancels.set(order.id, controller);
  last = last
    .then(async () => {
      controller.signal.throwIfAborted();
      const result = await work(order, controller.signal);
      scope.postMessage({ kind: 'done', id: order.id, result }, transferables(result));
    })
    .catch((error: unknown) => {
      scope.postMessage({ kind: 'failed', id: order.id, error: describe(error) });
    })
    .finally(() => {
      cancels.delete(order.id);
    });
};

function work(order: Exclude<Order, { kind: 'cancel' }>, signal: AbortSignal): Promise<OpenedPhoto | Run | Inspection> {
  switch (order.kind) {
    case 'open':
      return pipeline.open(order.photo);
    case 'inspect':
      return pipeline.inspect(order.bundle);
    case 'run':
      return pipeline.run(order, signal, (text) => scope.postMessage({ kind: 'progress', id: order.id, text }));
  }
}

function transferables(result: OpenedPhoto | Run | Inspection): Transferable[] {
  if ('preview' in result) return [result.preview];
  if (!('settingId' in result)) return [];
  const { release, guess } = result;
  return [release?.tiles, release?.request?.body, guess?.picture].filter((item) => item !== undefined);
}

function describe(error: unknown): Failure {
  const { code, message } = ScrimError.from(error, 'INTERNAL', 'the studio failed');
  return { code, message };
}
