// What does the way through the gateway add? The same photos by our session (head and noise in this process) and by a plain
// v2 client through `scrim gateway`, both to the same remote server, in turns; the difference, against head and noise.
// As files (BYTES, decoded at the gateway) and as input tensors of 12.6 MB.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTritonClient, exportRepository } from 'scrim/client';
import { createGrpcClient, createHttpAgent, openConfidentialSession, readImage, writeDirectory } from 'scrim/node';
import { createPixelConverter, planResize } from 'scrim/vision';
import { startGateway, startServer } from '../test/interop/peers.mjs';
import { samplePhotos, shippedBundle } from '../test/interop/sessions.mjs';
import { quantile, rounded } from './measure.mjs';

const CALLS = Number(process.env.CALLS ?? 30);
const SIDE = 1024;
const resize = { kind: 'stretch', width: SIDE, height: SIDE };

const folder = mkdtempSync(join(tmpdir(), 'scrim-bench-'));
const bundle = await shippedBundle();
const { model } = bundle.manifest;
const servers = [];
try {
  const repository = join(folder, 'repository');
  await writeDirectory(repository, await exportRepository(bundle, { payloads: ['fp16'] }));
  const remote = await startServer(repository);
  servers.push(remote);
  const gateway = await startGateway(`http://${remote.http}`, '--transform', 'diagonal', '--size', String(SIDE));
  servers.unshift(gateway);
  const session = await openConfidentialSession({ bundle, url: `http://${remote.http}` });
  const clients = {
    http: createTritonClient({ url: `http://${gateway.http}`, transport: createHttpAgent() }),
    grpc: createGrpcClient({ url: gateway.grpc }),
  };
  const [photo] = samplePhotos();
  const file = new Uint8Array(readFileSync(photo));
  const converter = createPixelConverter(model.detector.preprocessing);
  const prepared = async () => {
    const image = await readImage(file);
    const { resized, canvas } = planResize(image, resize, model.detector.multiple);
    return converter.convert(image, { resized, canvas });
  };
  const input = await prepared();
  let timing = { headMs: 0, transformMs: 0 };
  const onTiming = (value) => {
    timing = value;
  };
  // The session's own way, in two parts, so that head and noise are known.
  const direct = async (makeInput) => {
    const release = await session.trusted.release(await makeInput(), { onTiming, now: () => performance.now() });
    return session.send(release);
  };
  const through = (client, tensor) => client.infer({ modelName: model.name, inputs: [{ name: model.input, tensor }] });
  const bytes = { dtype: 'bytes', shape: [1], data: [file] };
  const sides = {
    'file: session': () => direct(prepared),
    'file: HTTP': () => through(clients.http, bytes),
    'file: gRPC': () => through(clients.grpc, bytes),
    'tensor: session': () => direct(async () => input),
    'tensor: HTTP': () => through(clients.http, input),
    'tensor: gRPC': () => through(clients.grpc, input),
  };
  const times = Object.fromEntries(Object.keys(sides).map((name) => [name, []]));
  const headAndNoise = [];
  for (const task of Object.values(sides)) for (let i = 0; i < 5; i++) await task();
  for (let i = 0; i < CALLS; i++) {
    for (const [name, task] of Object.entries(sides)) {
      const start = performance.now();
      await task();
      times[name].push(performance.now() - start);
      if (name.endsWith('session')) headAndNoise.push(timing.headMs + timing.transformMs);
    }
  }
  const base = quantile(headAndNoise);
  const rows = Object.keys(sides).map((name) => {
    const own = times[`${name.split(':')[0]}: session`];
    const added = quantile(times[name].map((ms, i) => ms - own[i]));
    return {
      way: name,
      ms: rounded(quantile(times[name])),
      ...(name.endsWith('session') ? {} : { addedMs: rounded(added), addedOverHeadAndNoise: rounded(added / base, 3) }),
    };
  });
  process.stdout.write(
    `${JSON.stringify({ calls: CALLS, side: SIDE, headAndNoiseMs: rounded(base), rows }, null, 2)}\n`,
  );
  for (const client of Object.values(clients)) await client.close();
  await session.close();
} finally {
  for (const server of servers) await server.stop();
  rmSync(folder, { recursive: true });
}
