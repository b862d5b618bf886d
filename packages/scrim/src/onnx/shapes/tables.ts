/**
 * Shapes of operators of ai.onnx.ml (version 1 to 4) that models of tables begin with: what prepares columns of numbers.
 */
import { type ShapeRule, sameAsInput } from './rule.js';

/** Makes float32 of any numbers, element by element. */
const toFloats: ShapeRule = (node) => [{ dtype: 'float32', shape: node.shape(0) }];

/** The rows of its inputs side by side. */
const featureVectorizer: ShapeRule = (node) => {
  const widths = node.inputs.map((input) => (input?.shape?.length === 1 ? 1 : (input?.shape?.[1] ?? '')));
  const rows = node.shape(0)?.[0] ?? '';
  return [{ dtype: 'float32', shape: [rows, widths.reduce((a, b) => node.dims.add(a, b), 0)] }];
};

/** Rules by operator name, of the domain ai.onnx.ml. */
export const TABLES: Readonly<Record<string, ShapeRule>> = {
  Binarizer: sameAsInput,
  FeatureVectorizer: featureVectorizer,
  Imputer: sameAsInput,
  Normalizer: toFloats,
  Scaler: toFloats,
};
