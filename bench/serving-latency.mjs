// What does a request take on top of a local call of the same model? The remote half of the shipped bundle at alpha 0.8 in
// the default payload (fp16), concurrency 1, our own client over HTTP and gRPC on this machine, instances as threads and as
// processes; calls in turns, so that a busy machine slows all alike.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPayloadPlan, createTritonClient, encodePayload, exportRepository, payloadBytes } from 'scrim/client';
import {
  createGrpcClient,
  createHttpAgent,
  createNodeEngine,
  openConfidentialSession,
  writeDirectory,
} from 'scrim/node';
import { startServer } from '../test/interop/peers.mjs';
import { shippedBundle } from '../test/interop/sessions.mjs';
import { quantile, rounded } from './measure.mjs';

const CALLS = Number(process.env.CALLS ?? 200);
const SIDE = 1024;
const folder = mkdtempSync(join(tmpdir(), 'scrim-bench-'));
const bundle = await shippedBundle();
const servers = [];
try {
  const repository = join(folder, 'repository');
  await writeDirectory(repository, await exportRepository(bundle, ['fp16']));
  for (const kind of ['thread', 'process']) servers.push(await startServer(repository, '--instances', kind));
  const session = await openConfidentialSession({ bundle, url: `http://${servers[0].http}`, payload: 'fp16' });
  const image = new Float32Array(3 * SIDE * SIDE).map((_, i) => ((i * 2654435761) >>> 8) / 2 ** 23 - 1);
  const release = await session.trusted.release({ dtype: 'float32', shape: [1, 3, SIDE, SIDE], data: image });
  const plan = createPayloadPlan(bundle.parameters);
  const tensor = encodePayload(release, 'fp16', plan, bundle.parameters);
  const engine = await createNodeEngine();
  const local = await engine.load(readFileSync(join(repository, session.model, '1', 'model.onnx')));
  const clients = servers.flatMap(({ http, grpc }) => [
    createTritonClient({ url: `http://${http}`, transport: createHttpAgent() }),
    createGrpcClient({ url: grpc }),
  ]);
  const request = { modelName: session.model, inputs: [{ name: bundle.manifest.remote.input, tensor }] };
  const names = ['HTTP, thread', 'gRPC, thread', 'HTTP, process', 'gRPC, process'];
  const sides = { local: () => local.run({ [bundle.manifest.remote.input]: tensor }) };
  for (const [i, name] of names.entries()) sides[name] = () => clients[i].infer(request);
  const times = Object.fromEntries(Object.keys(sides).map((name) => [name, []]));
  for (let i = -20; i < CALLS; i++) {
    for (const [name, task] of Object.entries(sides)) {
      const start = performance.now();
      await task();
      if (i >= 0) times[name].push(performance.now() - start);
    }
  }
  const added = names.map((name) => [name, rounded(quantile(times[name]) - quantile(times.local))]);
  process.stdout.write(
    `${JSON.stringify(
      {
        calls: CALLS,
        payload: 'fp16',
        tensorBytes: payloadBytes(plan, 'fp16', (SIDE / 32) ** 2),
        medianMs: Object.fromEntries(Object.entries(times).map(([name, list]) => [name, rounded(quantile(list))])),
        addedMs: Object.fromEntries(added),
        addedMsOfTheFastestTenth: Object.fromEntries(
          names.map((name) => [name, rounded(quantile(times[name], 0.1) - quantile(times.local, 0.1))]),
        ),
      },
      null,
      2,
    )}\n`,
  );
  for (const client of clients) await client.close();
  await session.close();
  await engine.close();
} finally {
  for (const server of servers) await server.stop();
  rmSync(folder, { recursive: true });
}
