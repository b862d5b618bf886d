// How many steps of a bottleneck fit are taken a second, plain and against an adversary, beside PyTorch?
//
// The tail of FaceBoxes at 32×32 positions, a deep encoder to eight channels, batches of 16, Adam, clipping, moving average:
// `fitBottleneck` as `scrim fit` calls it, batches and noise included. PyTorch takes the same step on its GPU where it has
// one (else on the CPU), with the examples already there. Sides take turns; ratios are ours over PyTorch's steps a second.
//
//   node bench/fit-step.mjs [--provider cpu|webgpu|cuda] [--buffers exact|rounded] [--steps 40] [--rounds 3] [--batch 16] [--json]
//
// SCRIM_PYTHON names a Python that has numpy and torch (default python3); without it only our side is timed.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { float32 } from 'scrim';
import { createNodeEngine } from 'scrim/node';
import { cacheActivations, createFitRandom, fitBottleneck, stepsPerRun } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { buildTail } from './faceboxes-tail.mjs';
import { quantile, rounded } from './measure.mjs';

const { values: options } = parseArgs({
  options: {
    provider: { type: 'string', default: 'cpu' },
    buffers: { type: 'string', default: 'exact' },
    steps: { type: 'string', default: '40' },
    rounds: { type: 'string', default: '3' },
    batch: { type: 'string', default: '16' },
    json: { type: 'boolean', default: false },
  },
});
const [steps, rounds, batch] = [Number(options.steps), Number(options.rounds), Number(options.batch)];
const EXAMPLES = 48;
const PICTURE = 128;
/** Steps that are not timed, at least: kernels are compiled in them. */
const WARM_UP = 3;

function tailOf(size) {
  const { graph, outputs } = buildTail({ batch: size });
  graph.add('Softmax', [outputs.logits], { axis: -1 }, { outputs: ['conf'] });
  graph.add('Identity', [outputs.boxes], {}, { outputs: ['loc'] });
  graph.setOutputs(['loc', 'conf']);
  graph.prune({ inputs: true });
  return graph;
}

async function prepare(engine) {
  const head = Graph.create({ opset: 17 });
  head.addInput('image', 'float32', [1, 128, 32, 32]);
  head.add('Identity', ['image'], {}, { outputs: ['x'] });
  head.addOutput('x', 'float32', [1, 128, 32, 32]);
  const random = createFitRandom('fit-step');
  async function* inputs() {
    for (let i = 0; i < EXAMPLES; i++) {
      const data = new Float32Array(128 * 32 * 32);
      random.normal(data);
      yield float32(
        [1, 128, 32, 32],
        data.map((value) => Math.max(0, value)),
      );
    }
  }
  const [headSession, tailSession] = [await engine.load(head.encode()), await engine.load(tailOf(1).encode())];
  const cache = await cacheActivations(inputs(), { head: headSession, tail: tailSession, input: 'image', cut: 'x' });
  await Promise.all([headSession.close(), tailSession.close()]);
  const values = Array.from({ length: EXAMPLES }, () =>
    Float32Array.from({ length: 3 * PICTURE * PICTURE }, () => random.uniform()),
  );
  return { cache, pictures: { size: PICTURE, values } };
}

async function ours(engine, { cache, pictures }, adversary) {
  const times = [];
  let last = 0;
  // Steps of one run end together, so runs are timed.
  const perRun = stepsPerRun(engine);
  const warm = Math.ceil(WARM_UP / perRun) * perRun;
  const pushSteps = warm + Math.ceil(steps / perRun) * perRun;
  await fitBottleneck({
    engine,
    tail: tailOf(batch),
    task: { kind: 'detection', scores: 'conf', boxes: 'loc' },
    cache,
    pictures,
    settings: { alpha: 0.8, pushSteps, recoverSteps: 1, batchSize: batch, adversary },
    seed: 'fit-step',
    hooks: {
      onProgress: ({ phase, step }) => {
        if (phase !== 'push' || step % perRun !== 0) return;
        const now = performance.now();
        if (step > warm) times.push((now - last) / perRun);
        last = now;
      },
    },
  });
  return times;
}

async function startPeer() {
  const script = fileURLToPath(new URL('./peers/fit_step.py', import.meta.url));
  const child = spawn(process.env.SCRIM_PYTHON ?? 'python3', [script], { stdio: ['pipe', 'pipe', 'ignore'] });
  const gone = new Promise((resolve) => {
    child.on('error', () => resolve(undefined));
    child.on('exit', () => resolve(undefined));
  });
  child.stdin.on('error', () => undefined);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => {
    const line = await Promise.race([lines.next(), gone]);
    return line?.value === undefined ? undefined : JSON.parse(line.value);
  };
  const hello = await answer();
  if (!hello) return undefined;
  const ask = (question) => {
    child.stdin.write(`${JSON.stringify(question)}\n`);
    return answer();
  };
  return { ...hello, ask, close: () => child.stdin.end() };
}

const engine = await createNodeEngine({
  executionProvider: options.provider,
  buffers: options.buffers,
  thread: options.provider === 'cpu' ? 'inline' : 'worker',
});
const data = await prepare(engine);
const peer = await startPeer();
const perSecond = (times) => 1000 / quantile(times);
const cases = [];
for (const adversary of [0, 1]) {
  const [mine, theirs] = [[], []];
  for (let round = 0; round < rounds; round++) {
    mine.push(...(await ours(engine, data, adversary)));
    const answered = await peer?.ask({ batch, adversary, steps, warm: WARM_UP });
    if (answered) theirs.push(...answered.ms);
  }
  cases.push({
    fit: adversary === 0 ? 'plain' : 'adversarial',
    scrimPerSecond: rounded(perSecond(mine)),
    ...(theirs.length > 0
      ? { pytorchPerSecond: rounded(perSecond(theirs)), ratio: rounded(perSecond(mine) / perSecond(theirs), 3) }
      : {}),
  });
}
peer?.close();
const report = {
  question: 'steps per second of a bottleneck fit',
  engine: engine.description,
  pytorch: peer ? `${peer.version} on ${peer.device}` : null,
  batch,
  steps,
  rounds,
  cases,
};
await engine.close();
if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
else {
  process.stdout.write(`Bottleneck fit, batch ${batch}: ${report.engine}; PyTorch: ${report.pytorch ?? 'not found'}\n`);
  for (const { fit, scrimPerSecond, pytorchPerSecond, ratio } of cases) {
    const beside = ratio === undefined ? '' : `  PyTorch ${pytorchPerSecond}/s  ratio ${ratio}`;
    process.stdout.write(`${fit.padEnd(12)} scrim ${scrimPerSecond}/s${beside}\n`);
  }
}
