/**
 * The smallest model that makes a runtime start: y = Neg(x), float32 [1]. Engines load and run it when they are
 * created, so that a provider which is listed but can't start (no GPU, no driver, no .wasm file) fails there, by name.
 *
 * Written out as protobuf: ModelProto { ir_version 8, opset_import { version 13 }, graph { node, input, output } };
 * each pair of bytes is field number and wire type, then a length or a value.
 */
import { float32 } from '../tensor.js';
import type { Backend } from './backend.js';

/** Loads and runs the probe on `backend`; rejects as the backend does. */
export async function probe(backend: Backend, threads: number): Promise<void> {
  const { graph } = await backend.load(unaryModel('Neg', FLOAT, 1), { threads, optimize: 'all', resident: {} });
  try {
    await backend.run(graph, { x: float32([1], [1]) }, { fetches: ['y'], transfer: false });
  } finally {
    await backend.release(graph);
  }
}

const FLOAT = 1;

/**
 * y = operator(x) of an element type, by its number in ONNX, as an encoded model.
 * @param size the only dimension, below 128; of any shape without it
 */
export function unaryModel(operator: string, elementType: number, size?: number): Uint8Array {
  const text = (value: string): number[] => [...value].map((letter) => letter.charCodeAt(0));
  const field = (number: number, bytes: number[]): number[] => [(number << 3) | 2, bytes.length, ...bytes];
  const varint = (number: number, value: number): number[] => [number << 3, value];
  const node = [...field(1, text('x')), ...field(2, text('y')), ...field(4, text(operator))];
  const shape = size === undefined ? [] : field(2, field(1, varint(1, size)));
  const type = field(1, [...varint(1, elementType), ...shape]);
  const value = (name: string): number[] => [...field(1, text(name)), ...field(2, type)];
  const graph = [...field(1, node), ...field(2, text('probe')), ...field(11, value('x')), ...field(12, value('y'))];
  return Uint8Array.from([...varint(1, 8), ...field(7, graph), ...field(8, varint(2, 13))]);
}
