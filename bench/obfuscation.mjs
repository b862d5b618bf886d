// How long does obfuscation take, against NumPy's and PyTorch's own normal distributions?
//
// The transform of one activation [1, 128, 34, 60] (FaceBoxes on 1920x1080): key derivation, AES-256-CTR keystream,
// normals, clipping, rounding to the grid, a new payload; one thread. The peers draw as many non-cryptographic normals
// and do the multiply-add. Five runs a round; rounds of both sides take turns in the same invocation, so that what
// else the machine does hits both. A ratio is the median of ours over the median of the peer's.
//
//   node bench/obfuscation.mjs [--json] [--rounds 9]
//
// SCRIM_PYTHON names a Python that has numpy and torch (default python3); what is missing is said and left out.
import { spawn } from 'node:child_process';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createNodeCrypto } from 'scrim/node';
import { createDiagonalTransform, createNoiser } from 'scrim/noise';

const { values: options } = parseArgs({
  options: { json: { type: 'boolean', default: false }, rounds: { type: 'string', default: '9' } },
});
const ROUNDS = Number(options.rounds);
const RUNS = 5;
const WARM_UP_RUNS = 100;
const SHAPE = [1, 128, 34, 60];
const [, channels, height, width] = SHAPE;
const plane = height * width;
const size = channels * plane;

async function startPeer() {
  const script = fileURLToPath(new URL('./peers/obfuscation.py', import.meta.url));
  const environment = { ...process.env, OMP_NUM_THREADS: '1', MKL_NUM_THREADS: '1' };
  const child = spawn(process.env.SCRIM_PYTHON ?? 'python3', [script], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: environment,
  });
  const failed = new Promise((resolve) => {
    child.on('error', () => resolve(undefined));
    child.on('exit', () => resolve(undefined));
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => {
    const line = await Promise.race([lines.next(), failed]);
    return line?.value === undefined ? undefined : JSON.parse(line.value);
  };
  const hello = await answer();
  if (!hello) return undefined;
  return {
    ...hello,
    ask: (question) => {
      child.stdin.write(`${JSON.stringify(question)}\n`);
      return answer();
    },
    close: () => child.stdin.end(),
  };
}

const fill = (value) => new Float32Array(channels).fill(value);
const transform = createDiagonalTransform({
  kind: 'per-channel',
  shape: [channels],
  gain: fill(1),
  mean: fill(0.1),
  sigma: fill(0.5),
  clipLow: fill(-4),
  clipHigh: fill(4),
  variance: fill(1),
});
const crypto = createNodeCrypto();
const noiser = createNoiser({ transform, bundleHash: '00'.repeat(32), alpha: 0.4, crypto, mode: 'fresh' });
const data = Float32Array.from({ length: size }, (_, i) => 2 * Math.sin(0.37 * i));
const activation = { dtype: 'float32', shape: SHAPE, data };

const key = crypto.randomBytes(32);
const counter = new Uint8Array(16);
const chunk = new Uint8Array(65_536);
const silent = { fill() {} };
const payload = new Int16Array(size);
const parts = {
  /** The release as a whole. */
  transform: () => noiser.release(activation),
  /** AES-256-CTR, copied to where the kernel reads it. */
  keystream: () => {
    const stream = crypto.aes256Ctr(key, counter);
    for (let at = 0; at < 4 * size; at += chunk.length) stream.fill(chunk.subarray(0, 4 * size - at));
    stream.close();
  },
  /** Everything but keys and keystream: normals, grid, copies in and out, the new payload. */
  kernel: () => transform.run(data, plane, silent),
  /** Of the kernel: a new payload, filled once. */
  payload: () => new Int16Array(size).set(payload),
};

async function measure(run, count) {
  const ms = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await run();
    ms.push(performance.now() - start);
  }
  return ms;
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

const peer = await startPeer();
const missing = peer ? peer.missing : ['python'];
const ours = Object.fromEntries(Object.keys(parts).map((name) => [name, []]));
const theirs = Object.fromEntries((peer?.cases ?? []).map((name) => [name, []]));
for (const run of Object.values(parts)) await measure(run, WARM_UP_RUNS);
for (const name of Object.keys(theirs)) await peer.ask({ case: name, shape: SHAPE, runs: 3 });
for (let round = 0; round < ROUNDS; round++) {
  for (const [name, run] of Object.entries(parts)) ours[name].push(...(await measure(run, RUNS)));
  for (const name of Object.keys(theirs)) {
    theirs[name].push(...(await peer.ask({ case: name, shape: SHAPE, runs: RUNS })).ms);
  }
}
peer?.close();
noiser.close();

const summary = (ms) => ({ medianMs: median(ms), minMs: Math.min(...ms) });
const own = summary(ours.transform);
const report = {
  shape: SHAPE,
  values: size,
  threads: 1,
  kernel: transform.kernelKind,
  crypto: crypto.description,
  machine: `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores`,
  node: process.version,
  versions: peer?.versions ?? {},
  missing,
  transform: { runsMs: ours.transform.slice(0, RUNS), meanMs: mean(ours.transform.slice(0, RUNS)), ...own },
  parts: Object.fromEntries(['keystream', 'kernel', 'payload'].map((name) => [name, summary(ours[name])])),
  peers: Object.fromEntries(
    Object.entries(theirs).map(([name, ms]) => {
      const peerSummary = summary(ms);
      return [
        name,
        { ...peerSummary, ratio: own.medianMs / peerSummary.medianMs, minRatio: own.minMs / peerSummary.minMs },
      ];
    }),
  ),
};

if (options.json) {
  process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
} else {
  const number = (value, digits = 3) => value.toFixed(digits).padStart(10);
  const line = (name, { medianMs, minMs }, ...rest) =>
    `${name.padEnd(44)}${number(medianMs)}${number(minMs)}${rest.map((value) => number(value, 2)).join('')}`;
  const print = (text) => process.stdout.write(`${text}\n`);
  print(`${size.toLocaleString('en')} values [${SHAPE.join(', ')}], one thread, ${report.kernel}, ${report.crypto}`);
  print(`${report.machine}; node ${report.node}, ${JSON.stringify(report.versions)}`);
  print(
    `five runs: ${report.transform.runsMs.map((ms) => ms.toFixed(3)).join(' ')} ms, mean ${report.transform.meanMs.toFixed(3)} ms`,
  );
  print('');
  print(
    `${''.padEnd(44)}${'median ms'.padStart(10)}${'min ms'.padStart(10)}${'ratio'.padStart(10)}${'of mins'.padStart(10)}`,
  );
  print(line('scrim: release', own));
  print(line('  keystream alone', report.parts.keystream));
  print(line('  all but keystream', report.parts.kernel));
  print(line('    payload allocated and copied', report.parts.payload));
  for (const [name, result] of Object.entries(report.peers)) {
    print(line(name, result, result.ratio, result.minRatio));
  }
  for (const name of missing) print(`${name} is missing (SCRIM_PYTHON names the Python to use): not compared with it`);
}
