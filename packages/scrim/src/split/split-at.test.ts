import { describe, expect, it } from 'vitest';
import { richModel } from '../../../../test/rich-model.js';
import { runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { ScrimError } from '../errors.js';
import { decodeModel, Graph, valueInfo } from '../onnx/index.js';
import { float32, int64 } from '../tensor.js';
import { listCuts } from './list-cuts.js';
import { splitAt } from './split-at.js';
import { rankCuts, splitReport } from './split-report.js';

function errorOf(action: () => unknown): ScrimError {
  try {
    action();
  } catch (error) {
    if (error instanceof ScrimError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** x -> a -> b -> c -> y with a skip from a to c; d = −b beside it is no one's. */
function skipping(): Graph {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['N', 4]);
  graph.add('Relu', ['x'], {}, { name: 'first', outputs: ['a'] });
  graph.add('Tanh', ['a'], {}, { name: 'second', outputs: ['b'] });
  graph.add('Neg', ['b'], {}, { name: 'idle', outputs: ['d'] });
  graph.add('Add', ['a', 'b'], {}, { name: 'third', outputs: ['c'] });
  graph.add('Exp', ['c'], {}, { name: 'last', outputs: ['y'] });
  graph.addOutput('y', 'float32', ['N', 4]);
  return graph;
}

describe('listCuts', () => {
  it('lists single tensors first, then what crosses beside a skip', () => {
    const cuts = listCuts(skipping(), { maxTensors: 2, inputShapes: { x: [3, 4] } });
    expect(cuts.map(({ name, determined }) => [name, determined])).toEqual([
      ['a', []],
      ['c', []],
      ['a + b', ['b']],
    ]);
    const [a, c, ab] = cuts;
    expect(a).toMatchObject({
      tensors: [{ name: 'a', dtype: 'float32', shape: [3, 4], elements: 12, isFloat: true }],
      isFloat: true,
      bytesFp32: 48,
      bytesFp16: 24,
      ratioFp32: 1,
      ratioFp16: 0.5,
      headNodes: 1,
      tailNodes: 3,
      headFlops: 12,
      tailFlops: 36,
      headShare: 0.25,
      tailShare: 0.75,
    });
    expect(c).toMatchObject({ headNodes: 3, tailNodes: 1, headShare: 0.75 });
    expect(ab).toMatchObject({ bytesFp32: 96, ratioFp32: 2, headNodes: 2, headShare: 0.5 });
  });

  it('leaves sizes open while inputs are symbolic', () => {
    const [a] = listCuts(skipping());
    expect(a).toMatchObject({ bytesFp32: undefined, ratioFp32: undefined, headShare: undefined, headNodes: 1 });
    expect(a?.tensors[0]).toMatchObject({ shape: ['N', 4], elements: undefined });
  });

  it('lists no cut before the last direct use of an input, or past an output', () => {
    const graph = skipping();
    graph.add('Mul', ['y', 'x'], {}, { name: 'gate', outputs: ['z'] });
    graph.add('Abs', ['z'], {}, { outputs: ['w'] });
    graph.add('Sqrt', ['w'], {}, { outputs: ['v'] });
    graph.setOutputs(['v']);
    expect(listCuts(graph).map(({ name }) => name)).toEqual(['z', 'w']);
    expect(splitReport(graph).reach).toEqual([{ input: 'x', lastReader: 'gate', position: 5 }]);
    graph.setOutputs(['v', 'z']);
    expect(listCuts(graph)).toEqual([]);
  });

  it('says that integers can not take noise', () => {
    const graph = Graph.create();
    graph.addInput('x', 'float32', [3, 4]);
    graph.add('ArgMax', ['x'], {}, { outputs: ['best'] });
    graph.add('Cast', ['best'], { to: 1 }, { outputs: ['y'] });
    graph.add('Neg', ['y'], {}, { outputs: ['z'] });
    graph.addOutput('z', 'float32', undefined);
    const [best, y] = listCuts(graph);
    expect(best).toMatchObject({ name: 'best', isFloat: false, bytesFp32: 4 * 8, bytesFp16: 4 * 8 });
    expect(y).toMatchObject({ name: 'y', isFloat: true, bytesFp16: 8 });
    expect(rankCuts([best!, y!]).map(({ name }) => name)).toEqual(['y', 'best']);
  });

  it('takes time in proportion to the graph', () => {
    const graph = Graph.create();
    let value = graph.addInput('x', 'float32', [4]);
    for (let i = 0; i < 3000; i++) value = graph.add('Relu', [value]);
    graph.addOutput(value, 'float32', [4]);
    expect(listCuts(graph, { maxTensors: 4 })).toHaveLength(2999);
  });

  it('refuses a number of tensors that is none', () => {
    for (const maxTensors of [0, 1.5, 17, Number.NaN]) {
      expect(errorOf(() => listCuts(skipping(), { maxTensors })).code).toBe('INVALID_ARGUMENT');
    }
  });
});

describe('splitAt', () => {
  it('names a path that goes past what is no cut', () => {
    const error = errorOf(() => splitAt(skipping(), ['b']));
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect(error.message).toBe(
      "'b' is no cut: the path 'x' -> Relu 'first' -> 'a' -> Add 'third' -> 'c' -> Exp 'last' -> 'y' goes past it",
    );
  });

  it('refuses what can not be cut, and says why', () => {
    const refusal = (...names: string[]): string => {
      const error = errorOf(() => splitAt(skipping(), names));
      expect(error.code).toBe('INVALID_ARGUMENT');
      return error.message;
    };
    expect(refusal()).toContain('names no tensor');
    expect(refusal('x')).toContain('the input itself would cross');
    expect(refusal('y')).toContain('nothing would be left for the tail');
    expect(refusal('nobody')).toContain("no value 'nobody'");
    expect(refusal('d')).toContain('does not lie between');
    expect(refusal('a', 'a')).toContain('twice');
    expect(refusal('a', 'c')).toContain("'a' can't be cut");
    const graph = skipping();
    graph.add('Mystery', ['c'], {}, { domain: 'somewhere', outputs: ['m'] });
    graph.add('Relu', ['m'], {}, { outputs: ['z'] });
    graph.setOutputs(['z']);
    expect(errorOf(() => splitAt(graph, ['m'])).code).toBe('UNSUPPORTED');
  });

  it('keeps functions, subgraphs, sparse weights and metadata where they are needed, and nothing else', async () => {
    const graph = new Graph(richModel());
    const feeds = { x: sampleTensor('float32', [3, 4]) };
    const whole = await runOnnx(graph.encode(), feeds);
    expect(listCuts(graph).map(({ name }) => name)).toEqual(['p', 's', 'q']);
    // The If reads q, and m inside a branch: both cross as edges of the node that holds the branch.
    const names = [['p'], ['s'], ['q'], ['q', 'm'], ['q', 'm', 'c']];
    for (const cut of names) {
      const { head, tail } = splitAt(graph, cut);
      expect(head.outputNames).toEqual(cut);
      const crossing = await runOnnx(head.encode(), feeds);
      expect(await runOnnx(tail.encode(), crossing), cut.join()).toEqual(whole);
      for (const half of [head, tail]) {
        expect(half.opset).toBe(17);
        expect(half.model.metadataProps).toEqual(graph.model.metadataProps);
        expect(half.model.irVersion).toBe(graph.model.irVersion);
        expect(decodeModel(half.encode()).graph?.name).toBe(half.proto.name);
      }
    }
    const { head, tail } = splitAt(graph, ['p']);
    expect(head.initializerNames).toEqual(['w', 'two']); // two: p's quantisation annotation refers to it
    expect(head.model.functions).toEqual([]);
    expect(head.proto.sparseInitializer).toEqual([]);
    expect(tail.initializerNames).toEqual(['two', 'zero']);
    expect(tail.model.functions.map(({ name }) => name)).toEqual(['Scaled']);
    expect(tail.proto.sparseInitializer).toHaveLength(1);
    const later = splitAt(graph, ['q']);
    expect(later.tail.initializerNames).toEqual(['zero']);
    expect(later.tail.model.functions).toEqual([]);
    expect(later.tail.proto.sparseInitializer).toEqual([]);
    // No weight of the head is anywhere in the tail's bytes.
    const weight = new Uint8Array(graph.initializer('w')!.data.slice(0, 8)!.buffer as ArrayBuffer);
    expect(Buffer.from(graph.encode()).includes(Buffer.from(weight))).toBe(true);
    expect(Buffer.from(tail.encode()).includes(Buffer.from(weight))).toBe(false);
  });

  it('leaves the model as it is, also when the halves are edited', () => {
    const graph = new Graph(richModel());
    const before = graph.encode();
    const { head, tail } = splitAt(graph, ['s']);
    tail.renameValue('s', 'INPUT__0');
    head.renameValue('w', 'weights');
    head.renameValue('s', 'released');
    tail.setInitializer('zero', float32([], [1]));
    tail.renameValue('sparse', 'thin');
    head.renameValue('p', 'projected');
    tail.proto.output[0]!.name = 'y';
    expect(graph.encode()).toEqual(before);
    expect(tail.inputNames).toEqual(['INPUT__0']);
  });

  it('declares what crosses with its symbols, in a form the runtime takes', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', ['N', 3, 'H', 'W']);
    const weights = graph.addInitializer('w', sampleTensor('float32', [4, 3, 3, 3]));
    graph.add('Conv', ['x', weights], { strides: [2, 2] }, { outputs: ['c'] });
    graph.add('Relu', ['c'], {}, { outputs: ['y'] });
    graph.addOutput('y', 'float32', undefined);
    const { head, tail } = splitAt(graph, ['c']);
    const type = { dtype: 'float32', shape: ['N', 4, 'floor((H+1)/2)-1', 'floor((W+1)/2)-1'] };
    expect(tail.declaredType('c')).toEqual(type);
    expect(head.declaredType('c')).toEqual(type);
    const { y } = await runOnnx(
      tail.encode(),
      await runOnnx(head.encode(), { x: sampleTensor('float32', [2, 3, 9, 6]) }),
    );
    expect(y?.shape).toEqual([2, 4, 4, 2]);
  });

  it('duplicates constants that both sides use, and inputs that are initializers with a default', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    graph.addInitializer('k', float32([1], [3]));
    graph.proto.input.push(valueInfo('k', { dtype: 'float32', shape: [1] }));
    const doubled = graph.add('Add', ['k', 'k']);
    graph.add('Mul', ['x', doubled], {}, { outputs: ['a'] });
    graph.add('Constant', [], { value: int64([1, 4]) }, { outputs: ['target'] });
    graph.add('Reshape', ['a', 'target'], {}, { outputs: ['b'] });
    graph.add('Add', ['b', doubled], {}, { outputs: ['y'] });
    graph.addOutput('y', 'float32', undefined);
    expect(listCuts(graph).map(({ name }) => name)).toEqual(['a', 'b']);
    const { head, tail } = splitAt(graph, ['a']);
    expect(head.initializerNames).toEqual(['k']);
    expect(tail.initializerNames).toEqual(['k']);
    expect(tail.inputNames).toEqual(['a']);
    expect(tail.nodes().map(({ opType }) => opType)).toEqual(['Add', 'Constant', 'Reshape', 'Add']);
    const feeds = { x: sampleTensor('float32', [4]) };
    expect(await runOnnx(tail.encode(), await runOnnx(head.encode(), feeds))).toEqual(
      await runOnnx(graph.encode(), feeds),
    );
  });

  it('draws random numbers on one side only', () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    graph.add('RandomNormal', [], { shape: [4] }, { name: 'draw', outputs: ['r'] });
    graph.add('Add', ['x', 'r'], {}, { outputs: ['a'] });
    graph.add('Relu', ['a'], {}, { outputs: ['b'] });
    graph.add('Sub', ['b', 'r'], {}, { outputs: ['y'] });
    graph.addOutput('y', 'float32', undefined);
    const error = errorOf(() => splitAt(graph, ['b']));
    expect(error.code).toBe('UNSUPPORTED');
    expect(error.message).toContain("'draw' (RandomNormal)");
    const { head, tail } = splitAt(graph, ['b', 'r']);
    expect(head.nodes().map(({ opType }) => opType)).toEqual(['RandomNormal', 'Add', 'Relu']);
    expect(tail.nodes().map(({ opType }) => opType)).toEqual(['Sub']);
    expect(listCuts(graph, { maxTensors: 2 }).map(({ name }) => name)).toEqual(['r + a', 'r + b']);
  });

  it('keeps a dangling output of a node that stays for another one', async () => {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [4]);
    graph.add('Relu', ['x'], {}, { outputs: ['a'] });
    graph.addMany('Split', ['a'], { axis: 0 }, { outputs: ['l', 'r'] });
    graph.add('Exp', ['l'], {}, { outputs: ['e'] });
    graph.add('Concat', ['a', 'r', 'e'], { axis: 0 }, { outputs: ['y'] });
    graph.addOutput('y', 'float32', undefined);
    // e follows from l; a is read again: the tail splits a once more, for r.
    const feeds = { x: sampleTensor('float32', [4]) };
    const whole = await runOnnx(graph.encode(), feeds);
    for (const names of [['a'], ['a', 'l'], ['a', 'e'], ['a', 'l', 'r'], ['a', 'r', 'e']]) {
      const { head, tail } = splitAt(graph, names);
      expect(await runOnnx(tail.encode(), await runOnnx(head.encode(), feeds)), names.join()).toEqual(whole);
    }
  });
});

describe('splitReport', () => {
  it('ranks by what is sent and what stays', () => {
    const report = splitReport(skipping(), { inputShapes: { x: [3, 4] }, maxTensors: 2 });
    expect(report.cuts.map(({ name, score }) => [name, score])).toEqual([
      ['a', 0.75],
      ['c', 1.25],
      ['a + b', 1.5],
    ]);
    expect(report).toMatchObject({ nodes: 4, flops: 48, uncounted: {} });
    expect(report.inputs.map(({ name }) => name)).toEqual(['x']);
    expect(report.outputs[0]).toMatchObject({ name: 'y', shape: [3, 4] });
    expect(report.reach).toEqual([{ input: 'x', lastReader: 'first', position: 1 }]);
    expect(splitReport(skipping()).uncounted).toEqual({ Relu: 1, Tanh: 1, Add: 1, Exp: 1 });
  });
});
