/** Samples to figures: the numbers of a certificate as tagged values, each with the assumptions it rests on. */
import type { MeasuredFigure, ProvenFigure } from '../bundle/manifest.js';
import { meanInterval, standardDeviation } from '../metrics/summary.js';
import type { DiagonalParameters } from '../noise/diagonal.js';
import { inferenceOdds } from './inference-odds.js';
import { informationLimit } from './information-limit.js';
import type { InputRegion } from './input-region.js';
import { reconstructionLimit } from './reconstruction-limit.js';
import type { ReferenceLimit } from './reference-limit.js';
import type { SignalStatistics } from './signal-variance.js';

/** In what the values of an input are told to people. */
export interface InputUnit {
  /** Such as 'levels of 255'. */
  readonly name: string;
  /** Units in one unit of the input tensor. */
  readonly perInput: number;
  /** Largest value in units; with it errors are also given as PSNR, and below a rounding error they are vacuous. */
  readonly peak?: number;
}

/** One line of a certificate. */
export interface CertifiedFigure<F = MeasuredFigure | ProvenFigure> {
  readonly figure: F;
  /** Releases of the same input that it is about. */
  readonly releases: number;
  /** True if the bound says nothing. */
  readonly vacuous: boolean;
}

/** Limit on a guess. */
export interface CertifiedOdds extends CertifiedFigure<ProvenFigure> {
  readonly prior: number;
}

/** Limit on a reconstruction, or the Fisher information it follows from. */
export interface CertifiedReconstruction extends CertifiedFigure {
  readonly part: 'whole' | 'region';
  /** The least mean squared error as PSNR, the most an attacker reaches in decibels; only where the unit has a peak. */
  readonly psnr?: number;
}

/** What all figures of a certificate share. */
export interface FigureContext {
  readonly data: string;
  readonly inputs: number;
  readonly confidence: number;
  /** Numbers of releases to tell of. */
  readonly counts: readonly number[];
  /** Inputs used for calibration. */
  readonly calibration: number;
  readonly parameters: DiagonalParameters;
}

/** Mean of Tr I/d over the probes of each input, in 1/(input unit)². */
export interface ReconstructionSamples {
  readonly whole: number[];
  readonly region: number[];
}

/** Mean squared error of rounding to whole units: a bound below it says nothing. */
const ROUNDING_ERROR = 1 / 12;

const NOISE =
  'the noise is the transform’s: Gaussian, fresh for every release, from a key the attacker has not (AES-256-CTR taken ' +
  'for random; its tails beyond 7.9 σ are missing)';
const DRAWN = 'the inputs to protect are drawn like these, which were drawn independently of each other';

/** Bounds on mutual information; `limits` are those that hold for data like this, by number of releases. */
export function informationFigures(
  context: FigureContext,
  statistics: SignalStatistics,
  references: readonly ReferenceLimit[],
): { readonly figures: CertifiedFigure[]; readonly limits: ReadonlyMap<number, ProvenFigure> } {
  const { data, inputs, confidence, counts, calibration, parameters } = context;
  // Two ways to a limit, of which the lower is taken: each may fail with half the probability.
  const failure = (1 - confidence) / 2;
  const variances = statistics.variances(failure);
  const { positions } = variances;
  const bound = (values: Float64Array, n: number): number => informationLimit(parameters, values, positions, n);
  const figures: CertifiedFigure[] = [];
  const limits = new Map<number, ProvenFigure>();
  for (const [i, releases] of counts.entries()) {
    const estimate: MeasuredFigure = {
      kind: 'measured',
      name: 'information at the sample variances',
      value: bound(variances.estimate, releases),
      unit: 'nats',
      data,
      sampleSize: inputs,
    };
    const byVariance = bound(variances.limit, releases);
    const byReference = references[i]?.limit(failure) ?? Number.POSITIVE_INFINITY;
    const limit: ProvenFigure = {
      kind: 'proven',
      name: 'information, inputs like these',
      value: Math.min(byVariance, byReference),
      unit: 'nats',
      assumptions: [
        NOISE,
        DRAWN,
        byReference < byVariance
          ? `confidence ${confidence}: empirical Bernstein limit of the mean divergence from a fixed reference, which ` +
            `${calibration} inputs fixed and the other ${inputs - calibration} were measured against`
          : `confidence ${confidence}: empirical Bernstein limits of all variances at once, from ${inputs} inputs`,
      ],
    };
    const worst: ProvenFigure = {
      kind: 'proven',
      name: 'information, any inputs',
      value: bound(variances.worst, releases),
      unit: 'nats',
      assumptions: [NOISE, 'nothing about the inputs: only that the activation lies in its public range'],
    };
    limits.set(releases, limit);
    for (const figure of [estimate, limit, worst]) figures.push({ figure, releases, vacuous: false });
  }
  return { figures, limits };
}

/** Limits on guesses that follow from the information. */
export function oddsFigures(limits: ReadonlyMap<number, ProvenFigure>, priors: readonly number[]): CertifiedOdds[] {
  return priors.flatMap((prior) =>
    Array.from(limits, ([releases, { value, assumptions }]): CertifiedOdds => {
      const { posterior, vacuous } = inferenceOdds(prior, value);
      const figure: ProvenFigure = {
        kind: 'proven',
        name: 'probability of a right guess',
        value: posterior,
        assumptions: [...assumptions, 'the prior is the attacker’s best without the release'],
      };
      return { prior, figure, releases, vacuous };
    }),
  );
}

/** What reconstruction figures need besides. */
interface ReconstructionSettings {
  readonly smoothing: number;
  readonly unit: InputUnit;
  readonly probes: number;
  readonly region?: InputRegion;
}

/** Limits on the error of a reconstruction. */
export function reconstructionFigures(
  context: FigureContext,
  samples: ReconstructionSamples,
  settings: ReconstructionSettings,
): CertifiedReconstruction[] {
  const { data, confidence, counts } = context;
  const { smoothing, unit, probes, region } = settings;
  const figures: CertifiedReconstruction[] = [];
  const squaredUnit = unit.perInput * unit.perInput;
  for (const part of ['whole', 'region'] as const) {
    if (samples[part].length < 2) continue;
    const traces = samples[part].map((value) => value / squaredUnit);
    // One side of a two-sided interval.
    const interval = meanInterval(traces, 2 * confidence - 1);
    const of = part === 'whole' ? 'the whole input' : `region ${regionText(region)}`;
    const information: MeasuredFigure = {
      kind: 'measured',
      name: `Fisher information per value of ${of}`,
      value: interval.estimate,
      sd: standardDeviation(traces),
      unit: `1/(${unit.name})²`,
      data: `${data}, ${probes} probes each`,
      sampleSize: traces.length,
    };
    figures.push({ figure: information, releases: 1, vacuous: false, part });
    const measured =
      `confidence ${confidence} that the mean Fisher information is at most ${interval.high.toPrecision(3)} ` +
      `(Student’s t over ${traces.length} inputs of ${probes} probes, which takes their mean for normally distributed)`;
    const common = [
      NOISE,
      DRAWN,
      measured,
      'the activation is taken as it is before its rounding to the public grid (steps of σ/64 where the range allows, at most σ)',
    ];
    for (const releases of counts) {
      const limits: readonly [string, number, string][] = [
        [
          'least mean squared error',
          smoothing,
          `the inputs hold independent Gaussian noise of at least ${smoothing} ${unit.name} (the bound is at most its ` +
            'square)',
        ],
        [
          'least mean squared error of an unbiased attacker',
          Number.POSITIVE_INFINITY,
          'the attacker’s estimate is unbiased: it uses no knowledge of what inputs look like',
        ],
      ];
      for (const [name, s, assumption] of limits) {
        const value = reconstructionLimit(Math.max(0, interval.high), s, releases);
        const genie = part === 'region' ? ['the attacker may know everything outside the region'] : [];
        const figure: ProvenFigure = {
          kind: 'proven',
          name: `${name}, ${of}`,
          value,
          unit: `(${unit.name})²`,
          assumptions: [...common, assumption, ...genie],
        };
        const { peak } = unit;
        const vacuous = peak !== undefined && value <= ROUNDING_ERROR;
        // An unbiased attacker may do worse than one who guesses the mean: a ratio to the peak would mislead.
        const psnr =
          peak === undefined || s === Number.POSITIVE_INFINITY ? {} : { psnr: 10 * Math.log10((peak * peak) / value) };
        figures.push({ figure, releases, vacuous, part, ...psnr });
      }
    }
  }
  return figures;
}

function regionText(region: InputRegion | undefined): string {
  return region ? `${region.x},${region.y},${region.width},${region.height}` : '';
}
