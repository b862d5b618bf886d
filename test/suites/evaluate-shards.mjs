// An evaluation in parts by the command itself: one process is killed in the middle and run again, and the merged
// figures are compared with a single run's, digit for digit. Needs a built tree. Usage: node evaluate-shards.mjs [FDDB]
// Without FDDB it lays out the sample photos of npm packages as FDDB, labelled by what the detector finds at another size.
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const bin = fileURLToPath(new URL('../../packages/cli/bin/scrim.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'scrim-shards-'));
const file = (name) => join(folder, name);
const print = (text) => process.stdout.write(`${text}\n`);
let passed = 0;
let failed = 0;
const check = (name, good, why = '') => {
  if (good) passed++;
  else failed++;
  print(`${good ? 'ok  ' : 'FAIL'} ${name}${good ? '' : ` ${why}`}`);
};

const SIZE = '256';
const scrim = (...args) => {
  const run = spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8', timeout: 300_000 });
  return { ...run, json: run.status === 0 && args.includes('--json') ? JSON.parse(run.stdout) : undefined };
};
const [given] = process.argv.slice(2);
const dataset = given ?? layOut();
const common = ['--dataset', dataset, '--allow-missing'];
const evaluate = (...args) => scrim('evaluate', ...common, '--size', SIZE, ...args);
const figures = ({ mAP, pooledAP, folds, images }) => JSON.stringify({ mAP, pooledAP, folds, images });

try {
  const single = evaluate('--json');
  check('a single run', single.status === 0, single.stderr);
  for (const of of [1, 4]) {
    const parts = [];
    for (let index = 0; index < of; index++) {
      const part = file(`clean-${index}-of-${of}.json`);
      parts.push(part);
      const run = evaluate('--shard', `${index}/${of}`, '--partial', part);
      if (run.status !== 0) check(`part ${index}/${of}`, false, run.stderr);
    }
    const merged = scrim('evaluate', 'merge', ...parts.toReversed(), ...common, '--json');
    check(
      `${of} parts merge to the figures of the single run`,
      merged.status === 0 && figures(merged.json) === figures(single.json),
      `${merged.stderr} ${merged.stdout} ${single.stdout}`,
    );
    if (of === 4) {
      const missing = scrim('evaluate', 'merge', ...parts.slice(1), ...common);
      check('a missing part is refused', missing.status === 2 && /1 of 4 parts are missing: 0/.test(missing.stderr));
      const again = evaluate('--shard', '0/4', '--partial', parts[0], '--size', '320');
      check(
        'a part of another size is not gone on with',
        again.status === 1 && /size is/.test(again.stderr),
        again.stderr,
      );
      const text = scrim('evaluate', 'merge', ...parts, ...common);
      check('the block is printed', text.stdout.includes(`mAP: ${single.json.mAP}\n`), text.stdout);
    }
  }

  // A process that is killed without warning, then run again: what it kept counts once.
  const killed = file('killed.json');
  const slow = ['evaluate', ...common, '--size', '1024', '--threads', '1', '--shard', '0/1', '--partial', killed];
  const child = spawn(process.execPath, [bin, ...slow], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const until = performance.now() + 120_000;
  while (!existsSync(killed) && child.exitCode === null && performance.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  child.kill('SIGKILL');
  await ended;
  const before = JSON.parse(readFileSync(killed, 'utf8')).images;
  check('a killed process leaves a whole file', before.done > 0 && before.done < before.found, JSON.stringify(before));
  const resumed = scrim(...slow, '--json');
  check('it goes on behind what was kept', resumed.json?.resumed === before.done, resumed.stderr);
  const whole = scrim('evaluate', ...common, '--size', '1024', '--json');
  const merged = scrim('evaluate', 'merge', killed, ...common, '--json');
  check('and has the figures of a run that was not killed', figures(merged.json) === figures(whole.json));

  // With noise each run draws anew, so parts are compared with themselves in another order.
  const noisy = [];
  for (const index of [0, 1]) {
    const part = file(`noisy-${index}.json`);
    noisy.push(part);
    evaluate('--noisy', '--alpha', '0.8', '--repeats', '2', '--shard', `${index}/2`, '--partial', part);
  }
  const one = scrim('evaluate', 'merge', ...noisy, ...common, '--json');
  const other = scrim('evaluate', 'merge', ...noisy.toReversed(), ...common, '--json');
  check(
    'noisy parts merge, draws apart',
    one.json?.mAP?.runs?.length === 2 && one.json.noisy && figures(one.json) === figures(other.json),
    one.stderr,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
print(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

/** Sample photos under FDDB's names, four in each fold; the faces are those the detector finds at 640 pixels. */
function layOut() {
  const root = join(folder, 'fddb');
  const assets = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')), 'assets');
  const samples = [1, 2, 3, 4, 5, 6].map((n) => join(assets, `sample${n}.jpg`));
  const { photos } = scrim('detect', ...samples, '--size', '640', '--out', file('pictures'), '--json').json;
  const labels = photos.map(({ clean }) =>
    clean.map(({ box: [left, top, right, bottom] }) =>
      [(bottom - top) / 2, (right - left) / 2, Math.PI / 2, (left + right) / 2, (top + bottom) / 2, ' 1'].join(' '),
    ),
  );
  mkdirSync(join(root, 'FDDB-folds'), { recursive: true });
  for (let fold = 1; fold <= 10; fold++) {
    const lines = [];
    mkdirSync(join(root, 'originalPics', `2002/${fold}`), { recursive: true });
    for (let i = 0; i < 4; i++) {
      const sample = (fold * 4 + i) % samples.length;
      const name = `2002/${fold}/img_${i}`;
      copyFileSync(samples[sample], join(root, 'originalPics', `${name}.jpg`));
      lines.push(name, String(labels[sample].length), ...labels[sample]);
    }
    const list = `FDDB-fold-${String(fold).padStart(2, '0')}-ellipseList.txt`;
    writeFileSync(join(root, 'FDDB-folds', list), `${lines.join('\n')}\n`);
  }
  return root;
}
