/**
 * Which values of the remote half an attacker's decoder looks at besides the release.
 *
 * The remote half was trained to make sense of releases, and the attacker has it: what it computes at the release's own
 * height and width is a ready-made denoiser. Two values are taken: the end of the stem, the last one before the graph
 * first branches (D(h) of a bottleneck), and the deepest one that every path to the answer passes (the end of the third
 * inception block of FaceBoxes). Both are found from the graph, so any image model will do.
 */
import { ScrimError } from '../errors.js';
import { type Graph, inferShapes, type NodeProto, usedBy } from '../onnx/index.js';
import type { AttackData } from './attack.js';

/** A value of the remote half of the release's height and width. */
export interface RemoteFeature {
  readonly name: string;
  readonly channels: number;
}

/** Operators that look at a value's shape, not at its content. */
const SHAPE_ONLY = new Set(['Shape', 'Size']);

/**
 * Finds the features of a remote model for releases of `shape`: none, one or two, in the order of the graph.
 * @throws ScrimError UNSUPPORTED unless the remote model has one input
 */
export function findRemoteFeatures(remote: Graph, shape: AttackData['shape']): RemoteFeature[] {
  const [input, ...more] = remote.inputNames;
  if (input === undefined || more.length > 0) {
    throw new ScrimError('UNSUPPORTED', `the remote model has ${remote.inputNames.length} inputs, expected one`);
  }
  const types = inferShapes(remote, { inputShapes: { [input]: [1, ...shape] } });
  const [, height, width] = shape;
  const channelsOf = (value: string): number | undefined => {
    const type = types.get(value);
    const [batch, channels, h, w, ...rest] = type?.shape ?? [];
    const fits = type?.dtype === 'float32' && batch === 1 && h === height && w === width && rest.length === 0;
    return fits && typeof channels === 'number' ? channels : undefined;
  };

  const candidates: string[] = [];
  for (const node of remote.nodes()) {
    const [value = ''] = node.output;
    if (channelsOf(value) !== undefined && isPassage(remote, input, value)) candidates.push(value);
  }
  const found = new Set<string>();
  const stem = stemEnd(remote, input, candidates);
  if (stem !== undefined) found.add(stem);
  const deepest = candidates.at(-1);
  if (deepest !== undefined) found.add(deepest);
  return [...found].map((name) => ({ name, channels: channelsOf(name) as number }));
}

/** True if every path from the input to an output of the graph goes through `value`. */
function isPassage(graph: Graph, input: string, value: string): boolean {
  const reached = new Set([input]);
  for (const node of graph.nodes()) {
    if (!users(node).some((name) => reached.has(name))) continue;
    for (const output of node.output) if (output !== value) reached.add(output);
  }
  return !graph.outputNames.some((name) => name !== value && reached.has(name));
}

/** The last candidate on the chain that begins at the input, up to the first value with several users. */
function stemEnd(graph: Graph, input: string, candidates: readonly string[]): string | undefined {
  const wanted = new Set(candidates);
  let last: string | undefined;
  let value = input;
  for (;;) {
    const next: NodeProto[] = graph.consumers(value).filter((node) => !SHAPE_ONLY.has(node.opType));
    const [only] = next;
    if (only === undefined || next.length > 1) return last;
    value = only.output[0] ?? '';
    if (wanted.has(value)) last = value;
    else if (last !== undefined) return last;
  }
}

function users(node: NodeProto): string[] {
  return SHAPE_ONLY.has(node.opType) ? [] : usedBy(node);
}
