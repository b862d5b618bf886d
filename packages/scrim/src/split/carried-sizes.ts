/**
 * Sizes that go past a cut: shapes of the input, or of what the head makes, that the tail computes with.
 *
 * Exporters often read a batch's size off the input once and use it everywhere. What crosses the cut has that size, too: a
 * tail reads it off the tensor it gets. This holds for small integer tensors each element of which shape inference knows as
 * a number or as a size of a crossing tensor; everything computed from those alone follows.
 */
import { type Dimension, type Graph, inferSizes, type ValueType } from '../onnx/index.js';
import { int64 } from '../tensor.js';

/** Small integer tensors of a graph that follow from sizes, by name. */
export type Sizes = ReturnType<typeof inferSizes>;

/** Those of a graph that nodes make and that are no answers. */
export function findSizes(graph: Graph): Sizes {
  const sizes = inferSizes(graph);
  for (const [name, { dtype }] of sizes) {
    if (dtype === 'bool' || graph.isOutput(name) || !graph.producer(name)) sizes.delete(name);
  }
  return sizes;
}

/** Names of the sizes that can be read off `tensors`, or are numbers. */
export function readableSizes(
  sizes: Sizes,
  tensors: readonly string[],
  types: ReadonlyMap<string, ValueType>,
): Set<string> {
  const known = new Set<Dimension>(tensors.flatMap((name) => types.get(name)?.shape ?? []));
  const readable = new Set<string>();
  for (const [name, { elements }] of sizes) {
    if (elements.every((element) => typeof element === 'number' || known.has(element))) readable.add(name);
  }
  return readable;
}

/** Reads the tail's inputs called `names` off the tensors that cross, in place. */
export function readSizes(
  tail: Graph,
  names: readonly string[],
  sizes: Sizes,
  tensors: readonly string[],
  types: ReadonlyMap<string, ValueType>,
): void {
  for (const name of names) {
    const { dtype, shape, elements } = sizes.get(name) as NonNullable<ReturnType<Sizes['get']>>;
    const constant = (values: readonly number[]): string => tail.addInitializer(`${name}/size`, int64(values));
    const parts = elements.map((element) => {
      if (typeof element === 'number') return constant([element]);
      const tensor = tensors.find((each) => types.get(each)?.shape?.includes(element)) as string;
      const axis = types.get(tensor)?.shape?.indexOf(element) ?? 0;
      return tail.add('Gather', [tail.add('Shape', [tensor]), constant([axis])], { axis: 0 });
    });
    const row = parts.length === 0 ? constant([]) : tail.add('Concat', parts, { axis: 0 });
    const shaped = tail.add('Reshape', [row, constant(shape as readonly number[])]);
    const value = dtype === 'int32' ? tail.add('Cast', [shaped], { to: INT32 }) : shaped;
    tail.bindInput(name, value);
  }
}

/** ONNX's code of the element type int32. */
const INT32 = 6;
