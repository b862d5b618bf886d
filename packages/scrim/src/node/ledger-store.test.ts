import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ReleaseCharge } from '../client/release-ledger.js';
import { type LedgerOptions, type LedgerStore, openLedger } from './ledger-store.js';

let folder: string;
let file: string;
let opened: LedgerStore[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'scrim-ledger-'));
  file = join(folder, 'releases.db');
});
afterEach(() => {
  for (const ledger of opened) ledger.close();
  opened = [];
  rmSync(folder, { recursive: true, force: true });
});

async function openHere(options: Partial<LedgerOptions> = {}): Promise<LedgerStore> {
  const ledger = await openLedger({ file, ...options });
  opened.push(ledger);
  return ledger;
}

function charge(subject: string, nats = 10, keyId?: string): ReleaseCharge {
  return { subject, nats, bundleHash: 'ab'.repeat(32), alpha: 0.8, ...(keyId === undefined ? {} : { keyId }) };
}

/** Bytes of all files of the ledger but its secret. */
function onDisk(): Buffer {
  const names = readdirSync(folder).filter((name) => !name.endsWith('.key'));
  return Buffer.concat(names.map((name) => readFileSync(join(folder, name))));
}

describe('ledger', () => {
  it('counts releases and nats by subject, and keeps them', async () => {
    const ledger = await openHere();
    ledger.charge([charge('ann', 10), charge('bob', 5)]);
    ledger.charge([charge('ann', 2.5)]);
    ledger.close();
    opened = [];
    const again = await openHere();
    expect(again.report().map(({ releases, nats }) => [releases, nats])).toEqual([
      [2, 12.5],
      [1, 5],
    ]);
    expect(again.report('ann')).toHaveLength(1);
    expect(again.report('nobody')).toEqual([]);
  });

  it('refuses at the limits and says which, and then keeps nothing of the call', async () => {
    const ledger = await openHere();
    ledger.setPolicy({ maxReleases: 3, maxNats: 25 });
    ledger.charge([charge('ann'), charge('ann')]);
    const refusal = (charges: ReleaseCharge[]): unknown => {
      try {
        ledger.charge(charges);
        return undefined;
      } catch (error) {
        return error;
      }
    };
    expect(refusal([charge('bob'), charge('ann')])).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      details: { limit: 'nats', most: 25 },
    });
    expect(ledger.report('bob')).toEqual([]);
    ledger.charge([charge('ann', 5)]);
    expect(refusal([charge('ann', 0)])).toMatchObject({ details: { limit: 'releases', most: 3 } });
    expect(String(refusal([charge('ann', 0)]))).not.toContain('ann');
  });

  it('charges the same release of a subject once', async () => {
    const ledger = await openHere();
    ledger.setPolicy({ maxReleases: 1 });
    ledger.charge([charge('ann', 10, 'key-1'), charge('ann', 10, 'key-1')]);
    ledger.charge([charge('ann', 10, 'key-1'), charge('bob', 10, 'key-1')]);
    expect(() => ledger.charge([charge('ann', 10, 'key-2')])).toThrow(/1 releases/);
  });

  it('lets entries expire with the period, and deletes them', async () => {
    let now = 1_000_000;
    const ledger = await openHere({ now: () => now });
    ledger.setPolicy({ maxReleases: 1, periodMs: 1000 });
    ledger.charge([charge('ann')]);
    now += 999;
    expect(() => ledger.charge([charge('ann')])).toThrow(/within 1 s/);
    now += 1;
    ledger.charge([charge('ann')]);
    expect(ledger.report('ann')[0]?.releases).toBe(1);
    now += 1000;
    const other = await openHere({ now: () => now });
    expect(other.report()).toEqual([]);
  });

  it('shares policy and counts between openings of one file', async () => {
    const [first, second] = [await openHere(), await openHere()];
    first.setPolicy({ maxReleases: 2 });
    first.charge([charge('ann')]);
    second.charge([charge('ann')]);
    expect(second.policy()).toEqual({ maxReleases: 2 });
    expect(() => first.charge([charge('ann')])).toThrow(/budget/);
  });

  it('has no subject in clear on disk, and nothing that names one after it was forgotten', async () => {
    const ledger = await openHere();
    const other = await openHere();
    ledger.charge([charge('ann@example.org', 10, 'the-key-of-ann'), charge('bob', 10, 'the-key-of-bob')]);
    const [record] = ledger.report('ann@example.org');
    const hash = record?.subject ?? '';
    expect(hash).toMatch(/^[0-9a-f]{16}$/);
    expect(onDisk().includes('ann@example.org')).toBe(false);
    expect(onDisk().includes(hash)).toBe(true);
    expect(ledger.forget('ann@example.org')).toBe(1);
    expect(onDisk().includes(hash)).toBe(false);
    expect(onDisk().includes('the-key-of-ann')).toBe(false);
    expect(onDisk().includes('the-key-of-bob')).toBe(true);
    expect(other.report()).toHaveLength(1);
    expect(ledger.forget('ann@example.org')).toBe(0);
  });

  it('keeps file and secret to their owner, and takes no other secret', async () => {
    const ledger = await openHere();
    ledger.charge([charge('ann')]);
    for (const name of readdirSync(folder)) expect(statSync(join(folder, name)).mode & 0o077).toBe(0);
    const secretFile = join(folder, 'other.key');
    await expect(openLedger({ file, secretFile })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    writeFileSync(secretFile, Buffer.alloc(32, 1));
    await expect(openLedger({ file, secretFile })).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    writeFileSync(secretFile, Buffer.alloc(31, 1));
    await expect(openLedger({ file, secretFile })).rejects.toThrow(/31 bytes/);
  });

  it('refuses what is no ledger, no subject and no limit', async () => {
    writeFileSync(file, 'this is no database, however long one looks at it'.repeat(100));
    writeFileSync(`${file}.key`, Buffer.alloc(32, 1));
    await expect(openLedger({ file })).rejects.toMatchObject({ code: 'INVALID_DATA' });
    await expect(openLedger({ file: join(folder, 'no', 'x.db') })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    file = join(folder, 'good.db');
    const ledger = await openHere();
    expect(() => ledger.charge([charge('')])).toThrow(/1 to 512 characters/);
    expect(() => ledger.charge([charge('ann', Number.NaN)])).toThrow(/no number/);
    expect(() => ledger.setPolicy({ maxReleases: -1 })).toThrow(/maxReleases is -1/);
    expect(() => ledger.setPolicy({ maxNats: Number.NaN })).toThrow(/maxNats is NaN/);
    expect(() => ledger.setPolicy({ periodMs: 0 })).toThrow(/periodMs is 0/);
  });
});

describe('ledger under kill -9 and with two processes', () => {
  let compiled: string;
  /** Other processes need JavaScript: the two source files are compiled where 'libsql' is found. */
  beforeAll(() => {
    const source = fileURLToPath(new URL('..', import.meta.url));
    const cache = join(source, '../../../node_modules/.cache');
    mkdirSync(cache, { recursive: true });
    compiled = mkdtempSync(join(cache, 'ledger-'));
    mkdirSync(join(compiled, 'node'));
    const settings = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, verbatimModuleSyntax: true };
    for (const name of ['errors', 'node/ledger-store']) {
      const text = readFileSync(join(source, `${name}.ts`), 'utf8');
      writeFileSync(join(compiled, `${name}.js`), ts.transpileModule(text, { compilerOptions: settings }).outputText);
    }
    writeFileSync(join(compiled, 'package.json'), '{"type":"module"}');
    writeFileSync(
      join(compiled, 'writer.mjs'),
      `import { writeSync } from 'node:fs';
       import { openLedger } from ${JSON.stringify(pathToFileURL(join(compiled, 'node/ledger-store.js')).href)};
       const [, , file, subject] = process.argv;
       const ledger = await openLedger({ file });
       const charge = { subject, nats: 1, bundleHash: 'ab'.repeat(32), alpha: 0.8 };
       try {
         for (;;) {
           ledger.charge([charge]);
           writeSync(1, 'kept' + String.fromCharCode(10));
         }
       } catch (error) {
         if (error.code !== 'RESOURCE_EXHAUSTED') throw error;
       }`,
    );
  });
  afterAll(() => rmSync(compiled, { recursive: true, force: true }));

  /** A process that charges subject `who` without end and prints the number of each charge once it is kept. */
  function startWriter(who: string): { process: ChildProcess; kept: () => number; closed: Promise<void> } {
    const child = spawn(process.execPath, [join(compiled, 'writer.mjs'), file, who], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    return {
      process: child,
      // A line that was cut off by the kill counts as not printed.
      kept: () => text.split('\n').length - 1,
      closed: new Promise((resolve) => child.on('close', () => resolve())),
    };
  }

  it('loses no charge that returned, over repeated kills of two writers', async () => {
    const kept = new Map([
      ['ann', 0],
      ['bob', 0],
    ]);
    let charges = 0;
    (await openHere()).charge([charge('eve')]);
    for (let round = 0; round < 4; round++) {
      const writers = ['ann', 'bob'].map(startWriter);
      await until(() => writers.every((writer) => writer.kept() >= 5));
      for (const { process: child } of writers) child.kill('SIGKILL');
      await Promise.all(writers.map(({ closed }) => closed));
      const ledger = await openHere();
      for (const [i, who] of ['ann', 'bob'].entries()) {
        const printed = (kept.get(who) as number) + (writers[i]?.kept() as number);
        const found = ledger.report(who)[0]?.releases ?? 0;
        // The charge under way when the kill came may be kept without having been printed.
        expect(found).toBeGreaterThanOrEqual(printed);
        expect(found).toBeLessThanOrEqual(printed + 1);
        kept.set(who, found);
        charges += writers[i]?.kept() as number;
      }
    }
    expect(charges).toBeGreaterThanOrEqual(40);
    expect(existsSync(`${file}.key`)).toBe(true);
  });

  it('never allows more than the budget to two processes at once', async () => {
    (await openHere()).setPolicy({ maxReleases: 60 });
    const writers = ['ann', 'ann'].map(startWriter);
    await Promise.all(writers.map(({ closed }) => closed));
    expect(writers.reduce((sum, writer) => sum + writer.kept(), 0)).toBe(60);
  });
});

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('waited in vain');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
