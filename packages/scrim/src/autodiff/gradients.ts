/**
 * Reverse-mode differentiation of an ONNX graph.
 *
 * One forward sweep marks the values that depend on what is differentiated by, one backward sweep calls the rule of each
 * node between them and the loss and adds up the gradients of values used more than once. The backward nodes are plain
 * ONNX operators of the graph's own operator set, so the same engine runs both directions, and a graph with gradients
 * can be differentiated again. Rules are written for operator set 17 and newer; an older graph is raised to it first.
 */
import { ScrimError } from '../errors.js';
import type { NodeProto } from '../onnx/gen/onnx_pb.js';
import type { Graph } from '../onnx/graph.js';
import { isStandard, usedBy } from '../onnx/node-scope.js';
import { RAISED_OPSET, raiseOpset } from '../onnx/raise-opset.js';
import { inferShapes, inferValues } from '../onnx/shape-inference.js';
import type { ValueType } from '../onnx/value-info.js';
import { Emitter, floatTensor, type GradientTarget } from './emitter.js';
import { type GradientRule, RuleContext, unsupportedOperator } from './rule.js';
import { RULES } from './rules/registry.js';
import { STOPS } from './rules/stops.js';

/** What {@link addGradients} differentiates, and by what. */
export interface GradientOptions {
  /** The value to differentiate: float32 or float64, shape [] or [1]. */
  readonly loss: string;
  /** Values to differentiate by: graph inputs, initializers or values nodes make; all float32 or float64. */
  readonly wrt: readonly string[];
  /** Shapes of graph inputs that the file leaves symbolic. More is known then, and the graph gets simpler and faster. */
  readonly inputShapes?: Readonly<Record<string, readonly number[]>>;
  /** True to make every gradient a graph output named {@link gradientName}. */
  readonly outputs?: boolean;
  /** What the graph is to run on; default 'cpu'. All give the same gradients, up to rounding. */
  readonly target?: GradientTarget;
}

/** Whether gradients can flow through a node. */
export interface Differentiability {
  readonly node: string;
  readonly operator: string;
  /** 'yes'; 'stops' if the gradient by every input is 0 (comparisons, rounding, shapes); 'no' for want of a rule. */
  readonly differentiable: 'yes' | 'stops' | 'no';
  /** Why not, for 'no'. */
  readonly reason?: string;
}

const FLOAT32: ValueType = { dtype: 'float32', shape: undefined };

/** Name of the graph output that {@link addGradients} makes for a value. */
export function gradientName(value: string): string {
  return `${value}/gradient`;
}

/**
 * Adds to `graph`, in place, the nodes that compute the gradient of `loss` by each value of `wrt`, and returns the name
 * of each gradient. A gradient has the shape and element type of its value. A value on which the loss does not depend,
 * or only through steps and integers, gets zeros. A graph of an older operator set than 17 is rewritten in that one.
 * @throws ScrimError INVALID_ARGUMENT if `loss` or a value of `wrt` does not exist or has the wrong type; UNSUPPORTED
 * naming operator, node and value if something on the way has no rule, or its rank stays unknown.
 */
export function addGradients(graph: Graph, options: GradientOptions): Map<string, string> {
  const { loss, wrt, inputShapes, outputs = false, target = 'cpu' } = options;
  raiseOpset(graph);
  const given = inputShapes === undefined ? {} : { inputShapes };
  const types = inferShapes(graph, given);
  checkLoss(graph, loss, types);
  for (const value of wrt) checkVariable(graph, value, types);

  const emit = new Emitter(graph, types, inferValues(graph, given), target);
  const forward = [...graph.nodes()];
  const active = dependents(forward, wrt, types);
  const collected = new Map<string, string[]>();
  if (active.has(loss)) {
    const type = types.get(loss) as ValueType;
    const shape = (type.shape ?? []) as readonly number[];
    collected.set(loss, [emit.constant(floatTensor(type.dtype, shape, [1]), 'one')]);
  }
  /** The gradient of a value, once all of its users were visited. */
  const gradientOf = (value: string): string | undefined => {
    const terms = collected.get(value);
    if (!terms) return undefined;
    const total = emit.sum(terms);
    collected.set(value, [total]);
    return total;
  };

  for (const node of forward.reverse()) {
    if (!node.output.some((output) => collected.has(output)) || !usedBy(node).some((name) => active.has(name))) {
      continue;
    }
    const half = [...node.input, ...node.output].find((name) => active.has(name) && isHalf(types.get(name) ?? FLOAT32));
    if (half !== undefined) {
      throw unsupportedOperator(node, `'${half}' has half precision; 'scrim model bind --float32' makes it float32`);
    }
    emit.begin(`gradient/${node.name}`, emit.dtype(node.output[0] ?? ''));
    const gradients = node.output.map(gradientOf);
    const context = new RuleContext(node, emit, gradients, (value) => active.has(value), wrt);
    const results = ruleOf(node)(context);
    results.forEach((gradient, i) => {
      const input = node.input[i];
      if (gradient === undefined || input === undefined || !active.has(input)) return;
      const terms = collected.get(input);
      if (terms) terms.push(gradient);
      else collected.set(input, [gradient]);
    });
  }

  emit.begin('gradient', 'float32');
  const result = new Map<string, string>();
  for (const value of wrt) {
    if (result.has(value)) continue;
    const gradient = gradientOf(value) ?? emit.zerosLike(value);
    result.set(value, outputs ? addOutput(graph, value, gradient, types) : gradient);
  }
  return result;
}

/** True if gradients can flow through `node`, or its outputs have the gradient 0. */
export function supportsGradient(node: NodeProto): boolean {
  return judge(node).differentiable !== 'no';
}

/**
 * Says for every node of the graph whether gradients can flow through it. A 'yes' may still become UNSUPPORTED in
 * {@link addGradients} where it depends on constants or shapes (such as a Dropout in training mode).
 */
export function differentiability(graph: Graph): Differentiability[] {
  const types = inferShapes(graph);
  const isInteger = (name: string): boolean => {
    const type = types.get(name);
    return type !== undefined && !isFloat(type) && !isHalf(type);
  };
  const raised = raisedNodes(graph);
  return graph.nodes().map((node, i) => {
    const used = usedBy(node);
    const judged = judge(raised[i] ?? node);
    // No gradient reaches what computes with integers alone.
    return used.length > 0 && used.every(isInteger)
      ? { node: node.name, operator: operatorOf(node), differentiable: 'stops' }
      : { ...judged, operator: operatorOf(node) };
  });
}

/** The nodes of a graph, each in the form in which it would be differentiated: some have another name there. */
function raisedNodes(graph: Graph): readonly NodeProto[] {
  if (graph.opset >= RAISED_OPSET) return graph.nodes();
  const copy = graph.clone();
  const nodes = [...copy.nodes()];
  try {
    raiseOpset(copy);
    return nodes;
  } catch (error) {
    // A node that can't be raised fails where gradients are asked for; the others are judged all the same.
    if (error instanceof ScrimError && error.code === 'UNSUPPORTED') return graph.nodes();
    throw error;
  }
}

function operatorOf(node: NodeProto): string {
  return node.domain === '' ? node.opType : `${node.domain}.${node.opType}`;
}

function judge(node: NodeProto): Differentiability {
  const operator = operatorOf(node);
  if (isStandard(node) && STOPS.has(node.opType)) return { node: node.name, operator, differentiable: 'stops' };
  const rule = findRule(node);
  return typeof rule === 'string'
    ? { node: node.name, operator, differentiable: 'no', reason: rule }
    : { node: node.name, operator, differentiable: 'yes' };
}

/** The rule of a node, or why it has none. */
function findRule(node: NodeProto): GradientRule | string {
  const entry = isStandard(node) ? RULES.get(node.opType) : undefined;
  if (!entry) {
    return QUANTISED.has(node.opType)
      ? "it is quantised arithmetic, which has no gradient; 'scrim model bind --float32' makes it float32"
      : 'there is no gradient rule for it';
  }
  if (typeof entry === 'function') return entry;
  return entry.refuse(node) ?? entry.gradient;
}

function ruleOf(node: NodeProto): GradientRule {
  const rule = findRule(node);
  if (typeof rule === 'string') throw unsupportedOperator(node, rule);
  return rule;
}

/**
 * Operators that compute with quantised values: steps everywhere, whose gradient of 0 would be right and of no use to
 * anyone. They are refused instead.
 */
const QUANTISED: ReadonlySet<string> = new Set([
  'ConvInteger',
  'DequantizeLinear',
  'DynamicQuantizeLSTM',
  'DynamicQuantizeLinear',
  'DynamicQuantizeMatMul',
  'MatMulInteger',
  'MatMulIntegerToFloat',
  'QLinearConv',
  'QLinearMatMul',
  'QuantizeLinear',
]);

/** Values that depend on `sources` through operators that let gradients pass, sources included. */
function dependents(
  nodes: readonly NodeProto[],
  sources: readonly string[],
  types: ReadonlyMap<string, ValueType>,
): ReadonlySet<string> {
  const active = new Set(sources);
  for (const node of nodes) {
    if (isStandard(node) && STOPS.has(node.opType)) continue;
    if (!usedBy(node).some((name) => active.has(name))) continue;
    for (const output of node.output) {
      const type = types.get(output);
      const carries = type === undefined || isFloat(type) || isHalf(type) || QUANTISED.has(node.opType);
      if (output !== '' && carries) active.add(output);
    }
  }
  return active;
}

/** Half precision carries gradients in principle, but is refused: no rule here is written for it. */
function isHalf(type: ValueType): boolean {
  return type.dtype === 'float16' || type.dtype === 'bfloat16';
}

function isFloat(type: ValueType): boolean {
  return type.dtype === 'float32' || type.dtype === 'float64';
}

function checkLoss(graph: Graph, loss: string, types: ReadonlyMap<string, ValueType>): void {
  if (!graph.has(loss)) throw new ScrimError('INVALID_ARGUMENT', `loss: the graph has no value '${loss}'`);
  const type = types.get(loss);
  const shape = type?.shape;
  if (!type || !shape || !isFloat(type) || !(shape.length === 0 || (shape.length === 1 && shape[0] === 1))) {
    const found = type ? `${type.dtype} ${shape ? `[${shape.join(', ')}]` : 'of unknown rank'}` : 'of unknown type';
    throw new ScrimError('INVALID_ARGUMENT', `loss: '${loss}' is ${found}, expected float32 of shape [] or [1]`);
  }
}

function checkVariable(graph: Graph, value: string, types: ReadonlyMap<string, ValueType>): void {
  if (!graph.has(value)) throw new ScrimError('INVALID_ARGUMENT', `wrt: the graph has no value '${value}'`);
  const type = types.get(value);
  if (type && !isFloat(type)) {
    throw new ScrimError('INVALID_ARGUMENT', `wrt: '${value}' is ${type.dtype}, expected float32`);
  }
}

function addOutput(graph: Graph, value: string, gradient: string, types: ReadonlyMap<string, ValueType>): string {
  const name = gradientName(value);
  graph.add('Identity', [gradient], {}, { outputs: [name] });
  const type = types.get(value);
  return graph.addOutput(name, type?.dtype ?? 'float32', type?.shape);
}
