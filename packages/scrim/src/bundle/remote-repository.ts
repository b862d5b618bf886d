/**
 * The remote half of a bundle as a Triton model repository with the payload forms that were chosen. What is not in the
 * bundle is made from its plain remote model, so that any bundle can be served in any form.
 */
import { assertArgument } from '../errors.js';
import { Graph } from '../onnx/index.js';
import type { Bundle } from './bundle.js';
import { selectCandidates, whyNoCandidates } from './candidate-selection.js';
import { PAYLOAD_FORMATS, type PayloadFormat } from './payload-format.js';
import { describeRemoteModel, type RemoteModel, tritonConfig } from './remote-model.js';
import { remoteName, remoteVariant } from './remote-variants.js';

/** As many as the decoder of FaceBoxes' npm weights reads, and more than reach the score floor of the PyTorch ones. */
const DEFAULT_CANDIDATES = 1000;
const MAX_CANDIDATES = 2 ** 31 - 1;

/** What {@link exportRepository} may be told. */
export interface ExportOptions {
  /** Forms of the payload, a remote model for each. Default: all. */
  readonly payloads?: readonly PayloadFormat[];
  /**
   * How many anchors of a detector the compact models (all but fp32) answer with, those with the highest object score: an
   * integer ≥ 1, or 'all'. Default: 1,000, fewer where the bundle's decoder reads fewer (its `maxCandidates`); all where the
   * model gives no rows of anchors. With as many as the decoder reads no detection can be lost.
   */
  readonly candidates?: number | 'all';
}

/**
 * Files of the repository by path: `<model>/config.pbtxt` and `<model>/1/model.onnx`. Nothing of the trusted half is read
 * but the parameters that compact forms need.
 * @throws ScrimError INVALID_BUNDLE if the remote model is missing or was changed, INVALID_ARGUMENT for a number of
 * candidates that is none, UNSUPPORTED if one is given and the model has no anchors to choose among
 */
export async function exportRepository(
  bundle: Bundle,
  { payloads = PAYLOAD_FORMATS, candidates }: ExportOptions = {},
): Promise<Map<string, Uint8Array>> {
  assertArgument(
    candidates === undefined ||
      candidates === 'all' ||
      (Number.isInteger(candidates) && candidates >= 1 && candidates <= MAX_CANDIDATES),
    `candidates is ${String(candidates)}, expected an integer from 1 to ${MAX_CANDIDATES} or 'all'`,
  );
  const { remote } = bundle.manifest;
  const bytes = await bundle.read(`remote/${remote.noisy}/1/model.onnx`);
  const plain = describeRemoteModel(Graph.decode(bytes), remote.input, remote.outputs);
  const compact = payloads.some((payload) => payload !== 'fp32') ? withCandidates(plain, bundle, candidates) : plain;
  const files = new Map<string, Uint8Array>();
  for (const payload of new Set(payloads)) {
    const name = remoteName(remote.noisy, payload);
    const model = payload === 'fp32' ? plain : remoteVariant(compact, bundle.parameters, payload);
    files.set(`${name}/config.pbtxt`, new TextEncoder().encode(tritonConfig(name, model)));
    files.set(`${name}/1/model.onnx`, payload === 'fp32' ? bytes : model.graph.encode());
  }
  return files;
}

function withCandidates(
  plain: RemoteModel,
  { manifest }: Bundle,
  candidates: ExportOptions['candidates'],
): RemoteModel {
  const isWhole = candidates === 'all' || (candidates === undefined && whyNoCandidates(plain, manifest) !== undefined);
  if (isWhole) return plain;
  const read = manifest.model.detector?.maxCandidates ?? DEFAULT_CANDIDATES;
  return selectCandidates(plain, manifest, candidates ?? Math.max(1, Math.min(read, DEFAULT_CANDIDATES)));
}
