// The part of FaceBoxes behind its natural cut: three inception blocks, the strided convolutions and the heads (batch
// normalisation folded), with pseudo-random weights, and a detection loss against a fed teacher. Used by the benchmark
// of the gradient step and, in small, by the comparison with PyTorch under test/vectors/autodiff.
// bench/peers/faceboxes_tail.py is the same network, number for number.
import { Graph } from 'scrim/onnx';

/** Sizes of the real network, and of a small one with the same topology. */
export const SIZES = {
  real: { space: 32, channels: 128, branch: 32, reduce: 24, wide: 256, anchors: [21, 1, 1] },
  small: { space: 12, channels: 32, branch: 8, reduce: 6, wide: 48, anchors: [3, 1, 1] },
};

/** Numbers in [−1, 1): s ← 1664525·s + 1013904223 mod 2³², s/2³¹ − 1. */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2147483648 - 1;
  };
}

/**
 * Builds the graph. `weightsAsInputs` feeds the weights with each run instead of storing them; `pool` is the pooling of
 * the inception blocks, 'average' (the PyTorch training) or 'max' (the training that @vladmandic/human carries).
 * Numbers are drawn in this order: per convolution weight, bias; then x, the teacher's boxes, the teacher's scores.
 */
export function buildTail({ batch, size = 'real', weightsAsInputs = false, pool = 'average', opset = 17 }) {
  const { space, channels, branch, reduce, wide, anchors } = SIZES[size];
  const graph = Graph.create({ opset });
  const random = generator(1);
  const float32 = (shape, draw) => {
    const length = shape.reduce((a, b) => a * b, 1);
    return { dtype: 'float32', shape, data: Float32Array.from({ length }, draw) };
  };
  const weights = {};
  const parameter = (name, shape, scale) => {
    weights[name] = float32(shape, () => random() * scale);
    return weightsAsInputs ? graph.addInput(name, 'float32', shape) : graph.addInitializer(name, weights[name]);
  };
  let count = 0;
  const conv = (x, inputs, outputs, kernel, stride = 1, relu = true) => {
    const name = `conv${count++}`;
    const w = parameter(`${name}.weight`, [outputs, inputs, kernel, kernel], Math.sqrt(6 / (inputs * kernel * kernel)));
    const b = parameter(`${name}.bias`, [outputs], 0.1);
    const p = kernel >> 1;
    const attributes = { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: [p, p, p, p] };
    const y = graph.add('Conv', [x, w, b], attributes);
    return relu ? graph.add('Relu', [y]) : y;
  };
  const inception = (x) => {
    const window = { kernel_shape: [3, 3], pads: [1, 1, 1, 1] };
    const pooled =
      pool === 'max'
        ? graph.add('MaxPool', [x], window)
        : graph.add('AveragePool', [x], { ...window, count_include_pad: 1 });
    const branches = [
      conv(x, channels, branch, 1),
      conv(pooled, channels, branch, 1),
      conv(conv(x, channels, reduce, 1), reduce, branch, 3),
      conv(conv(conv(x, channels, reduce, 1), reduce, branch, 3), branch, branch, 3),
    ];
    return graph.add('Concat', branches, { axis: 1 });
  };
  graph.addInput('x', 'float32', [batch, channels, space, space]);
  const first = inception(inception(inception('x')));
  const second = conv(conv(first, channels, channels, 1), channels, wide, 3, 2);
  const third = conv(conv(second, wide, channels, 1), channels, wide, 3, 2);
  const sources = [
    [first, channels, anchors[0]],
    [second, wide, anchors[1]],
    [third, wide, anchors[2]],
  ];
  const head = (width) => {
    const shape = graph.addInitializer('rows', {
      dtype: 'int64',
      shape: [3],
      data: BigInt64Array.of(0n, -1n, BigInt(width)),
    });
    const parts = sources.map(([source, inputs, boxes]) => {
      const nhwc = graph.add('Transpose', [conv(source, inputs, boxes * width, 3, 1, false)], { perm: [0, 2, 3, 1] });
      return graph.add('Reshape', [nhwc, shape]);
    });
    return graph.add('Concat', parts, { axis: 1 });
  };
  const boxes = head(4);
  const logits = head(2);

  // loss = Σ (boxes − teacher)²/100 − Σ teacher·ln softmax(logits)
  const priors = anchors.reduce((sum, each, i) => sum + each * (space >> i) ** 2, 0);
  graph.addInput('boxes', 'float32', [batch, priors, 4]);
  graph.addInput('scores', 'float32', [batch, priors, 2]);
  const logProbability = graph.add('LogSoftmax', [logits], { axis: -1 });
  const cross = graph.add('ReduceSum', [graph.add('Mul', ['scores', logProbability])], { keepdims: 0 });
  const difference = graph.add('Sub', [boxes, 'boxes']);
  const squares = graph.add('ReduceSum', [graph.add('Mul', [difference, difference])], { keepdims: 0 });
  const hundredth = graph.addInitializer('hundredth', { dtype: 'float32', shape: [], data: Float32Array.of(0.01) });
  const loss = graph.add('Sub', [graph.add('Mul', [squares, hundredth]), cross], {}, { outputs: ['loss'] });

  const x = float32([batch, channels, space, space], () => Math.abs(random()));
  const teacherBoxes = float32([batch, priors, 4], random);
  const face = float32([batch, priors, 1], () => 0.5 + 0.4 * random());
  const scores = float32([batch, priors, 2], (_, i) => (i % 2 === 0 ? face.data[i >> 1] : 1 - face.data[i >> 1]));
  const feeds = { x, boxes: teacherBoxes, scores, ...(weightsAsInputs ? weights : {}) };
  return { graph, loss, feeds, weights, outputs: { boxes, logits } };
}
