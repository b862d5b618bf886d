/** Which memory of an inference nobody needs once its answer is sent, so that a listener may give it back at once. */
import type { InferResponse } from '../protocol/index.js';

/**
 * The buffers of `bodies` and of the outputs of `response`. Outputs belong to whoever asked an engine for them; one that
 * is a part of its buffer shares it with others, and is left out.
 */
export function spentBuffers(bodies: readonly Uint8Array[], response: InferResponse): ArrayBuffer[] {
  const spent = new Set<ArrayBuffer>();
  for (const { buffer } of bodies) if (buffer instanceof ArrayBuffer) spent.add(buffer);
  for (const { tensor } of response.outputs) {
    const { data } = tensor;
    if (Array.isArray(data) || !('buffer' in data)) continue;
    if (data.buffer instanceof ArrayBuffer && data.byteLength === data.buffer.byteLength) spent.add(data.buffer);
  }
  return [...spent];
}
