/**
 * How much of a photo do the attackers that are shipped with the bundles rebuild? SSIM of their guess and the photo at the
 * guess's size, one real release a photo, on the photos of FDDB, none of which they were fitted on; and the same of the
 * activation without noise. Linear reconstructions, and decoders where a bundle has one.
 *
 *   node bench/shipped-attackers.mjs FDDB_DIRECTORY [EVERY] [--models DIR] [--write]
 *
 * EVERY 4 takes every fourth photo; default: all that are there. --write puts the figures into the manifests, where the
 * studio reads them; bundles get a new hash with them.
 */
import { readdir, readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createTrustedHalf, decodeSafetensors, float32 } from 'scrim';
import { planesToImage, reconstruct } from 'scrim/audit';
import { ssim } from 'scrim/metrics';
import {
  createInputReader,
  createNodeCrypto,
  createNodeEngine,
  openFddb,
  readImageResized,
  recordResults,
} from 'scrim/node';
import { releaseToTensor } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { createPixelConverter } from 'scrim/vision';
import { openFor } from '../packages/cli/dist/bundle-store.js';
import { loadModelSource } from '../packages/cli/dist/model-source.js';

const SHIPPED = fileURLToPath(new URL('../models', import.meta.url));
const unit = createPixelConverter({ order: 'rgb', mean: [0, 0, 0], scale: 1 / 255, fill: [0, 0, 0], kernel: 'linear' });

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { models: { type: 'string', default: SHIPPED }, write: { type: 'boolean', default: false } },
});
const [directory, every = '1'] = positionals;
if (directory === undefined) {
  process.stderr.write('usage: node bench/shipped-attackers.mjs FDDB_DIRECTORY [EVERY] [--models DIR] [--write]\n');
  process.exit(2);
}
const model = await loadModelSource('faceboxes');
const engine = await createNodeEngine();
const dataset = await openFddb(directory, { allowMissing: true });
const photos = dataset.photos.filter(({ present }) => present).filter((_, i) => i % Number(every) === 0);
const machine = `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`;
const command = `node bench/shipped-attackers.mjs FDDB_DIRECTORY ${every}`;

for (const folder of await bundleFolders(flags.models)) {
  // Bundles of other weights lie beside those of npm's.
  const { model: weights } = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'));
  if (weights.sha256 !== model.sha256) continue;
  const bundle = await openFor(folder, model);
  const trusted = await createTrustedHalf({ bundle, engine, crypto: createNodeCrypto() });
  const head = await engine.load(await bundle.read('trusted/head.onnx'));
  const attackers = await openAttackers(bundle);
  const reader = createInputReader(bundle.manifest.model.detector);
  for (const photo of photos) {
    const { tensor } = await reader.read(photo.path);
    const clean = Object.values(await head.run({ [model.input]: tensor }))[0];
    const release = releaseToTensor(await trusted.noiser.release(clean), bundle.parameters);
    for (const attacker of attackers) {
      for (const [what, values] of Object.entries({ noisy: release, clean })) {
        const picture = await attacker.rebuild(values);
        const shape = [3, picture.height, picture.width];
        const original = float32(shape, unit.convert(await readImageResized(photo.path, picture)).data);
        const guess = float32(shape, unit.convert(picture).data);
        attacker[what].push(ssim(original, guess, { dataRange: 1 }));
        attacker.size = `${picture.width}×${picture.height}`;
      }
    }
  }
  const figures = attackers.flatMap(({ name, size, noisy, clean, told }) =>
    [
      [`${name}: SSIM`, noisy],
      [`${name}, no noise: SSIM`, clean],
    ].map(([figure, values]) => ({
      kind: 'measured',
      name: figure,
      value: Number((values.reduce((sum, value) => sum + value, 0) / values.length).toFixed(4)),
      data: `FDDB, ${photos.length} photos, one release each, ${size}${told}`,
      sampleSize: photos.length,
      machine,
      command,
    })),
  );
  process.stdout.write(`${folder.slice(flags.models.length + 1)}\n`);
  for (const { name, value } of figures) process.stdout.write(`  ${name.padEnd(48)} ${value.toFixed(3)}\n`);
  if (flags.write) await recordResults(folder, figures);
  await trusted.close();
  await head.close();
  for (const attacker of attackers) await attacker.close();
}
await engine.close();

/** The attackers a bundle brings, by the names that the studio looks for. */
async function openAttackers(bundle) {
  const found = [];
  const { files } = bundle.manifest;
  const add = (name, told, rebuild, close) => found.push({ name, told, rebuild, close, noisy: [], clean: [] });
  if ('audit/reconstruction.safetensors' in files) {
    const { tensors, metadata } = decodeSafetensors(await bundle.read('audit/reconstruction.safetensors'));
    const guess = { patch: Number(metadata.patch), weights: tensors.get('weights') };
    add(
      'linear attacker',
      '',
      async (values) => reconstruct(guess, values),
      async () => {},
    );
  }
  if ('audit/decoder.onnx' in files) {
    const bytes = await bundle.read('audit/decoder.onnx');
    const told = Graph.decode(bytes).metadata.get('scrim.training');
    const session = await engine.load(bytes);
    const [input, output] = [session.inputs[0].name, session.outputs[0].name];
    const rebuild = async (values) => {
      const { shape, data } = (await session.run({ [input]: values }))[output];
      return planesToImage(data, shape[3], shape[2]);
    };
    add('shipped decoder', told === undefined ? '' : `; ${told}: an attacker gets at least this much`, rebuild, () =>
      session.close(),
    );
  }
  return found;
}

/** Folders with a manifest, at most two levels below. */
async function bundleFolders(folder, depth = 2) {
  const entries = await readdir(folder, { withFileTypes: true });
  if (entries.some(({ name }) => name === 'manifest.json')) return [folder];
  if (depth === 0) return [];
  const below = entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(folder, name));
  return (await Promise.all(below.sort().map((path) => bundleFolders(path, depth - 1)))).flat();
}
