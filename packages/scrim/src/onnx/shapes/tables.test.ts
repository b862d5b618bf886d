/** What prepares a table's columns, against onnxruntime. */
import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { runOnnx, sampleTensor } from '../../../../../test/run-onnx.js';
import { type DataType, type Tensor, tensor } from '../../tensor.js';
import { type Attributes, floats } from '../attributes.js';
import { OperatorSetIdProtoSchema } from '../gen/onnx_pb.js';
import { Graph } from '../graph.js';
import { inferShapes } from '../shape-inference.js';

const longs = tensor('int64', [2, 3], BigInt64Array.from([1n, 2n, 3n, 4n, 5n, 6n]));

const CASES: Readonly<Record<string, readonly [attributes: Attributes, inputs: readonly Tensor[]]>> = {
  Scaler: [{ scale: floats([2, 1, 0.5]), offset: floats([0, 1, 2]) }, [longs]],
  Normalizer: [{ norm: 'L2' }, [sampleTensor('float32', [2, 3])]],
  Imputer: [{ imputed_value_int64s: [7], replaced_value_int64: 3 }, [longs]],
  Binarizer: [{}, [sampleTensor('float32', [2, 3])]],
  FeatureVectorizer: [{ inputdimensions: [3, 2] }, [sampleTensor('float32', [2, 3]), sampleTensor('float32', [2, 2])]],
};

describe('operators of tables', () => {
  for (const [operator, [attributes, inputs]] of Object.entries(CASES)) {
    it(operator, async () => {
      const graph = Graph.create({ opset: 17 });
      graph.model.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: 'ai.onnx.ml', version: 2n }));
      const names = inputs.map(({ dtype, shape }, i) => graph.addInput(`x${i}`, dtype, ['N', ...shape.slice(1)]));
      const made = graph.add(operator, names, attributes, { domain: 'ai.onnx.ml' });
      const { dtype, shape } = inferShapes(graph).get(made) ?? {};
      graph.addOutput(made, dtype as DataType, undefined);
      const found = await runOnnx(graph.encode(), Object.fromEntries(inputs.map((value, i) => [`x${i}`, value])));
      expect(dtype).toBe(found[made]?.dtype);
      expect(shape).toEqual(['N', ...(found[made]?.shape.slice(1) ?? [])]);
    });
  }
});
