/**
 * FaceBoxes ready to use: a graph and everything that detection with it needs, from the npm package
 * `@vladmandic/human` (the default) or from a PyTorch checkpoint such as FaceBoxesProd.pth. Measured against both
 * trainings' own runtimes; test/suites/faceboxes-ap.mjs holds them to their accuracy.
 */
import type { Graph } from '../onnx/graph.js';
import { type AnchorSpec, FACEBOXES_LEVELS } from './anchors.js';
import type { Variances } from './boxes.js';
import { type CheckpointLimits, readCheckpoint } from './checkpoint.js';
import { buildFaceBoxesGraph, FACEBOXES_CUT, type FaceBoxesVariant } from './faceboxes-graph.js';
import { weightsFromStateDict, weightsFromTfjs } from './faceboxes-weights.js';
import type { Preprocessing } from './pixels.js';
import { readTfjsModel, type TfjsLimits } from './tfjs.js';

/** All that surrounds a detector's graph: how pixels go in, and how boxes come out. JSON-safe. */
export interface DetectorSpec {
  /** Which training this is. */
  readonly name: string;
  readonly preprocessing: Preprocessing;
  readonly anchors: AnchorSpec;
  readonly variances: Variances;
  /** Overlap above which the weaker of two boxes is dropped. */
  readonly overlapThreshold: number;
  /** Boxes below this probability are dropped before anything else. */
  readonly scoreFloor: number;
  /** Most boxes that enter the suppression, and most that leave it, per picture. */
  readonly maxCandidates: number;
  readonly maxDetections: number;
  /** True if boxes are cut at the picture's edges. */
  readonly clip: boolean;
  /** Sides of the network's input are multiples of this. */
  readonly multiple: number;
  /** Side in pixels of the square that photos are best resized to; default 1024, the size that TR-4928 measures at. */
  readonly side?: number | undefined;
  /** Names in the graph: its input, its outputs, and the value at the natural cut. */
  readonly input: string;
  readonly outputs: { readonly offsets: string; readonly scores: string };
  readonly cut: string;
}

/** A detector: its graph, and what surrounds it. */
export interface FaceBoxesModel {
  readonly graph: Graph;
  readonly spec: DetectorSpec;
}

const SHARED = {
  variances: [0.1, 0.2],
  overlapThreshold: 0.3,
  scoreFloor: 0.05,
  multiple: 128,
  input: 'image',
  outputs: { offsets: 'loc', scores: 'conf' },
  cut: FACEBOXES_CUT,
} as const;

/**
 * The training that `@vladmandic/human` carries: RGB to [−1, 1], black canvas, default boxes cut at the edges. Cubic
 * enlargement is worth one and a half points of AP to it at 1024×1024.
 */
export const FACEBOXES_TFJS_SPEC: DetectorSpec = {
  name: 'faceboxes-tfjs',
  preprocessing: { order: 'rgb', mean: [127.5, 127.5, 127.5], scale: 1 / 127.5, fill: [0, 0, 0], kernel: 'cubic' },
  anchors: { levels: FACEBOXES_LEVELS, dense: 'square', clip: true },
  clip: true,
  // Its probabilities of background seldom fall below the floor: thousands of boxes pass it, and none matters.
  maxCandidates: 1000,
  maxDetections: 200,
  ...SHARED,
};

/** The PyTorch training: BGR minus the ImageNet mean, canvas in that mean, bilinear enlargement as it was trained with. */
export const FACEBOXES_PYTORCH_SPEC: DetectorSpec = {
  name: 'faceboxes-pytorch',
  preprocessing: { order: 'bgr', mean: [104, 117, 123], scale: 1, fill: [123, 117, 104], kernel: 'linear' },
  anchors: { levels: FACEBOXES_LEVELS, dense: 'cell', clip: false },
  clip: false,
  maxCandidates: 5000,
  maxDetections: 750,
  ...SHARED,
};

const TFJS_VARIANT: FaceBoxesVariant = { padding: 'same', inceptionPool: 'max' };
const PYTORCH_VARIANT: FaceBoxesVariant = { padding: 'symmetric', inceptionPool: 'average' };

/**
 * FaceBoxes from `models/faceboxes.json` (its text) and `models/faceboxes.bin` of `@vladmandic/human`.
 * @throws ScrimError INVALID_DATA if the files are not that network; as {@link readTfjsModel} else.
 */
export function faceBoxesFromTfjs(json: string, bin: Uint8Array, limits?: Partial<TfjsLimits>): FaceBoxesModel {
  const weights = weightsFromTfjs(readTfjsModel(json, bin, limits));
  return { graph: buildFaceBoxesGraph(weights, TFJS_VARIANT), spec: FACEBOXES_TFJS_SPEC };
}

/**
 * FaceBoxes from a PyTorch checkpoint, legacy or zip, that holds the state dict of the PyTorch training.
 * @throws ScrimError INVALID_DATA if it holds another network; as {@link readCheckpoint} else.
 */
export function faceBoxesFromCheckpoint(bytes: Uint8Array, limits?: Partial<CheckpointLimits>): FaceBoxesModel {
  const weights = weightsFromStateDict(readCheckpoint(bytes, limits));
  return { graph: buildFaceBoxesGraph(weights, PYTORCH_VARIANT), spec: FACEBOXES_PYTORCH_SPEC };
}
