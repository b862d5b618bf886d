/**
 * The cuts of a graph, and what each would send.
 *
 * A cut is a set of activations through which every path from a fed input to an output passes and each of which the tail
 * reads. Neither fed inputs nor outputs can be cut: there the input itself, or the answer, would cross. Every cut of one
 * tensor is found: in a topological order a value lies on every path exactly if no edge spans its place. Cuts of several
 * tensors are those met along the graph's own topological order, once each: what crosses there is what nodes so far have
 * made and nodes to come still read. Two sweeps: one takes every value as it is, in time proportional to the graph, the other
 * lets sizes go past a cut from which they can be read (carried-sizes.ts), and looks for each cut at the sizes in use there.
 */
import { assertArgument } from '../errors.js';
import {
  countFlops,
  type Dimension,
  type FlopCount,
  type Graph,
  inferShapes,
  usedBy,
  type ValueType,
} from '../onnx/index.js';
import { BYTES_PER_ELEMENT, type DataType } from '../tensor.js';
import { type Activation, type ActivationFlow, findActivations } from './activation-flow.js';
import { findSizes, readableSizes } from './carried-sizes.js';
import { findBypass } from './split-at.js';

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
  const sweep = new Sweep(graph, types, maxTensors);
  const flow = findActivations(graph);
  const strict = sweep.over(flow);
  // Whether a tail can read a size off what crosses must not rest on the sizes at hand.
  const sizes = findSizes(graph);
  const given = new Set(sizes.keys());
  if (given.size === 0) return strict.sort((a, b) => a.tensors.length - b.tensors.length);
  const open = inputShapes ? inferShapes(graph) : types;
  const without = findActivations(graph, given);
  const past = lastUses(graph, flow, without);
  const readable = new Map<string, ReadonlySet<string>>();
  const lenient = sweep.over(without, (names, i) => {
    const known = JSON.stringify([...new Set(names.flatMap((name) => open.get(name)?.shape ?? []))].sort());
    const sizesThere = readable.get(known) ?? readableSizes(sizes, names, open);
    readable.set(known, sizesThere);
    const unread: string[] = [];
    for (const [name, until] of past) {
      if (until <= i) break;
      if (!sizesThere.has(name)) unread.push(name);
    }
    return findBypass(graph, { has: (name) => sizesThere.has(name) || names.includes(name) }, unread) === undefined;
  });
  const cuts = new Map(lenient.map((cut) => [cut.name, cut]));
  for (const cut of strict) {
    const rest = cut.tensors.filter(({ name }) => !given.has(name)).map(({ name }) => name);
    if (rest.length === cut.tensors.length || !cuts.has(rest.join(' + '))) cuts.set(cut.name, cut);
  }
  return [...cuts.values()].sort((a, b) => a.tensors.length - b.tensors.length || a.headNodes - b.headNodes);
}

/**
 * Values that come from the inputs by sizes alone, with the place of the last node that computes with them and with more than
 * sizes (infinite for outputs), the latest first. Nothing else of the inputs goes past a cut in the flow `without` sizes.
 */
function lastUses(graph: Graph, flow: ActivationFlow, without: ActivationFlow): [name: string, until: number][] {
  const found = new Map<string, number>();
  const note = (name: string, at: number): void => {
    if (flow.activations.has(name) && !without.activations.has(name)) found.set(name, at);
  };
  for (const [i, node] of without.nodes.entries()) for (const name of usedBy(node)) note(name, i);
  for (const name of graph.outputNames) note(name, Number.POSITIVE_INFINITY);
  return [...found].sort((a, b) => b[1] - a[1]);
}

/** What is the same for every sweep over one graph. */
class Sweep {
  readonly #types: ReadonlyMap<string, ValueType>;
  readonly #maxTensors: number;
  readonly #flops: FlopCount;
  readonly #inputBytes: number | undefined;

  constructor(graph: Graph, types: ReadonlyMap<string, ValueType>, maxTensors: number) {
    this.#types = types;
    this.#maxTensors = maxTensors;
    this.#flops = countFlops(graph, types);
    this.#inputBytes = sum(graph.inputNames.map((name) => bytesOf(describeTensor(name, types))));
  }

  /** The cuts along the order of the nodes; `accept` may refuse some by what crosses and the place of the last node before. */
  over(
    { nodes, activations }: ActivationFlow,
    accept: (names: readonly string[], i: number) => boolean = () => true,
  ): Cut[] {
    const counts = nodes.map((node) => this.#flops.of(node) ?? 0);
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
      if (blocked > 0 || live.size === 0 || live.size > this.#maxTensors) continue;
      const names = [...live.keys()];
      const key = JSON.stringify(names);
      if (seen.has(key)) continue;
      seen.add(key);
      if (!accept(names, i)) continue;
      const tensors = names.map((name) => describeTensor(name, this.#types));
      const bytesFp32 = sum(tensors.map((tensor) => bytesOf(tensor, 4)));
      const bytesFp16 = sum(tensors.map((tensor) => bytesOf(tensor, 2)));
      const ratio = (bytes: number | undefined): number | undefined =>
        bytes === undefined || !this.#inputBytes ? undefined : bytes / this.#inputBytes;
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
    return cuts;
  }
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
