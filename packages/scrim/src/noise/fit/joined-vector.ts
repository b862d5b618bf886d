/**
 * One vector of all trained weights, as parts of an ONNX graph: cut into the weights, and joined from their gradients.
 *
 * onnxruntime's CUDA kernels of Split and Concat send a number to the GPU for every index of the axis they work on, and
 * wait for it. So most of the vector is cut and joined as rows: first the weights that fill whole rows, then all others,
 * one after the other, and zeros up to a whole number of {@link BLOCK}s.
 */
import type { Graph } from '../../onnx/index.js';
import { float32, int64 } from '../../tensor.js';

/** The vector's length is a multiple of this, so that its norm is a sum of sums that any provider computes side by side. */
export const BLOCK = 1024;
/** Values in a row; the weights of most convolutions are a multiple of it, and a block is. */
const ROW = 256;

/** How many values are summed at once at most: the 128 MiB that WebGPU promises a kernel can bind. */
const MAX_SUMMED = 2 ** 25;

/** The sum over the rows of `addends` [rows, …], by a product with `ones` [1, rows]. */
interface Sum {
  readonly ones: string;
  readonly rows: number;
  readonly addends: string;
}

/** A weight's place in the vector. */
export interface Slot {
  readonly name: string;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly size: number;
}

/** Gives every weight its place; slots come in the order of the weights, `size` is the vector's length. */
export function layOut(weights: readonly { readonly name: string; readonly shape: readonly number[] }[]): {
  slots: Slot[];
  size: number;
} {
  const sizes = weights.map(({ shape }) => shape.reduce((product, length) => product * length, 1));
  const offsets = new Map<number, number>();
  let end = 0;
  for (const whole of [true, false]) {
    sizes.forEach((size, i) => {
      if ((size % ROW === 0) !== whole) return;
      offsets.set(i, end);
      end += size;
    });
  }
  return {
    slots: weights.map(({ name, shape }, i) => ({
      name,
      shape,
      offset: offsets.get(i) as number,
      size: sizes[i] as number,
    })),
    size: Math.ceil(end / BLOCK) * BLOCK,
  };
}

/** Cuts and joins vectors of one layout in a graph. */
export class JoinedVector {
  readonly #graph: Graph;
  readonly #slots: readonly Slot[];
  readonly #width: number;
  /** Indices of the slots that fill whole rows, and of the others, in the order they lie in. */
  readonly #rows: readonly number[];
  readonly #rest: readonly number[];
  /** Values of all others together, and of the zeros behind them. */
  readonly #restSize: number;
  readonly #padding: number;

  /** `width` is how many parts one node cuts or joins at most. */
  constructor(graph: Graph, slots: readonly Slot[], size: number, width: number) {
    this.#graph = graph;
    this.#slots = slots;
    this.#width = width;
    const indices = slots.map((_, i) => i);
    this.#rows = indices.filter((i) => this.#sizeOf(i) % ROW === 0);
    this.#rest = indices.filter((i) => this.#sizeOf(i) % ROW !== 0);
    const total = (of: readonly number[]): number => of.reduce((sum, i) => sum + this.#sizeOf(i), 0);
    this.#restSize = total(this.#rest);
    this.#padding = size - total(this.#rows) - this.#restSize;
  }

  /** The weights that `vector` [size] holds, each flat or as rows, in the order of the slots. */
  cut(vector: string): string[] {
    const lengths = this.#rows.map((i) => this.#sizeOf(i) / ROW);
    const behind = (this.#restSize + this.#padding) / ROW;
    const rows = this.#split(this.#reshape(vector, [-1, ROW]), behind > 0 ? [...lengths, behind] : lengths);
    const result = new Map(this.#rows.map((i, k) => [i, rows[k] as string]));
    if (this.#rest.length > 0) {
      const sizes = this.#rest.map((i) => this.#sizeOf(i));
      const flat = this.#reshape(rows.at(-1) as string, [-1]);
      const parts = this.#split(flat, this.#padding > 0 ? [...sizes, this.#padding] : sizes);
      for (const [k, i] of this.#rest.entries()) result.set(i, parts[k] as string);
    }
    return this.#slots.map((_, i) => result.get(i) as string);
  }

  /**
   * Values of the slots' sizes, in the order of the slots and of any shape, as one vector [size]. Neighbours that are sums
   * over the same number of rows, as gradients that were written for a GPU are sums over a batch, are summed at once.
   */
  join(parts: readonly string[]): string {
    const rows = this.#pieces(this.#rows, parts, [-1, ROW]);
    const rest = this.#pieces(this.#rest, parts, [-1]);
    if (this.#padding > 0) {
      const zeros = float32([this.#padding], new Float32Array(this.#padding));
      rest.push(this.#graph.addInitializer('train_padding', zeros));
    }
    if (rest.length > 0) rows.push(this.#reshape(this.#concat(rest), [-1, ROW]));
    return this.#reshape(this.#concat(rows), [-1]);
  }

  /** The parts of some slots as pieces of this shape, which lie one after the other. */
  #pieces(slots: readonly number[], parts: readonly string[], shape: readonly number[]): string[] {
    const runs: { values: string[]; sums: Sum[]; room: number }[] = [];
    for (const slot of slots) {
      const value = parts[slot] as string;
      const sum = this.#sum(value, this.#sizeOf(slot));
      const last = runs.at(-1);
      const needed = (sum?.rows ?? 0) * this.#sizeOf(slot);
      if (sum && last?.sums[0]?.rows === sum.rows && needed <= last.room) {
        last.values.push(value);
        last.sums.push(sum);
        last.room -= needed;
      } else {
        runs.push({ values: [value], sums: sum ? [sum] : [], room: MAX_SUMMED - needed });
      }
    }
    return runs.map(({ values, sums }) => this.#reshape(this.#whole(values, sums, shape), shape));
  }

  /** A run of parts as one value: the only one, or the sum of what all of them are sums of. */
  #whole(values: readonly string[], sums: readonly Sum[], shape: readonly number[]): string {
    const [first] = sums;
    if (!first || sums.length === 1) return values[0] as string;
    const addends = sums.map((sum) => this.#reshape(sum.addends, [first.rows, ...shape]));
    return this.#graph.add('MatMul', [first.ones, this.#reshape(this.#concat(addends, 1), [first.rows, -1])]);
  }

  /** What `value` is the sum of, if it is the product of a row of ones and a matrix [rows, size], whatever its shape. */
  #sum(value: string, size: number): Sum | undefined {
    const graph = this.#graph;
    let node = graph.producer(value);
    while (node?.opType === 'Reshape') node = graph.producer(node.input[0] as string);
    if (node?.opType !== 'MatMul') return undefined;
    const [ones, addends] = node.input as [string, string];
    const factor = graph.constant(ones);
    if (factor?.dtype !== 'float32' || factor.shape[0] !== 1 || factor.shape.length !== 2) return undefined;
    const [, rows = 1] = factor.shape;
    if (!(factor.data as Float32Array).every((one) => one === 1)) return undefined;
    const matrix = graph.producer(addends);
    const shape = matrix?.opType === 'Reshape' ? graph.constant(matrix.input[1] as string) : undefined;
    if (shape?.dtype !== 'int64' || Array.from(shape.data as BigInt64Array).join() !== `${rows},${size}`)
      return undefined;
    return { ones, rows, addends };
  }

  #sizeOf(slot: number): number {
    return (this.#slots[slot] as Slot).size;
  }

  #reshape(value: string, shape: readonly number[]): string {
    return this.#graph.add('Reshape', [value, this.#graph.addInitializer('train_shape', int64(shape))]);
  }

  #concat(parts: readonly string[], axis = 0): string {
    if (parts.length === 1) return parts[0] as string;
    const groups: string[] = [];
    for (let i = 0; i < parts.length; i += this.#width) {
      const group = parts.slice(i, i + this.#width);
      groups.push(group.length === 1 ? (group[0] as string) : this.#graph.add('Concat', group, { axis }));
    }
    return this.#concat(groups, axis);
  }

  #split(value: string, lengths: readonly number[]): string[] {
    if (lengths.length === 1) return [value];
    let count = 1;
    while (count * this.#width < lengths.length) count *= this.#width;
    const groups: (readonly number[])[] = [];
    for (let i = 0; i < lengths.length; i += count) groups.push(lengths.slice(i, i + count));
    const sizes = groups.map((group) => group.reduce((sum, length) => sum + length, 0));
    const graph = this.#graph;
    const inputs = [value, graph.addInitializer('train_sizes', int64(sizes))];
    const parts = graph.addMany('Split', inputs, { axis: 0 }, { outputs: sizes.length });
    return groups.flatMap((group, i) => this.#split(parts[i] as string, group));
  }
}
