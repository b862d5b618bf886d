// What does a request take on top of a local call of the same model? The remote half of the shipped bundle at alpha 0.8 in
// the default payload (fp16), as `scrim repo export` writes it or, with 'all', answering with the rows of all anchors;
// concurrency 1, our own client over HTTP and gRPC on this machine, instances as threads and as processes; rows of calls
// in turns, so that a busy machine slows all alike. What a session adds to that, putting candidates in their places, is
// said apart.
//
//   node bench/serving-latency.mjs [diagonal|bottleneck] [all]
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  candidateNames,
  createPayloadPlan,
  createTritonClient,
  encodePayload,
  exportRepository,
  payloadBytes,
  placeCandidates,
} from 'scrim/client';
import {
  createGrpcClient,
  createHttpAgent,
  createNodeEngine,
  openConfidentialSession,
  writeDirectory,
} from 'scrim/node';
import { findBundle, photoSide } from '../packages/cli/dist/bundle-store.js';
import { loadModelSource } from '../packages/cli/dist/model-source.js';
import { startServer } from '../test/interop/peers.mjs';
import { latencies, quantile, rounded } from './measure.mjs';

const CALLS = Number(process.env.CALLS ?? 600);
const ROW = 40;
/** Calls of each side that are not counted: code of the client and of the server is compiled in them. */
const WARM_UP = Number(process.env.WARM_UP ?? 1000);
const KINDS = ['thread', 'process'];
const folder = mkdtempSync(join(tmpdir(), 'scrim-bench-'));
const [transform = 'diagonal', all] = process.argv.slice(2);
const bundle = await findBundle(await loadModelSource('faceboxes'), 0.8, transform);
const side = photoSide(undefined, [bundle]);
const servers = [];
try {
  const repository = join(folder, 'repository');
  await writeDirectory(
    repository,
    await exportRepository(bundle, { payloads: ['fp16'], ...(all ? { candidates: 'all' } : {}) }),
  );
  for (const kind of KINDS) servers.push(await startServer(repository, '--instances', kind));
  const session = await openConfidentialSession({ bundle, url: `http://${servers[0].http}`, payload: 'fp16' });
  const image = new Float32Array(3 * side * side).map((_, i) => ((i * 2654435761) >>> 8) / 2 ** 23 - 1);
  const release = await session.trusted.release({ dtype: 'float32', shape: [1, 3, side, side], data: image });
  const plan = createPayloadPlan(bundle.parameters);
  const tensor = encodePayload(release, 'fp16', plan, bundle.parameters);
  const engine = await createNodeEngine();
  const local = await engine.load(readFileSync(join(repository, session.model, '1', 'model.onnx')));
  const request = { modelName: session.model, inputs: [{ name: bundle.manifest.remote.input, tensor }] };
  const clients = [];
  const answer = await local.run({ [bundle.manifest.remote.input]: tensor });
  const result = {
    calls: CALLS,
    warmUp: WARM_UP,
    transform,
    payload: 'fp16',
    tensorBytes: payloadBytes(plan, 'fp16', (side / 32) ** 2),
    answerBytes: Object.values(answer).reduce((sum, { data }) => sum + data.byteLength, 0),
  };
  if (!all) {
    const names = candidateNames(bundle.manifest);
    result.placingMs = rounded(quantile(await latencies(async () => placeCandidates(answer, names), CALLS)), 3);
  }
  for (const [i, { http, grpc }] of servers.entries()) {
    const byHttp = createTritonClient({ url: `http://${http}`, transport: createHttpAgent() });
    const byGrpc = createGrpcClient({ url: grpc });
    clients.push(byHttp, byGrpc);
    const sides = {
      local: () => local.run({ [bundle.manifest.remote.input]: tensor }),
      http: () => byHttp.infer(request),
      grpc: () => byGrpc.infer(request),
    };
    const times = Object.fromEntries(Object.keys(sides).map((name) => [name, []]));
    // A caller at concurrency 1 calls the same server again and again, so a turn is a row of calls to one side.
    for (let turn = -Math.ceil(WARM_UP / ROW); turn < CALLS / ROW; turn++) {
      for (const [name, task] of Object.entries(sides)) {
        await latencies(task, 5);
        const row = await latencies(task, ROW);
        if (turn >= 0) times[name].push(...row);
      }
    }
    const medians = Object.fromEntries(Object.entries(times).map(([name, list]) => [name, quantile(list)]));
    result[`instances as a ${KINDS[i]}`] = {
      localMs: rounded(medians.local),
      httpAddsMs: rounded(medians.http - medians.local),
      grpcAddsMs: rounded(medians.grpc - medians.local),
      httpOverLocal: rounded(medians.http / medians.local),
      grpcOverLocal: rounded(medians.grpc / medians.local),
    };
  }
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  for (const client of clients) await client.close();
  await session.close();
  await engine.close();
} finally {
  for (const server of servers) await server.stop();
  rmSync(folder, { recursive: true });
}
