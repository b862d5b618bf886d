// A model of a table of people: what it answers through noise, and which columns an attacker gets back.
import { join } from 'node:path';
import { createTrustedHalf, float32 } from 'scrim';
import { createNodeCrypto, createNodeEngine, openBundle } from 'scrim/node';
import { createFitRandom, releaseToTensor } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { splitAt } from 'scrim/split';
import { attack } from '../lib/attack.mjs';
import { inferRemotely, printJson, printTable, readFlags, say, scrim, writeFile } from '../lib/command-line.mjs';
import { crossEntropy, dense, train } from '../lib/network.mjs';
import { COLUMNS, makePeople, PRIVATE } from './people.mjs';

const { quick, out, json } = readFlags('tabular');
const alphas = quick ? [0.5] : [0.1, 0.5, 0.9];
const engine = await createNodeEngine();
const file = (name) => join(out, name);

// Data: the model's owner trains on one set, the noise is fitted on another, without labels, all is judged on a third.
const people = makePeople(quick ? 2000 : 6000, 'tabular/train');
const fitting = makePeople(1500, 'tabular/fit');
const judged = makePeople(1000, 'tabular/judge');
const table = ({ rows }) => `${[COLUMNS.join(','), ...rows.map((row) => row.join(','))].join('\n')}\n`;
writeFile(file('fit/people.csv'), table(fitting));
writeFile(file('judge/people.csv'), table(judged));
writeFile(file('labels.csv'), `ill\n${judged.labels.join('\n')}\n`);

// The model: 12 -> 24 -> 16 -> 2 logits.
const model = Graph.create({ name: 'illness', opset: 17 });
model.addInput('person', 'float32', ['N', COLUMNS.length]);
const random = createFitRandom('tabular/weights');
const first = model.add(
  'Relu',
  [dense(model, 'person', 'first', COLUMNS.length, 24, random)],
  {},
  { outputs: ['hidden'] },
);
const second = model.add('Relu', [dense(model, first, 'second', 24, 16, random)]);
model.addOutput(dense(model, second, 'illness', 16, 2, random), 'float32', ['N', 2]);
await train(engine, model, {
  inputShapes: { person: [64, COLUMNS.length] },
  addLoss: (graph, size) => crossEntropy(graph, 'illness', 2, size),
  batch: (draw, size) => {
    const picks = Array.from({ length: size }, () => draw.integer(people.rows.length));
    const rows = picks.flatMap((i) => Array.from(people.rows[i]));
    const targets = picks.flatMap((i) => [1 - people.labels[i], people.labels[i]]);
    return { person: float32([size, COLUMNS.length], rows), target: float32([size, 2], targets) };
  },
  steps: quick ? 300 : 1200,
  batchSize: 64,
  learningRate: 3e-3,
  seed: 'tabular/batches',
  log: say,
});
const onnx = file('illness.onnx');
writeFile(onnx, model.encode());

// What an attacker sees and what it was made of: rows that are neither fitted nor judged on.
const known = makePeople(quick ? 800 : 3000, 'tabular/attacker');
const attackSteps = quick ? 300 : 1500;
const byName = ({ columns }) => Object.fromEntries(COLUMNS.map((name, i) => [name, columns[i]]));
const { head } = splitAt(model, ['hidden']);
const headSession = await engine.load(head.encode());
const observe = async ({ rows }) => {
  const pairs = [];
  for (const input of rows) {
    const { hidden } = await headSession.run({ person: float32([1, COLUMNS.length], input) });
    pairs.push({ observed: hidden.data, input });
  }
  return pairs;
};
const cleanAttack = byName(await attack(engine, await observe(known), await observe(judged), { steps: attackSteps }));

const { cuts } = await scrim('split', 'plan', '--model', onnx, '--input-shape', `1,${COLUMNS.length}`);
say(`the model can be cut at ${cuts.map(({ name }) => name).join(', ')}`);
const results = [];
for (const alpha of alphas) {
  const bundle = file(`alpha-${alpha}`);
  const fit = await scrim(
    ...['fit', '--model', onnx, '--cut', 'hidden', '--task', 'classification:illness', '--data', file('fit')],
    ...['--alpha', String(alpha), '--steps', quick ? '100' : '600', '--batch', '64', '--out', bundle, '--force'],
  );
  const quality = await scrim(
    ...['evaluate', '--model', onnx, '--bundle', bundle, '--data', file('judge'), '--labels', file('labels.csv')],
    ...['--repeats', quick ? '1' : '5'],
  );
  const opened = await openBundle(bundle);
  const trusted = await createTrustedHalf({ bundle: opened, engine, crypto: createNodeCrypto() });
  const release = async ({ rows }, copies) => {
    const pairs = [];
    for (const input of rows) {
      for (const sent of await trusted.releaseMany(float32([1, COLUMNS.length], input), copies)) {
        pairs.push({ observed: releaseToTensor(sent, opened.parameters).data, input });
      }
    }
    return pairs;
  };
  const scores = await attack(engine, await release(known, 4), await release(judged, 1), { steps: attackSteps });
  await trusted.close();
  const { bytes } = await inferRemotely(engine, bundle, [float32([1, COLUMNS.length], judged.rows[0])]);
  results.push({ alpha, nats: fit.nats, quality, bytes, attack: byName(scores) });
}
await engine.close();

const clean = results[0].quality['accuracy of the clean model'].mean;
if (json) printJson({ clean: { accuracy: clean, attack: cleanAttack }, results });
else {
  printTable(
    ['', 'accuracy', 'as the clean model', 'nats', 'bytes sent'],
    [
      ['clean', clean.toFixed(3), '1.000', '–', '–'],
      ...results.map(({ alpha, quality, nats, bytes }) => [
        `alpha ${alpha}`,
        quality.accuracy.mean.toFixed(3),
        quality.agreement.mean.toFixed(3),
        nats,
        bytes,
      ]),
    ],
  );
  process.stdout.write('\nShare of each column that the attacker gets back (R², 0 is guessing the mean):\n');
  printTable(
    ['column', 'needed', 'clean', ...results.map(({ alpha }) => `alpha ${alpha}`)],
    COLUMNS.map((name) => [
      name,
      PRIVATE.includes(name) ? 'no' : 'yes',
      cleanAttack[name].toFixed(2),
      ...results.map((result) => result.attack[name].toFixed(2)),
    ]),
  );
}
