/** A small bundle whose head passes its input on, for looking where values go. */

import { type Bundle, encodeBundle, loadBundle } from 'scrim';
import { exportRepository } from 'scrim/client';
import type { DiagonalParameters, NoiseCrypto } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { testManifest } from '../manifest.js';

/** The bundle and its parts. */
export interface MarkedBundle {
  readonly bundle: Bundle;
  /** Its files by path, manifest included. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly parameters: DiagonalParameters;
  /** Encoded head: [N, 3, H, W] in, the same out. */
  readonly head: Uint8Array;
  /** Name of the remote model for payload fp32. */
  readonly model: string;
  /** Files of that model as a repository holds them. */
  readonly remoteFiles: Record<string, Uint8Array>;
}

export async function makeMarkedBundle(crypto: NoiseCrypto): Promise<MarkedBundle> {
  const head = Graph.create();
  head.addInput('image', 'float32', ['N', 3, 'H', 'W']);
  head.add('Relu', ['image'], {}, { outputs: ['cut'] });
  head.addOutput('cut', 'float32', ['N', 3, 'H', 'W']);
  const tail = Graph.create();
  tail.addInput('cut', 'float32', ['N', 3, 'H', 'W']);
  tail.add('Sigmoid', ['cut'], {}, { outputs: ['answer'] });
  tail.addOutput('answer', 'float32', ['N', 3, 'H', 'W']);
  const of = (value: number): Float32Array => new Float32Array(3).fill(value);
  const parameters: DiagonalParameters = {
    kind: 'per-channel',
    shape: [3],
    gain: of(1),
    mean: of(0),
    sigma: of(64),
    clipLow: of(0),
    clipHigh: of(8192),
    variance: of(1),
  };
  const files = await encodeBundle(
    {
      head,
      tail,
      parameters,
      manifest: testManifest({
        alpha: 0.5,
        model: { name: 'marked', source: 'test', sha256: 'a'.repeat(64), input: 'image' },
        cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', 3, 'H', 'W'] }] },
        task: { kind: 'classification', output: 'answer' },
      }),
    },
    crypto,
  );
  const bundle = await loadBundle(async (path) => {
    const bytes = files.get(path);
    if (!bytes) throw new Error(`no file ${path}`);
    return bytes;
  }, crypto);
  const model = bundle.manifest.remote.noisy;
  const repository = await exportRepository(bundle, { payloads: ['fp32'] });
  const remoteFiles: Record<string, Uint8Array> = {};
  for (const [path, bytes] of repository) {
    if (path.startsWith(`${model}/`)) remoteFiles[path.slice(model.length + 1)] = bytes;
  }
  return { bundle, files, parameters, head: head.encode(), model, remoteFiles };
}
