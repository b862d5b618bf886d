/** `scrim certify`: what releases of a bundle tell at most, whatever an attacker does, with the assumptions of each bound. */
import { basename, resolve } from 'node:path';
import { type Bundle, HEAD_PATH, ScrimError, type Tensor } from 'scrim';
import { type Certificate, type CertifiedFigure, certifyBundle, type InputRegion, type InputUnit } from 'scrim/certify';
import { createInputReader, createNodeEngine, listPhotos } from 'scrim/node';
import { createFitRandom } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { photoSide } from '../bundle-store.js';
import type { CommandContext } from '../context.js';
import { type InputShape, listInputFiles, readInputs } from '../input-files.js';
import { openServable } from '../remote-bundle.js';
import { formatTable } from '../table.js';

interface CertifyFlags {
  readonly model: string;
  readonly data: string;
  readonly releases: number;
  readonly prior?: readonly number[];
  readonly region?: string;
  readonly inputs: number;
  readonly confidence: number;
  readonly smoothing: number;
  readonly probeInputs: number;
  readonly probes: number;
  readonly seed: string;
  readonly size?: number;
  readonly threads?: number;
  readonly json?: boolean;
}

/** Prints the certificate of one bundle. */
export async function certify(context: CommandContext, flags: CertifyFlags, [directory = '']: string[]): Promise<void> {
  const region = flags.region === undefined ? undefined : parseRegion(flags.region);
  const bundle = await openServable({ bundle: directory, model: flags.model, alpha: 0 });
  const data = await openData(bundle, flags, context);
  const engine = await createNodeEngine(flags.threads === undefined ? {} : { threads: flags.threads });
  context.onClose(() => engine.close());
  context.remark(`certifying ${directory} on ${data.count} inputs with ${engine.description}`);
  const progress = context.progress('inputs', data.count);
  const certificate = await certifyBundle({
    bundle,
    engine,
    inputs: data.inputs,
    count: data.count,
    data: `${data.count} ${data.what} of '${basename(resolve(flags.data))}'`,
    releases: flags.releases,
    confidence: flags.confidence,
    smoothing: flags.smoothing,
    probeInputs: flags.probeInputs,
    probes: flags.probes,
    seed: flags.seed,
    ...(flags.prior ? { priors: flags.prior } : {}),
    ...(region ? { region } : {}),
    ...(data.unit ? { unit: data.unit } : {}),
    signal: context.signal,
    onProgress: (done) => progress.update(done),
  }).finally(() => progress.stop());
  if (flags.json) context.printJson(certificate);
  else context.print(formatCertificate(certificate));
}

interface CertifyData {
  readonly inputs: AsyncIterable<Tensor>;
  readonly count: number;
  readonly what: string;
  readonly unit?: InputUnit;
}

/** Photos for a detector, rows of .npy, .csv or .wav files for any other model, in an order drawn from the seed. */
async function openData(bundle: Bundle, flags: CertifyFlags, context: CommandContext): Promise<CertifyData> {
  const detector = bundle.manifest.model.detector;
  const random = createFitRandom(`${flags.seed}/order`);
  const integer = (bound: number): number => random.integer(bound);
  if (!detector) {
    const rows: Tensor[] = [];
    const input = await inputOf(bundle);
    for await (const { tensor } of readInputs(await listInputFiles([flags.data]), input)) rows.push(tensor);
    const count = Math.min(flags.inputs, rows.length);
    async function* tensors(): AsyncGenerator<Tensor> {
      yield* shuffle(rows, integer).slice(0, count);
    }
    return { inputs: tensors(), count, what: 'inputs' };
  }
  const files = await listPhotos(flags.data);
  const count = Math.min(flags.inputs, files.length);
  if (count === 0) throw new ScrimError('NOT_FOUND', `there are no photos in '${flags.data}'`);
  const order = shuffle(files, integer);
  const side = photoSide(flags.size, [bundle]);
  const reader = createInputReader(detector, { kind: 'stretch', width: side, height: side });
  async function* inputs(): AsyncGenerator<Tensor> {
    let left = count;
    for (const file of order) {
      if (left === 0) return;
      const read = await reader.read(file).catch((error: unknown) => {
        if (!(error instanceof ScrimError)) throw error;
        context.remark(`skipped '${file}': ${error.message}`);
        return undefined;
      });
      if (!read) continue;
      left--;
      yield read.tensor;
    }
    if (left === 0) return;
    throw new ScrimError(
      'INVALID_DATA',
      `only ${count - left} of ${count} inputs could be read; ask for fewer --inputs`,
    );
  }
  const unit = { name: 'levels of 255', perInput: 1 / detector.preprocessing.scale, peak: 255 };
  return { inputs: inputs(), count, what: 'photos', unit };
}

/** The input that the bundle's head declares. */
async function inputOf(bundle: Bundle): Promise<InputShape> {
  const name = bundle.manifest.model.input;
  const shape = Graph.decode(await bundle.read(HEAD_PATH)).declaredType(name)?.shape;
  if (!shape) throw new ScrimError('INVALID_BUNDLE', `the head of the bundle declares no shape of '${name}'`);
  return { name, shape };
}

/** Fisher and Yates. */
function shuffle<T>(items: readonly T[], integer: (bound: number) => number): T[] {
  const shuffled = [...items];
  for (let i = shuffled.length - 1; i > 0; i--) {
    const j = integer(i + 1);
    [shuffled[i], shuffled[j]] = [shuffled[j] as T, shuffled[i] as T];
  }
  return shuffled;
}

function parseRegion(text: string): InputRegion {
  const parts = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const [x = 0, y = 0, width = 0, height = 0] = parts;
  if (parts.length !== 4 || !parts.every(Number.isSafeInteger)) {
    throw new ScrimError('INVALID_ARGUMENT', `--region is '${text}', expected X,Y,WIDTH,HEIGHT in pixels of the input`);
  }
  return { x, y, width, height };
}

/** The certificate for people: a table whose rows point at the assumptions below it. */
function formatCertificate(certificate: Certificate): string {
  const { alpha, model, data, inputShape, releaseShape, confidence, information, odds, reconstruction } = certificate;
  const notes: string[] = [];
  const rests = ({ figure }: CertifiedFigure): string => {
    if (figure.kind === 'measured') return `measured on ${figure.sampleSize}`;
    return figure.assumptions
      .map((assumption) => {
        if (!notes.includes(assumption)) notes.push(assumption);
        return notes.indexOf(assumption) + 1;
      })
      .sort((a, b) => a - b)
      .join(' ');
  };
  const rows: string[][] = [];
  const add = (line: CertifiedFigure, what: string, value: string): void => {
    const { kind } = line.figure;
    rows.push([kind, what, String(line.releases), line.vacuous ? `${value} (vacuous)` : value, rests(line)]);
  };
  for (const line of information) {
    const sign = line.figure.kind === 'proven' ? '≤' : '≈';
    add(line, line.figure.name, `${sign} ${Math.ceil(line.figure.value).toLocaleString('en')} nats`);
  }
  for (const line of odds) add(line, `right guess, prior ${odd(line.prior)}`, `≤ ${odd(line.figure.value)}`);
  for (const line of reconstruction) {
    const { figure, psnr } = line;
    const sign = figure.kind === 'proven' ? '≥' : '≈';
    const decibel = psnr === undefined ? '' : `, PSNR ≤ ${psnr.toFixed(1)} dB`;
    add(line, figure.name, `${sign} ${figure.value.toPrecision(3)} ${figure.unit}${decibel}`);
  }
  const table = formatTable(['kind', 'bound', 'releases', 'value', 'rests on'], rows);
  const nats = information.find(({ figure }) => figure.kind === 'proven')?.figure.value ?? 0;
  return [
    `bundle ${certificate.bundle.slice(0, 12)}…, ${model} at alpha ${alpha}`,
    `${data}, input [${inputShape.join(', ')}], released [${releaseShape.join(', ')}]; confidence ${confidence} for each figure`,
    '',
    table,
    '',
    `The odds say something for priors below 1 in 10^${Math.max(0, Math.ceil(nats / Math.LN10))} only; above that they are vacuous.`,
    '',
    'Each proven figure holds whatever the attacker does, if what it rests on does:',
    ...notes.map((note, i) => `${String(i + 1).padStart(3)}  ${note}`),
    '',
    'These bound what can be rebuilt or guessed. They are no differential-privacy epsilon.',
  ].join('\n');
}

function odd(probability: number): string {
  if (probability >= 0.001 || probability === 0) return String(Number(probability.toPrecision(4)));
  return `1/${Number((1 / probability).toPrecision(4)).toLocaleString('en')}`;
}
