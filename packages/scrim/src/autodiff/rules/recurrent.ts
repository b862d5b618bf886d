/**
 * Gradients of LSTM, GRU and RNN: backpropagation through time, unrolled over a fixed sequence length.
 *
 * The states the forward pass leaves in Y give every gate of every step in one product, so only what truly depends on the
 * step after it is written out step by step; the gradients by inputs and weights are again one product each. Gate orders
 * and formulas are those of the ONNX operators (LSTM: i, o, f, c; GRU: z, r, h). Default activations alone.
 */
import { findAttribute, intAttribute, stringAttribute } from '../../onnx/attributes.js';
import type { NodeProto } from '../../onnx/gen/onnx_pb.js';
import type { Emitter } from '../emitter.js';
import type { GradientRule, GuardedRule, RuleContext, RuleTable } from '../rule.js';
import { isFixed, type Size } from '../size.js';

/** Steps that are written out at most. */
const MAX_STEPS = 1024;

/** One direction of one layer, with the forward values every step needs. */
interface Layer {
  readonly steps: number;
  readonly batch: Size;
  readonly hidden: number;
  /** [S, N, I]. */
  readonly x: string;
  /** [G·H, I], [G·H, H]. */
  readonly w: string;
  readonly r: string;
  /** [2·G·H], undefined where there is none. */
  readonly b: string | undefined;
  /** Positions in time in the order of the recurrence. */
  readonly times: readonly number[];
  /** Initial state, [1, N, H]. */
  readonly h0: string;
  /** The state before each step, [S, N, H]. */
  readonly before: string;
  /** Gradient that arrives at the state after each step, each [1, N, H]; undefined where none does. */
  readonly arriving: readonly (string | undefined)[];
  readonly state: (input: number) => string;
  /** Gradient of a last state (output 1 or 2) of this direction, [1, N, H]. */
  readonly last: (output: number) => string | undefined;
}

/** Gradients of one direction; `gates` and `gatesR` are those of X·Wᵀ and of H·Rᵀ, [S, N, G·H]. */
interface LayerGradients {
  readonly gates: string;
  /** What the gates' R saw and its gradient, by consecutive blocks of rows of R. */
  readonly recurrent: readonly { readonly gradient: string; readonly seen: string }[];
  /** Gradient of the recurrent bias, [S, N, G·H]. */
  readonly recurrentBias: string;
  readonly h0: string;
  readonly c0?: string;
}

function recurrent(gateCount: number, backward: (context: RuleContext, layer: Layer) => LayerGradients): GradientRule {
  return (context) => {
    const { emit, node, x } = context;
    const steps = emit.size(x, 0);
    if (!isFixed(steps))
      throw context.unsupported('its sequence length is symbolic; pass inputShapes or bind the input');
    if (steps > MAX_STEPS || steps < 1) {
      throw context.unsupported(`its sequence has ${steps} steps, gradients are written for 1 to ${MAX_STEPS}`);
    }
    const direction = stringAttribute(node, 'direction', 'forward');
    const hidden = intAttribute(node, 'hidden_size') ?? sizeIfFixed(emit, context.input(2));
    if (hidden === undefined) throw context.unsupported('its hidden size is unknown');
    const y =
      context.y !== ''
        ? context.y
        : (emit.ops(node.opType, node.input, 1, {
            hidden_size: hidden,
            direction,
            ...(node.opType === 'GRU' ? { linear_before_reset: intAttribute(node, 'linear_before_reset', 0) } : {}),
          })[0] as string);
    const count = direction === 'bidirectional' ? 2 : 1;
    const layers = Array.from({ length: count }, (_, d) => {
      const reversed = direction === 'reverse' || d === 1;
      return layerOf(context, { d, reversed, steps, hidden, y });
    });
    const results = layers.map((layer) => backward(context, layer));
    const stack = (part: (i: number) => string): string =>
      count === 1
        ? emit.unsqueeze(part(0), [0])
        : emit.op('Concat', [emit.unsqueeze(part(0), [0]), emit.unsqueeze(part(1), [0])], { axis: 0 });
    const at = <T>(list: readonly T[], i: number): T => list[i] as T;
    const weights = (i: number): string =>
      productOverSteps(emit, at(layers, i), at(results, i).gates, at(layers, i).x, emit.size(x, 2), gateCount * hidden);
    const recurrents = (i: number): string => {
      const parts = at(results, i).recurrent.map(({ gradient, seen }, part, all) => {
        const rows = all.length === 1 ? gateCount * hidden : part === 0 ? (gateCount - 1) * hidden : hidden;
        return productOverSteps(emit, at(layers, i), gradient, seen, hidden, rows);
      });
      return parts.length === 1 ? (parts[0] as string) : emit.op('Concat', parts, { axis: 0 });
    };
    const biases = (i: number): string =>
      emit.op(
        'Concat',
        [
          emit.reduceSum(at(results, i).gates, [0, 1], false),
          emit.reduceSum(at(results, i).recurrentBias, [0, 1], false),
        ],
        { axis: 0 },
      );
    const states = (pick: (result: LayerGradients) => string): string =>
      count === 1 ? pick(at(results, 0)) : emit.op('Concat', results.map(pick), { axis: 0 });
    return [
      context.wants(0)
        ? emit.sum(results.map(({ gates }, i) => emit.op('MatMul', [gates, at(layers, i).w])))
        : undefined,
      context.wants(1) ? stack(weights) : undefined,
      context.wants(2) ? stack(recurrents) : undefined,
      context.wants(3) ? stack(biases) : undefined,
      undefined,
      context.wants(5) ? states(({ h0 }) => h0) : undefined,
      context.wants(6) ? states(({ c0 }) => c0 as string) : undefined,
    ];
  };
}

function sizeIfFixed(emit: Emitter, value: string): number | undefined {
  const size = emit.dims(value).at(-1);
  return typeof size === 'number' ? size : undefined;
}

/** Σ over steps and batch of gradientᵀ · seen: [rows, columns]. */
function productOverSteps(
  emit: Emitter,
  { steps, batch }: Layer,
  gradient: string,
  seen: string,
  columns: Size,
  rows: number,
): string {
  const length = emit.times(steps, batch);
  const left = emit.transpose(emit.reshape(gradient, [length, rows]), [1, 0]);
  return emit.op('MatMul', [left, emit.reshape(seen, [length, columns])]);
}

function layerOf(
  context: RuleContext,
  { d, reversed, steps, hidden, y }: { d: number; reversed: boolean; steps: number; hidden: number; y: string },
): Layer {
  const { emit, x } = context;
  const batch = emit.size(x, 1);
  const index = emit.constant({ dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(d)) }, 'direction');
  const pick = (value: string, axis: number): string => emit.gather(value, index, axis);
  const state = (input: number): string =>
    context.input(input) === ''
      ? emit.zeros([1, batch, hidden], x)
      : emit.gather(context.input(input), emit.ints([d]), 0);
  const last = (output: number): string | undefined => {
    const gradient = context.gradient(output);
    return gradient === undefined ? undefined : emit.gather(gradient, emit.ints([d]), 0);
  };
  const h0 = state(5);
  const own = pick(y, 1);
  const before =
    steps === 1
      ? h0
      : reversed
        ? emit.op('Concat', [emit.slice(own, [0], [1], [steps]), h0], { axis: 0 })
        : emit.op('Concat', [h0, emit.slice(own, [0], [0], [steps - 1])], { axis: 0 });
  const order = Array.from({ length: steps }, (_, t) => t);
  const times = reversed ? order.reverse() : order;
  const dy = context.gradient(0);
  const ones = order.map(() => 1);
  const arriving: (string | undefined)[] =
    dy === undefined ? order.map(() => undefined) : [...split(emit, pick(dy, 1), 0, ones)];
  const final = times.at(-1) as number;
  const dLast = last(1);
  if (dLast !== undefined) arriving[final] = plus(emit, arriving[final], dLast);
  return {
    steps,
    batch,
    hidden,
    x,
    w: pick(context.input(1), 0),
    r: pick(context.input(2), 0),
    b: context.input(3) === '' ? undefined : pick(context.input(3), 0),
    times,
    h0,
    before,
    arriving,
    state,
    last,
  };
}

/** Parts of the given sizes along an axis. */
function split(emit: Emitter, value: string, axis: number, sizes: readonly number[]): string[] {
  if (sizes.length === 1) return [value];
  return emit.ops('Split', [value, emit.ints(sizes)], sizes.length, { axis });
}

function plus(emit: Emitter, a: string | undefined, b: string | undefined): string | undefined {
  if (a === undefined) return b;
  return b === undefined ? a : emit.add(a, b);
}

/** v·(1 − v). */
function bell(emit: Emitter, v: string, like: string): string {
  return emit.mul(v, emit.sub(emit.scalar(1, like), v));
}

/** 1 − v². */
function flat(emit: Emitter, v: string, like: string): string {
  return emit.sub(emit.scalar(1, like), emit.mul(v, v));
}

/** X·Wᵀ + H·Rᵀ + the biases, [S, N, G·H]. */
function preactivations(emit: Emitter, { x, w, r, b, before, hidden }: Layer, gates: number): string {
  const sum = emit.add(
    emit.op('MatMul', [x, emit.transpose(w, [1, 0])]),
    emit.op('MatMul', [before, emit.transpose(r, [1, 0])]),
  );
  if (b === undefined) return sum;
  const [input, state] = split(emit, b, 0, [gates * hidden, gates * hidden]) as [string, string];
  return emit.add(sum, emit.add(input, state));
}

/** Values of steps in the order of time, joined. */
function join(emit: Emitter, steps: readonly string[]): string {
  return steps.length === 1 ? (steps[0] as string) : emit.op('Concat', steps, { axis: 0 });
}

/**
 * c_t = f·c_{t−1} + i·c̃, h_t = o·tanh c_t. With dh and dc what arrives at both:
 *   dc += dh·o·(1 − tanh² c);  di = dc·c̃·i(1 − i);  do = dh·tanh c·o(1 − o);  df = dc·c_{t−1}·f(1 − f);
 *   dc̃ = dc·i·(1 − c̃²);  dc_{t−1} = dc·f;  dh_{t−1} = [di, do, df, dc̃]·R
 */
function lstm({ emit, x }: RuleContext, layer: Layer): LayerGradients {
  const { hidden, times, steps } = layer;
  const ones = times.map(() => 1);
  const blocks = split(emit, preactivations(emit, layer, 4), 2, [hidden, hidden, hidden, hidden]);
  const [i, o, f] = blocks.slice(0, 3).map((gate) => emit.op('Sigmoid', [gate])) as [string, string, string];
  const candidate = emit.op('Tanh', [blocks[3] as string]);
  const c0 = layer.state(6);
  const kept = split(emit, f, 0, ones);
  const written = split(emit, emit.mul(i, candidate), 0, ones);
  const cells: string[] = new Array(steps);
  const cellsBefore: string[] = new Array(steps);
  let cell = c0;
  for (const t of times) {
    cellsBefore[t] = cell;
    cell = emit.add(emit.mul(kept[t] as string, cell), written[t] as string);
    cells[t] = cell;
  }
  const squashed = emit.op('Tanh', [join(emit, cells)]);
  const toCell = split(emit, emit.mul(o, flat(emit, squashed, x)), 0, ones);
  const factors = emit.op(
    'Concat',
    [
      emit.mul(candidate, bell(emit, i, x)),
      emit.mul(squashed, bell(emit, o, x)),
      emit.mul(join(emit, cellsBefore), bell(emit, f, x)),
      emit.mul(i, flat(emit, candidate, x)),
    ],
    { axis: 2 },
  );
  const factor = split(emit, factors, 0, ones);
  const gates: string[] = new Array(steps);
  let dh: string | undefined;
  let dc = layer.last(2);
  for (const t of [...times].reverse()) {
    const h = plus(emit, layer.arriving[t], dh);
    const fromState = h === undefined ? undefined : emit.mul(h, toCell[t] as string);
    const c = plus(emit, dc, fromState) ?? emit.zeros([1, layer.batch, hidden], x);
    const state = h ?? emit.zeros([1, layer.batch, hidden], x);
    const gate = emit.mul(emit.op('Concat', [c, state, c, c], { axis: 2 }), factor[t] as string);
    gates[t] = gate;
    dh = emit.op('MatMul', [gate, layer.r]);
    dc = emit.mul(c, kept[t] as string);
  }
  const all = join(emit, gates);
  return {
    gates: all,
    recurrent: [{ gradient: all, seen: layer.before }],
    recurrentBias: all,
    h0: dh as string,
    c0: dc as string,
  };
}

/**
 * z, r = σ(…), n = tanh(…), h_t = (1 − z)·n + z·h_{t−1}. Without linear_before_reset n sees (r·h)·Rₙᵀ, with it
 * r·(h·Rₙᵀ + bₙ). With dh what arrives: dn = dh·(1 − z)·(1 − n²);  dz = dh·(h_{t−1} − n)·z(1 − z).
 */
function gru({ emit, node, x }: RuleContext, layer: Layer): LayerGradients {
  const { hidden, times, steps, before, w, r, b } = layer;
  const ones = times.map(() => 1);
  const linear = intAttribute(node, 'linear_before_reset', 0) !== 0;
  const inputs = emit.op('MatMul', [x, emit.transpose(w, [1, 0])]);
  const [rGates, rNew] = split(emit, r, 0, [2 * hidden, hidden]) as [string, string];
  const [bw, br] = b === undefined ? [undefined, undefined] : split(emit, b, 0, [3 * hidden, 3 * hidden]);
  const [xGates, xNew] = split(emit, bw === undefined ? inputs : emit.add(inputs, bw), 2, [2 * hidden, hidden]) as [
    string,
    string,
  ];
  const [bGates, bNew] = br === undefined ? [undefined, undefined] : split(emit, br, 0, [2 * hidden, hidden]);
  const biased = (value: string, bias: string | undefined): string =>
    bias === undefined ? value : emit.add(value, bias);
  const opened = emit.op('Sigmoid', [
    biased(emit.add(xGates, emit.op('MatMul', [before, emit.transpose(rGates, [1, 0])])), bGates),
  ]);
  const [z, reset] = split(emit, opened, 2, [hidden, hidden]) as [string, string];
  const seen = linear ? before : emit.mul(reset, before);
  const projected = biased(emit.op('MatMul', [seen, emit.transpose(rNew, [1, 0])]), bNew);
  const fresh = emit.op('Tanh', [emit.add(xNew, linear ? emit.mul(reset, projected) : projected)]);
  const toNew = split(emit, emit.mul(emit.sub(emit.scalar(1, x), z), flat(emit, fresh, x)), 0, ones);
  const toZ = split(emit, emit.mul(emit.sub(before, fresh), bell(emit, z, x)), 0, ones);
  const toReset = split(emit, emit.mul(linear ? projected : before, bell(emit, reset, x)), 0, ones);
  const zs = split(emit, z, 0, ones);
  const resets = split(emit, reset, 0, ones);
  const gates: string[] = new Array(steps);
  const news: string[] = new Array(steps);
  const projections: string[] = new Array(steps);
  let dh: string | undefined;
  for (const t of [...times].reverse()) {
    const h = plus(emit, layer.arriving[t], dh) ?? emit.zeros([1, layer.batch, hidden], x);
    const dn = emit.mul(h, toNew[t] as string);
    const dz = emit.mul(h, toZ[t] as string);
    const through = linear ? emit.mul(dn, resets[t] as string) : emit.op('MatMul', [dn, rNew]);
    const dr = emit.mul(linear ? dn : through, toReset[t] as string);
    const both = emit.op('Concat', [dz, dr], { axis: 2 });
    gates[t] = both;
    news[t] = dn;
    projections[t] = linear ? through : dn;
    const back = linear ? emit.op('MatMul', [through, rNew]) : emit.mul(through, resets[t] as string);
    dh = emit.sum([emit.mul(h, zs[t] as string), back, emit.op('MatMul', [both, rGates])]);
  }
  const gate = join(emit, gates);
  const projection = join(emit, projections);
  return {
    gates: emit.op('Concat', [gate, join(emit, news)], { axis: 2 }),
    recurrent: [
      { gradient: gate, seen: before },
      { gradient: projection, seen },
    ],
    recurrentBias: emit.op('Concat', [gate, projection], { axis: 2 }),
    h0: dh as string,
  };
}

/** h_t = tanh(X·Wᵀ + h_{t−1}·Rᵀ + b): the gradient of the sum is dh·(1 − h²). */
function simple({ emit, x }: RuleContext, layer: Layer): LayerGradients {
  const { times, steps } = layer;
  const after = emit.op('Tanh', [preactivations(emit, layer, 1)]);
  const slopes = split(
    emit,
    flat(emit, after, x),
    0,
    times.map(() => 1),
  );
  const gates: string[] = new Array(steps);
  let dh: string | undefined;
  for (const t of [...times].reverse()) {
    const h = plus(emit, layer.arriving[t], dh) ?? emit.zeros([1, layer.batch, layer.hidden], x);
    const gate = emit.mul(h, slopes[t] as string);
    gates[t] = gate;
    dh = emit.op('MatMul', [gate, layer.r]);
  }
  const all = join(emit, gates);
  return { gates: all, recurrent: [{ gradient: all, seen: layer.before }], recurrentBias: all, h0: dh as string };
}

/** Forms of the operators that the rules do not cover. */
function refuse(node: NodeProto): string | undefined {
  if (intAttribute(node, 'layout', 0) !== 0) return 'layout 1 (batch first) has no gradient rule';
  if (findAttribute(node, 'clip')) return 'a clip has no gradient rule';
  if (intAttribute(node, 'input_forget', 0) !== 0) return 'coupled gates have no gradient rule';
  if ((node.input[4] ?? '') !== '') return 'sequences of different lengths have no gradient rule';
  if ((node.input[7] ?? '') !== '') return 'peepholes have no gradient rule';
  const expected = { LSTM: ['sigmoid', 'tanh', 'tanh'], GRU: ['sigmoid', 'tanh'], RNN: ['tanh'] }[node.opType] ?? [];
  const found = findAttribute(node, 'activations')?.strings.map((name) => new TextDecoder().decode(name).toLowerCase());
  if (found?.some((name, i) => name !== expected[i % expected.length])) {
    return `activations other than the default have no gradient rule (${found.join(', ')})`;
  }
  return undefined;
}

const guarded = (gradient: GradientRule): GuardedRule => ({ gradient, refuse });

/** Rules of the recurrent operators. */
export const RECURRENT: RuleTable = {
  LSTM: guarded(recurrent(4, lstm)),
  GRU: guarded(recurrent(3, gru)),
  RNN: guarded(recurrent(1, simple)),
};
