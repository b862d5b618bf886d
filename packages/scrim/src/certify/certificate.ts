/**
 * The certificate of a bundle: what releases tell at most, whatever an attacker does, with the assumptions beside every
 * number.
 *
 * Three kinds of bounds, each after one release and after n: mutual information (signal-variance.ts and
 * reference-limit.ts, whichever is lower), odds of a guess that follow from it, and the least error of a
 * reconstruction (Fisher information). A figure estimated from samples is `measured`; one that holds under stated
 * assumptions is `proven`. None is a differential-privacy ε.
 */
import { type Bundle, HEAD_PATH } from '../bundle/bundle.js';
import type { Engine } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import { BOTTLENECK_BOUND } from '../noise/fit/bottleneck-model.js';
import { createFitRandom, type FitRandom } from '../noise/fit/fit-random.js';
import { Graph } from '../onnx/graph.js';
import { expectType, float32, type Tensor } from '../tensor.js';
import {
  type CertifiedFigure,
  type CertifiedOdds,
  type CertifiedReconstruction,
  type InputUnit,
  informationFigures,
  oddsFigures,
  type ReconstructionSamples,
  reconstructionFigures,
} from './certificate-figures.js';
import { createFisherProbe, type FisherProbe } from './fisher-probe.js';
import { type InputRegion, regionIndices } from './input-region.js';
import { createReferenceLimit, type ReferenceLimit } from './reference-limit.js';
import { createReleasedSignal } from './released-signal.js';
import { createSignalStatistics } from './signal-variance.js';

/** What {@link certifyBundle} needs. */
export interface CertifyOptions {
  /** Complete: it has its head. */
  readonly bundle: Bundle;
  readonly engine: Engine;
  /** Inputs of the model, float32 with batch dimension 1, of one shape, in random order. */
  readonly inputs: AsyncIterable<Tensor>;
  /** How many inputs there will be, at least 6. */
  readonly count: number;
  /** What the inputs are, for people: a folder's name, not its path. */
  readonly data: string;
  /** Fresh releases of the same input that an attacker may have. */
  readonly releases: number;
  /** Probability with which each figure holds that rests on samples. Default 0.95. */
  readonly confidence?: number;
  /** Probabilities of a right guess without the release. Default 1/2 and 1/1000. */
  readonly priors?: readonly number[];
  /** Part of the input, for inputs [1, C, H, W]. */
  readonly region?: InputRegion;
  /** Standard deviation s, in units, of the independent noise that inputs are taken to have. Default 8. */
  readonly smoothing?: number;
  /** Default: the input's own. */
  readonly unit?: InputUnit;
  /** Inputs that are probed for Fisher information. Default 24, at most `count`; 0 leaves reconstruction out. */
  readonly probeInputs?: number;
  /** Probes of each. Default 2. */
  readonly probes?: number;
  /** Seed of the probes (not of any key). */
  readonly seed?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (inputsDone: number) => void;
}

/** What holds for a bundle. */
export interface Certificate {
  readonly format: 'scrim-certificate';
  readonly bundle: string;
  readonly model: string;
  readonly alpha: number;
  readonly data: string;
  readonly inputs: number;
  readonly inputShape: readonly number[];
  /** Shape of what is released. */
  readonly releaseShape: readonly number[];
  readonly confidence: number;
  readonly releases: number;
  readonly information: readonly CertifiedFigure[];
  readonly odds: readonly CertifiedOdds[];
  readonly reconstruction: readonly CertifiedReconstruction[];
}

/** Fewest inputs a certificate may rest on. */
const MIN_INPUTS = 6;

/**
 * Runs the head over the inputs and derives the bounds.
 * @throws ScrimError INVALID_ARGUMENT for settings out of range or inputs of several shapes; INVALID_BUNDLE for a
 * bundle without head; UNSUPPORTED if an operator of the head has no gradient rule; CANCELLED if the signal fires
 */
export async function certifyBundle(options: CertifyOptions): Promise<Certificate> {
  const { bundle, engine, count, data, releases, confidence = 0.95, priors = [0.5, 0.001] } = options;
  const { smoothing = 8, unit = { name: 'input units', perInput: 1 }, probes = 2, seed = 'certify' } = options;
  const probeInputs = Math.min(options.probeInputs ?? 24, count);
  assertArgument(Number.isSafeInteger(releases) && releases >= 1, `releases is ${releases}, expected an integer ≥ 1`);
  assertArgument(confidence > 0.5 && confidence < 1, `confidence is ${confidence}, expected more than 0.5, below 1`);
  assertArgument(
    Number.isSafeInteger(count) && count >= MIN_INPUTS,
    `there are ${count} inputs, expected ≥ ${MIN_INPUTS}`,
  );
  assertArgument(smoothing > 0 && unit.perInput > 0, 'smoothing and unit.perInput must be above 0');
  assertArgument(probeInputs === 0 || (probeInputs >= 2 && probes >= 1), 'expected at least 2 probed inputs, 1 probe');
  const { manifest, parameters } = bundle;
  if (!bundle.complete) throw new ScrimError('INVALID_BUNDLE', 'the bundle has no head: complete it from its model');

  const head = Graph.decode(await bundle.read(HEAD_PATH));
  const cut = headOutput(head, manifest.cut.tensors[0]?.name);
  const session = await engine.load(head.encode());
  const signal = createReleasedSignal(
    parameters,
    manifest.transform.kind === 'bottleneck' ? BOTTLENECK_BOUND : undefined,
  );
  const statistics = createSignalStatistics(signal);
  const counts = releases === 1 ? [1] : [1, releases];
  const calibration = Math.max(2, Math.floor(count / 3));
  const random = createFitRandom(`scrim/${seed}`);
  const samples: ReconstructionSamples = { whole: [], region: [] };
  let references: ReferenceLimit[] = [];
  let probe: FisherProbe | undefined;
  let regions: Uint32Array[] = [];
  let shape: readonly number[] | undefined;
  let releaseShape: readonly number[] = [];
  try {
    for await (const input of options.inputs) {
      if (options.signal?.aborted) throw new ScrimError('CANCELLED', 'the certificate was cancelled');
      const activation = (await session.run({ [manifest.model.input]: input }))[cut];
      if (!activation) throw new ScrimError('INVALID_BUNDLE', `the head of the bundle does not make '${cut}'`);
      if (!shape) {
        shape = input.shape;
        releaseShape = [1, signal.sent.length, ...activation.shape.slice(2)];
        if (options.region) regions = [regionIndices(options.region, shape)];
        if (probeInputs > 0) {
          const { input: name } = manifest.model;
          probe = await createFisherProbe({ engine, head, input: name, cut, parameters, inputShape: shape });
        }
      }
      const values = signal.read(activation);
      if (statistics.inputs === calibration) {
        references = counts.map((n) => createReferenceLimit(signal, statistics, n));
      }
      statistics.add(values);
      for (const reference of references) reference.add(values);
      if (probe && samples.whole.length < probeInputs) {
        await probeOne(probe, input, smoothing / unit.perInput, probes, random, regions, samples);
      }
      options.onProgress?.(statistics.inputs);
    }
  } finally {
    await probe?.close();
    await session.close();
  }
  assertArgument(
    shape !== undefined && statistics.inputs === count,
    `${statistics.inputs} inputs came, count says ${count}`,
  );
  const context = { data, inputs: count, confidence, counts, calibration, parameters };
  const information = informationFigures(context, statistics, references);
  return {
    format: 'scrim-certificate',
    bundle: bundle.hash,
    model: manifest.model.name,
    alpha: manifest.alpha,
    data,
    inputs: count,
    inputShape: shape,
    releaseShape,
    confidence,
    releases,
    information: information.figures,
    odds: oddsFigures(information.limits, priors),
    reconstruction: reconstructionFigures(context, samples, {
      smoothing,
      unit,
      probes,
      ...(options.region ? { region: options.region } : {}),
    }),
  };
}

function headOutput(head: Graph, cut: string | undefined): string {
  const { outputNames } = head;
  const [first] = outputNames;
  if (cut !== undefined && outputNames.includes(cut)) return cut;
  if (first === undefined || outputNames.length > 1) {
    throw new ScrimError('INVALID_BUNDLE', `the head of the bundle does not make '${cut ?? ''}'`);
  }
  return first;
}

/** Mean over probes of the traces at one input with noise of standard deviation `s` (in the input's units) on it. */
async function probeOne(
  probe: FisherProbe,
  input: Tensor,
  s: number,
  probes: number,
  random: FitRandom,
  regions: readonly Uint32Array[],
  samples: ReconstructionSamples,
): Promise<void> {
  const { data, shape } = expectType(input, 'float32', 'the input');
  const noise = new Float32Array(data.length);
  let whole = 0;
  let region = 0;
  for (let k = 0; k < probes; k++) {
    random.normal(noise);
    const noisy = float32(
      shape,
      noise.map((e, i) => (data[i] as number) + s * e),
    );
    const estimate = await probe.estimate(noisy, random, regions);
    whole += estimate.whole / data.length / probes;
    const [indices] = regions;
    if (indices) region += (estimate.regions[0] as number) / indices.length / probes;
  }
  samples.whole.push(whole);
  if (regions.length > 0) samples.region.push(region);
}
