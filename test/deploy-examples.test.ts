/** deploy/examples: each manifest is what the command in its first line prints; random parts of names apart. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';

const EXAMPLES = fileURLToPath(new URL('../deploy/examples', import.meta.url));
const SCRIM = fileURLToPath(new URL('../packages/cli/bin/scrim.js', import.meta.url));
const WRITTEN = /^# Written by: scrim (.*)\n(?:#.*\n)*/;
const texts = readdirSync(EXAMPLES).map((file): [string, string] => [file, readFileSync(join(EXAMPLES, file), 'utf8')]);
let folder: string;

beforeAll(() => {
  // A dry run of the client talks to no server, but wants to know which one it would be.
  folder = mkdtempSync(join(tmpdir(), 'scrim-examples-'));
  const cluster = { clusters: [{ name: 'c', cluster: { server: 'https://c.example.com' } }] };
  const context = { contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }], 'current-context': 'c' };
  const config = { apiVersion: 'v1', kind: 'Config', ...cluster, ...context, users: [{ name: 'u', user: {} }] };
  writeFileSync(join(folder, 'config'), JSON.stringify(config));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it.each(texts.filter(([, text]) => WRITTEN.test(text)))('%s', (_, text) => {
  const [head = '', command = ''] = WRITTEN.exec(text) ?? [];
  const printed = execFileSync(process.execPath, [SCRIM, ...command.split(' ')], {
    encoding: 'utf8',
    env: { ...process.env, KUBECONFIG: join(folder, 'config') },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const plain = (yaml: string): string => yaml.replace(/(\/\.scrim\/[a-z-]+)-[0-9a-f]{8}/g, '$1');
  expect(plain(printed)).toBe(plain(text.slice(head.length)));
});
