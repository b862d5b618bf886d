// Small networks built and trained by the project's own autodiff: no other framework is involved.
import { float32, scalar } from 'scrim';
import { cosineDecay } from 'scrim/autodiff';
import { createFitRandom, createNetworkTrainer } from 'scrim/noise';

/** A weight drawn as He et al. (2015) do, and a bias of zeros; both initializers of the graph. */
export function weights(graph, name, shape, random, fanIn) {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  random.normal(data);
  const scale = Math.sqrt(2 / fanIn);
  for (let i = 0; i < data.length; i++) data[i] *= scale;
  return graph.addInitializer(name, float32(shape, data));
}

/** y = x·W + b. */
export function dense(graph, x, name, inputs, outputs, random) {
  const weight = weights(graph, `${name}.weight`, [inputs, outputs], random, inputs);
  const bias = graph.addInitializer(`${name}.bias`, float32([outputs], new Float32Array(outputs)));
  return graph.add('Add', [graph.add('MatMul', [x, weight]), bias], {}, { outputs: [name] });
}

/** A convolution over [N, C, H, W]. */
export function conv(graph, x, name, { inputs, outputs, kernel, stride = 1, pad = 0 }, random) {
  const weight = weights(graph, `${name}.weight`, [outputs, inputs, kernel, kernel], random, inputs * kernel * kernel);
  const bias = graph.addInitializer(`${name}.bias`, float32([outputs], new Float32Array(outputs)));
  const attributes = { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: [pad, pad, pad, pad] };
  return graph.add('Conv', [x, weight, bias], attributes, { outputs: [name] });
}

/**
 * Trains every initializer of `graph` that is called '….weight' or '….bias', in place.
 * `addLoss(graph, batchSize)` adds the loss to a copy and returns its name; `batch(random, batchSize)` returns its feeds.
 */
export async function train(engine, graph, { inputShapes, addLoss, batch, steps, batchSize, learningRate, seed, log }) {
  const copy = graph.clone();
  const loss = addLoss(copy, batchSize);
  const names = graph.initializerNames.filter((name) => /\.(weight|bias)$/.test(name));
  const trainer = await createNetworkTrainer({
    engine,
    graph: copy,
    loss,
    weights: names.map((name) => ({ name })),
    inputShapes,
    learningRate: cosineDecay(learningRate, steps),
    beta2: 0.999,
    average: 0.98,
  });
  const random = createFitRandom(seed);
  for (let step = 1; step <= steps; step++) {
    const { loss: value } = await trainer.step(batch(random, batchSize), step === steps);
    if (log && (step % 100 === 0 || step === steps)) log(`step ${step} of ${steps}, loss ${value.toFixed(3)}`);
  }
  for (const [name, value] of trainer.weights('average')) graph.setInitializer(name, value);
  await trainer.close();
}

/** Mean over the batch of −Σ target · ln softmax(logits), for logits [N, classes]. */
export function crossEntropy(graph, logits, classes, batchSize) {
  graph.addInput('target', 'float32', [batchSize, classes]);
  const products = graph.add('Mul', ['target', graph.add('LogSoftmax', [logits], { axis: 1 })]);
  const sum = graph.add('ReduceSum', [products], { keepdims: 0 });
  return graph.add('Mul', [sum, graph.addInitializer('per_example', scalar(-1 / batchSize))]);
}

/** Mean squared error against `target`. */
export function squaredError(graph, output, shape) {
  graph.addInput('target', 'float32', shape);
  const difference = graph.add('Sub', [output, 'target']);
  return graph.add('ReduceMean', [graph.add('Mul', [difference, difference])], { keepdims: 0 });
}
