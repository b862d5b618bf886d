import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testManifest } from '../../../../test/manifest.js';
import { keepStrongest, smallDetector } from '../../../../test/small-detector.js';
import type { Engine } from '../engine/engine.js';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createNodeEngine } from '../node/ort-engine.js';
import { createFitRandom } from '../noise/fit/fit-random.js';
import { Graph } from '../onnx/index.js';
import { float32, int64, type Tensor, tensor } from '../tensor.js';
import { type Bundle, encodeBundle, loadBundle } from './bundle.js';
import { candidatesOf, selectCandidates } from './candidate-selection.js';
import { candidateNames, findCandidates, placeCandidates } from './candidates.js';
import { describeRemoteModel, type RemoteModel, tritonConfig } from './remote-model.js';
import { exportRepository } from './remote-repository.js';

const crypto = createNodeCrypto();
const random = createFitRandom('candidates');
const OUTPUTS = [
  { remote: 'OUTPUT__0', model: 'loc' },
  { remote: 'OUTPUT__1', model: 'conf' },
  { remote: 'OUTPUT__2', model: 'other' },
];
const DESCRIBED = {
  task: { kind: 'detection' as const, scores: 'conf', boxes: 'loc' },
  remote: { noisy: 'noisy', base: 'base', input: 'INPUT__0', outputs: OUTPUTS },
};
const NAMES = { boxes: 'OUTPUT__0', scores: 'OUTPUT__1', rows: 'OUTPUT__3', anchors: 'OUTPUT__4' };
let engine: Engine;
let bundle: Bundle;

beforeAll(async () => {
  engine = await createNodeEngine({ threads: 1 });
  bundle = await smallDetector(crypto, random);
});

afterAll(() => engine.close());

/** Boxes and scores as its input holds them side by side, [N, P, 4 + C], and an output that is no row of anchors. */
function twoTables(classes: number, anchors: number | string, opset = 17): RemoteModel {
  const graph = Graph.create({ opset });
  graph.addInput('INPUT__0', 'float32', ['N', anchors, 4 + classes]);
  const bound = (at: number): string => graph.addInitializer('bound', int64([at]));
  const columns = (from: number, to: number, name: string): void => {
    graph.add('Slice', ['INPUT__0', bound(from), bound(to), bound(2)], {}, { outputs: [name] });
  };
  columns(0, 4, 'OUTPUT__0');
  columns(4, 4 + classes, 'OUTPUT__1');
  graph.add('ReduceMean', ['INPUT__0'], { axes: [1] }, { outputs: ['OUTPUT__2'] });
  graph.addOutput('OUTPUT__0', 'float32', ['N', anchors, 4]);
  graph.addOutput('OUTPUT__1', 'float32', ['N', anchors, classes]);
  graph.addOutput('OUTPUT__2', 'float32', ['N', 1, 4 + classes]);
  return describeRemoteModel(graph, 'INPUT__0', OUTPUTS);
}

/** Offsets, and probabilities of so few values that many are equal. */
function tables(samples: number, anchors: number, classes: number): Tensor<'float32'> {
  const rows = Array.from({ length: samples * anchors }, () => [
    ...Array.from({ length: 4 }, () => 2 * random.uniform() - 1),
    ...Array.from({ length: classes }, () => Math.floor(12 * random.uniform()) / 16),
  ]);
  return float32([samples, anchors, 4 + classes], rows.flat());
}

function columnsOf({ shape, data }: Tensor<'float32'>, from: number, to: number): Tensor<'float32'> {
  const [samples = 0, anchors = 0, width = 0] = shape;
  const rows = Array.from({ length: samples * anchors }, (_, row) => [
    ...data.subarray(row * width + from, row * width + to),
  ]);
  return float32([samples, anchors, to - from], rows.flat());
}

async function run(model: RemoteModel, input: Tensor): Promise<Record<string, Tensor>> {
  const session = await engine.load(Graph.decode(model.graph.encode()).encode());
  const outputs = await session.run({ INPUT__0: input });
  await session.close();
  return outputs;
}

describe('the selection of candidates', () => {
  it.each([
    { samples: 1, anchors: 500, classes: 2, candidates: 60, declared: 'P', opset: 17 },
    { samples: 3, anchors: 500, classes: 2, candidates: 60, declared: 'P', opset: 12 },
    { samples: 3, anchors: 97, classes: 2, candidates: 40, declared: 97, opset: 17 },
    { samples: 3, anchors: 200, classes: 5, candidates: 30, declared: 'P', opset: 17 },
    // More than there are, known only when it runs.
    { samples: 3, anchors: 20, classes: 2, candidates: 60, declared: 'P', opset: 17 },
    { samples: 2, anchors: 60, classes: 2, candidates: 1, declared: 'P', opset: 17 },
  ])(
    'leaves what a plain twin leaves: $samples × $anchors anchors ($declared), $classes classes, $candidates candidates, operator set $opset',
    async ({ samples, anchors, classes, candidates, declared, opset }) => {
      const model = selectCandidates(twoTables(classes, declared, opset), DESCRIBED, candidates);
      const input = tables(samples, anchors, classes);
      const received = await run(model, input);
      const sent = Math.min(candidates, anchors);
      expect(Object.entries(received).map(([name, { dtype, shape }]) => `${name} ${dtype} ${shape}`)).toEqual([
        `OUTPUT__0 float32 ${samples},${sent},4`,
        `OUTPUT__1 float32 ${samples},${sent},${classes}`,
        `OUTPUT__2 float32 ${samples},1,${4 + classes}`,
        `OUTPUT__3 int32 ${samples},${sent}`,
        `OUTPUT__4 int32 ${samples},1`,
      ]);
      const wanted = keepStrongest(columnsOf(input, 0, 4), columnsOf(input, 4, 4 + classes), candidates);
      const { outputs, candidates: summary } = placeCandidates(received, NAMES);
      expect(outputs).toEqual({ OUTPUT__0: wanted.boxes, OUTPUT__1: wanted.scores });
      const strengths = wanted.kept.flatMap((kept, n) =>
        kept.map((row) =>
          Math.max(...input.data.subarray(...[5, 4 + classes].map((i) => (n * anchors + row) * (4 + classes) + i))),
        ),
      );
      expect(summary).toEqual({ sent, anchors, weakest: Math.min(...strengths) });
    },
  );

  it('takes ReduceMax as operator set 18 has it', async () => {
    const later = Graph.create({ opset: 18 });
    later.addInput('INPUT__0', 'float32', ['N', 'P', 3]);
    later.add('Identity', ['INPUT__0'], {}, { outputs: ['OUTPUT__0'] });
    later.add('Identity', ['INPUT__0'], {}, { outputs: ['OUTPUT__1'] });
    for (const name of ['OUTPUT__0', 'OUTPUT__1']) later.addOutput(name, 'float32', ['N', 'P', 3]);
    const outputs = OUTPUTS.slice(0, 2);
    const described = { ...DESCRIBED, remote: { ...DESCRIBED.remote, outputs } };
    const selected = selectCandidates(describeRemoteModel(later, 'INPUT__0', outputs), described, 1);
    const received = await run(selected, float32([1, 3, 3], [0.9, 0.1, 0.2, 0.1, 0.3, 0.6, 0.5, 0.5, 0.1]));
    expect(received.OUTPUT__2).toEqual(tensor('int32', [1, 1], Int32Array.of(1)));
  });

  it('is described in config.pbtxt, batches as before, and leaves a model alone that has no more anchors', () => {
    const plain = twoTables(2, 'P');
    const config = tritonConfig('m', selectCandidates(plain, DESCRIBED, 60));
    expect(config).toContain('max_batch_size: 8');
    expect(config).toContain('name: "OUTPUT__3"\n    data_type: TYPE_INT32\n    dims: [ -1 ]');
    expect(config).toContain('name: "OUTPUT__4"\n    data_type: TYPE_INT32\n    dims: [ 1 ]');
    expect(tritonConfig('m', selectCandidates(twoTables(2, 97), DESCRIBED, 60))).toContain('dims: [ 60, 4 ]');
    const few = twoTables(2, 50);
    expect(selectCandidates(few, DESCRIBED, 50)).toBe(few);
    expect(plain.graph.outputNames).toEqual(['OUTPUT__0', 'OUTPUT__1', 'OUTPUT__2']);
  });

  it('says why it can’t be made', () => {
    const other = { ...DESCRIBED, task: { kind: 'classification' as const, output: 'conf' } };
    expect(() => selectCandidates(twoTables(2, 'P'), other, 5)).toThrow(/not for a detector/);
    expect(() => selectCandidates(twoTables(2, 'P', 11), DESCRIBED, 5)).toThrow(/operator set 11, expected 12/);
    expect(() => selectCandidates(twoTables(1, 'P'), DESCRIBED, 5)).toThrow(/not declared as float32 \[N, P, 4\]/);
  });
});

describe('an answer of candidates', () => {
  const good = (): Record<string, Tensor> => ({
    OUTPUT__0: float32([1, 2, 4], new Float32Array(8).fill(3)),
    OUTPUT__1: float32([1, 2, 2], [0.25, 0.75, 0.5, 0.5]),
    OUTPUT__3: tensor('int32', [1, 2], Int32Array.of(3, 0)),
    OUTPUT__4: tensor('int32', [1, 1], Int32Array.of(4)),
  });

  it('has its rows put back, the last of two for one anchor', () => {
    const { outputs, candidates } = placeCandidates(good(), NAMES);
    expect(outputs.OUTPUT__1).toEqual(float32([1, 4, 2], [0.5, 0.5, 1, 0, 1, 0, 0.25, 0.75]));
    expect(outputs.OUTPUT__0).toEqual(float32([1, 4, 4], [3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3]));
    expect(candidates).toEqual({ sent: 2, anchors: 4, weakest: 0.5 });
    const twice = { ...good(), OUTPUT__3: tensor('int32', [1, 2], Int32Array.of(1, 1)) };
    expect([...(placeCandidates(twice, NAMES).outputs.OUTPUT__1?.data ?? [])]).toEqual([1, 0, 0.5, 0.5, 1, 0, 1, 0]);
  });

  it.each([
    [{ OUTPUT__3: undefined }, /'OUTPUT__3' is missing, expected int32 \[·, ·\]/],
    [{ OUTPUT__3: int64([3, 0], [1, 2]) }, /'OUTPUT__3' is int64 \[1, 2\], expected int32/],
    [{ OUTPUT__3: tensor('int32', [2], Int32Array.of(3, 0)) }, /'OUTPUT__3' is int32 \[2\]/],
    [{ OUTPUT__3: tensor('int32', [1, 2], Int32Array.of(4, 0)) }, /'OUTPUT__3' names an anchor that is none of the 4/],
    [{ OUTPUT__3: tensor('int32', [1, 2], Int32Array.of(-1, 0)) }, /'OUTPUT__3' names an anchor that is none of the 4/],
    [
      { OUTPUT__3: tensor('int32', [1, 0], new Int32Array(0)) },
      /'OUTPUT__1' is float32 \[1, 2, 2\], expected float32 \[1, 0, ·\]/,
    ],
    [
      { OUTPUT__0: float32([1, 3, 4], new Float32Array(12)) },
      /'OUTPUT__0' is float32 \[1, 3, 4\], expected float32 \[1, 2, ·\]/,
    ],
    [{ OUTPUT__1: float32([1, 2, 1], [1, 1]) }, /'OUTPUT__1' has 1 columns/],
    [{ OUTPUT__1: tensor('float64', [1, 2, 2], new Float64Array(4)) }, /'OUTPUT__1' is float64/],
    [{ OUTPUT__4: tensor('int32', [1, 1], Int32Array.of(1)) }, /'OUTPUT__4' says 1 anchors, expected 2 to 11184810/],
    [{ OUTPUT__4: tensor('int32', [1, 1], Int32Array.of(2 ** 31 - 1)) }, /'OUTPUT__4' says 2147483647 anchors/],
    [
      { OUTPUT__4: tensor('int32', [1, 2], Int32Array.of(4, 4)) },
      /'OUTPUT__4' is int32 \[1, 2\], expected int32 \[1, 1\]/,
    ],
  ])('that is malformed is refused by name: %s', (wrong, message) => {
    const answer = () => placeCandidates({ ...good(), ...(wrong as Record<string, Tensor>) }, NAMES);
    expect(answer).toThrow(expect.objectContaining({ code: 'INVALID_DATA', message: expect.stringMatching(message) }));
  });

  it('is known by two outputs of integers behind the model’s own', () => {
    expect(candidateNames(DESCRIBED)).toEqual(NAMES);
    const outputs = ['OUTPUT__3', 'OUTPUT__4'].map((name) => ({ name, datatype: 'INT32' }));
    expect(findCandidates(DESCRIBED, outputs)).toEqual(NAMES);
    expect(findCandidates(DESCRIBED, outputs.slice(1))).toBeUndefined();
    expect(findCandidates(DESCRIBED, [{ name: 'OUTPUT__3', datatype: 'FP32' }, ...outputs.slice(1)])).toBeUndefined();
  });
});

describe('a repository', () => {
  const exported = async (of: Bundle, candidates?: number | 'all'): Promise<Record<string, number | 'all'>> => {
    const files = await exportRepository(of, candidates === undefined ? {} : { candidates });
    const models = [...files].filter(([path]) => path.endsWith('.onnx'));
    return Object.fromEntries(
      models.map(([path, bytes]) => [path.split('/')[0] ?? '', candidatesOf(Graph.decode(bytes))]),
    );
  };
  const forms = (candidates: number | 'all'): Record<string, number | 'all'> => ({
    face_detection_noisy: 'all',
    face_detection_noisy_fp16: candidates,
    face_detection_noisy_int16: candidates,
    face_detection_noisy_uint8: candidates,
  });

  it('has compact models that send candidates, and the document’s form as it stands in the bundle', async () => {
    expect(await exported(bundle)).toEqual(forms(1000));
    expect(await exported(bundle, 40)).toEqual(forms(40));
    expect(await exported(bundle, 'all')).toEqual(forms('all'));
    const path = 'face_detection_noisy/1/model.onnx';
    expect((await exportRepository(bundle)).get(path)).toEqual(await bundle.read(`remote/${path}`));
  });

  it('says what is wrong with a number of candidates', async () => {
    for (const candidates of [0, -1, 1.5, Number.NaN, 2 ** 31, '40', null]) {
      await expect(exportRepository(bundle, { candidates: candidates as number })).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: `candidates is ${candidates}, expected an integer from 1 to 2147483647 or 'all'`,
      });
    }
  });

  it('of a model without anchors sends what there is, and refuses a number of candidates', async () => {
    const graph = Graph.create();
    graph.addInput('cut', 'float32', ['N', 2, 4, 4]);
    graph.add('GlobalAveragePool', ['cut'], {}, { outputs: ['mean'] });
    graph.addOutput('mean', 'float32', ['N', 2, 1, 1]);
    const head = Graph.create();
    head.addInput('image', 'float32', ['N', 2, 4, 4]);
    head.add('Relu', ['image'], {}, { outputs: ['cut'] });
    head.addOutput('cut', 'float32', ['N', 2, 4, 4]);
    const of = (value: number): Float32Array => new Float32Array(2).fill(value);
    const files = await encodeBundle(
      {
        head,
        tail: graph,
        parameters: {
          ...{ kind: 'per-channel', shape: [2], gain: of(1), mean: of(0), sigma: of(0.1) },
          ...{ clipLow: of(-1), clipHigh: of(1), variance: of(1) },
        },
        manifest: testManifest({
          cut: { tensors: [{ name: 'cut', dtype: 'float32', shape: ['N', 2, 4, 4] }] },
          task: { kind: 'regression', outputs: ['mean'] },
        }),
      },
      crypto,
    );
    const plain = await loadBundle(async (path) => files.get(path) as Uint8Array, crypto);
    expect(await exported(plain)).toEqual(forms('all'));
    await expect(exported(plain, 40)).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('the bundle is not for a detector'),
    });
  });
});
