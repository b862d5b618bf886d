/**
 * What every attacker of the audit knows and is given, and what it hands back.
 *
 * Kerckhoffs' principle: an attacker has the head, the parameters of the noise, the remote half, alpha and photos of the
 * same distribution. The key alone is missing. Everything looks the same to it, diagonal or bottleneck: image -> head ->
 * cut tensor -> diagonal release -> remote model. How releases are drawn is in attack-releases.ts, how values are summed
 * up in attack-result.ts.
 */
import type { Bundle } from '../bundle/bundle.js';
import { HEAD_PATH } from '../bundle/bundle.js';
import type { Engine, Session } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import type { Box, Interval } from '../metrics/index.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import type { FitRandomState } from '../noise/fit/fit-random.js';
import type { TrainerState } from '../noise/fit/network-trainer.js';
import { Graph } from '../onnx/index.js';
import { expectType, float32, type Tensor } from '../tensor.js';
import type { RgbImage } from '../vision/index.js';

/** How pixels, 0 to 255, become the head's input: value = black + pixel/255 · (white − black), by channel. */
export interface PixelEncoding {
  /** Which channel of the input holds red, green and blue; three times the same for a grey model. */
  readonly rgb: readonly [red: number, green: number, blue: number];
  /** The input's value for black, by channel. */
  readonly black: readonly number[];
  /** The input's value for white, by channel. */
  readonly white: readonly number[];
}

/** The two halves of a model. */
interface ModelHalves {
  /** For people, such as 'faceboxes bottleneck α 0.8'. */
  readonly name: string;
  readonly engine: Engine;
  /** Input -> cut tensor. One input [N, C, H, W], one output [N, C', H', W']. */
  readonly head: Graph;
  /** Release -> answer. One input of the cut's shape. */
  readonly remote: Graph;
}

/** The parts of an attacked service, as {@link createAttackTarget} takes them. */
export interface AttackTargetParts extends ModelHalves {
  readonly parameters: DiagonalParameters;
  /** SHA-256 of the bundle, in hexadecimal. */
  readonly bundleHash: string;
  /** Training weight of privacy, in [0, 1]. */
  readonly alpha: number;
}

/** A model whose activations are looked at. */
export interface AttackedModel extends ModelHalves {
  /** Name of the head's input and of its output. */
  readonly input: string;
  readonly cut: string;
  readonly headSession: Session;
  /** Frees the session of the head; the engine stays the caller's. */
  close(): Promise<void>;
}

/** An attacked service: everything but the key. */
export interface AttackTarget extends AttackTargetParts, AttackedModel {}

/** One input an attacker trains on or is tried on. */
export interface AttackSample {
  /** Names it in reports; unique within a set. */
  readonly id: string;
  /** float32 [1, C, H, W], as the head takes it. */
  readonly input: Tensor;
  /** What the input shows (its whole canvas, the same crop) as a picture of any size, to compare with what is rebuilt. */
  readonly picture: RgbImage;
  /** Faces (or objects) that the service detects on it, in pixels of `picture`. */
  readonly boxes?: readonly Box[];
  /** Who is on it, for re-identification. */
  readonly person?: string;
  /** Labels by attribute, for attribute inference. */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** A sample after the head: what attacks work with. Inputs are dropped, so that thousands fit into memory. */
export interface AttackRecord {
  readonly id: string;
  /** Clean activation, [C, H, W] of {@link AttackData.shape}. */
  readonly activation: Float32Array;
  /** [height, width, 3] of {@link AttackData.picture}. */
  readonly picture: Uint8Array;
  /** In pixels of `picture`. */
  readonly boxes?: readonly Box[];
  readonly person?: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

/** Samples of one size after the head. */
export interface AttackData {
  /** [C, H, W] of the cut tensor. */
  readonly shape: readonly [channels: number, height: number, width: number];
  /** [C, H, W] of the head's input. */
  readonly inputShape: readonly number[];
  /** Size of the pictures that attackers rebuild. */
  readonly picture: { readonly width: number; readonly height: number };
  readonly records: readonly AttackRecord[];
  /** Photos that the records were composed of, where they are fewer; it is photos that make an attacker's data enough. */
  readonly sources?: number;
}

/** One thing that was measured of an attack, over photos and seeds. */
export interface AttackValue {
  /** 'SSIM', 'PSNR', 'AUC', 'rank-1', … */
  readonly name: string;
  /** '' for a share or a coefficient. */
  readonly unit: '' | 'dB';
  /** Which direction is success for the attacker. */
  readonly better: 'higher' | 'lower';
  readonly mean: number;
  /** Mean over the tenth of the samples the attacker does best on; undefined where there is one value for all. */
  readonly worstDecile?: number;
  /** The value that a tenth of the samples reach or pass; undefined as above. */
  readonly worstDecileEdge?: number;
  /** Standard deviation of the mean over seeds; undefined for one seed. */
  readonly sdOverSeeds?: number;
  /** 95% interval of the mean, over samples and seeds. */
  readonly interval: Interval;
  /** Samples measured, and seeds that each was measured with. */
  readonly samples: number;
  readonly seeds: number;
}

/** What an attacker who does not look, or looks at the clean activation, gets: the same values. */
export interface AttackBaseline {
  /** 'mean photo', 'average face at the detected boxes', 'clean activation', 'chance'. */
  readonly name: string;
  /** 'floor': an attack has to beat it to count; 'ceiling': what the same attack does without noise. */
  readonly kind: 'floor' | 'ceiling';
  readonly values: readonly AttackValue[];
}

/** A picture of the report. */
export interface AttackPicture {
  /** Id of the sample. */
  readonly id: string;
  /** What it is: 'original', 'rebuilt', 'rebuilt from 64', 'mean photo', … */
  readonly label: string;
  readonly image: RgbImage;
}

/** One point of a curve: loss over steps, or success over releases. */
export interface AttackPoint {
  readonly x: number;
  readonly y: number;
}

/** A curve of the report. */
export interface AttackCurve {
  readonly name: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly points: readonly AttackPoint[];
}

/** What one attack did. A measurement, never a guarantee. */
export interface AttackResult {
  /** Short and unique within a report: 'decoder T', 'averaging ×64 fresh'. */
  readonly name: string;
  /** One or two sentences for a reader who is no specialist. */
  readonly description: string;
  /** The first one is the headline. */
  readonly values: readonly AttackValue[];
  readonly baselines: readonly AttackBaseline[];
  /** Samples it was tried on; none of them was trained on. */
  readonly samples: number;
  /** Samples it was trained on; 0 for an attack that needs none. */
  readonly trainedOn: number;
  /** False if the attack failed to beat a floor or fails without noise too: that says nothing about privacy. */
  readonly live: boolean;
  readonly liveReason: string;
  /** False if it ran too short, or on too little data, to be believed. */
  readonly trusted: boolean;
  readonly trustedReason: string;
  /** What it ran with, for the record. */
  readonly settings: Readonly<Record<string, string | number | boolean>>;
  readonly pictures: readonly AttackPicture[];
  readonly curves: readonly AttackCurve[];
}

/** Hooks of a running attack. */
export interface AttackHooks {
  readonly onProgress?: (progress: {
    readonly attack: string;
    readonly done: number;
    readonly of: number;
    readonly loss?: number;
  }) => void;
  /** Stops the attack, which throws CANCELLED. */
  readonly signal?: AbortSignal;
  /** Where decoders under training are kept, so that an interrupted attack goes on where it stopped. */
  readonly checkpoints?: TrainingCheckpoints;
}

/** Everything an attacker's training needs to go on and get the same result. */
export interface TrainingCheckpoint {
  readonly trainer: TrainerState;
  /** Of batches and noise, before the next step's. */
  readonly random: FitRandomState;
  /** Curves so far. */
  readonly trained: readonly AttackPoint[];
  readonly heldOut: readonly AttackPoint[];
  /** Training loss since the last point of its curve. */
  readonly recent: { readonly sum: number; readonly count: number };
}

/** Keeps trainings by name. The caller answers for data and settings being the same when one is loaded. */
export interface TrainingCheckpoints {
  load(name: string): Promise<TrainingCheckpoint | undefined>;
  save(name: string, checkpoint: TrainingCheckpoint): Promise<void>;
}

/**
 * Loads the head of a service to attack.
 * @throws ScrimError UNSUPPORTED unless head and remote have one input each and the head one output
 */
export function createAttackTarget(parts: AttackTargetParts): Promise<AttackTarget> {
  return loadHead(parts);
}

async function loadHead<T extends ModelHalves>(parts: T): Promise<T & AttackedModel> {
  const [input, ...moreInputs] = parts.head.inputNames;
  const [cut, ...moreOutputs] = parts.head.outputNames;
  const remoteInputs = parts.remote.inputNames.length;
  if (input === undefined || cut === undefined || moreInputs.length + moreOutputs.length > 0 || remoteInputs !== 1) {
    throw new ScrimError(
      'UNSUPPORTED',
      `the head has ${parts.head.inputNames.length} inputs and ${parts.head.outputNames.length} outputs and the remote ` +
        `model ${remoteInputs} inputs; the audit expects one of each`,
    );
  }
  const headSession = await parts.engine.load(parts.head.encode());
  return { ...parts, input, cut, headSession, close: () => headSession.close() };
}

/**
 * Opens a complete bundle for attack.
 * @param bundle with its models; complete a noise-only one first
 * @throws ScrimError INVALID_BUNDLE if head or remote model are not part of it
 */
export async function openAttackTarget(bundle: Bundle, engine: Engine): Promise<AttackTarget> {
  const { manifest, parameters, hash } = bundle;
  expectComplete(bundle);
  const head = Graph.decode(await bundle.read(HEAD_PATH));
  const remote = Graph.decode(await bundle.read(`remote/${manifest.remote.noisy}/1/model.onnx`));
  const name = `${manifest.model.name} ${manifest.transform.kind} α ${manifest.alpha}`;
  return createAttackTarget({ name, engine, head, remote, parameters, bundleHash: hash, alpha: manifest.alpha });
}

/**
 * Opens the model of a bottleneck bundle without its transform: the head up to the activation that the encoder reads, and
 * the clean tail. What attackers get from it shows that they work. A diagonal bundle has that activation in its own head.
 * @throws ScrimError INVALID_ARGUMENT for a bundle without a bottleneck; INVALID_BUNDLE if head or remote model are not
 * part of it
 */
export async function openCleanModel(bundle: Bundle, engine: Engine): Promise<AttackedModel> {
  const { manifest } = bundle;
  const { bottleneck } = manifest;
  assertArgument(bottleneck !== undefined, `the transform is ${manifest.transform.kind}, expected a bottleneck`);
  expectComplete(bundle);
  const head = Graph.decode(await bundle.read(HEAD_PATH));
  head.setOutputs([bottleneck.cut]);
  head.prune();
  const remote = Graph.decode(await bundle.read(`remote/${manifest.remote.base}/1/model.onnx`));
  return loadHead({ name: `${manifest.model.name}, clean`, engine, head, remote });
}

function expectComplete({ complete }: Bundle): void {
  if (!complete) {
    throw new ScrimError('INVALID_BUNDLE', 'the bundle holds the noise only; an audit needs its head and remote model');
  }
}

/** How {@link collectAttackData} keeps samples. */
export interface CollectOptions {
  /** Longest side of the pictures to rebuild, in pixels; default 256. */
  readonly pictureSide?: number;
  readonly onProgress?: (done: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Runs the head over samples and keeps activations and pictures. The pictures' size follows from the strides: the cut
 * tensor's height and width, doubled as often as neither the input nor `pictureSide` is passed.
 * @throws ScrimError INVALID_DATA for no samples or samples of several sizes, UNSUPPORTED if the cut is no image
 */
export async function collectAttackData(
  target: AttackedModel,
  samples: AsyncIterable<AttackSample> | Iterable<AttackSample>,
  options: CollectOptions = {},
): Promise<AttackData> {
  const { pictureSide = 256 } = options;
  const records: AttackRecord[] = [];
  const ids = new Set<string>();
  let shape: AttackData['shape'] | undefined;
  let inputShape: readonly number[] = [];
  let picture = { width: 0, height: 0 };
  for await (const { id, input, picture: original, boxes, ...labels } of samples) {
    if (options.signal?.aborted) throw new ScrimError('CANCELLED', 'the audit was interrupted while it read samples');
    if (ids.has(id)) throw new ScrimError('INVALID_DATA', `two samples are called '${id}'`);
    ids.add(id);
    const { [target.cut]: cut } = await target.headSession.run({ [target.input]: input });
    const activation = expectType(cut as Tensor, 'float32', 'the activation');
    const [batch, channels = 0, height = 0, width = 0, ...more] = activation.shape;
    if (batch !== 1 || width === 0 || more.length > 0) {
      throw new ScrimError(
        'UNSUPPORTED',
        `the cut tensor has shape [${activation.shape.join(', ')}]; attacks that rebuild pictures expect [1, C, H, W]`,
      );
    }
    if (shape === undefined) {
      shape = [channels, height, width];
      inputShape = input.shape.slice(1);
      picture = pictureSize([height, width], inputShape.slice(1), pictureSide);
    }
    if (String(activation.shape.slice(1)) !== String(shape)) {
      throw new ScrimError(
        'INVALID_DATA',
        `sample '${id}' has an activation of [${activation.shape.slice(1).join(', ')}], the ones before it ` +
          `[${shape.join(', ')}]: use inputs of one size`,
      );
    }
    records.push({
      id,
      ...labels,
      activation: activation.data,
      picture: resizePicture(original, picture).data,
      ...(boxes === undefined ? {} : { boxes: boxes.map((box) => scaleBox(box, original, picture)) }),
    });
    options.onProgress?.(records.length);
  }
  if (shape === undefined) throw new ScrimError('INVALID_DATA', 'there are no samples to attack');
  return { shape, inputShape, picture, records };
}

/** Some of the samples of `data`, by place. */
export function selectRecords(data: AttackData, from: number, to: number): AttackData {
  return { ...data, records: data.records.slice(from, to) };
}

/** Every n-th of the items, `count` of them or all: of photos, each folder keeps its share. */
export function selectEvenly<T>(items: readonly T[], count: number): T[] {
  const selected = Math.min(count, items.length);
  return Array.from({ length: selected }, (_, i) => items[Math.floor((i * items.length) / selected)] as T);
}

/** Height and width of the cut, doubled while both stay within the input and the longest side. */
function pictureSize(
  [height, width]: readonly [number, number],
  [inputHeight = 0, inputWidth = 0]: readonly number[],
  side: number,
): { width: number; height: number } {
  let factor = 1;
  const fits = (f: number): boolean =>
    height * f <= inputHeight && width * f <= inputWidth && Math.max(height, width) * f <= side;
  while (fits(factor * 2)) factor *= 2;
  return { width: width * factor, height: height * factor };
}

/**
 * Resamples a picture by averaging what each new pixel covers, which keeps no detail finer than the new pixels.
 * @throws ScrimError INVALID_ARGUMENT if the data does not fit width and height
 */
export function resizePicture(image: RgbImage, size: { readonly width: number; readonly height: number }): RgbImage {
  const { width, height } = size;
  assertArgument(
    image.data.length === image.width * image.height * 3,
    `a picture of ${image.width}×${image.height} has ${image.data.length} bytes, expected 3 a pixel`,
  );
  if (image.width === width && image.height === height) return image;
  const rows = covers(image.height, height);
  const columns = covers(image.width, width);
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const [top, rowWeights] = rows[y] as Cover;
    for (let x = 0; x < width; x++) {
      const [left, columnWeights] = columns[x] as Cover;
      let [red, green, blue] = [0, 0, 0];
      for (let j = 0; j < rowWeights.length; j++) {
        for (let i = 0; i < columnWeights.length; i++) {
          const weight = (rowWeights[j] as number) * (columnWeights[i] as number);
          const at = ((top + j) * image.width + left + i) * 3;
          red += weight * (image.data[at] as number);
          green += weight * (image.data[at + 1] as number);
          blue += weight * (image.data[at + 2] as number);
        }
      }
      const to = (y * width + x) * 3;
      data[to] = Math.round(red);
      data[to + 1] = Math.round(green);
      data[to + 2] = Math.round(blue);
    }
  }
  return { width, height, data };
}

type Cover = readonly [first: number, weights: readonly number[]];

/** Which source pixels each of `to` pixels covers, and how much of it each makes up. */
function covers(from: number, to: number): Cover[] {
  const scale = from / to;
  return Array.from({ length: to }, (_, i) => {
    const [start, end] = [i * scale, (i + 1) * scale];
    const first = Math.min(from - 1, Math.floor(start));
    const last = Math.max(first, Math.min(from - 1, Math.ceil(end - 1e-9) - 1));
    const weights: number[] = [];
    for (let p = first; p <= last; p++) weights.push(Math.min(end, p + 1) - Math.max(start, p));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return [first, weights.map((weight) => weight / total)];
  });
}

function scaleBox(box: Box, from: { width: number; height: number }, to: { width: number; height: number }): Box {
  const [sx, sy] = [to.width / from.width, to.height / from.height];
  return { x: box.x * sx, y: box.y * sy, width: box.width * sx, height: box.height * sy };
}

/** A picture [3, H, W] of values in [0, 1] as bytes [H, W, 3], clamped. @throws ScrimError INVALID_ARGUMENT otherwise */
export function planesToImage(planes: Float32Array, width: number, height: number): RgbImage {
  const plane = width * height;
  assertArgument(planes.length === 3 * plane, `the picture has ${planes.length} values, expected 3·${width}·${height}`);
  const data = new Uint8Array(3 * plane);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < plane; i++) {
      data[i * 3 + c] = Math.max(0, Math.min(255, Math.round((planes[c * plane + i] as number) * 255)));
    }
  }
  return { width, height, data };
}

/** Bytes [H, W, 3] as a tensor [3, H, W] of values in [0, 1]. */
export function imageToPlanes(bytes: Uint8Array, width: number, height: number): Tensor<'float32'> {
  const plane = width * height;
  const planes = float32([3, height, width], new Float32Array(3 * plane));
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < plane; i++) planes.data[c * plane + i] = (bytes[i * 3 + c] as number) / 255;
  }
  return planes;
}
