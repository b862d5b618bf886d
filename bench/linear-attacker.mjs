/**
 * How much of a photo does the linear attacker of each shipped bundle rebuild? SSIM of its guess and the photo at the
 * guess's size, one real release a photo, on the photos of FDDB, none of which it was fitted on. The clean row is the
 * attacker of the weakest bundle on the activation without noise.
 *
 *   node bench/linear-attacker.mjs FDDB_DIRECTORY [EVERY] [--write]
 *
 * EVERY 4 takes every fourth photo; default: all that are there. --write puts the figures where the studio reads them.
 */
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { createTrustedHalf, decodeSafetensors, float32 } from 'scrim';
import { reconstruct } from 'scrim/audit';
import { ssim } from 'scrim/metrics';
import {
  createInputReader,
  createNodeCrypto,
  createNodeEngine,
  openFddb,
  readImageResized,
  writeFileAtomically,
} from 'scrim/node';
import { releaseToTensor } from 'scrim/noise';
import { splitAt } from 'scrim/split';
import { createPixelConverter } from 'scrim/vision';
import { lookForBundle } from '../packages/cli/dist/bundle-store.js';
import { loadModelSource } from '../packages/cli/dist/model-source.js';

const FIGURES = fileURLToPath(new URL('../packages/studio/src/figures/linear-attacker.json', import.meta.url));
const ALPHAS = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95];
const unit = createPixelConverter({ order: 'rgb', mean: [0, 0, 0], scale: 1 / 255, fill: [0, 0, 0], kernel: 'linear' });

const write = process.argv.includes('--write');
const [directory, every = '1'] = process.argv.slice(2).filter((argument) => argument !== '--write');
if (directory === undefined) {
  process.stderr.write('usage: node bench/linear-attacker.mjs FDDB_DIRECTORY [EVERY] [--write]\n');
  process.exit(2);
}
const model = await loadModelSource('faceboxes');
const engine = await createNodeEngine();
const head = await engine.load(splitAt(model.graph, [model.cut]).head.encode());
const attackers = [];
for (const alpha of ALPHAS) {
  const bundle = await lookForBundle(model, alpha);
  if (!bundle) continue;
  const { tensors, metadata } = decodeSafetensors(await bundle.read('audit/reconstruction.safetensors'));
  attackers.push({
    id: `${model.name}/alpha-${alpha.toFixed(2)}`,
    alpha,
    bundle,
    guess: { patch: Number(metadata.patch), weights: tensors.get('weights') },
    trusted: await createTrustedHalf({ bundle, engine, crypto: createNodeCrypto() }),
    values: [],
  });
}
const clean = [];
const dataset = await openFddb(directory, { allowMissing: true });
const photos = dataset.photos.filter(({ present }) => present).filter((_, i) => i % Number(every) === 0);
const reader = createInputReader(model.detector);
for (const [done, photo] of photos.entries()) {
  const { tensor } = await reader.read(photo.path);
  const activation = Object.values(await head.run({ [model.input]: tensor }))[0];
  let original;
  const likeness = async (guess, values) => {
    const picture = reconstruct(guess, values);
    const shape = [3, picture.height, picture.width];
    original ??= float32(shape, unit.convert(await readImageResized(photo.path, picture)).data);
    return ssim(original, float32(shape, unit.convert(picture).data), { dataRange: 1 });
  };
  clean.push(await likeness(attackers[0].guess, activation));
  for (const attacker of attackers) {
    const release = await attacker.trusted.noiser.release(activation);
    attacker.values.push(await likeness(attacker.guess, releaseToTensor(release, attacker.bundle.parameters)));
  }
  if (done % 10 === 9) process.stderr.write(`${done + 1}/${photos.length}\n`);
}
const rows = [{ id: 'clean', values: clean }, ...attackers];
const figures = {
  name: 'SSIM of a linear reconstruction',
  data: `FDDB, ${photos.length} photos, one release each, 256×256`,
  sampleSize: photos.length,
  machine: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`,
  command: `node bench/linear-attacker.mjs FDDB_DIRECTORY ${every}`,
  points: rows.map(({ id, values }) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1);
    return { id, mean: Number(mean.toFixed(4)), sd: Number(Math.sqrt(variance).toFixed(4)) };
  }),
};
process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
if (write) await writeFileAtomically(FIGURES, `${JSON.stringify(figures, null, 2)}\n`);
for (const { trusted } of attackers) await trusted.close();
await engine.close();
