// What a user gets who installs the packages instead of cloning: all four are packed, installed into an empty project
// together with what the README says to install, and the README's own examples are type-checked and run there.
// Needs a built tree and the npm registry.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const project = mkdtempSync(join(tmpdir(), 'scrim-packed-'));
const samples = join(project, 'node_modules/@vladmandic/human/assets');
let passed = 0;
let failed = 0;

function call(command, args, cwd = project) {
  const run = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 1e8, timeout: 300_000 });
  if (run.error) throw run.error;
  return run;
}

/** Runs a command and holds it against `expected`, which gets the run and gives what is wrong, or nothing. */
function check(name, command, args, expected = () => undefined) {
  const run = call(command, args);
  const wrong = run.status === 0 ? expected(run) : `exit code ${run.status}`;
  if (wrong) {
    failed += 1;
    process.stdout.write(`failed: ${name}: ${wrong}\n${`${run.stdout}${run.stderr}`.slice(-2000)}\n`);
  } else {
    passed += 1;
    process.stdout.write(`passed: ${name}\n`);
  }
}

/** The README's n-th block of TypeScript. */
const examples = [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/```ts\n(.*?)```/gs)].map(
  ([, code]) => code,
);

try {
  const packs = call('npm', ['pack', '--silent', '--workspaces', '--pack-destination', project], root);
  const archives = readdirSync(project).filter((name) => name.endsWith('.tgz'));
  if (packs.status !== 0 || archives.length !== 4) throw new Error(`npm pack: ${packs.stderr}${archives.join(', ')}`);
  const { devDependencies: pinned } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  copyFileSync(join(root, '.npmrc'), join(project, '.npmrc'));
  writeFileSync(join(project, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  const compilerOptions = {
    target: 'es2022',
    module: 'nodenext',
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    types: ['node'],
  };
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
  for (const [i, code] of examples.entries()) writeFileSync(join(project, `example-${i}.ts`), code);

  const tools = ['typescript', '@types/node', 'onnxruntime-node', 'sharp'].map((name) => `${name}@${pinned[name]}`);
  check('install into an empty project', 'npm', [
    'install',
    '--no-audit',
    '--no-fund',
    ...tools,
    ...archives.map((name) => `./${name}`),
  ]);
  copyFileSync(join(samples, 'sample1.jpg'), join(project, 'photo.jpg'));
  const scrim = (...args) => ['--no-install', 'scrim', ...args];
  check('the command says its version', 'npx', scrim('--version'), ({ stdout }) =>
    /^\d+\.\d+\.\d+\n$/.test(stdout) ? undefined : `it says '${stdout}'`,
  );
  check('detect with a shipped bundle', 'npx', scrim('detect', 'photo.jpg', '--alpha', '0.8', '--out', 'out'), () =>
    existsSync(join(project, 'out')) ? undefined : 'no pictures',
  );
  check('a bundle is fitted', 'npx', [
    ...scrim('fit', '--alpha', '0.8', '--photos', samples, '--out', 'face-bundle'),
    ...['--steps', '4', '--batch', '2', '--canvases', '4', '--size', '256'],
  ]);
  check('the examples are right in strict TypeScript', 'npx', ['--no-install', 'tsc']);
  check('the first example finds faces', process.execPath, ['example-0.js'], ({ stdout }) =>
    /score/.test(stdout) ? undefined : `it prints '${stdout}'`,
  );
} finally {
  rmSync(project, { recursive: true, force: true });
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed > 0 ? 1 : 0;
