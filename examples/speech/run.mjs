// Is somebody speaking? Silero VAD through noise, and what an attacker learns of the speaker and of what was said.
import { join } from 'node:path';
import { createTrustedHalf, float32 } from 'scrim';
import { createNodeCrypto, createNodeEngine, openBundle } from 'scrim/node';
import { releaseToTensor } from 'scrim/noise';
import { splitAt } from 'scrim/split';
import { attack } from '../lib/attack.mjs';
import { inferRemotely, printJson, printTable, readFlags, say, scrim, writeFile } from '../lib/command-line.mjs';
import { FRAME, LEAD, LENGTH, readSilero, runFrameByFrame, sileroBySeconds } from './silero.mjs';
import { ATTRIBUTES, encodeWav, makeSeconds } from './voices.mjs';

const { quick, out, json } = readFlags('speech');
const diagonal = (alpha) => ({ name: `diagonal, alpha ${alpha}`, alpha, flags: ['--steps', quick ? '40' : '250'] });
const bottleneck = (alpha) => ({
  name: `bottleneck, alpha ${alpha}`,
  alpha,
  flags: ['--transform', 'bottleneck', '--encoder', 'mlp', '--channels', '2', '--steps', '400'],
});
const plans = quick ? [diagonal(0.5)] : [diagonal(0.2), diagonal(0.8), bottleneck(0.8)];
const engine = await createNodeEngine();
const file = (name) => join(out, name);
const seconds = (count, seed) =>
  makeSeconds(count, { length: LENGTH, lead: LEAD, frame: FRAME, seed: `speech/${seed}` });

const model = sileroBySeconds();
const onnx = file('silero-seconds.onnx');
writeFile(onnx, model.encode());
const judged = seconds(quick ? 60 : 200, 'judge');

// The rebuilt model has to say what the shipped one says.
const [shipped, rebuilt] = [await engine.load(readSilero()), await engine.load(model.encode())];
let difference = 0;
for (const { samples } of judged.slice(0, 5)) {
  const { speech } = await rebuilt.run({ samples: float32([1, LENGTH], samples) });
  const expected = await runFrameByFrame(shipped, samples);
  expected.forEach((value, i) => {
    difference = Math.max(difference, Math.abs(value - speech.data[i]));
  });
}
say(`a second at a time and frame by frame differ by ${difference.toExponential(1)} at most`);
if (difference > 1e-4) throw new Error('the model by seconds is not the model that was shipped');

const fitting = seconds(quick ? 60 : 250, 'fit');
writeFile(file('fit/seconds.wav'), encodeWav(fitting.map(({ samples }) => samples)));
writeFile(file('judge/seconds.wav'), encodeWav(judged.map(({ samples }) => samples)));
writeFile(file('labels.csv'), `${judged.map(({ labels }) => labels.join(',')).join('\n')}\n`);

// What is worth knowing of seconds in which somebody speaks.
const speaking = (list) => list.filter(({ attributes }) => attributes);
const known = speaking(seconds(quick ? 150 : 700, 'attacker'));
const tried = speaking(judged);
const attackSettings = { steps: quick ? 100 : 500, width: 96, batchSize: 32 };
const byName = ({ columns }) => Object.fromEntries(ATTRIBUTES.map((name, i) => [name, columns[i]]));
const { head } = splitAt(model, ['features']);
const headSession = await engine.load(head.encode());
/** Mean and deviation of each channel over the frames: what a voice is like does not depend on when it sounds. */
const pooled = (features) => {
  const frames = features.length / 128;
  const result = new Float32Array(256);
  for (let c = 0; c < 128; c++) {
    const channel = features.subarray(c * frames, (c + 1) * frames);
    const mean = channel.reduce((a, b) => a + b, 0) / frames;
    result[c] = mean;
    result[128 + c] = Math.sqrt(channel.reduce((sum, value) => sum + (value - mean) ** 2, 0) / frames);
  }
  return result;
};
const observe = async (list) => {
  const pairs = [];
  for (const { samples, attributes } of list) {
    const { features } = await headSession.run({ samples: float32([1, LENGTH], samples) });
    pairs.push({ observed: pooled(features.data), input: attributes });
  }
  return pairs;
};
const cleanAttack = byName(await attack(engine, await observe(known), await observe(tried), attackSettings));

const results = [];
for (const { name, alpha, flags } of plans) {
  const bundle = file(name.replace(/[^a-z0-9.]+/g, '-'));
  const fit = await scrim(
    ...['fit', '--model', onnx, '--cut', 'features', '--task', 'classification:speech', '--data', file('fit')],
    ...['--alpha', String(alpha), '--batch', '8', '--out', bundle, '--force', ...flags],
  );
  const quality = await scrim(
    ...['evaluate', '--model', onnx, '--bundle', bundle, '--data', file('judge'), '--labels', file('labels.csv')],
    ...['--repeats', quick ? '1' : '3'],
  );
  const opened = await openBundle(bundle);
  const trusted = await createTrustedHalf({ bundle: opened, engine, crypto: createNodeCrypto() });
  const release = async (list, copies) => {
    const pairs = [];
    for (const { samples, attributes } of list) {
      for (const sent of await trusted.releaseMany(float32([1, LENGTH], samples), copies)) {
        pairs.push({ observed: pooled(releaseToTensor(sent, opened.parameters).data), input: attributes });
      }
    }
    return pairs;
  };
  const scores = await attack(engine, await release(known, 2), await release(tried, 1), attackSettings);
  await trusted.close();
  const { bytes } = await inferRemotely(engine, bundle, [float32([1, LENGTH], judged[0].samples)]);
  results.push({ name, alpha, nats: fit.nats, quality, bytes, attack: byName(scores) });
}
await engine.close();

const clean = results[0].quality['accuracy of the clean model'].mean;
if (json) printJson({ clean: { accuracy: clean, attack: cleanAttack, difference }, results });
else {
  printTable(
    ['', 'accuracy', 'as the clean model', 'nats a second', 'bytes sent'],
    [
      ['clean', clean.toFixed(3), '1.000', '–', '–'],
      ...results.map(({ name, quality, nats, bytes }) => [
        name,
        quality.accuracy.mean.toFixed(3),
        quality.agreement.mean.toFixed(3),
        nats,
        bytes,
      ]),
    ],
  );
  process.stdout.write('\nWhat the attacker learns of a second with a voice in it (R², 0 is guessing the mean):\n');
  printTable(
    ['', 'clean', ...results.map(({ name }) => name)],
    ATTRIBUTES.map((name) => [
      name,
      cleanAttack[name].toFixed(2),
      ...results.map((result) => result.attack[name].toFixed(2)),
    ]),
  );
}
