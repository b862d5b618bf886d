// Short versions of every example, from a clone: each has to run to its end, answer through noise about as it answers
// without, and leave an attacker with less than clean activations do. Needs a built tree.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const { resolve } = createRequire(import.meta.url);

const EXAMPLES = [
  {
    name: 'tabular',
    check: ({ clean, results: [noisy] }) => ({
      'the clean model has learned': clean.accuracy > 0.8,
      'noise leaves most answers': noisy.quality.agreement.mean > 0.7,
      'an attacker has the clean columns': clean.attack.income > 0.5,
      'the release hides a column the answer does not need': noisy.attack.income < 0.3,
      'the release is small': noisy.bytes < 1000,
    }),
  },
  {
    name: 'digits',
    needs: 'mnist/package.json',
    check: ({ clean, results: [diagonal, bottleneck] }) => ({
      'the clean model has learned': clean.accuracy > 0.85,
      'noise leaves most answers': diagonal.quality.agreement.mean > 0.5,
      'a bottleneck fits the same cut': bottleneck.nats > 0 && bottleneck.bytes < diagonal.bytes,
      'an attacker rebuilds less than from clean activations': diagonal.rebuilt < clean.rebuilt - 0.1,
    }),
  },
  {
    name: 'speech',
    needs: '@ricky0123/vad-web/package.json',
    check: ({ clean, results: [noisy] }) => ({
      'the rebuilt model is the shipped one': clean.difference < 1e-4,
      'Silero hears the made-up voices': clean.accuracy > 0.9,
      'noise leaves most answers': noisy.quality.agreement.mean > 0.9,
    }),
  },
];

const folder = mkdtempSync(join(tmpdir(), 'scrim-examples-'));
let failed = 0;
for (const { name, needs, check } of EXAMPLES) {
  try {
    if (needs) resolve(needs);
  } catch {
    process.stdout.write(`skipped ${name}: the package of '${needs}' is not installed\n`);
    continue;
  }
  const started = performance.now();
  const run = spawnSync(
    process.execPath,
    [join(root, 'examples', name, 'run.mjs'), '--quick', '--json', '--out', join(folder, name)],
    { cwd: root, encoding: 'utf8', maxBuffer: 1e8 },
  );
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  if (run.status !== 0) {
    failed++;
    process.stdout.write(`FAILED ${name}: it ended with ${run.status}\n${run.stderr.slice(-2000)}\n`);
    continue;
  }
  const wrong = Object.entries(check(JSON.parse(run.stdout))).filter(([, holds]) => !holds);
  failed += wrong.length;
  for (const [claim] of wrong) process.stdout.write(`FAILED ${name}: ${claim}\n`);
  if (wrong.length === 0) process.stdout.write(`ok ${name} (${seconds} s)\n`);
}
rmSync(folder, { recursive: true, force: true });
process.exitCode = failed > 0 ? 1 : 0;
