/**
 * A bundle: everything one cut and one alpha need, as files with a manifest that lists the hash of each.
 *
 *   manifest.json
 *   trusted/head.onnx, trusted/noise.safetensors        stays where the data is trusted
 *   remote/<model>/config.pbtxt, remote/<model>/1/model.onnx   a Triton model repository, goes anywhere
 *
 * This file is pure: it turns a bundle into named bytes and back; node/ and web/ bring the bytes. The hash of a bundle is
 * the SHA-256 of its manifest, which binds every file. A bundle committed without models ("noise only") lists
 * the noise alone and is completed from the model it names.
 */
import { assertArgument, ScrimError } from '../errors.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import { natsPerPosition } from '../noise/information-bound.js';
import { type NoiseCrypto, toHex } from '../noise/noise-crypto.js';
import type { Graph } from '../onnx/index.js';
import { float32, type Tensor } from '../tensor.js';
import {
  attachEncoder,
  attachExpansion,
  BOTTLENECK_VALUE,
  type BottleneckParts,
  decodeBottleneck,
  ENCODER_PATH,
  encodeBottleneck,
  REMOTE_WEIGHTS_PATH,
} from './bottleneck.js';
import { decodeManifest, encodeManifest, type Manifest } from './manifest.js';
import type { PayloadFormat } from './payload-format.js';
import { remoteModel, tritonConfig } from './remote-model.js';
import { remoteName, remoteVariant } from './remote-variants.js';
import { decodeSafetensors, encodeSafetensors } from './safetensors.js';

/** Path of the manifest. */
export const MANIFEST_PATH = 'manifest.json';
/** Path of the head. */
export const HEAD_PATH = 'trusted/head.onnx';
/** Path of the noise parameters. */
export const NOISE_PATH = 'trusted/noise.safetensors';

/** Reads one file of a bundle by its path. */
export type BundleReader = (path: string) => Promise<Uint8Array>;

/** A loaded bundle. Every file that was read matched its hash. */
export interface Bundle {
  readonly manifest: Manifest;
  /** SHA-256 of manifest.json, in hexadecimal: the name of this bundle in releases and keys. */
  readonly hash: string;
  readonly parameters: DiagonalParameters;
  /** True if head and remote models are part of the bundle. */
  readonly complete: boolean;
  /** Reads and verifies one listed file. @throws ScrimError INVALID_BUNDLE if it is missing or changed. */
  read(path: string): Promise<Uint8Array>;
}

/** What the manifest of a new bundle can't derive by itself. */
export type ManifestInput = Omit<
  Manifest,
  'format' | 'formatVersion' | 'files' | 'remote' | 'transform' | 'bottleneck'
> & {
  /** Names of the two remote models; default face_detection_noisy and face_detection_base, as in TR-4928. */
  readonly remoteNames?: { readonly noisy: string; readonly base: string };
};

/** What {@link encodeBundle} packs. */
export interface BundleContent {
  readonly manifest: ManifestInput;
  /** Of the cut activation, or of the encoder's output where there is a bottleneck. */
  readonly parameters: DiagonalParameters;
  readonly tail: Graph;
  /** Encoder, expansion and trained weights, to be attached to head and tail. */
  readonly bottleneck?: { readonly parts: BottleneckParts; readonly beta: number; readonly adversary: number };
  /** Left out, the bundle is noise only: it has neither head nor remote models. */
  readonly head?: Graph;
  /** Compact forms of the payload whose remote models are added beside the plain one. Default: none. */
  readonly payloads?: readonly PayloadFormat[];
  /** Further files by path, such as `audit/reconstruction.safetensors`. Nothing may be added under `remote/`. */
  readonly extras?: ReadonlyMap<string, Uint8Array>;
}

/** The files of a bundle by path, ready to be written. @throws ScrimError INVALID_ARGUMENT for extras under `remote/`. */
export async function encodeBundle(content: BundleContent, crypto: NoiseCrypto): Promise<Map<string, Uint8Array>> {
  const { parameters, tail, bottleneck, payloads = [], extras = new Map<string, Uint8Array>() } = content;
  const { remoteNames = { noisy: 'face_detection_noisy', base: 'face_detection_base' }, ...rest } = content.manifest;
  const files = new Map<string, Uint8Array>();
  const halves = attach(content, files);
  const remote = remoteModel(halves.tail);
  if (halves.head) {
    files.set(HEAD_PATH, halves.head.encode());
    for (const [name, model] of [
      [remoteNames.noisy, remote],
      [remoteNames.base, remoteModel(tail)],
    ] as const) {
      files.set(`remote/${name}/config.pbtxt`, new TextEncoder().encode(tritonConfig(name, model)));
      files.set(`remote/${name}/1/model.onnx`, model.graph.encode());
    }
    for (const payload of payloads) {
      if (payload === 'fp32') continue;
      const name = remoteName(remoteNames.noisy, payload);
      const variant = remoteVariant(remote, parameters, payload);
      files.set(`remote/${name}/config.pbtxt`, new TextEncoder().encode(tritonConfig(name, variant)));
      files.set(`remote/${name}/1/model.onnx`, variant.graph.encode());
    }
  }
  files.set(NOISE_PATH, encodeParameters(parameters));
  for (const [path, bytes] of extras) {
    assertArgument(!path.startsWith('remote/') && !files.has(path), `'${path}' can't be added to a bundle`);
    files.set(path, bytes);
  }
  const hashes: Record<string, string> = {};
  for (const [path, bytes] of files) hashes[path] = toHex(await crypto.sha256(bytes));
  const manifest: Manifest = {
    format: 'scrim-bundle',
    formatVersion: 1,
    ...rest,
    cut: halves.cut ?? rest.cut,
    transform: describeTransform(parameters, bottleneck ? 'bottleneck' : 'diagonal'),
    ...(bottleneck
      ? {
          bottleneck: {
            cut: rest.cut.tensors[0]?.name ?? '',
            encoder: bottleneck.parts.architecture.encoder,
            beta: bottleneck.beta,
            adversary: bottleneck.adversary,
          },
        }
      : {}),
    remote: { ...remoteNames, input: remote.input, outputs: [...remote.outputs] },
    files: hashes,
  };
  return new Map([[MANIFEST_PATH, encodeManifest(manifest)], ...files]);
}

/** Head and tail as they run, and what crosses between them where it is not the model's own tensor. */
function attach(
  { head, tail, bottleneck, manifest }: BundleContent,
  files: Map<string, Uint8Array>,
): { readonly head: Graph | undefined; readonly tail: Graph; readonly cut?: Manifest['cut'] } {
  if (!bottleneck) return { head, tail };
  const encoded = encodeBottleneck(bottleneck.parts);
  for (const [path, bytes] of encoded) files.set(path, bytes);
  const [encoder, remote] = [ENCODER_PATH, REMOTE_WEIGHTS_PATH].map((path) => encoded.get(path) as Uint8Array);
  // What is stored is what runs, rounding included.
  const stored = decodeBottleneck(encoder as Uint8Array, remote as Uint8Array);
  const cut = manifest.cut.tensors[0]?.name ?? '';
  const remoteTail = attachExpansion(tail, cut, stored);
  const shape = remoteTail.declaredType(BOTTLENECK_VALUE)?.shape ?? [];
  return {
    head: head && attachEncoder(head, cut, stored, shape),
    tail: remoteTail,
    cut: { tensors: [{ name: BOTTLENECK_VALUE, dtype: 'float32', shape: [...shape] }] },
  };
}

/**
 * Reads the bottleneck of a bundle; undefined where it has none.
 * @throws ScrimError INVALID_BUNDLE if its files are missing or changed
 */
export async function readBottleneck(bundle: Bundle): Promise<BundleContent['bottleneck'] | undefined> {
  const { bottleneck } = bundle.manifest;
  if (!bottleneck) return undefined;
  const parts = decodeBottleneck(await bundle.read(ENCODER_PATH), await bundle.read(REMOTE_WEIGHTS_PATH));
  return { parts, beta: bottleneck.beta, adversary: bottleneck.adversary };
}

/**
 * Loads a bundle: checks the manifest against its schema and the noise against its hash; other files when read.
 * @param expectedHash refuses any bundle but the one of this hash, for those who pin what they run
 * @throws ScrimError INVALID_BUNDLE if anything is missing, changed or inconsistent
 */
export async function loadBundle(read: BundleReader, crypto: NoiseCrypto, expectedHash?: string): Promise<Bundle> {
  const bytes = await read(MANIFEST_PATH);
  const hash = toHex(await crypto.sha256(bytes));
  if (expectedHash !== undefined && hash !== expectedHash) {
    throw new ScrimError('INVALID_BUNDLE', `the bundle has hash ${hash}, expected ${expectedHash}`);
  }
  const manifest = decodeManifest(bytes);
  const verified = async (path: string): Promise<Uint8Array> => {
    const expected = manifest.files[path];
    if (expected === undefined) throw new ScrimError('INVALID_BUNDLE', `the bundle has no file '${path}'`);
    const content = await read(path);
    const found = toHex(await crypto.sha256(content));
    if (found !== expected) {
      throw new ScrimError(
        'INVALID_BUNDLE',
        `'${path}' was changed: its hash is ${found}, the manifest says ${expected}`,
      );
    }
    return content;
  };
  const parameters = decodeParameters(await verified(NOISE_PATH));
  const transform = describeTransform(parameters, manifest.transform.kind);
  if (
    transform.granularity !== manifest.transform.granularity ||
    transform.channels !== manifest.transform.channels ||
    transform.suppressedChannels !== manifest.transform.suppressedChannels ||
    (manifest.transform.kind === 'bottleneck') !== (manifest.bottleneck !== undefined)
  ) {
    throw new ScrimError('INVALID_BUNDLE', `'${NOISE_PATH}' and the manifest describe different transforms`);
  }
  return { manifest, hash, parameters, complete: HEAD_PATH in manifest.files, read: verified };
}

/** Reads and verifies every file of a bundle. @throws ScrimError INVALID_BUNDLE at the first that is missing or changed. */
export async function verifyBundle(bundle: Bundle): Promise<void> {
  for (const path of Object.keys(bundle.manifest.files)) await bundle.read(path);
}

function encodeParameters(parameters: DiagonalParameters): Uint8Array {
  const { shape, gain, mean, sigma, clipLow, clipHigh, variance } = parameters;
  const [channels = 0] = shape;
  return encodeSafetensors({
    tensors: new Map<string, Tensor>([
      ['gain', float32(shape, gain)],
      ['mean', float32(shape, mean)],
      ['sigma', float32(shape, sigma)],
      ['clip_low', float32([channels], clipLow)],
      ['clip_high', float32([channels], clipHigh)],
      ['variance', float32([channels], variance)],
    ]),
    metadata: { format: 'scrim-diagonal', kind: parameters.kind },
  });
}

function decodeParameters(bytes: Uint8Array): DiagonalParameters {
  const { tensors, metadata } = decodeSafetensors(bytes);
  const kind = metadata.kind;
  if (metadata.format !== 'scrim-diagonal' || (kind !== 'per-channel' && kind !== 'per-element')) {
    throw new ScrimError('INVALID_BUNDLE', `'${NOISE_PATH}' holds no diagonal transform`);
  }
  const take = (name: string): Tensor<'float32'> => {
    const found = tensors.get(name);
    if (found?.dtype !== 'float32') throw new ScrimError('INVALID_BUNDLE', `'${NOISE_PATH}' has no float32 '${name}'`);
    return found as Tensor as Tensor<'float32'>;
  };
  return {
    kind,
    shape: take('gain').shape,
    gain: take('gain').data,
    mean: take('mean').data,
    sigma: take('sigma').data,
    clipLow: take('clip_low').data,
    clipHigh: take('clip_high').data,
    variance: take('variance').data,
  };
}

function describeTransform(parameters: DiagonalParameters, kind: Manifest['transform']['kind']): Manifest['transform'] {
  const [channels = 0] = parameters.shape;
  const perChannel = parameters.gain.length / channels;
  let suppressed = 0;
  for (let c = 0; c < channels; c++) {
    if (parameters.gain.subarray(c * perChannel, (c + 1) * perChannel).every((gain) => gain === 0)) suppressed++;
  }
  return {
    kind,
    granularity: parameters.kind,
    channels,
    suppressedChannels: suppressed,
    natsPerPosition: natsPerPosition(parameters),
  };
}
