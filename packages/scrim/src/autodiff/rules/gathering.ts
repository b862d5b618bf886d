/**
 * Gradients of operators that pick or place elements by index: what was picked twice is summed.
 *
 * Constant indices are inverted while the graph is built, so that the gradient is Gather and Add alone. Others go
 * through Scatter with reduction = add.
 */
import { intAttribute, stringAttribute } from '../../onnx/attributes.js';
import { int64 } from '../../tensor.js';
import { floatTensor } from '../emitter.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';
import { isFixed } from '../size.js';

/** An element picked more often than this is scattered instead of gathered round by round. */
const MAX_ROUNDS = 8;

const gather: GradientRule = (context) => {
  const { emit, node, x, dy } = context;
  const rank = emit.rank(x);
  const given = intAttribute(node, 'axis', 0);
  const axis = given < 0 ? given + rank : given;
  const size = emit.size(x, axis);
  const sizes = emit.sizes(x);
  const before = sizes.slice(0, axis);
  const after = sizes.slice(axis + 1);
  const indices = context.input(1);
  const count = emit.product(emit.sizes(indices));
  const rows = emit.rank(indices) === 1 ? dy : emit.reshape(dy, [...before, count, ...after]);
  const constant = context.constantInts(1);
  if (constant && isFixed(size)) {
    const positions = constant.map((index) => (index < 0 ? index + size : index));
    const gathered = gatherInverse(context, rows, rank, axis, size, positions);
    if (gathered !== undefined) return [gathered];
  }
  const flat = emit.rank(indices) === 1 ? indices : emit.reshape(indices, [count]);
  // Rows to the front, scattered into zeros, and back.
  const perm = [axis, ...Array.from({ length: rank }, (_, i) => i).filter((i) => i !== axis)];
  const zeros = emit.op('ConstantOfShape', [emit.vector([size, ...before, ...after])], {
    value: floatTensor(emit.dtype(x), [1], [0]),
  });
  const placed = emit.op('ScatterND', [zeros, emit.reshape(flat, [count, 1]), emit.transpose(rows, perm)], {
    reduction: 'add',
  });
  return [
    emit.transpose(
      placed,
      perm.map((_, i) => perm.indexOf(i)),
    ),
  ];
};

/** Σ over rounds of Gather(g with one row of zeros, position of the r-th pick of each element, or of the zeros). */
function gatherInverse(
  { emit, x }: RuleContext,
  rows: string,
  rank: number,
  axis: number,
  size: number,
  positions: readonly number[],
): string | undefined {
  if (positions.length === 0) return emit.zerosLike(x);
  const [first] = positions as [number];
  if (positions.every((position, i) => position === first + i)) {
    return emit.padAxis(rows, rank, axis, first, size - first - positions.length);
  }
  const rounds: number[][] = [];
  const seen = new Map<number, number>();
  positions.forEach((position, i) => {
    const round = seen.get(position) ?? 0;
    seen.set(position, round + 1);
    rounds[round] ??= new Array<number>(size).fill(positions.length);
    (rounds[round] as number[])[position] = i;
  });
  if (rounds.length > MAX_ROUNDS) return undefined;
  const padded = emit.padAxis(rows, rank, axis, 0, 1);
  return emit.sum(rounds.map((round) => emit.gather(padded, emit.constant(int64(round), 'inverse'), axis)));
}

/** Zeros like the first input with g added at the indices. */
const gatherElements: GradientRule = ({ emit, node, x, dy }) => {
  const axis = intAttribute(node, 'axis', 0);
  const [, indices] = node.input as [string, string];
  return [emit.op('ScatterElements', [emit.zerosLike(x), indices, dy], { axis, reduction: 'add' })];
};

const gatherNd: GradientRule = ({ emit, node, x, dy }) => [
  emit.op('ScatterND', [emit.zerosLike(x), node.input[1] as string, dy], { reduction: 'add' }),
];

/** Placing updates into data: data's gradient is g (without what was overwritten), the updates' is g at the indices. */
function scatter(opType: 'ScatterElements' | 'ScatterND', pick: 'GatherElements' | 'GatherND'): GradientRule {
  return (context) => {
    const { emit, node, dy } = context;
    const indices = context.input(1);
    const updates = context.input(2);
    const attributes = opType === 'ScatterElements' ? { axis: intAttribute(node, 'axis', 0) } : {};
    const overwrites = stringAttribute(node, 'reduction', 'none') === 'none';
    return [
      !context.wants(0)
        ? undefined
        : overwrites
          ? emit.op(opType, [dy, indices, emit.zerosLike(updates)], attributes)
          : dy,
      undefined,
      context.wants(2) ? emit.op(pick, [dy, indices], attributes) : undefined,
    ];
  };
}

const refuseReduction = (reduction: string): string | undefined =>
  reduction === 'none' || reduction === 'add' ? undefined : `reduction ${reduction} has no gradient rule`;

/** y = on or off by index: both values collect the gradient of where they stand. */
const oneHot: GradientRule = (context) => {
  const { emit, node, y, dy } = context;
  const values = emit.constant(floatTensor(emit.dtype(y), [2], [0, 1]), 'off_on');
  const mask = emit.op('OneHot', [context.input(0), context.input(1), values], {
    axis: intAttribute(node, 'axis', -1),
  });
  const all = Array.from({ length: emit.rank(y) }, (_, i) => i);
  const on = emit.reduceSum(emit.mul(dy, mask), all, false);
  const off = emit.sub(emit.reduceSum(dy, all, false), on);
  return [undefined, undefined, emit.op('Concat', [emit.unsqueeze(off, [0]), emit.unsqueeze(on, [0])], { axis: 0 })];
};

/** Rules of Gather, GatherElements, GatherND, ScatterElements, ScatterND, TopK and OneHot. */
export const GATHERING: RuleTable = {
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: {
    gradient: gatherNd,
    refuse: (node) =>
      intAttribute(node, 'batch_dims', 0) === 0 ? undefined : 'batch_dims above 0 has no gradient rule',
  },
  ScatterElements: {
    gradient: scatter('ScatterElements', 'GatherElements'),
    refuse: (node) => refuseReduction(stringAttribute(node, 'reduction', 'none')),
  },
  ScatterND: {
    gradient: scatter('ScatterND', 'GatherND'),
    refuse: (node) => refuseReduction(stringAttribute(node, 'reduction', 'none')),
  },
  // y = the k largest of an axis: g goes back to where each came from
  TopK: (context) => {
    const { emit, node, x, dy } = context;
    if (context.output(1) === '') throw context.unsupported('its second output has no name');
    const axis = intAttribute(node, 'axis', -1);
    return [emit.op('ScatterElements', [emit.zerosLike(x), context.output(1), dy], { axis })];
  },
  OneHot: oneHot,
};
