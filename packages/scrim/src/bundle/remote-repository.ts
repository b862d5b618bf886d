/**
 * The remote half of a bundle as a Triton model repository with the payload forms that were chosen. What is not in the
 * bundle is made from its plain remote model, so that any bundle can be served in any form.
 */
import { Graph } from '../onnx/index.js';
import type { Bundle } from './bundle.js';
import { PAYLOAD_FORMATS, type PayloadFormat } from './payload-format.js';
import { describeRemoteModel, tritonConfig } from './remote-model.js';
import { remoteName, remoteVariant } from './remote-variants.js';

/**
 * Files of the repository by path: `<model>/config.pbtxt` and `<model>/1/model.onnx`. Nothing of the trusted half is read
 * but the parameters that compact forms need.
 * @param payloads default: all
 * @throws ScrimError INVALID_BUNDLE if the remote model is missing or was changed
 */
export async function exportRepository(
  bundle: Bundle,
  payloads: readonly PayloadFormat[] = PAYLOAD_FORMATS,
): Promise<Map<string, Uint8Array>> {
  const { remote } = bundle.manifest;
  const bytes = await bundle.read(`remote/${remote.noisy}/1/model.onnx`);
  const plain = describeRemoteModel(Graph.decode(bytes), remote.input, remote.outputs);
  const files = new Map<string, Uint8Array>();
  for (const payload of new Set(payloads)) {
    const name = remoteName(remote.noisy, payload);
    const variant = remoteVariant(plain, bundle.parameters, payload);
    files.set(`${name}/config.pbtxt`, new TextEncoder().encode(tritonConfig(name, variant)));
    files.set(`${name}/1/model.onnx`, payload === 'fp32' ? bytes : variant.graph.encode());
  }
  return files;
}
