/**
 * The part of a remote detector that leaves out what no decoder reads: behind the model, the rows of the K anchors with the
 * highest object score are taken of boxes and scores.
 *
 *   objects = the column 1 of scores or, with more classes, the greatest from 1 on           [N, P, 1]
 *   rows    = the first min(K, P) of TopK(objects); of equal ones that of the lower index      [N, K, 1]
 *   boxes   = GatherND(boxes, rows), scores = GatherND(scores, rows)                           [N, K, …]
 *
 * and two outputs more, which candidates.ts describes and reads. All of them keep the batch dimension in front, so servers
 * go on batching.
 */
import { ScrimError } from '../errors.js';
import type { Dimension, Graph } from '../onnx/index.js';
import { int64 } from '../tensor.js';
import { type CandidateNames, type CandidateTask, candidateNames } from './candidates.js';
import type { RemoteModel } from './remote-model.js';

const INT32 = 6;
/** The first with the batch_dims of GatherND, and Min and Max of integers. */
const LEAST_OPSET = 12;
/**
 * This many times K are put in order, and the rest is cut off again. onnxruntime 1.30 keeps a heap where log K is below
 * 0.725 log P, else it partitions: 1,500 of 21,824 take it half as long as 1,000.
 */
const SORTED = 1.5;
const METADATA_KEY = 'scrim.candidates';

/** What the selection reads and makes, or why it can't. */
type Place = CandidateNames | { readonly reason: string };

/** Why there is nothing to select among in a remote model; undefined where there is. */
export function whyNoCandidates(model: RemoteModel, described: CandidateTask): string | undefined {
  const place = placeOf(model, described);
  return 'reason' in place ? place.reason : undefined;
}

/**
 * The model with the selection behind it; `model` itself where it is known to have no more anchors than that.
 * @param candidates K, an integer ≥ 1
 * @throws ScrimError UNSUPPORTED if the model has no boxes and scores of anchors, saying why
 */
export function selectCandidates(model: RemoteModel, described: CandidateTask, candidates: number): RemoteModel {
  const place = placeOf(model, described);
  if ('reason' in place) throw new ScrimError('UNSUPPORTED', `candidates can't be selected: ${place.reason}`);
  const graph = model.graph.clone();
  const [batch = '', anchors = '', classes] = graph.declaredType(place.scores)?.shape ?? [];
  if (typeof anchors === 'number' && anchors <= candidates) return model;

  const types = new Map(graph.outputNames.map((name) => [name, graph.declaredType(name)]));
  const [boxes, scores] = [place.boxes, place.scores].map((name) => {
    graph.renameValue(name, `${name}_all`);
    return `${name}_all`;
  }) as [string, string];
  const constant = (name: string, values: readonly number[]): string => graph.addInitializer(name, int64(values));
  const one = constant('one', [1]);
  const count = graph.add('Gather', [graph.add('Shape', [scores]), one], { axis: 0 });
  const sorted = graph.add('Min', [count, constant('sorted', [Math.ceil(SORTED * candidates)])]);
  const [, ranked = ''] = graph.addMany(
    'TopK',
    [objectScores(graph, scores, classes as number), sorted],
    { axis: 1 },
    { outputs: 2 },
  );
  const zero = constant('zero', [0]);
  const places = graph.add('Slice', [ranked, zero, constant('candidates', [candidates]), one]);
  for (const [whole, name] of [
    [boxes, place.boxes],
    [scores, place.scores],
  ] as const) {
    graph.add('GatherND', [whole, places], { batch_dims: 1 }, { outputs: [name] });
  }
  const rows = graph.add('Reshape', [places, constant('flat', [0, -1])]);
  graph.add('Cast', [rows], { to: INT32 }, { outputs: [place.rows] });
  // The number of anchors for every sample, without asking how many samples there are: it is above every row's.
  const counts = graph.add('Max', [graph.add('Slice', [rows, zero, one, one]), count]);
  graph.add('Cast', [counts], { to: INT32 }, { outputs: [place.anchors] });

  const sent: Dimension = typeof anchors === 'number' ? candidates : 'candidates';
  graph.setOutputs([]);
  for (const [name, type] of types) {
    if (!type) throw new ScrimError('INVALID_MODEL', `the type of '${name}' is not known`);
    const isSelected = name === place.boxes || name === place.scores;
    graph.addOutput(name, type.dtype, isSelected ? [batch, sent, type.shape?.[2] ?? ''] : type.shape);
  }
  graph.addOutput(place.rows, 'int32', [batch, sent]);
  graph.addOutput(place.anchors, 'int32', [batch, 1]);
  graph.setMetadata(METADATA_KEY, String(candidates));
  return { ...model, graph };
}

/** How many candidates a remote model sends at most; 'all' where it sends the rows of all anchors, or has none. */
export function candidatesOf(graph: Graph): number | 'all' {
  const text = graph.metadata.get(METADATA_KEY);
  return text === undefined ? 'all' : Number(text);
}

/** Highest probability of an object, [N, P, 1]. */
function objectScores(graph: Graph, scores: string, classes: number): string {
  // Operator sets from 18 on: how many parts there are is said, and axes are an input.
  const isLater = graph.opset >= 18;
  if (classes === 2) {
    // A Slice of every other number, or a Gather, takes onnxruntime three times as long.
    return (
      graph.addMany('Split', [scores], { axis: 2, ...(isLater ? { num_outputs: 2 } : {}) }, { outputs: 2 })[1] ?? ''
    );
  }
  const bound = (name: string, value: number): string => graph.addInitializer(name, int64([value]));
  const [from, to, axis] = [bound('object', 1), bound('classes', classes), bound('class_axis', 2)];
  const objects = graph.add('Slice', [scores, from, to, axis]);
  return isLater ? graph.add('ReduceMax', [objects, axis]) : graph.add('ReduceMax', [objects], { axes: [2] });
}

function placeOf({ graph }: RemoteModel, described: CandidateTask): Place {
  const names = candidateNames(described);
  if (!names) return { reason: 'the bundle is not for a detector with boxes and scores' };
  if (graph.opset < LEAST_OPSET) {
    return { reason: `the model has operator set ${graph.opset}, expected ${LEAST_OPSET} or later` };
  }
  const [boxes, scores] = [names.boxes, names.scores].map((name) => graph.declaredType(name));
  const isRows = (type: typeof boxes): boolean => type?.dtype === 'float32' && type.shape?.length === 3;
  const classes = scores?.shape?.[2];
  return isRows(boxes) && isRows(scores) && typeof classes === 'number' && classes >= 2
    ? names
    : { reason: 'its boxes and scores are not declared as float32 [N, P, 4] and [N, P, C], background first' };
}
