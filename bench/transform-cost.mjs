// What does the transform of a bundle cost on the trusted side: processor time of head and transform over the clean head,
// bytes that leave, and how many of 64 releases of one photo differ?
//
// Head and trusted half run in turns on one thread of one photo's input; the ratio is made within a turn.
//
//   node bench/transform-cost.mjs --bundle DIR [--model faceboxes] [--size PIXELS] [--rounds 9] [--json]
import { parseArgs } from 'node:util';
import { createTrustedHalf, float32 } from 'scrim';
import { createPayloadPlan, PAYLOAD_FORMATS, payloadBytes } from 'scrim/client';
import { createNodeCrypto, createNodeEngine } from 'scrim/node';
import { createFitRandom, releaseToTensor } from 'scrim/noise';
import { splitAt } from 'scrim/split';
import { photoSide } from '../packages/cli/dist/bundle-store.js';
import { loadModelSource } from '../packages/cli/dist/model-source.js';
import { openServable } from '../packages/cli/dist/remote-bundle.js';
import { quantile } from './measure.mjs';

const { values: flags } = parseArgs({
  options: {
    bundle: { type: 'string' },
    model: { type: 'string', default: 'faceboxes' },
    size: { type: 'string' },
    rounds: { type: 'string', default: '9' },
    json: { type: 'boolean', default: false },
  },
});
if (flags.bundle === undefined) {
  process.stderr.write(
    'usage: node bench/transform-cost.mjs --bundle DIR [--model faceboxes] [--size PIXELS] [--json]\n',
  );
  process.exit(2);
}
const RUNS = 3;
const RELEASES = 64;
const model = await loadModelSource(flags.model);
const bundle = await openServable({ bundle: flags.bundle, model: flags.model, alpha: 0 });
const { manifest, parameters } = bundle;
const size = photoSide(flags.size && Number(flags.size), [bundle]);
const cut = manifest.bottleneck?.cut ?? manifest.cut.tensors[0].name;
const engine = await createNodeEngine({ threads: 1, thread: 'inline' });
const head = await engine.load(splitAt(model.graph, [cut]).head.encode());
const crypto = createNodeCrypto();
const fresh = await createTrustedHalf({ bundle, engine, crypto });
const secret = crypto.randomBytes(32);
const repeatable = await createTrustedHalf({ bundle, engine, crypto, noise: { mode: 'repeatable', secret } });
const data = new Float32Array(3 * size * size);
createFitRandom('photo').normal(data);
const input = float32([1, 3, size, size], data);

/** Processor milliseconds of the whole process, all threads together, for one call. */
async function cpuTime(task) {
  const before = process.cpuUsage();
  for (let i = 0; i < RUNS; i++) await task();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / RUNS;
}
const clean = () => head.run({ [model.input]: input });
const whole = () => fresh.release(input);
for (let i = 0; i < 10; i++) await Promise.all([clean(), whole()]);
const [cleanMs, wholeMs, ratios] = [[], [], []];
for (let round = 0; round < Number(flags.rounds); round++) {
  const first = await cpuTime(clean);
  const second = await cpuTime(whole);
  cleanMs.push(first);
  wholeMs.push(second);
  ratios.push(second / first);
}
const distinct = async (half) => {
  const seen = new Set();
  let plane = 0;
  for (let i = 0; i < RELEASES; i++) {
    const { data: values, shape } = releaseToTensor(await half.release(input), parameters);
    plane = shape[2] * shape[3];
    seen.add(Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64'));
  }
  return { count: seen.size, plane };
};
const again = await distinct(repeatable);
const other = await distinct(fresh);
const plan = createPayloadPlan(parameters);
const report = {
  question: 'cost of head and transform over the clean head, one thread',
  bundle: bundle.hash,
  alpha: manifest.alpha,
  nats: Math.round(manifest.transform.natsPerPosition * again.plane),
  size,
  cleanHeadCpuMs: quantile(cleanMs),
  headAndTransformCpuMs: quantile(wholeMs),
  ratio: quantile(ratios),
  ratios: [Math.min(...ratios), Math.max(...ratios)],
  bytes: Object.fromEntries(PAYLOAD_FORMATS.map((format) => [format, payloadBytes(plan, format, again.plane)])),
  releases: RELEASES,
  distinctRepeatable: again.count,
  distinctFresh: other.count,
};
await Promise.all([fresh.close(), repeatable.close(), head.close()]);
await engine.close();
if (flags.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
else {
  const { ratio, nats, bytes } = report;
  process.stdout.write(
    `head and transform take ${ratio.toFixed(3)} × the processor time of the clean head (${report.ratios.map((value) => value.toFixed(3)).join(' to ')}); ` +
      `${nats} nats, ${bytes.uint8} bytes as uint8; of ${RELEASES} releases ${again.count} differ with repeatable keys, ${other.count} with fresh ones\n`,
  );
}
