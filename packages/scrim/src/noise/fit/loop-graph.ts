/**
 * Many steps in one run: a graph becomes the body of an ONNX Loop.
 *
 * A provider that hands its outputs back to the processor after every run (CUDA in onnxruntime-node) would move a
 * trainer's whole state both ways in every step; in a loop the state stays where the steps are computed and is moved once
 * a run.
 */
import { create } from '@bufbuild/protobuf';
import { NodeProtoSchema } from '../../onnx/gen/onnx_pb.js';
import { type AttributeProto, attribute, Graph, type GraphProto, type ValueType, valueInfo } from '../../onnx/index.js';

/** Input of a looped graph: how many steps a run takes, an int64 scalar. */
export const LOOP_COUNT = 'loop_count';

/** What goes in and out of a loop. */
export interface LoopPlan {
  /** Input -> output that takes its place in the next step. The outputs of the loop are those of the last step. */
  readonly carried: Readonly<Record<string, string>>;
  /** Outputs of every step, joined along a new first dimension. */
  readonly collected: readonly string[];
  /** Element type and shape of each other input in one step. */
  readonly inputs: Readonly<Record<string, ValueType>>;
}

/**
 * The graph that runs `graph` {@link LOOP_COUNT} times. Names stay; inputs that are not carried have one dimension more,
 * the steps.
 * @param graph only read
 */
export function loopGraph(graph: Graph, plan: LoopPlan): Graph {
  const { carried, collected, inputs } = plan;
  const states = Object.entries(carried);
  const looped = Graph.create({ name: `${graph.proto.name} steps`, opset: graph.opset });
  looped.addInput(LOOP_COUNT, 'int64', []);
  for (const [name, { dtype, shape }] of Object.entries(inputs)) {
    looped.addInput(name, dtype, ['steps', ...(shape ?? [])]);
  }
  for (const [input] of states) {
    const { dtype, shape } = typeOf(graph, input);
    looped.addInput(input, dtype, shape ?? []);
  }
  const outputs = [...states.map(([, output]) => output), ...collected];
  looped.addMany(
    'Loop',
    [LOOP_COUNT, '', ...states.map(([input]) => input)],
    { body: bodyOf(graph, plan, outputs) },
    { outputs },
  );
  looped.setOutputs(outputs);
  return looped;
}

function typeOf(graph: Graph, name: string): ValueType {
  return graph.declaredType(name) ?? { dtype: 'float32', shape: undefined };
}

/** Names inside a body must differ from those around it. */
const inner = (name: string): string => `${name}/step`;

function bodyOf(graph: Graph, { carried, inputs }: LoopPlan, outputs: readonly string[]): GraphProto {
  const body = graph.clone();
  const states = Object.keys(carried);
  const fed = Object.keys(inputs);
  // An output may be one of the inputs.
  const results = outputs.map((name) => body.add('Identity', [name], {}, { outputs: [`${name}/out`] }));
  for (const name of new Set([...fed, ...states, ...outputs])) body.renameValue(name, inner(name));
  const node = (opType: string, from: readonly string[], to: string, attributes: AttributeProto[] = []) =>
    create(NodeProtoSchema, { name: to, opType, input: [...from], output: [to], attribute: attributes });
  const { proto } = body;
  proto.node = [
    ...fed.map((name) => node('Gather', [name, 'loop_step'], inner(name), [attribute('axis', 0)])),
    ...body.nodes(),
    node('Identity', ['loop_go'], 'loop_on'),
  ];
  proto.input = [
    valueInfo('loop_step', { dtype: 'int64', shape: [] }),
    valueInfo('loop_go', { dtype: 'bool', shape: [] }),
    ...states.map((name) => valueInfo(inner(name), typeOf(graph, name))),
  ];
  proto.output = [
    valueInfo('loop_on', { dtype: 'bool', shape: [] }),
    ...results.map((name) => valueInfo(name, { dtype: 'float32', shape: undefined })),
  ];
  return proto;
}
