// What do the compact payloads cost in accuracy, and what do candidates? Each photo is released once for each draw, and the
// same release goes through the remote model in every form, the compact ones with the rows of all anchors and with those
// of the candidates that `scrim repo export` chooses; average precision on FDDB, pooled, IoU 0.5, at the
// size that the bundle names, a shipped bundle. And how many anchors of a photo reach the detector's score floor and the 0.25 that a session asks for, of
// the model without noise and of these releases.
//
//   node bench/payload-accuracy.mjs FDDB [draws] [--transform diagonal|bottleneck] [--model faceboxes|FILE.pth] [--alpha 0.8]
//     [--candidates N]
import { parseArgs } from 'node:util';
import { createTrustedHalf } from 'scrim';
import {
  candidateNames,
  createPayloadPlan,
  encodePayload,
  exportRepository,
  PAYLOAD_FORMATS,
  payloadBytes,
  placeCandidates,
  remoteName,
} from 'scrim/client';
import { createFddbEvaluator } from 'scrim/metrics';
import { createInputReader, createNodeCrypto, createNodeEngine, openFddb } from 'scrim/node';
import { createDetectionDecoder } from 'scrim/vision';
import { loadModelSource } from '../packages/cli/dist/model-source.js';
import { openServable } from '../packages/cli/dist/remote-bundle.js';
import { quantile, rounded } from './measure.mjs';

const { positionals, values: flags } = parseArgs({
  allowPositionals: true,
  options: {
    transform: { type: 'string', default: 'diagonal' },
    model: { type: 'string', default: 'faceboxes' },
    alpha: { type: 'string', default: '0.8' },
    candidates: { type: 'string' },
  },
});
const [folder, draws = '3'] = positionals;
if (folder === undefined) {
  process.stderr.write(
    'usage: node bench/payload-accuracy.mjs FDDB [draws] [--transform …] [--model …] [--alpha …] [--candidates …]\n',
  );
  process.exit(2);
}
const fddb = await openFddb(folder, { allowMissingFolds: true });
const photos = fddb.photos.filter(({ present }) => present);
const { transform } = flags;
const bundle = await openServable({ model: flags.model, alpha: Number(flags.alpha), transform });
const { remote, model, alpha } = bundle.manifest;
const { detector } = model;
const engine = await createNodeEngine();
const trusted = await createTrustedHalf({ bundle, engine, crypto: createNodeCrypto() });
const clean = await engine.load((await loadModelSource(flags.model)).graph.encode());
const plan = createPayloadPlan(bundle.parameters);
const names = candidateNames(bundle.manifest);
const reader = createInputReader(detector);
const decoder = createDetectionDecoder(detector);

const sides = [];
for (const answer of ['all', 'candidates']) {
  const candidates = answer === 'all' ? 'all' : flags.candidates && Number(flags.candidates);
  const files = await exportRepository(bundle, { candidates });
  for (const payload of PAYLOAD_FORMATS) {
    if (payload === 'fp32' && answer === 'candidates') continue;
    const tail = await engine.load(files.get(`${remoteName(remote.noisy, payload)}/1/model.onnx`));
    const evaluators = Array.from({ length: Number(draws) }, () => createFddbEvaluator(fddb.folds));
    sides.push({ payload, answer, tail, evaluators, answerBytes: 0 });
  }
}
const reached = [detector.scoreFloor, 0.25].map((score) => ({ score, clean: [], released: [] }));
const count = (scores, kind) => {
  for (const entry of reached) {
    entry[kind].push(scores.data.reduce((sum, value, i) => sum + (i % 2 === 1 && value >= entry.score), 0));
  }
};
let plane = 0;
for (const [i, { name, path }] of photos.entries()) {
  const { tensor, plan: resize } = await reader.read(path);
  count((await clean.run({ [model.input]: tensor }))[detector.outputs.scores], 'clean');
  for (const [draw, release] of (await trusted.releaseMany(tensor, Number(draws))).entries()) {
    plane = release.shape[2] * release.shape[3];
    for (const side of sides) {
      const outputs = await side.tail.run({
        [remote.input]: encodePayload(release, side.payload, plan, bundle.parameters),
      });
      side.answerBytes = Object.values(outputs).reduce((sum, { data }) => sum + data.byteLength, 0);
      const placed = side.answer === 'candidates' ? placeCandidates(outputs, names).outputs : outputs;
      const named = Object.fromEntries(remote.outputs.map((output) => [output.model, placed[output.remote]]));
      if (side.payload === 'fp32') count(named[detector.outputs.scores], 'released');
      const [found] = decoder.decodeOutputs(named, [resize]);
      side.evaluators[draw].add(
        name,
        found.map(({ box: [x, y, right, bottom], score }) => ({ x, y, width: right - x, height: bottom - y, score })),
      );
    }
  }
  if (i % 20 === 19) process.stderr.write(`${i + 1} of ${photos.length} photos\n`);
}
await engine.close();
const ap = ({ evaluators }) => evaluators.map((evaluator) => evaluator.result().pooledAP);
const difference = (side, other) => {
  const [values, base] = [ap(side), ap(other)];
  return values.map((value, i) => value - base[i]);
};
const largest = (values) => rounded(Math.max(...values.map(Math.abs)), 4);
const rows = sides.map((side) => {
  const { payload, answer } = side;
  const values = ap(side);
  // The same noise in all: what is left is the form alone.
  const toFp32 = difference(side, sides[0]);
  const whole = sides.find((other) => other.payload === payload && other.answer === 'all');
  return {
    payload,
    answer,
    tensorBytes: payloadBytes(plan, payload, plane),
    answerBytes: side.answerBytes,
    ap: rounded(values.reduce((sum, value) => sum + value, 0) / values.length, 4),
    medianDifferenceToFp32: rounded(quantile(toFp32), 4),
    largestDifferenceToFp32: largest(toFp32),
    ...(answer === 'all' ? {} : { largestDifferenceToAllAnchors: largest(difference(side, whole)) }),
  };
});
const spread = (values) => ({ median: quantile(values), most: Math.max(...values) });
const anchorsThatReach = reached.map(({ score, clean: without, released }) => ({
  score,
  clean: spread(without),
  released: spread(released),
}));
process.stdout.write(
  `${JSON.stringify({ photos: photos.length, draws: Number(draws), alpha, transform, anchorsThatReach, rows }, null, 2)}\n`,
);
