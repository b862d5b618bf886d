/**
 * Whether what a model computes depends on the shapes of its inputs alone, or on what they hold as well: a loop whose count
 * is an input, or a size that is, lets a few bytes ask for any amount of work.
 */
import type { ModelProto } from './gen/onnx_pb.js';

/** Operators whose output sizes may be values, and those that draw or search by them. */
const BY_VALUE: ReadonlySet<string> = new Set([
  ...[
    'Range',
    'ConstantOfShape',
    'Expand',
    'Tile',
    'Resize',
    'Upsample',
    'Pad',
    'OneHot',
    'MaxUnpool',
    'CenterCropPad',
  ],
  ...['Col2Im', 'AffineGrid', 'BlackmanWindow', 'HannWindow', 'HammingWindow', 'MelWeightMatrix', 'DFT', 'STFT'],
  ...['NonMaxSuppression', 'Multinomial', 'ReverseSequence', 'StringNormalizer', 'TfIdfVectorizer'],
]);

/** False where an operator may do more for other values of the same shape, or where that is not known. */
export function isSteady({ graph, functions }: ModelProto): boolean {
  if (graph === undefined || functions.length > 0) return false;
  return graph.node.every(
    ({ domain, opType, attribute }) =>
      (domain === '' || domain === 'ai.onnx') &&
      !BY_VALUE.has(opType) &&
      // Loop, Scan, If and the like.
      attribute.every((entry) => entry.g === undefined && entry.graphs.length === 0),
  );
}
