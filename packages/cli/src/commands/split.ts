/** `scrim split` and `scrim split plan`: where a model can be cut, and the two models that come of it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ScrimError } from 'scrim';
import { writeFilesAtomically } from 'scrim/node';
import { splitAt, splitReport } from 'scrim/split';
import type { CommandContext } from '../context.js';
import { loadModelSource } from '../model-source.js';
import { formatBytes, formatTable } from '../table.js';

export async function split(
  context: CommandContext,
  options: { model: string; cut?: string; out?: string; force?: boolean; json?: boolean },
): Promise<void> {
  if (options.out === undefined)
    throw new ScrimError('INVALID_ARGUMENT', '--out names no directory for the two models');
  const { graph, cut: natural } = await loadModelSource(options.model);
  const names = (options.cut ?? natural)?.split(',').map((name) => name.trim());
  if (!names) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      "this model names no cut: choose one with --cut; 'scrim split plan' lists them",
    );
  }
  const files = { head: join(options.out, 'head.onnx'), tail: join(options.out, 'tail.onnx') };
  for (const file of Object.values(files)) {
    if (existsSync(file) && !options.force)
      throw new ScrimError('ALREADY_EXISTS', `'${file}' exists; --force replaces it`);
  }
  const { head, tail } = splitAt(graph, names);
  await writeFilesAtomically(
    new Map([
      [files.head, head.encode()],
      [files.tail, tail.encode()],
    ]),
  );
  const result = {
    cut: names,
    head: { file: files.head, inputs: head.inputNames, nodes: head.nodes().length },
    tail: { file: files.tail, outputs: tail.outputNames, nodes: tail.nodes().length },
  };
  if (options.json) return context.printJson(result);
  context.print(`cut at ${names.join(' + ')}`);
  context.print(`${files.head}: ${result.head.nodes} nodes; stays where the data is trusted`);
  context.print(`${files.tail}: ${result.tail.nodes} nodes; goes anywhere`);
}

export async function splitPlan(
  context: CommandContext,
  options: { model: string; size: number; inputShape?: string; maxTensors: number; json?: boolean },
): Promise<void> {
  const { graph, input, detector } = await loadModelSource(options.model);
  const shape = options.inputShape
    ? parseShape(options.inputShape)
    : detector
      ? [1, 3, options.size, options.size]
      : undefined;
  const report = splitReport(graph, {
    maxTensors: options.maxTensors,
    ...(shape ? { inputShapes: { [input]: shape } } : {}),
  });
  if (options.json) return context.printJson({ model: options.model, inputShape: shape, ...report });
  const percent = (share: number | undefined): string => (share === undefined ? '–' : `${(100 * share).toFixed(1)}%`);
  context.print(
    formatTable(
      ['cut', 'shape', 'FP32', 'FP16', 'of input', 'head', 'tail', 'noise fits'],
      report.cuts.map((cut) => [
        cut.name,
        cut.tensors.map((tensor) => `[${tensor.shape?.join(', ') ?? '?'}]`).join(' '),
        cut.bytesFp32 === undefined ? '–' : formatBytes(cut.bytesFp32),
        cut.bytesFp16 === undefined ? '–' : formatBytes(cut.bytesFp16),
        percent(cut.ratioFp32),
        percent(cut.headShare),
        percent(cut.tailShare),
        cut.isFloat ? 'yes' : 'no',
      ]),
    ),
  );
  context.print('');
  context.print(
    `${report.cuts.length} cuts of at most ${options.maxTensors} tensors, ${formatFlops(report.flops)} a run` +
      (shape ? ` at [${shape.join(', ')}]` : ''),
  );
  const uncounted = Object.entries(report.uncounted).map(([operator, nodes]) => `${operator} (${nodes})`);
  if (uncounted.length > 0) {
    context.print(`not counted, unknown or of symbolic size: ${uncounted.join(', ')}; --input-shape makes sizes known`);
  }
}

/** Operations with a decimal unit, such as '1.83 GFLOP'. */
function formatFlops(flops: number): string {
  const [unit, size] =
    flops >= 1e9 ? (['GFLOP', 1e9] as const) : flops >= 1e6 ? (['MFLOP', 1e6] as const) : (['kFLOP', 1e3] as const);
  return `${(flops / size).toFixed(2)} ${unit}`;
}

function parseShape(text: string): number[] {
  const shape = text.split(/[,x×]/).map(Number);
  if (shape.length === 0 || shape.some((dimension) => !Number.isSafeInteger(dimension) || dimension < 1)) {
    throw new ScrimError('INVALID_ARGUMENT', `--input-shape is '${text}', expected integers such as 1,3,1024,1024`);
  }
  return shape;
}
