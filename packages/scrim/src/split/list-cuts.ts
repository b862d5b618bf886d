/**
 * The cuts of a graph, and what each would send.
 *
 * A cut is a set of activations through which every path from a fed input to an output passes and each of which the tail
 * reads. Neither fed inputs nor outputs can be cut: there the input itself, or the answer, would cross. Every cut of one
 * tensor is found: in a topological order a value lies on every path exactly if no edge spans its place. Cuts of several
 * tensors are those met along the graph's own topological order, once each: what crosses there is what nodes so far have
 * made and nodes to come still read. One sweep, in time proportional to the graph.
 */
import { assertArgument } from '../errors.js';
import { countFlops, type Dimension, type Graph, inferShapes, type ValueType } from '../onnx/index.js';
import { BYTES_PER_ELEMENT, type DataType } from '../tensor.js';
import { type Activation, findActivations } from './activation-flow.js';

/** A tensor that crosses a cut. */
export interface CutTensor {
  readonly name: string;
  /** Undefined where shape inference can't tell. */
  readonly dtype: DataType | undefined;
  readonly shape: readonly Dimension[] | undefined;
  /** Number of elements; undefined while a dimension is symbolic. */
  readonly elements: number | undefined;
  /** True if noise can be added: a floating-point element type. */
  readonly isFloat: boolean;
}

/** One way to cut a graph in two. */
export interface Cut {
  /** Stable name: the names of the tensors, joined by ' + '. */
  readonly name: string;
  /** What crosses, in the order in which it is made. */
  readonly tensors: readonly CutTensor[];
  /** Names of crossing tensors that follow from the other ones: sending them saves work and reveals nothing more. */
  readonly determined: readonly string[];
  /** True if every crossing tensor is floating point, so that noise can be added to all of them. */
  readonly isFloat: boolean;
  /** Bytes of one crossing with float tensors as FP32 and others as they are; undefined while a size is symbolic. */
  readonly bytesFp32: number | undefined;
  /** The same with float tensors as FP16. */
  readonly bytesFp16: number | undefined;
  /** {@link bytesFp32} divided by the bytes of the fed inputs in their own element types. */
  readonly ratioFp32: number | undefined;
  /** {@link bytesFp16} divided by the bytes of the fed inputs in their own element types. */
  readonly ratioFp16: number | undefined;
  /** Nodes on each side that depend on the inputs. */
  readonly headNodes: number;
  readonly tailNodes: number;
  /** Floating-point operations on each side; nodes that could not be counted are left out. */
  readonly headFlops: number;
  readonly tailFlops: number;
  /** Share of the operations on each side, 0 to 1; undefined if nothing could be counted. */
  readonly headShare: number | undefined;
  readonly tailShare: number | undefined;
}

/** How {@link listCuts} looks. */
export interface ListCutsOptions {
  /** Sizes of the inputs, which make symbolic sizes and shares concrete. */
  readonly inputShapes?: Readonly<Record<string, readonly number[]>>;
  /** Largest number of tensors that may cross; default 1, at most 16. */
  readonly maxTensors?: number;
}

/**
 * Lists the cuts of `graph`: those of one tensor first, then of two and so on, each group from the inputs to the outputs.
 * @throws ScrimError INVALID_ARGUMENT for a wrong option; INVALID_MODEL if shapes contradict each other.
 */
export function listCuts(graph: Graph, options: ListCutsOptions = {}): Cut[] {
  const { maxTensors = 1, inputShapes } = options;
  assertArgument(
    Number.isInteger(maxTensors) && maxTensors >= 1 && maxTensors <= 16,
    `maxTensors is ${maxTensors}, expected an integer from 1 to 16`,
  );
  const types = inferShapes(graph, inputShapes ? { inputShapes } : {});
  const flops = countFlops(graph, types);
  const { nodes, activations } = findActivations(graph);
  const inputBytes = sum(graph.inputNames.map((name) => bytesOf(describeTensor(name, types))));
  const counts = nodes.map((node) => flops.of(node) ?? 0);
  const total = counts.reduce((a, b) => a + b, 0);

  const live = new Map<string, number>();
  const cuts: Cut[] = [];
  const seen = new Set<string>();
  let blocked = 0;
  const expiring = new Map<number, string[]>();
  for (const { name, from, until } of activations.values()) {
    if (until <= from) continue;
    const names = expiring.get(until);
    if (names) names.push(name);
    else expiring.set(until, [name]);
    if (from < 0) blocked++;
  }
  let headFlops = 0;
  for (const [i, node] of nodes.entries()) {
    headFlops += counts[i] ?? 0;
    for (const name of expiring.get(i) ?? []) {
      if ((activations.get(name)?.from ?? -1) < 0) blocked--;
      live.delete(name);
    }
    for (const name of node.output) {
      const activation = activations.get(name);
      if (!activation || activation.until <= i) continue;
      if (activation.until === Number.POSITIVE_INFINITY) blocked++;
      else live.set(name, i);
    }
    if (blocked > 0 || live.size === 0 || live.size > maxTensors) continue;
    const names = [...live.keys()];
    const key = JSON.stringify(names);
    if (seen.has(key)) continue;
    seen.add(key);
    const tensors = names.map((name) => describeTensor(name, types));
    const bytesFp32 = sum(tensors.map((tensor) => bytesOf(tensor, 4)));
    const bytesFp16 = sum(tensors.map((tensor) => bytesOf(tensor, 2)));
    const ratio = (bytes: number | undefined): number | undefined =>
      bytes === undefined || !inputBytes ? undefined : bytes / inputBytes;
    cuts.push({
      name: names.join(' + '),
      tensors,
      determined: names.length === 1 ? [] : findDetermined(names, activations),
      isFloat: tensors.every(({ isFloat }) => isFloat),
      bytesFp32,
      bytesFp16,
      ratioFp32: ratio(bytesFp32),
      ratioFp16: ratio(bytesFp16),
      headNodes: i + 1,
      tailNodes: nodes.length - i - 1,
      headFlops,
      tailFlops: total - headFlops,
      headShare: total > 0 ? headFlops / total : undefined,
      tailShare: total > 0 ? 1 - headFlops / total : undefined,
    });
  }
  return cuts.sort((a, b) => a.tensors.length - b.tensors.length);
}

const FLOATS: ReadonlySet<DataType> = new Set(['float32', 'float64', 'float16', 'bfloat16']);

/** What shape inference says of the value `name`. */
export function describeTensor(name: string, types: ReadonlyMap<string, ValueType>): CutTensor {
  const type = types.get(name);
  const shape = type?.shape;
  const elements = shape?.reduce<number>((total, size) => total * (typeof size === 'number' ? size : Number.NaN), 1);
  return {
    name,
    dtype: type?.dtype,
    shape,
    elements: elements === undefined || Number.isNaN(elements) ? undefined : elements,
    isFloat: type !== undefined && FLOATS.has(type.dtype),
  };
}

/** Bytes of a tensor, float elements `floatBytes` wide if given; undefined for strings and symbolic sizes. */
function bytesOf({ dtype, elements, isFloat }: CutTensor, floatBytes?: number): number | undefined {
  if (dtype === undefined || elements === undefined || dtype === 'string') return undefined;
  return elements * (isFloat && floatBytes !== undefined ? floatBytes : BYTES_PER_ELEMENT[dtype]);
}

/** The sum, undefined if any part is. */
function sum(parts: readonly (number | undefined)[]): number | undefined {
  return parts.reduce((a, b) => (a === undefined || b === undefined ? undefined : a + b), 0);
}

/** The tensors whose every path from the inputs passes through the other ones. */
function findDetermined(names: readonly string[], activations: ReadonlyMap<string, Activation>): string[] {
  return names.filter((name) => {
    const others = new Set(names.filter((other) => other !== name));
    const seen = new Set<Activation>();
    // Depth first, so that a path to an input is soon found where there is one.
    const stack = [activations.get(name)];
    for (let value = stack.pop(); value; value = stack.pop()) {
      if (value.sources.length === 0) return false;
      for (const source of value.sources) {
        if (others.has(source.name) || seen.has(source)) continue;
        seen.add(source);
        stack.push(source);
      }
    }
    return true;
  });
}
