import { describe, expect, it } from 'vitest';
import { float32, int64 } from '../tensor.js';
import { Graph } from './graph.js';
import { inferShapes } from './shape-inference.js';

describe('inferShapes', () => {
  it('keeps symbols and computes sizes from them', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', ['N', 3, 'H', 'W']);
    const w = graph.addInitializer('w', float32([8, 3, 3, 3], new Float32Array(216)));
    const c = graph.add('Conv', ['x', w], { strides: [2, 2], pads: [1, 1, 1, 1] }, { outputs: ['c'] });
    const w2 = graph.addInitializer('w2', float32([8, 8, 3, 3], new Float32Array(576)));
    graph.add('Conv', [c, w2], { strides: [2, 2], pads: [1, 1, 1, 1] }, { outputs: ['d'] });
    graph.add('Shape', ['d'], {}, { outputs: ['s'] });
    const two = graph.addInitializer('two', int64([2]));
    graph.add('Gather', ['s', graph.addInitializer('i0', int64([0]))], {}, { outputs: ['n'] });
    graph.add('Concat', ['n', graph.addInitializer('m1', int64([-1])), two], { axis: 0 }, { outputs: ['target'] });
    graph.add('Reshape', ['d', 'target'], {}, { outputs: ['r'] });
    graph.addOutput('r', 'float32', undefined);
    const types = inferShapes(graph);
    expect(types.get('c')?.shape).toEqual(['N', 8, 'floor((H+1)/2)', 'floor((W+1)/2)']);
    expect(types.get('d')?.shape).toEqual(['N', 8, 'floor((H+3)/4)', 'floor((W+3)/4)']);
    expect(types.get('r')?.shape).toEqual(['N', '4*floor((H+3)/4)*floor((W+3)/4)', 2]);
    const sized = inferShapes(graph, { inputShapes: { x: [2, 3, 17, 33] } });
    expect(sized.get('d')?.shape).toEqual([2, 8, 5, 9]);
    expect(sized.get('r')?.shape).toEqual([2, 4 * 5 * 9, 2]);
  });
});
