/**
 * The remote half run in this process: for demos, evaluation and tests, in place of a server. It takes what a server
 * would get, a `Release`, and answers under the model's own output names.
 */
import type { Bundle } from '../bundle/bundle.js';
import type { Engine, RunOptions } from '../engine/engine.js';
import { type Release, releaseToTensor } from '../noise/release.js';
import type { Tensor } from '../tensor.js';

/** A loaded remote half. */
export interface LocalTail {
  /** Runs the tail on one release; outputs by the names they have in the model. */
  run(release: Release, options?: RunOptions): Promise<Record<string, Tensor>>;
  close(): Promise<void>;
}

/** Loads the remote model of a bundle. @throws ScrimError INVALID_BUNDLE if it is missing or was changed. */
export async function createLocalTail(options: {
  readonly bundle: Bundle;
  readonly engine: Engine;
}): Promise<LocalTail> {
  const { bundle, engine } = options;
  const { remote } = bundle.manifest;
  const session = await engine.load(await bundle.read(`remote/${remote.noisy}/1/model.onnx`));
  return {
    run: async (release, runOptions) => {
      const outputs = await session.run({ [remote.input]: releaseToTensor(release, bundle.parameters) }, runOptions);
      return Object.fromEntries(remote.outputs.map((output) => [output.model, outputs[output.remote] as Tensor]));
    },
    close: () => session.close(),
  };
}
