/**
 * What a person needs to choose where to cut: the model's inputs and outputs, its cuts in order of preference, and, where
 * cuts are missing, which input reaches how far.
 */
import { countFlops, type Graph, inferShapes } from '../onnx/index.js';
import { findActivations } from './activation-flow.js';
import { type Cut, type CutTensor, describeTensor, type ListCutsOptions, listCuts } from './list-cuts.js';

/** A cut with its rank. */
export interface RankedCut extends Cut {
  /** Lower is better, see {@link rankCuts}; undefined where a size is unknown or noise can't be added. */
  readonly score: number | undefined;
}

/**
 * Ranks cuts, best first: `score = ratioFp16 + headShare`, what is sent compared with the input plus the share of the work
 * that stays on the trusted side, both without unit. Cuts that can't take noise or have no score keep their order at the
 * end. It says nothing about privacy: measure that.
 */
export function rankCuts(cuts: readonly Cut[]): RankedCut[] {
  return cuts
    .map((cut): RankedCut => {
      const { isFloat, ratioFp16, headShare } = cut;
      const scored = isFloat && ratioFp16 !== undefined && headShare !== undefined;
      return { ...cut, score: scored ? ratioFp16 + headShare : undefined };
    })
    .sort((a, b) => (a.score ?? Number.POSITIVE_INFINITY) - (b.score ?? Number.POSITIVE_INFINITY) || 0);
}

/** How far a fed input is read directly: no cut lies before its last reader. */
export interface InputReach {
  readonly input: string;
  /** Last node that reads the input itself; '' where the input is an output, too. */
  readonly lastReader: string;
  /** Position of that node among {@link SplitReport.nodes}, from 1. */
  readonly position: number;
}

/** What `scrim split plan` shows. */
export interface SplitReport {
  readonly inputs: readonly CutTensor[];
  readonly outputs: readonly CutTensor[];
  /** Nodes between inputs and outputs. */
  readonly nodes: number;
  /** Floating-point operations of these nodes in one run, as far as they could be counted. */
  readonly flops: number;
  /** Operators whose operations could not be counted, with how many nodes each: unknown ones or with symbolic sizes. */
  readonly uncounted: Readonly<Record<string, number>>;
  /** The cuts, best first. */
  readonly cuts: readonly RankedCut[];
  readonly reach: readonly InputReach[];
}

/** Lists and ranks the cuts of `graph`. @throws ScrimError as {@link listCuts}. */
export function splitReport(graph: Graph, options: ListCutsOptions = {}): SplitReport {
  const { inputShapes } = options;
  const types = inferShapes(graph, inputShapes ? { inputShapes } : {});
  const flops = countFlops(graph, types);
  const { nodes, activations } = findActivations(graph);
  const uncounted: Record<string, number> = {};
  let total = 0;
  for (const node of nodes) {
    const count = flops.of(node);
    if (count === undefined) uncounted[node.opType] = (uncounted[node.opType] ?? 0) + 1;
    else total += count;
  }
  return {
    inputs: graph.inputNames.map((name) => describeTensor(name, types)),
    outputs: graph.outputNames.map((name) => describeTensor(name, types)),
    nodes: nodes.length,
    flops: total,
    uncounted,
    cuts: rankCuts(listCuts(graph, options)),
    reach: graph.inputNames.flatMap((input): InputReach[] => {
      const until = activations.get(input)?.until;
      if (until === undefined) return [];
      const node = nodes[until];
      return [
        {
          input,
          lastReader: node ? node.name || node.output[0] || '' : '',
          position: Math.min(until + 1, nodes.length),
        },
      ];
    }),
  };
}
