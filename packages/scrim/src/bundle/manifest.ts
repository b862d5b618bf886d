/**
 * `manifest.json`: what a bundle is, how it was made and what was measured of it.
 *
 * The schema is strict: unknown fields are refused, so that a typing error in a privacy setting can't pass unnoticed.
 * Results are tagged values, `measured` or `proven`, and keep their conditions beside the number.
 */
import * as v from 'valibot';
import { ScrimError } from '../errors.js';

/** A figure that was measured, with the conditions it holds under. */
export interface MeasuredFigure {
  kind: 'measured';
  name: string;
  value: number;
  /** Standard deviation over `runs` draws of noise. */
  sd?: number | undefined;
  runs?: number | undefined;
  unit?: string | undefined;
  data: string;
  sampleSize: number;
  machine?: string | undefined;
  /** The command that prints it. */
  command?: string | undefined;
}

/** A figure that holds whatever an attacker does, under stated assumptions. */
export interface ProvenFigure {
  kind: 'proven';
  name: string;
  value: number;
  unit?: string | undefined;
  assumptions: string[];
}

/** A figure in a report or manifest. A measurement can't print as a guarantee. */
export type Figure = MeasuredFigure | ProvenFigure;

/** What the model is used for; it chooses the loss of the fit and how outputs are read. */
export type ManifestTask =
  | { kind: 'detection'; scores: string; boxes: string }
  | { kind: 'classification'; output: string }
  | { kind: 'regression'; outputs: string[] };

/** All that surrounds a detector's graph; the fields of `DetectorSpec` in vision/. */
export interface ManifestDetector {
  name: string;
  preprocessing: {
    order: 'rgb' | 'bgr';
    mean: [number, number, number];
    scale: number;
    fill: [number, number, number];
    kernel: 'linear' | 'cubic';
  };
  anchors: {
    levels: { stride: number; squares: { size: number; density: number }[] }[];
    dense: 'cell' | 'square';
    clip: boolean;
  };
  variances: [number, number];
  overlapThreshold: number;
  scoreFloor: number;
  maxCandidates: number;
  maxDetections: number;
  clip: boolean;
  multiple: number;
  /** Left out: 1024. */
  side?: number | undefined;
  input: string;
  outputs: { offsets: string; scores: string };
  cut: string;
}

/** How the transform was learned. */
export interface FitRecord {
  steps: number;
  batchSize: number;
  learningRate: number;
  /** Pictures composed from the photos, or inputs where the model takes none. */
  canvases: number;
  photos: number;
  /** Names of the folders, without their paths. */
  photoFolders: string[];
  seed: string;
  /** Task loss over the last steps. */
  finalTask: number;
  seconds?: number | undefined;
  command?: string | undefined;
}

/** The content of `manifest.json`. */
export interface Manifest {
  format: 'scrim-bundle';
  formatVersion: 1;
  /** ISO 8601. */
  createdAt: string;
  /** Name and version of the program that made it. */
  createdBy: string;
  alpha: number;
  model: {
    name: string;
    source: string;
    /** SHA-256 of the weights file the model was read from. */
    sha256: string;
    /** Name of the model's input. */
    input: string;
    /** How pictures become inputs and outputs become boxes, where the model is a detector. */
    detector?: ManifestDetector | undefined;
  };
  /** What crosses: names, element types and shapes as the model declares them. */
  cut: { tensors: { name: string; dtype: string; shape: (number | string)[] }[] };
  transform: {
    /** 'bottleneck': the head ends in an encoder and the diagonal release is that of its few channels. */
    kind: 'diagonal' | 'bottleneck';
    granularity: 'per-channel' | 'per-element';
    channels: number;
    suppressedChannels: number;
    /** Bound of one release in nats per spatial position; times H·W it is the bound of one input. */
    natsPerPosition: number;
  };
  /** Of a bottleneck: the tensor of the model that the encoder reads, and what weighed how much in its fit. */
  bottleneck?: { cut: string; encoder: 'linear' | 'mlp' | 'deep'; beta: number; adversary: number } | undefined;
  task: ManifestTask;
  /** The remote half: names of the two models, and what their tensors are called in the model. */
  remote: { noisy: string; base: string; input: string; outputs: { remote: string; model: string }[] };
  fit: FitRecord;
  results: Figure[];
  /** SHA-256 of every file but the manifest, by its path. */
  files: Record<string, string>;
}

const Sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'expected 64 hexadecimal digits'));
const Count = v.pipe(v.number(), v.integer(), v.minValue(0));
const Positive = v.pipe(v.number(), v.integer(), v.minValue(1));
const Finite = v.pipe(v.number(), v.finite());
const Alpha = v.pipe(Finite, v.minValue(0), v.maxValue(1));
const Name = v.pipe(v.string(), v.minLength(1), v.maxLength(256));
const ModelName = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_.-]{1,128}$/, 'expected letters, digits, _ . or -'));
const Path = v.pipe(
  v.string(),
  v.regex(/^(?!.*(?:^|\/)\.{1,2}(?:\/|$))[A-Za-z0-9_.-]+(?:\/[A-Za-z0-9_.-]+)*$/, 'expected a path inside the bundle'),
);
const Dimension = v.union([Count, v.string()]);
const ValueSchema = v.strictObject({ name: Name, dtype: v.string(), shape: v.array(Dimension) });

const MeasuredSchema = v.strictObject({
  kind: v.literal('measured'),
  name: Name,
  value: Finite,
  sd: v.optional(Finite),
  runs: v.optional(Count),
  unit: v.optional(v.string()),
  data: v.string(),
  sampleSize: Count,
  machine: v.optional(v.string()),
  command: v.optional(v.string()),
});

const ProvenSchema = v.strictObject({
  kind: v.literal('proven'),
  name: Name,
  value: Finite,
  unit: v.optional(v.string()),
  assumptions: v.pipe(v.array(v.string()), v.minLength(1)),
});

const TaskSchema = v.variant('kind', [
  v.strictObject({ kind: v.literal('detection'), scores: Name, boxes: Name }),
  v.strictObject({ kind: v.literal('classification'), output: Name }),
  v.strictObject({ kind: v.literal('regression'), outputs: v.array(Name) }),
]);

const Byte = v.pipe(Finite, v.minValue(0), v.maxValue(255));

const DetectorSchema = v.strictObject({
  name: Name,
  preprocessing: v.strictObject({
    order: v.picklist(['rgb', 'bgr']),
    mean: v.tuple([Finite, Finite, Finite]),
    scale: Finite,
    fill: v.tuple([Byte, Byte, Byte]),
    kernel: v.picklist(['linear', 'cubic']),
  }),
  anchors: v.strictObject({
    levels: v.array(
      v.strictObject({
        stride: Positive,
        squares: v.array(v.strictObject({ size: Count, density: v.pipe(Positive, v.maxValue(64)) })),
      }),
    ),
    dense: v.picklist(['cell', 'square']),
    clip: v.boolean(),
  }),
  variances: v.tuple([Finite, Finite]),
  overlapThreshold: Finite,
  scoreFloor: Finite,
  maxCandidates: Count,
  maxDetections: Count,
  clip: v.boolean(),
  multiple: Positive,
  side: v.optional(Positive),
  input: Name,
  outputs: v.strictObject({ offsets: Name, scores: Name }),
  cut: Name,
});

const FitSchema = v.strictObject({
  steps: Count,
  batchSize: Count,
  learningRate: Finite,
  canvases: Count,
  photos: Count,
  photoFolders: v.array(v.string()),
  seed: v.string(),
  finalTask: Finite,
  seconds: v.optional(Finite),
  command: v.optional(v.string()),
});

const ManifestSchema: v.GenericSchema<unknown, Manifest> = v.strictObject({
  format: v.literal('scrim-bundle'),
  formatVersion: v.literal(1),
  createdAt: v.string(),
  createdBy: v.string(),
  alpha: Alpha,
  model: v.strictObject({
    name: ModelName,
    source: v.string(),
    sha256: Sha256,
    input: Name,
    detector: v.optional(DetectorSchema),
  }),
  cut: v.strictObject({ tensors: v.pipe(v.array(ValueSchema), v.minLength(1)) }),
  transform: v.strictObject({
    kind: v.picklist(['diagonal', 'bottleneck']),
    granularity: v.picklist(['per-channel', 'per-element']),
    channels: Count,
    suppressedChannels: Count,
    natsPerPosition: Finite,
  }),
  bottleneck: v.optional(
    v.strictObject({
      cut: Name,
      encoder: v.picklist(['linear', 'mlp', 'deep']),
      beta: v.pipe(Finite, v.minValue(0)),
      adversary: v.pipe(Finite, v.minValue(0)),
    }),
  ),
  task: TaskSchema,
  remote: v.strictObject({
    noisy: ModelName,
    base: ModelName,
    input: Name,
    outputs: v.array(v.strictObject({ remote: Name, model: Name })),
  }),
  fit: FitSchema,
  results: v.array(v.variant('kind', [MeasuredSchema, ProvenSchema])),
  files: v.record(Path, Sha256),
});

/** Largest manifest that is read, in bytes. */
const MAX_MANIFEST_BYTES = 1 << 20;

/** Encodes a manifest as indented JSON. @throws ScrimError INVALID_BUNDLE if it breaks its own schema. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(checkManifest(manifest), null, 2)}\n`);
}

/** Decodes and checks a manifest. @throws ScrimError INVALID_BUNDLE naming the field. */
export function decodeManifest(bytes: Uint8Array): Manifest {
  if (bytes.length > MAX_MANIFEST_BYTES) {
    throw new ScrimError('INVALID_BUNDLE', `manifest.json has ${bytes.length} bytes, above ${MAX_MANIFEST_BYTES}`);
  }
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_BUNDLE', 'manifest.json is no JSON');
  }
  return checkManifest(json);
}

/**
 * Decodes what surrounds a detector's graph, as `scrim model import` writes it into an ONNX file.
 * @throws ScrimError INVALID_MODEL naming the field.
 */
export function decodeDetector(text: string): ManifestDetector {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw ScrimError.from(error, 'INVALID_MODEL', 'the description of the detector is no JSON');
  }
  const result = v.safeParse(DetectorSchema, json);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue) ?? '(the whole)';
  throw new ScrimError('INVALID_MODEL', `the description of the detector, field '${path}': ${issue.message}`);
}

function checkManifest(json: unknown): Manifest {
  const result = v.safeParse(ManifestSchema, json);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue) ?? '(the whole)';
  throw new ScrimError('INVALID_BUNDLE', `manifest.json, field '${path}': ${issue.message}`);
}
