/**
 * What a remote detector answers that sends candidates: not the rows of all anchors, of which a decoder reads a few, but
 * those of the strongest K. Beside the model's own outputs, [N, K, …] then, stand which anchor each row is (INT32 [N, K])
 * and how many anchors there are (INT32 [N, 1]): no bundle says how many follow from the size of a release.
 *
 * Here the rows are put back in their places. candidate-selection.ts writes the graph.
 */
import { ScrimError } from '../errors.js';
import { float32, type Tensor } from '../tensor.js';
import type { Manifest } from './manifest.js';

/** Most numbers that the outputs of all anchors may have: a few bytes of an answer must not ask for any amount of memory. */
const MAX_VALUES = 2 ** 26;

/** What is known of a remote model: its outputs and what they are to the task. */
export type CandidateTask = Pick<Manifest, 'task' | 'remote'>;

/** Outputs by the names they have in the remote model, of whatever type they arrived. */
type ReceivedTensors = Readonly<
  Record<string, { readonly dtype: string; readonly shape: readonly number[]; readonly data: unknown } | undefined>
>;

/** Names that candidates have in a remote model. */
export interface CandidateNames {
  readonly boxes: string;
  readonly scores: string;
  /** Which anchor each row is. */
  readonly rows: string;
  /** How many anchors there are. */
  readonly anchors: string;
}

/** How much of an answer arrived. */
export interface CandidateSummary {
  /** Rows that were sent. */
  readonly sent: number;
  /** Anchors that there are. */
  readonly anchors: number;
  /**
   * Least object score among the rows that were sent, 0 to 1: anchors that were not have no higher one. Above the score that
   * you look at, more may have been there.
   */
  readonly weakest: number;
}

/** The names: those of boxes and scores, and the two that follow the model's own outputs; undefined without a detector. */
export function candidateNames({ task, remote }: CandidateTask): CandidateNames | undefined {
  if (task.kind !== 'detection') return undefined;
  const nameOf = (model: string): string | undefined => remote.outputs.find((output) => output.model === model)?.remote;
  const [boxes, scores] = [nameOf(task.boxes), nameOf(task.scores)];
  const count = remote.outputs.length;
  return boxes === undefined || scores === undefined
    ? undefined
    : { boxes, scores, rows: `OUTPUT__${count}`, anchors: `OUTPUT__${count + 1}` };
}

/** The names if a model with these outputs sends candidates, by the outputs' metadata. */
export function findCandidates(
  described: CandidateTask,
  outputs: readonly { readonly name: string; readonly datatype: string }[],
): CandidateNames | undefined {
  const names = candidateNames(described);
  const isThere = (name: string): boolean =>
    outputs.some((output) => output.name === name && output.datatype === 'INT32');
  return names && isThere(names.rows) && isThere(names.anchors) ? names : undefined;
}

/**
 * Outputs of all anchors from those of candidates. Anchors that were not sent read: offsets 0, background 1, objects 0.
 * @param received outputs by the names they have in the remote model: boxes [N, K, D] and scores [N, K, C] float32, C at
 * least 2, rows [N, K] and anchors [N, 1] int32
 * @returns boxes [N, P, D] and scores [N, P, C] under the same names, in memory of their own
 * @throws ScrimError INVALID_DATA naming what arrived, if it is no such answer
 */
export function placeCandidates(
  received: ReceivedTensors,
  names: CandidateNames,
): { readonly outputs: Record<string, Tensor<'float32'>>; readonly candidates: CandidateSummary } {
  const rows = take(received, names.rows, 'int32', 2);
  const [samples = 0, sent = 0] = rows.shape;
  const scores = take(received, names.scores, 'float32', 3, [samples, sent]);
  const boxes = take(received, names.boxes, 'float32', 3, [samples, sent]);
  const counts = take(received, names.anchors, 'int32', 2, [samples, 1]).data;
  const [anchors = 0] = counts;
  const [classes = 0, sides = 0] = [scores.shape[2], boxes.shape[2]];
  const expect = (condition: boolean, what: string): void => {
    if (!condition) throw new ScrimError('INVALID_DATA', `the answer's ${what}`);
  };
  expect(samples > 0 && sent > 0, `'${names.rows}' is [${rows.shape.join(', ')}], expected candidates`);
  expect(classes >= 2, `'${names.scores}' has ${classes} columns, expected background and objects`);
  const most = Math.floor(MAX_VALUES / (samples * (classes + sides)));
  expect(
    anchors >= sent && anchors <= most && counts.every((count) => count === anchors),
    `'${names.anchors}' says ${anchors} anchors, expected ${sent} to ${most}, the same for all samples`,
  );
  expect(
    rows.data.every((row) => row >= 0 && row < anchors),
    `'${names.rows}' names an anchor that is none of the ${anchors}`,
  );
  return {
    outputs: {
      [names.boxes]: place(boxes, rows, anchors, 0),
      [names.scores]: place(scores, rows, anchors, 1),
    },
    candidates: { sent, anchors, weakest: weakestOf(scores) },
  };
}

/** A table [N, K, W] as [N, P, W]; a row that is not there holds `first` and zeros. */
function place(table: Tensor<'float32'>, rows: Tensor<'int32'>, anchors: number, first: number): Tensor<'float32'> {
  const [samples = 0, sent = 0, width = 0] = table.shape;
  const placed = new Float32Array(samples * anchors * width);
  if (first !== 0) for (let at = 0; at < placed.length; at += width) placed[at] = first;
  for (let k = 0; k < samples * sent; k++) {
    const at = (Math.floor(k / sent) * anchors + (rows.data[k] as number)) * width;
    for (let i = 0; i < width; i++) placed[at + i] = table.data[k * width + i] as number;
  }
  return float32([samples, anchors, width], placed);
}

/** Least of the rows' highest object scores. */
function weakestOf({ shape, data }: Tensor<'float32'>): number {
  const classes = shape[2] as number;
  let weakest = 1;
  for (let at = 0; at < data.length; at += classes) {
    let best = 0;
    for (let i = 1; i < classes; i++) best = Math.max(best, data[at + i] as number);
    weakest = Math.min(weakest, best);
  }
  return weakest;
}

/** An output of that type and rank whose first dimensions are `first`. */
function take<T extends 'int32' | 'float32'>(
  received: ReceivedTensors,
  name: string,
  dtype: T,
  rank: number,
  first: readonly number[] = [],
): Tensor<T> {
  const found = received[name];
  if (found?.dtype === dtype && found.shape.length === rank && first.every((size, i) => found.shape[i] === size)) {
    return found as Tensor<T>;
  }
  const expected = Array.from({ length: rank }, (_, i) => first[i] ?? '·').join(', ');
  throw new ScrimError(
    'INVALID_DATA',
    `the answer's '${name}' is ${found ? `${found.dtype} [${found.shape.join(', ')}]` : 'missing'}, ` +
      `expected ${dtype} [${expected}]`,
  );
}
