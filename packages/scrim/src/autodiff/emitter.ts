/**
 * Writes backward nodes into a graph.
 *
 * Rules say what they want in one vocabulary (reduce over these axes, reshape to that value's shape, pad by these
 * sizes); the emitter writes the form that the graph's operator set has, folds what is fixed, and shares constants and
 * shape nodes. It knows the types of the forward values, which are all a rule needs: a gradient has its value's shape.
 */
import { ScrimError } from '../errors.js';
import type { Attributes } from '../onnx/attributes.js';
import type { Graph } from '../onnx/graph.js';
import { dataTypeCode } from '../onnx/tensor-proto.js';
import type { Dimension, ValueType } from '../onnx/value-info.js';
import { type DataType, int64, type Tensor, tensor } from '../tensor.js';
import { areFixed, isFixed, type Size } from './size.js';

/**
 * What backward nodes are written for: 'cpu', where moving memory costs most; GPUs, where every node costs a launch by one
 * thread of the processor, and memory is cheap. 'webgpu' keeps what convolutions read and write channels-last and costs
 * several times what 'cuda' does for a launch.
 */
export type GradientTarget = 'cpu' | 'cuda' | 'webgpu';

/** One axis of a forward value. */
export interface AxisOf {
  readonly value: string;
  readonly axis: number;
}

/** Builder of backward nodes over one graph. */
export class Emitter {
  readonly graph: Graph;
  readonly opset: number;
  readonly target: GradientTarget;
  readonly #types: ReadonlyMap<string, ValueType>;
  readonly #values: ReadonlyMap<string, { readonly elements: readonly number[] }>;
  readonly #constants = new Map<string, string>();
  readonly #shapes = new Map<string, string>();
  readonly #sizes = new Map<string, Size>();
  readonly #made = new Map<string, string>();
  #prefix = 'gradient';
  #dtype: DataType = 'float32';

  /** `types` are those of the forward values, and `values` the small integer tensors among them, from shape inference. */
  constructor(
    graph: Graph,
    types: ReadonlyMap<string, ValueType>,
    values: ReadonlyMap<string, { readonly elements: readonly number[] }>,
    target: GradientTarget,
  ) {
    this.graph = graph;
    this.opset = graph.opset;
    this.target = target;
    this.#types = types;
    this.#values = values;
  }

  /** True if what is written runs on a GPU. */
  get isGpu(): boolean {
    return this.target !== 'cpu';
  }

  /** The nodes that follow have names that start with `prefix` and work on gradients of element type `dtype`. */
  begin(prefix: string, dtype: DataType): void {
    this.#prefix = prefix;
    this.#dtype = dtype;
  }

  /** Adds a node and returns its output. */
  op(opType: string, inputs: readonly string[], attributes: Attributes = {}): string {
    return this.ops(opType, inputs, 1, attributes)[0] as string;
  }

  /** Adds a node with `count` outputs. */
  ops(opType: string, inputs: readonly string[], count: number, attributes: Attributes = {}): string[] {
    const name = this.graph.uniqueName(`${this.#prefix}/${opType}`);
    const outputs = Array.from({ length: count }, (_, i) => `${name}_out${count === 1 ? '' : i}`);
    return this.graph.addMany(opType, inputs, attributes, {
      name: `${name}_node`,
      outputs: outputs.every((output) => !this.graph.has(output)) ? outputs : count,
    });
  }

  /** The value that `make` writes the first time that `key` is asked for. */
  once(key: string, make: () => string): string {
    const found = this.#made.get(key) ?? make();
    this.#made.set(key, found);
    return found;
  }

  // Types of forward values.

  /** The integers that a forward value holds whatever is fed; undefined if they are not known. */
  integers(value: string): readonly number[] | undefined {
    return this.#values.get(value)?.elements;
  }

  /** Element type of a forward value; float32 where inference could not tell. */
  dtype(value: string): DataType {
    return this.#types.get(value)?.dtype ?? 'float32';
  }

  /**
   * Dimensions of a forward value.
   * @throws ScrimError UNSUPPORTED if not even the rank is known.
   */
  dims(value: string): readonly Dimension[] {
    const shape = this.#types.get(value)?.shape;
    if (!shape) {
      throw new ScrimError(
        'UNSUPPORTED',
        `the rank of '${value}' is unknown, so no gradient can be written through it; pass inputShapes`,
        { details: { value } },
      );
    }
    return shape;
  }

  /** Rank of a forward value. @throws as {@link dims}. */
  rank(value: string): number {
    return this.dims(value).length;
  }

  /** Rank of a forward value, undefined if unknown. */
  rankIfKnown(value: string): number | undefined {
    return this.#types.get(value)?.shape?.length;
  }

  /** Sizes of all dimensions of a forward value. @throws as {@link dims}. */
  sizes(value: string): Size[] {
    return this.dims(value).map((_, axis) => this.size(value, axis));
  }

  /** Size of one dimension of a forward value; `axis` may be negative. @throws as {@link dims}. */
  size(value: string, axis: number): Size {
    const dims = this.dims(value);
    const position = axis < 0 ? axis + dims.length : axis;
    const dimension = dims[position] as Dimension;
    if (typeof dimension === 'number') return dimension;
    const key = dimension === '' ? `${position} of ${value}` : `symbol ${dimension}`;
    let size = this.#sizes.get(key);
    if (!size) {
      const picked = this.op('Gather', [this.shapeOf(value), this.ints([position])], { axis: 0 });
      size = { value: picked };
      this.#sizes.set(key, size);
    }
    return size;
  }

  /** The shape of a forward value as an int64 vector: a constant where all of it is fixed. */
  shapeOf(value: string): string {
    const dims = this.#types.get(value)?.shape;
    if (dims?.every((dimension) => typeof dimension === 'number')) return this.ints(dims as readonly number[]);
    let shape = this.#shapes.get(value);
    if (!shape) {
      shape = this.op('Shape', [value]);
      this.#shapes.set(value, shape);
    }
    return shape;
  }

  // Constants.

  /** A constant, shared with others of the same element type, shape and content. */
  constant(value: Tensor, name = 'constant'): string {
    const { length } = value.data;
    if (length > 256) return this.graph.addInitializer(`${this.#prefix}/${name}`, value);
    const key = `${value.dtype}[${value.shape.join()}]${Array.from(value.data as ArrayLike<unknown>, keyOf).join()}`;
    let found = this.#constants.get(key);
    if (found === undefined) {
      found = this.graph.addInitializer(`gradient/${name}`, value);
      this.#constants.set(key, found);
    }
    return found;
  }

  /** A scalar constant of the element type of the forward value `like`. */
  scalar(value: number, like: string): string {
    return this.scalarOf(value, this.dtype(like));
  }

  /** A scalar constant of shape []. */
  scalarOf(value: number, dtype: DataType): string {
    return this.constant(floatTensor(dtype, [], [value]), 'scalar');
  }

  /** An int64 vector constant. */
  ints(values: readonly number[]): string {
    return this.constant(int64(values), 'ints');
  }

  /** Zeros of the shape of a forward value. */
  zerosLike(value: string): string {
    return this.op('ConstantOfShape', [this.shapeOf(value)], { value: floatTensor(this.dtype(value), [1], [0]) });
  }

  /** Zeros of these sizes, in the element type of the forward value `like`. */
  zeros(sizes: readonly Size[], like: string): string {
    return this.op('ConstantOfShape', [this.vector(sizes)], { value: floatTensor(this.dtype(like), [1], [0]) });
  }

  // Sizes.

  /** The int64 vector of these sizes. */
  vector(sizes: readonly Size[]): string {
    if (areFixed(sizes)) return this.ints(sizes);
    if (sizes.length === 1) return (sizes[0] as { readonly value: string }).value;
    const parts: string[] = [];
    for (let i = 0; i < sizes.length; ) {
      const fixed: number[] = [];
      for (let size = sizes[i]; size !== undefined && isFixed(size); size = sizes[++i]) fixed.push(size);
      if (fixed.length > 0) parts.push(this.ints(fixed));
      const size = sizes[i];
      if (size !== undefined && !isFixed(size)) {
        parts.push(size.value);
        i++;
      }
    }
    return this.op('Concat', parts, { axis: 0 });
  }

  /** a + b. */
  plus(a: Size, b: Size): Size {
    if (isFixed(a) && isFixed(b)) return a + b;
    if (a === 0) return b;
    if (b === 0) return a;
    return { value: this.op('Add', [this.vector([a]), this.vector([b])]) };
  }

  /** a − b. */
  minus(a: Size, b: Size): Size {
    if (isFixed(a) && isFixed(b)) return a - b;
    if (b === 0) return a;
    return { value: this.op('Sub', [this.vector([a]), this.vector([b])]) };
  }

  /** a · b. */
  times(a: Size, b: Size): Size {
    if (isFixed(a) && isFixed(b)) return a * b;
    if (a === 1) return b;
    if (b === 1) return a;
    return { value: this.op('Mul', [this.vector([a]), this.vector([b])]) };
  }

  /** Integer quotient of sizes ≥ 0. */
  over(a: Size, b: Size): Size {
    if (isFixed(a) && isFixed(b)) return Math.floor(a / b);
    if (b === 1) return a;
    return { value: this.op('Div', [this.vector([a]), this.vector([b])]) };
  }

  /** Product of sizes; 1 for none. */
  product(sizes: readonly Size[]): Size {
    return sizes.reduce((a, b) => this.times(a, b), 1);
  }

  /** True if both are surely equal when the graph runs. */
  sameSize(a: Size, b: Size): boolean {
    return isFixed(a) || isFixed(b) ? a === b : a.value === b.value;
  }

  // Arithmetic.

  add(a: string, b: string): string {
    return this.op('Add', [a, b]);
  }

  sub(a: string, b: string): string {
    return this.op('Sub', [a, b]);
  }

  mul(a: string, b: string): string {
    return this.op('Mul', [a, b]);
  }

  div(a: string, b: string): string {
    return this.op('Div', [a, b]);
  }

  neg(a: string): string {
    return this.op('Neg', [a]);
  }

  /** x · factor; x itself for 1. `like` is a forward value of the same element type. */
  scale(x: string, factor: number, like: string): string {
    if (factor === 1) return x;
    if (factor === -1) return this.neg(x);
    return this.mul(x, this.scalar(factor, like));
  }

  /** Converts to the element type of a forward value. */
  cast(x: string, dtype: DataType): string {
    return this.op('Cast', [x], { to: dataTypeCode(dtype) });
  }

  /** The 0/1 mask `condition` in the element type of the forward value `like`. */
  mask(condition: string, like: string): string {
    return this.cast(condition, this.dtype(like));
  }

  /** −1, 0 or 1. As differences of comparisons, which runtimes vectorise and WebGPU has, unlike Sign. */
  sign(x: string, like: string): string {
    const zero = this.scalar(0, like);
    return this.sub(this.mask(this.op('Greater', [x, zero]), like), this.mask(this.op('Less', [x, zero]), like));
  }

  /** x where `condition`, else 0. */
  keepWhere(condition: string, x: string, like: string): string {
    return this.op('Where', [condition, x, this.scalar(0, like)]);
  }

  /** Sum of gradients of one value. */
  sum(terms: readonly string[]): string {
    return terms.reduce((a, b) => this.add(a, b));
  }

  // Layout.

  /** Reshapes to the given sizes. */
  reshape(x: string, sizes: readonly Size[]): string {
    const unknown = sizes.filter((size) => !isFixed(size));
    // One size may be left to the runtime, unless an empty tensor makes it ambiguous.
    if (unknown.length === 1 && !sizes.includes(0) && !sizes.includes(-1)) {
      return this.op('Reshape', [x, this.ints(sizes.map((size) => (isFixed(size) ? size : -1)))]);
    }
    return this.op('Reshape', [x, this.vector(sizes)]);
  }

  /** Reshapes to the shape of a forward value. */
  reshapeLike(x: string, value: string): string {
    const dims = this.#types.get(value)?.shape;
    if (dims && dims.filter((dimension) => typeof dimension !== 'number').length === 1 && !dims.includes(0)) {
      return this.op('Reshape', [
        x,
        this.ints(dims.map((dimension) => (typeof dimension === 'number' ? dimension : -1))),
      ]);
    }
    return this.op('Reshape', [x, this.shapeOf(value)]);
  }

  /** Transposes; returns x itself for the identity. */
  transpose(x: string, perm: readonly number[]): string {
    return perm.every((axis, i) => axis === i) ? x : this.op('Transpose', [x], { perm });
  }

  /** Swaps the last two axes of a value of the given rank. */
  swapLastTwo(x: string, rank: number): string {
    const perm = Array.from({ length: rank }, (_, i) => i);
    perm[rank - 2] = rank - 1;
    perm[rank - 1] = rank - 2;
    return this.transpose(x, perm);
  }

  /** Inserts axes of size 1. */
  unsqueeze(x: string, axes: readonly number[]): string {
    return this.op('Unsqueeze', [x, this.ints(axes)]);
  }

  /** Removes axes of size 1. */
  squeeze(x: string, axes: readonly number[]): string {
    return this.op('Squeeze', [x, this.ints(axes)]);
  }

  /** Broadcasts to the shape of a forward value. */
  expandLike(x: string, value: string): string {
    return this.op('Expand', [x, this.shapeOf(value)]);
  }

  /** x[starts : ends : steps] along the axes; ends and starts as in ONNX's Slice. */
  slice(
    x: string,
    axes: readonly number[],
    starts: readonly Size[],
    ends: readonly Size[],
    steps?: readonly number[],
  ): string {
    if (axes.length === 0) return x;
    const inputs = [x, this.vector(starts), this.vector(ends), this.ints(axes)];
    if (steps?.some((step) => step !== 1)) inputs.push(this.ints(steps));
    return this.op('Slice', inputs);
  }

  /**
   * Pads a gradient, or crops it for negative sizes. `begins` and `ends` cover all axes; fixed zeros add no node. The
   * value is always written out: onnxruntime's WebGPU kernel reads it even where the format makes it optional.
   */
  pad(x: string, begins: readonly Size[], ends: readonly Size[], value = 0): string {
    if ([...begins, ...ends].every((size) => size === 0)) return x;
    return this.op('Pad', [x, this.vector([...begins, ...ends]), this.scalarOf(value, this.#dtype)]);
  }

  /** x with `begins` and `ends` added along one axis of a value of rank `rank`. */
  padAxis(x: string, rank: number, axis: number, begin: Size, end: Size): string {
    const at = (size: Size): Size[] => Array.from({ length: rank }, (_, i): Size => (i === axis ? size : 0));
    return this.pad(x, at(begin), at(end));
  }

  /** Picks along an axis. */
  gather(x: string, indices: string, axis: number): string {
    return this.op('Gather', [x, indices], { axis });
  }

  /** A gradient [N, C, …] with its space as one axis: [N, C, P]. */
  planes(x: string, [batch = 1, channels = 1, ...space]: readonly number[]): string {
    const places = space.reduce((product, size) => product * size, 1);
    return space.length === 1 ? x : this.once(`planes of ${x}`, () => this.reshape(x, [batch, channels, places]));
  }

  /**
   * A value [N, C, …] as [N, P, C]: first the transposition, which cancels the one that a runtime that convolves
   * channels-last has written before it.
   */
  pixels(x: string, [batch = 1, channels = 1, ...space]: readonly number[]): string {
    const places = space.reduce((product, size) => product * size, 1);
    return this.once(`pixels of ${x}`, () => {
      const last = this.transpose(x, [0, ...space.map((_, i) => i + 2), 1]);
      return space.length === 1 ? last : this.reshape(last, [batch, places, channels]);
    });
  }

  // Reductions.

  /** Sums over axes. */
  reduceSum(x: string, axes: readonly number[], keepdims: boolean): string {
    if (axes.length === 0) return x;
    return this.op('ReduceSum', [x, this.ints(axes)], { keepdims: keepdims ? 1 : 0 });
  }

  /**
   * Sums x, as [rows, columns], over the rows: a product with ones, which on a GPU is one launch, where ReduceSum over any
   * but the last axes is a transposition first. `like` is a forward value of the same element type.
   */
  sumRows(x: string, rows: number, columns: number, like: string): string {
    return rows === 1 ? x : this.op('MatMul', [this.#ones([1, rows], like), this.reshape(x, [rows, columns])]);
  }

  /** Sums over the last axis, of the given size, which stays as 1; for {@link sumRows}' reason. */
  sumColumns(x: string, columns: number, like: string): string {
    return columns === 1 ? x : this.op('MatMul', [x, this.#ones([columns, 1], like)]);
  }

  #ones(shape: readonly [number, number], like: string): string {
    const dtype = this.dtype(like);
    const size = shape[0] * shape[1];
    return this.once(`ones ${dtype} ${shape.join()}`, () =>
      this.constant(
        floatTensor(
          dtype,
          shape,
          Array.from({ length: size }, () => 1),
        ),
        'ones',
      ),
    );
  }

  /** Means over axes. */
  reduceMean(x: string, axes: readonly number[], keepdims: boolean): string {
    return this.#reduce('ReduceMean', x, axes, keepdims);
  }

  /** Products over axes. */
  reduceProd(x: string, axes: readonly number[], keepdims: boolean): string {
    return this.#reduce('ReduceProd', x, axes, keepdims);
  }

  /** The axes of these are an input since operator set 18. */
  #reduce(opType: string, x: string, axes: readonly number[], keepdims: boolean): string {
    if (axes.length === 0) return x;
    const keep = keepdims ? 1 : 0;
    if (this.opset >= 18) return this.op(opType, [x, this.ints(axes)], { keepdims: keep });
    return this.op(opType, [x], { axes, keepdims: keep });
  }

  /**
   * Undoes broadcasting: sums `gradient` to the shape of the forward value `to`. `from` is the shape the gradient has:
   * that of a forward value, or one put together from axes of several. Where only the run can tell whether an axis of
   * `to` was stretched from 1 to r·d, the axis is split into [r, d] and summed over r, which is right in both cases.
   */
  reduceTo(gradient: string, from: string | readonly AxisOf[], to: string): string {
    const axes: readonly AxisOf[] =
      typeof from === 'string' ? this.dims(from).map((_, axis) => ({ value: from, axis })) : from;
    const target = this.dims(to);
    const lead = axes.length - target.length;
    const sure: number[] = [];
    const unsure: number[] = [];
    target.forEach((dimension, i) => {
      const { value, axis } = axes[lead + i] as AxisOf;
      const wide = this.dims(value)[axis] as Dimension;
      if (dimension === wide && dimension !== '') return;
      if (dimension === 1) sure.push(lead + i);
      else if (typeof dimension === 'string' && wide !== 1 && !(value === to && axis === i)) unsure.push(lead + i);
    });
    const leading = Array.from({ length: lead }, (_, i) => i);
    if (unsure.length === 0) {
      if (lead === 0) return this.reduceSum(gradient, sure, true);
      const summed = this.reduceSum(gradient, [...leading, ...sure], false);
      return sure.length === 0 ? summed : this.reshapeLike(summed, to);
    }
    const split: Size[] = [];
    const summed: number[] = [];
    axes.forEach(({ value, axis }, i) => {
      const size = this.size(value, axis);
      if (unsure.includes(i)) {
        const narrow = this.size(to, i - lead);
        summed.push(split.length);
        split.push(this.over(size, narrow), narrow);
      } else {
        if (i < lead || sure.includes(i)) summed.push(split.length);
        split.push(size);
      }
    });
    return this.reshapeLike(this.reduceSum(this.reshape(gradient, split), summed, false), to);
  }

  /**
   * Inserts `step` − 1 zeros between neighbours along one axis: n elements become (n − 1)·step + 1. `sizes` are x's.
   */
  spread(x: string, sizes: readonly Size[], axis: number, step: number): string {
    if (step === 1) return x;
    const columns = this.reshape(x, [...sizes.slice(0, axis + 1), 1, ...sizes.slice(axis + 1)]);
    const padded = this.padAxis(columns, sizes.length + 1, axis + 1, 0, step - 1);
    const merged = sizes.map((size, i) => (i === axis ? this.times(size, step) : size));
    return this.slice(this.reshape(padded, merged), [axis], [0], [1 - step]);
  }

  /**
   * Applies a matrix along one axis: result[…, d, …] = Σ_o matrix[d, o]·x[…, o, …]. `sizes` are x's, `size` is the
   * number of rows of the matrix.
   */
  alongAxis(x: string, sizes: readonly Size[], axis: number, matrix: string, size: Size): string {
    const rank = sizes.length;
    if (axis === rank - 1) return this.op('MatMul', [x, this.transpose(matrix, [1, 0])]);
    if (axis === rank - 2) return this.op('MatMul', [matrix, x]);
    const flat = [this.product(sizes.slice(0, axis)), sizes[axis] as Size, this.product(sizes.slice(axis + 1))];
    const mapped = this.op('MatMul', [matrix, this.reshape(x, flat)]);
    return this.reshape(
      mapped,
      sizes.map((given, i) => (i === axis ? size : given)),
    );
  }

  /** The identity matrix of a size, in the element type of the forward value `like`. */
  identity(size: Size, like: string): string {
    const zeros = this.op('ConstantOfShape', [this.vector([size, size])], {
      value: floatTensor(this.dtype(like), [1], [0]),
    });
    return this.op('EyeLike', [zeros]);
  }

  /** The int64 vector 0, 1, …, size − 1. */
  iota(size: Size): string {
    if (isFixed(size)) return this.ints(Array.from({ length: size }, (_, i) => i));
    const scalarInt = (value: number): string =>
      this.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(value)) }, 'int');
    return this.op('Range', [scalarInt(0), this.squeeze(size.value, [0]), scalarInt(1)]);
  }
}

/** A tensor of a float element type from numbers. @throws ScrimError UNSUPPORTED for other element types. */
export function floatTensor(dtype: DataType, shape: readonly number[], values: readonly number[]): Tensor {
  switch (dtype) {
    case 'float32':
      return tensor(dtype, shape, Float32Array.from(values));
    case 'float64':
      return tensor(dtype, shape, Float64Array.from(values));
    default:
      throw new ScrimError('UNSUPPORTED', `gradients are float32 or float64, the value is ${dtype}`);
  }
}

function keyOf(value: unknown): string {
  return Object.is(value, -0) ? '-0' : String(value);
}
