// How long does one gradient step of FaceBoxes' tail take, against PyTorch on the same CPU?
//
// Forward and backward, by the tail's input with frozen weights, and by the input and all weights (which are fed each
// time, as in training). Both sides run in turns in the same invocation, so that what else the machine does hits both;
// a ratio is the median of ours over the median of PyTorch's. The two losses and gradients are compared as well.
//
//   node bench/gradient-step.mjs [--json] [--rounds 7] [--steps 5] [--threads 2] [--pool average|max]
//
// SCRIM_PYTHON names a Python that has numpy and torch (default python3); without it only our side is timed.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { addGradients } from 'scrim/autodiff';
import { buildTail } from './faceboxes-tail.mjs';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '7' },
    steps: { type: 'string', default: '5' },
    threads: { type: 'string', default: '2' },
    pool: { type: 'string', default: 'average' },
  },
});
const [rounds, steps, threads] = [Number(options.rounds), Number(options.steps), Number(options.threads)];
const { pool } = options;

async function startPeer() {
  const python = process.env.SCRIM_PYTHON ?? 'python3';
  const script = fileURLToPath(new URL('./peers/gradient_step.py', import.meta.url));
  const child = spawn(python, [script], { stdio: ['pipe', 'pipe', 'ignore'] });
  const failed = new Promise((resolve) => {
    child.on('error', () => resolve(undefined));
    child.on('exit', () => resolve(undefined));
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => {
    const line = await Promise.race([lines.next(), failed]);
    return line?.value === undefined ? undefined : JSON.parse(line.value);
  };
  const hello = await answer();
  if (!hello) return undefined;
  return {
    version: hello.version,
    ask: (question) => {
      child.stdin.write(`${JSON.stringify(question)}\n`);
      return answer();
    },
    close: () => child.stdin.end(),
  };
}

async function ours(batch, weights) {
  const tail = buildTail({ batch, pool, weightsAsInputs: weights });
  const wrt = ['x', ...(weights ? Object.keys(tail.weights) : [])];
  const gradients = addGradients(tail.graph, { loss: tail.loss, wrt, outputs: true });
  tail.graph.setOutputs([tail.loss, ...gradients.values()]);
  const session = await InferenceSession.create(tail.graph.encode(), {
    intraOpNumThreads: threads,
    logSeverityLevel: 3,
  });
  const feeds = Object.fromEntries(
    Object.entries(tail.feeds).map(([name, { dtype, shape, data }]) => [name, new Tensor(dtype, data, shape)]),
  );
  return {
    run: async (count) => {
      const ms = [];
      let results;
      for (let i = 0; i < count; i++) {
        const start = performance.now();
        results = await session.run(feeds);
        ms.push(performance.now() - start);
      }
      const gradient = results[gradients.get('x')].data;
      return { ms, loss: results.loss.data[0], norm: Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0)) };
    },
    close: () => session.release(),
  };
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

const peer = await startPeer();
const cases = [];
for (const weights of [false, true]) {
  for (const batch of [1, 8]) {
    const mine = await ours(batch, weights);
    const question = { batch, pool, weights, threads };
    await mine.run(2);
    await peer?.ask({ ...question, steps: 2 });
    const [mineMs, peerMs] = [[], []];
    let [mineLast, peerLast] = [];
    for (let round = 0; round < rounds; round++) {
      mineLast = await mine.run(steps);
      mineMs.push(...mineLast.ms);
      peerLast = await peer?.ask({ ...question, steps });
      if (peerLast) peerMs.push(...peerLast.ms);
    }
    await mine.close();
    const result = {
      batch,
      by: weights ? 'input and weights' : 'input',
      scrimMs: median(mineMs),
      scrimMinMs: Math.min(...mineMs),
    };
    if (peerLast) {
      result.pytorchMs = median(peerMs);
      result.pytorchMinMs = Math.min(...peerMs);
      result.ratio = result.scrimMs / result.pytorchMs;
      result.lossDifference = Math.abs(mineLast.loss - peerLast.loss) / Math.abs(peerLast.loss);
      result.normDifference = Math.abs(mineLast.norm - peerLast.norm) / peerLast.norm;
    }
    cases.push(result);
  }
}
peer?.close();

const report = {
  question: 'gradient step of the FaceBoxes tail',
  pool,
  threads,
  pytorch: peer?.version ?? null,
  cases,
};
const print = (line) => process.stdout.write(`${line}\n`);
if (options.json) print(JSON.stringify(report, null, 2));
else {
  const found = report.pytorch ? `PyTorch ${report.pytorch}` : 'no PyTorch found';
  print(`Gradient step of the FaceBoxes tail (${pool} pooling), ${threads} threads, ${found}`);
  for (const { batch, by, scrimMs, pytorchMs, ratio } of cases) {
    const peerText = pytorchMs === undefined ? '' : `  PyTorch ${pytorchMs.toFixed(1)} ms  ratio ${ratio.toFixed(2)}`;
    print(`batch ${batch}, by ${by.padEnd(17)}  scrim ${scrimMs.toFixed(1)} ms${peerText}`);
  }
}
