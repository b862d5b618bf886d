/**
 * Accuracy of FaceBoxes on FDDB photos, from photo to boxes, for both sources of weights.
 *
 *   node test/suites/faceboxes-ap.mjs FDDB [FaceBoxesProd.pth]
 *
 * FDDB holds FDDB-folds/ and photos under originalPics/; the photos that are there are used. Expected is what was
 * measured on the first 103 photos of fold 5 at 1024×1024, IoU 0.5; other photos are held to the least only. Also
 * prints what each stage takes, head and tail apart. Exits with 1 if a figure is missed, with 2 if it was called
 * wrongly. Needs the built library (`npm run build`).
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createFddbEvaluator } from '../../packages/scrim/dist/metrics/index.js';
import { openFddb } from '../../packages/scrim/dist/node/fddb-files.js';
import { createNodeEngine } from '../../packages/scrim/dist/node/ort-engine.js';
import { createInputReader } from '../../packages/scrim/dist/node/vision-input.js';
import { splitAt } from '../../packages/scrim/dist/split/index.js';
import {
  createDetectionDecoder,
  faceBoxesFromCheckpoint,
  faceBoxesFromTfjs,
} from '../../packages/scrim/dist/vision/index.js';

const USUAL_PHOTOS = 103;
const TOLERANCE = 0.004;

const [fddbFolder, checkpoint, ...rest] = process.argv.slice(2);
if (fddbFolder === undefined || rest.length > 0) {
  process.stderr.write('usage: node test/suites/faceboxes-ap.mjs FDDB [FaceBoxesProd.pth]\n');
  process.exit(2);
}

const cases = [{ name: '@vladmandic/human', load: loadHuman, least: 0.885, usual: 0.9313 }];
if (checkpoint !== undefined) {
  const load = async () => faceBoxesFromCheckpoint(await readFile(checkpoint));
  cases.push({ name: checkpoint.split('/').at(-1), load, least: 0.935, usual: 0.9421 });
}

const fddb = await openFddb(fddbFolder);
const photos = fddb.photos.filter(({ present }) => present);
print(`${photos.length} of ${fddb.images.expected} photos, 1024×1024, IoU 0.5`);
let missed = 0;
for (const { name, load, least, usual } of cases) {
  const started = performance.now();
  const { graph, spec } = await load();
  const imported = performance.now() - started;
  const { ap, times } = await evaluate(graph, spec);
  const expected = photos.length === USUAL_PHOTOS ? Math.max(least, usual - TOLERANCE) : least;
  const ok = ap >= expected;
  if (!ok) missed++;
  print(`${ok ? 'ok  ' : 'FAIL'} ${name}: AP ${ap.toFixed(4)}, expected at least ${expected.toFixed(4)}`);
  const stages = Object.entries(times).map(([stage, ms]) => `${stage} ${(ms / photos.length).toFixed(1)}`);
  print(`     ms per photo: ${stages.join(', ')}; import ${imported.toFixed(0)} ms once`);
}
process.exitCode = missed === 0 ? 0 : 1;

async function evaluate(graph, spec) {
  const { head, tail } = splitAt(graph, [spec.cut]);
  const engine = await createNodeEngine();
  const headSession = await engine.load(head.encode());
  const tailSession = await engine.load(tail.encode());
  const reader = createInputReader(spec);
  const decoder = createDetectionDecoder(spec);
  const evaluator = createFddbEvaluator(fddb.folds);
  const times = { 'decode and pixels': 0, head: 0, tail: 0, boxes: 0 };
  for (const { name, path } of photos) {
    const clock = stopwatch(times);
    const { tensor, plan } = await reader.read(path);
    clock('decode and pixels');
    const activation = await headSession.run({ [spec.input]: tensor }, { transfer: true });
    clock('head');
    const outputs = await tailSession.run(activation, { transfer: true });
    clock('tail');
    const [detections] = decoder.decodeOutputs(outputs, [plan]);
    clock('boxes');
    evaluator.add(
      name,
      detections.map(({ box: [x, y, right, bottom], score }) => ({
        x,
        y,
        width: right - x,
        height: bottom - y,
        score,
      })),
    );
  }
  await engine.close();
  return { ap: evaluator.result().pooledAP, times };
}

async function loadHuman() {
  const folder = dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json'));
  const json = await readFile(join(folder, 'models', 'faceboxes.json'), 'utf8');
  return faceBoxesFromTfjs(json, await readFile(join(folder, 'models', 'faceboxes.bin')));
}

function stopwatch(times) {
  let last = performance.now();
  return (stage) => {
    const now = performance.now();
    times[stage] += now - last;
    last = now;
  };
}

function print(line) {
  process.stdout.write(`${line}\n`);
}
