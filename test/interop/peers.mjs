// Starts the servers that the interop tests and the benchmarks speak to: `scrim serve`, `scrim gateway`, real Triton (the
// tritonserver of PyPI's nvidia-pytriton, Python backend) and MLServer, each on free ports of this machine, and stops
// them again. Triton and MLServer serve the models of a Triton repository folder, run by Python's onnxruntime.
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createTritonClient } from 'scrim/client';

const here = fileURLToPath(new URL('.', import.meta.url));
const cli = fileURLToPath(new URL('../../packages/cli/bin/scrim.js', import.meta.url));
const START_MS = 180_000;

/** Runs a command to its end with its output shown. @throws Error if it fails */
export function runCommand(command, args, options = {}) {
  const { status, signal, error } = spawnSync(command, args, { stdio: 'inherit', timeout: 900_000, ...options });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ended with ${status ?? signal}`);
}

/** The venv of the tests, made and filled from requirements.txt where it does not exist. */
export function interopVenv() {
  const venv = process.env.SCRIM_INTEROP_VENV ?? join(tmpdir(), 'scrim-interop-venv');
  const python = join(venv, 'bin', 'python');
  if (!existsSync(python)) {
    runCommand('python3', ['-m', 'venv', venv]);
    runCommand(python, ['-m', 'pip', 'install', '-q', '-r', join(here, 'requirements.txt')]);
  }
  return { venv, python, packages: sitePackages(venv) };
}

function sitePackages(venv) {
  const [version] = readdirSync(join(venv, 'lib')).filter((name) => name.startsWith('python3'));
  return join(venv, 'lib', version, 'site-packages');
}

/**
 * perf_analyzer: the file SCRIM_PERF_ANALYZER names, else the one of tritonclient 2.44.0's wheel, the last that brings it
 * and runs on glibc 2.35 (PyPI's perf-analyzer needs 2.38). The two libraries it misses lie in nvidia-pytriton's wheel.
 */
export function perfAnalyzer({ venv, python, packages }) {
  const { SCRIM_PERF_ANALYZER: named } = process.env;
  if (named) return { binary: named, env: process.env };
  const folder = join(venv, 'perf-analyzer');
  const binary = join(folder, 'bin', 'perf_analyzer');
  if (!existsSync(binary)) {
    runCommand(python, ['-m', 'pip', 'install', '-q', '--no-deps', '--target', folder, 'tritonclient==2.44.0']);
    chmodSync(binary, 0o755);
  }
  const libraries = join(packages, 'nvidia_pytriton.libs');
  const links = join(folder, 'lib');
  mkdirSync(links, { recursive: true });
  for (const [name, stem] of [
    ['libb64.so.0d', 'libb64-'],
    ['libcudart.so.12', 'libcudart-'],
  ]) {
    const file = readdirSync(libraries).find((entry) => entry.startsWith(stem));
    if (file && !existsSync(join(links, name))) symlinkSync(join(libraries, file), join(links, name));
  }
  return { binary, env: { ...process.env, LD_LIBRARY_PATH: links } };
}

/** Starts `scrim serve` on free ports. */
export function startServer(repository, ...more) {
  return startScrim(['serve', repository, '--no-access-log', ...more]);
}

/** Starts `scrim gateway` on free ports. */
export function startGateway(upstream, ...more) {
  return startScrim(['gateway', '--upstream', upstream, ...more]);
}

/** Starts a command of scrim that listens and reads its addresses from stderr. */
async function startScrim(args) {
  const ports = ['--http-port', '0', '--grpc-port', '0', '--metrics-port', '0'];
  const child = launch(process.execPath, [cli, ...args, ...ports], {});
  const [http, grpc, metrics] = await new Promise((resolve, reject) => {
    child.process.once('exit', (code) => reject(new Error(`scrim ${args[0]} ended with ${code}:\n${child.log()}`)));
    child.process.stderr.on('data', () => {
      const found = /HTTP +https?:\/\/(\S+)[\s\S]*gRPC +(\S+)[\s\S]*metrics +(http:\S+)\/metrics.*\n/.exec(child.log());
      if (found) resolve(found.slice(1));
    });
  });
  return { name: `scrim ${args[0]}`, http, grpc, metrics, stop: child.stop, log: child.log, pid: child.process.pid };
}

/**
 * Starts real Triton on the models of `repository`. Its wheel has the Python backend alone, so each model.onnx gets
 * triton_onnx_model.py beside it and `backend: "python"` in its configuration; the rest of config.pbtxt stays.
 */
export async function startTriton({ venv, packages }, repository, { models, env = {} } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'scrim-triton-'));
  const triton = join(packages, 'pytriton', 'tritonserver');
  const backends = join(folder, 'backends');
  const served = join(folder, 'models');
  cpSync(join(triton, 'backends'), backends, { recursive: true });
  const version = packages.match(/python(3\.\d+)/)[1];
  const stub = join(backends, 'python', 'triton_python_backend_stub');
  cpSync(join(triton, 'python_backend_stubs', version, 'triton_python_backend_stub'), stub);
  chmodSync(stub, 0o755);
  for (const name of models ?? readdirSync(repository)) {
    mkdirSync(join(served, name, '1'), { recursive: true });
    cpSync(join(repository, name, '1', 'model.onnx'), join(served, name, '1', 'model.onnx'));
    cpSync(join(here, 'triton_onnx_model.py'), join(served, name, '1', 'model.py'));
    const config = readFileSync(join(repository, name, 'config.pbtxt'), 'utf8');
    writeFileSync(join(served, name, 'config.pbtxt'), config.replace(/^platform:.*$/m, 'backend: "python"'));
  }
  const [http, grpc, metrics] = await freePorts(3);
  const child = launch(
    join(triton, 'bin', 'tritonserver'),
    [
      ...[`--model-repository=${served}`, `--backend-directory=${backends}`],
      ...[`--http-port=${http}`, `--grpc-port=${grpc}`, `--metrics-port=${metrics}`],
      ...['--http-address=127.0.0.1', '--grpc-address=127.0.0.1', '--exit-timeout-secs=5'],
    ],
    {
      ...env,
      // The backend's process finds its interpreter's packages by the python3 of PATH.
      PATH: `${join(venv, 'bin')}:${process.env.PATH}`,
      LD_LIBRARY_PATH: join(packages, 'nvidia_pytriton.libs'),
    },
  );
  await untilReady('tritonserver', child, http);
  return {
    name: 'Triton',
    http: `127.0.0.1:${http}`,
    grpc: `127.0.0.1:${grpc}`,
    metrics: `http://127.0.0.1:${metrics}`,
    log: child.log,
    stop: async () => {
      const code = await child.stop();
      rmSync(folder, { recursive: true });
      return code;
    },
  };
}

/** Starts MLServer on the models of `repository`, with `tensors(name)` as their inputs' and outputs' metadata. */
export async function startMlserver({ venv }, repository, { models, tensors, env = {}, settings = {} }) {
  const folder = mkdtempSync(join(tmpdir(), 'scrim-mlserver-'));
  const [http, grpc, metrics] = await freePorts(3);
  cpSync(join(here, 'mlserver_onnx_model.py'), join(folder, 'mlserver_onnx_model.py'));
  const limit = 64 * 2 ** 20;
  writeFileSync(
    join(folder, 'settings.json'),
    JSON.stringify({
      ...{ host: '127.0.0.1', http_port: http, grpc_port: grpc, metrics_port: metrics },
      // Its worker processes do not start under the uvloop that PyPI has now; the model runs in a thread instead.
      ...{ parallel_workers: 0, grpc_max_message_length: limit, debug: false, ...settings },
    }),
  );
  for (const name of models) {
    mkdirSync(join(folder, name));
    writeFileSync(
      join(folder, name, 'model-settings.json'),
      JSON.stringify({
        name,
        implementation: 'mlserver_onnx_model.OnnxModel',
        parameters: { uri: join(repository, name, '1', 'model.onnx'), version: '1' },
        ...tensors(name),
      }),
    );
  }
  const child = launch(join(venv, 'bin', 'mlserver'), ['start', folder], {
    ...env,
    PYTHONPATH: folder,
    PATH: `${join(venv, 'bin')}:${process.env.PATH}`,
  });
  await untilReady('mlserver', child, http);
  return {
    name: 'MLServer',
    http: `127.0.0.1:${http}`,
    grpc: `127.0.0.1:${grpc}`,
    log: child.log,
    stop: async () => {
      const code = await child.stop();
      rmSync(folder, { recursive: true });
      return code;
    },
  };
}

function launch(command, args, env) {
  const process_ = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let text = '';
  const exited = new Promise((resolve) => {
    process_.once('exit', resolve);
    process_.once('error', (error) => {
      text += String(error);
      resolve(-1);
    });
  });
  for (const stream of [process_.stdout, process_.stderr]) {
    stream.on('data', (part) => {
      // The end of what a server said is enough to see why it failed.
      text = `${text}${part}`.slice(-100_000);
    });
  }
  const onExit = () => process_.kill('SIGKILL');
  process.once('exit', onExit);
  return {
    process: process_,
    exited,
    log: () => text,
    stop: async () => {
      process_.kill('SIGTERM');
      const timer = setTimeout(() => process_.kill('SIGKILL'), 30_000);
      const code = await exited;
      clearTimeout(timer);
      process.off('exit', onExit);
      return code;
    },
  };
}

async function untilReady(name, child, port) {
  const client = createTritonClient({ url: `http://127.0.0.1:${port}`, retry: { retries: 0 }, timeoutMs: 2_000 });
  const end = performance.now() + START_MS;
  let gone = false;
  void child.exited.then(() => {
    gone = true;
  });
  while (!(await client.serverReady().catch(() => false))) {
    if (gone || performance.now() > end) {
      await child.stop();
      throw new Error(`${name} did not become ready:\n${child.log().slice(-5_000)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  await client.close();
}

/** Ports that were free a moment ago; Triton and MLServer take no 0. */
async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
      return server;
    }),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
