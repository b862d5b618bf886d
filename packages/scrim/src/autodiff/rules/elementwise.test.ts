/** Elementwise rules against central differences: arithmetic with broadcasting, functions of one variable, activations. */
import { describe } from 'vitest';
import {
  type GradientCase,
  gradientTests,
  type InputSpec,
  type Random,
} from '../../../../../test/vectors/autodiff/gradient-check.js';
import { type Attributes, float } from '../../onnx/attributes.js';
import { float32, int64, scalar, tensor } from '../../tensor.js';

/** Shapes of two operands that broadcast in every way: equal, ones, missing leading axes. */
function broadcastShapes(random: Random): [number[], number[]] {
  const full = Array.from({ length: random.int(1, 4) }, () => random.int(2, 3));
  const narrowed = full.map((size) => (random.next() < 0.4 ? 1 : size)).slice(random.int(0, full.length - 1));
  return random.next() < 0.5 ? [full, narrowed] : [narrowed, full];
}

function anyShape(random: Random): number[] {
  return Array.from({ length: random.int(0, 3) }, () => random.int(1, 4));
}

const binary =
  (opType: string, a: Partial<InputSpec> = {}, b: Partial<InputSpec> = {}, opset = 17) =>
  (random: Random): GradientCase => {
    const [left, right] = broadcastShapes(random);
    return {
      opset,
      inputs: { a: { shape: left, ...a }, b: { shape: right, ...b } },
      build: (graph) => graph.add(opType, ['a', 'b']),
    };
  };

const unary =
  (opType: string, spec: Partial<InputSpec> = {}, attributes: Attributes = {}, opset = 17) =>
  (random: Random): GradientCase => ({
    opset,
    inputs: { x: { shape: anyShape(random), ...spec } },
    build: (graph) => graph.add(opType, ['x'], attributes),
  });

/** Base of a Pow with a constant exponent. */
const power =
  (exponent: number, spec: Partial<InputSpec> = {}) =>
  (random: Random): GradientCase => ({
    inputs: { x: { shape: anyShape(random), ...spec } },
    build: (graph) => graph.add('Pow', ['x', graph.addInitializer('exponent', scalar(exponent))]),
  });

/** Three operands of which none comes close to another. */
const apart = (random: Random): Record<string, InputSpec> => {
  const shape = [random.int(2, 3), random.int(2, 3)];
  return {
    a: { shape, range: [0.9, 1] },
    b: { shape: shape.slice(1), range: [-2, 2], avoid: [0.9, 0.95, 1, 0.4, 0.45, 0.5] },
    c: { shape: [], range: [0.4, 0.5] },
  };
};

describe('arithmetic', () => {
  gradientTests(
    {
      Add: binary('Add'),
      Sub: binary('Sub'),
      Mul: binary('Mul'),
      Div: binary('Div', {}, { range: [1, 3] }),
      'Add, operator set 11': binary('Add', {}, {}, 11),
      'Mul, operator set 11': binary('Mul', {}, {}, 11),
      'Mul, operator set 22': binary('Mul', {}, {}, 22),
      'Pow with a variable exponent': binary('Pow', { range: [1, 2] }, { range: [-2, 2] }),
      'one value used twice': (random) => ({
        inputs: { x: { shape: anyShape(random) } },
        build: (graph) => graph.add('Mul', ['x', graph.add('Add', ['x', graph.add('Mul', ['x', 'x'])])]),
      }),
    },
    4,
  );
  gradientTests({
    'Pow 0': power(0),
    'Pow 1': power(1),
    'Pow 2': power(2),
    'Pow 3': power(3),
    'Pow 0.5': power(0.5, { range: [1, 3] }),
    'Pow −1.5': power(-1.5, { range: [1, 3] }),
    'Sum of three': (random) => ({ inputs: apart(random), build: (graph) => graph.add('Sum', ['a', 'b', 'c']) }),
    'Mean of three': (random) => ({ inputs: apart(random), build: (graph) => graph.add('Mean', ['a', 'b', 'c']) }),
    'Max of three': (random) => ({ inputs: apart(random), build: (graph) => graph.add('Max', ['a', 'b', 'c']) }),
    'Min of three': (random) => ({ inputs: apart(random), build: (graph) => graph.add('Min', ['c', 'b', 'a']) }),
    'Max of one': (random) => ({
      inputs: { x: { shape: anyShape(random) } },
      build: (graph) => graph.add('Max', ['x']),
    }),
    'Mod of floats': () => ({
      inputs: { a: { shape: [4], range: [5.2, 6.4] }, b: { shape: [], range: [2.3, 2.4] } },
      // 2·b and 3·b stay more than a step away from a, so no quotient jumps.
      build: (graph) => graph.add('Mod', ['a', 'b'], { fmod: 1 }),
    }),
    Where: (random) => {
      const [left, right] = broadcastShapes(random);
      return {
        inputs: { a: { shape: left }, b: { shape: right } },
        build: (graph, inner) => {
          const rank = Math.max(left.length, right.length);
          const last = Math.max(left.at(-1) ?? 1, right.at(-1) ?? 1);
          const bits = Uint8Array.from({ length: last }, () => inner.int(0, 1));
          const condition = tensor('bool', [...Array.from({ length: rank - 1 }, () => 1), last], bits);
          return graph.add('Where', [graph.addInitializer('condition', condition), 'a', 'b']);
        },
      };
    },
  });
});

describe('functions of one variable', () => {
  gradientTests({
    Neg: unary('Neg'),
    Abs: unary('Abs', { avoid: [0] }),
    Reciprocal: unary('Reciprocal', { range: [1, 3] }),
    Sqrt: unary('Sqrt', { range: [1, 4] }),
    Exp: unary('Exp'),
    Log: unary('Log', { range: [1, 4] }),
    Erf: unary('Erf'),
    Sin: unary('Sin'),
    Cos: unary('Cos'),
    Tan: unary('Tan', { range: [-0.7, 0.7] }),
    Asin: unary('Asin', { range: [-0.6, 0.6] }),
    Acos: unary('Acos', { range: [-0.6, 0.6] }),
    Atan: unary('Atan'),
    Sinh: unary('Sinh'),
    Cosh: unary('Cosh'),
    Identity: unary('Identity'),
    'Cast to double and back': (random) => ({
      inputs: { x: { shape: anyShape(random) } },
      build: (graph) => graph.add('Cast', [graph.add('Exp', [graph.add('Cast', ['x'], { to: 11 })])], { to: 1 }),
    }),
    'CastLike to double and back': (random) => ({
      inputs: { x: { shape: anyShape(random) } },
      build: (graph) => {
        const double = graph.addInitializer('double', tensor('float64', [], Float64Array.of(2)));
        const product = graph.add('Mul', [graph.add('CastLike', ['x', double]), double]);
        return graph.add('CastLike', [product, graph.addInitializer('single', scalar(1))]);
      },
    }),
    'Dropout at inference': unary('Dropout'),
    'Dropout with training_mode false': (random) => ({
      inputs: { x: { shape: anyShape(random) } },
      build: (graph) => {
        const mode = graph.addInitializer('mode', tensor('bool', [], Uint8Array.of(0)));
        return graph.add('Dropout', ['x', graph.addInitializer('ratio', scalar(0.5)), mode]);
      },
    }),
    CumSum: (random) => ({
      inputs: { x: { shape: [random.int(1, 3), random.int(1, 4)] } },
      build: (graph, inner) =>
        graph.add('CumSum', ['x', graph.addInitializer('axis', int64([inner.int(0, 1)], []))], {
          exclusive: inner.int(0, 1),
          reverse: inner.int(0, 1),
        }),
    }),
    Trilu: (random) => ({
      inputs: { x: { shape: [2, random.int(2, 4), random.int(2, 4)] } },
      build: (graph, inner) =>
        graph.add('Trilu', inner.int(0, 1) ? ['x'] : ['x', graph.addInitializer('k', int64([inner.int(-1, 1)], []))], {
          upper: inner.int(0, 1),
        }),
    }),
    Shrink: unary('Shrink', { avoid: [-0.5, 0.5] }, { lambd: float(0.5), bias: float(0.2) }),
    'through Floor, Round and comparisons only': (random) => ({
      inputs: { x: { shape: anyShape(random), range: [0.1, 0.4] } },
      build: (graph) => {
        const steps = graph.add('Add', [graph.add('Floor', ['x']), graph.add('Round', ['x'])]);
        return graph.add('Mul', [steps, graph.add('Cast', [graph.add('Greater', ['x', steps])], { to: 1 })]);
      },
    }),
  });
});

describe('activations', () => {
  gradientTests({
    Relu: unary('Relu', { avoid: [0] }),
    'Relu, operator set 11': unary('Relu', { avoid: [0] }, {}, 11),
    LeakyRelu: unary('LeakyRelu', { avoid: [0] }, { alpha: float(0.3) }),
    'LeakyRelu by default': unary('LeakyRelu', { avoid: [0] }),
    PRelu: (random) => ({
      inputs: {
        x: { shape: [2, 3, random.int(1, 3)], avoid: [0] },
        slope: { shape: random.pick([[3, 1], [1], [1, 1, 1]]) },
      },
      build: (graph) => graph.add('PRelu', ['x', 'slope']),
    }),
    Sigmoid: unary('Sigmoid'),
    Tanh: unary('Tanh'),
    Softplus: unary('Softplus'),
    Softsign: unary('Softsign', { avoid: [0] }),
    Elu: unary('Elu', { avoid: [0] }, { alpha: float(0.7) }),
    Selu: unary('Selu', { avoid: [0] }),
    Celu: unary('Celu', { avoid: [0] }, { alpha: float(0.6) }),
    ThresholdedRelu: unary('ThresholdedRelu', { avoid: [0.5] }, { alpha: float(0.5) }),
    HardSigmoid: unary('HardSigmoid', { avoid: [-2.5, 2.5], range: [-4, 4] }),
    'HardSigmoid with other slopes': unary('HardSigmoid', { avoid: [-1, 1] }, { alpha: float(0.5), beta: float(0.5) }),
    HardSwish: unary('HardSwish', { avoid: [-3, 3], range: [-5, 5] }),
    Mish: unary('Mish', {}, {}, 18),
    'Gelu by erf': unary('Gelu', {}, {}, 20),
    'Gelu by tanh': unary('Gelu', {}, { approximate: 'tanh' }, 20),
    SiLU: (random) => ({
      inputs: { x: { shape: anyShape(random) } },
      build: (graph) => graph.add('Mul', ['x', graph.add('Sigmoid', ['x'])]),
    }),
    'Clip to constants': (random) => ({
      inputs: { x: { shape: anyShape(random), avoid: [-1, 0.5] } },
      build: (graph) =>
        graph.add('Clip', ['x', graph.addInitializer('low', scalar(-1)), graph.addInitializer('high', scalar(0.5))]),
    }),
    'Clip from above, operator set 11': (random) => ({
      opset: 11,
      inputs: { x: { shape: anyShape(random), avoid: [0.5] } },
      build: (graph) => graph.add('Clip', ['x', '', graph.addInitializer('high', float32([], [0.5]))]),
    }),
    'Clip by its bounds': (random) => ({
      inputs: {
        x: { shape: anyShape(random), avoid: [-0.9, -1, -1.1, 0.9, 1, 1.1] },
        low: { shape: [], range: [-1.1, -0.9] },
        high: { shape: [], range: [0.9, 1.1] },
      },
      build: (graph) => graph.add('Clip', ['x', 'low', 'high']),
    }),
  });
});
