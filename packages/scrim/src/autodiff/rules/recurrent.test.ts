/** Recurrent rules against central differences. */
import { describe, expect, it } from 'vitest';
import { type GradientCase, gradientTests, type Random } from '../../../../../test/vectors/autodiff/gradient-check.js';
import type { Attributes } from '../../onnx/attributes.js';
import { Graph } from '../../onnx/graph.js';
import { differentiability } from '../gradients.js';

const GATES = { LSTM: 4, GRU: 3, RNN: 1 } as const;

interface Form {
  readonly direction?: 'forward' | 'reverse' | 'bidirectional';
  readonly attributes?: Attributes;
  /** Which outputs make the answer. */
  readonly outputs?: readonly number[];
  readonly bias?: boolean;
  readonly states?: boolean;
  readonly opset?: number;
  readonly steps?: number;
}

/** x is [N, S, I], so that a symbolic first axis is the batch. */
const layer =
  (opType: keyof typeof GATES, form: Form = {}) =>
  (random: Random): GradientCase => {
    const { direction = 'forward', attributes = {}, outputs = [0], bias = true, states = true, opset = 17 } = form;
    const [batch, steps, inputs, hidden] = [2, form.steps ?? random.int(2, 4), 3, 2];
    const directions = direction === 'bidirectional' ? 2 : 1;
    const gates = GATES[opType];
    const weight = (shape: number[]): GradientCase['inputs'][string] => ({ shape, range: [-1, 1], keepShape: true });
    return {
      opset,
      modes: ['fixed', 'initializers'],
      inputs: {
        x: { shape: [batch, steps, inputs], range: [-1, 1], keepShape: true },
        w: weight([directions, gates * hidden, inputs]),
        r: weight([directions, gates * hidden, hidden]),
        ...(bias ? { b: weight([directions, 2 * gates * hidden]) } : {}),
        ...(states ? { h: weight([directions, batch, hidden]) } : {}),
        ...(states && opType === 'LSTM' ? { c: weight([directions, batch, hidden]) } : {}),
      },
      build: (graph) => {
        const moved = graph.add('Transpose', ['x'], { perm: [1, 0, 2] });
        const names = [moved, 'w', 'r', bias ? 'b' : '', '', states ? 'h' : ''];
        if (states && opType === 'LSTM') names.push('c');
        const made = graph.addMany(
          opType,
          names,
          { hidden_size: hidden, direction, ...attributes },
          { outputs: opType === 'LSTM' ? 3 : 2 },
        );
        const flat = outputs.map((i) => graph.add('Flatten', [made[i] as string], { axis: 0 }));
        return flat.length === 1 ? (flat[0] as string) : graph.add('Concat', flat, { axis: 1 });
      },
    };
  };

describe('recurrent layers', () => {
  gradientTests({
    LSTM: layer('LSTM'),
    'LSTM, all outputs': layer('LSTM', { outputs: [0, 1, 2] }),
    'LSTM, last cell alone': layer('LSTM', { outputs: [2] }),
    'LSTM, last state alone': layer('LSTM', { outputs: [1], states: false, bias: false }),
    'LSTM, reverse': layer('LSTM', { direction: 'reverse', outputs: [0, 1, 2] }),
    'LSTM, bidirectional': layer('LSTM', { direction: 'bidirectional', outputs: [0, 1, 2] }),
    'LSTM, one step': layer('LSTM', { steps: 1, outputs: [0, 2] }),
    'LSTM, operator set 11': layer('LSTM', { opset: 11 }),
    'LSTM, operator set 22': layer('LSTM', { opset: 22, direction: 'bidirectional' }),
    GRU: layer('GRU'),
    'GRU, both outputs': layer('GRU', { outputs: [0, 1] }),
    'GRU, no bias, no state': layer('GRU', { bias: false, states: false }),
    'GRU, linear before reset': layer('GRU', { attributes: { linear_before_reset: 1 }, outputs: [0, 1] }),
    'GRU, bidirectional': layer('GRU', { direction: 'bidirectional', attributes: { linear_before_reset: 1 } }),
    'GRU, reverse': layer('GRU', { direction: 'reverse' }),
    'GRU, operator set 11': layer('GRU', { opset: 11 }),
    RNN: layer('RNN', { outputs: [0, 1] }),
    'RNN, reverse': layer('RNN', { direction: 'reverse' }),
    'RNN, bidirectional, no bias': layer('RNN', { direction: 'bidirectional', bias: false, states: false }),
  });

  gradientTests({
    'LSTM whose Y is left out, with a symbolic batch': (random) => {
      const weight = (shape: number[]): GradientCase['inputs'][string] => ({ shape, range: [-1, 1], keepShape: true });
      return {
        modes: ['fixed', 'batch', 'initializers'],
        inputs: { x: { shape: [random.int(1, 3), 3, 2], range: [-1, 1] }, w: weight([1, 8, 2]), r: weight([1, 8, 2]) },
        wrt: ['x'],
        build: (graph) => {
          const moved = graph.add('Transpose', ['x'], { perm: [1, 0, 2] });
          const [, state] = graph.addMany('LSTM', [moved, 'w', 'r'], { hidden_size: 2 }, { outputs: ['', 'state'] });
          return state as string;
        },
      };
    },
  });

  it('says which forms have no gradient', () => {
    const reasonOf = (attributes: Attributes): string | undefined => {
      const graph = Graph.create();
      for (const name of ['x', 'w', 'r']) graph.addInput(name, 'float32', ['a', 'b', 'c']);
      graph.add('LSTM', ['x', 'w', 'r'], { hidden_size: 2, ...attributes });
      return differentiability(graph)[0]?.reason;
    };
    expect(reasonOf({})).toBeUndefined();
    expect(reasonOf({ activations: ['Sigmoid', 'Tanh', 'Tanh'] })).toBeUndefined();
    expect(reasonOf({ activations: ['Sigmoid', 'Relu', 'Tanh'] })).toMatch(/activations/);
    expect(reasonOf({ layout: 1 })).toMatch(/layout/);
    expect(reasonOf({ input_forget: 1 })).toMatch(/coupled/);
  });
});
