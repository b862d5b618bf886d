/**
 * Gradients of Softmax and LogSoftmax, which normalise along one axis.
 */
import { intAttribute } from '../../onnx/attributes.js';
import { floatTensor } from '../emitter.js';
import type { RuleContext, RuleTable } from '../rule.js';
import { isFixed } from '../size.js';

function normalisedAxis({ emit, node, x }: RuleContext): number {
  const axis = intAttribute(node, 'axis', -1);
  return axis < 0 ? axis + emit.rank(x) : axis;
}

/** Distributions up to this size are summed by a product with a matrix of ones, which leaves nothing to broadcast. */
const SMALL = 32;

/** Σ over the normalised axis, in a shape that broadcasts against x. */
function total(context: RuleContext, value: string): string {
  const { emit, x } = context;
  const axis = normalisedAxis(context);
  const size = emit.size(x, axis);
  if (axis === emit.rank(x) - 1 && isFixed(size) && size <= SMALL) {
    const ones = new Array<number>(size * size).fill(1);
    return emit.op('MatMul', [value, emit.constant(floatTensor(emit.dtype(x), [size, size], ones), 'ones')]);
  }
  return emit.reduceSum(value, [axis], true);
}

/** Rules of Softmax and LogSoftmax. */
export const SOFTMAX: RuleTable = {
  // y_i = e^(x_i)/Σ e^(x_j): dx = y(g − Σ g·y)
  Softmax: (context) => {
    const { emit, y, dy } = context;
    const weighted = emit.mul(dy, y);
    return [emit.sub(weighted, emit.mul(y, total(context, weighted)))];
  },
  // y_i = x_i − ln Σ e^(x_j): dx = g − e^y·Σ g
  LogSoftmax: (context) => {
    const { emit, y, dy } = context;
    return [emit.sub(dy, emit.mul(emit.op('Exp', [y]), total(context, dy)))];
  },
};
