/** The page's side of the worker: orders as promises. The worker starts with the first one; one that dies is replaced. */
import { ScrimError } from 'scrim';
import type { CatalogueBundle } from '../catalogue.js';
import type { Failure, Inspection, OpenedPhoto, Order, Photo, Report, Run, Setting } from './messages.js';

/** What can be ordered. */
export interface Desk {
  open(photo: Photo): Promise<OpenedPhoto>;
  run(
    order: { readonly setting: Setting; readonly reference: CatalogueBundle; readonly live: boolean },
    hooks?: { readonly signal?: AbortSignal; readonly onProgress?: (text: string) => void },
  ): Promise<Run>;
  inspect(bundle: CatalogueBundle): Promise<Inspection>;
}

interface Waiting {
  resolve(result: never): void;
  reject(error: ScrimError): void;
  readonly onProgress: ((text: string) => void) | undefined;
}

/** Opens the desk; nothing starts before the first order. */
export function createDesk(): Desk {
  const waiting = new Map<number, Waiting>();
  let worker: Worker | undefined;
  let next = 1;

  const start = (): Worker => {
    const made = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'scrim studio' });
    made.onmessage = ({ data }: MessageEvent<Report>) => {
      const order = waiting.get(data.id);
      if (data.kind === 'progress') {
        order?.onProgress?.(data.text);
        return;
      }
      waiting.delete(data.id);
      if (data.kind === 'done') order?.resolve(data.result as never);
      else order?.reject(revive(data.error));
    };
    made.onerror = (event) => {
      event.preventDefault();
      made.terminate();
      worker = undefined;
      const reason = event.message || 'its script could not be loaded';
      for (const order of waiting.values()) {
        order.reject(new ScrimError('ENGINE_FAILED', `the worker of this page stopped: ${reason}`));
      }
      waiting.clear();
    };
    return made;
  };

  const order = <T>(
    make: (id: number) => Order,
    transfer: Transferable[] = [],
    { signal, onProgress }: { signal?: AbortSignal; onProgress?: (text: string) => void } = {},
  ): Promise<T> => {
    worker ??= start();
    const target = worker;
    const id = next++;
    return new Promise<T>((resolve, reject) => {
      waiting.set(id, { resolve: resolve as (result: never) => void, reject, onProgress });
      target.postMessage(make(id), transfer);
      signal?.addEventListener('abort', () => target.postMessage({ kind: 'cancel', id }), { once: true });
    });
  };

  return {
    open: (photo) => order((id) => ({ kind: 'open', id, photo }), photo instanceof Blob ? [] : [photo]),
    run: (details, hooks) =>
      order((id) => ({ kind: 'run', id, server: new URL('.', location.href).href, ...details }), [], hooks),
    inspect: (bundle) => order((id) => ({ kind: 'inspect', id, bundle })),
  };
}

function revive({ code, message }: Failure): ScrimError {
  return new ScrimError(code, message);
}
