// An image classifier: digits answered through noise, diagonal and bottleneck, and what an attacker rebuilds of them.
import { join } from 'node:path';
import { createTrustedHalf, float32, int64 } from 'scrim';
import { createNodeCrypto, createNodeEngine, openBundle } from 'scrim/node';
import { createFitRandom, releaseToTensor } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { splitAt } from 'scrim/split';
import { attack } from '../lib/attack.mjs';
import {
  inferRemotely,
  printJson,
  printTable,
  readFlags,
  say,
  scrim,
  writeFile,
  writeNpy,
} from '../lib/command-line.mjs';
import { conv, crossEntropy, dense, train } from '../lib/network.mjs';
import { loadDigits, stack } from './digits.mjs';

const { quick, out, json } = readFlags('digits');
const engine = await createNodeEngine();
const file = (name) => join(out, name);

// The model's owner trains on one part, the noise is fitted on another, without labels, all is judged on a third.
const digits = loadDigits();
const judged = digits.splice(0, quick ? 300 : 1000);
const fitting = digits.splice(0, 1000);
const known = digits.splice(0, quick ? 500 : 1500);
for (const [name, part] of [
  ['fit', fitting],
  ['judge', judged],
]) {
  const { shape, data } = stack(part);
  writeNpy(file(`${name}/digits.npy`), shape, data);
}
writeFile(file('labels.csv'), `digit\n${judged.map(({ digit }) => digit).join('\n')}\n`);

// The model: two convolutions and a dense layer, with probabilities at the end.
const model = Graph.create({ name: 'digits', opset: 17 });
model.addInput('image', 'float32', ['N', 1, 28, 28]);
const random = createFitRandom('digits/weights');
const one = { inputs: 1, outputs: 8, kernel: 5, stride: 2, pad: 2 };
const two = { inputs: 8, outputs: 16, kernel: 5, stride: 2, pad: 2 };
const first = model.add('Relu', [conv(model, 'image', 'first', one, random)], {}, { outputs: ['features'] });
const second = model.add('Relu', [conv(model, first, 'second', two, random)]);
const logits = dense(model, model.add('Flatten', [second], { axis: 1 }), 'logits', 784, 10, random);
model.add('Softmax', [logits], { axis: 1 }, { outputs: ['probabilities'] });
model.addOutput('probabilities', 'float32', ['N', 10]);
await train(engine, model, {
  inputShapes: { image: [32, 1, 28, 28] },
  addLoss: (graph, size) => crossEntropy(graph, 'logits', 10, size),
  batch: (draw, size) => {
    const picks = Array.from({ length: size }, () => digits[draw.integer(digits.length)]);
    const { shape, data } = stack(picks);
    const target = new Float32Array(size * 10);
    picks.forEach(({ digit }, i) => {
      target[i * 10 + digit] = 1;
    });
    return { image: float32(shape, data), target: float32([size, 10], target) };
  },
  steps: quick ? 200 : 800,
  batchSize: 32,
  learningRate: 3e-3,
  seed: 'digits/batches',
  log: say,
});
const onnx = file('digits.onnx');
writeFile(onnx, model.encode());

// The attacker knows that places of the release are places of the picture: three convolutions and a pixel shuffle.
const decoder = (graph, x, { inputs, random: draw }) => {
  const reshape = (value, shape) => graph.add('Reshape', [value, graph.addInitializer('shape', int64(shape))]);
  const relu = (value) => graph.add('Relu', [value]);
  const planes = reshape(x, [-1, inputs / 196, 14, 14]);
  const one = relu(conv(graph, planes, 'one', { inputs: inputs / 196, outputs: 32, kernel: 5, pad: 2 }, draw));
  const two = relu(conv(graph, one, 'two', { inputs: 32, outputs: 32, kernel: 3, pad: 1 }, draw));
  const three = conv(graph, two, 'three', { inputs: 32, outputs: 4, kernel: 3, pad: 1 }, draw);
  return reshape(graph.add('DepthToSpace', [three], { blocksize: 2 }), [-1, 784]);
};
const attackSettings = { steps: quick ? 60 : 300, batchSize: 16, decoder, oneUnit: true };
const image = ({ pixels }) => float32([1, 1, 28, 28], pixels);
const { head } = splitAt(model, ['features']);
const headSession = await engine.load(head.encode());
const observe = async (part) => {
  const pairs = [];
  for (const digit of part) {
    pairs.push({ observed: (await headSession.run({ image: image(digit) })).features.data, input: digit.pixels });
  }
  return pairs;
};
const { whole: cleanAttack } = await attack(engine, await observe(known), await observe(judged), attackSettings);

const diagonal = (alpha) => ({ name: `diagonal, alpha ${alpha}`, alpha, flags: ['--steps', quick ? '60' : '300'] });
const bottleneck = (alpha) => ({
  name: `bottleneck, alpha ${alpha}`,
  alpha,
  flags: [
    ...['--transform', 'bottleneck', '--encoder', 'mlp', '--channels', '4', '--steps', quick ? '60' : '600'],
    ...['--batch', '16'],
  ],
});
const plans = quick ? [diagonal(0.6), bottleneck(0.8)] : [diagonal(0.3), diagonal(0.6), diagonal(0.9), bottleneck(0.8)];
const results = [];
for (const { name, alpha, flags } of plans) {
  const bundle = file(name.replace(/[^a-z0-9.]+/g, '-'));
  const fit = await scrim(
    ...['fit', '--model', onnx, '--cut', 'features', '--task', 'classification:probabilities'],
    ...['--data', file('fit'), '--alpha', String(alpha), '--out', bundle, '--force', ...flags],
  );
  const quality = await scrim(
    ...['evaluate', '--model', onnx, '--bundle', bundle, '--data', file('judge'), '--labels', file('labels.csv')],
    ...['--repeats', quick ? '1' : '3'],
  );
  const opened = await openBundle(bundle);
  const trusted = await createTrustedHalf({ bundle: opened, engine, crypto: createNodeCrypto() });
  const release = async (part, copies) => {
    const pairs = [];
    for (const digit of part) {
      for (const sent of await trusted.releaseMany(image(digit), copies)) {
        pairs.push({ observed: releaseToTensor(sent, opened.parameters).data, input: digit.pixels });
      }
    }
    return pairs;
  };
  const { whole: rebuilt } = await attack(engine, await release(known, 2), await release(judged, 1), attackSettings);
  await trusted.close();
  const { bytes } = await inferRemotely(engine, bundle, [image(judged[0])]);
  results.push({ name, alpha, nats: fit.nats, quality, bytes, rebuilt });
}
await engine.close();

const clean = results[0].quality['accuracy of the clean model'].mean;
if (json) printJson({ clean: { accuracy: clean, rebuilt: cleanAttack }, results });
else {
  printTable(
    ['', 'accuracy', 'as the clean model', 'nats', 'bytes sent', 'rebuilt (R² of pixels)'],
    [
      ['clean', clean.toFixed(3), '1.000', '–', '–', cleanAttack.toFixed(2)],
      ...results.map(({ name, quality, nats, bytes, rebuilt }) => [
        name,
        quality.accuracy.mean.toFixed(3),
        quality.agreement.mean.toFixed(3),
        nats,
        bytes,
        rebuilt.toFixed(2),
      ]),
    ],
  );
}
