// Software no one here wrote against this project's, each over HTTP and gRPC. Prints what it ran; fails at the first that
// did not work. Parts: clients (tritonclient and perf_analyzer against `scrim serve`), triton (our client and `scrim
// gateway` against real Triton), mlserver (our client against MLServer). Default: all; `run.mjs triton` runs one.
//
// SCRIM_INTEROP_VENV names a Python venv; it is made and filled from requirements.txt where it does not exist.
// SCRIM_PERF_ANALYZER names another perf_analyzer.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createTritonClient, exportRepository } from 'scrim/client';
import { writeDirectory } from 'scrim/node';
import { writeModelRepository } from './model-repository.mjs';
import {
  interopVenv,
  perfAnalyzer,
  runCommand,
  startGateway,
  startMlserver,
  startServer,
  startTriton,
} from './peers.mjs';
import { SIDE, samplePhotos, sessionsAgainst, shippedBundle } from './sessions.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const say = (text) => process.stdout.write(`${text}\n`);

/** Runs `task` with what `start` started, and stops it whatever happens. `scrim` has to end with 0. */
async function using(start, task) {
  const server = await start;
  let result;
  try {
    result = await task(server);
  } catch (error) {
    say(`--- last words of ${server.name}:\n${server.log().slice(-3_000)}`);
    await server.stop();
    throw error;
  }
  const code = await server.stop();
  if (server.pid !== undefined && code !== 0) throw new Error(`${server.name} ended with ${code} after SIGTERM`);
  say(`  ok ${server.name} stopped on SIGTERM`);
  return result;
}

async function clients(tools) {
  const repository = mkdtempSync(join(tmpdir(), 'scrim-interop-'));
  try {
    writeModelRepository(repository);
    await using(startServer(repository), async ({ http, grpc }) => {
      runCommand(tools.python, [join(here, 'triton_clients.py'), http, grpc]);
      await perfAnalyzerAgainst(tools, { http, grpc });
    });
  } finally {
    rmSync(repository, { recursive: true });
  }
}

/**
 * perf_analyzer at concurrency 1 to 8 over both protocols. It reads the server's statistics before and after each window
 * and reports their differences: those columns must be there, and the server must have counted no fewer requests.
 */
async function perfAnalyzerAgainst(tools, { http, grpc }) {
  const { binary, env } = perfAnalyzer(tools);
  const folder = mkdtempSync(join(tmpdir(), 'scrim-perf-'));
  const client = createTritonClient({ url: `http://${http}` });
  const answered = async () => Number((await client.modelStatistics('faceboxes'))[0].inference.success.count);
  try {
    for (const [protocol, address] of [
      ['http', http],
      ['grpc', grpc],
    ]) {
      say(`perf_analyzer ${protocol} against ${address}`);
      const csv = join(folder, `${protocol}.csv`);
      const before = await answered();
      const load = ['--concurrency-range', '1:8', '--measurement-mode', 'count_windows'];
      runCommand(
        binary,
        [
          ...['-m', 'faceboxes', '-u', address, '-i', protocol, '--shape', 'INPUT__0:1,128,32,32', '-f', csv],
          // Stability of the numbers is not what is tried here, and a busy machine has none.
          ...[...load, '--measurement-request-count', '20', '-s', '900', '-r', '3'],
        ],
        { env },
      );
      const [header, ...rows] = readFileSync(csv, 'utf8')
        .trim()
        .split('\n')
        .map((line) => line.split(','));
      const column = (row, name) => {
        const at = header.indexOf(name);
        if (at === -1) throw new Error(`perf_analyzer reported no '${name}', only ${header.join(', ')}`);
        return Number(row[at]);
      };
      // It sorts them by throughput.
      rows.sort((a, b) => column(a, 'Concurrency') - column(b, 'Concurrency'));
      const levels = rows.map((row) => column(row, 'Concurrency'));
      if (levels.join() !== '1,2,3,4,5,6,7,8') throw new Error(`perf_analyzer measured concurrency ${levels}`);
      for (const row of rows) {
        const [queue, infer] = [column(row, 'Server Queue'), column(row, 'Server Compute Infer')];
        // Times in microseconds; what waits in the queue grows with the callers, what computes is above zero.
        if (!(infer > 0 && queue >= 0 && infer + queue < column(row, 'p99 latency') * 2)) {
          throw new Error(`perf_analyzer read statistics that can't be: ${row.join()}`);
        }
      }
      const counted = (await answered()) - before;
      if (counted < 8 * 20)
        throw new Error(`the server counted ${counted} requests of perf_analyzer's, expected 160 or more`);
      const shown = rows
        .map((row) => `${column(row, 'Server Queue')}+${column(row, 'Server Compute Infer')}`)
        .join(' ');
      say(
        `  ok perf_analyzer ${protocol}: server's own queue+infer in µs by concurrency: ${shown}; ${counted} requests counted`,
      );
    }
  } finally {
    await client.close();
    rmSync(folder, { recursive: true });
  }
}

/** The remote half of the shipped bundle, in every payload form, as `scrim repo export` writes it. */
async function withRemoteHalf(task) {
  const folder = mkdtempSync(join(tmpdir(), 'scrim-interop-'));
  const repository = join(folder, 'repository');
  try {
    const bundle = await shippedBundle();
    await writeDirectory(repository, await exportRepository(bundle));
    await task(repository, bundle);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function triton(tools) {
  return withRemoteHalf((repository) =>
    using(startTriton(tools, repository), async (server) => {
      const payloads = ['fp32', 'fp16', 'int16', 'uint8'];
      for (const url of [`http://${server.http}`, `grpc://${server.grpc}`]) {
        await sessionsAgainst({ name: 'Triton', url, repository, payloads });
      }
      for (const upstream of [`http://${server.http}`, `grpc://${server.grpc}`]) {
        say(`tritonclient through scrim gateway to ${upstream}`);
        await using(startGateway(upstream, '--transform', 'diagonal', '--size', String(SIDE)), ({ http, grpc }) =>
          runCommand(tools.python, [
            ...[join(here, 'gateway_clients.py'), http, grpc, 'faceboxes-tfjs', String(SIDE)],
            ...samplePhotos(),
          ]),
        );
      }
    }),
  );
}

function mlserver(tools) {
  return withRemoteHalf((repository, { manifest, parameters }) => {
    const channels = parameters.shape[0];
    const sent = channels - manifest.transform.suppressedChannels;
    const forms = { face_detection_noisy: ['FP32', channels], face_detection_noisy_int16: ['INT16', sent] };
    // What config.pbtxt says for Triton: the compact model sends candidates.
    const candidates = [
      { name: 'OUTPUT__2', datatype: 'INT32', shape: [-1, -1] },
      { name: 'OUTPUT__3', datatype: 'INT32', shape: [-1, 1] },
    ];
    const tensors = (name) => ({
      inputs: [{ name: 'INPUT__0', datatype: forms[name][0], shape: [-1, forms[name][1], -1, -1] }],
      outputs: [
        { name: 'OUTPUT__0', datatype: 'FP32', shape: [-1, -1, 4] },
        { name: 'OUTPUT__1', datatype: 'FP32', shape: [-1, -1, 2] },
        ...(name === 'face_detection_noisy' ? [] : candidates),
      ],
    });
    return using(startMlserver(tools, repository, { models: Object.keys(forms), tensors }), async (server) => {
      for (const url of [`http://${server.http}`, `grpc://${server.grpc}`]) {
        await sessionsAgainst({ name: 'MLServer', url, repository, payloads: ['fp32', 'int16'] });
      }
    });
  });
}

const parts = { clients, triton, mlserver };
const chosen = process.argv.slice(2);
const unknown = chosen.find((name) => !Object.hasOwn(parts, name));
if (unknown !== undefined) throw new Error(`part '${unknown}' is unknown, expected ${Object.keys(parts).join(', ')}`);
const tools = interopVenv();
for (const [name, part] of Object.entries(parts)) {
  if (chosen.length === 0 || chosen.includes(name)) {
    say(`=== ${name}`);
    await part(tools);
  }
}
