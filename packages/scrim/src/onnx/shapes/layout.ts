/**
 * Shapes of operators that move, join, cut or resize without computing: Concat, Split, Slice, Pad, Reshape, Transpose,
 * Squeeze, Unsqueeze, Flatten, Expand, Tile, Resize, DepthToSpace, SpaceToDepth and kin. Follows the ONNX operator
 * pages of opset 7 to 22; values of small tensors are followed through those that exported shape arithmetic uses.
 */
import { findAttribute, floatsAttribute, intAttribute, intsAttribute, stringAttribute } from '../attributes.js';
import type { Dimension } from '../value-info.js';
import {
  type InferredType,
  isStatic,
  MAX_RANK,
  MAX_VALUES,
  type Shape,
  type ShapeNode,
  type ShapeRule,
  sameAsInput,
  shapeOfRank,
  show,
  unknownShape,
} from './rule.js';

const concat: ShapeRule = (node) => {
  const dtype = node.inputs.find((input) => input?.dtype !== undefined)?.dtype;
  const shapes = node.inputs.map((input) => input?.shape);
  const known = shapes.find((shape) => shape !== undefined);
  if (!known) return [{ dtype, shape: undefined }];
  const rank = known.length;
  const axis = node.axis(rank, 0);
  let result: Dimension[] = unknownShape(rank);
  result[axis] = 0;
  for (const shape of shapes) {
    if (shape && shape.length !== rank) node.fail(`inputs ${shapes.map(show).join(', ')} differ in rank`);
    const own = shape ?? unknownShape(rank);
    result = result.map((dimension, i): Dimension => {
      const next = own[i] ?? '';
      if (i === axis) return node.dims.add(dimension, next);
      return (
        node.dims.unify(dimension, next) ?? node.fail(`inputs ${shapes.map(show).join(', ')} differ off axis ${axis}`)
      );
    });
  }
  const values = node.inputs.map((input) => input?.value);
  const value =
    rank === 1 && values.every((each) => each !== undefined) ? values.flatMap((each) => each ?? []) : undefined;
  return [{ dtype, shape: result, value: value && value.length <= MAX_VALUES ? value : undefined }];
};

const split: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const shape = node.shape(0);
  const count = node.proto.output.length;
  if (!shape) return Array.from({ length: count }, () => ({ dtype, shape }));
  const axis = node.axis(shape.length, 0);
  const size = shape[axis] ?? '';
  const given = findAttribute(node.proto, 'split')
    ? intsAttribute(node.proto, 'split')
    : node.has(1)
      ? (node.value(1) ?? [])
      : undefined;
  if (given && given.length > 0 && given.length !== count) {
    node.fail(`split has ${given.length} sizes for ${count} outputs`);
  }
  const total = given?.every((part) => typeof part === 'number')
    ? given.reduce<number>((a, b) => a + Number(b), 0)
    : '';
  if (given && given.length > 0 && typeof total === 'number' && typeof size === 'number' && total !== size) {
    node.fail(`split [${given}] adds up to ${total}, the input has ${size} along axis ${axis}`);
  }
  const parts = intAttribute(node.proto, 'num_outputs', count);
  const value = node.value(0);
  let start = 0;
  return Array.from({ length: count }, (_, i): InferredType => {
    let part: Dimension = given ? (given[i] ?? '') : '';
    if (!given) {
      // Equal parts; with num_outputs the last may be smaller.
      if (typeof size === 'number') {
        const each = Math.ceil(size / parts);
        part = i < parts - 1 ? Math.min(each, size) : Math.max(0, size - each * (parts - 1));
        if (size % parts !== 0 && !findAttribute(node.proto, 'num_outputs')) {
          node.fail(`${size} elements along axis ${axis} do not divide into ${parts} outputs`);
        }
      } else if (node.opset < 18) part = node.dims.divideExactly(size, parts);
      else part = parts === 1 ? size : '';
    }
    const elements =
      value && shape.length === 1 && typeof part === 'number' && start >= 0
        ? value.slice(start, start + part)
        : undefined;
    start = typeof part === 'number' ? start + part : Number.NaN;
    return { dtype, shape: shape.map((dimension, d) => (d === axis ? part : dimension)), value: elements };
  });
};

/** Length of start:end:step along a dimension, as Python slices it. */
function sliceLength(node: ShapeNode, size: Dimension, start: Dimension, end: Dimension, step: Dimension): Dimension {
  const { dims } = node;
  if (step === 0) node.fail('a step is 0');
  if (typeof step !== 'number') return '';
  if (typeof size === 'number') {
    if (typeof start !== 'number' || typeof end !== 'number') return size === 0 ? 0 : '';
    const [first, last] = bounds(size, start, end, step);
    return Math.max(0, Math.ceil((last - first) / step));
  }
  const far = 2 ** 31 - 1;
  if (step < 0) {
    const wholeBackwards = start === -1 || (typeof start === 'number' && start >= far);
    return wholeBackwards && typeof end === 'number' && end <= -far ? dims.ceilDivide(size, -step) : '';
  }
  // A symbolic size is taken to reach every constant start; a constant end from the front may lie beyond it.
  // A start that counts from the end may lie before the beginning, unless it is the last element.
  if (typeof start === 'number' && start < -1) return '';
  const first = start === -1 ? dims.subtract(size, 1) : start;
  let last: Dimension;
  if (typeof end === 'number') last = end >= far ? size : end < 0 ? dims.add(size, end) : '';
  else last = end === size ? size : '';
  if (end === 0) return 0;
  if (first === '' || last === '') return '';
  return dims.ceilDivide(dims.subtract(last, first), step);
}

/** First index and the one to stop before. The largest int32 or int64 as an end means "to the end", either way round. */
function bounds(size: number, start: number, end: number, step: number): [number, number] {
  const clamp = (value: number, low: number, high: number): number =>
    Math.min(Math.max(value < 0 ? value + size : value, low), high);
  if (step > 0) return [clamp(start, 0, size), clamp(end, 0, size)];
  const toTheEnd = end === 2 ** 31 - 1 || end === 2 ** 63;
  return [clamp(start, 0, size - 1), toTheEnd ? -1 : clamp(end, -1, size - 1)];
}

/** The elements at every combination of the given positions along each axis, in row-major order. */
function elementsAt(
  value: readonly Dimension[],
  shape: readonly number[],
  positions: readonly (readonly number[])[],
): Dimension[] {
  let offsets = [0];
  shape.forEach((size, axis) => {
    offsets = offsets.flatMap((offset) => (positions[axis] ?? []).map((at) => offset * size + at));
  });
  return offsets.map((offset) => value[offset] ?? '');
}

const slice: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const shape = node.shape(0);
  if (!shape) return [{ dtype, shape }];
  const starts = node.elements('starts', 1);
  const ends = node.elements('ends', 2);
  const count = node.has(1) ? node.shape(1)?.[0] : starts?.length;
  if (typeof count === 'number' && count > shape.length) node.fail(`${count} slices of an input ${show(shape)}`);
  const listed = node.setting('axes', 3);
  const axes = listed === 'absent' ? Array.from({ length: Number(count) || 0 }, (_, i) => i) : listed;
  const steps = node.has(4) ? node.value(4) : undefined;
  if (typeof count !== 'number' || !axes) return [{ dtype, shape: unknownShape(shape.length) }];
  const result = [...shape];
  for (const [i, axis] of axes.entries()) {
    const at = node.normalize(axis, shape.length);
    const step = node.has(4) ? (steps?.[i] ?? '') : 1;
    result[at] = sliceLength(node, shape[at] ?? '', starts?.[i] ?? '', ends?.[i] ?? '', step);
  }
  const value = node.value(0);
  if (!value || !isStatic(shape)) return [{ dtype, shape: result }];
  const picked = shape.map((size) => Array.from({ length: size }, (_, at) => at));
  for (const [i, axis] of axes.entries()) {
    const [start, end, step] = [starts?.[i], ends?.[i], node.has(4) ? steps?.[i] : 1];
    if (typeof start !== 'number' || typeof end !== 'number' || typeof step !== 'number' || step === 0) {
      return [{ dtype, shape: result }];
    }
    const at = node.normalize(axis, shape.length);
    const [first, last] = bounds(shape[at] ?? 0, start, end, step);
    const kept: number[] = [];
    for (let j = first; step > 0 ? j < last : j > last; j += step) kept.push(j);
    picked[at] = kept;
  }
  const elements = elementsAt(value, shape, picked);
  return [{ dtype, shape: result, value: elements }];
};

const pad: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const shape = node.shape(0);
  if (!shape) return [{ dtype, shape }];
  const pads = node.elements('pads', 1);
  const axes = node.has(3) ? node.numbers(3) : [...shape.keys()];
  if (!pads || !axes) return [{ dtype, shape: unknownShape(shape.length) }];
  if (pads.length !== 2 * axes.length) node.fail(`pads has ${pads.length} numbers, expected ${2 * axes.length}`);
  const result = [...shape];
  for (const [i, axis] of axes.entries()) {
    const at = node.normalize(axis, shape.length);
    const both = node.dims.add(pads[i] ?? '', pads[i + axes.length] ?? '');
    const size = node.dims.add(shape[at] ?? '', both);
    if (typeof size === 'number' && size < 0) node.fail(`pads [${pads}] take more than input ${show(shape)} has`);
    result[at] = size;
  }
  return [{ dtype, shape: result }];
};

const reshape: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const input = node.shape(0);
  const target = node.value(1);
  const value = node.value(0);
  const { dims } = node;
  if (!target) {
    return [{ dtype, shape: shapeOfRank(node.shape(1)?.[0]) }];
  }
  if (node.shape(1)?.length !== 1) node.fail(`the target shape has shape ${show(node.shape(1))}, expected a vector`);
  if (target.length > MAX_RANK) return [{ dtype, shape: undefined }];
  const copies = intAttribute(node.proto, 'allowzero', 0) === 0;
  const result = target.map((size, i): Dimension => {
    if (size === 0 && copies) {
      if (input && i >= input.length) node.fail(`target ${show(target)} copies dimension ${i} of input ${show(input)}`);
      return input?.[i] ?? '';
    }
    return size;
  });
  const rest = result.indexOf(-1);
  if (rest !== result.lastIndexOf(-1)) node.fail(`target ${show(target)} has more than one -1`);
  if (result.some((size) => typeof size === 'number' && size < -1))
    node.fail(`target ${show(target)} has a negative size`);
  // Dimensions that are copied in place cancel, so that an unknown batch doesn't hide the others.
  const cancelled = new Set<number>();
  if (input && copies) {
    for (const [i, size] of target.entries()) if (size === 0) cancelled.add(i);
  }
  const from = [...(input ?? [''])].filter((_, i) => !cancelled.has(i));
  const to = result.filter((_, i) => !cancelled.has(i) && i !== rest);
  for (const size of [...to]) {
    const at = typeof size === 'string' && size !== '' ? from.indexOf(size) : -1;
    if (at >= 0) {
      from.splice(at, 1);
      to.splice(to.indexOf(size), 1);
    }
  }
  const have = dims.product(from);
  const want = dims.product(to);
  if (rest >= 0) {
    const exact = typeof have === 'number' && typeof want === 'number' && want > 0;
    if (exact && have % want !== 0) node.fail(`input ${show(input)} can't be reshaped to ${show(target)}`);
    result[rest] = have === 0 && want === 0 ? '' : dims.divideExactly(have, want);
  } else if (typeof have === 'number' && typeof want === 'number') {
    if (have !== want) node.fail(`input ${show(input)} can't be reshaped to ${show(target)}`);
  } else if (typeof have === 'number' && to.filter((size) => typeof size !== 'number').length === 1) {
    // One size is symbolic and the count decides it.
    const at = result.findIndex((size, i) => typeof size !== 'number' && !cancelled.has(i));
    const others = dims.product(to.filter((size) => typeof size === 'number'));
    if (typeof others === 'number' && others > 0 && have % others === 0) result[at] = have / others;
  }
  return [{ dtype, shape: result, value }];
};

const transpose: ShapeRule = (node) => {
  const shape = node.shape(0);
  const dtype = node.dtype(0);
  if (!shape) return [{ dtype, shape }];
  const order = intsAttribute(node.proto, 'perm') ?? [...shape.keys()].reverse();
  if (order.length !== shape.length || new Set(order).size !== order.length) {
    node.fail(`perm [${order}] is no permutation of the axes of ${show(shape)}`);
  }
  const axes = order.map((axis) => node.normalize(axis, shape.length));
  return [{ dtype, shape: axes.map((axis) => shape[axis] ?? ''), value: transposed(node.value(0), shape, axes) }];
};

function transposed(
  value: readonly Dimension[] | undefined,
  shape: Shape,
  axes: readonly number[],
): readonly Dimension[] | undefined {
  if (!value || shape.length < 2) return value;
  if (!isStatic(shape)) return undefined;
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  let offsets = [0];
  for (const axis of axes) {
    const stride = strides[axis] ?? 1;
    offsets = offsets.flatMap((offset) => Array.from({ length: shape[axis] ?? 0 }, (_, i) => offset + i * stride));
  }
  return offsets.map((offset) => value[offset] ?? '');
}

const squeeze: ShapeRule = (node) => {
  const shape = node.shape(0);
  const dtype = node.dtype(0);
  const value = node.value(0);
  if (!shape) return [{ dtype, shape }];
  const axes = node.setting('axes', 1);
  if (axes === undefined) {
    const count = node.shape(1)?.[0];
    return [{ dtype, shape: typeof count === 'number' ? shapeOfRank(shape.length - count) : undefined }];
  }
  if (axes === 'absent') {
    const decided = isStatic(shape) || shape.every((dimension) => dimension === 1);
    return [{ dtype, shape: decided ? shape.filter((dimension) => dimension !== 1) : undefined, value }];
  }
  const drop = new Set(axes.map((axis) => node.normalize(axis, shape.length)));
  for (const axis of drop) node.same(shape[axis] ?? '', 1, `squeezed axis ${axis} of ${show(shape)}`);
  return [{ dtype, shape: shape.filter((_, i) => !drop.has(i)), value }];
};

const unsqueeze: ShapeRule = (node) => {
  const shape = node.shape(0);
  const dtype = node.dtype(0);
  if (!shape) return [{ dtype, shape }];
  const axes = node.setting('axes', 1);
  if (axes === 'absent') return node.fail('axes are missing');
  if (axes === undefined) {
    const count = node.shape(1)?.[0];
    return [{ dtype, shape: typeof count === 'number' ? shapeOfRank(shape.length + count) : undefined }];
  }
  const rank = shape.length + axes.length;
  const added = new Set(axes.map((axis) => node.normalize(axis, rank)));
  if (added.size !== axes.length) node.fail(`axes [${axes}] name an axis twice`);
  const rest = shape.values();
  const result = Array.from({ length: rank }, (_, i): Dimension => (added.has(i) ? 1 : (rest.next().value ?? '')));
  return [{ dtype, shape: result, value: node.value(0) }];
};

const flatten: ShapeRule = (node) => {
  const shape = node.shape(0);
  if (!shape) return [{ dtype: node.dtype(0), shape: ['', ''] }];
  const axis = node.axis(shape.length, 1, 'axis', true);
  return [
    { dtype: node.dtype(0), shape: [node.dims.product(shape.slice(0, axis)), node.dims.product(shape.slice(axis))] },
  ];
};

const expand: ShapeRule = (node) => {
  const shape = node.shape(0);
  const target = node.value(1);
  const dtype = node.dtype(0);
  if (!shape || !target || target.length > MAX_RANK) {
    const rank = node.shape(1)?.[0];
    const known = shape && typeof rank === 'number';
    return [{ dtype, shape: known ? shapeOfRank(Math.max(rank, shape.length)) : undefined }];
  }
  const result = node.broadcast(shape, target);
  const value = node.value(0);
  const one = value?.length === 1 ? value[0] : undefined;
  const count = result && isStatic(result) ? result.reduce((a, b) => a * b, 1) : Number.POSITIVE_INFINITY;
  const filled = one !== undefined && count <= MAX_VALUES ? Array.from({ length: count }, () => one) : undefined;
  return [{ dtype, shape: result, value: filled }];
};

const tile: ShapeRule = (node) => {
  const shape = node.shape(0);
  const repeats = node.value(1);
  const dtype = node.dtype(0);
  if (!shape) return [{ dtype, shape }];
  if (repeats && repeats.length !== shape.length) node.fail(`${repeats.length} repeats for input ${show(shape)}`);
  return [{ dtype, shape: shape.map((dimension, i) => node.dims.multiply(dimension, repeats?.[i] ?? '')) }];
};

const depthToSpace: ShapeRule = (node) => {
  const shape = node.shape(0);
  const block = intAttribute(node.proto, 'blocksize') ?? node.fail('blocksize is missing');
  const dtype = node.dtype(0);
  if (!shape) return [{ dtype, shape: unknownShape(4) }];
  const [n = '', c = '', h = '', w = ''] = shape;
  if (shape.length !== 4 || block < 1) node.fail(`input ${show(shape)} with blocksize ${block}`);
  const { dims } = node;
  const exact = (size: Dimension, by: number): Dimension => {
    if (typeof size === 'number' && size % by !== 0)
      node.fail(`input ${show(shape)} does not divide by blocksize ${block}`);
    return dims.divideExactly(size, by);
  };
  return node.proto.opType === 'DepthToSpace'
    ? [{ dtype, shape: [n, exact(c, block * block), dims.multiply(h, block), dims.multiply(w, block)] }]
    : [{ dtype, shape: [n, dims.multiply(c, block * block), exact(h, block), exact(w, block)] }];
};

/** floor(size · scale) in float32, as the runtime computes it. */
function scaled(node: ShapeNode, size: Dimension, scale: Dimension): Dimension {
  if (scale === 1) return size;
  if (typeof scale !== 'number') return '';
  if (typeof size === 'number') return Math.floor(Math.fround(size * Math.fround(scale)));
  if (Number.isInteger(scale)) return node.dims.multiply(size, scale);
  const inverse = Math.round(1 / scale);
  return Math.fround(1 / inverse) === Math.fround(scale) && Number.isInteger(Math.log2(inverse))
    ? node.dims.floorDivide(size, inverse)
    : '';
}

const resize: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const shape = node.shape(0);
  if (!shape) return [{ dtype, shape }];
  const rank = shape.length;
  const axes = (intsAttribute(node.proto, 'axes') ?? [...shape.keys()]).map((axis) => node.normalize(axis, rank));
  const [scalesAt, sizesAt] = node.proto.opType === 'Upsample' || node.opset < 11 ? [1, -1] : [2, 3];
  const result = [...shape];
  const sizes = node.value(sizesAt);
  const scales = floatsAttribute(node.proto, 'scales') ?? node.value(scalesAt);
  if (node.has(sizesAt) && node.shape(sizesAt)?.[0] !== 0) {
    const policy = stringAttribute(node.proto, 'keep_aspect_ratio_policy', 'stretch');
    if (sizes && sizes.length !== axes.length) node.fail(`${sizes.length} sizes for ${axes.length} axes`);
    if (policy === 'stretch') {
      axes.forEach((axis, i) => {
        result[axis] = sizes?.[i] ?? '';
      });
      return [{ dtype, shape: result }];
    }
    const ratios = axes.map((axis, i) => Number(sizes?.[i]) / Number(shape[axis]));
    const ratio = policy === 'not_larger' ? Math.min(...ratios) : Math.max(...ratios);
    for (const axis of axes) {
      const size = shape[axis];
      result[axis] =
        Number.isFinite(ratio) && typeof size === 'number' ? Math.floor(Math.fround(ratio * size) + 0.5) : '';
    }
    return [{ dtype, shape: result }];
  }
  if (scales && scales.length !== axes.length) node.fail(`${scales.length} scales for ${axes.length} axes`);
  axes.forEach((axis, i) => {
    result[axis] = scaled(node, shape[axis] ?? '', scales?.[i] ?? '');
  });
  return [{ dtype, shape: result }];
};

const centerCropPad: ShapeRule = (node) => {
  const shape = node.shape(0);
  if (!shape) return [{ dtype: node.dtype(0), shape }];
  const axes = (intsAttribute(node.proto, 'axes') ?? [...shape.keys()]).map((axis) =>
    node.normalize(axis, shape.length),
  );
  const target = node.value(1);
  const result: Dimension[] = [...shape];
  axes.forEach((axis, i) => {
    result[axis] = target?.[i] ?? '';
  });
  return [{ dtype: node.dtype(0), shape: result }];
};

/** Rules by operator name. */
export const LAYOUT: Readonly<Record<string, ShapeRule>> = {
  Concat: concat,
  Split: split,
  Slice: slice,
  Pad: pad,
  Reshape: reshape,
  Transpose: transpose,
  Squeeze: squeeze,
  Unsqueeze: unsqueeze,
  Flatten: flatten,
  Expand: expand,
  Tile: tile,
  DepthToSpace: depthToSpace,
  SpaceToDepth: depthToSpace,
  Resize: resize,
  Upsample: resize,
  CenterCropPad: centerCropPad,
  ReverseSequence: sameAsInput,
  Trilu: sameAsInput,
};
