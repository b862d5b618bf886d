// Full load on `scrim serve` beside a client that misbehaves, while an instance is killed every 20 seconds:
// node test/suites/server-soak.mjs [--minutes 1] [--instances process]
//
// Every answer is compared with the known one; every failure has to be a v2 error, and only requests that a killed instance
// had may fail; the server's memory is sampled and has to stay where it was. Linux (/proc). Exit code 1 otherwise.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { createTritonClient } from 'scrim/client';
import { createGrpcClient, createHttpAgent, createNodeEngine } from 'scrim/node';
import { addOne, faceBoxesTail, writeModelRepository } from '../interop/model-repository.mjs';
import { startServer } from '../interop/peers.mjs';

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '1' }, instances: { type: 'string', default: 'process' } },
});
const minutes = Number(values.minutes);
if (!(minutes > 0)) throw new Error(`--minutes is '${values.minutes}', expected a number above 0`);
const KILL_EVERY_MS = 20_000;
const MAX_BODY = 2 * 2 ** 20;
/** Largest growth of the server's memory from the second quarter of the run to the last. */
const GROWTH = 0.1;
const GROWTH_BYTES = 24 * 2 ** 20;

const counts = { answers: 0, killedRequests: 0, kills: 0, misbehaviours: 0 };
const faults = [];
const kinds = new Map();
const fault = (text) => {
  if (faults.length < 20) process.stderr.write(`fault: ${text}\n`);
  faults.push(text);
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// What is asked, and what has to come back: six inputs of the tail, six of the small model.
const engine = await createNodeEngine({ threads: 1 });
async function cases(modelName, model, dims) {
  const session = await engine.load(model);
  const size = dims.reduce((product, dim) => product * dim, 1);
  const made = [];
  for (let n = 1; n <= 6; n++) {
    const data = Float32Array.from({ length: size }, (_, i) => (((i + n) * 2654435761) >>> 8) / 2 ** 24);
    const tensor = { dtype: 'float32', shape: dims, data };
    const expected = await session.run({ INPUT__0: tensor });
    made.push({ request: { modelName, inputs: [{ name: 'INPUT__0', tensor }] }, expected });
  }
  await session.close();
  return made;
}
const tail = await cases('faceboxes_batched', faceBoxesTail().graph.encode(), [1, 128, 8, 8]);
const tiny = await cases('tiny', addOne('float32', 4), [1, 4]);
await engine.close();

function sameAs(expected, outputs) {
  return Object.entries(expected).every(([name, { shape, data }]) => {
    const found = outputs.find((output) => output.name === name)?.tensor;
    return found?.shape.join() === shape.join() && found.data.every((value, i) => Math.abs(value - data[i]) <= 1e-4);
  });
}

const repository = mkdtempSync(join(tmpdir(), 'scrim-soak-'));
writeModelRepository(repository);
const flags = ['--instances', values.instances, '--max-body', String(MAX_BODY), '--model-control-mode', 'explicit'];
const server = await startServer(repository, ...flags, '--load-model', 'faceboxes_batched', 'tiny', '--threads', '2');
const [host, port] = server.http.split(':');
const end = performance.now() + minutes * 60_000;
const isOver = () => performance.now() >= end;
let lastKill = Number.NEGATIVE_INFINITY;

/** Sends one request after another and checks each answer. */
async function caller(client, list, start) {
  for (let i = start; !isOver(); i++) {
    const { request, expected } = list[i % list.length];
    try {
      const { outputs } = await client.infer(request);
      counts.answers++;
      if (!sameAs(expected, outputs)) fault(`${client.protocol}: a wrong answer of ${request.modelName}`);
    } catch (error) {
      const isKilled =
        /process of the model's instance was ended by signal SIGKILL|the instance's process has ended/.test(
          error.message,
        );
      if (isKilled && performance.now() - lastKill < 5_000) counts.killedRequests++;
      else fault(`${client.protocol}: ${error.code} ${error.message}`);
    }
  }
}

/** A connection that does wrong; what comes back until it is closed. */
function exchange(send, giveUpMs = 45_000) {
  return new Promise((resolve) => {
    const socket = connect(Number(port), host, () => send(socket));
    let text = '';
    const timer = setTimeout(() => socket.destroy(), giveUpMs);
    socket.on('data', (part) => {
      text += part.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(text);
    });
  });
}

const head = (more) => `POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${more}\r\n\r\n`;
const body = '{"inputs":[{"name":"INPUT__0","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}';
const bomb = gzipSync(Buffer.alloc(MAX_BODY * 8));
/** Name, what is sent, and what has to come back; undefined where nobody is there to read it. */
const MISDEEDS = [
  ['a slow body', (s) => s.write(`${head('content-length: 500')}{"inputs`), /^HTTP\/1.1 408 [\s\S]*\{"error":"/],
  ['slow headers', (s) => s.write('POST /v2/models/tiny/infer HTTP/1.1\r\nhost:'), /^HTTP\/1.1 408 [\s\S]*\{"error":"/],
  ['a body that ends early', (s) => s.end(`${head('content-length: 500')}${body}`), undefined],
  [
    'a length that is too small',
    (s) => s.write(head('content-length: 20') + body),
    /^HTTP\/1.1 400 [\s\S]*\{"error":"/,
  ],
  [
    'a wrong JSON length',
    (s) => s.write(head(`content-length: ${body.length}\r\ninference-header-content-length: 9999`) + body),
    /^HTTP\/1.1 400 [\s\S]*\{"error":"/,
  ],
  ['an oversized body', (s) => s.write(head('content-length: 99999999')), /^HTTP\/1.1 400 [\s\S]*\{"error":"/],
  [
    'an oversized body in chunks',
    (s) => {
      s.write(head('transfer-encoding: chunked'));
      for (let i = 0; i < 4; i++) s.write(`100000\r\n${'x'.repeat(2 ** 20)}\r\n`);
    },
    /^(HTTP\/1.1 400 [\s\S]*\{"error":"|$)/,
  ],
  [
    'a gzip bomb',
    (s) =>
      s.write(Buffer.concat([Buffer.from(head(`content-encoding: gzip\r\ncontent-length: ${bomb.length}`)), bomb])),
    /^HTTP\/1.1 400 [\s\S]*\{"error":"/,
  ],
  ['bad JSON', (s) => s.write(`${head('content-length: 9')}{"inputs]`), /^HTTP\/1.1 400 [\s\S]*\{"error":"/],
  [
    'an unknown model',
    (s) => s.write(head('content-length: 2').replace('tiny', 'x') + body.slice(0, 2)),
    /^HTTP\/1.1 40/,
  ],
  ['no HTTP', (s) => s.write('\x16\x03\x01\x02\x00\x01\r\n\r\n'), /^HTTP\/1.1 400 [\s\S]*\{"error":"/],
  [
    'going away',
    (s) => {
      s.write(head(`content-length: ${body.length}`) + body);
      setTimeout(() => s.destroy(), 1);
    },
    undefined,
  ],
];

async function misbehaving(start) {
  for (let i = start; !isOver(); i++) {
    const [name, send, expected] = MISDEEDS[i % MISDEEDS.length];
    const text = await exchange(send);
    counts.misbehaviours++;
    kinds.set(name, (kinds.get(name) ?? 0) + 1);
    if (expected && !expected.test(text)) fault(`${name}: answered ${JSON.stringify(text.slice(0, 300))}`);
  }
}

/** gRPC calls that are cancelled while they run, and requests that do not fit. */
async function misbehavingGrpc(client) {
  while (!isOver()) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 3);
    await client.infer(tail[0].request, { signal: controller.signal }).catch((error) => {
      if (error.code !== 'CANCELLED' && !/SIGKILL/.test(error.message)) fault(`cancelled gRPC: ${error.message}`);
    });
    await client.infer({ ...tiny[0].request, modelName: 'nothing' }).catch((error) => {
      if (error.code !== 'NOT_FOUND') fault(`gRPC, unknown model: ${error.message}`);
    });
    counts.misbehaviours += 2;
    await sleep(20);
  }
}

function rss(pid) {
  const found = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return found ? Number(found[1]) * 1024 : 0;
}
const children = () =>
  readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'utf8')
    .trim()
    .split(/\s+/)
    .filter(Boolean)
    .map(Number);

async function killer() {
  for (let n = 0; ; n++) {
    await sleep(Math.min(KILL_EVERY_MS, Math.max(0, end - performance.now())));
    if (isOver()) return;
    const pids = children();
    if (pids.length === 0) continue;
    lastKill = performance.now();
    process.kill(pids[n % pids.length], 'SIGKILL');
    counts.kills++;
  }
}

const samples = [];
async function sampler() {
  while (!isOver()) {
    const instances = children().map((pid) => {
      try {
        return rss(pid);
      } catch {
        return 0;
      }
    });
    samples.push({ server: rss(server.pid), instances: instances.reduce((sum, bytes) => sum + bytes, 0) });
    await sleep(1_000);
  }
}

const quick = { retry: { retries: 0 }, timeoutMs: 30_000 };
const http = createTritonClient({ url: `http://${server.http}`, transport: createHttpAgent(), ...quick });
const grpc = createGrpcClient({ url: server.grpc, ...quick });
const tasks = [killer(), sampler(), misbehavingGrpc(grpc)];
for (let i = 0; i < 4; i++) tasks.push(caller(http, tail, i), caller(grpc, tail, i));
for (let i = 0; i < 2; i++) tasks.push(caller(http, tiny, i), caller(grpc, tiny, i));
for (let i = 0; i < MISDEEDS.length; i++) tasks.push(misbehaving(i));
await Promise.all(tasks);
await http.close();
await grpc.close();
const exit = await server.stop();
if (exit !== 0) fault(`the server ended with ${exit}:\n${server.log().slice(-2_000)}`);
rmSync(repository, { recursive: true });

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const quarter = (from, member) =>
  median(
    samples.slice((from * samples.length) >> 2, ((from + 1) * samples.length) >> 2).map((sample) => sample[member]),
  );
const memory = {};
for (const member of ['server', 'instances']) {
  const [early, late] = [quarter(1, member), quarter(3, member)];
  memory[member] = { secondQuarterMb: Math.round(early / 2 ** 20), lastQuarterMb: Math.round(late / 2 ** 20) };
  // A run of a minute is too short to tell growth from warming up.
  if (minutes >= 5 && late > early * (1 + GROWTH) && late - early > GROWTH_BYTES) fault(`memory of ${member} grows`);
}
const report = { minutes, instances: values.instances, ...counts, memory, kinds: Object.fromEntries(kinds) };
process.stdout.write(`${JSON.stringify({ ...report, faults: faults.length }, null, 2)}\n`);
if (values.instances === 'process' && minutes >= 1 && counts.kills === 0) fault('no instance was killed');
process.stdout.write(`${faults.length === 0 ? 1 : 0} passed, ${faults.length === 0 ? 0 : 1} failed\n`);
process.exitCode = faults.length === 0 ? 0 : 1;
