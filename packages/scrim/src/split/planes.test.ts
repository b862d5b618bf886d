import { describe, expect, it } from 'vitest';
import { runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { Graph } from '../onnx/index.js';
import { cutInPlanes } from './planes.js';
import { splitAt } from './split-at.js';

function model(opset: number, shape: readonly (number | string)[]): Graph {
  const graph = Graph.create({ opset });
  graph.addInput('x', 'float32', shape);
  graph.add('Tanh', ['x'], {}, { outputs: ['cut'] });
  graph.add('Exp', ['cut'], {}, { outputs: ['e'] });
  graph.add('Add', ['e', 'cut'], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', shape);
  return graph;
}

describe('cutInPlanes', () => {
  it.each([
    [11, ['N', 3]],
    [17, ['N', 3]],
    [22, ['N', 3, 5]],
  ])('opset %i, %j: the halves make the same answer over four axes', async (opset, shape) => {
    const graph = model(opset, shape);
    const planar = cutInPlanes(graph, 'cut');
    expect(planar.cut).toBe('cut/planes');
    // The noise of a bundle without models names the tensor it was made for.
    expect(cutInPlanes(graph, planar.cut).cut).toBe(planar.cut);
    expect(cutInPlanes(planar.graph, planar.cut)).toEqual({ graph: planar.graph, cut: planar.cut });
    const { head, tail } = splitAt(planar.graph, [planar.cut]);
    const x = sampleTensor('float32', [2, ...(shape.slice(1) as number[])]);
    const activation = await runOnnx(head.encode(), { x });
    expect(activation[planar.cut]?.shape).toEqual(shape.length === 2 ? [2, 3, 1, 1] : [2, 3, 1, 5]);
    expect(await runOnnx(tail.encode(), activation)).toEqual(await runOnnx(graph.encode(), { x }));
  });

  it('leaves four axes alone and refuses what is no channel', () => {
    const four = model(17, ['N', 3, 2, 2]);
    expect(cutInPlanes(four, 'cut')).toEqual({ graph: four, cut: 'cut' });
    expect(() => cutInPlanes(model(17, ['N']), 'cut')).toThrow(/'cut' has 1 axes/);
    expect(() => cutInPlanes(model(17, ['N', 2]), 'none')).toThrow(/no value/);
  });
});
