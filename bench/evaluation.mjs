// What does the noise add to an evaluation (TR-4928: a quarter of its wall time), and how many images a second are
// evaluated on this machine?
//
// A machine's speed wanders by far more than the noise costs, from second to second and from process to process. So one
// process keeps the pipeline of `scrim evaluate` loaded twice, without and with noise, and evaluates the same short block
// of photos in the order clean, noisy, noisy, clean; the next turn goes the other way round. A turn gives one ratio of
// wall time and one of processor time, of all threads. Their mean without the fifth at either end is printed with its
// 95% interval: bootstrap over processes and over the turns within. Loading, compiling and the first turns do not count.
// Both sides share one heap: a collection counts for the side it falls on, and falls on both alike. The pipeline
// frees what the noise leaves behind by hand, so the noise sets off next to none of its own.
//
//   node bench/evaluation.mjs [FDDB] [--processes 4] [--turns 50] [--block 12] [--same] [--json]
//                             [--bundle models/faceboxes-tfjs/alpha-0.80]
//
// --same runs the clean side as both: what the method says where there is no difference. Without FDDB the photos are the
// samples of npm packages, which take longer to decode. A bottleneck bundle has another tail, so the diagonal bundle is
// the comparison.
import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { linkFddb } from '../test/suites/linked-fddb.mjs';
import { pairedShare, quantile, rounded } from './measure.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    processes: { type: 'string', default: '4' },
    turns: { type: 'string', default: '50' },
    block: { type: 'string', default: '12' },
    bundle: { type: 'string', default: fileURLToPath(new URL('../models/faceboxes-tfjs/alpha-0.80', import.meta.url)) },
    same: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const [processes, turns, block] = [values.processes, values.turns, values.block].map(Number);
if (!(processes >= 1 && turns >= 2 && block >= 1)) {
  process.stderr.write(
    'usage: node bench/evaluation.mjs [FDDB] [--processes 4] [--turns 50] [--block 12] [--bundle DIR] [--same] [--json]\n',
  );
  process.exit(2);
}
const SIZE = 1024;
/** As many as there are of FDDB here; blocks go round. */
const PHOTOS = 103;
const WARM_UP_TURNS = 5;
const folder = mkdtempSync(join(tmpdir(), 'scrim-bench-'));

async function startProcess() {
  const settings = { fddb: folder, size: SIZE, ...(values.same ? {} : { bundle: values.bundle }) };
  const child = fork(new URL('./evaluation-turns.mjs', import.meta.url), [JSON.stringify(settings)]);
  const answer = () =>
    new Promise((resolve, reject) => {
      child.once('message', resolve);
      child.once('exit', (code) => reject(new Error(`a process of the comparison ended with code ${code}`)));
    }).finally(() => child.removeAllListeners('exit'));
  const hello = await answer();
  return {
    ...hello,
    run: (turn) => {
      child.send(turn);
      return answer();
    },
    close: () => new Promise((resolve) => child.once('exit', resolve).disconnect()),
  };
}

const ORDERS = [
  ['clean', 'noisy', 'noisy', 'clean'],
  ['noisy', 'clean', 'clean', 'noisy'],
];
const groups = [];
let engine;
let lanes;
try {
  const photos = linkFddb(folder, PHOTOS, positionals[0]);
  for (let i = 0; i < processes; i++) {
    const child = await startProcess();
    ({ engine, lanes } = child);
    const found = [];
    for (let turn = 0; turn < WARM_UP_TURNS + turns; turn++) {
      const from = (i * turns + turn) * block;
      found.push(await child.run({ from, count: block, order: ORDERS[turn % ORDERS.length] }));
    }
    groups.push(found.slice(WARM_UP_TURNS));
    await child.close();
    process.stderr.write(`process ${i + 1} of ${processes}\n`);
  }

  const total = (runs, what) => runs.reduce((sum, run) => sum + run[what], 0);
  const compare = (what) => {
    const ratio = ({ clean, noisy }) => total(noisy, what) / total(clean, what);
    const { share, interval, byGroup } = pairedShare(groups.map((found) => found.map(ratio)));
    return {
      added: rounded(share, 4),
      interval95: interval.map((value) => rounded(value, 4)),
      byProcess: byGroup.map((value) => rounded(value, 4)),
    };
  };
  /** Median over the turns of what an image took or gave. */
  const perImage = (side, what) => quantile(groups.flat().map((turn) => total(turn[side], what) / 2 / block));
  const both = (value) => ({ clean: value('clean'), noisy: value('noisy') });
  const result = {
    photos,
    processes,
    turns,
    block,
    lanes,
    wall: compare('wallMs'),
    cpu: compare('cpuMs'),
    imagesPerSecond: both((side) => rounded(1000 / perImage(side, 'wallMs'), 1)),
    cpuMsPerImage: both((side) => rounded(perImage(side, 'cpuMs'))),
    boxesPerImage: both((side) => rounded(perImage(side, 'boxes'), 1)),
    engine,
    machine: `${cpus()[0]?.model}, ${cpus().length} cores, node ${process.version}`,
  };
  const percent = (share) => `${share < 0 ? '−' : '+'}${Math.abs(100 * share).toFixed(1)}%`;
  const line = (name, { added, interval95, byProcess }) =>
    `${name.padEnd(18)}${percent(added)}, 95% interval ${interval95.map(percent).join(' to ')} (by process: ${byProcess.map(percent).join(', ')})\n`;
  const pair = (name, { clean, noisy }, unit) => `${name.padEnd(18)}${clean}${unit}, with noise ${noisy}${unit}\n`;
  process.stdout.write(
    values.json
      ? `${JSON.stringify(result, undefined, 2)}\n`
      : `${photos} photos; ${processes} processes with ${turns} turns of four blocks of ${block}; ${lanes} lanes
${engine}; ${result.machine}
${values.same ? 'both sides are without noise\n' : ''}` +
          pair('images a second', result.imagesPerSecond, '') +
          pair('processor time', result.cpuMsPerImage, ' ms an image') +
          pair('boxes an image', result.boxesPerImage, '') +
          'noise adds\n' +
          line('  wall time', result.wall) +
          line('  processor time', result.cpu),
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
