// What clients of `scrim/node` do, whatever runs them: runtimes.mjs starts this under Node, Deno and Bun with the addresses of
// its servers. Prints a line for each thing that worked and ends with 1 at the first that did not.
import { equal, notEqual, ok, rejects } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createTritonClient } from 'scrim/node';

const { plain, secure, grpc, grpcs, ca, silent, broken, brief } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const QUICK = { retry: { retries: 0 }, timeoutMs: 20_000 };
/** Bytes of the large answers: many reads, and more than a body's first memory. */
const ROWS = 500_000;

const name = globalThis.Deno
  ? `Deno ${Deno.version.deno}`
  : globalThis.Bun
    ? `Bun ${Bun.version}`
    : `Node ${process.version}`;
const say = (text) => process.stdout.write(`  ok ${name}: ${text}\n`);
const numbers = (rows, seed) => Float32Array.from({ length: 4 * rows }, (_, i) => (i * 7 + seed) % 1000);
const request = (data, more = {}) => ({
  modelName: 'tiny',
  inputs: [{ name: 'INPUT__0', tensor: { dtype: 'float32', shape: [data.length / 4, 4], data }, ...more }],
});

/** Asks for x + 1 and checks every element. */
async function addOne(client, rows, seed, more = {}) {
  const data = numbers(rows, seed);
  const { outputs } = await client.infer({ ...request(data), ...more });
  equal(outputs[0].tensor.shape.join(), `${rows},4`);
  ok(
    outputs[0].tensor.data.every((value, i) => value === data[i] + 1),
    'a wrong answer',
  );
}

async function answers(client) {
  ok((await client.serverMetadata()).name.length > 0);
  equal((await client.modelMetadata('tiny')).inputs[0].name, 'INPUT__0');
  await addOne(client, 1, 0);
  await addOne(client, 100, 1, { binaryOutputs: false });
  const json = { ...request(numbers(3, 2), { binary: false }), binaryOutputs: false };
  equal((await client.infer(json)).outputs[0].tensor.data[0], 3);
  for (let seed = 0; seed < 3; seed++) await addOne(client, ROWS, seed);
  await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map((seed) => addOne(client, 20_000, seed)));
  await rejects(client.modelMetadata('nothing'), { code: 'NOT_FOUND' });
}

for (const [what, options] of [
  ['HTTP', { url: plain }],
  ['HTTPS', { url: secure, tls: { ca } }],
  ['gRPC', { url: grpc }],
  ['gRPC with TLS', { url: grpcs, tls: { ca } }],
  ['HTTP, answers compressed', { url: plain, responseCompression: 'gzip' }],
]) {
  const client = createTritonClient({ ...options, ...QUICK });
  await answers(client);
  await client.close();
  say(`${what}: metadata, binary, JSON, answers of ${(16 * ROWS) / 1e6} MB, eight calls at a time, an error`);
}
await rejects(createTritonClient({ url: secure, ...QUICK }).serverMetadata(), { code: 'UNAVAILABLE' });
say('a certificate of an unknown authority is refused');

const kept = createTritonClient({ url: brief.url, ...QUICK });
const connection = async () => (await kept.serverMetadata()).name;
const first = await connection();
equal(await connection(), first);
await new Promise((resolve) => setTimeout(resolve, 4 * brief.idleMs));
notEqual(await connection(), first);
say('a connection is used again, and not once the server ended it');

const waiting = createTritonClient({ url: silent, ...QUICK });
const controller = new AbortController();
setTimeout(() => controller.abort(), 100);
await rejects(waiting.infer(request(numbers(ROWS, 0)), { signal: controller.signal }), { code: 'CANCELLED' });
await rejects(waiting.infer(request(numbers(1, 0)), { timeoutMs: 200 }), { code: 'DEADLINE_EXCEEDED' });
await waiting.close();
say('abort and deadline');

for (const [path, reason] of [
  ['/at-once', /closed the connection without an answer/],
  ['/half', /broke off/],
]) {
  await rejects(createTritonClient({ url: `${broken}${path}`, ...QUICK }).infer(request(numbers(1, 0))), (error) => {
    equal(error.code, 'UNAVAILABLE');
    ok(reason.test(error.message), error.message);
    return true;
  });
}
const gone = createTritonClient({ url: 'http://127.0.0.1:9', ...QUICK });
await rejects(gone.serverMetadata(), { code: 'UNAVAILABLE' });
say('a server that closes, breaks off, is not there');
// Idle connections must not keep the process: it ends by itself now, with `kept` open.
