import { describe, expect, it } from 'vitest';
import { float32, int64 } from '../tensor.js';
import { float } from './attributes.js';
import { Graph } from './graph.js';

describe('Graph', () => {
  it('builds, encodes, decodes and prunes', () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', ['N', 4]);
    const w = graph.addInitializer('w', float32([4, 2], [1, 2, 3, 4, 5, 6, 7, 8]));
    const y = graph.add('Gemm', ['x', w], { alpha: float(0.5), transB: 0 }, { outputs: ['y'] });
    graph.add('Relu', [y]);
    graph.addInitializer('unused', int64([1]));
    graph.addOutput('y', 'float32', ['N', 2]);
    graph.prune();
    const again = Graph.decode(graph.encode());
    expect(again.nodes().map((node) => node.opType)).toEqual(['Gemm']);
    expect(again.initializerNames).toEqual(['w']);
    expect(again.initializer('w')?.shape).toEqual([4, 2]);
    expect(again.declaredType('x')).toEqual({ dtype: 'float32', shape: ['N', 4] });
    expect(again.producer('y')?.opType).toBe('Gemm');
    expect(again.opset).toBe(17);
  });
});
