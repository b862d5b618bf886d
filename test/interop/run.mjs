// Runs software no one here wrote against `scrim serve`: tritonclient (HTTP and gRPC) and perf_analyzer.
//
// SCRIM_INTEROP_VENV names a Python venv; it is made and filled from requirements.txt where it does not exist.
// SCRIM_PERF_ANALYZER names perf_analyzer's binary (PyPI's perf-analyzer needs glibc 2.38; tritonclient 2.44 brings an
// older one); without it and without one in the venv that step is left out, and says so.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeModelRepository } from './model-repository.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const venv = process.env.SCRIM_INTEROP_VENV ?? join(tmpdir(), 'scrim-interop-venv');
const python = join(venv, 'bin', 'python');

function run(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', timeout: 600_000 });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ended with ${status}`);
}

/** Starts `scrim serve` on free ports and reads them from stderr. */
export async function startServer(repository, ...more) {
  const cli = fileURLToPath(new URL('../../packages/cli/bin/scrim.js', import.meta.url));
  const ports = ['--http-port', '0', '--grpc-port', '0', '--metrics-port', '0'];
  const child = spawn(process.execPath, [cli, 'serve', repository, ...ports, '--no-access-log', ...more], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let text = '';
  const [http, grpc] = await new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`scrim serve ended with ${code}:\n${text}`)));
    child.stderr.on('data', (part) => {
      text += part;
      const found = /HTTP +http:\/\/(\S+)[\s\S]*gRPC +(\S+)[\s\S]*metrics +\S+\n/.exec(text);
      if (found) resolve([found[1], found[2]]);
    });
  });
  const stop = async () => {
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    return exited;
  };
  return { http, grpc, stop, pid: child.pid };
}

function perfAnalyzer(binary, protocol, address) {
  process.stdout.write(`perf_analyzer ${protocol} against ${address}\n`);
  run(binary, [
    ...['-m', 'faceboxes', '-u', address, '-i', protocol, '--shape', 'INPUT__0:1,128,32,32'],
    ...['--concurrency-range', '1:8:7', '--measurement-mode', 'count_windows', '--measurement-request-count', '30'],
    // Stability of the numbers is not what is tried here, and a busy machine has none.
    ...['-s', '900', '-r', '3'],
  ]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (!existsSync(python)) {
    run('python3', ['-m', 'venv', venv]);
    run(python, ['-m', 'pip', 'install', '-q', '-r', join(here, 'requirements.txt')]);
  }
  const repository = mkdtempSync(join(tmpdir(), 'scrim-interop-'));
  let server;
  try {
    writeModelRepository(repository);
    server = await startServer(repository);
    run(python, [join(here, 'triton_clients.py'), server.http, server.grpc]);
    const binary = [process.env.SCRIM_PERF_ANALYZER, join(venv, 'bin', 'perf_analyzer')].find(
      (path) => path !== undefined && existsSync(path),
    );
    if (binary === undefined) {
      process.stdout.write('perf_analyzer was not run: SCRIM_PERF_ANALYZER names no file and the venv has none\n');
    } else {
      perfAnalyzer(binary, 'http', server.http);
      perfAnalyzer(binary, 'grpc', server.grpc);
    }
    const code = await server.stop();
    server = undefined;
    if (code !== 0) throw new Error(`scrim serve ended with ${code} after SIGTERM`);
    process.stdout.write('scrim serve ended with 0 after SIGTERM\n');
  } finally {
    await server?.stop();
    rmSync(repository, { recursive: true });
  }
}
