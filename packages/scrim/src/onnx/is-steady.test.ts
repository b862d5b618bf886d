import { describe, expect, it } from 'vitest';
import { float32, int64 } from '../tensor.js';
import { decodeModel } from './codec.js';
import { Graph } from './graph.js';
import { isSteady } from './is-steady.js';

function model(build: (graph: Graph) => void): ReturnType<typeof decodeModel> {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['n', 4]);
  build(graph);
  graph.addOutput('y', 'float32', ['n', 'm']);
  return decodeModel(graph.encode());
}

describe('isSteady', () => {
  it('holds for operators whose work follows from shapes', () => {
    const steady = model((graph) => {
      const weights = graph.addInitializer('w', float32([4, 2], new Float32Array(8)));
      graph.add('Relu', [graph.add('MatMul', ['x', weights])], {}, { outputs: ['y'] });
    });
    expect(isSteady(steady)).toBe(true);
  });

  it('does not hold where values say how much there is to do, or where nobody knows', () => {
    const tiled = model((graph) => {
      graph.addInput('times', 'int64', [2]);
      graph.add('Tile', ['x', 'times'], {}, { outputs: ['y'] });
    });
    expect(isSteady(tiled)).toBe(false);
    const expanded = model((graph) => {
      graph.add('Expand', ['x', graph.addInitializer('s', int64([2n, 4n], [2]))], {}, { outputs: ['y'] });
    });
    expect(isSteady(expanded)).toBe(false);
    const foreign = model((graph) => {
      graph.add('Relu', ['x'], {}, { outputs: ['y'] });
    });
    expect(isSteady(foreign)).toBe(true);
    foreign.graph!.node[0]!.domain = 'com.example';
    expect(isSteady(foreign)).toBe(false);
  });
});
