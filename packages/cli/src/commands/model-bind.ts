/**
 * `scrim model bind`: a model with some inputs made constant, sizes made definite and element types made float32, so that it
 * can be cut and fitted.
 */
import { existsSync } from 'node:fs';
import { ScrimError, sizeOf, type Tensor, tensor } from 'scrim';
import { writeFileAtomically } from 'scrim/node';
import { bindInputs, type Dimension, type Graph, inferShapes, toFloat32 } from 'scrim/onnx';
import type { CommandContext } from '../context.js';
import { loadModelSource } from '../model-source.js';

export async function modelBind(
  context: CommandContext,
  options: {
    out: string;
    value?: readonly string[];
    shape?: readonly string[];
    float32?: boolean;
    force?: boolean;
    json?: boolean;
  },
  [spec = '']: string[],
): Promise<void> {
  if (existsSync(options.out) && !options.force) {
    throw new ScrimError('ALREADY_EXISTS', `'${options.out}' exists; --force replaces it`);
  }
  const { graph: source } = await loadModelSource(spec);
  const graph = options.float32 ? toFloat32(source) : source;
  const shapes = Object.fromEntries((options.shape ?? []).map((text) => parseShape(text)));
  const given = (options.value ?? []).map((text) => assignment('--value', text));
  // Sizes first: a value of zeros takes its size from them.
  const names = new Set(given.map(([name]) => name));
  const sized = bindInputs(graph, { shapes });
  const values = Object.fromEntries(given.map(([name, text]) => [name, parseValue(sized, name, text)]));
  const bound = names.size === 0 ? sized : bindInputs(graph, { values, shapes: without(shapes, names) });
  const bytes = bound.encode();
  await writeFileAtomically(options.out, bytes);
  const describe = (name: string): { name: string; shape: readonly Dimension[] | undefined } => ({
    name,
    shape: bound.declaredType(name)?.shape,
  });
  const result = {
    out: options.out,
    bytes: bytes.length,
    nodes: bound.nodes().length,
    inputs: bound.inputNames.map(describe),
    outputs: bound.outputNames.map(describe),
  };
  if (options.json) return context.printJson(result);
  const show = ({ name, shape }: (typeof result.inputs)[number]): string => `${name} [${shape?.join(', ') ?? '?'}]`;
  context.print(`${options.out}: ${result.nodes} nodes`);
  context.print(`inputs ${result.inputs.map(show).join(', ')}; outputs ${result.outputs.map(show).join(', ')}`);
}

function without(
  shapes: Readonly<Record<string, readonly Dimension[]>>,
  names: ReadonlySet<string>,
): Record<string, readonly Dimension[]> {
  return Object.fromEntries(Object.entries(shapes).filter(([name]) => !names.has(name)));
}

function assignment(flag: string, text: string): [string, string] {
  const at = text.lastIndexOf('=');
  if (at < 1) throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected a name, '=' and numbers`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function parseShape(text: string): [string, Dimension[]] {
  const [name, sizes] = assignment('--shape', text);
  const shape = sizes.split(',').map((size): Dimension => (/^\d+$/.test(size.trim()) ? Number(size) : size.trim()));
  return [name, shape];
}

/** Numbers for every element, or one for all of them. */
function parseValue(graph: Graph, name: string, text: string): Tensor {
  const type = inferShapes(graph).get(name);
  if (!graph.isInput(name) || !type) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--value: '${name}' is no input; inputs are ${graph.inputNames.join(', ')}`,
    );
  }
  if (!type.shape?.every((size) => typeof size === 'number')) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--value: the sizes of '${name}' [${type.shape?.join(', ') ?? '?'}] are open: give them with --shape ${name}=…`,
    );
  }
  const numbers = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const shape = type.shape as readonly number[];
  const size = sizeOf(shape);
  if (numbers.some((value) => !Number.isFinite(value))) {
    throw new ScrimError('INVALID_ARGUMENT', `--value ${name} is no list of numbers separated by commas`);
  }
  if (numbers.length !== 1 && numbers.length !== size) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--value ${name} has ${numbers.length} numbers, expected ${size}, or one for all`,
    );
  }
  const { dtype } = type;
  if (dtype === 'string' || dtype === 'float16' || dtype === 'bfloat16') {
    throw new ScrimError('UNSUPPORTED', `--value: input '${name}' is ${dtype}`);
  }
  const { data } = tensor(dtype, shape);
  for (let i = 0; i < size; i++) {
    const value = numbers[numbers.length === 1 ? 0 : i] as number;
    data[i] = typeof data[i] === 'bigint' ? BigInt(Math.trunc(value)) : value;
  }
  return { dtype, shape, data };
}
