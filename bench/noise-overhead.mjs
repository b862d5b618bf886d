// How much wall time does the noise add to a run?
//
// FaceBoxes at 1024×1024 in two halves on one engine, on the same photo: read, head and tail, and read, head, noise and
// tail, where the tail gets what a Release holds. Both take turns in the same invocation and change who goes first;
// the added share is made within a turn, and its median and quartiles are printed: of the whole run, from the file to the
// outputs, and of head and tail alone.
//
//   node bench/noise-overhead.mjs [--json] [--rounds 60] [--threads 1] [--bundle models/faceboxes-tfjs/alpha-0.80]
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createInputReader, createNodeCrypto, createNodeEngine, openBundle } from 'scrim/node';
import { createDiagonalTransform, createNoiser, releaseToTensor } from 'scrim/noise';
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

const folder = dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json'));
const json = await readFile(join(folder, 'models/faceboxes.json'), 'utf8');
const { graph, spec } = faceBoxesFromTfjs(json, await readFile(join(folder, 'models/faceboxes.bin')));
const photo = join(folder, 'assets/sample1.jpg');
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
const reader = createInputReader(spec, { kind: 'stretch', width: SIZE, height: SIZE });

const withoutNoise = async (activation) => activation;
const withNoise = async (activation) => releaseToTensor(await noiser.release(activation), parameters);
async function run(between) {
  const started = performance.now();
  const { tensor: input } = await reader.read(photo);
  const read = performance.now();
  const { [spec.cut]: activation } = await head.run({ [spec.input]: input }, { transfer: true });
  await tail.run({ [spec.cut]: await between(activation) }, { transfer: true });
  const ended = performance.now();
  return { whole: ended - started, halves: ended - read };
}

const times = { clean: [], noisy: [] };
for (let round = -WARM_UP; round < Number(options.rounds); round++) {
  const sides = { clean: withoutNoise, noisy: withNoise };
  for (const side of round % 2 === 0 ? ['clean', 'noisy'] : ['noisy', 'clean']) {
    const found = await run(sides[side]);
    if (round >= 0) times[side].push(found);
  }
}
await engine.close();

function compare(part) {
  const [clean, noisy] = [times.clean, times.noisy].map((side) => side.map((found) => found[part]));
  const added = noisy.map((ms, i) => ms / clean[i] - 1);
  return {
    cleanMs: rounded(quantile(clean)),
    noisyMs: rounded(quantile(noisy)),
    added: { median: rounded(quantile(added), 4), quartiles: [0.25, 0.75].map((q) => rounded(quantile(added, q), 4)) },
  };
}
const result = {
  alpha: manifest.alpha,
  run: compare('whole'),
  headAndTail: compare('halves'),
  rounds: times.clean.length,
  engine: engine.description,
  machine: `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores`,
};
const line = (name, { cleanMs, noisyMs, added }) =>
  `${name}: ${cleanMs} ms, with noise ${noisyMs} ms; it adds ${percent(added.median)} (quartiles ${added.quartiles.map(percent).join(' to ')})\n`;
const percent = (share) => `${(100 * share).toFixed(1)}%`;
process.stdout.write(
  options.json
    ? `${JSON.stringify(result, null, 2)}\n`
    : line('a run, reading the photo included', result.run) +
        line('head and tail', result.headAndTail) +
        `medians of ${result.rounds} turns at alpha ${result.alpha}; TR-4928's own noise adds 25% to a run\n` +
        `${result.engine}; ${result.machine}\n`,
);
