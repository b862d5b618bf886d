/**
 * Looks for secrets in what was sent: short runs of bytes of each secret, in every encoding they could travel in, in
 * addresses, headers and bodies, compressed bodies unpacked. A run is taken where the bytes vary, so that a chance
 * match is out of the question.
 */
import { brotliDecompressSync, gunzipSync, inflateRawSync, inflateSync } from 'node:zlib';
import type { SentRequest } from './studio.js';

/** Something that must not leave. */
export interface Secret {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const RUN_BYTES = 24;
const RUNS = 200;
const LEAST_VARIETY = 10;

/** Names of secrets found in a request, with the encoding; empty if there is none. */
export function findSecrets(request: SentRequest, secrets: readonly Secret[]): string[] {
  const haystacks = [
    Buffer.from(decodeURIComponentSafely(request.url)),
    Buffer.from(JSON.stringify(request.headers)),
    request.body,
    ...unpacked(request.body),
  ];
  const found = new Set<string>();
  for (const { name, bytes } of secrets) {
    for (const run of runsOf(bytes)) {
      for (const [encoding, needle] of encodings(run)) {
        if (haystacks.some((haystack) => haystack.includes(needle))) found.add(`${name} as ${encoding}`);
      }
    }
  }
  return [...found];
}

/** Runs spread over the secret, each with at least ten different bytes. */
function* runsOf(bytes: Uint8Array): Generator<Buffer> {
  const step = Math.max(RUN_BYTES, Math.floor(bytes.length / RUNS));
  for (let at = 0; at + RUN_BYTES <= bytes.length; at += step) {
    const run = Buffer.from(bytes.subarray(at, at + RUN_BYTES));
    if (new Set(run).size >= LEAST_VARIETY) yield run;
  }
}

function* encodings(run: Buffer): Generator<[name: string, needle: Buffer]> {
  yield ['bytes', run];
  yield ['bytes backwards', Buffer.from(run).reverse()];
  const hex = run.toString('hex');
  yield ['hexadecimal', Buffer.from(hex)];
  yield ['hexadecimal', Buffer.from(hex.toUpperCase())];
  yield ['decimal numbers', Buffer.from([...run].join(','))];
  yield ['decimal numbers', Buffer.from([...run].join(', '))];
  // The letters of base64 depend on where a run starts within its group of three.
  for (let shift = 0; shift < 3; shift++) {
    const inner = run.subarray(shift, shift + Math.floor((RUN_BYTES - shift) / 3) * 3);
    yield ['base64', Buffer.from(inner.toString('base64'))];
    yield ['base64url', Buffer.from(inner.toString('base64url'))];
  }
}

function unpacked(body: Buffer): Buffer[] {
  return [gunzipSync, inflateSync, inflateRawSync, brotliDecompressSync].flatMap((unpack) => {
    try {
      return [unpack(body)];
    } catch {
      return [];
    }
  });
}

function decodeURIComponentSafely(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
