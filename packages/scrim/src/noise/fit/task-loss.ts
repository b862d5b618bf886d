/**
 * The task half of the loss: how far the tail's answer to a noisy activation is from the clean model's own answer.
 *
 * No labels: the clean model is the teacher. With p the teacher's class probabilities, q the student's and n the number
 * of positives of the batch (teacher's probability of not being background above 0.3; at least 1):
 *   detection       (Σ_priors KL(p‖q) + 2 Σ_positives smooth-L1(boxes)) / n
 *   classification  Σ KL(p‖q) / batch, from probabilities or logits, softmax or sigmoid (see class-output.ts)
 *   regression      Σ_outputs mean((y − t)²) / var(t)
 * Added as nodes to the training graph; teacher answers and normalisers are fed.
 */
import { ScrimError } from '../../errors.js';
import { type Graph, intAttribute } from '../../onnx/index.js';
import { float32, int64, scalar, type Tensor } from '../../tensor.js';
import type { ActivationCache } from './activation-cache.js';
import { classOutputOf, toProbabilities } from './class-output.js';

/** What the model is for. Detection scores are [N, P, classes] with background first; boxes [N, P, 4]. */
export type FitTask =
  | { readonly kind: 'detection'; readonly scores: string; readonly boxes: string }
  | { readonly kind: 'classification'; readonly output: string }
  | { readonly kind: 'regression'; readonly outputs: readonly string[] };

/** Teacher probability above which a prior is a positive. */
export const POSITIVE_THRESHOLD = 0.3;

const BOX_WEIGHT = 2;

/** A task loss in a graph. */
export interface TaskLoss {
  /** Name of the scalar. */
  readonly loss: string;
  /** The teacher's part of the feeds for the examples at `indices` of the cache. */
  feeds(indices: readonly number[]): Record<string, Tensor>;
}

/**
 * Adds the loss over the outputs of `graph`, of operator set 17 or newer, for batches of `batchSize`.
 * @param portable True keeps to operators that GPU providers have kernels for: LogSoftmax is written out
 * @throws ScrimError INVALID_ARGUMENT if the cache lacks an output the task names.
 */
export function addTaskLoss(
  graph: Graph,
  task: FitTask,
  cache: ActivationCache,
  batchSize: number,
  portable = false,
): TaskLoss {
  switch (task.kind) {
    case 'detection':
      return detectionLoss(graph, task, cache, batchSize, portable);
    case 'classification':
      return classificationLoss(graph, task.output, cache, batchSize, portable);
    case 'regression':
      return regressionLoss(graph, task.outputs, cache, batchSize);
  }
}

type Teacher = { readonly shape: readonly number[]; readonly values: readonly Float32Array[] };

function teacherOf(cache: ActivationCache, output: string): Teacher {
  const found = cache.outputs.get(output);
  if (!found) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `the task names output '${output}', but the float32 outputs are ${[...cache.outputs.keys()].join(', ')}`,
    );
  }
  return found;
}

function batchOf(teacher: Teacher, indices: readonly number[]): Tensor<'float32'> {
  const size = teacher.values[0]?.length ?? 0;
  const data = new Float32Array(indices.length * size);
  indices.forEach((index, i) => {
    data.set(teacher.values[index] as Float32Array, i * size);
  });
  return float32([indices.length, ...teacher.shape], data);
}

/** ln q along the last axis: from the logits where the output is a Softmax, else from the probabilities themselves. */
function logProbabilities(graph: Graph, output: string, portable: boolean, known?: number): string {
  const producer = graph.producer(output);
  const rank = known ?? graph.declaredType(output)?.shape?.length;
  if (producer?.opType === 'Softmax') {
    const axis = intAttribute(producer, 'axis', -1);
    if (axis === -1 || axis + 1 === rank) {
      const logits = producer.input[0] as string;
      if (portable) return logSoftmax(graph, logits);
      return graph.add('LogSoftmax', [logits], { axis: -1 });
    }
  }
  return graph.add('Log', [graph.add('Add', [output, graph.addInitializer('fit_floor', scalar(1e-7))])]);
}

/**
 * x − m − ln Σ exp(x − m) over the last axis, with m the maximum rounded down: any m gives the same value and gradient,
 * and Floor passes no gradient on.
 */
function logSoftmax(graph: Graph, logits: string): string {
  const axes = graph.addInitializer('fit_last', int64([-1]));
  // The axes of ReduceMax are an input since operator set 18.
  const largest =
    graph.opset < 18
      ? graph.add('ReduceMax', [logits], { axes: [-1], keepdims: 1 })
      : graph.add('ReduceMax', [logits, axes], { keepdims: 1 });
  const shifted = graph.add('Sub', [logits, graph.add('Floor', [largest])]);
  const sum = graph.add('ReduceSum', [graph.add('Exp', [shifted]), axes], { keepdims: 1 });
  return graph.add('Sub', [shifted, graph.add('Log', [sum])]);
}

/** Σ −p ln q over everything; the teacher's entropy, which makes it a KL divergence, is subtracted by the caller. */
function crossEntropy(graph: Graph, teacher: string, output: string, portable: boolean, rank?: number): string {
  const products = graph.add('Mul', [teacher, logProbabilities(graph, output, portable, rank)]);
  return graph.add('Neg', [graph.add('ReduceSum', [products], { keepdims: 0 })]);
}

/** Σ −p ln q − (1 − p) ln(1 − q); from the logit x of a Sigmoid as softplus(x) − p·x. */
function binaryCrossEntropy(graph: Graph, teacher: string, output: string, portable: boolean): string {
  const producer = graph.producer(output);
  if (producer?.opType === 'Sigmoid' && !portable) {
    const logit = producer.input[0] as string;
    const terms = graph.add('Sub', [graph.add('Softplus', [logit]), graph.add('Mul', [teacher, logit])]);
    return graph.add('ReduceSum', [terms], { keepdims: 0 });
  }
  const one = graph.addInitializer('fit_certain', scalar(1));
  const rest = (value: string): string => graph.add('Sub', [one, value]);
  const floor = graph.addInitializer('fit_floor', scalar(1e-7));
  const log = (value: string): string => graph.add('Log', [graph.add('Add', [value, floor])]);
  const products = graph.add('Add', [
    graph.add('Mul', [teacher, log(output)]),
    graph.add('Mul', [rest(teacher), log(rest(output))]),
  ]);
  return graph.add('Neg', [graph.add('ReduceSum', [products], { keepdims: 0 })]);
}

function binaryEntropies(teacher: Teacher): Float64Array {
  const term = (p: number): number => (p > 0 ? -p * Math.log(p) : 0);
  return Float64Array.from(teacher.values, (values) => values.reduce((sum, p) => sum + term(p) + term(1 - p), 0));
}

function entropies(teacher: Teacher): Float64Array {
  return Float64Array.from(teacher.values, (values) => {
    let sum = 0;
    for (const p of values) if (p > 0) sum -= p * Math.log(p);
    return sum;
  });
}

function detectionLoss(
  graph: Graph,
  task: Extract<FitTask, { kind: 'detection' }>,
  cache: ActivationCache,
  batchSize: number,
  portable: boolean,
): TaskLoss {
  const scores = teacherOf(cache, task.scores);
  const boxes = teacherOf(cache, task.boxes);
  const classes = scores.shape.at(-1) ?? 0;
  if (scores.shape.length !== 2 || classes < 2 || boxes.shape.length !== 2 || boxes.shape[1] !== 4) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `detection needs scores [N, P, classes ≥ 2] and boxes [N, P, 4], got [N, ${scores.shape.join(', ')}] and ` +
        `[N, ${boxes.shape.join(', ')}]`,
    );
  }
  const isPositive = (values: Float32Array, prior: number): boolean =>
    1 - (values[prior * classes] as number) > POSITIVE_THRESHOLD;
  const positives = Float64Array.from(scores.values, (values) => {
    let count = 0;
    for (let prior = 0; prior * classes < values.length; prior++) if (isPositive(values, prior)) count++;
    return count;
  });
  const entropy = entropies(scores);
  graph.addInput('fit_teacher_scores', 'float32', [batchSize, ...scores.shape]);
  graph.addInput('fit_teacher_boxes', 'float32', [batchSize, ...boxes.shape]);
  graph.addInput('fit_positive', 'float32', [batchSize, scores.shape[0] ?? 0, 1]);
  graph.addInput('fit_entropy', 'float32', []);
  graph.addInput('fit_normaliser', 'float32', []);
  const divergence = graph.add('Sub', [
    crossEntropy(graph, 'fit_teacher_scores', task.scores, portable),
    'fit_entropy',
  ]);
  // smooth-L1 of d = b − t: c·(d − c/2) with c = d clamped to ±1.
  const distance = graph.add('Sub', [task.boxes, 'fit_teacher_boxes']);
  const [low, high] = [graph.addInitializer('fit_low_one', scalar(-1)), graph.addInitializer('fit_one', scalar(1))];
  const capped = graph.add('Clip', [distance, low, high]);
  const half = graph.add('Mul', [capped, graph.addInitializer('fit_half', scalar(0.5))]);
  const smooth = graph.add('Mul', [capped, graph.add('Sub', [distance, half])]);
  const boxLoss = graph.add('ReduceSum', [graph.add('Mul', [smooth, 'fit_positive'])], { keepdims: 0 });
  const weighted = graph.add('Mul', [boxLoss, graph.addInitializer('fit_box_weight', scalar(BOX_WEIGHT))]);
  const loss = graph.add('Div', [graph.add('Add', [divergence, weighted]), 'fit_normaliser']);
  return {
    loss,
    feeds: (indices) => {
      const priors = scores.shape[0] ?? 0;
      const mask = new Float32Array(indices.length * priors);
      indices.forEach((index, i) => {
        const values = scores.values[index] as Float32Array;
        for (let prior = 0; prior < priors; prior++) if (isPositive(values, prior)) mask[i * priors + prior] = 1;
      });
      return {
        fit_teacher_scores: batchOf(scores, indices),
        fit_teacher_boxes: batchOf(boxes, indices),
        fit_positive: float32([indices.length, priors, 1], mask),
        fit_entropy: scalar(sumAt(entropy, indices)),
        fit_normaliser: scalar(Math.max(1, sumAt(positives, indices))),
      };
    },
  };
}

function classificationLoss(
  graph: Graph,
  output: string,
  cache: ActivationCache,
  batchSize: number,
  portable: boolean,
): TaskLoss {
  const given = teacherOf(cache, output);
  const classes = given.shape.at(-1) ?? 1;
  const kind = classOutputOf(given.values, classes);
  const values = given.values.map((answer) => toProbabilities(answer, classes, kind));
  const teacher: Teacher = { shape: given.shape, values };
  const independent = kind === 'sigmoid' || kind === 'sigmoid-logits';
  const entropy = independent ? binaryEntropies(teacher) : entropies(teacher);
  graph.addInput('fit_teacher', 'float32', [batchSize, ...teacher.shape]);
  graph.addInput('fit_entropy', 'float32', []);
  const answer =
    kind === 'softmax-logits'
      ? graph.add('Softmax', [output], { axis: -1 })
      : kind === 'sigmoid-logits'
        ? graph.add('Sigmoid', [output])
        : output;
  const cross = independent
    ? binaryCrossEntropy(graph, 'fit_teacher', answer, portable)
    : crossEntropy(graph, 'fit_teacher', answer, portable, teacher.shape.length + 1);
  const divergence = graph.add('Sub', [cross, 'fit_entropy']);
  const loss = graph.add('Div', [divergence, graph.addInitializer('fit_batch', scalar(batchSize))]);
  return {
    loss,
    feeds: (indices) => ({ fit_teacher: batchOf(teacher, indices), fit_entropy: scalar(sumAt(entropy, indices)) }),
  };
}

function regressionLoss(graph: Graph, outputs: readonly string[], cache: ActivationCache, batchSize: number): TaskLoss {
  if (outputs.length === 0) throw new ScrimError('INVALID_ARGUMENT', 'a regression task needs at least one output');
  const teachers = outputs.map((output) => teacherOf(cache, output));
  let loss = '';
  teachers.forEach((teacher, i) => {
    graph.addInput(`fit_teacher_${i}`, 'float32', [batchSize, ...teacher.shape]);
    const difference = graph.add('Sub', [outputs[i] as string, `fit_teacher_${i}`]);
    const error = graph.add('ReduceMean', [graph.add('Mul', [difference, difference])], { keepdims: 0 });
    const scaled = graph.add('Mul', [error, graph.addInitializer('fit_scale', scalar(1 / varianceOf(teacher)))]);
    loss = loss === '' ? scaled : graph.add('Add', [loss, scaled]);
  });
  return {
    loss,
    feeds: (indices) =>
      Object.fromEntries(teachers.map((teacher, i) => [`fit_teacher_${i}`, batchOf(teacher, indices)])),
  };
}

function varianceOf(teacher: Teacher): number {
  let count = 0;
  let sum = 0;
  for (const values of teacher.values) {
    count += values.length;
    for (const value of values) sum += value;
  }
  const mean = sum / count;
  let squares = 0;
  for (const values of teacher.values) for (const value of values) squares += (value - mean) ** 2;
  return Math.max(squares / count, 1e-12);
}

function sumAt(values: Float64Array, indices: readonly number[]): number {
  return indices.reduce((sum, index) => sum + (values[index] ?? 0), 0);
}
