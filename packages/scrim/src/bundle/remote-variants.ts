/**
 * Compact variants of the remote model: their input is the payload as it travels, and what turns it back into the
 * activation (cast, scale, μ in suppressed channels, order of channels) stands in front of the tail.
 *
 *   x = Cast(INPUT__0) [+ zero] · scale          int16 and uint8; fp16 is cast alone
 *   activation = Gather(Concat(x, 0·x₀ + μ), order)      where channels are suppressed
 *
 * What the constants tell: steps are powers of two ≤ σ/64 in the common case, so they bound σ within a factor of two;
 * the lattice of the released values shows them to anybody who sees a few. μ of a suppressed channel is the constant
 * that the fp32 form sends in every request. The coarse zeros and scales of uint8 tell the public range to 1/254 of
 * itself. Neither σ, m, μ of a sent channel nor the clip bounds themselves are part of a remote model.
 */
import { assertArgument, ScrimError } from '../errors.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import type { Graph } from '../onnx/index.js';
import { float32, int64 } from '../tensor.js';
import { createPayloadPlan, PAYLOAD_DTYPES, type PayloadFormat } from './payload-format.js';
import type { RemoteModel } from './remote-model.js';

const FLOAT = 1;

/** Name of the remote model that takes `format`: the plain one for fp32, else with the format after an underscore. */
export function remoteName(noisy: string, format: PayloadFormat): string {
  return format === 'fp32' ? noisy : `${noisy}_${format}`;
}

/**
 * Makes the variant of a remote model that takes `format`; `model` itself where that is fp32.
 * @param model the plain remote model, input float32 [N, C, H, W]
 * @throws ScrimError UNSUPPORTED if the input has another rank or type, INVALID_ARGUMENT if channels do not fit
 */
export function remoteVariant(model: RemoteModel, parameters: DiagonalParameters, format: PayloadFormat): RemoteModel {
  if (format === 'fp32') return model;
  const graph = model.graph.clone();
  const type = graph.declaredType(model.input);
  if (type?.dtype !== 'float32' || type.shape?.length !== 4) {
    throw new ScrimError('UNSUPPORTED', `the input of the remote model is not float32 [N, C, H, W]`);
  }
  const plan = createPayloadPlan(parameters);
  assertArgument(
    type.shape[1] === plan.channels || typeof type.shape[1] !== 'number',
    `the remote model takes ${type.shape[1]} channels, the bundle has ${plan.channels}`,
  );
  const activation = `${model.input}_activation`;
  graph.renameValue(model.input, activation);
  const [batch, , height, width] = type.shape;
  const others = graph.inputNames
    .filter((name) => name !== activation)
    .map((name) => ({ name, type: graph.declaredType(name) as NonNullable<typeof type> }));
  const shape = [batch ?? '', plan.sentChannels.length, height ?? '', width ?? ''];
  graph.setInputs([{ name: model.input, type: { dtype: PAYLOAD_DTYPES[format], shape } }, ...others]);

  const sent = plan.sentChannels.length;
  const suppressed = plan.suppressedChannels;
  const constant = (name: string, values: Float32Array | number[]): string =>
    graph.addInitializer(name, float32([1, values.length, 1, 1], values));
  let value = graph.add('Cast', [model.input], { to: FLOAT });
  if (format === 'uint8') value = graph.add('Add', [value, constant('zero', Float32Array.from(plan.zeros))]);
  if (format !== 'fp16') {
    value = graph.add('Mul', [value, constant('scale', format === 'uint8' ? plan.scales : plan.steps)]);
  }
  if (suppressed.length > 0) {
    // A plane of zeros of the right size without asking for the size: released values are finite.
    const first = graph.add('Gather', [value, graph.addInitializer('first', int64([0]))], { axis: 1 });
    const zeros = graph.add('Mul', [first, constant('nothing', [0])]);
    const fill = graph.add('Add', [zeros, meansOf(graph, parameters, suppressed)]);
    const joined = graph.add('Concat', [value, fill], { axis: 1 });
    const order = Array.from({ length: plan.channels }, (_, c) => {
      const at = plan.sentChannels.indexOf(c);
      return at >= 0 ? at : sent + suppressed.indexOf(c);
    });
    value = graph.add('Gather', [joined, graph.addInitializer('order', int64(order))], { axis: 1 });
  }
  graph.replaceUses(activation, value);
  return { ...model, graph };
}

/** μ of the suppressed channels: [1, K, 1, 1] or, per element, [1, K, H, W]. */
function meansOf(graph: Graph, { mean, shape }: DiagonalParameters, suppressed: readonly number[]): string {
  const [channels = 1, height = 1, width = 1] = shape;
  const plane = mean.length / channels;
  const values = new Float32Array(suppressed.length * plane);
  for (const [i, c] of suppressed.entries()) values.set(mean.subarray(c * plane, (c + 1) * plane), i * plane);
  return graph.addInitializer('fill', float32([1, suppressed.length, height, width], values));
}
