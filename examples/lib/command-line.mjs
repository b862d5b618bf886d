// The `scrim` command from a script, files it reads, and tables for people.
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createConfidentialSession, createTritonClient } from 'scrim/client';
import { createNodeCrypto, openBundle } from 'scrim/node';

const BIN = fileURLToPath(new URL('../../packages/cli/bin/scrim.js', import.meta.url));

/** Flags every example has: --quick runs a short version, --out keeps what it makes. */
export function readFlags(name) {
  const { values } = parseArgs({
    options: { quick: { type: 'boolean', default: false }, out: { type: 'string' }, json: { type: 'boolean' } },
  });
  const out = values.out ?? join('out', name);
  mkdirSync(out, { recursive: true });
  return { quick: values.quick, out, json: values.json ?? false };
}

/** Says something on stderr. */
export function say(text) {
  process.stderr.write(`${text}\n`);
}

/** Runs `scrim` with these arguments and returns the JSON document it prints. */
export async function scrim(...args) {
  say(`$ scrim ${args.join(' ')}`);
  const child = spawn(process.execPath, [BIN, ...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [output, errors] = ['', ''];
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  const status = await new Promise((done) => child.on('close', done));
  if (status !== 0) throw new Error(`scrim ${args[0]} ended with ${status}:\n${errors}`);
  return JSON.parse(output);
}

/** Serves a bundle's remote half with `scrim serve` while `use(url)` runs. */
async function serve(repository, use) {
  const args = ['serve', repository, '--http-port', '0', '--no-grpc-port'];
  const child = spawn(process.execPath, [BIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  try {
    const url = await new Promise((found, failed) => {
      let text = '';
      const read = (chunk) => {
        text += chunk;
        const match = /http:\/\/127\.0\.0\.1:\d+/.exec(text);
        if (match) found(match[0]);
      };
      child.stdout.on('data', read);
      child.stderr.on('data', read);
      child.on('close', () => failed(new Error(`scrim serve ended:\n${text}`)));
    });
    return await use(url);
  } finally {
    if (child.exitCode === null) {
      const ended = new Promise((done) => child.on('close', done));
      child.kill('SIGTERM');
      await ended;
    }
  }
}

/** Sends some inputs through a session to a server of its own; returns the answers and the bytes of one request. */
export async function inferRemotely(engine, bundleFolder, inputs, payload = 'fp16') {
  const repository = `${bundleFolder}-repository`;
  await scrim('repo', 'export', '--bundle', bundleFolder, '--out', repository, '--payloads', payload, '--force');
  return serve(repository, async (url) => {
    const client = createTritonClient({ url });
    const bundle = await openBundle(bundleFolder);
    const session = await createConfidentialSession({ bundle, client, engine, crypto: createNodeCrypto(), payload });
    try {
      const answers = [];
      for (const input of inputs) answers.push(await session.infer(input));
      return { outputs: answers.map(({ outputs }) => outputs), bytes: answers[0].sentBytes };
    } finally {
      await session.close();
      await client.close();
    }
  });
}

/** A float32 array as NumPy writes it. */
export function writeNpy(file, shape, data) {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(', ')},), }`;
  const header = Buffer.from(`${text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11)}\n`);
  const start = Buffer.from([0x93, ...Buffer.from('NUMPY'), 1, 0, header.length & 0xff, header.length >> 8]);
  writeFile(file, Buffer.concat([start, header, Buffer.from(data.buffer, data.byteOffset, data.byteLength)]));
}

/** Writes a file and the folders it lies in. */
export function writeFile(file, content) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
}

/** Prints rows under headings, columns lined up. */
export function printTable(headings, rows) {
  const all = [headings, ...rows].map((row) => row.map(String));
  const widths = headings.map((_, i) => Math.max(...all.map((row) => row[i].length)));
  for (const row of all) {
    process.stdout.write(
      `${row
        .map((cell, i) => cell.padEnd(widths[i]))
        .join('  ')
        .trimEnd()}\n`,
    );
  }
}

/** Prints one JSON document on stdout. */
export function printJson(value) {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}
