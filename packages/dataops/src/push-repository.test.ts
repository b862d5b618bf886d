/** The scripts that change a model repository, run by this machine's shell and killed at every step of theirs. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { SWAP, UNDO } from './push-repository.js';

const STAGE = '.scrim-push-1';
let folder: string;

/** Programs that count their calls; the one whose turn it is kills the shell that called it instead of working. */
const shim = (name: string): string => `#!/bin/sh
n=$(cat "$COUNT"); echo $((n + 1)) > "$COUNT"
if [ "$n" -eq "$KILL_AT" ]; then
  ${name === 'rm' ? 'for last in "$@"; do :; done; /bin/rm -f "$last/models"' : ':'}
  kill -9 $PPID
  exit 1
fi
PATH=$REAL_PATH exec ${name} "$@"
`;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'scrim-push-scripts-'));
  mkdirSync(join(folder, 'bin'));
  for (const name of ['mv', 'mkdir', 'rm']) {
    writeFileSync(join(folder, 'bin', name), shim(name));
    chmodSync(join(folder, 'bin', name), 0o755);
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function put(root: string, path: string, text: string): void {
  mkdirSync(join(root, path, '..'), { recursive: true });
  writeFileSync(join(root, path), text);
}

/** A repository with 'kept', and with 'a' and 'c' that a push of a, b and c is about to replace. */
function repositoryWithStage(): string {
  const root = mkdtempSync(join(folder, 'repo-'));
  for (const model of ['kept', 'a', 'c']) put(root, `${model}/config.pbtxt`, `old ${model}`);
  for (const model of ['a', 'b', 'c']) put(root, `${STAGE}/new/${model}/config.pbtxt`, `new ${model}`);
  put(root, `${STAGE}/models`, 'a\nb\nc\n');
  put(root, `${STAGE}/sums`, '');
  return root;
}

/** Runs a script; `killAt` is the number of the call that ends it. Returns whether it came to its end. */
function run(script: string, root: string, killAt = -1): boolean {
  const count = join(folder, 'count');
  writeFileSync(count, '0');
  const env = {
    PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
    REAL_PATH: process.env.PATH ?? '',
    COUNT: count,
    KILL_AT: String(killAt),
  };
  return spawnSync('sh', ['-c', script, 'scrim', root, STAGE], { env }).signal === null;
}

function models(root: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(root)
      .sort()
      .map((name) => [name, readFileSync(join(root, name, 'config.pbtxt'), 'utf8')]),
  );
}

const BEFORE = { a: 'old a', c: 'old c', kept: 'old kept' };
const AFTER = { a: 'new a', b: 'new b', c: 'new c', kept: 'old kept' };

it('puts all models in their places, or none of them, wherever the pod ends', () => {
  const whole = repositoryWithStage();
  expect(run(SWAP, whole)).toBe(true);
  expect(models(whole)).toEqual(AFTER);

  let steps = 0;
  for (let ended = false; !ended; steps++) {
    const root = repositoryWithStage();
    ended = run(SWAP, root, steps);
    const committed = ended || existsSync(join(root, `${STAGE}.done`));
    // The one who puts it back may be killed as well, at each of its steps, before another one does it.
    for (let at = 0, undone = false; !undone; at++) {
      const copy = mkdtempSync(join(folder, 'copy-'));
      cpSync(root, copy, { recursive: true });
      undone = run(UNDO, copy, at);
      expect(run(UNDO, copy)).toBe(true);
      expect(models(copy), `swap killed at ${steps}, undo at ${at}`).toEqual(committed ? AFTER : BEFORE);
    }
  }
  expect(steps).toBeGreaterThan(7);
});

it('takes the ground from a swap that still runs', () => {
  const root = repositoryWithStage();
  execFileSync('sh', ['-c', UNDO, 'scrim', root, STAGE]);
  expect(spawnSync('sh', ['-c', SWAP, 'scrim', root, STAGE]).status).toBe(1);
  expect(models(root)).toEqual(BEFORE);
});

it('removes a push whose stream broke off, whatever of it had come', () => {
  const root = repositoryWithStage();
  rmSync(join(root, STAGE, 'new/a'), { recursive: true });
  expect(run(UNDO, root)).toBe(true);
  expect(models(root)).toEqual(BEFORE);
  expect(run(UNDO, root)).toBe(true);
});
