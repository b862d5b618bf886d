import { describe, expect, it } from 'vitest';
import { testManifest } from '../../../../test/manifest.js';
import { createNodeCrypto } from '../node/node-crypto.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { Graph } from '../onnx/index.js';
import { float32 } from '../tensor.js';
import { type BundleContent, encodeBundle, loadBundle, MANIFEST_PATH, NOISE_PATH, verifyBundle } from './bundle.js';
import { decodeManifest, type Manifest } from './manifest.js';

const crypto = createNodeCrypto();

function smallModel(): { head: Graph; tail: Graph } {
  const head = Graph.create();
  head.addInput('image', 'float32', ['N', 3, 'H', 'W']);
  head.add('Relu', ['image'], {}, { outputs: ['cut'] });
  head.addOutput('cut', 'float32', ['N', 3, 'H', 'W']);
  const tail = Graph.create();
  tail.addInput('cut', 'float32', ['N', 3, 'H', 'W']);
  tail.add('Mul', ['cut', tail.addInitializer('two', float32([1], [2]))], {}, { outputs: ['loc'] });
  tail.add('Sigmoid', ['loc'], {}, { outputs: ['conf'] });
  tail.addOutput('loc', 'float32', ['N', 3, 'H', 'W']);
  tail.addOutput('conf', 'float32', ['N', 3, 'H', 'W']);
  return { head, tail };
}

function noiseParameters(): DiagonalParameters {
  const random = createFitRandom('bundle test');
  const odd = (): Float32Array => Float32Array.from({ length: 3 }, () => 0.5 + random.uniform());
  return {
    kind: 'per-channel',
    shape: [3],
    gain: odd(),
    mean: odd(),
    sigma: odd(),
    clipLow: Float32Array.of(0, 0, 0),
    clipHigh: Float32Array.of(9.25, 8.125, 7.5),
    variance: odd(),
  };
}

function content(): BundleContent {
  return {
    ...smallModel(),
    parameters: noiseParameters(),
    manifest: testManifest({
      cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', 3, 'H', 'W'] }] },
      task: { kind: 'detection', scores: 'conf', boxes: 'loc' },
    }),
  };
}

const reader =
  (files: ReadonlyMap<string, Uint8Array>) =>
  async (path: string): Promise<Uint8Array> => {
    const bytes = files.get(path);
    if (!bytes) throw new Error(`no file ${path}`);
    return bytes;
  };

describe('bundle', () => {
  it('comes back as it was packed, and its remote half is a Triton repository', async () => {
    const files = await encodeBundle(content(), crypto);
    const bundle = await loadBundle(reader(files), crypto);
    await verifyBundle(bundle);
    expect(bundle.complete).toBe(true);
    expect(bundle.parameters).toEqual(noiseParameters());
    expect(bundle.manifest.transform.suppressedChannels).toBe(0);
    expect([...files.keys()].filter((path) => path.startsWith('remote/'))).toEqual([
      'remote/face_detection_noisy/config.pbtxt',
      'remote/face_detection_noisy/1/model.onnx',
      'remote/face_detection_base/config.pbtxt',
      'remote/face_detection_base/1/model.onnx',
    ]);
    const config = new TextDecoder().decode(files.get('remote/face_detection_noisy/config.pbtxt'));
    expect(config).toContain('platform: "onnxruntime_onnx"');
    expect(config).toContain('name: "INPUT__0"');
    expect(config).toContain('dims: [ 3, -1, -1 ]');
    const remote = Graph.decode(files.get('remote/face_detection_noisy/1/model.onnx') as Uint8Array);
    expect(remote.inputNames).toEqual(['INPUT__0']);
    expect(remote.outputNames).toEqual(['OUTPUT__0', 'OUTPUT__1']);
    expect(bundle.manifest.remote.outputs).toEqual([
      { remote: 'OUTPUT__0', model: 'loc' },
      { remote: 'OUTPUT__1', model: 'conf' },
    ]);
  });

  it('keeps every noise parameter out of the remote half', async () => {
    const files = await encodeBundle(content(), crypto);
    const { gain, mean, sigma, variance, clipHigh } = noiseParameters();
    const secrets = [gain, mean, sigma, variance, clipHigh].flatMap((array) =>
      Array.from(array, (_, i) => array.subarray(i, i + 1)),
    );
    const holds = (bytes: Uint8Array, value: Float32Array): boolean =>
      Buffer.from(bytes).includes(Buffer.from(value.buffer, value.byteOffset, 4));
    // The search finds them where they are.
    expect(secrets.every((value) => holds(files.get(NOISE_PATH) as Uint8Array, value))).toBe(true);
    for (const [path, bytes] of files) {
      if (path.startsWith('remote/'))
        expect(
          secrets.some((value) => holds(bytes, value)),
          path,
        ).toBe(false);
    }
    await expect(
      encodeBundle({ ...content(), extras: new Map([['remote/noise.bin', new Uint8Array(1)]]) }, crypto),
    ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('refuses every single-byte change of every file', async () => {
    const files = await encodeBundle(content(), crypto);
    for (const [path, bytes] of files) {
      for (const at of [0, Math.floor(bytes.length / 2), bytes.length - 1]) {
        const changed = bytes.slice();
        changed[at] = (changed[at] as number) ^ 1;
        const tampered = new Map(files).set(path, changed);
        const outcome = loadBundle(reader(tampered), crypto, await hashOf(files)).then(verifyBundle);
        await expect(outcome, `${path} at ${at}`).rejects.toMatchObject({ code: 'INVALID_BUNDLE' });
      }
    }
  });

  it('refuses a half-written bundle and a manifest with unknown or missing fields', async () => {
    const files = await encodeBundle(content(), crypto);
    const half = new Map(files);
    half.set('trusted/head.onnx', (files.get('trusted/head.onnx') as Uint8Array).subarray(0, 20));
    const bundle = await loadBundle(reader(half), crypto);
    await expect(verifyBundle(bundle)).rejects.toMatchObject({ code: 'INVALID_BUNDLE' });
    const manifest = JSON.parse(new TextDecoder().decode(files.get(MANIFEST_PATH))) as Manifest;
    const withChange = (change: (copy: Record<string, unknown>) => void): Uint8Array => {
      const copy = structuredClone(manifest) as unknown as Record<string, unknown>;
      change(copy);
      return new TextEncoder().encode(JSON.stringify(copy));
    };
    for (const [change, field] of [
      [(copy) => Object.assign(copy, { extra: 1 }), 'extra'],
      [(copy) => delete copy.alpha, 'alpha'],
      [(copy) => Object.assign(copy, { alpha: 2 }), 'alpha'],
      [(copy) => Object.assign(copy.files as object, { '../../etc/passwd': 'a'.repeat(64) }), 'files'],
    ] satisfies [(copy: Record<string, unknown>) => void, string][]) {
      expect(() => decodeManifest(withChange(change))).toThrowError(new RegExp(field));
    }
  });

  it('knows a noise-only bundle', async () => {
    const { head: _head, ...rest } = content();
    const files = await encodeBundle(rest, crypto);
    expect([...files.keys()]).toEqual([MANIFEST_PATH, NOISE_PATH]);
    expect((await loadBundle(reader(files), crypto)).complete).toBe(false);
  });

  it('refuses another bundle than the one that was pinned', async () => {
    const files = await encodeBundle(content(), crypto);
    await expect(loadBundle(reader(files), crypto, 'b'.repeat(64))).rejects.toMatchObject({ code: 'INVALID_BUNDLE' });
  });
});

async function hashOf(files: ReadonlyMap<string, Uint8Array>): Promise<string> {
  return (await loadBundle(reader(files), crypto)).hash;
}
