// The clients of `scrim/node` in Node, Deno and Bun against `scrim serve` in Node:
// node test/interop/runtimes.mjs [folder to keep npm's deno and bun in]
//
// Deno and Bun have node:net and node:http2 of their own making: what is tried is that the clients' connections work on them.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { addOne } from './model-repository.mjs';
import { runCommand, startServer } from './peers.mjs';

const VERSIONS = ['deno@2.9.6', 'bun@1.4.5'];
const IDLE_MS = 200;
/** Longest that a client may take, its end included. */
const CLIENT_MS = 90_000;

const folder = mkdtempSync(join(tmpdir(), 'scrim-runtimes-'));
const listen = (server) =>
  new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}`)));

/** Has npm install the binaries below `prefix`, once. */
function installed(prefix) {
  const mark = join(prefix, 'installed');
  if (!existsSync(mark) || readFileSync(mark, 'utf8') !== VERSIONS.join()) {
    rmSync(join(prefix, 'node_modules'), { recursive: true, force: true });
    mkdirSync(prefix, { recursive: true });
    runCommand('npm', ['install', '--silent', '--ignore-scripts', '--prefix', prefix, ...VERSIONS]);
    // Puts the binary that npm has installed already under its name.
    runCommand(process.execPath, ['install.js'], { cwd: join(prefix, 'node_modules', 'bun') });
    writeFileSync(mark, VERSIONS.join());
  }
  return (name) => join(prefix, 'node_modules', '.bin', name);
}

/** A certificate for this machine that is its own authority. */
function certificate() {
  const [key, cert] = [join(folder, 'server.key'), join(folder, 'server.pem')];
  const subject = ['-subj', '/CN=scrim', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2'];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', cert, ...subject], { stdio: 'pipe' });
  return { key, cert };
}

/** Ends connections that are idle for long without having said so; a server's name in its answers is the connection's number. */
function briefServer() {
  let count = 0;
  return createServer((socket) => {
    const body = JSON.stringify({ name: String(++count), version: '1', extensions: [] });
    socket.on('error', () => {});
    socket.setTimeout(IDLE_MS, () => socket.end());
    socket.on('data', () => socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`));
  });
}

const brokenServer = () =>
  createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (bytes) => {
      if (bytes.includes('/half/')) socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf');
      else socket.destroy();
    });
  });

function run(command, args) {
  const child = spawn(command, args, { stdio: 'inherit', timeout: CLIENT_MS });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) =>
      code === 0 ? resolve() : reject(new Error(`${command} ended with ${code ?? `${signal} after ${CLIENT_MS} ms`}`)),
    );
  });
}

const prefix = process.argv[2] ?? join(tmpdir(), 'scrim-runtimes');
const binary = installed(prefix);
mkdirSync(join(folder, 'models', 'tiny', '1'), { recursive: true });
writeFileSync(join(folder, 'models', 'tiny', '1', 'model.onnx'), addOne('float32', 4));
const tensor = (name) => `{ name: "${name}" data_type: TYPE_FP32 dims: [ -1, 4 ] }`;
writeFileSync(
  join(folder, 'models', 'tiny', 'config.pbtxt'),
  `platform: "onnxruntime_onnx"\nmax_batch_size: 0\ninput ${tensor('INPUT__0')}\noutput ${tensor('OUTPUT__0')}\n`,
);
const { key, cert } = certificate();
const sockets = new Set();
const silent = createServer((socket) => {
  sockets.add(socket.on('error', () => {}));
  socket.resume();
});
const [brief, broken] = [briefServer(), brokenServer()];
const servers = [];
try {
  servers.push(await startServer(join(folder, 'models')));
  servers.push(await startServer(join(folder, 'models'), '--tls-cert', cert, '--tls-key', key));
  const settings = join(folder, 'settings.json');
  writeFileSync(
    settings,
    JSON.stringify({
      plain: `http://${servers[0].http}`,
      secure: `https://${servers[1].http}`,
      grpc: `grpc://${servers[0].grpc}`,
      grpcs: `grpcs://${servers[1].grpc}`,
      ca: readFileSync(cert, 'utf8'),
      silent: await listen(silent),
      broken: await listen(broken),
      brief: { url: await listen(brief), idleMs: IDLE_MS },
    }),
  );
  const client = fileURLToPath(new URL('./runtime-client.mjs', import.meta.url));
  await run(process.execPath, [client, settings]);
  await run(binary('deno'), ['run', '--no-lock', '--allow-all', client, settings]);
  await run(binary('bun'), [client, settings]);
} finally {
  for (const server of servers) await server.stop();
  for (const socket of sockets) socket.destroy();
  for (const server of [silent, brief, broken]) server.close();
  rmSync(folder, { recursive: true });
}
process.stdout.write('3 passed, 0 failed\n');
