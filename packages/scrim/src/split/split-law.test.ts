/**
 * The law of the room: for every listed cut, the tail on what the head returns gives what the model gives.
 *
 * Graphs are drawn at random: chains and branches of convolutions, elementwise operators, pooling, concatenation, skips,
 * several inputs and outputs, shared constants, subgraphs.
 */
import { create } from '@bufbuild/protobuf';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Optimize, runOnnx, sampleTensor } from '../../../../test/run-onnx.js';
import { GraphProtoSchema, NodeProtoSchema } from '../onnx/gen/onnx_pb.js';
import { Graph, type GraphProto, inferShapes, valueInfo } from '../onnx/index.js';
import { float32, int64, type Tensor } from '../tensor.js';
import { listCuts } from './list-cuts.js';
import { splitAt } from './split-at.js';

type Step = readonly [kind: number, a: number, b: number];

/** [1, C, 8, 8] everywhere but in the channels, so that any two values can be joined one way or the other. */
function randomGraph(steps: readonly Step[], inputs: number, outputs: number): Graph {
  const graph = Graph.create({ opset: 17 });
  const values = Array.from({ length: inputs }, (_, i) => graph.addInput(`x${i}`, 'float32', ['N', 3, 'H', 8]));
  const channels = new Map(values.map((name) => [name, 3]));
  const shared = graph.addInitializer('shared', float32([1], [0.75]));
  const doubled = graph.add('Add', [shared, shared], {}, { outputs: ['doubled'] });
  const put = (name: string, count: number): void => {
    values.push(name);
    channels.set(name, count);
  };
  const weight = (out: number, into: number, seed: number): string =>
    graph.addInitializer('w', sampleTensor('float32', [out, into, 3, 3], seed));
  for (const [i, [kind, first, second]] of steps.entries()) {
    // Later values are picked more often, which makes long graphs with some skips.
    const pick = (at: number): string => values[Math.max(0, values.length - 1 - (at % 4))] as string;
    const [a, b] = [pick(first), pick(second)];
    const [ca, cb] = [channels.get(a) ?? 0, channels.get(b) ?? 0];
    switch (kind % 9) {
      case 0:
        put(graph.add('Conv', [a, weight(4, ca, i)], { pads: [1, 1, 1, 1] }), 4);
        break;
      case 1:
        put(graph.add('Relu', [a]), ca);
        break;
      case 2:
        put(graph.add('Mul', [a, kind % 2 ? shared : doubled]), ca);
        break;
      case 3:
        put(ca === cb ? graph.add('Add', [a, b]) : graph.add('Concat', [a, b], { axis: 1 }), ca === cb ? ca : ca + cb);
        break;
      case 4:
        put(graph.add('MaxPool', [a], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }), ca);
        break;
      case 5: {
        const sizes = graph.addInitializer('sizes', int64([1, ca - 1]));
        const [left, right] = graph.addMany('Split', [a, sizes], { axis: 1 }, { outputs: 2 }) as [string, string];
        put(left, 1);
        if (ca > 1) put(right, ca - 1);
        break;
      }
      case 6:
        put(graph.add('Sigmoid', [a]), ca);
        break;
      case 7:
        put(graph.add('Sub', [a, graph.add('ReduceMean', [b], { axes: [1] })]), ca);
        break;
      default:
        put(branch(graph, a, b, `if${i}`), ca);
    }
  }
  for (const name of [...new Set(values.slice(-outputs))]) graph.addOutput(name, 'float32', undefined);
  return graph;
}

/** If(constant) whose branches capture two values: tanh of the one, or minus the one plus the mean of the other. */
function branch(graph: Graph, a: string, b: string, prefix: string): string {
  const body = (name: string, nodes: [string, string[], string][]): GraphProto =>
    create(GraphProtoSchema, {
      name,
      node: nodes.map(([opType, input, output]) => create(NodeProtoSchema, { opType, input, output: [output] })),
      output: [valueInfo(nodes.at(-1)?.[2] ?? '', { dtype: 'float32', shape: undefined })],
    });
  const condition = graph.add('Greater', [graph.add('ReduceMean', [a], { keepdims: 0 }), scalar(graph, 0.1)]);
  return graph.add('If', [condition], {
    then_branch: body('yes', [['Tanh', [a], `${prefix}_yes`]]),
    else_branch: body('no', [
      ['Neg', [a], `${prefix}_neg`],
      ['GlobalAveragePool', [b], `${prefix}_pool`],
      ['ReduceMean', [`${prefix}_pool`], `${prefix}_mean`],
      ['Add', [`${prefix}_neg`, `${prefix}_mean`], `${prefix}_no`],
    ]),
  });
}

function scalar(graph: Graph, value: number): string {
  return graph.addInitializer('threshold', float32([], [value]));
}

const arbitraryGraph = fc
  .tuple(
    fc.array(fc.tuple(fc.nat(8), fc.nat(99), fc.nat(99)), { minLength: 3, maxLength: 14 }),
    fc.integer({ min: 1, max: 2 }),
    fc.integer({ min: 1, max: 2 }),
  )
  .map(([steps, inputs, outputs]) => ({ steps, inputs, outputs }));

function feedsOf(graph: Graph): Record<string, Tensor> {
  return Object.fromEntries(graph.inputNames.map((name, i) => [name, sampleTensor('float32', [2, 3, 8, 8], i + 7)]));
}

async function runSplit(
  graph: Graph,
  names: readonly string[],
  feeds: Record<string, Tensor>,
  optimize: Optimize,
): Promise<Record<string, Tensor>> {
  const { head, tail } = splitAt(graph, names);
  expect(head.outputNames).toEqual(names);
  expect(tail.inputNames).toEqual(names);
  expect(tail.outputNames).toEqual(graph.outputNames);
  return runOnnx(tail.encode(), await runOnnx(head.encode(), feeds, optimize), optimize);
}

/** Outputs whose bits differ, with what they are called and how large they are. */
function differences(a: Record<string, Tensor>, b: Record<string, Tensor>): string[] {
  const bytes = ({ data }: Tensor): Buffer =>
    Buffer.from((data as Float32Array).buffer, 0, (data as Float32Array).byteLength);
  expect(Object.keys(a)).toEqual(Object.keys(b));
  return Object.entries(a).flatMap(([name, value]) => {
    const other = b[name] as Tensor;
    return String(value.shape) === String(other.shape) && bytes(value).equals(bytes(other))
      ? []
      : [`${name} [${value.shape}]`];
  });
}

describe('tail after head', () => {
  it('is the model, bit for bit, at every listed cut of random graphs', async () => {
    let cuts = 0;
    let several = 0;
    await fc.assert(
      fc.asyncProperty(arbitraryGraph, async ({ steps, inputs, outputs }) => {
        const graph = randomGraph(steps, inputs, outputs);
        const before = graph.encode();
        const feeds = feedsOf(graph);
        const whole = await runOnnx(before, feeds);
        for (const cut of listCuts(graph, { maxTensors: 4 })) {
          cuts++;
          if (cut.tensors.length > 1) several++;
          const names = cut.tensors.map(({ name }) => name);
          expect(differences(await runSplit(graph, names, feeds, 'none'), whole), cut.name).toEqual([]);
        }
        expect(graph.encode()).toEqual(before);
      }),
      { seed: 11, numRuns: 60 },
    );
    expect(cuts).toBeGreaterThan(150);
    expect(several).toBeGreaterThan(50);
  });

  it('is the model to 1e-5 where the runtime may rewrite both sides', async () => {
    await fc.assert(
      fc.asyncProperty(arbitraryGraph, async ({ steps, inputs, outputs }) => {
        const graph = randomGraph(steps, inputs, outputs);
        const feeds = feedsOf(graph);
        const whole = await runOnnx(graph.encode(), feeds, 'all');
        for (const cut of listCuts(graph, { maxTensors: 2 })) {
          const parts = await runSplit(
            graph,
            cut.tensors.map(({ name }) => name),
            feeds,
            'all',
          );
          for (const [name, { data, shape }] of Object.entries(whole)) {
            expect(parts[name]?.shape).toEqual(shape);
            const found = parts[name]?.data as Float32Array;
            (data as Float32Array).forEach((value, i) => {
              if (Math.abs(value - (found[i] ?? Number.NaN)) > 1e-5 * Math.max(1, Math.abs(value))) {
                expect(found[i], `${name}[${i}]`).toBe(value);
              }
            });
          }
        }
      }),
      { seed: 12, numRuns: 15 },
    );
  });

  it('lists every cut of one tensor, and no other', async () => {
    fc.assert(
      fc.property(arbitraryGraph, ({ steps, inputs, outputs }) => {
        const graph = randomGraph(steps, inputs, outputs);
        const listed = new Set(listCuts(graph).map(({ name }) => name));
        for (const name of inferShapes(graph).keys()) {
          let accepted = true;
          try {
            splitAt(graph, [name]);
          } catch {
            accepted = false;
          }
          expect(listed.has(name), name).toBe(accepted);
        }
      }),
      { seed: 13, numRuns: 60 },
    );
  });
});
