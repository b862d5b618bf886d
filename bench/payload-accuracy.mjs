// What do the compact payloads cost in accuracy? Each photo is released once for each draw, and the same release goes
// through the remote model in every form; average precision on FDDB, pooled, IoU 0.5, 1024×1024, shipped bundle at alpha 0.8.
//
//   node bench/payload-accuracy.mjs FDDB [draws]

import { createTrustedHalf } from 'scrim';
import {
  createPayloadPlan,
  encodePayload,
  exportRepository,
  PAYLOAD_FORMATS,
  payloadBytes,
  remoteName,
} from 'scrim/client';
import { createFddbEvaluator } from 'scrim/metrics';
import { createInputReader, createNodeCrypto, createNodeEngine, openFddb } from 'scrim/node';
import { createDetectionDecoder } from 'scrim/vision';
import { shippedBundle } from '../test/interop/sessions.mjs';
import { quantile, rounded } from './measure.mjs';

const [folder, draws = '3'] = process.argv.slice(2);
if (folder === undefined) {
  process.stderr.write('usage: node bench/payload-accuracy.mjs FDDB [draws]\n');
  process.exit(2);
}
const fddb = await openFddb(folder, { allowMissingFolds: true });
const photos = fddb.photos.filter(({ present }) => present);
const bundle = await shippedBundle();
const { remote, model, alpha } = bundle.manifest;
const engine = await createNodeEngine();
const trusted = await createTrustedHalf({ bundle, engine, crypto: createNodeCrypto() });
const plan = createPayloadPlan(bundle.parameters);
const files = await exportRepository(bundle);
const reader = createInputReader(model.detector);
const decoder = createDetectionDecoder(model.detector);
const tails = new Map();
for (const format of PAYLOAD_FORMATS) {
  tails.set(format, await engine.load(files.get(`${remoteName(remote.noisy, format)}/1/model.onnx`)));
}
const evaluators = new Map(
  PAYLOAD_FORMATS.map((format) => [
    format,
    Array.from({ length: Number(draws) }, () => createFddbEvaluator(fddb.folds)),
  ]),
);
for (const [i, { name, path }] of photos.entries()) {
  const { tensor, plan: resize } = await reader.read(path);
  for (const [draw, release] of (await trusted.releaseMany(tensor, Number(draws))).entries()) {
    for (const [format, tail] of tails) {
      const outputs = await tail.run({ [remote.input]: encodePayload(release, format, plan, bundle.parameters) });
      const named = Object.fromEntries(remote.outputs.map((output) => [output.model, outputs[output.remote]]));
      const { offsets, scores } = model.detector.outputs;
      const [found] = decoder.decode(named[offsets], named[scores], [resize]);
      evaluators.get(format)[draw].add(
        name,
        found.map(({ box: [x, y, right, bottom], score }) => ({ x, y, width: right - x, height: bottom - y, score })),
      );
    }
  }
  if (i % 20 === 19) process.stderr.write(`${i + 1} of ${photos.length} photos\n`);
}
await engine.close();
const ap = (format) => evaluators.get(format).map((evaluator) => evaluator.result().pooledAP);
const base = ap('fp32');
const rows = PAYLOAD_FORMATS.map((format) => {
  const values = ap(format);
  return {
    payload: format,
    tensorBytes: payloadBytes(plan, format, 32 * 32),
    ap: rounded(values.reduce((sum, value) => sum + value, 0) / values.length, 4),
    // The same noise in both: what is left is the form alone.
    medianDifferenceToFp32: rounded(quantile(values.map((value, i) => value - base[i])), 4),
    largestDifferenceToFp32: rounded(Math.max(...values.map((value, i) => Math.abs(value - base[i]))), 4),
  };
});
process.stdout.write(`${JSON.stringify({ photos: photos.length, draws: Number(draws), alpha, rows }, null, 2)}\n`);
