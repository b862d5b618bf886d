/**
 * The remote half as a Triton model repository: the tail with Triton's usual tensor names, and its config.pbtxt.
 *
 * Names follow TR-4928: INPUT__0, OUTPUT__0, OUTPUT__1. Field names of config.pbtxt are those of model_config.proto in
 * triton-inference-server/common. What is written here depends on the tail alone, never on the noise.
 */
import { ScrimError } from '../errors.js';
import type { Graph, ValueType } from '../onnx/index.js';
import type { DataType } from '../tensor.js';

const TRITON_TYPES: Readonly<Partial<Record<DataType, string>>> = {
  float32: 'TYPE_FP32',
  float64: 'TYPE_FP64',
  float16: 'TYPE_FP16',
  bfloat16: 'TYPE_BF16',
  int8: 'TYPE_INT8',
  uint8: 'TYPE_UINT8',
  int16: 'TYPE_INT16',
  uint16: 'TYPE_UINT16',
  int32: 'TYPE_INT32',
  uint32: 'TYPE_UINT32',
  int64: 'TYPE_INT64',
  uint64: 'TYPE_UINT64',
  bool: 'TYPE_BOOL',
  string: 'TYPE_STRING',
};

/** A tail under Triton's tensor names. */
export interface RemoteModel {
  readonly graph: Graph;
  readonly input: string;
  /** The model's own; the graph may have others behind them. */
  readonly outputs: readonly { readonly remote: string; readonly model: string }[];
  /** True if the first dimension of every input and output is symbolic, so that Triton may batch. */
  readonly batches: boolean;
}

/** Copies `tail` and renames its one input to INPUT__0 and its outputs to OUTPUT__0, OUTPUT__1, … in their order. */
export function remoteModel(tail: Graph): RemoteModel {
  const graph = tail.clone();
  const [input, ...more] = graph.inputNames;
  if (input === undefined || more.length > 0) {
    throw new ScrimError('UNSUPPORTED', `the tail has ${graph.inputNames.length} inputs, expected one`);
  }
  const outputs = graph.outputNames.map((model, i) => ({ remote: `OUTPUT__${i}`, model }));
  graph.renameValue(input, 'INPUT__0');
  for (const { remote, model } of outputs) graph.renameValue(model, remote);
  return describeRemoteModel(graph, 'INPUT__0', outputs);
}

/** A graph that has Triton's tensor names already, such as the remote model of a bundle. */
export function describeRemoteModel(graph: Graph, input: string, outputs: RemoteModel['outputs']): RemoteModel {
  const names = [input, ...outputs.map(({ remote }) => remote)];
  const batches = names.every((name) => typeof graph.declaredType(name)?.shape?.[0] === 'string');
  return { graph, input, outputs, batches };
}

/** Writes config.pbtxt for a model of the repository. `maxBatchSize` 0 turns batching off. */
export function tritonConfig(name: string, model: RemoteModel, maxBatchSize: number = model.batches ? 8 : 0): string {
  const tensor = (value: string): string => {
    const type = model.graph.declaredType(value);
    if (!type?.shape) throw new ScrimError('INVALID_MODEL', `the shape of '${value}' is not known`);
    const dims = (maxBatchSize > 0 ? type.shape.slice(1) : type.shape).map((dim) =>
      typeof dim === 'number' ? dim : -1,
    );
    return `  {\n    name: "${value}"\n    data_type: ${tritonType(value, type)}\n    dims: [ ${dims.join(', ')} ]\n  }`;
  };
  const outputs = model.graph.outputNames.map(tensor).join(',\n');
  const batching = maxBatchSize > 1 ? 'dynamic_batching { }\n' : '';
  return (
    `name: "${name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: ${maxBatchSize}\n` +
    `input [\n${tensor(model.input)}\n]\noutput [\n${outputs}\n]\n${batching}`
  );
}

function tritonType(value: string, type: ValueType): string {
  const name = TRITON_TYPES[type.dtype];
  if (!name) throw new ScrimError('UNSUPPORTED', `'${value}' is ${type.dtype}, which Triton has no type for`);
  return name;
}
