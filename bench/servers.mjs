// The embedded server against real Triton (tritonserver of PyPI's nvidia-pytriton) and MLServer: the same ONNX file, the
// same client of ours, on the same cores, in turns within one run. The FaceBoxes tail in the document's form ('faceboxes'), a
// model of one addition ('tiny') and the remote model that is exported by default ('remote': bottleneck, fp16, candidates),
// over HTTP and gRPC: throughput at concurrency 8, p50 and p99 at concurrency 1, and what that p50 adds to a local call of the
// same file by onnxruntime-node, made in the same turns.
//
// Triton's wheel has no ONNX backend: there and in MLServer Python's onnxruntime runs the file. MLServer takes no binary
// tensors over HTTP and gets JSON, which FP16 has no form in: there 'remote' is not measured. SCRIM_INTEROP_VENV as for test/interop/run.mjs; ROUNDS, ROUND_SECONDS and
// WARM_UP_SECONDS may be set.
//
//   node bench/servers.mjs [faceboxes] [tiny] [remote]
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTritonClient } from 'scrim/client';
import { createGrpcClient, createHttpAgent, createNodeEngine } from 'scrim/node';
import { defaultRemote, writeModelRepository, writeRemote } from '../test/interop/model-repository.mjs';
import { interopVenv, startMlserver, startServer, startTriton } from '../test/interop/peers.mjs';
import { activation, latencies, load, quantile, rounded } from './measure.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 5);
const SECONDS = Number(process.env.ROUND_SECONDS ?? 3);
const WARM_UP_SECONDS = Number(process.env.WARM_UP_SECONDS ?? 4);
const MODELS = {
  faceboxes: { dtype: 'float32', dims: [1, 128, 32, 32], calls: 60 },
  tiny: { dtype: 'float32', dims: [1, 4], calls: 400 },
  remote: { dtype: 'float16', dims: [1, 8, 24, 24], calls: 60 },
};
const tensors = {
  faceboxes: {
    inputs: [{ name: 'INPUT__0', datatype: 'FP32', shape: [-1, 128, -1, -1] }],
    outputs: [
      { name: 'OUTPUT__0', datatype: 'FP32', shape: [-1, -1, 4] },
      { name: 'OUTPUT__1', datatype: 'FP32', shape: [-1, -1, 2] },
    ],
  },
  tiny: {
    inputs: [{ name: 'INPUT__0', datatype: 'FP32', shape: [-1, 4] }],
    outputs: [{ name: 'OUTPUT__0', datatype: 'FP32', shape: [-1, 4] }],
  },
  remote: {
    inputs: [{ name: 'INPUT__0', datatype: 'FP16', shape: [-1, 8, -1, -1] }],
    outputs: [
      { name: 'OUTPUT__0', datatype: 'FP32', shape: [-1, -1, 4] },
      { name: 'OUTPUT__1', datatype: 'FP32', shape: [-1, -1, 2] },
      { name: 'OUTPUT__2', datatype: 'INT32', shape: [-1, -1] },
      { name: 'OUTPUT__3', datatype: 'INT32', shape: [-1, 1] },
    ],
  },
};

const tools = interopVenv();
const repository = mkdtempSync(join(tmpdir(), 'scrim-bench-'));
writeModelRepository(repository);
writeRemote(repository, 'remote', await defaultRemote(), 0);
// The others need one; without batching, so that all run request by request.
writeFileSync(
  join(repository, 'tiny', 'config.pbtxt'),
  'platform: "onnxruntime_onnx"\nmax_batch_size: 0\ninput { name: "INPUT__0" data_type: TYPE_FP32 dims: [ -1, 4 ] }\n' +
    'output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ -1, 4 ] }\n',
);
const models = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(MODELS);
const servers = [];
const report = [];
const engine = await createNodeEngine();
try {
  const explicit = ['--model-control-mode', 'explicit', '--load-model', ...models];
  servers.push(await startServer(repository, ...explicit));
  servers.push(await startTriton(tools, repository, { models }));
  servers.push(await startMlserver(tools, repository, { models, tensors: (name) => tensors[name] }));
  for (const protocol of ['http', 'grpc']) {
    const all = servers.map(({ name, http, grpc }) => ({
      name,
      binary: name !== 'MLServer',
      client:
        protocol === 'http'
          ? createTritonClient({ url: `http://${http}`, transport: createHttpAgent() })
          : createGrpcClient({ url: grpc }),
    }));
    for (const modelName of models) {
      const { dtype, dims, calls } = MODELS[modelName];
      const tensor = activation(dtype, dims);
      const sides = all.filter(({ binary }) => binary || protocol === 'grpc' || dtype !== 'float16');
      const tasks = sides.map(({ client, binary }) => {
        const request = { modelName, inputs: [{ name: 'INPUT__0', tensor, binary }], binaryOutputs: binary };
        return () => client.infer(request);
      });
      const graph = await engine.load(readFileSync(join(repository, modelName, '1', 'model.onnx')));
      const local = () => graph.run({ INPUT__0: tensor });
      // Servers that compile as they run (this one, Python's) are measured warm, and so is the client.
      for (const task of tasks) await load(task, 8, WARM_UP_SECONDS);
      const rows = sides.map(() => ({ perSecond: [], p50: [], p99: [], adds: [] }));
      await latencies(local, calls);
      for (let round = 0; round < ROUNDS; round++) {
        for (const [i, task] of tasks.entries()) {
          const alone = quantile(await latencies(local, calls));
          rows[i].perSecond.push((await load(task, 8, SECONDS)).perSecond);
          const times = await latencies(task, calls);
          rows[i].p50.push(quantile(times));
          rows[i].adds.push(quantile(times) - alone);
          rows[i].p99.push(quantile(times, 0.99));
        }
      }
      for (const [i, { name }] of sides.entries()) {
        const over = (member, other) => quantile(rows[0][member].map((value, n) => value / rows[other][member][n]));
        const row = {
          ...{ model: modelName, protocol, server: name },
          perSecond: rounded(quantile(rows[i].perSecond), 1),
          p50Ms: rounded(quantile(rows[i].p50)),
          p99Ms: rounded(quantile(rows[i].p99)),
          addsMs: rounded(quantile(rows[i].adds)),
          ...(i === 0
            ? {}
            : {
                oursOverIt: {
                  throughput: rounded(over('perSecond', i)),
                  p50: rounded(over('p50', i)),
                  p99: rounded(over('p99', i)),
                },
              }),
        };
        report.push(row);
        process.stderr.write(`${JSON.stringify(row)}\n`);
      }
      await graph.close();
    }
    for (const { client } of all) await client.close();
  }
} finally {
  for (const server of servers) await server.stop();
  await engine.close();
  rmSync(repository, { recursive: true });
}
process.stdout.write(`${JSON.stringify({ rounds: ROUNDS, seconds: SECONDS, report }, null, 2)}\n`);
