/** The trainer against the optimizers of autodiff/ step by step, on real networks, and what it refuses. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { randomTensor } from '../../../../../test/random-tensor.js';
import { adam, addGradients, clipByGlobalNorm, exponentialAverage } from '../../autodiff/index.js';
import type { Engine } from '../../engine/engine.js';
import { createNodeEngine } from '../../node/ort-engine.js';
import { Graph } from '../../onnx/index.js';
import { float32, type Tensor } from '../../tensor.js';
import { createNetworkTrainer } from './network-trainer.js';

let engine: Engine;
beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1, thread: 'inline' });
});
afterAll(() => engine.close());

const SHAPES = { first: [5, 3, 3, 3], bias: [5], second: [1, 5, 1, 1] };

const initial = (shape: readonly number[], name: string): Tensor<'float32'> => randomTensor(shape, name, 0.3);

/** A small convolutional regression: mean (second ∗ relu(first ∗ x + bias) − y)². */
function network(opset = 17): Graph {
  const graph = Graph.create({ name: 'network', opset });
  graph.addInput('x', 'float32', [2, 3, 6, 6]);
  graph.addInput('y', 'float32', [2, 1, 4, 4]);
  for (const [name, shape] of Object.entries(SHAPES)) graph.addInitializer(name, initial(shape, name));
  const hidden = graph.add('Relu', [graph.add('Conv', ['x', 'first', 'bias'])]);
  const error = graph.add('Sub', [graph.add('Conv', [hidden, 'second']), 'y']);
  graph.add('ReduceMean', [graph.add('Mul', [error, error])], { keepdims: 0 }, { outputs: ['loss'] });
  graph.add('Add', ['loss', 'loss'], {}, { outputs: ['double'] });
  const axes = opset < 18 ? { axes: [1, 2, 3] } : {};
  graph.add('ReduceMean', ['x'], { ...axes, keepdims: 0 }, { outputs: ['x_mean'] });
  graph.setOutputs(['loss']);
  return graph;
}

const weights = Object.keys(SHAPES).map((name) => ({ name }));
const feeds = (step: number): Record<string, Tensor> => ({
  x: randomTensor([2, 3, 6, 6], `x${step}`, 1),
  y: randomTensor([2, 1, 4, 4], `y${step}`, 2),
});

/** Weights that fill whole rows of the joined vector, and biases that do not: ones, threes and a stride. */
function deeper(): Graph {
  const graph = Graph.create({ name: 'deeper', opset: 17 });
  graph.addInput('x', 'float32', [2, 16, 6, 6]);
  const layer = (input: string, name: string, shape: readonly number[], attributes = {}): string => {
    graph.addInitializer(`${name}.weight`, initial(shape, name));
    graph.addInitializer(`${name}.bias`, initial([shape[0] as number], `${name}.bias`));
    return graph.add('Relu', [graph.add('Conv', [input, `${name}.weight`, `${name}.bias`], attributes)]);
  };
  const narrow = layer('x', 'narrow', [16, 16, 1, 1]);
  const wide = layer(narrow, 'wide', [32, 16, 3, 3], { pads: [1, 1, 1, 1] });
  const joined = graph.add('Concat', [layer(wide, 'left', [8, 32, 1, 1]), layer(wide, 'right', [24, 32, 1, 1])], {
    axis: 1,
  });
  const end = layer(joined, 'end', [4, 32, 3, 3], { strides: [2, 2] });
  graph.add('ReduceMean', [graph.add('Mul', [end, end])], { keepdims: 0 }, { outputs: ['loss'] });
  graph.setOutputs(['loss']);
  return graph;
}

describe('createNetworkTrainer for a GPU', () => {
  it.each(['webgpu', 'cuda'])(
    'takes the same steps by the graph for %s, and sums all gradients at once',
    async (provider) => {
      const loaded: Uint8Array[] = [];
      // The graph for a GPU, computed here.
      const gpu = {
        executionProvider: provider,
        load: (...given: Parameters<Engine['load']>) => {
          loaded.push(given[0]);
          return engine.load(...given);
        },
      } as Engine;
      const names = deeper().initializerNames;
      const run = async (on: Engine): Promise<Map<string, Tensor<'float32'>>> => {
        const graph = deeper();
        const options = { graph, loss: 'loss', weights: names.map((name) => ({ name })), learningRate: 0.01 };
        const trainer = await createNetworkTrainer({ engine: on, ...options });
        for (let step = 0; step < 5; step++)
          await trainer.step({ x: randomTensor([2, 16, 6, 6], `x${step}`, 1) }, true);
        const found = trainer.weights();
        await trainer.close();
        return found;
      };
      const [expected, found] = [await run(engine), await run(gpu)];
      for (const [name, { data }] of expected) {
        const values = found.get(name)?.data as Float32Array;
        expect(Math.max(...data.map((value, i) => Math.abs(value - (values[i] as number))))).toBeLessThan(2e-4);
      }
      const graph = Graph.decode(loaded[0] as Uint8Array);
      const sums = graph.nodes().filter(({ opType, input }) => {
        const ones = opType === 'MatMul' ? graph.constant(input[0] as string) : undefined;
        return ones?.shape.join() === '1,2';
      });
      // One of the weights that fill rows, one of the biases and the rest.
      expect(sums).toHaveLength(2);
    },
  );
});

describe('createNetworkTrainer', () => {
  it('takes the steps of clipping, Adam and the average', async () => {
    const trainer = await createNetworkTrainer({
      engine,
      graph: network(),
      loss: 'loss',
      weights,
      learningRate: 0.01,
      clipNorm: 0.5,
      average: 0.9,
    });
    const plain = network();
    const gradients = addGradients(plain, { loss: 'loss', wrt: Object.keys(SHAPES) });
    for (const name of Object.keys(SHAPES)) plain.initializerToInput(name);
    plain.setOutputs(['loss', ...gradients.values()]);
    const session = await engine.load(plain.encode());
    const parameters = Object.fromEntries(
      Object.entries(SHAPES).map(([name, shape]) => [name, initial(shape, name).data]),
    );
    const optimizer = adam({ learningRate: 0.01, beta1: 0.9, beta2: 0.99 });
    const mean = exponentialAverage(0.9);
    const average = mean.init(parameters);
    let state = optimizer.init(parameters);
    for (let i = 0; i < 5; i++) {
      const given = Object.entries(SHAPES).map(([name, shape]) => [name, float32(shape, parameters[name]!.slice())]);
      const outputs = await session.run({ ...feeds(i), ...Object.fromEntries(given) });
      const found = Object.fromEntries(
        [...gradients].map(([name, output]) => [name, Float32Array.from(outputs[output]!.data as Float32Array)]),
      );
      const norm = clipByGlobalNorm(found, 0.5);
      state = optimizer.update(parameters, found, state);
      mean.update(average, parameters);
      const step = await trainer.step(feeds(i), i === 4);
      expect(step.loss).toBeCloseTo(Number(outputs.loss?.data[0]), 5);
      expect(step.gradientNorm).toBeCloseTo(norm, 4);
    }
    for (const name of Object.keys(SHAPES)) {
      for (const [which, expected] of [
        ['current', parameters],
        ['average', average],
      ] as const) {
        const actual = trainer.weights(which).get(name)?.data ?? new Float32Array();
        expect(actual.length).toBe(expected[name]?.length);
        actual.forEach((value, i) => {
          expect(value).toBeCloseTo(expected[name]?.[i] as number, 5);
        });
      }
    }
    await session.close();
    await trainer.close();
  });

  it.each([11, 17])('goes on from a state bit for bit, opset %i', async (opset) => {
    const make = () => createNetworkTrainer({ engine, graph: network(opset), loss: 'loss', weights });
    const [whole, firstHalf, secondHalf] = [await make(), await make(), await make()];
    for (let i = 0; i < 6; i++) await whole.step(feeds(i), i === 5);
    for (let i = 0; i < 3; i++) await firstHalf.step(feeds(i), i === 2);
    secondHalf.restore(firstHalf.state());
    for (let i = 3; i < 6; i++) await secondHalf.step(feeds(i), i === 5);
    expect(secondHalf.state()).toEqual(whole.state());
    for (const trainer of [whole, firstHalf, secondHalf]) await trainer.close();
  });

  it.each([11, 17])('takes several steps in one run, opset %i', async (opset) => {
    const make = (loop: boolean) =>
      createNetworkTrainer({
        engine,
        graph: network(opset),
        loss: 'loss',
        weights,
        reports: ['double', 'x_mean'],
        learningRate: (step) => 0.01 / (1 + step),
        loop,
      });
    const [plain, looped, alone] = [await make(false), await make(true), await make(true)];
    const batches = Array.from({ length: 7 }, (_, i) => feeds(i));
    const expected = await plain.steps(batches, true);
    const found = [...(await looped.steps(batches.slice(0, 4))), ...(await looped.steps(batches.slice(4), true))];
    expect(found).toEqual(expected);
    expect(looped.state()).toEqual(plain.state());
    for (const [i, batch] of batches.entries()) {
      if (i === 3) alone.restore(alone.state());
      expect(await alone.step(batch, true)).toEqual(expected[i]);
    }
    expect(alone.state()).toEqual(plain.state());
    expect(found.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(found[2]?.reports.x_mean?.shape).toEqual([2]);
    for (const trainer of [plain, looped, alone]) await trainer.close();
  });

  it('names the step of a run that diverged, and the batch that does not fit', async () => {
    const trainer = await createNetworkTrainer({ engine, graph: network(), loss: 'loss', weights, loop: true });
    const broken = float32([2, 1, 4, 4], new Float32Array(32).fill(Number.NaN));
    await expect(trainer.steps([feeds(0), { ...feeds(1), y: float32([1], [0]) }])).rejects.toThrow(
      "batch 1 of a run has 1 values of 'y', the first one has 32",
    );
    await expect(trainer.steps([feeds(0), feeds(1), { ...feeds(2), y: broken }, feeds(3)])).rejects.toThrow(
      'diverged at step 3',
    );
    await trainer.close();
  });

  it('leaves weights of rate 0 alone and learns with the others', async () => {
    const trainer = await createNetworkTrainer({
      engine,
      graph: network(),
      loss: 'loss',
      weights: [{ name: 'first', rate: 0 }, { name: 'bias' }, { name: 'second', rate: 2 }],
      learningRate: 0.02,
    });
    const before = (await trainer.step(feeds(0))).loss;
    for (let i = 0; i < 40; i++) await trainer.step(feeds(0));
    expect((await trainer.step(feeds(0), true)).loss).toBeLessThan(0.85 * before);
    expect(trainer.weights().get('first')).toEqual(initial(SHAPES.first, 'first'));
    await trainer.close();
  });

  it('says what is wrong', async () => {
    await expect(
      createNetworkTrainer({ engine, graph: network(), loss: 'loss', weights: [{ name: 'x' }] }),
    ).rejects.toThrow("weight 'x' is no initializer of the graph");
    const trainer = await createNetworkTrainer({ engine, graph: network(), loss: 'loss', weights });
    expect(trainer.size).toBe(5 * 27 + 5 + 5);
    expect(() => trainer.restore({ ...trainer.state(), first: new Float32Array(3) })).toThrow("3 values of 'first'");
    await trainer.step(feeds(0));
    expect(() => trainer.weights()).toThrow('without keep');
    const broken = float32([2, 1, 4, 4], new Float32Array(32).fill(Number.NaN));
    await expect(trainer.step({ ...feeds(0), y: broken })).rejects.toMatchObject({ code: 'DIVERGED' });
    await trainer.close();
  });
});
