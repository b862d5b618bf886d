/**
 * Shapes of elementwise operators: the ONNX operator pages of each, and "Broadcasting in ONNX" for those with several
 * inputs. Arithmetic on small integer tensors is carried out, since exported models compute shapes with it.
 */
import type { DataType } from '../../tensor.js';
import { intAttribute } from '../attributes.js';
import { dataTypeFromCode } from '../tensor-proto.js';
import type { Dimension } from '../value-info.js';
import type { DimensionAlgebra } from './dimension.js';
import { isStatic, MAX_VALUES, type Shape, type ShapeNode, type ShapeRule, sameAsInput, UNKNOWN } from './rule.js';

type Fold = (dims: DimensionAlgebra, a: Dimension, b: Dimension, integer: boolean) => Dimension;

/** Applies `f` where both are numbers; floats are rounded as float32 arithmetic would. */
function numeric(f: (a: number, b: number) => number): Fold {
  return (_, a, b, integer) => {
    if (typeof a !== 'number' || typeof b !== 'number') return '';
    const result = f(a, b);
    if (!integer) return Math.fround(result);
    return Number.isSafeInteger(result) ? result : '';
  };
}

/** As {@link numeric}, but with dimension arithmetic where one is symbolic and both are integers. */
function symbolic(
  f: (a: number, b: number) => number,
  g: (dims: DimensionAlgebra, a: Dimension, b: Dimension) => Dimension,
): Fold {
  const onNumbers = numeric(f);
  return (dims, a, b, integer) => {
    if (typeof a === 'number' && typeof b === 'number') return onNumbers(dims, a, b, integer);
    if ((typeof a === 'number' && !Number.isSafeInteger(a)) || (typeof b === 'number' && !Number.isSafeInteger(b)))
      return '';
    return g(dims, a, b);
  };
}

const BINARY_FOLDS: Readonly<Record<string, Fold>> = {
  Add: symbolic(
    (a, b) => a + b,
    (dims, a, b) => dims.add(a, b),
  ),
  Sub: symbolic(
    (a, b) => a - b,
    (dims, a, b) => dims.subtract(a, b),
  ),
  Mul: symbolic(
    (a, b) => a * b,
    (dims, a, b) => dims.multiply(a, b),
  ),
  Div: (dims, a, b, integer) => {
    if (b === 0) return '';
    if (typeof a === 'number' && typeof b === 'number') return integer ? Math.trunc(a / b) : Math.fround(a / b);
    if (typeof b === 'number' && Number.isSafeInteger(b) && b > 0) {
      if (integer) return dims.isNonNegative(a) ? dims.floorDivide(a, b) : '';
      return b === 1 ? a : '';
    }
    return integer && a === b ? dims.divideExactly(a, b) : '';
  },
  Mod: (dims, a, b, integer) => {
    if (b === 0 || !integer) return '';
    if (typeof a === 'number' && typeof b === 'number') return a - b * Math.floor(a / b);
    if (typeof b !== 'number' || b < 1) return '';
    return dims.subtract(a, dims.multiply(b, dims.floorDivide(a, b)));
  },
  Pow: numeric((a, b) => a ** b),
  Min: (_, a, b) => (typeof a === 'number' && typeof b === 'number' ? Math.min(a, b) : a === b ? a : ''),
  Max: (_, a, b) => (typeof a === 'number' && typeof b === 'number' ? Math.max(a, b) : a === b ? a : ''),
  Equal: (_, a, b) => (typeof a === 'number' && typeof b === 'number' ? Number(a === b) : a === b && a !== '' ? 1 : ''),
  Less: numeric((a, b) => Number(a < b)),
  LessOrEqual: numeric((a, b) => Number(a <= b)),
  Greater: numeric((a, b) => Number(a > b)),
  GreaterOrEqual: numeric((a, b) => Number(a >= b)),
  And: numeric((a, b) => Number(a !== 0 && b !== 0)),
  Or: numeric((a, b) => Number(a !== 0 || b !== 0)),
  Xor: numeric((a, b) => Number((a !== 0) !== (b !== 0))),
};

/** Operators on one number; symbolic sizes pass through those that leave an integer alone. */
const UNARY_FOLDS: Readonly<Record<string, (a: Dimension, dims: DimensionAlgebra) => Dimension>> = {
  Abs: (a, dims) => (typeof a === 'number' ? Math.abs(a) : dims.isNonNegative(a) ? a : ''),
  Neg: (a, dims) => (typeof a === 'number' ? -a : dims.subtract(0, a)),
  Floor: (a) => (typeof a === 'number' ? Math.floor(a) : a),
  Ceil: (a) => (typeof a === 'number' ? Math.ceil(a) : a),
  Round: (a) => (typeof a === 'number' ? roundHalfEven(a) : a),
  Sqrt: (a) => (typeof a === 'number' ? Math.fround(Math.sqrt(a)) : ''),
  Not: (a) => (typeof a === 'number' ? Number(a === 0) : ''),
  Sign: (a) => (typeof a === 'number' ? Math.sign(a) : ''),
  Identity: (a) => a,
};

function roundHalfEven(a: number): number {
  const floor = Math.floor(a);
  if (a - floor !== 0.5) return Math.round(a);
  return floor % 2 === 0 ? floor : floor + 1;
}

const BOOLEAN: ReadonlySet<string> = new Set([
  'Equal',
  'Less',
  'LessOrEqual',
  'Greater',
  'GreaterOrEqual',
  'And',
  'Or',
  'Xor',
  'Not',
  'IsNaN',
  'IsInf',
]);

/** True for element types that hold integers. */
export function isInteger(dtype: DataType | undefined): boolean {
  return dtype !== undefined && /^u?int/.test(dtype);
}

/** Elements of a broadcast operation over small tensors, undefined where they are not followed. */
export function broadcastValues(
  node: ShapeNode,
  shape: Shape | undefined,
  operands: readonly number[],
  combine: (elements: readonly Dimension[]) => Dimension,
): readonly Dimension[] | undefined {
  if (!shape || !isStatic(shape)) return undefined;
  const size = shape.reduce((total, dimension) => total * dimension, 1);
  if (size > MAX_VALUES) return undefined;
  const sources: { value: readonly Dimension[]; strides: number[] }[] = [];
  for (const i of operands) {
    const value = node.value(i);
    const own = node.sizes(i);
    if (!value || !own) return undefined;
    const strides = shape.map(() => 0);
    let stride = 1;
    for (let axis = own.length - 1; axis >= 0; axis--) {
      strides[axis + shape.length - own.length] = own[axis] === 1 ? 0 : stride;
      stride *= own[axis] ?? 1;
    }
    sources.push({ value, strides });
  }
  return Array.from({ length: size }, (_, flat) => {
    const offsets = sources.map(() => 0);
    let rest = flat;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const dimension = shape[axis] ?? 1;
      const index = rest % dimension;
      rest = Math.floor(rest / dimension);
      sources.forEach(({ strides }, s) => {
        offsets[s] = (offsets[s] ?? 0) + index * (strides[axis] ?? 0);
      });
    }
    return combine(sources.map(({ value }, s) => value[offsets[s] ?? 0] ?? ''));
  });
}

const unary: ShapeRule = (node) => {
  const { opType } = node.proto;
  const fold = UNARY_FOLDS[opType];
  const value = fold && node.value(0)?.map((element) => fold(element, node.dims));
  return [{ dtype: BOOLEAN.has(opType) ? 'bool' : node.dtype(0), shape: node.shape(0), value }];
};

const variadic: ShapeRule = (node) => {
  const { opType } = node.proto;
  const operands = node.inputs.map((_, i) => i);
  const shape = node.broadcast(...operands.map((i) => node.shape(i)));
  const fold = BINARY_FOLDS[opType];
  const integer = isInteger(node.dtype(0)) || node.dtype(0) === 'bool';
  const value =
    fold &&
    broadcastValues(node, shape, operands, ([first = '', ...others]) =>
      others.reduce<Dimension>((a, b) => fold(node.dims, a, b, integer), first),
    );
  // Pow's result has the type of its base; the others need equal types, so whichever is known will do.
  const dtype = operands.map((i) => node.dtype(i)).find((type) => type !== undefined);
  const own = opType === 'Pow' || opType === 'BitShift' ? node.dtype(0) : dtype;
  return [{ dtype: BOOLEAN.has(opType) ? 'bool' : own, shape, value }];
};

const where: ShapeRule = (node) => {
  const shape = node.broadcast(node.shape(0), node.shape(1), node.shape(2));
  const value = broadcastValues(node, shape, [0, 1, 2], ([condition, a = '', b = '']) =>
    typeof condition === 'number' ? (condition !== 0 ? a : b) : a === b ? a : '',
  );
  return [{ dtype: node.dtype(1) ?? node.dtype(2), shape, value }];
};

const cast: ShapeRule = (node) => {
  const like = node.proto.opType === 'CastLike';
  const dtype = like ? node.dtype(1) : dataTypeFromCode(intAttribute(node.proto, 'to', 0));
  const value =
    dtype === undefined || dtype === 'string'
      ? undefined
      : node.value(0)?.map((element): Dimension => {
          if (typeof element !== 'number') return dtype === 'bool' ? '' : element;
          if (dtype === 'bool') return Number(element !== 0);
          if (isInteger(dtype)) return Number.isFinite(element) ? Math.trunc(element) : '';
          return Math.fround(element);
        });
  return [{ dtype, shape: node.shape(0), value }];
};

const clip: ShapeRule = (node) => {
  const value = node.value(0)?.map((element): Dimension => {
    if (typeof element !== 'number') return '';
    const low = node.has(1) ? node.numbers(1)?.[0] : Number.NEGATIVE_INFINITY;
    const high = node.has(2) ? node.numbers(2)?.[0] : Number.POSITIVE_INFINITY;
    return low === undefined || high === undefined ? '' : Math.min(Math.max(element, low), high);
  });
  return [{ dtype: node.dtype(0), shape: node.shape(0), value }];
};

const dropout: ShapeRule = (node) => [
  { dtype: node.dtype(0), shape: node.shape(0) },
  { dtype: 'bool', shape: node.shape(0) },
];

const prelu: ShapeRule = (node) => {
  const shape = node.shape(0);
  const slope = node.shape(1);
  if (shape && slope) {
    const result = node.broadcast(shape, slope);
    if (result && result.length !== shape.length)
      node.fail(`slope ${slopeText(slope)} has more dimensions than the input`);
  }
  return [{ dtype: node.dtype(0), shape }];
};

function slopeText(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

function table(names: string, rule: ShapeRule): Record<string, ShapeRule> {
  return Object.fromEntries(names.split(' ').map((name) => [name, rule]));
}

/** Rules by operator name. */
export const ELEMENTWISE: Readonly<Record<string, ShapeRule>> = {
  ...table(
    'Abs Neg Floor Ceil Round Sqrt Sign Not Identity IsNaN IsInf Relu LeakyRelu Sigmoid Tanh Gelu Erf Exp Log Reciprocal ' +
      'Softplus Softsign HardSwish HardSigmoid Elu Selu Celu Mish ThresholdedRelu Shrink Sin Cos Tan Asin Acos Atan Sinh ' +
      'Cosh Asinh Acosh Atanh BitwiseNot Swish',
    unary,
  ),
  ...table('Hardmax Softmax LogSoftmax LRN LpNormalization MeanVarianceNormalization', sameAsInput),
  ...table(
    'Add Sub Mul Div Mod Pow Min Max Sum Mean Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor BitShift ' +
      'BitwiseAnd BitwiseOr BitwiseXor',
    variadic,
  ),
  StringConcat: (node) => [{ dtype: 'string', shape: node.broadcast(node.shape(0), node.shape(1)) }],
  Where: where,
  Cast: cast,
  CastLike: cast,
  Clip: clip,
  Dropout: dropout,
  PRelu: prelu,
  Bernoulli: (node) => [
    { dtype: dataTypeFromCode(intAttribute(node.proto, 'dtype', 0)) ?? node.dtype(0), shape: node.shape(0) },
  ],
  Optional: () => [UNKNOWN],
};
