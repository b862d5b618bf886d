// How much time does the noise add to one run at a time?
//
// FaceBoxes at 1024×1024 in two halves on one engine, on the same photo: read, head and tail, and read, head, noise and
// tail, as a trusted half and a local tail do it: the noise is drawn while the head runs, and the tail gets a Release. A
// turn makes two runs of each, clean, noisy, noisy, clean, and the next the other way round; a ratio is made within a
// turn. Printed is their mean without the fifth at either end, with its 95% bootstrap interval: wall time of the whole run
// from the file to the outputs, of head and tail alone, and processor time of the whole run, all threads together.
//
//   node bench/noise-overhead.mjs [--json] [--rounds 100] [--threads 1] [--bundle models/faceboxes-tfjs/alpha-0.80]
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createLocalTail, createTrustedHalf } from 'scrim';
import { createInputReader, createNodeCrypto, createNodeEngine, freeArrays } from 'scrim/node';
import { splitAt } from 'scrim/split';
import { openFor } from '../packages/cli/dist/bundle-store.js';
import { loadModelSource, packageFolder } from '../packages/cli/dist/model-source.js';
import { pairedShare, quantile, rounded } from './measure.mjs';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '100' },
    threads: { type: 'string', default: '1' },
    bundle: {
      type: 'string',
      default: fileURLToPath(new URL('../models/faceboxes-tfjs/alpha-0.80', import.meta.url)),
    },
  },
});
const SIZE = 1024;
const WARM_UP = 10;

const model = await loadModelSource('faceboxes');
const bundle = await openFor(options.bundle, model);
const photo = join(packageFolder('@vladmandic/human'), 'assets/sample1.jpg');
const engine = await createNodeEngine({ threads: Number(options.threads) });
const halves = splitAt(model.graph, [model.cut]);
const [head, tail] = [await engine.load(halves.head.encode()), await engine.load(halves.tail.encode())];
const trusted = await createTrustedHalf({ bundle, engine, crypto: createNodeCrypto() });
const remote = await createLocalTail({ bundle, engine });
const reader = createInputReader(model.detector, { kind: 'stretch', width: SIZE, height: SIZE });

const sides = {
  clean: async (input) => tail.run(await head.run({ [model.input]: input }, { transfer: true }), { transfer: true }),
  noisy: async (input) => {
    let memory;
    const onSpent = (spent) => {
      memory = spent;
    };
    const release = await trusted.release(input, { transfer: true, onSpent });
    const outputs = await remote.run(release, { memory });
    freeArrays([release.payload]);
    return outputs;
  },
};
async function run(side) {
  const before = process.cpuUsage();
  const started = performance.now();
  const { tensor: input } = await reader.read(photo);
  const read = performance.now();
  await sides[side](input);
  const ended = performance.now();
  const { user, system } = process.cpuUsage(before);
  return { whole: ended - started, halves: ended - read, cpu: (user + system) / 1000 };
}

const ORDERS = [
  ['clean', 'noisy', 'noisy', 'clean'],
  ['noisy', 'clean', 'clean', 'noisy'],
];
const turns = [];
for (let round = -WARM_UP; round < Number(options.rounds); round++) {
  const turn = { clean: [], noisy: [] };
  for (const side of ORDERS[(round + WARM_UP) % ORDERS.length]) turn[side].push(await run(side));
  if (round >= 0) turns.push(turn);
}
await engine.close();

function compare(part) {
  const sum = (found) => found.reduce((total, one) => total + one[part], 0);
  const { share, interval } = pairedShare([turns.map(({ clean, noisy }) => sum(noisy) / sum(clean))]);
  const median = (side) => rounded(quantile(turns.map((turn) => sum(turn[side]) / 2)));
  return {
    cleanMs: median('clean'),
    noisyMs: median('noisy'),
    added: rounded(share, 4),
    interval95: interval.map((value) => rounded(value, 4)),
  };
}
const result = {
  alpha: bundle.manifest.alpha,
  run: compare('whole'),
  headAndTail: compare('halves'),
  processorTime: compare('cpu'),
  rounds: turns.length,
  engine: engine.description,
  machine: `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores`,
};
const percent = (share) => `${share < 0 ? '−' : '+'}${Math.abs(100 * share).toFixed(1)}%`;
const line = (name, { cleanMs, noisyMs, added, interval95 }) =>
  `${name}: ${cleanMs} ms, with noise ${noisyMs} ms; it adds ${percent(added)} (95% interval ${interval95.map(percent).join(' to ')})\n`;
process.stdout.write(
  options.json
    ? `${JSON.stringify(result, null, 2)}\n`
    : line('a run, reading the photo included', result.run) +
        line('head and tail', result.headAndTail) +
        line('processor time of a run', result.processorTime) +
        `${result.rounds} turns of two runs each at alpha ${result.alpha}; TR-4928's own noise adds 25% to a run\n` +
        `${result.engine}; ${result.machine}\n`,
);
