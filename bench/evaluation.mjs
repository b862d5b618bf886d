// What does the noise add to the wall time of a whole evaluation (TR-4928: a quarter more), and how many images a second
// are evaluated on this machine? `scrim evaluate` without and with noise in turns, each in a process of its own; the
// turns change their order, and a ratio is made within a turn. CPU seconds of the same runs stand beside: a busy machine
// distorts them less. The noisy run with a bottleneck bundle has another tail, so the diagonal bundle is the comparison.
//
//   node bench/evaluation.mjs FDDB [--rounds 7] [--bundle models/faceboxes-tfjs/alpha-0.80] [--json]
import { spawn } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { quantile, rounded } from './measure.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '7' },
    bundle: { type: 'string', default: fileURLToPath(new URL('../models/faceboxes-tfjs/alpha-0.80', import.meta.url)) },
    json: { type: 'boolean', default: false },
  },
});
const [fddb] = positionals;
const rounds = Number(values.rounds);
if (fddb === undefined || !(rounds >= 1)) {
  process.stderr.write('usage: node bench/evaluation.mjs FDDB [--rounds 7] [--bundle DIR] [--json]\n');
  process.exit(2);
}
const SCRIM = fileURLToPath(new URL('../packages/cli/bin/scrim.js', import.meta.url));

/** One evaluation in a process of its own: seconds by its own clock, and CPU seconds and peak memory of the process. */
async function evaluate(more) {
  const script = `process.on('exit', () => { const u = process.resourceUsage(); require('node:fs').writeSync(3, JSON.stringify(u)); });`;
  const options = ['--dataset', fddb, '--allow-missing', '--json', ...more];
  const child = spawn(
    process.execPath,
    [
      '--import',
      `data:text/javascript,${encodeURIComponent(`import{createRequire}from'node:module';const require=createRequire('/');${script}`)}`,
      SCRIM,
      'evaluate',
      ...options,
    ],
    { stdio: ['ignore', 'pipe', 'pipe', 'pipe'] },
  );
  const read = async (stream) => {
    let text = '';
    for await (const chunk of stream) text += chunk;
    return text;
  };
  const closed = new Promise((resolve) => child.once('close', resolve));
  const [out, err, usage] = await Promise.all([read(child.stdout), read(child.stderr), read(child.stdio[3])]);
  if ((await closed) !== 0) throw new Error(err.trim().split('\n').at(-1));
  const { seconds, images } = JSON.parse(out);
  const { userCPUTime, systemCPUTime, maxRSS } = JSON.parse(usage);
  return { seconds, cpu: (userCPUTime + systemCPUTime) / 1e6, peakMiB: maxRSS / 1024, images: images.found };
}

const clean = () => evaluate([]);
const noisy = () => evaluate(['--noisy', '--bundle', values.bundle]);
await clean(); // the files' first reading
const turns = [];
for (let i = 0; i < rounds; i++) {
  const turn = {};
  for (const name of i % 2 === 0 ? ['clean', 'noisy'] : ['noisy', 'clean']) {
    turn[name] = await (name === 'clean' ? clean() : noisy());
  }
  turns.push(turn);
  process.stderr.write(`round ${i + 1} of ${rounds}\n`);
}
const of = (name, key) => turns.map((turn) => turn[name][key]);
const ratio = (key) => quantile(turns.map((turn) => turn.noisy[key] / turn.clean[key]));
const rate = (name) => rounded(turns[0][name].images / quantile(of(name, 'seconds')), 1);
const result = {
  images: turns[0].clean.images,
  rounds,
  cleanImagesPerSecond: rate('clean'),
  noisyImagesPerSecond: rate('noisy'),
  addedWallTime: rounded(ratio('seconds') - 1, 4),
  addedCpuTime: rounded(ratio('cpu') - 1, 4),
  peakMiB: Math.round(Math.max(...of('clean', 'peakMiB'), ...of('noisy', 'peakMiB'))),
  machine: `${cpus()[0]?.model}, ${cpus().length} cores, node ${process.version}`,
};
if (values.json) process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
else {
  process.stdout.write(`${result.images} images, ${rounds} rounds in turns; ${result.machine}
clean            ${result.cleanImagesPerSecond} images/s
with noise       ${result.noisyImagesPerSecond} images/s
noise adds       ${rounded(100 * result.addedWallTime, 1)}% of wall time, ${rounded(100 * result.addedCpuTime, 1)}% of CPU time (medians of the rounds' ratios)
peak memory      ${result.peakMiB} MiB
`);
}
