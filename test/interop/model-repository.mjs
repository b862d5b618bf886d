// Writes the model repository that the interop tests and the servers' benchmarks serve: the FaceBoxes tail under
// Triton's names with and without batching, and small models for classification, text and exact integers. And makes the
// remote model that is exported by default, for the benchmarks.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { exportRepository } from 'scrim/client';
import { Graph } from 'scrim/onnx';
import { splitAt } from 'scrim/split';
import { FACEBOXES_CUT, faceBoxesFromTfjs } from 'scrim/vision';
import { openServable } from '../../packages/cli/dist/remote-bundle.js';
import { describeRemoteModel, remoteModel, tritonConfig } from '../../packages/scrim/dist/bundle/remote-model.js';

/** The FaceBoxes weights that the npm package @vladmandic/human brings. */
function faceBoxes() {
  const require = createRequire(new URL('../../packages/cli/package.json', import.meta.url));
  const models = join(dirname(require.resolve('@vladmandic/human/package.json')), 'models');
  return faceBoxesFromTfjs(
    readFileSync(join(models, 'faceboxes.json'), 'utf8'),
    new Uint8Array(readFileSync(join(models, 'faceboxes.bin'))),
  ).graph;
}

function write(root, name, model, config, files = {}) {
  mkdirSync(join(root, name, '1'), { recursive: true });
  writeFileSync(join(root, name, '1', 'model.onnx'), model);
  if (config !== undefined) writeFileSync(join(root, name, 'config.pbtxt'), config);
  for (const [path, text] of Object.entries(files)) writeFileSync(join(root, name, path), text);
}

/** The tail of FaceBoxes at the document's cut; with `batch` the first dimension is fixed. */
export function faceBoxesTail() {
  const { tail } = splitAt(faceBoxes(), [FACEBOXES_CUT].flat());
  return remoteModel(tail);
}

/**
 * What `scrim repo export` makes of the shipped bottleneck bundle at alpha 0.8 for the default payload: FP16 [N, 8, H, W] in,
 * the strongest 1,000 of FaceBoxes' anchors out.
 */
export async function defaultRemote() {
  const bundle = await openServable({ model: 'faceboxes', alpha: 0.8, transform: 'bottleneck' });
  const files = await exportRepository(bundle, { payloads: ['fp16'] });
  const [, bytes] = [...files].find(([path]) => path.endsWith('.onnx'));
  const { input, outputs } = bundle.manifest.remote;
  return describeRemoteModel(Graph.decode(bytes), input, outputs);
}

/** Writes one model below `root`; `settings` are further lines of its configuration. */
export function writeRemote(root, name, model, maxBatchSize, settings = '') {
  write(root, name, model.graph.encode(), tritonConfig(name, model, maxBatchSize) + settings);
}

/** y = x + 1 on rows of `width` elements of `dtype`. */
export function addOne(dtype, width, batch = 'batch') {
  const one = { float32: Float32Array.of(1), int64: BigInt64Array.of(1n) }[dtype];
  const graph = Graph.create({ name: 'add-one', opset: 17 });
  graph.addInput('INPUT__0', dtype, [batch, width]);
  const constant = graph.addInitializer('one', { dtype, shape: [1], data: one });
  graph.add('Add', ['INPUT__0', constant], {}, { outputs: ['OUTPUT__0'] });
  graph.addOutput('OUTPUT__0', dtype, [batch, width]);
  return graph.encode();
}

/** y = x on text. */
function echoText() {
  const graph = Graph.create({ name: 'echo', opset: 17 });
  graph.addInput('INPUT__0', 'string', ['batch', 2]);
  graph.add('Identity', ['INPUT__0'], {}, { outputs: ['OUTPUT__0'] });
  graph.addOutput('OUTPUT__0', 'string', ['batch', 2]);
  return graph.encode();
}

/** Writes all models below `root`. */
export function writeModelRepository(root) {
  const tail = faceBoxesTail();
  writeRemote(root, 'faceboxes', tail, 0);
  if (tail.batches) writeRemote(root, 'faceboxes_batched', tail, 8);
  write(root, 'tiny', addOne('float32', 4), undefined);
  write(root, 'integers', addOne('int64', 2), undefined);
  write(
    root,
    'labelled',
    addOne('float32', 3),
    'platform: "onnxruntime_onnx"\nmax_batch_size: 4\ninput { name: "INPUT__0" data_type: TYPE_FP32 dims: 3 }\n' +
      'output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: 3 label_filename: "labels.txt" }\n',
    { 'labels.txt': 'cat\ndog\nbird\n' },
  );
  write(root, 'text', echoText(), undefined);
  return { batches: tail.batches, input: tail.graph.declaredType('INPUT__0').shape };
}
