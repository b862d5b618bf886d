/**
 * From a photo's size to the network's input and back: which size a photo is resized to, and how the network's outputs
 * become boxes in the photo's own pixels. Running the network lies between the two and is left to the caller, since
 * here its two halves may stand on two machines.
 */
import { ScrimError } from '../errors.js';
import { expectType, type Tensor } from '../tensor.js';
import { countAnchors, makeAnchors } from './anchors.js';
import { decodeBoxes, selectByScore, suppressOverlaps } from './boxes.js';
import type { DetectorSpec } from './faceboxes.js';
import { expectSize, type Size } from './image.js';

/** One found object. */
export interface Detection {
  /** Left, top, right, bottom in pixels of the photo; the upper left corner of its first pixel is 0, 0. */
  readonly box: readonly [left: number, top: number, right: number, bottom: number];
  /** Probability that the network states, 0 to 1. */
  readonly score: number;
}

/**
 * How a photo becomes the network's input. 'stretch': to exactly this size, whatever its shape; every photo then has
 * the same activation shape. 'native': by one factor along both sides, at the upper left of a canvas whose sides are the
 * next multiples; `maxSide` bounds the longer side after scaling.
 */
export type ResizeMode =
  | ({ readonly kind: 'stretch' } & Size)
  | { readonly kind: 'native'; readonly scale?: number; readonly maxSide?: number };

/** The side of the square that photos are resized to where nothing names another, as TR-4928 measures. */
export const DEFAULT_SIDE = 1024;

/** Exactly the square that a detector's photos are best resized to, whatever their shape: 1024×1024 where it names none. */
export function defaultResize({ side = DEFAULT_SIDE }: Pick<DetectorSpec, 'side'>): ResizeMode {
  return { kind: 'stretch', width: side, height: side };
}

/** What happens to one photo: it is resized to `resized` and lies at the upper left of `canvas`. */
export interface ResizePlan {
  readonly original: Size;
  readonly resized: Size;
  readonly canvas: Size;
}

/** What {@link createDetectionDecoder} may be told to change for one call. */
export interface DecodeOptions {
  /** Least probability; default: the detector's floor. */
  readonly minScore?: number;
  /** Most detections per photo; default: the detector's. */
  readonly maxDetections?: number;
}

/** Turns outputs into detections. Keeps the default boxes of the canvas sizes it saw last. */
export interface DetectionDecoder {
  readonly spec: DetectorSpec;
  /**
   * Detections of each photo of a batch, strongest first.
   * @param offsets [N, P, 4] @param scores [N, P, 2], background first
   * @param plans one a photo; all with one canvas.
   * @throws ScrimError INVALID_ARGUMENT if a shape does not fit the plans.
   */
  decode(offsets: Tensor, scores: Tensor, plans: readonly ResizePlan[], options?: DecodeOptions): Detection[][];
  /**
   * As `decode`, from the network's outputs by their names.
   * @throws ScrimError INVALID_ARGUMENT also if one of the two is not among them.
   */
  decodeOutputs(
    outputs: Readonly<Record<string, Tensor>>,
    plans: readonly ResizePlan[],
    options?: DecodeOptions,
  ): Detection[][];
}

const MAX_CANVAS_SIDE = 16_384;
const KEPT_CANVASES = 4;

/**
 * Plans the resizing of a photo of size `original` for a network whose sides are multiples of `multiple`.
 * @throws ScrimError INVALID_ARGUMENT for sizes or scales that are not positive, a fixed size that is no multiple, or a
 * canvas above 16,384 pixels along a side.
 */
export function planResize(original: Size, mode: ResizeMode, multiple: number): ResizePlan {
  expectSize(original, 'the photo');
  let plan: ResizePlan;
  if (mode.kind === 'stretch') {
    const size = { width: mode.width, height: mode.height };
    expectSize(size, 'the input');
    if (size.width % multiple !== 0 || size.height % multiple !== 0) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `the input is ${size.width}×${size.height}, expected multiples of ${multiple}`,
      );
    }
    plan = { original: sizeOf(original), resized: size, canvas: size };
  } else {
    const { scale = 1, maxSide = MAX_CANVAS_SIDE } = mode;
    if (!(scale > 0) || !Number.isFinite(scale) || !(maxSide >= 1)) {
      throw new ScrimError('INVALID_ARGUMENT', `scale is ${scale} and maxSide ${maxSide}, expected positive numbers`);
    }
    const factor = Math.min(scale, maxSide / Math.max(original.width, original.height));
    const side = (length: number): number => Math.max(1, Math.round(length * factor));
    const resized = { width: side(original.width), height: side(original.height) };
    const up = (length: number): number => Math.ceil(length / multiple) * multiple;
    plan = { original: sizeOf(original), resized, canvas: { width: up(resized.width), height: up(resized.height) } };
  }
  if (Math.max(plan.canvas.width, plan.canvas.height) > MAX_CANVAS_SIDE) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `the input would be ${plan.canvas.width}×${plan.canvas.height}, at most ${MAX_CANVAS_SIDE} along a side`,
    );
  }
  return plan;
}

/** Makes a decoder for a detector. Not shared state: each caller has its own. */
export function createDetectionDecoder(spec: DetectorSpec): DetectionDecoder {
  const kept = new Map<string, Float32Array>();
  const anchorsFor = (canvas: Size): Float32Array => {
    const key = `${canvas.width}×${canvas.height}`;
    let anchors = kept.get(key);
    if (anchors === undefined) {
      anchors = makeAnchors(spec.anchors, canvas);
      const oldest = kept.keys().next();
      if (kept.size >= KEPT_CANVASES && !oldest.done) kept.delete(oldest.value);
      kept.set(key, anchors);
    }
    return anchors;
  };

  const decoder: DetectionDecoder = {
    spec,
    decodeOutputs(outputs, plans, options) {
      const [offsets, scores] = [outputs[spec.outputs.offsets], outputs[spec.outputs.scores]];
      if (offsets !== undefined && scores !== undefined) return decoder.decode(offsets, scores, plans, options);
      const found = Object.keys(outputs).map((name) => `'${name}'`);
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `the outputs are ${found.join(', ') || 'none'}, expected '${spec.outputs.offsets}' and '${spec.outputs.scores}'`,
      );
    },
    decode(offsets, scores, plans, options = {}) {
      const canvas = plans[0]?.canvas;
      if (canvas === undefined) throw new ScrimError('INVALID_ARGUMENT', 'plans is empty, expected one a photo');
      if (plans.some((plan) => plan.canvas.width !== canvas.width || plan.canvas.height !== canvas.height)) {
        throw new ScrimError('INVALID_ARGUMENT', 'plans have different canvases, expected one for the whole batch');
      }
      const count = countAnchors(spec.anchors, canvas);
      const boxes = expectShape(offsets, [plans.length, count, 4], spec.outputs.offsets);
      const probabilities = expectShape(scores, [plans.length, count, 2], spec.outputs.scores);
      const anchors = anchorsFor(canvas);
      return plans.map((plan, n) =>
        decodeOne(
          spec,
          boxes.subarray(4 * count * n, 4 * count * (n + 1)),
          probabilities.subarray(2 * count * n, 2 * count * (n + 1)),
          anchors,
          plan,
          options,
        ),
      );
    },
  };
  return decoder;
}

/**
 * What surrounds the detector that a bundle's model is (`bundle.manifest.model`).
 * @throws ScrimError UNSUPPORTED if it is none
 */
export function detectorOf(model: {
  readonly name: string;
  readonly detector?: DetectorSpec | undefined;
}): DetectorSpec {
  if (model.detector !== undefined) return model.detector;
  throw new ScrimError('UNSUPPORTED', `'${model.name}' is no detector`);
}

function decodeOne(
  spec: DetectorSpec,
  offsets: Float32Array,
  scores: Float32Array,
  anchors: Float32Array,
  plan: ResizePlan,
  options: DecodeOptions,
): Detection[] {
  const floor = options.minScore ?? spec.scoreFloor;
  const selected = selectByScore(scores, anchors.length / 4, floor, spec.maxCandidates, 2, 1);
  const boxes = decodeBoxes(offsets, anchors, spec.variances, selected);
  const kept = suppressOverlaps(boxes, spec.overlapThreshold, options.maxDetections ?? spec.maxDetections);

  const { original, resized } = plan;
  const along = (value: number, from: number, to: number): number => {
    const scaled = (value * to) / from;
    return spec.clip ? Math.min(Math.max(scaled, 0), to) : scaled;
  };
  return Array.from(kept, (k) => ({
    box: [
      along(boxes[4 * k]!, resized.width, original.width),
      along(boxes[4 * k + 1]!, resized.height, original.height),
      along(boxes[4 * k + 2]!, resized.width, original.width),
      along(boxes[4 * k + 3]!, resized.height, original.height),
    ] as const,
    score: scores[2 * selected[k]! + 1]!,
  }));
}

function expectShape(value: Tensor, shape: readonly number[], what: string): Float32Array {
  const found = expectType(value, 'float32', what);
  if (found.shape.join() !== shape.join()) {
    throw new ScrimError('INVALID_ARGUMENT', `${what} is [${found.shape.join(', ')}], expected [${shape.join(', ')}]`);
  }
  return found.data;
}

function sizeOf({ width, height }: Size): Size {
  return { width, height };
}
