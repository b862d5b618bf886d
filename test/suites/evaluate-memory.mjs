// Memory of `scrim evaluate` over many photos: it rises while the engines warm up, and then stays. The command itself
// runs over a data set in FDDB's layout whose photos are links to a few real ones, and its memory is read from outside.
// Needs a built tree and Linux's /proc. Usage: node evaluate-memory.mjs [--images 10000] [--size 1024] [--noisy] [FDDB]
// Without FDDB the photos are the samples of npm packages. Prints resident memory at intervals, and the highest.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { linkFddb } from './linked-fddb.mjs';

/** Of the issue that asked for flat memory: the most that may be resident, and how much it may grow once warm. */
const MAX_BYTES = 1.5e9;
const MAX_GROWTH = 0.2;
/** Share of the photos after which the engines count as warm. */
const WARM = 0.3;
const EVERY_MS = 250;
const LINES = 20;

const { values, positionals } = parseArgs({
  options: {
    images: { type: 'string', default: '10000' },
    size: { type: 'string', default: '1024' },
    noisy: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const images = Number(values.images);
const print = (text) => process.stdout.write(`${text}\n`);
if (!(Number.isSafeInteger(images) && images >= 10)) {
  print(`--images is ${values.images}, expected an integer of at least 10`);
  process.exit(2);
}
if (!existsSync('/proc/self/status')) {
  print('this needs /proc: skipped\n0 passed, 0 failed');
  process.exit(0);
}

const bin = fileURLToPath(new URL('../../packages/cli/bin/scrim.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'scrim-memory-'));
try {
  const photos = linkFddb(folder, images, positionals[0]);
  print(`${images} images, links to ${photos} photos, ${values.size}×${values.size}`);
  const { status, stderr, readings } = await watch([
    'evaluate',
    ...['--dataset', folder, '--size', values.size, '--json'],
    ...(values.noisy ? ['--noisy', '--alpha', '0.8'] : []),
  ]);
  if (status !== 0) {
    print(`scrim evaluate ended with ${status}\n${stderr}\n0 passed, 1 failed`);
    process.exitCode = 1;
  } else {
    report(readings);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** Prints memory over time, and compares the end of the run with where it was warm. */
function report(readings) {
  const highest = Math.max(...readings.map(({ bytes }) => bytes));
  for (let i = 0; i < LINES; i++) {
    const { seconds, bytes } = readings[Math.floor((i * (readings.length - 1)) / (LINES - 1))];
    print(`${seconds.toFixed(1).padStart(8)} s ${megabytes(bytes)}`);
  }
  const warm = readings.slice(Math.floor(readings.length * WARM));
  const third = Math.max(1, Math.floor(warm.length / 3));
  const early = median(warm.slice(0, third));
  const late = median(warm.slice(-third));
  const growth = late / early - 1;
  const checks = [
    [`the highest ${megabytes(highest)} is at most ${megabytes(MAX_BYTES)}`, highest <= MAX_BYTES],
    [
      `from ${megabytes(early)} once warm to ${megabytes(late)} at the end: ${(100 * growth).toFixed(1)}%, at most ${100 * MAX_GROWTH}%`,
      growth <= MAX_GROWTH,
    ],
  ];
  for (const [name, good] of checks) print(`${good ? 'ok  ' : 'FAIL'} ${name}`);
  const failed = checks.filter(([, good]) => !good).length;
  print(`${checks.length - failed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}

/** Runs the command and reads its resident memory at intervals; its engines are threads of the same process. */
async function watch(args) {
  const child = spawn(process.execPath, [bin, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const readings = [];
  const started = performance.now();
  const timer = setInterval(() => {
    const bytes = residentBytes(child.pid);
    if (bytes !== undefined) readings.push({ seconds: (performance.now() - started) / 1000, bytes });
  }, EVERY_MS);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr = (stderr + text).slice(-4000);
  });
  const status = await new Promise((done) => {
    child.on('close', done);
  });
  clearInterval(timer);
  return { status, stderr, readings };
}

function residentBytes(pid) {
  try {
    const [, kibibytes] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return kibibytes === undefined ? undefined : Number(kibibytes) * 1024;
  } catch {
    return undefined; // it has just ended
  }
}

function median(readings) {
  const sorted = readings.map(({ bytes }) => bytes).sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(0).padStart(6)} MB`;
}
