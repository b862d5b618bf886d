// How much of the machine does the embedded server leave to the model? Throughput at concurrency 8 over HTTP (binary)
// against a bare onnxruntime-node loop on the same file, client on the same cores, in turns within one run: as the
// configuration comes (one instance, all threads), with dynamic batching, and with two instances of one thread and batching,
// as one would set it up for many callers; and what a request takes on top of a local call at concurrency 1.
//
// Models: the FaceBoxes tail in the document's form (half a megabyte both ways), and the remote model that is exported by
// default (bottleneck, fp16, candidates: 9 KB there, 28 KB back).
//
//   node bench/server.mjs [tail] [remote]
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createNodeEngine, serveRepository } from 'scrim/node';
import { encodeInferRequest, joinBody } from '../packages/scrim/dist/protocol/index.js';
import { defaultRemote, faceBoxesTail, writeRemote } from '../test/interop/model-repository.mjs';
import { activation, latencies, load, quantile } from './measure.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 3);
const SECONDS = Number(process.env.ROUND_SECONDS ?? 4);
const MODELS = {
  tail: { make: faceBoxesTail, x: activation('float32', [1, 128, 32, 32]) },
  remote: { make: defaultRemote, x: activation('float16', [1, 8, 24, 24]) },
};
const chosen = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(MODELS);

const repository = mkdtempSync(join(tmpdir(), 'scrim-bench-'));
const engine = await createNodeEngine({ thread: 'inline' });
const locals = {};
for (const name of chosen) {
  const model = await MODELS[name].make();
  writeRemote(repository, name, model, 0);
  writeRemote(repository, `${name}_batched`, model, 8);
  writeRemote(repository, `${name}_pair`, model, 8, 'instance_group { count: 2 kind: KIND_CPU }\n');
  locals[name] = await engine.load(model.graph.encode());
}
const running = await serveRepository({ repository, httpPort: 0 });
const agent = new Agent({ keepAlive: true, maxSockets: 16 });

/** Sends a body that is written once, and says how many bytes came back. */
function infer(model, headers, payload) {
  return new Promise((resolve, reject) => {
    const call = httpRequest(
      `${running.http.url}/v2/models/${model}/infer`,
      { method: 'POST', agent, headers: { ...headers, 'content-length': payload.length } },
      (response) => {
        let bytes = 0;
        response.on('data', (part) => {
          bytes += part.length;
        });
        response.on('end', () =>
          response.statusCode === 200 ? resolve(bytes) : reject(new Error(response.statusCode)),
        );
      },
    );
    call.on('error', reject);
    call.end(payload);
  });
}

const models = {};
for (const name of chosen) {
  const { x } = MODELS[name];
  const body = encodeInferRequest({ modelName: 'm', inputs: [{ name: 'INPUT__0', tensor: x }] });
  const payload = joinBody(body);
  const bare = () => locals[name].run({ INPUT__0: x });
  const served = () => infer(name, body.headers, payload);
  const batched = () => infer(`${name}_batched`, body.headers, payload);
  const paired = () => infer(`${name}_pair`, body.headers, payload);
  for (const task of [bare, served, batched, paired]) await latencies(task, 10);
  const rows = [];
  for (let round = 0; round < ROUNDS; round++) {
    const row = {
      bare: (await load(bare, 1, SECONDS)).perSecond,
      served: (await load(served, 8, SECONDS)).perSecond,
      batched: (await load(batched, 8, SECONDS)).perSecond,
      paired: (await load(paired, 8, SECONDS)).perSecond,
      bareMs: quantile(await latencies(bare, 60)),
      servedMs: quantile(await latencies(served, 60)),
    };
    rows.push(row);
    process.stderr.write(
      `${name}, round ${round + 1}: bare ${row.bare.toFixed(1)}/s, served ${row.served.toFixed(1)}/s, batched ${row.batched.toFixed(1)}/s, paired ${row.paired.toFixed(1)}/s, ` +
        `latency ${row.bareMs.toFixed(2)} ms bare, ${row.servedMs.toFixed(2)} ms served\n`,
    );
  }
  models[name] = {
    bytesPerRequest: payload.length,
    bytesPerAnswer: await served(),
    barePerSecond: quantile(rows.map((row) => row.bare)),
    servedOverBare: quantile(rows.map((row) => row.served / row.bare)),
    batchedOverBare: quantile(rows.map((row) => row.batched / row.bare)),
    pairedOverBare: quantile(rows.map((row) => row.paired / row.bare)),
    addedMsAtConcurrency1: quantile(rows.map((row) => row.servedMs - row.bareMs)),
  };
}
process.stdout.write(`${JSON.stringify({ rounds: ROUNDS, models }, null, 2)}\n`);
agent.destroy();
await running.close();
await engine.close();
rmSync(repository, { recursive: true });
