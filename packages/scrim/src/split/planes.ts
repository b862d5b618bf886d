/**
 * A release is [1, C, H, W]. Cuts of other ranks are brought to that form inside the model: the head ends with a node that
 * gives the tensor axes of size 1, the tail begins with one that takes them away again, so that a vector [N, C] travels
 * as [N, C, 1, 1] and a sequence [N, C, T] as [N, C, 1, T]. Nothing else changes.
 */
import { assertArgument, ScrimError } from '../errors.js';
import { Graph, inferShapes } from '../onnx/index.js';
import { int64 } from '../tensor.js';

/** What the name of a tensor becomes when it is brought to planes. */
const SUFFIX = '/planes';

/** A graph and the tensor to cut it at. */
export interface PlanarCut {
  readonly graph: Graph;
  readonly cut: string;
}

/**
 * The graph itself if `cut` has four axes, else a copy with a tensor of four in its place. A name that an earlier call made
 * is understood, too.
 * @throws ScrimError INVALID_ARGUMENT if the graph has no such value; UNSUPPORTED for ranks other than 2, 3 and 4, for a
 * rank that can't be told, and for a tensor that a subgraph reads
 */
export function cutInPlanes(graph: Graph, cut: string): PlanarCut {
  const name = !graph.has(cut) && cut.endsWith(SUFFIX) ? cut.slice(0, -SUFFIX.length) : cut;
  assertArgument(graph.has(name), `can't cut at '${name}': the graph has no value of that name`);
  const type = inferShapes(graph).get(name);
  const rank = type?.shape?.length;
  if (rank === 4) return { graph, cut: name };
  if (rank !== 2 && rank !== 3) {
    throw new ScrimError(
      'UNSUPPORTED',
      `'${name}' has ${rank === undefined ? 'a rank that is not known: bind the sizes of the inputs' : `${rank} axes`}; ` +
        'noise is added to [N, C], [N, C, T] and [N, C, H, W]',
    );
  }
  if (graph.isInput(name) || graph.isOutput(name)) return { graph, cut: name };
  const copy = graph.clone();
  const axes = rank === 2 ? [2, 3] : [2];
  const reshape = (opType: string, value: string, output?: string): string => {
    const options = output === undefined ? {} : { outputs: [output] };
    if (copy.opset < 13) return copy.add(opType, [value], { axes }, options);
    return copy.add(opType, [value, copy.addInitializer(`${name}${SUFFIX}_axes`, int64(axes))], {}, options);
  };
  const wide = reshape('Unsqueeze', name, `${name}${SUFFIX}`);
  const maker = copy.producer(wide);
  copy.replaceUses(name, reshape('Squeeze', wide), maker ? [maker] : []);
  return { graph: new Graph(copy.model), cut: wide };
}
