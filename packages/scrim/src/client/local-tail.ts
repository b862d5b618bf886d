/**
 * The remote half run in this process: for demos, evaluation and tests, in place of a server. It takes what a server
 * would get, a `Release`, and answers under the model's own output names.
 */
import type { Bundle } from '../bundle/bundle.js';
import type { Engine, RunOptions } from '../engine/engine.js';
import type { Release } from '../noise/release.js';
import { createReleaseReader } from '../noise/release-reader.js';
import type { Tensor } from '../tensor.js';

/** How one release is run. */
export interface LocalTailOptions extends Pick<RunOptions, 'fetches' | 'signal'> {
  /**
   * Memory that the caller gives up: if it has the size of the tail's input, that is written there and moved on. A run
   * then leaves this thread's collector nothing that a run without noise does not.
   */
  readonly memory?: ArrayBuffer | undefined;
}

/** A loaded remote half. */
export interface LocalTail {
  /** Runs the tail on one release, which stays as it is; outputs by the names they have in the model. */
  run(release: Release, options?: LocalTailOptions): Promise<Record<string, Tensor>>;
  close(): Promise<void>;
}

/** Loads the remote model of a bundle. @throws ScrimError INVALID_BUNDLE if it is missing or was changed. */
export async function createLocalTail(options: {
  readonly bundle: Bundle;
  readonly engine: Engine;
}): Promise<LocalTail> {
  const { bundle, engine } = options;
  const { remote } = bundle.manifest;
  const reader = createReleaseReader(bundle.parameters);
  const session = await engine.load(await bundle.read(`remote/${remote.noisy}/1/model.onnx`));
  return {
    run: async (release, { memory, ...runOptions } = {}) => {
      const [, , height = 0, width = 0] = release.shape;
      const bytes = 4 * release.channels * height * width;
      const values = new Float32Array(memory?.byteLength === bytes ? memory : new ArrayBuffer(bytes));
      // The tensor's memory was made here or given, so it is nobody else's.
      const outputs = await session.run(
        { [remote.input]: reader.read(release, values) },
        { ...runOptions, transfer: true },
      );
      return Object.fromEntries(remote.outputs.map((output) => [output.model, outputs[output.remote] as Tensor]));
    },
    close: () => session.close(),
  };
}
