/**
 * A {@link Backend} that changes a model before another backend loads it: how a provider's known faults are worked around.
 */
import type { Backend } from './backend.js';

/** Makes one over `backend`; `rewrite` gets the model's bytes and returns those to load. */
export function createRewritingBackend(backend: Backend, rewrite: (model: Uint8Array) => Promise<Uint8Array>): Backend {
  return {
    load: async (model, options) => backend.load(await rewrite(model), options),
    run: (graph, feeds, options) => backend.run(graph, feeds, options),
    release: (graph) => backend.release(graph),
    close: () => backend.close(),
  };
}
