// How much of the machine does the embedded server leave to the model? Throughput at concurrency 8 over HTTP (binary)
// against a bare onnxruntime-node loop on the same FaceBoxes tail, client on the same cores, in turns within one run: as
// the configuration comes (one instance, all threads), with dynamic batching, and with two instances of one thread and
// batching, as one would set it up for many callers; and what a request takes on top of a local call at concurrency 1.
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createNodeEngine, serveRepository } from 'scrim/node';
import { encodeInferRequest, joinBody } from '../packages/scrim/dist/protocol/index.js';
import { faceBoxesTail, writeModelRepository } from '../test/interop/model-repository.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 3);
const SECONDS = Number(process.env.ROUND_SECONDS ?? 4);
const activation = Float32Array.from({ length: 128 * 32 * 32 }, (_, i) => ((i * 2654435761) >>> 8) / 2 ** 24);
const x = { dtype: 'float32', shape: [1, 128, 32, 32], data: activation };

const repository = mkdtempSync(join(tmpdir(), 'scrim-bench-'));
writeModelRepository(repository);
cpSync(join(repository, 'faceboxes_batched'), join(repository, 'faceboxes_pair'), { recursive: true });
const pair = join(repository, 'faceboxes_pair', 'config.pbtxt');
writeFileSync(pair, readFileSync(pair, 'utf8').replace('"faceboxes_batched"', '"faceboxes_pair"'));
appendFileSync(pair, 'instance_group { count: 2 kind: KIND_CPU }\n');
const engine = await createNodeEngine({ thread: 'inline' });
const local = await engine.load(faceBoxesTail().graph.encode());
const running = await serveRepository({
  repository,
  httpPort: 0,
  controlMode: 'explicit',
  loadModels: ['faceboxes', 'faceboxes_batched', 'faceboxes_pair'],
});
const agent = new Agent({ keepAlive: true, maxSockets: 16 });
const body = encodeInferRequest({ modelName: 'm', inputs: [{ name: 'INPUT__0', tensor: x }] });
const payload = joinBody(body);

function infer(model) {
  return new Promise((resolve, reject) => {
    const call = httpRequest(
      `${running.http.url}/v2/models/${model}/infer`,
      { method: 'POST', agent, headers: { ...body.headers, 'content-length': payload.length } },
      (response) => {
        response.on('data', () => {});
        response.on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(response.statusCode))));
      },
    );
    call.on('error', reject);
    call.end(payload);
  });
}

const bare = () => local.run({ INPUT__0: x });

async function throughput(task, concurrency) {
  const end = performance.now() + SECONDS * 1000;
  const start = performance.now();
  let count = 0;
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (performance.now() < end) {
        await task();
        count++;
      }
    }),
  );
  return (1000 * count) / (performance.now() - start);
}

async function latencies(task, count) {
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await task();
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[count >> 1];
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const served = () => infer('faceboxes');
const batched = () => infer('faceboxes_batched');
const paired = () => infer('faceboxes_pair');
for (const task of [bare, served, batched, paired]) await latencies(task, 10);
const rows = [];
for (let round = 0; round < ROUNDS; round++) {
  const row = {
    bare: await throughput(bare, 1),
    served: await throughput(served, 8),
    batched: await throughput(batched, 8),
    paired: await throughput(paired, 8),
    bareMs: await latencies(bare, 60),
    servedMs: await latencies(served, 60),
  };
  rows.push(row);
  process.stderr.write(
    `round ${round + 1}: bare ${row.bare.toFixed(1)}/s, served ${row.served.toFixed(1)}/s, batched ${row.batched.toFixed(1)}/s, paired ${row.paired.toFixed(1)}/s, ` +
      `latency ${row.bareMs.toFixed(2)} ms bare, ${row.servedMs.toFixed(2)} ms served\n`,
  );
}
process.stdout.write(
  `${JSON.stringify(
    {
      rounds: ROUNDS,
      bytesPerRequest: payload.length,
      barePerSecond: median(rows.map((row) => row.bare)),
      servedOverBare: median(rows.map((row) => row.served / row.bare)),
      batchedOverBare: median(rows.map((row) => row.batched / row.bare)),
      pairedOverBare: median(rows.map((row) => row.paired / row.bare)),
      addedMsAtConcurrency1: median(rows.map((row) => row.servedMs - row.bareMs)),
    },
    null,
    2,
  )}\n`,
);
agent.destroy();
await running.close();
await engine.close();
rmSync(repository, { recursive: true });
