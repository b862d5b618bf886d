/**
 * Gradients of matrix products: dA = G·Bᵀ and dB = Aᵀ·G, with batch axes that were broadcast summed out. Transposes are
 * written as such; runtimes fold them into the product.
 */
import { float, floatAttribute, intAttribute } from '../../onnx/attributes.js';
import type { AxisOf } from '../emitter.js';
import type { GradientRule, RuleTable } from '../rule.js';

const matmul: GradientRule = (context) => {
  const { emit, node, y, dy } = context;
  const [a, b] = node.input as [string, string];
  const rankA = emit.rank(a);
  const rankB = emit.rank(b);
  if (rankA === 1 && rankB === 1) {
    return [context.wants(0) ? emit.mul(dy, b) : undefined, context.wants(1) ? emit.mul(dy, a) : undefined];
  }
  // A vector on the left is a row, one on the right a column; g gets the same axis back.
  const g = rankA === 1 ? emit.unsqueeze(dy, [rankB - 2]) : rankB === 1 ? emit.unsqueeze(dy, [rankA - 1]) : dy;
  const left = rankA === 1 ? emit.unsqueeze(a, [0]) : a;
  const right = rankB === 1 ? emit.unsqueeze(b, [1]) : b;
  const batch = axesOf(y, emit.rank(y) - (rankA === 1 || rankB === 1 ? 1 : 2));
  const inner: AxisOf = { value: a, axis: rankA - 1 };

  let gradientA: string | undefined;
  if (context.wants(0)) {
    const product = emit.op('MatMul', [g, emit.swapLastTwo(right, Math.max(rankB, 2))]);
    if (rankA === 1) gradientA = emit.reduceTo(emit.squeeze(product, [rankB - 2]), [...batch, inner], a);
    else gradientA = emit.reduceTo(product, [...batch, { value: a, axis: rankA - 2 }, inner], a);
  }
  let gradientB: string | undefined;
  if (context.wants(1)) {
    if (rankB === 2 && rankA > 2) {
      // One product over all rows instead of a batch of products and a sum.
      const rows = emit.product(emit.sizes(a).slice(0, -1));
      const flatA = emit.reshape(a, [rows, emit.size(a, -1)]);
      const flatG = emit.reshape(g, [rows, emit.size(b, 1)]);
      gradientB = emit.op('MatMul', [emit.transpose(flatA, [1, 0]), flatG]);
    } else {
      const product = emit.op('MatMul', [emit.swapLastTwo(left, Math.max(rankA, 2)), g]);
      const rows: AxisOf = { value: b, axis: Math.max(rankB - 2, 0) };
      if (rankB === 1) gradientB = emit.reduceTo(emit.squeeze(product, [rankA - 1]), [...batch, rows], b);
      else gradientB = emit.reduceTo(product, [...batch, rows, { value: b, axis: rankB - 1 }], b);
    }
  }
  return [gradientA, gradientB];
};

/** The first `count` axes of a value. */
function axesOf(value: string, count: number): AxisOf[] {
  return Array.from({ length: count }, (_, axis) => ({ value, axis }));
}

/** y = α·A'·B' + β·C, where ' transposes if asked. */
const gemm: GradientRule = (context) => {
  const { emit, node, y, dy } = context;
  const [a, b] = node.input as [string, string];
  const alpha = floatAttribute(node, 'alpha', 1);
  const beta = floatAttribute(node, 'beta', 1);
  const transA = intAttribute(node, 'transA', 0);
  const transB = intAttribute(node, 'transB', 0);
  const product = (left: string, right: string, leftT: number, rightT: number): string =>
    emit.op('Gemm', [left, right], { alpha: float(alpha), transA: leftT, transB: rightT });
  let gradientA: string | undefined;
  if (context.wants(0)) gradientA = transA ? product(b, dy, transB, 1) : product(dy, b, 0, 1 - transB);
  let gradientB: string | undefined;
  if (context.wants(1)) gradientB = transB ? product(dy, a, 1, transA) : product(a, dy, 1 - transA, 0);
  const gradientC = context.wants(2) ? emit.reduceTo(emit.scale(dy, beta, y), y, context.input(2)) : undefined;
  return [gradientA, gradientB, gradientC];
};

/** Rules of MatMul and Gemm. */
export const MATRIX: RuleTable = { MatMul: matmul, Gemm: gemm };
