/** `scrim model inspect`: operators of a model, and which can run, be differentiated, be cut. */
import { ScrimError } from 'scrim';
import { differentiability } from 'scrim/autodiff';
import { createNodeEngine } from 'scrim/node';
import { listCuts } from 'scrim/split';
import type { CommandContext } from '../context.js';
import { loadModelSource } from '../model-source.js';
import { formatTable } from '../table.js';

export async function modelInspect(
  context: CommandContext,
  options: { json?: boolean },
  [spec = 'faceboxes']: string[],
): Promise<void> {
  const { graph, name, source } = await loadModelSource(spec);
  const gradients = differentiability(graph);
  const operators = new Map<string, { count: number; gradient: string; reason: string }>();
  for (const { operator, differentiable, reason } of gradients) {
    const known = operators.get(operator);
    if (known) {
      known.count++;
      if (differentiable === 'no') Object.assign(known, { gradient: 'no', reason: reason ?? '' });
    } else {
      operators.set(operator, { count: 1, gradient: differentiable, reason: reason ?? '' });
    }
  }
  // Whether the runtime takes the model is asked of the runtime itself.
  const engine = await createNodeEngine({ thread: 'inline', threads: 1 });
  context.onClose(() => engine.close());
  let runs = 'yes';
  try {
    const session = await engine.load(graph.encode());
    await session.close();
  } catch (error) {
    runs = error instanceof ScrimError ? `no: ${error.message}` : `no: ${String(error)}`;
  }
  const cuts = listCuts(graph);
  const result = {
    name,
    source,
    opset: graph.opset,
    nodes: graph.nodes().length,
    runs: runs === 'yes',
    ...(runs === 'yes' ? {} : { runError: runs.slice(4) }),
    engine: engine.description,
    operators: [...operators].map(([operator, { count, gradient, reason }]) => ({
      operator,
      count,
      gradient,
      ...(reason === '' ? {} : { reason }),
    })),
    differentiable: gradients.every(({ differentiable }) => differentiable !== 'no'),
    cuts: cuts.map((cut) => ({ name: cut.name, headNodes: cut.headNodes, tailNodes: cut.tailNodes })),
  };
  if (options.json) return context.printJson(result);
  context.print(`${name} (${source}), opset ${result.opset}, ${result.nodes} nodes`);
  context.print(`runs on ${engine.description}: ${runs}`);
  context.print('');
  context.print(
    formatTable(
      ['operator', 'nodes', 'gradient', 'why not'],
      result.operators.map((row) => [row.operator, String(row.count), row.gradient, row.reason ?? '']),
    ),
  );
  context.print('');
  context.print(
    cuts.length === 0
      ? 'no single tensor cuts this model; see scrim split plan --max-tensors'
      : `${cuts.length} cuts of one tensor, from '${cuts[0]?.name}' to '${cuts.at(-1)?.name}' (scrim split plan lists them)`,
  );
}
