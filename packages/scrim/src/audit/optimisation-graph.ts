/**
 * The objective of the search for a picture behind a release, as a graph: pixels -> head -> what its release would be
 * on average -> misfit, and total variation.
 *
 * The average release is exact: for X ~ N(c, σ²) and c = m·head(p) + μ, with ψ(t) = t·Φ(t) + φ(t),
 *   E[min(max(X, a), b)] = a + σ·ψ((c − a)/σ) − σ·ψ((c − b)/σ).
 * Only the clipping of the head's output is left out: it would stop gradients where a search has gone astray.
 */
import { ScrimError } from '../errors.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import type { Graph } from '../onnx/index.js';
import { float32, int64, scalar } from '../tensor.js';
import type { AttackData, PixelEncoding } from './attack.js';
import { addSampleSums } from './sample-sums.js';

/** The initializer that is searched: pixels before the sigmoid, [batch, 3, H, W]. */
export const SEARCH_UNKNOWN = 'search_unknown';
/** Inputs: the release, [batch, C, H, W], and the weight of total variation, []. */
export const SEARCH_RELEASE = 'search_release';
export const SEARCH_SMOOTHNESS = 'search_smoothness';
/** The sum over the batch, [], and the objective of each search, [batch, 1]. */
export const SEARCH_LOSS = 'search_loss';
export const SEARCH_OBJECTIVES = 'search_objectives';

/** What the objective is made of. */
export interface SearchParts {
  readonly head: Graph;
  readonly parameters: DiagonalParameters;
  readonly data: Pick<AttackData, 'shape' | 'inputShape' | 'picture'>;
  readonly settings: { readonly encoding: PixelEncoding };
}

/** Keeps the root of total variation smooth where a picture is flat. */
const FLAT = 1e-4;
/** Share of each colour in a grey value (Rec. 601). */
const LUMA = [0.299, 0.587, 0.114] as const;

/** Builds the objective for `batch` searches side by side. @throws ScrimError UNSUPPORTED unless the head has one input */
export function buildSearchGraph({ head, parameters, data, settings }: SearchParts, batch: number): Graph {
  const graph = head.clone();
  const [input = '', ...more] = graph.inputNames;
  const [cut = ''] = graph.outputNames;
  if (more.length > 0) throw new ScrimError('UNSUPPORTED', `the head has ${more.length + 1} inputs, expected one`);
  const { width, height } = data.picture;
  const [channels = 0, inputHeight = 0, inputWidth = 0] = data.inputShape;
  graph.proto.valueInfo = [];
  graph.setInputs([{ name: input, type: { dtype: 'float32', shape: [batch, ...data.inputShape] } }]);
  graph.addInput(SEARCH_RELEASE, 'float32', [batch, ...data.shape]);
  graph.addInput(SEARCH_SMOOTHNESS, 'float32', []);
  const constant = (name: string, shape: readonly number[], values: ArrayLike<number>): string =>
    graph.addInitializer(`search_${name}`, float32(shape, Float32Array.from(values)));

  const start = new Float32Array(batch * 3 * height * width);
  const unknown = graph.addInitializer(SEARCH_UNKNOWN, float32([batch, 3, height, width], start));
  const picture = graph.add('Sigmoid', [unknown]);
  let image = picture;
  if (height !== inputHeight) {
    const rows = constant('rows', [inputHeight, height], interpolation(height, inputHeight));
    image = graph.add('MatMul', [rows, image]);
  }
  if (width !== inputWidth) {
    const columns = transpose(interpolation(width, inputWidth), inputWidth, width);
    image = graph.add('MatMul', [image, constant('columns', [width, inputWidth], columns)]);
  }
  const { mixing, offset } = encodingMatrix(settings.encoding, channels);
  const encoded = graph.add(
    'Conv',
    [image, constant('mixing', [channels, 3, 1, 1], mixing), constant('offset', [channels], offset)],
    { kernel_shape: [1, 1] },
  );
  graph.replaceUses(input, encoded);

  const expected = addExpectedRelease(graph, cut, parameters, data.shape);
  const error = graph.add('Mul', [graph.add('Sub', [SEARCH_RELEASE, expected.value]), expected.precision]);
  const misfit = addSampleSums(graph, graph.add('Mul', [error, error]), [batch, ...data.shape]);
  const roughness = graph.add('Mul', [totalVariation(graph, picture, batch, width, height), SEARCH_SMOOTHNESS]);
  const objectives = graph.add('Add', [misfit, roughness], {}, { outputs: [SEARCH_OBJECTIVES] });
  graph.add('ReduceSum', [objectives], { keepdims: 0 }, { outputs: [SEARCH_LOSS] });
  return graph;
}

/** Adds E[transform(cut)] and 1/σ, 0 where nothing is sent. */
function addExpectedRelease(
  graph: Graph,
  cut: string,
  { gain, mean, sigma, clipLow, clipHigh }: DiagonalParameters,
  [channels, height, width]: AttackData['shape'],
): { value: string; precision: string } {
  const perChannel = gain.length / channels;
  const shape = perChannel === 1 ? [1, channels, 1, 1] : [1, channels, height, width];
  const constant = (name: string, value: (i: number, c: number) => number): string => {
    const values = gain.map((_, i) => value(i, Math.floor(i / perChannel)));
    return graph.addInitializer(`search_${name}`, float32(shape, values));
  };
  const sd = (i: number): number => Math.max(sigma[i] as number, 1e-6);
  const low = constant('low', (_, c) => clipLow[c] as number);
  const scale = constant('sigma', (i) => sd(i));
  const centre = graph.add('Add', [
    graph.add('Mul', [cut, constant('gain', (i) => gain[i] as number)]),
    constant('mean', (i) => mean[i] as number),
  ]);
  const precision = constant('precision', (i) => (gain[i] === 0 ? 0 : 1 / sd(i)));
  const standard = (bound: (c: number) => number, name: string): string =>
    graph.add('Mul', [
      graph.add('Sub', [centre, constant(name, (_, c) => bound(c))]),
      constant(`${name}_scale`, (i) => 1 / sd(i)),
    ]);
  const above = partialMoment(
    graph,
    standard((c) => clipLow[c] as number, 'from_low'),
  );
  const beyond = partialMoment(
    graph,
    standard((c) => clipHigh[c] as number, 'from_high'),
  );
  const inside = graph.add('Mul', [graph.add('Sub', [above, beyond]), scale]);
  return { value: graph.add('Add', [inside, low]), precision };
}

/** ψ(t) = t·Φ(t) + φ(t) = E[max(t + N(0, 1), 0)]. */
function partialMoment(graph: Graph, t: string): string {
  const number = (value: number): string => graph.addInitializer('search_number', scalar(value));
  const error = graph.add('Erf', [graph.add('Mul', [t, number(Math.SQRT1_2)])]);
  const cdf = graph.add('Mul', [graph.add('Add', [error, number(1)]), number(0.5)]);
  const exponent = graph.add('Mul', [graph.add('Mul', [t, t]), number(-0.5)]);
  const density = graph.add('Mul', [graph.add('Exp', [exponent]), number(1 / Math.sqrt(2 * Math.PI))]);
  return graph.add('Add', [graph.add('Mul', [t, cdf]), density]);
}

/** Σ over pixels and colours of √(∂x² + ∂y²), for each sample: [batch, 1]. */
function totalVariation(graph: Graph, picture: string, batch: number, width: number, height: number): string {
  const planes = graph.addInitializer('search_planes', int64([batch * 3, 1, height, width]));
  const kernel = graph.addInitializer('search_slopes', float32([2, 1, 2, 2], [-1, 1, 0, 0, -1, 0, 1, 0]));
  const slopes = graph.add('Conv', [graph.add('Reshape', [picture, planes]), kernel], { kernel_shape: [2, 2] });
  const both = graph.addInitializer('search_both', float32([1, 2, 1, 1], [1, 1]));
  const flat = graph.addInitializer('search_flat', float32([1], [FLAT]));
  const squares = graph.add('Conv', [graph.add('Mul', [slopes, slopes]), both, flat], { kernel_shape: [1, 1] });
  return addSampleSums(graph, graph.add('Sqrt', [squares]), [batch, 3, height - 1, width - 1]);
}

/** Linear interpolation from `from` to `to` pixels, pixel centres aligned: [to, from]. */
function interpolation(from: number, to: number): Float32Array {
  const matrix = new Float32Array(to * from);
  for (let i = 0; i < to; i++) {
    const at = Math.max(0, Math.min(from - 1, ((i + 0.5) * from) / to - 0.5));
    const low = Math.floor(at);
    const high = Math.min(from - 1, low + 1);
    matrix[i * from + low] = (matrix[i * from + low] as number) + 1 - (at - low);
    matrix[i * from + high] = (matrix[i * from + high] as number) + (at - low);
  }
  return matrix;
}

function transpose(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(matrix.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) result[c * rows + r] = matrix[r * columns + c] as number;
  }
  return result;
}

/** Which colours go into each channel of the input, and its value for black. */
function encodingMatrix(
  { rgb, black, white }: PixelEncoding,
  channels: number,
): { mixing: Float32Array; offset: Float32Array } {
  if (black.length !== channels || white.length !== channels || rgb.some((c) => !(c >= 0 && c < channels))) {
    throw new ScrimError('INVALID_ARGUMENT', `encoding is for ${black.length} channels, the head takes ${channels}`);
  }
  const mixing = new Float32Array(channels * 3);
  for (const [colour, channel] of rgb.entries()) {
    const share = rgb.every((c) => c === rgb[0]) ? (LUMA[colour] as number) : 1;
    mixing[channel * 3 + colour] = share * ((white[channel] as number) - (black[channel] as number));
  }
  return { mixing, offset: Float32Array.from(black) };
}
