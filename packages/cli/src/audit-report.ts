/** What audits of photos and of plain inputs share: their flags, how a report is described, written, recorded and printed. */
import { cpus } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { type Bundle, type Engine, type MeasuredFigure, type ProvenFigure, ScrimError } from 'scrim';
import { type AuditedBundle, type AuditReport, encodeAuditReport, recordableFigures } from 'scrim/audit';
import { type NodeEngineOptions, recordResults, writeFileAtomically } from 'scrim/node';
import { type PagePicture, renderAuditPage } from './audit-page.js';
import { CLEAN_AP, NOISY_AP } from './commands/sweep.js';
import type { CommandContext } from './context.js';
import { formatTable } from './table.js';

/** Flags of `scrim audit`. */
export interface AuditOptions {
  readonly data: readonly string[];
  readonly try?: readonly string[];
  readonly people?: string;
  readonly labels?: string;
  readonly attacks?: string;
  readonly model: string;
  readonly steps: number;
  readonly ceilingSteps?: number;
  readonly tried: number;
  readonly capacity: number;
  readonly seeds: number;
  readonly canvases?: number;
  readonly workers?: number;
  readonly size: number;
  readonly pictureSide: number;
  readonly seed: string;
  readonly embedder?: string;
  readonly embedderSpec?: string;
  readonly out: string;
  readonly record?: boolean;
  readonly shipDecoder?: boolean;
  readonly threads?: number;
  readonly provider: NonNullable<NodeEngineOptions['executionProvider']>;
  readonly json?: boolean;
}

/** The attacks that --attacks names. @throws ScrimError INVALID_ARGUMENT for another than `known` */
export function parseAttacks<T extends string>(text: string | undefined, known: readonly T[]): T[] | undefined {
  const asked = text?.split(',').map((name) => name.trim());
  const unknown = asked?.find((name) => !known.includes(name as T));
  if (unknown !== undefined) {
    throw new ScrimError('INVALID_ARGUMENT', `--attacks names '${unknown}', expected some of ${known.join(', ')}`);
  }
  return asked as T[] | undefined;
}

/** Records what may be recorded and prints the report. */
export async function finishAudit(
  context: CommandContext,
  options: AuditOptions,
  report: AuditReport,
  folders: readonly string[],
): Promise<void> {
  if (options.record) await record(context, report, folders);
  if (options.json) {
    context.print(encodeAuditReport(report).trimEnd());
    return;
  }
  context.print(summary(report.bundles));
  context.print(`${join(options.out, 'index.html')} and ${join(options.out, 'report.json')}`);
}

/** What a report says of a bundle besides its attacks. */
export function describeBundle(
  { manifest, hash }: Bundle,
  name: string,
): Omit<AuditedBundle, 'attacks' | 'notRun' | 'releasedValues'> {
  const figure = (wanted: string): MeasuredFigure | undefined =>
    manifest.results.find((item): item is MeasuredFigure => item.kind === 'measured' && item.name === wanted);
  return {
    name,
    hash,
    model: manifest.model.name,
    transform: transformOf(manifest),
    alpha: manifest.alpha,
    accuracy: figure(NOISY_AP),
    cleanAccuracy: figure(CLEAN_AP),
    proven: manifest.results.filter((item): item is ProvenFigure => item.kind === 'proven'),
  };
}

function transformOf(manifest: Bundle['manifest']): string {
  return 'bottleneck' in manifest && manifest.bottleneck ? 'bottleneck' : manifest.transform.kind;
}

/** A name for each bundle, unique among them. */
export function nameBundles(bundles: readonly { folder: string; bundle: Bundle }[]): string[] {
  const names = bundles.map(({ bundle: { manifest } }) => `${transformOf(manifest)} α ${manifest.alpha}`);
  return names.map((name, i) =>
    names.filter((other) => other === name).length > 1
      ? `${name} (${basename(resolve(bundles[i]?.folder ?? ''))})`
      : name,
  );
}

/** When, by what and with which command a report was made. */
export function describeRun(
  context: CommandContext,
  options: AuditOptions,
  folders: readonly string[],
  engine: Engine,
): Omit<AuditReport, 'bundles' | 'data'> {
  const name = (path: string): string => basename(resolve(path));
  const flags = [
    `--data ${options.data.map(name).join(' ')}`,
    ...(options.try === undefined ? [] : [`--try ${options.try.map(name).join(' ')}`]),
    ...(options.people === undefined ? [] : [`--people ${name(options.people)}`]),
    ...(options.labels === undefined ? [] : [`--labels ${name(options.labels)}`]),
    ...(options.attacks === undefined ? [] : [`--attacks ${options.attacks}`]),
    `--steps ${options.steps} --tried ${options.tried} --size ${options.size} --seed ${options.seed}`,
    ...(options.pictureSide === 256 ? [] : [`--picture-side ${options.pictureSide}`]),
    ...(options.ceilingSteps === undefined ? [] : [`--ceiling-steps ${options.ceilingSteps}`]),
    ...(options.capacity === 1 ? [] : [`--capacity ${options.capacity}`]),
    ...(options.seeds === 1 ? [] : [`--seeds ${options.seeds}`]),
    ...(options.canvases === undefined ? [] : [`--canvases ${options.canvases}`]),
    ...(options.shipDecoder ? ['--ship-decoder'] : []),
    ...(options.provider === 'cpu' ? [] : [`--provider ${options.provider}`]),
  ];
  return {
    createdAt: new Date().toISOString(),
    createdBy: `scrim ${context.version}`,
    command: `scrim audit ${folders.map(name).join(' ')} ${flags.join(' ')}`,
    machine: `${cpus()[0]?.model ?? 'unknown CPU'}, ${cpus().length} cores, ${engine.description}`,
  };
}

/** One bar for each thing that is under way. */
export function progressHooks(
  context: CommandContext,
  name: string,
): {
  onProgress: (progress: { attack: string; done: number; of: number; loss?: number }) => void;
  signal: AbortSignal;
  done: () => void;
} {
  let current: { label: string; bar: ReturnType<CommandContext['progress']> } | undefined;
  const done = (): void => {
    current?.bar.stop();
    current = undefined;
  };
  return {
    signal: context.signal,
    done,
    onProgress: ({ attack, done: count, of, loss }) => {
      const label = `${name}${name.endsWith(attack) ? '' : `: ${attack}`}`;
      if (current?.label !== label) {
        done();
        current = { label, bar: context.progress(label, of) };
      }
      current.bar.update(count, loss === undefined ? '' : `loss ${loss.toFixed(3)}`);
      if (count === of) done();
    },
  };
}

/** Writes page and JSON, each whole. */
export async function writeReport(
  out: string,
  report: AuditReport,
  pictures: ReadonlyMap<string, readonly { title: string; pictures: readonly PagePicture[] }[]>,
): Promise<void> {
  await writeFileAtomically(join(out, 'report.json'), encodeAuditReport(report));
  await writeFileAtomically(join(out, 'index.html'), renderAuditPage(report, pictures));
}

/** Writes what was measured into the manifests. */
async function record(context: CommandContext, report: AuditReport, folders: readonly string[]): Promise<void> {
  for (const [i, bundle] of report.bundles.entries()) {
    const figures = recordableFigures(bundle, report);
    const left = bundle.attacks.filter(({ verdict }) => verdict !== 'measured').map(({ name }) => name);
    if (left.length > 0) context.remark(`${bundle.name}: not recorded, failed or ran too short: ${left.join(', ')}`);
    if (figures.length > 0) await recordResults(folders[i] as string, figures);
  }
}

function summary(bundles: readonly AuditedBundle[]): string {
  const rows = bundles.flatMap(({ name, attacks }) =>
    attacks.map(({ name: attack, values, baselines, verdict }) => {
      const [value] = values;
      const of = (kind: 'floor' | 'ceiling'): string => {
        const means = baselines.filter((item) => item.kind === kind).map((item) => item.values[0]?.mean ?? 0);
        return means.length === 0 ? '–' : (kind === 'floor' ? Math.max(...means) : (means[0] as number)).toFixed(3);
      };
      const { low = 0, high = 0 } = value?.interval ?? {};
      return [
        name,
        attack,
        value?.name ?? '',
        value?.mean.toFixed(3) ?? '',
        `${low.toFixed(3)} to ${high.toFixed(3)}`,
        of('floor'),
        of('ceiling'),
        verdict === 'too-short' ? 'ran too short' : verdict === 'failed' ? 'failed attack' : 'measured',
      ];
    }),
  );
  return formatTable(['bundle', 'attack', 'value', 'mean', '95% interval', 'floor', 'ceiling', 'verdict'], rows);
}
