/**
 * What really left: a TCP relay that keeps every byte a client sends, the reading of those bytes as HTTP/1.1 requests or
 * gRPC messages (bodies inflated), and the search for any run of a secret in them.
 */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { gunzipSync, inflateSync } from 'node:zlib';

/** A relay that runs. */
export interface WireRecorder {
  readonly port: number;
  /** Bytes that came from clients since the last call, by connection. */
  take(): Buffer[];
  close(): Promise<void>;
}

/** Listens on a free port of this machine and passes everything on to `port`. */
export async function recordWire(port: number): Promise<WireRecorder> {
  let streams: Buffer[][] = [];
  const open = new Set<Socket>();
  const server = createServer((client) => {
    let kept: Buffer[] | undefined;
    const target = connect(port, '127.0.0.1');
    for (const [socket, other] of [
      [client, target],
      [target, client],
    ] as const) {
      open.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        open.delete(socket);
        other.destroy();
      });
    }
    client.on('data', (part) => {
      // A connection that lives on after take() starts a new record.
      if (kept === undefined || !streams.includes(kept)) {
        kept = [];
        streams.push(kept);
      }
      kept.push(part);
      target.write(part);
    });
    target.on('data', (part) => client.write(part));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as { port: number }).port,
    take: () => {
      const taken = streams.map((parts) => Buffer.concat(parts));
      streams = [];
      return taken;
    },
    close: async () => {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Bodies as the receiver understands them, and how many bytes the stream had besides. */
export interface ReadWire {
  readonly bodies: Buffer[];
  /** Header lines or HTTP/2 frames that are no data: everything but the bodies as sent. */
  readonly otherBytes: number;
  /** `Inference-Header-Content-Length` of each body, for HTTP. */
  readonly headerLengths: (number | undefined)[];
}

/** Reads requests of HTTP/1.1 with Content-Length, one after another. */
export function readHttp(stream: Buffer): ReadWire {
  const bodies: Buffer[] = [];
  const headerLengths: (number | undefined)[] = [];
  let otherBytes = 0;
  for (let at = 0; at < stream.length; ) {
    const end = stream.indexOf('\r\n\r\n', at) + 4;
    const head = stream.toString('latin1', at, end);
    const header = (name: string): string | undefined => new RegExp(`^${name}: *(.*)\r$`, 'im').exec(head)?.[1];
    const length = Number(header('content-length') ?? 0);
    const body = stream.subarray(end, end + length);
    otherBytes += end - at;
    at = end + length;
    if (length === 0) continue;
    const encoding = header('content-encoding');
    bodies.push(encoding === 'gzip' ? gunzipSync(body) : encoding === 'deflate' ? inflateSync(body) : body);
    const announced = header('inference-header-content-length');
    headerLengths.push(announced === undefined ? undefined : Number(announced));
  }
  return { bodies, otherBytes, headerLengths };
}

const PREFACE = 24;
const FRAME_HEAD = 9;
const PADDED = 8;

/** Reads gRPC over HTTP/2 without TLS: the messages of all streams, inflated where they are compressed. */
export function readGrpc(connection: Buffer): ReadWire {
  const streams = new Map<number, Buffer[]>();
  let dataBytes = 0;
  const start = connection.toString('latin1', 0, 3) === 'PRI' ? PREFACE : 0;
  for (let at = start; at < connection.length; ) {
    const length = connection.readUIntBE(at, 3);
    const [type, flags] = [connection[at + 3], connection[at + 4] as number];
    const id = connection.readUInt32BE(at + 5) & 0x7fffffff;
    let data = connection.subarray(at + FRAME_HEAD, at + FRAME_HEAD + length);
    at += FRAME_HEAD + length;
    if (type !== 0) continue;
    dataBytes += length;
    if (flags & PADDED) data = data.subarray(1, data.length - (data[0] as number));
    const parts = streams.get(id);
    if (parts) parts.push(data);
    else streams.set(id, [data]);
  }
  const bodies: Buffer[] = [];
  for (const parts of streams.values()) {
    const all = Buffer.concat(parts);
    for (let at = 0; at < all.length; ) {
      const length = all.readUInt32BE(at + 1);
      const body = all.subarray(at + 5, at + 5 + length);
      const isGzip = body[0] === 0x1f && body[1] === 0x8b;
      bodies.push(all[at] === 0 ? body : isGzip ? gunzipSync(body) : inflateSync(body));
      at += 5 + length;
    }
  }
  return { bodies, otherBytes: connection.length - dataBytes, headerLengths: [] };
}

const WINDOW = 24;
const FILTER_BITS = 23;
const BASE = 0x01000193;

/** A secret, and the hashes of its runs of 24 bytes. */
export interface Secret {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly runs: Uint32Array;
}

/** Prepares `bytes` to be looked for. */
export function createSecret(name: string, bytes: Uint8Array): Secret {
  return { name, bytes, runs: hashes(bytes) };
}

/**
 * Names of the secrets of which a run of 24 bytes, at any offset, is anywhere in `wire`. Runs of at most four different
 * bytes (blank areas, one repeated float) are no secret.
 */
export function findSecrets(wire: Buffer, secrets: readonly Secret[]): string[] {
  const filter = new Uint8Array(2 ** FILTER_BITS);
  for (const hash of hashes(wire)) filter[hash] = 1;
  const isIn = ({ bytes, runs }: Secret): boolean => {
    for (let at = 0; at < runs.length; at++) {
      if (filter[runs[at] as number] === 0) continue;
      const run = bytes.subarray(at, at + WINDOW);
      if (new Set(run).size > 4 && wire.includes(run)) return true;
    }
    return false;
  };
  return secrets.filter(isIn).map(({ name }) => name);
}

/** A rolling hash of each window. */
function hashes(bytes: Uint8Array): Uint32Array {
  let power = 1;
  for (let i = 0; i < WINDOW; i++) power = Math.imul(power, BASE);
  const all = new Uint32Array(Math.max(0, bytes.length - WINDOW + 1));
  let hash = 0;
  for (let i = 0; i < bytes.length; i++) {
    hash = (Math.imul(hash, BASE) + (bytes[i] as number) + 1) | 0;
    if (i >= WINDOW) hash = (hash - Math.imul(power, (bytes[i - WINDOW] as number) + 1)) | 0;
    // The low bits of a product mix least: spread them before the high ones are taken.
    if (i >= WINDOW - 1) all[i - WINDOW + 1] = Math.imul(hash ^ (hash >>> 15), 0x9e3779b1) >>> (32 - FILTER_BITS);
  }
  return all;
}
