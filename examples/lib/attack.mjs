// An attacker who owns the server: trains a network that turns releases back into the inputs they were made of.
//
// It knows the model, the bundle with every parameter of the noise, and inputs of the same kind; it lacks the key. Its
// success is the share of each column's variance that it explains on inputs it has not seen (R²): 0 is guessing the mean.
import { float32 } from 'scrim';
import { createFitRandom } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { dense, squaredError, train } from './network.mjs';

/** What is rare among the rows an attacker trains on must not throw it off on others. */
function clip(value) {
  return Math.max(-6, Math.min(6, value));
}

/** Mean and deviation of each place of equally long arrays. */
function scaleOf(arrays) {
  const size = arrays[0].length;
  const mean = new Float64Array(size);
  const deviation = new Float64Array(size);
  for (const array of arrays) for (let i = 0; i < size; i++) mean[i] += array[i] / arrays.length;
  for (const array of arrays) for (let i = 0; i < size; i++) deviation[i] += (array[i] - mean[i]) ** 2 / arrays.length;
  for (let i = 0; i < size; i++) deviation[i] = Math.sqrt(deviation[i]) || 1;
  return { mean, deviation };
}

/** The network an attacker trains where nothing is known of the form of the input. */
function twoLayers(width) {
  return (graph, x, { inputs, outputs, random }) => {
    const first = graph.add('Relu', [dense(graph, x, 'first', inputs, width, random)]);
    const second = graph.add('Relu', [dense(graph, first, 'second', width, width, random)]);
    return dense(graph, second, 'last', width, outputs, random);
  };
}

/**
 * R² by column, and of all of them together, each in its own unit. `seen` and `unseen` are lists of { observed: Float32Array, input: Float32Array }: what arrived, and what
 * it was made of. `decoder(graph, x, { inputs, outputs, random })` adds another network from x [N, inputs] to [N, outputs];
 * `oneUnit` is for pictures, whose places all count the same.
 */
export async function attack(engine, seen, unseen, options = {}) {
  const { steps = 1500, width = 96, batchSize = 64, seed = 'attack', decoder = twoLayers(width) } = options;
  const plain = ({ mean }) => ({ mean, deviation: new Float64Array(mean.length).fill(1) });
  const from = scaleOf(seen.map(({ observed }) => observed));
  const wanted = scaleOf(seen.map(({ input }) => input));
  const to = options.oneUnit ? plain(wanted) : wanted;
  const [inputs, outputs] = [from.mean.length, to.mean.length];
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['N', inputs]);
  const random = createFitRandom(`${seed}/weights`);
  const guessed = decoder(graph, 'x', { inputs, outputs, random });
  graph.add('Identity', [guessed], {}, { outputs: ['guess'] });
  graph.addOutput('guess', 'float32', ['N', outputs]);
  const fill = (rows, pick, { mean, deviation }) => {
    const size = mean.length;
    const data = new Float32Array(rows.length * size);
    rows.forEach((row, n) => {
      for (let i = 0; i < size; i++) data[n * size + i] = clip((row[pick][i] - mean[i]) / deviation[i]);
    });
    return float32([rows.length, size], data);
  };
  await train(engine, graph, {
    inputShapes: { x: [batchSize, inputs] },
    addLoss: (copy) => squaredError(copy, 'guess', [batchSize, outputs]),
    batch: (draw) => {
      const rows = Array.from({ length: batchSize }, () => seen[draw.integer(seen.length)]);
      return { x: fill(rows, 'observed', from), target: fill(rows, 'input', to) };
    },
    steps,
    batchSize,
    learningRate: 2e-3,
    seed: `${seed}/batches`,
  });
  const session = await engine.load(graph.encode());
  const { guess } = await session.run({ x: fill(unseen, 'observed', from) });
  await session.close();
  const errors = new Float64Array(outputs);
  const spread = new Float64Array(outputs);
  const unknown = scaleOf(unseen.map(({ input }) => input));
  unseen.forEach(({ input }, n) => {
    for (let i = 0; i < outputs; i++) {
      errors[i] += (guess.data[n * outputs + i] * to.deviation[i] + to.mean[i] - input[i]) ** 2;
      spread[i] += (input[i] - unknown.mean[i]) ** 2;
    }
  });
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  return {
    columns: Array.from(errors, (error, i) => (spread[i] === 0 ? 0 : 1 - error / spread[i])),
    whole: 1 - sum(errors) / sum(spread),
  };
}
