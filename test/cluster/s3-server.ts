/** A real S3 server on the loopback interface (versitygw over a folder, with TLS), and the rclone to use it with. */
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './control-plane.js';

/** Its address, keys and certificate, and where its objects lie as files. */
export interface S3Server {
  readonly port: number;
  readonly accessKey: string;
  readonly secretKey: string;
  /** The certificate in PEM; it vouches for itself. */
  readonly certificate: string;
  /** A folder to work in; `data/BUCKET/KEY` below it is an object. */
  readonly folder: string;
  /** Path of rclone. */
  readonly rclone: string;
  stop(): void;
}

/** Starts the server with one empty bucket; builds server and rclone where they are missing. */
export async function startS3Server(bucket: string): Promise<S3Server> {
  const script = fileURLToPath(new URL('build-s3-tools.sh', import.meta.url));
  const printed = execFileSync('bash', [script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  const tools = printed.trim().split('\n').at(-1) ?? '';
  const folder = mkdtempSync(join(tmpdir(), 'scrim-s3-'));
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const files = ['-keyout', 'key.pem', '-out', 'cert.pem'];
  execFileSync('openssl', [...request, ...subject, ...files], { cwd: folder, stdio: 'pipe' });
  mkdirSync(join(folder, 'data', bucket), { recursive: true });
  const port = await freePort();
  const accessKey = 'test-access';
  const secretKey = `s/${randomBytes(12).toString('base64')}`;
  // Its paths are absolute: the server changes to the folder of its objects before it reads them.
  const pair = ['--cert', join(folder, 'cert.pem'), '--key', join(folder, 'key.pem')];
  const address = ['--port', `127.0.0.1:${port}`, ...pair];
  const server = spawn(join(tools, 'versitygw'), [...address, '--quiet', 'posix', 'data'], {
    cwd: folder,
    env: { ...process.env, ROOT_ACCESS_KEY: accessKey, ROOT_SECRET_KEY: secretKey },
    stdio: 'ignore',
  });
  const stop = (): void => {
    server.kill('SIGTERM');
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await eventually(20_000, () => reachable(port));
  } catch (error) {
    stop();
    throw error;
  }
  const certificate = readFileSync(join(folder, 'cert.pem'), 'utf8');
  return { port, accessKey, secretKey, certificate, folder, rclone: join(tools, 'rclone'), stop };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function reachable(port: number): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  socket.destroy();
}
