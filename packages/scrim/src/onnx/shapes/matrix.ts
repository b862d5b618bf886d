/**
 * Shapes of products and normalisations: MatMul and its kin, Gemm, Einsum, batch/layer/instance/group normalisation,
 * recurrent layers. Follows the ONNX operator pages; MatMul follows numpy.matmul.
 */
import { intAttribute, stringAttribute } from '../attributes.js';
import { dataTypeFromCode } from '../tensor-proto.js';
import type { Dimension } from '../value-info.js';
import { type Shape, type ShapeNode, type ShapeRule, show } from './rule.js';

function product(node: ShapeNode, a: Shape | undefined, b: Shape | undefined): Shape | undefined {
  if (!a || !b) return undefined;
  if (a.length === 0 || b.length === 0) node.fail(`shapes ${show(a)} and ${show(b)}: a scalar can't be multiplied`);
  const left = a.length === 1 ? [1, ...a] : a;
  const right = b.length === 1 ? [...b, 1] : b;
  node.same(left.at(-1) ?? '', right.at(-2) ?? '', `inner sizes of ${show(a)} and ${show(b)}`);
  const batch = node.broadcast(left.slice(0, -2), right.slice(0, -2)) ?? [];
  const rows = a.length === 1 ? [] : [left.at(-2) ?? ''];
  const columns = b.length === 1 ? [] : [right.at(-1) ?? ''];
  return [...batch, ...rows, ...columns];
}

const gemm: ShapeRule = (node) => {
  const a = node.shape(0);
  const b = node.shape(1);
  for (const shape of [a, b]) if (shape && shape.length !== 2) node.fail(`input ${show(shape)} is no matrix`);
  const transA = intAttribute(node.proto, 'transA', 0) !== 0;
  const transB = intAttribute(node.proto, 'transB', 0) !== 0;
  const [m = '', k = ''] = transA ? [...(a ?? [])].reverse() : (a ?? []);
  const [l = '', n = ''] = transB ? [...(b ?? [])].reverse() : (b ?? []);
  node.same(k, l, `inner sizes of ${show(a)} and ${show(b)}`);
  const shape = [m, n];
  const bias = node.shape(2);
  if (bias) {
    const whole = node.broadcast(shape, bias);
    if (whole && whole.length > 2) node.fail(`bias ${show(bias)} has more than two dimensions`);
  }
  return [{ dtype: node.dtype(0), shape }];
};

const einsum: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const equation = stringAttribute(node.proto, 'equation', '').replace(/\s+/g, '');
  const [inputs = '', output] = equation.split('->');
  const sizes = new Map<string, Dimension>();
  const counts = new Map<string, number>();
  let ellipsis: Shape | undefined = [];
  const terms = inputs.split(',');
  for (const [i, term] of terms.entries()) {
    const shape = node.shape(i);
    const [before = '', after] = term.split('...');
    for (const letter of before + (after ?? '')) counts.set(letter, (counts.get(letter) ?? 0) + 1);
    if (!shape) {
      if (after !== undefined) ellipsis = undefined;
      continue;
    }
    const named = before.length + (after?.length ?? 0);
    if (after === undefined ? shape.length !== named : shape.length < named) {
      node.fail(`equation '${equation}' does not fit input ${i} of shape ${show(shape)}`);
    }
    const put = (letter: string, size: Dimension): void => {
      const known = sizes.get(letter);
      const merged = known === undefined ? size : node.dims.broadcast(known, size);
      sizes.set(letter, merged ?? node.fail(`'${letter}' of equation '${equation}' is ${known} and ${size}`));
    };
    [...before].forEach((letter, at) => {
      put(letter, shape[at] ?? '');
    });
    if (after === undefined) continue;
    [...after].forEach((letter, at) => {
      put(letter, shape[shape.length - after.length + at] ?? '');
    });
    ellipsis = ellipsis && node.broadcast(ellipsis, shape.slice(before.length, shape.length - after.length));
  }
  const implicit = (): string =>
    (inputs.includes('...') ? '...' : '') +
    [...counts]
      .flatMap(([letter, count]) => (count === 1 ? [letter] : []))
      .sort()
      .join('');
  const [before = '', after] = (output ?? implicit()).split('...');
  const pick = (letters: string): Dimension[] => [...letters].map((letter) => sizes.get(letter) ?? '');
  if (after === undefined) return [{ dtype, shape: pick(before) }];
  return [{ dtype, shape: ellipsis && [...pick(before), ...ellipsis, ...pick(after)] }];
};

const batchNormalization: ShapeRule = (node) => {
  const shape = node.shape(0);
  const channels = node.shape(1)?.[0] ?? '';
  if (shape && shape.length > 1) node.same(shape[1] ?? '', channels, `channels of input ${show(shape)} and scale`);
  const perChannel = { dtype: node.dtype(3), shape: node.shape(3) };
  return [{ dtype: node.dtype(0), shape }, perChannel, { dtype: node.dtype(4), shape: node.shape(4) }];
};

const layerNormalization: ShapeRule = (node) => {
  const shape = node.shape(0);
  const dtype = node.dtype(0);
  if (!shape) return [{ dtype, shape }];
  const axis = node.axis(shape.length, -1);
  node.broadcast(shape.slice(axis), node.shape(1));
  const stash = dataTypeFromCode(intAttribute(node.proto, 'stash_type', 1));
  const moments = shape.map((dimension, i) => (i < axis ? dimension : 1));
  return [
    { dtype, shape },
    { dtype: stash, shape: moments },
    { dtype: stash, shape: moments },
  ];
};

const channelNormalization: ShapeRule = (node) => {
  const shape = node.shape(0);
  if (shape && node.proto.opType === 'InstanceNormalization') {
    node.same(shape[1] ?? '', node.shape(1)?.[0] ?? '', `channels of input ${show(shape)} and scale`);
  }
  return [{ dtype: node.dtype(0), shape }];
};

/** RNN, GRU and LSTM: Y is [seq, directions, batch, hidden], or [batch, seq, directions, hidden] with layout 1. */
const recurrent: ShapeRule = (node) => {
  const dtype = node.dtype(0);
  const input = node.shape(0);
  if (input && input.length !== 3) node.fail(`input ${show(input)} has rank ${input.length}, expected 3`);
  const directions = stringAttribute(node.proto, 'direction', 'forward') === 'bidirectional' ? 2 : 1;
  const hidden = intAttribute(node.proto, 'hidden_size') ?? node.shape(2)?.[2] ?? '';
  const batchFirst = intAttribute(node.proto, 'layout', 0) === 1;
  const [sequence = '', batch = ''] = batchFirst ? [input?.[1], input?.[0]] : [input?.[0], input?.[1]];
  const y = batchFirst ? [batch, sequence, directions, hidden] : [sequence, directions, batch, hidden];
  const state = { dtype, shape: batchFirst ? [batch, directions, hidden] : [directions, batch, hidden] };
  return [{ dtype, shape: y }, state, state];
};

const det: ShapeRule = (node) => [{ dtype: node.dtype(0), shape: node.shape(0)?.slice(0, -2) }];

/** Microsoft's fused products keep MatMul's shapes apart from the transposition flags. */
const fusedMatMul: ShapeRule = (node) => {
  const flip = (shape: Shape | undefined, name: string): Shape | undefined =>
    shape && shape.length > 1 && intAttribute(node.proto, name, 0) !== 0
      ? [...shape.slice(0, -2), shape.at(-1) ?? '', shape.at(-2) ?? '']
      : shape;
  if (intAttribute(node.proto, 'transBatchA', 0) || intAttribute(node.proto, 'transBatchB', 0)) {
    return [{ dtype: node.dtype(0), shape: undefined }];
  }
  return [{ dtype: node.dtype(0), shape: product(node, flip(node.shape(0), 'transA'), flip(node.shape(1), 'transB')) }];
};

/** Rules by operator name. */
export const MATRIX: Readonly<Record<string, ShapeRule>> = {
  MatMul: (node) => [{ dtype: node.dtype(0), shape: product(node, node.shape(0), node.shape(1)) }],
  MatMulInteger: (node) => [{ dtype: 'int32', shape: product(node, node.shape(0), node.shape(1)) }],
  QLinearMatMul: (node) => [{ dtype: node.dtype(7), shape: product(node, node.shape(0), node.shape(3)) }],
  Gemm: gemm,
  Einsum: einsum,
  Det: det,
  BatchNormalization: batchNormalization,
  LayerNormalization: layerNormalization,
  RMSNormalization: channelNormalization,
  InstanceNormalization: channelNormalization,
  GroupNormalization: channelNormalization,
  RNN: recurrent,
  GRU: recurrent,
  LSTM: recurrent,
};

/** Rules of the domain com.microsoft, which optimised models use. */
export const MICROSOFT_MATRIX: Readonly<Record<string, ShapeRule>> = { FusedMatMul: fusedMatMul };
