/**
 * Regression of the average precision code against detections that others published for all of FDDB.
 *
 *   node test/suites/fddb-published.mjs FOLDER
 *
 * FOLDER holds FDDB-folds/ and published-detections/ with faceboxes.txt and faceboxes-square.txt (from the repository
 * lippman1125/fddb_evaluation; photos are not needed). Their AP at IoU 0.5, known from another implementation, is 0.888
 * and 0.886. Prints what it measured; exits with 1 on a mismatch, with 2 if it was called wrongly. Needs the built
 * library (`npm run build`).
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { averagePrecision, createFddbEvaluator, parseDetections } from '../../packages/scrim/dist/metrics/index.js';
import { openFddb } from '../../packages/scrim/dist/node/fddb-files.js';

const EXPECTED_IMAGES = 2845;
const EXPECTED_FACES = 5171;
/** `pooled`: known from elsewhere, to three decimals. The rest: our own figures, kept so that a change is noticed. */
const CASES = [
  { file: 'faceboxes.txt', pooled: '0.888', mean: '0.8880', pointwiseMean: '0.888' },
  { file: 'faceboxes-square.txt', pooled: '0.886', mean: '0.8866', pointwiseMean: '0.886' },
];
const SHARDS = 7;

const folder = process.argv[2];
if (folder === undefined || process.argv.length > 3) {
  process.stderr.write('usage: node test/suites/fddb-published.mjs FOLDER\n');
  process.exit(2);
}

const failures = [];
const check = (what, measured, expected) => {
  const ok = measured === expected;
  print(`  ${ok ? 'ok  ' : 'FAIL'} ${what}: ${measured}${ok ? '' : `, expected ${expected}`}`);
  if (!ok) failures.push(what);
};

const fddb = await openFddb(folder);
print('annotations');
check('images', fddb.images.expected, EXPECTED_IMAGES);
check('faces', fddb.faces.expected, EXPECTED_FACES);

for (const { file, pooled, mean, pointwiseMean } of CASES) {
  print(file);
  const images = parseDetections(await readFile(join(folder, 'published-detections', file), 'utf8'), file);
  const started = performance.now();
  const single = createFddbEvaluator(fddb.folds);
  for (const { name, detections } of images) single.add(name, detections);
  const result = single.result();
  const seconds = (performance.now() - started) / 1000;

  const count = images.reduce((sum, { detections }) => sum + detections.length, 0);
  print(`  ${count} detections in ${images.length} images, evaluated in ${seconds.toFixed(2)} s`);
  for (const { fold, ap, images: n, faces } of result.folds) {
    print(`  fold ${String(fold).padStart(2)}: AP ${ap.toFixed(5)} over ${n} images, ${faces} faces`);
  }
  const pointwise = single.state().folds.map(({ fold, truePositives, falsePositives }) => {
    const { faces } = result.folds.find((entry) => entry.fold === fold);
    return averagePrecision(truePositives, falsePositives, faces, { interpolation: 'none' });
  });
  print(`  mAP ${result.mAP.toFixed(6)}, all folds in one ranking ${result.pooledAP.toFixed(6)}`);
  check('images found', result.images.found, EXPECTED_IMAGES);
  check('AP, all folds in one ranking', result.pooledAP.toFixed(3), pooled);
  check('mAP, mean over folds', result.mAP.toFixed(4), mean);
  check('mean over folds without interpolation', average(pointwise).toFixed(3), pointwiseMean);

  const merged = createFddbEvaluator(fddb.folds);
  merged.merge(
    Array.from({ length: SHARDS }, (_, shard) => {
      const part = createFddbEvaluator(fddb.folds);
      images.forEach(({ name, detections }, i) => {
        if (i % SHARDS === shard) part.add(name, detections);
      });
      return JSON.parse(JSON.stringify(part.state()));
    }).reverse(),
  );
  check(`${SHARDS} shards give the same result`, JSON.stringify(merged.result()) === JSON.stringify(result), true);
}

print(failures.length === 0 ? 'all as expected' : `${failures.length} mismatches`);
process.exitCode = failures.length === 0 ? 0 : 1;

function average(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function print(line) {
  process.stdout.write(`${line}\n`);
}
