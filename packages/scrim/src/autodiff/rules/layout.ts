/**
 * Gradients of operators that move or repeat elements without choosing among them: reshapes, transposes, concatenation,
 * splitting, broadcasting, and the shuffles between channels and space. The gradient moves the other way; what was
 * repeated is summed.
 */
import { intAttribute, intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';
import { areFixed, type Size } from '../size.js';
import { keepPositive, sayKept } from './activation.js';

/** dx = g in the shape of x. */
const likeInput: GradientRule = ({ emit, x, dy }) => [emit.reshapeLike(dy, x)];

/**
 * Concat: each input gets its part of g. One Split where all sizes are fixed and all parts are wanted; on a GPU what comes
 * from Relus, and goes on to their rules alone, is masked before it is cut, all at once.
 */
const concat: GradientRule = (context) => {
  const { emit, node, dy, y } = context;
  const axis = axisOf(context, intAttribute(node, 'axis', 0), y);
  const sizes = node.input.map((name) => emit.size(name, axis));
  if (areFixed(sizes) && node.input.length > 1 && node.input.every((_, i) => context.wants(i))) {
    const isMasked = (name: string, i: number): boolean =>
      emit.graph.producer(name)?.opType === 'Relu' && !context.isVariable(i);
    const rectified = emit.isGpu && node.input.every(isMasked);
    const whole = rectified ? keepPositive(emit, y, dy) : dy;
    const parts = emit.ops('Split', [whole, emit.ints(sizes)], sizes.length, { axis });
    if (rectified) for (const [i, part] of parts.entries()) sayKept(emit, context.input(i), part);
    return parts;
  }
  let offset: Size = 0;
  return sizes.map((size, i) => {
    const begin = offset;
    offset = emit.plus(offset, size);
    return context.wants(i) ? emit.slice(dy, [axis], [begin], [offset]) : undefined;
  });
};

/** Split: the parts' gradients in a row, zeros for a part that does not reach the loss. */
const split: GradientRule = (context) => {
  const { emit, node, x } = context;
  const axis = axisOf(context, intAttribute(node, 'axis', 0), x);
  const parts = node.output.map((name, i) => {
    if (name === '') throw context.unsupported('one of its outputs has no name');
    return context.gradient(i) ?? emit.zerosLike(name);
  });
  return [parts.length === 1 ? parts[0] : emit.op('Concat', parts, { axis })];
};

/** Tile: with x of d_i and y of r_i·d_i, g is split into [r_0, d_0, r_1, d_1, …] and summed over the r. */
const tile: GradientRule = ({ emit, x, y, dy }) => {
  const sizes: Size[] = [];
  const summed: number[] = [];
  emit.sizes(x).forEach((size, axis) => {
    const repeats = emit.over(emit.size(y, axis), size);
    if (repeats !== 1) {
      summed.push(sizes.length);
      sizes.push(repeats);
    }
    sizes.push(size);
  });
  return summed.length === 0 ? [dy] : [emit.reduceSum(emit.reshape(dy, sizes), summed, false)];
};

/** DepthToSpace: SpaceToDepth for the order DCR; for CRD, x is [N, C·b·b, H, W] with the channel slowest. */
const depthToSpace: GradientRule = ({ emit, node, x, dy }) => {
  const block = intAttribute(node, 'blocksize', 1);
  if (stringAttribute(node, 'mode', 'DCR') === 'DCR') return [emit.op('SpaceToDepth', [dy], { blocksize: block })];
  const [batch, depth, height, width] = emit.sizes(x) as [Size, Size, Size, Size];
  const blocks = emit.reshape(dy, [batch, emit.over(depth, block * block), height, block, width, block]);
  return [emit.reshapeLike(emit.transpose(blocks, [0, 1, 3, 5, 2, 4]), x)];
};

/** An axis counted from the front. */
function axisOf({ emit }: RuleContext, axis: number, value: string): number {
  return axis < 0 ? axis + emit.rank(value) : axis;
}

/** Rules of the operators that lay elements out anew. */
export const LAYOUT: RuleTable = {
  Reshape: likeInput,
  Flatten: likeInput,
  Squeeze: likeInput,
  Unsqueeze: likeInput,
  // The inverse permutation; without one the axes are reversed, which is its own inverse.
  Transpose: ({ emit, node, dy }) => {
    const perm = intsAttribute(node, 'perm');
    return [emit.op('Transpose', [dy], perm ? { perm: perm.map((_, i) => perm.indexOf(i)) } : {})];
  },
  Expand: ({ emit, x, y, dy }) => [emit.reduceTo(dy, y, x)],
  Tile: tile,
  Concat: concat,
  Split: split,
  DepthToSpace: depthToSpace,
  SpaceToDepth: ({ emit, node, dy }) => [
    emit.op('DepthToSpace', [dy], { blocksize: intAttribute(node, 'blocksize', 1), mode: 'DCR' }),
  ],
};
