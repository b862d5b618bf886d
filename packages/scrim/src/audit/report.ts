/**
 * The audit's report as data: bundles, what attacks got from each, and what is proven about them.
 *
 * The JSON form has a name and a version, and its fields come in one order; pictures stay out of it. Measured and
 * proven figures are different types and lie in different lists. Files, pages and charts are made by who shows it.
 */
import type { Figure, MeasuredFigure, ProvenFigure } from '../bundle/manifest.js';
import { ScrimError } from '../errors.js';
import type { AttackBaseline, AttackCurve, AttackResult, AttackValue } from './attack.js';

/**
 * What a result says. 'measured': this attacker got this far. 'too-short': it got at least this far, more training may
 * get further. 'failed': it did not work, which says nothing about privacy.
 */
export type AttackVerdict = 'measured' | 'too-short' | 'failed';

/** One attack in a report. */
export interface ReportedAttack {
  readonly name: string;
  readonly description: string;
  readonly verdict: AttackVerdict;
  readonly live: boolean;
  readonly liveReason: string;
  readonly trusted: boolean;
  readonly trustedReason: string;
  /** The first one is the headline. */
  readonly values: readonly AttackValue[];
  readonly baselines: readonly AttackBaseline[];
  readonly samples: number;
  readonly trainedOn: number;
  readonly seconds: number;
  readonly settings: Readonly<Record<string, string | number | boolean>>;
  readonly curves: readonly AttackCurve[];
}

/** One bundle in a report. */
export interface AuditedBundle {
  /** For people; unique within the report. */
  readonly name: string;
  /** SHA-256 of its manifest when the audit began. */
  readonly hash: string;
  readonly model: string;
  /** 'diagonal', 'bottleneck', … */
  readonly transform: string;
  readonly alpha: number;
  /** Values that leave for one input. */
  readonly releasedValues: number;
  /** How well the service still answers; undefined where the manifest has no such figure. */
  readonly accuracy: MeasuredFigure | undefined;
  /** The same without noise. */
  readonly cleanAccuracy: MeasuredFigure | undefined;
  readonly attacks: readonly ReportedAttack[];
  /** Attacks that were asked for and could not run on this data or bundle. */
  readonly notRun: readonly { readonly attack: string; readonly reason: string }[];
  /** Bounds that hold whatever the attacker does, under their assumptions. */
  readonly proven: readonly ProvenFigure[];
}

/** A whole audit. */
export interface AuditReport {
  /** ISO 8601. */
  readonly createdAt: string;
  readonly createdBy: string;
  /** The command that makes it again. */
  readonly command: string;
  readonly machine: string;
  /** What the attacks were trained and tried on, in words. */
  readonly data: string;
  readonly bundles: readonly AuditedBundle[];
}

const FORMAT = 'scrim-audit';
const VERSION = 1;

/** A result of an attack as a report keeps it. @param seconds it took */
export function reportAttack(result: AttackResult, seconds: number): ReportedAttack {
  const { name, description, values, baselines, samples, trainedOn, settings, curves } = result;
  const { live, liveReason, trusted, trustedReason } = result;
  return {
    name,
    description,
    verdict: live ? (trusted ? 'measured' : 'too-short') : 'failed',
    live,
    liveReason,
    trusted,
    trustedReason,
    values: values.map(plainValue),
    baselines: baselines.map((baseline) => ({ ...baseline, values: baseline.values.map(plainValue) })),
    samples,
    trainedOn,
    seconds,
    settings,
    curves,
  };
}

/** The fields of a value in one order, so that equal reports are equal text. */
function plainValue(value: AttackValue): AttackValue {
  const { name, unit, better, mean, worstDecile, worstDecileEdge, sdOverSeeds, interval, samples, seeds } = value;
  const { estimate, low, high, level } = interval;
  return {
    name,
    unit,
    better,
    mean,
    ...(worstDecile === undefined ? {} : { worstDecile }),
    ...(worstDecileEdge === undefined ? {} : { worstDecileEdge }),
    ...(sdOverSeeds === undefined ? {} : { sdOverSeeds }),
    interval: { estimate, low, high, level, samples: interval.samples },
    samples,
    seeds,
  };
}

/** The report as indented JSON with its format's name and version. */
export function encodeAuditReport(report: AuditReport): string {
  return `${JSON.stringify({ format: FORMAT, formatVersion: VERSION, ...report }, null, 2)}\n`;
}

/**
 * Reads a report. Fields of later versions are refused, not guessed at.
 * @throws ScrimError INVALID_DATA if the text is no report of this version
 */
export function decodeAuditReport(text: string): AuditReport {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw new ScrimError('INVALID_DATA', 'the audit report is no JSON', { cause: error });
  }
  const { format, formatVersion, ...report } = json;
  if (format !== FORMAT || formatVersion !== VERSION || !Array.isArray(report.bundles)) {
    throw new ScrimError(
      'INVALID_DATA',
      `the file is format '${String(format)}' version ${String(formatVersion)}, expected '${FORMAT}' version ${VERSION}`,
    );
  }
  return report as unknown as AuditReport;
}

/**
 * What may be recorded in the manifest of a bundle: headline values of attacks that worked and ran long enough. Others
 * would read as privacy where nothing was measured.
 */
export function recordableFigures(
  bundle: AuditedBundle,
  { data, machine, command }: Pick<AuditReport, 'data' | 'machine' | 'command'>,
): Figure[] {
  return bundle.attacks
    .filter(({ verdict }) => verdict === 'measured')
    .flatMap(({ name, values, trainedOn }) =>
      values.map((value): MeasuredFigure => {
        const { mean, interval, unit, samples, seeds, sdOverSeeds } = value;
        const digits = (number: number): string => number.toFixed(unit === 'dB' ? 1 : 3);
        return {
          kind: 'measured',
          name: `attack ${name}: ${value.name}`,
          value: mean,
          ...(sdOverSeeds === undefined ? {} : { sd: sdOverSeeds }),
          runs: seeds,
          ...(unit === '' ? {} : { unit }),
          data:
            `${data}; 95% interval ${digits(interval.low)} to ${digits(interval.high)}` +
            `${trainedOn > 0 ? `; attacker trained on ${trainedOn}` : ''}`,
          sampleSize: samples,
          machine,
          command,
        };
      }),
    );
}

/** One point of accuracy against what an attacker got. */
export interface TradeOff {
  readonly bundle: string;
  readonly transform: string;
  readonly alpha: number;
  readonly accuracy: number;
  readonly success: number;
  readonly low: number;
  readonly high: number;
  readonly verdict: AttackVerdict;
}

/** Accuracy against attacker success for each attack that at least one bundle with a recorded accuracy has. */
export function tradeOffs(
  bundles: readonly AuditedBundle[],
): { attack: string; value: AttackValue; points: TradeOff[] }[] {
  const found = new Map<string, { attack: string; value: AttackValue; points: TradeOff[] }>();
  for (const { name: bundle, transform, alpha, accuracy, attacks } of bundles) {
    if (!accuracy) continue;
    for (const { name: attack, values, verdict } of attacks) {
      const [value] = values;
      if (!value) continue;
      const entry = found.get(attack) ?? { attack, value, points: [] };
      found.set(attack, entry);
      entry.points.push({
        bundle,
        transform,
        alpha,
        accuracy: accuracy.value,
        success: value.mean,
        low: value.interval.low,
        high: value.interval.high,
        verdict,
      });
    }
  }
  return [...found.values()];
}
