// Verification accuracy of face-api's network through our graph and crop on pairs of photos of LFW, on faces that
// FaceBoxes finds: AUC, TAR at FAR 1e-2 and the best accuracy on as many pairs of each kind. Needs a built tree and the
// photos of people, a folder each: node test/suites/face-embedder.mjs <folder>. Skips without them.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rocAuc, tarAtFar } from '../../packages/scrim/dist/metrics/index.js';
import { createInputReader, createNodeEngine, listPhotos, readImage } from '../../packages/scrim/dist/node/index.js';
import {
  createDetectionDecoder,
  createFaceEmbedder,
  faceBoxesFromTfjs,
  faceEmbedderFromFaceApi,
} from '../../packages/scrim/dist/vision/index.js';

const print = (text) => process.stdout.write(`${text}\n`);
const folder = process.argv[2] ?? fileURLToPath(new URL('../../../shared/data/lfw/audit', import.meta.url));
if (!existsSync(folder)) {
  print('skipped: the photos are not there');
  process.exit(0);
}
const packageFile = (name, path) => join(dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), path);
const engine = await createNodeEngine();
const weights = (name) => packageFile('@vladmandic/face-api', `model/face_recognition_model${name}`);
const graph = faceEmbedderFromFaceApi(
  readFileSync(weights('-weights_manifest.json'), 'utf8'),
  readFileSync(weights('.bin')),
);
const embedder = await createFaceEmbedder(engine, graph.encode());
const boxes = (name) => packageFile('@vladmandic/human', `models/faceboxes${name}`);
const { graph: detector, spec } = faceBoxesFromTfjs(readFileSync(boxes('.json'), 'utf8'), readFileSync(boxes('.bin')));
const session = await engine.load(detector.encode());
const reader = createInputReader(spec, { kind: 'stretch', width: 256, height: 256 });
const decoder = createDetectionDecoder(spec);

const faces = [];
for (const path of await listPhotos(folder)) {
  const { tensor, plan } = await reader.read(path);
  const found = await session.run({ [spec.input]: tensor });
  const [detections] = decoder.decodeOutputs(found, [plan], {
    minScore: 0.3,
  });
  const area = ({ box: [left, top, right, bottom] }) => (right - left) * (bottom - top);
  const [best] = detections.sort((a, b) => area(b) - area(a));
  if (!best) continue;
  const [x, y, right, bottom] = best.box;
  const vector = await embedder.embed(await readImage(path), { x, y, width: right - x, height: bottom - y });
  faces.push({ person: dirname(path), vector });
}
const [genuine, impostor] = [[], []];
for (const [i, a] of faces.entries()) {
  for (const b of faces.slice(i + 1)) {
    (a.person === b.person ? genuine : impostor).push(embedder.similarity(a.vector, b.vector));
  }
}
await engine.close();
const every = Math.max(1, Math.floor(impostor.length / genuine.length));
const others = impostor.filter((_, i) => i % every === 0).slice(0, genuine.length);
const accuracy = (threshold) =>
  (genuine.filter((score) => score >= threshold).length / genuine.length +
    others.filter((score) => score < threshold).length / others.length) /
  2;
const best = Math.max(...[...genuine, ...others].map(accuracy));
const auc = rocAuc(genuine, impostor);
print(`${faces.length} faces, ${genuine.length} pairs of one person, ${impostor.length} of two`);
print(
  `AUC ${auc.toFixed(4)}, TAR at FAR 1e-2 ${tarAtFar(genuine, impostor, 0.01).tar.toFixed(3)}, accuracy ${best.toFixed(3)}`,
);
const good = auc > 0.98 && best > 0.94;
print(good ? '1 passed, 0 failed' : '0 passed, 1 failed: expected AUC > 0.98 and accuracy > 0.94');
process.exitCode = good ? 0 : 1;
