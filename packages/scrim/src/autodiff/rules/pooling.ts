/**
 * Gradients of pools.
 *
 * AveragePool: g over the number of elements each window averaged, then summed over the windows that cover a position,
 * which is a pool again. MaxPool: one axis at a time, since the maximum of a box is the maximum of its rows' maxima; per
 * axis the first tap of a window that equals its maximum takes the window's gradient. So ties go to the first maximum in row-major order, as in PyTorch, and overlapping windows add up. Nothing here
 * scatters, so it runs where a runtime has only elementwise operators, Slice, Pad and pools.
 */
import { intAttribute, intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import { floatTensor } from '../emitter.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';
import { areFixed, isFixed, type Size } from '../size.js';
import { reach, type WindowAxis, windowAxes } from './window.js';

function kernelShape(context: RuleContext): number[] {
  const kernel = intsAttribute(context.node, 'kernel_shape');
  if (!kernel) throw context.unsupported('it has no kernel_shape');
  return kernel;
}

const averagePool: GradientRule = (context) => {
  const { emit, x, y, dy } = context;
  const axes = windowAxes(context, x, y, kernelShape(context));
  const elements = axes.reduce((product, { kernel }) => product * kernel, 1);
  const counts = windowCounts(context, axes);
  // Disjoint windows without padding: each element gets its window's share.
  if (
    axes.every((a) => a.kernel === a.stride && a.dilation === 1 && a.begin === 0 && a.end === 0) &&
    counts === undefined
  ) {
    return [spreadEvenly(context, emit.scale(dy, 1 / elements, x), axes)];
  }
  // The pool below divides by the number of elements; where windows averaged fewer, that is set right first.
  const share = counts === undefined ? dy : emit.div(emit.scale(dy, elements, x), counts);
  const attributes = {
    kernel_shape: axes.map(({ kernel }) => kernel),
    count_include_pad: 1,
  };
  if (axes.every(({ stride, dilation }) => stride === 1 && dilation === 1)) {
    const pads = [...axes.map((a) => a.kernel - 1 - a.begin), ...axes.map((a) => a.kernel - 1 - a.end)];
    return [emit.op('AveragePool', [share], { ...attributes, pads })];
  }
  const sizes = emit.sizes(y);
  let spread = share;
  axes.forEach(({ out, stride }, i) => {
    spread = emit.spread(spread, sizes, i + 2, stride);
    sizes[i + 2] = emit.plus(emit.times(emit.minus(out, 1), stride), 1);
  });
  if (axes.some(({ dilation }) => dilation !== 1))
    return [sumOfShifts(context, emit.scale(spread, 1 / elements, x), axes, sizes)];
  // All windows that touch anything; then what lies in the padding is cut off and what no window reached is added. (A
  // Pad in front of the pool would do, but onnxruntime fuses the two into a pool with more padding than it allows.)
  const pads = [...axes, ...axes].map(({ kernel }) => kernel - 1);
  const full = emit.op('AveragePool', [spread], { ...attributes, pads });
  return [
    emit.pad(
      full,
      [0, 0, ...axes.map(({ begin }) => -begin)],
      [
        0,
        0,
        ...axes.map((axis, i) => emit.plus(emit.minus(axis.size, sizes[i + 2] as Size), axis.begin + 1 - axis.kernel)),
      ],
    ),
  ];
};

/** Σ over the taps of an axis of `spread` moved by the tap's offset, one axis after the other. */
function sumOfShifts(
  { emit }: RuleContext,
  spread: string,
  axes: readonly WindowAxis[],
  sizes: readonly Size[],
): string {
  return axes.reduce((value, { size, kernel, dilation, begin }, i) => {
    const covered = sizes[i + 2] as Size;
    const terms = Array.from({ length: kernel }, (_, tap) => {
      const before = tap * dilation - begin;
      return emit.padAxis(value, sizes.length, i + 2, before, emit.minus(emit.minus(size, covered), before));
    });
    return emit.sum(terms);
  }, spread);
}

/** Repeats each element over its window; rows that no window covers get 0. */
function spreadEvenly({ emit, y }: RuleContext, share: string, axes: readonly WindowAxis[]): string {
  const [batch, channels] = emit.sizes(y) as [Size, Size];
  const column = emit.reshape(share, [batch, channels, ...axes.flatMap(({ out }) => [out, 1])]);
  const repeats = emit.vector([1, 1, ...axes.flatMap(({ kernel }) => [1, kernel])]);
  const covered = axes.map(({ out, stride }) => emit.times(out, stride));
  const repeated = emit.reshape(emit.op('Expand', [column, repeats]), [batch, channels, ...covered]);
  return emit.pad(
    repeated,
    [0, 0, ...axes.map(() => 0)],
    [0, 0, ...axes.map(({ size }, i) => emit.minus(size, covered[i] as Size))],
  );
}

/**
 * How many elements each window averaged, as [1, 1, out…]; undefined if that is the whole kernel everywhere. Windows that
 * ceil_mode lets run over the edge never count what lies beyond the padding.
 */
function windowCounts(context: RuleContext, axes: readonly WindowAxis[]): string | undefined {
  const { emit, node, x } = context;
  const withPadding = intAttribute(node, 'count_include_pad', 0) === 1;
  const ceil = intAttribute(node, 'ceil_mode', 0) === 1;
  if (!ceil && (withPadding || axes.every(({ begin, end }) => begin === 0 && end === 0))) return undefined;
  const sizes = axes.map(({ size }) => size);
  const outs = axes.map(({ out }) => out);
  if (areFixed(sizes) && areFixed(outs)) {
    const perAxis = axes.map((axis, i) => fixedCounts(axis, sizes[i] as number, outs[i] as number, withPadding));
    if (perAxis.every((counts, i) => counts.every((count) => count === axes[i]?.kernel))) return undefined;
    return perAxis
      .map((counts, i) =>
        emit.constant(
          floatTensor(emit.dtype(x), [1, 1, ...axes.map((_, j) => (i === j ? counts.length : 1))], counts),
          'counts',
        ),
      )
      .reduce((a, b) => emit.mul(a, b));
  }
  // Ones where elements count, zeros around them up to the reach of the last window; their pool counts.
  const counted = axes.map(({ size, begin, end }) => (withPadding ? emit.plus(size, begin + end) : size));
  const ones = emit.op('ConstantOfShape', [emit.vector([1, 1, ...counted])], {
    value: floatTensor(emit.dtype(x), [1], [1]),
  });
  const padded = emit.pad(
    ones,
    [0, 0, ...axes.map(({ begin }) => (withPadding ? 0 : begin))],
    [
      0,
      0,
      ...axes.map((axis, i) =>
        emit.minus(emit.minus(reach(context, axis), counted[i] as Size), withPadding ? 0 : axis.begin),
      ),
    ],
  );
  const share = emit.op('AveragePool', [padded], {
    kernel_shape: axes.map(({ kernel }) => kernel),
    strides: axes.map(({ stride }) => stride),
    ...(axes.some(({ dilation }) => dilation !== 1) ? { dilations: axes.map(({ dilation }) => dilation) } : {}),
  });
  return emit.scale(
    share,
    axes.reduce((product, { kernel }) => product * kernel, 1),
    x,
  );
}

function fixedCounts(axis: WindowAxis, size: number, out: number, withPadding: boolean): number[] {
  const [low, high] = withPadding ? [-axis.begin, size + axis.end] : [0, size];
  return Array.from({ length: out }, (_, o) => {
    let count = 0;
    for (let i = 0; i < axis.kernel; i++) {
      const position = o * axis.stride + i * axis.dilation - axis.begin;
      if (position >= low && position < high) count++;
    }
    return count;
  });
}

const maxPool: GradientRule = (context) => {
  const { emit, node, x, y, dy } = context;
  const axes = windowAxes(context, x, y, kernelShape(context));
  const explicit = stringAttribute(node, 'auto_pad', 'NOTSET') === 'NOTSET';
  const ceil = explicit && intAttribute(node, 'ceil_mode', 0) === 1;
  const touched = axes
    .map((axis, i) => ({ ...axis, position: i }))
    .filter(({ kernel, stride, begin, end }) => kernel > 1 || stride > 1 || begin > 0 || end > 0);
  // Pool the last axis first, keeping what each axis is pooled from.
  const stages: string[] = [x];
  const later = touched.slice(1).reverse();
  for (const axis of later) {
    const only = (value: number, otherwise: number): number[] =>
      axes.map((_, i) => (i === axis.position ? value : otherwise));
    stages.push(
      emit.op('MaxPool', [stages.at(-1) as string], {
        kernel_shape: only(axis.kernel, 1),
        strides: only(axis.stride, 1),
        pads: [...only(axis.begin, 0), ...only(axis.end, 0)],
        ...(axis.dilation === 1 ? {} : { dilations: only(axis.dilation, 1) }),
        ...(ceil ? { ceil_mode: 1 } : {}),
      }),
    );
  }
  // Sizes of g: all axes pooled; each pass gives one axis its size back, the first axis first.
  const sizes = emit.sizes(y);
  let gradient = dy;
  let pooled = y;
  for (const axis of touched) {
    const from = stages.pop() as string;
    gradient = maxAlong(context, axis, axis.position + 2, from, pooled, gradient, sizes, ceil);
    sizes[axis.position + 2] = axis.size;
    pooled = from;
  }
  return [gradient];
};

/**
 * One axis of a MaxPool: `from` was pooled along `axis` to `pooled`, whose gradient g has the given sizes. Tap i of a
 * window takes g if it is the first to equal the maximum; the last tap takes what is left, so that g is neither lost nor
 * doubled. What tap i took belongs at position o·stride + i·dilation − begin.
 */
function maxAlong(
  context: RuleContext,
  window: WindowAxis,
  axis: number,
  from: string,
  pooled: string,
  g: string,
  sizes: readonly Size[],
  ceil: boolean,
): string {
  const { emit, x } = context;
  const { out, kernel, stride, dilation, begin, end } = window;
  const at = (value: Size): Size[] => sizes.map((_, i): Size => (i === axis ? value : 0));
  const padded =
    kernel === 1 ? from : emit.pad(from, at(begin), at(end + (ceil ? stride - 1 : 0)), Number.NEGATIVE_INFINITY);
  const covered = emit.plus(emit.times(emit.minus(out, 1), stride), 1);
  const taken: string[] = [];
  let left = g;
  for (let i = 0; i < kernel - 1; i++) {
    const tap = emit.slice(padded, [axis], [i * dilation], [emit.plus(covered, i * dilation)], [stride]);
    const share = emit.mul(left, emit.mask(emit.op('Equal', [tap, pooled]), x));
    taken.push(share);
    left = emit.sub(left, share);
  }
  taken.push(left);
  return placeTaps(context, window, axis, taken, sizes);
}

/** Σ over taps i of value i at positions o·stride + i·dilation − begin: taps of one phase are added, phases interleaved. */
function placeTaps(
  { emit, x }: RuleContext,
  { size, out, kernel, stride, dilation, begin }: WindowAxis,
  axis: number,
  taps: readonly string[],
  sizes: readonly Size[],
): string {
  const rank = sizes.length;
  if (stride === 1) {
    return emit.sum(
      taps.map((tap, i) => {
        const before = i * dilation - begin;
        return emit.padAxis(tap, rank, axis, before, emit.minus(emit.minus(size, out), before));
      }),
    );
  }
  const last = Math.floor(((kernel - 1) * dilation) / stride);
  const long = sizes.map((given, i) => (i === axis ? emit.plus(out, last) : given));
  const column = [...long.slice(0, axis + 1), 1, ...long.slice(axis + 1)];
  const phases = Array.from({ length: stride }, (_, phase) => {
    const members = taps.flatMap((tap, i) => {
      if ((i * dilation) % stride !== phase) return [];
      const shift = Math.floor((i * dilation) / stride);
      return [emit.padAxis(tap, rank, axis, shift, last - shift)];
    });
    return members.length === 0 ? emit.zeros(column, x) : emit.reshape(emit.sum(members), column);
  });
  const interleaved = emit.reshape(
    emit.op('Concat', phases, { axis: axis + 1 }),
    long.map((given, i) => (i === axis ? emit.times(given, stride) : given)),
  );
  const made = emit.times(emit.plus(out, last), stride);
  return emit.padAxis(interleaved, rank, axis, -begin, emit.plus(emit.minus(size, made), begin));
}

/** y = mean over space: g/n everywhere. */
const globalAveragePool: GradientRule = ({ emit, x, dy }) => {
  const count = emit.product(emit.sizes(x).slice(2));
  const share = isFixed(count)
    ? emit.scale(dy, 1 / count, x)
    : emit.div(dy, emit.cast(emit.squeeze(count.value, [0]), emit.dtype(x)));
  return [emit.expandLike(share, x)];
};

/** y = max over space: g shared evenly by the elements that attain it. */
const globalMaxPool: GradientRule = ({ emit, x, y, dy }) => {
  const axes = Array.from({ length: emit.rank(x) - 2 }, (_, i) => i + 2);
  const mask = emit.mask(emit.op('Equal', [x, y]), x);
  return [emit.mul(emit.div(dy, emit.reduceSum(mask, axes, true)), mask)];
};

/** Rules of the pools. */
export const POOLING: RuleTable = {
  AveragePool: averagePool,
  MaxPool: maxPool,
  GlobalAveragePool: globalAveragePool,
  GlobalMaxPool: globalMaxPool,
};
