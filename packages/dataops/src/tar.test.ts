/** Archives are what the system's tar reads. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { tarLength, tarOf } from './tar.js';

const archive = (files: ReadonlyMap<string, Uint8Array>): Buffer => Buffer.concat([...tarOf(files)]);

it('is unpacked by tar to the same bytes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'scrim-tar-'));
  try {
    const long = `${'directory/'.repeat(9)}${'n'.repeat(95)}`;
    const files = new Map<string, Uint8Array>([
      ['model/config.pbtxt', new TextEncoder().encode('name: "model"\n')],
      ['model/1/model.onnx', Uint8Array.from({ length: 5000 }, (_, i) => i % 251)],
      ['model/empty', new Uint8Array()],
      ['model/block', new Uint8Array(512).fill(7)],
      [long, Uint8Array.of(1)],
    ]);
    const bytes = archive(files);
    expect(bytes.length).toBe(tarLength(files));
    writeFileSync(join(folder, 'a.tar'), bytes);
    execFileSync('tar', ['-xf', 'a.tar'], { cwd: folder });
    for (const [path, content] of files) expect(new Uint8Array(readFileSync(join(folder, path)))).toEqual(content);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('has the length it announces', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(3000), { maxLength: 5 }), (sizes) => {
      const files = new Map(sizes.map((size) => [`f${size}`, new Uint8Array(size)]));
      expect(archive(files).length).toBe(tarLength(files));
    }),
    { seed: 3 },
  );
});

it('refuses a path that does not fit', () => {
  expect(() => archive(new Map([['x'.repeat(101), new Uint8Array()]]))).toThrow(/too long/);
});
