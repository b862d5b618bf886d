/**
 * Photos to faces, with and without noise, several at a time.
 *
 * Each lane has an engine of its own with one thread, so that decoding (libvips' threads), inference (the lanes) and
 * this thread's own work overlap. Clean and noisy runs take the same path, head then tail; with noise the tail gets
 * what a server would get, a `Release`, and nothing else. Payloads and outputs are freed by hand once they are
 * read: with the pixels they made V8 collect the whole heap every ten images, which took a tenth of the processor time.
 */
import {
  type Bundle,
  createLocalTail,
  createTrustedHalf,
  type Engine,
  type LocalTail,
  type Release,
  ScrimError,
  type Session,
  type Tensor,
  type TrustedHalf,
} from 'scrim';
import { createInputReader, createNodeCrypto, createNodeEngine, freeArrays, type NodeEngineOptions } from 'scrim/node';
import { splitAt } from 'scrim/split';
import { createDetectionDecoder, type Detection } from 'scrim/vision';
import type { ModelSource } from './model-source.js';

/** How a pipeline is set up. */
export interface FacePipelineOptions {
  readonly model: ModelSource;
  /** With a bundle, answers come from noisy releases; without one, from the clean activation. */
  readonly bundle?: Bundle;
  readonly size: number;
  readonly threads?: number;
  readonly provider?: NonNullable<NodeEngineOptions['executionProvider']>;
}

/** How the faces of one photo are found. */
export interface DetectFacesOptions {
  /** Default 1. */
  readonly draws?: number;
  readonly minScore?: number;
  /**
   * True keeps the first release for the answer. Payloads are freed otherwise, once the tail has run: as garbage they set
   * off collections that cost as much as the noise.
   */
  readonly keepRelease?: boolean;
}

/** What came of one photo. */
export interface FaceAnswer {
  /** One list for each draw of noise; a single one without noise. */
  readonly draws: readonly (readonly Detection[])[];
  /** The first release, where there is noise and it was asked for. */
  readonly release?: Release;
}

/** A loaded pipeline. */
export interface FacePipeline {
  readonly description: string;
  readonly lanes: number;
  /**
   * Finds the faces of one photo, `draws` times with fresh noise.
   * @throws ScrimError as readImageResized and the engine
   */
  detect(photo: string | Uint8Array, options?: DetectFacesOptions): Promise<FaceAnswer>;
  close(): Promise<void>;
}

interface Lane {
  readonly engine: Engine;
  readonly noisy?: { readonly trusted: TrustedHalf; readonly tail: LocalTail };
  readonly clean?: { readonly head: Session; readonly tail: Session };
  busy: number;
}

/** Loads the model, or the halves of the bundle, once for each lane. */
export async function createFacePipeline(options: FacePipelineOptions): Promise<FacePipeline> {
  const { model, bundle, size, provider = 'cpu' } = options;
  const { detector } = model;
  if (!detector) throw new ScrimError('UNSUPPORTED', `'${model.name}' is no detector this command knows how to read`);
  const probe = await createNodeEngine({
    executionProvider: provider,
    ...(options.threads ? { threads: options.threads } : {}),
  });
  const count = provider === 'cpu' ? probe.threads : 1;
  await probe.close();
  const lanes: Lane[] = [];
  for (let i = 0; i < count; i++) lanes.push(await createLane(model, bundle, provider));
  const decoder = createDetectionDecoder(detector);
  const reader = createInputReader(detector, { kind: 'stretch', width: size, height: size });
  const description = lanes[0]?.engine.description ?? '';
  /** Photos that are being read or answered. */
  let underWay = 0;
  return {
    description,
    lanes: lanes.length,
    detect: async (photo, { draws = 1, minScore, keepRelease = false } = {}) => {
      underWay++;
      try {
        const { tensor: input, plan } = await reader.read(photo);
        const lane = lanes.reduce((least, candidate) => (candidate.busy < least.busy ? candidate : least));
        lane.busy++;
        const decodeOutputs = (outputs: Readonly<Record<string, Tensor>>): Detection[] => {
          const [found] = decoder.decodeOutputs(outputs, [plan], minScore === undefined ? {} : { minScore });
          freeArrays(Object.values(outputs).flatMap(({ data }) => (Array.isArray(data) ? [] : [data])));
          return found ?? [];
        };
        const how = { draws, keepRelease, drawAhead: underWay === 1 };
        return await answer(lane, input, how, decodeOutputs).finally(() => lane.busy--);
      } finally {
        underWay--;
      }
    },
    close: async () => {
      await Promise.all(
        lanes.map(async ({ engine, noisy }) => {
          await noisy?.trusted.close();
          await engine.close();
        }),
      );
    },
  };
}

async function createLane(
  model: ModelSource,
  bundle: Bundle | undefined,
  provider: NonNullable<NodeEngineOptions['executionProvider']>,
): Promise<Lane> {
  const engine = await createNodeEngine({ executionProvider: provider, threads: 1 });
  if (bundle) {
    const trusted = await createTrustedHalf({ bundle, engine, crypto: createNodeCrypto() });
    return { engine, noisy: { trusted, tail: await createLocalTail({ bundle, engine }) }, busy: 0 };
  }
  const { head, tail } = splitAt(model.graph, [model.cut ?? '']);
  return { engine, clean: { head: await engine.load(head.encode()), tail: await engine.load(tail.encode()) }, busy: 0 };
}

async function answer(
  lane: Lane,
  input: Tensor,
  { draws, keepRelease, drawAhead }: Record<'keepRelease' | 'drawAhead', boolean> & { readonly draws: number },
  decodeOutputs: (outputs: Readonly<Record<string, Tensor>>) => Detection[],
): Promise<FaceAnswer> {
  if (lane.clean) {
    const { head, tail } = lane.clean;
    const [name = ''] = head.inputs.map((value) => value.name);
    const activation = await head.run({ [name]: input }, { transfer: true });
    return { draws: [decodeOutputs(await tail.run(activation, { transfer: true }))] };
  }
  const { trusted, tail } = lane.noisy as NonNullable<Lane['noisy']>;
  let memory: ArrayBuffer | undefined;
  const releases = await trusted.releaseMany(input, draws, {
    transfer: true,
    drawAhead,
    onSpent: (spent) => {
      memory = spent;
    },
  });
  const lists: Detection[][] = [];
  const kept = keepRelease ? releases[0] : undefined;
  for (const release of releases) {
    lists.push(decodeOutputs(await tail.run(release, { memory })));
    memory = undefined;
    if (release !== kept) freeArrays([release.payload]);
  }
  return { draws: lists, ...(kept ? { release: kept } : {}) };
}
