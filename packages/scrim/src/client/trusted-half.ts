/**
 * The half of a bundle that stays where the data is: head and noise. Input in, `Release` out; nothing else leaves it.
 */
import { type Bundle, HEAD_PATH } from '../bundle/bundle.js';
import type { Engine } from '../engine/engine.js';
import { ScrimError } from '../errors.js';
import { createDiagonalTransform } from '../noise/diagonal.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import { createNoiser, type Noiser, type NoiserMode, type Release } from '../noise/release.js';
import { expectType, sameShape, type Tensor } from '../tensor.js';

/** Sizes of input whose activation's shape is remembered. */
const MAX_SIZES = 64;

/** What {@link createTrustedHalf} needs. */
export interface TrustedHalfOptions {
  readonly bundle: Bundle;
  readonly engine: Engine;
  readonly crypto: NoiseCrypto;
  /** Default: fresh noise for every release. */
  readonly noise?: NoiserMode;
}

/** Head and noise of a bundle, loaded. */
export interface TrustedHalf {
  readonly noiser: Noiser;
  /**
   * Runs the head on one input and releases the noisy activation. In repeatable mode the input's own bytes are what
   * makes it the same input, unless `canonicalInput` says otherwise (the bytes of the file, say).
   * @param input float32, batch dimension 1
   * @throws ScrimError NOISE_FAILED if the noise can't be made as specified; nothing is released then
   */
  release(input: Tensor, options?: ReleaseOptions): Promise<Release>;
  /**
   * Runs the head once and releases `count` times, each with noise of its own. Every fresh release of the same input tells
   * more about it: this is for measuring accuracy over draws, not for sending.
   */
  releaseMany(input: Tensor, count: number, options?: ReleaseOptions): Promise<Release[]>;
  close(): Promise<void>;
}

/** Options of one release. */
export interface ReleaseOptions {
  readonly canonicalInput?: Uint8Array;
  /** True if the caller gives up the input's array; it may then be moved to another thread instead of copied. */
  readonly transfer?: boolean;
  /**
   * Receives the memory that the activation lay in, overwritten with zeros, when its releases are made: as garbage it would
   * set off collections that cost more than the noise (LocalTailOptions.memory takes it).
   */
  readonly onSpent?: (memory: ArrayBuffer) => void;
  /**
   * False draws the noise after the head, not while it runs: for callers whose thread has other work meanwhile, such as
   * another half's inputs. Default true, which holds for a run that this half has nothing else beside.
   */
  readonly drawAhead?: boolean;
  readonly signal?: AbortSignal;
  /**
   * Receives the milliseconds that head and transform took, by the given clock. Where it is given the noise is drawn after
   * the head, never while it runs, so that the two can be told apart.
   */
  readonly onTiming?: (timing: { readonly headMs: number; readonly transformMs: number }) => void;
  readonly now?: () => number;
}

/**
 * Loads head and noise.
 * @throws ScrimError INVALID_BUNDLE if the head is missing or was changed; as {@link Engine.load}
 */
export async function createTrustedHalf(options: TrustedHalfOptions): Promise<TrustedHalf> {
  const { bundle, engine, crypto, noise = { mode: 'fresh' } } = options;
  const { manifest } = bundle;
  const head = await bundle.read(HEAD_PATH);
  const transform = createDiagonalTransform(bundle.parameters);
  const noiser = createNoiser({ transform, bundleHash: bundle.hash, alpha: manifest.alpha, crypto, ...noise });
  const session = await engine.load(head);
  const cut = manifest.cut.tensors[0]?.name ?? '';
  /** Shape of the activation by that of the input, as last seen. */
  const sizes = new Map<string, readonly number[]>();
  let underWay = 0;
  const releaseMany = async (
    input: Tensor,
    count: number,
    { canonicalInput, transfer, onSpent, drawAhead = true, signal, onTiming, now = () => 0 }: ReleaseOptions = {},
  ): Promise<Release[]> => {
    // A transferred array is gone after the run, so what names the input is copied before.
    const canonical =
      noiser.mode === 'repeatable' ? (canonicalInput ?? bytesOf(expectType(input, 'float32', 'the input'))) : undefined;
    const size = String(input?.shape);
    const started = now();
    const running = session.run(
      { [manifest.model.input]: input },
      {
        ...(transfer === undefined ? {} : { transfer }),
        ...(signal ? { signal } : {}),
      },
    );
    const expected = sizes.get(size);
    // Alone, this thread would only wait for the head. With others under way it has their work to do, and drawing ahead
    // costs the processor two copies of the noise.
    const isAhead = underWay++ === 0 && drawAhead && onTiming === undefined && count > 0;
    const preparing = isAhead && expected ? noiser.prepare(expected, canonical) : undefined;
    preparing?.catch(() => {});
    try {
      const activation = (await running)[cut];
      if (!activation) throw new ScrimError('INVALID_BUNDLE', `the head of the bundle does not make '${cut}'`);
      const ran = now();
      const releases: Release[] = [];
      const prepared = await preparing;
      if (prepared && sameShape(prepared.shape, activation.shape)) releases.push(await prepared.release(activation));
      while (releases.length < count) releases.push(await noiser.release(activation, canonical));
      if (sizes.size >= MAX_SIZES) sizes.clear();
      sizes.set(size, [...activation.shape]);
      onTiming?.({ headMs: ran - started, transformMs: now() - ran });
      if (onSpent) {
        const { data } = expectType(activation, 'float32', 'the activation');
        data.fill(0);
        // A view may lie in memory that the engine still needs.
        if (data.buffer instanceof ArrayBuffer && data.byteLength === data.buffer.byteLength) onSpent(data.buffer);
      }
      return releases;
    } finally {
      underWay--;
      preparing?.then(
        (prepared) => prepared.close(),
        () => {},
      );
    }
  };
  return {
    noiser,
    releaseMany,
    release: async (input, releaseOptions) => (await releaseMany(input, 1, releaseOptions))[0] as Release,
    close: async () => {
      noiser.close();
      await session.close();
    },
  };
}

function bytesOf({ data }: Tensor<'float32'>): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
}
