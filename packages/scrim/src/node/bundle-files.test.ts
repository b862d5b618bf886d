/** Bundles in a folder: what was changed, half-written or left out, and folders that are no bundle. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeMarkedBundle } from '../../../../test/privacy/marked-bundle.js';
import { openBundle, recordResults, writeDirectory } from './bundle-files.js';
import { createNodeCrypto } from './node-crypto.js';

const { files, bundle } = await makeMarkedBundle(createNodeCrypto());
let folder = '';
let path = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scrim-bundle-'));
  path = join(folder, 'bundle');
  await writeDirectory(path, files);
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('a bundle in a folder', () => {
  it('comes back with the hash it was packed with, and nothing is left beside it', async () => {
    expect((await openBundle(path)).hash).toBe(bundle.hash);
    expect(await readdir(folder)).toEqual(['bundle']);
  });

  it('is refused when opened if any of its files was changed, cut off or taken away', async () => {
    for (const [name, bytes] of files) {
      const file = join(path, name);
      const changed = bytes.slice();
      changed[changed.length >> 1] = (changed[changed.length >> 1] as number) ^ 1;
      for (const content of [changed, bytes.subarray(0, bytes.length >> 1), undefined]) {
        if (content === undefined) await rm(file);
        else await writeFile(file, content);
        // A manifest with a byte changed may still be a manifest: whoever pins its hash is told.
        const outcome = openBundle(path, bundle.hash);
        await expect(outcome, name).rejects.toMatchObject({
          code: content === undefined && name === 'manifest.json' ? 'NOT_FOUND' : 'INVALID_BUNDLE',
        });
      }
      await writeFile(file, bytes);
    }
    await openBundle(path, bundle.hash);
  });

  it('opens on the trusted side without the remote half, and says so when that is read', async () => {
    await rm(join(path, 'remote'), { recursive: true });
    const opened = await openBundle(path);
    await expect(opened.read('remote/face_detection_noisy/1/model.onnx')).rejects.toMatchObject({
      code: 'INVALID_BUNDLE',
    });
  });

  it('is replaced only where that was asked for, and never in place of something else', async () => {
    await expect(writeDirectory(path, files)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await writeDirectory(path, files, { replace: true });
    await rm(join(path, 'manifest.json'));
    await expect(writeDirectory(path, files, { replace: true })).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(await readdir(folder)).toEqual(['bundle']);
  });

  it('takes figures into its manifest and gets a new hash', async () => {
    const figure = { kind: 'measured', name: 'accuracy', value: 0.5, data: 'test', sampleSize: 3 } as const;
    await recordResults(path, [figure]);
    const opened = await openBundle(path);
    expect(opened.manifest.results).toEqual([figure]);
    expect(opened.hash).not.toBe(bundle.hash);
    expect(JSON.parse(await readFile(join(path, 'manifest.json'), 'utf8')).files).toEqual(bundle.manifest.files);
  });
});
