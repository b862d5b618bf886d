/** `scrim model inspect`: operators of a model, and which can run, be differentiated, be cut. */
import { type Engine, ScrimError } from 'scrim';
import { differentiability } from 'scrim/autodiff';
import { createNodeEngine } from 'scrim/node';
import { extractGraph, type Graph, inferShapes, type NodeProto, valueInfo } from 'scrim/onnx';
import { listCuts } from 'scrim/split';
import type { CommandContext } from '../context.js';
import { loadModelSource } from '../model-source.js';
import { formatTable } from '../table.js';

/** One operator of a model. */
interface OperatorRow {
  readonly operator: string;
  count: number;
  /** 'unknown' where the model does not run and shapes do not say what this node would be fed. */
  runs: 'yes' | 'no' | 'unknown';
  gradient: 'yes' | 'no' | 'stops';
  /** Nodes behind which one tensor cuts the model. */
  cuts: number;
  reasons: string[];
}

export async function modelInspect(
  context: CommandContext,
  options: { json?: boolean },
  [spec = 'faceboxes']: string[],
): Promise<void> {
  const { graph, name, source } = await loadModelSource(spec);
  const gradients = differentiability(graph);
  // Whether the runtime takes the model is asked of the runtime itself.
  const engine = await createNodeEngine({ thread: 'inline', threads: 1 });
  context.onClose(() => engine.close());
  const refusal = await refusalOf(engine, graph);
  const cuts = listCuts(graph);
  const cutNames = new Set(cuts.map((cut) => cut.name));
  const rows = new Map<string, OperatorRow>();
  const nodes = graph.nodes();
  for (const [i, { operator, differentiable, reason }] of gradients.entries()) {
    const node = nodes[i] as NodeProto;
    let row = rows.get(operator);
    if (!row) {
      const runs = refusal === undefined ? { runs: 'yes' as const } : await tryAlone(engine, graph, node);
      row = {
        operator,
        count: 0,
        runs: runs.runs,
        gradient: differentiable,
        cuts: 0,
        reasons: runs.reason ? [runs.reason] : [],
      };
      rows.set(operator, row);
    }
    row.count++;
    if (node.output.some((output) => cutNames.has(output))) row.cuts++;
    if (differentiable === 'no') {
      row.gradient = 'no';
      if (reason !== undefined && !row.reasons.includes(reason)) row.reasons.push(reason);
    }
  }
  const operators = [...rows.values()];
  const result = {
    name,
    source,
    opset: graph.opset,
    nodes: nodes.length,
    runs: refusal === undefined,
    ...(refusal === undefined ? {} : { runError: refusal }),
    engine: engine.description,
    operators: operators.map(({ reasons, ...row }) => ({
      ...row,
      ...(reasons.length === 0 ? {} : { reason: reasons.join('; ') }),
    })),
    differentiable: gradients.every(({ differentiable }) => differentiable !== 'no'),
    cuts: cuts.map((cut) => ({ name: cut.name, headNodes: cut.headNodes, tailNodes: cut.tailNodes })),
  };
  if (options.json) return context.printJson(result);
  context.print(`${name} (${source}), opset ${result.opset}, ${result.nodes} nodes`);
  context.print(`runs on ${engine.description}: ${refusal === undefined ? 'yes' : `no: ${refusal}`}`);
  context.print('');
  context.print(
    formatTable(
      ['operator', 'nodes', 'runs', 'gradient', 'cuts', 'why not'],
      operators.map((row) => [
        row.operator,
        String(row.count),
        row.runs,
        row.gradient,
        String(row.cuts),
        row.reasons.join('; '),
      ]),
    ),
  );
  context.print('');
  context.print(
    cuts.length === 0
      ? 'no single tensor cuts this model; see scrim split plan --max-tensors'
      : `${cuts.length} cuts of one tensor, from '${cuts[0]?.name}' to '${cuts.at(-1)?.name}' (scrim split plan lists them)`,
  );
}

/** Why the runtime does not load a graph; undefined if it does. */
async function refusalOf(engine: Engine, graph: Graph): Promise<string | undefined> {
  try {
    const session = await engine.load(graph.encode());
    await session.close();
    return undefined;
  } catch (error) {
    return error instanceof ScrimError ? error.message : String(error);
  }
}

/** What inference can't type is most often what the runtime does not know either; it says so by the operator's name. */
const UNTYPED = { dtype: 'float32', shape: undefined } as const;

/** Whether the runtime takes a node of a model that it refuses as a whole. */
async function tryAlone(
  engine: Engine,
  graph: Graph,
  node: NodeProto,
): Promise<Pick<OperatorRow, 'runs'> & { readonly reason?: string }> {
  let alone: Graph;
  try {
    const types = inferShapes(graph);
    const named = (values: readonly string[]): string[] => [...new Set(values)].filter((value) => value !== '');
    const fed = named(node.input).filter((value) => graph.initializer(value) === undefined);
    if (fed.some((value) => !types.has(value))) return { runs: 'unknown' };
    alone = extractGraph(graph, {
      name: node.opType,
      nodes: new Set([node]),
      inputs: fed.map((value) => valueInfo(value, types.get(value) ?? UNTYPED)),
      outputs: named(node.output).map((value) => valueInfo(value, types.get(value) ?? UNTYPED)),
    });
  } catch {
    return { runs: 'unknown' };
  }
  const reason = await refusalOf(engine, alone);
  return reason === undefined ? { runs: 'yes' } : { runs: 'no', reason };
}
