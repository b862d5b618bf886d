// How much wall time does the noise add to a run?
//
// FaceBoxes at 1024×1024 in two halves on one engine, with the same input: head and tail alone, and head, noise and
// tail, where the tail gets a Release as a server would. Both take turns in the same invocation and change who goes
// first; the added share is made within a turn, and its median and quartiles are printed.
//
//   node bench/noise-overhead.mjs [--json] [--rounds 60] [--threads 1] [--bundle models/faceboxes-tfjs/alpha-0.80]
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { tensor } from 'scrim';
import { createNodeCrypto, createNodeEngine, openBundle } from 'scrim/node';
import { createDiagonalTransform, createFitRandom, createNoiser, releaseToTensor } from 'scrim/noise';
import { splitAt } from 'scrim/split';
import { faceBoxesFromTfjs } from 'scrim/vision';
import { quantile, rounded } from './measure.mjs';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '60' },
    threads: { type: 'string', default: '1' },
    bundle: {
      type: 'string',
      default: fileURLToPath(new URL('../models/faceboxes-tfjs/alpha-0.80', import.meta.url)),
    },
  },
});
const SIZE = 1024;
const WARM_UP = 10;

const models = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')), 'models');
const json = await readFile(join(models, 'faceboxes.json'), 'utf8');
const { graph, spec } = faceBoxesFromTfjs(json, await readFile(join(models, 'faceboxes.bin')));
const halves = splitAt(graph, [spec.cut]);
const { manifest, parameters, hash } = await openBundle(options.bundle);
const engine = await createNodeEngine({ threads: Number(options.threads) });
const [head, tail] = [await engine.load(halves.head.encode()), await engine.load(halves.tail.encode())];
const noiser = createNoiser({
  transform: createDiagonalTransform(parameters),
  bundleHash: hash,
  alpha: manifest.alpha,
  crypto: createNodeCrypto(),
  mode: 'fresh',
});
const random = createFitRandom('bench');
const pixels = Float32Array.from({ length: 3 * SIZE * SIZE }, () => 2 * random.uniform() - 1);
const input = tensor('float32', [1, 3, SIZE, SIZE], pixels);

const clean = async () => {
  const started = performance.now();
  await tail.run(await head.run({ [spec.input]: input }), { transfer: true });
  return performance.now() - started;
};
const noisy = async () => {
  const started = performance.now();
  const { [spec.cut]: activation } = await head.run({ [spec.input]: input });
  const release = await noiser.release(activation);
  await tail.run({ [spec.cut]: releaseToTensor(release, parameters) }, { transfer: true });
  return performance.now() - started;
};

const times = { clean: [], noisy: [] };
for (let round = -WARM_UP; round < Number(options.rounds); round++) {
  const sides = { clean, noisy };
  for (const side of round % 2 === 0 ? ['clean', 'noisy'] : ['noisy', 'clean']) {
    const ms = await sides[side]();
    if (round >= 0) times[side].push(ms);
  }
}
await engine.close();

const added = times.noisy.map((ms, i) => ms / times.clean[i] - 1);
const result = {
  alpha: manifest.alpha,
  values: parameters.shape[0] * (SIZE / 32) ** 2,
  cleanMs: rounded(quantile(times.clean)),
  noisyMs: rounded(quantile(times.noisy)),
  added: { median: rounded(quantile(added), 4), quartiles: [0.25, 0.75].map((q) => rounded(quantile(added, q), 4)) },
  ofMedians: rounded(quantile(times.noisy) / quantile(times.clean) - 1, 4),
  rounds: times.clean.length,
  engine: engine.description,
  machine: `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores`,
};
const percent = (share) => `${(100 * share).toFixed(1)}%`;
process.stdout.write(
  options.json
    ? `${JSON.stringify(result, null, 2)}\n`
    : `head and tail ${result.cleanMs} ms, with noise ${result.noisyMs} ms (medians of ${result.rounds}, alpha ${result.alpha})\n` +
        `the noise adds ${percent(result.added.median)} (quartiles ${result.added.quartiles.map(percent).join(' to ')}), ` +
        `${percent(result.ofMedians)} from median to median; TR-4928: 25%\n${result.engine}; ${result.machine}\n`,
);
