/** What a fit on plain inputs (arrays, tables, recordings) needs: the halves of the model and its clean activations. */
import { type Engine, float32, ScrimError, type Session } from 'scrim';
import { type ActivationCache, cacheActivations, type FitTask } from 'scrim/noise';
import { type Graph, inferShapes } from 'scrim/onnx';
import { cutInPlanes, splitAt } from 'scrim/split';
import type { CommandContext } from './context.js';
import { type InputShape, listInputFiles, readInputs } from './input-files.js';
import type { ModelSource } from './model-source.js';

/** A model cut in two, with its answers to the fitting inputs. */
export interface CachedInputs {
  readonly head: Graph;
  readonly tail: Graph;
  /** The tensor that crosses: the one asked for, or its form with four axes. */
  readonly cut: string;
  readonly cache: ActivationCache;
  readonly fileCount: number;
}

/** How far a batch's answers may be from those one by one, relative to the largest. */
const BATCH_TOLERANCE = 1e-3;

/**
 * The one float input that inputs from files are fed to.
 * @throws ScrimError UNSUPPORTED for models with another number of inputs, or of another element type
 */
export function singleInput({ graph, name: model }: ModelSource): InputShape {
  const [name, ...more] = graph.inputNames;
  if (name === undefined || more.length > 0) {
    throw new ScrimError(
      'UNSUPPORTED',
      `'${model}' has ${graph.inputNames.length} inputs (${graph.inputNames.join(', ')}), expected one: give the others ` +
        "their values with 'scrim model bind'",
    );
  }
  const type = inferShapes(graph).get(name);
  if (type?.dtype !== 'float32' || !type.shape) {
    throw new ScrimError(
      'UNSUPPORTED',
      `the input '${name}' of '${model}' is ${type?.dtype ?? 'of unknown type'}${type?.shape ? '' : ' of unknown rank'}, ` +
        "expected float32 with the batch first: 'scrim model bind --float32' makes it so",
    );
  }
  return { name, shape: type.shape };
}

/** Splits the model and runs both halves over every row of the files. */
export async function cacheInputs(
  context: CommandContext,
  engine: Engine,
  plan: {
    readonly model: ModelSource;
    readonly cut: string;
    readonly task: FitTask;
    readonly data: readonly string[];
    readonly batchSize?: number;
  },
): Promise<CachedInputs> {
  const { model, task, data, batchSize = 8 } = plan;
  const input = singleInput(model);
  checkTask(model.graph, task);
  if (!model.graph.has(plan.cut) && plan.cut.includes(',')) {
    throw new ScrimError('UNSUPPORTED', `the cut '${plan.cut}' names several tensors: noise is fitted for one`);
  }
  const planar = cutInPlanes(model.graph, plan.cut);
  const { cut } = planar;
  const { head, tail } = splitAt(planar.graph, [cut]);
  const batch = tail.declaredType(cut)?.shape?.[0];
  if (typeof batch === 'number' && batch !== batchSize) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `'${model.name}' is made for batches of ${batch}: give --batch ${batch}, or export it with a symbolic batch`,
    );
  }
  const files = await listInputFiles(data);
  const headSession = await engine.load(head.encode());
  const tailSession = await engine.load(tail.encode());
  const progress = context.progress('inputs', files.length);
  async function* rows() {
    for (const [i, file] of files.entries()) {
      for await (const { tensor } of readInputs([file], input)) yield tensor;
      progress.update(i + 1);
    }
  }
  const cache = await cacheActivations(rows(), {
    head: headSession,
    tail: tailSession,
    input: input.name,
    cut,
    signal: context.signal,
  }).finally(() => progress.stop());
  await checkBatches(tailSession, cut, cache, Math.min(batchSize, cache.activations.length));
  await headSession.close();
  await tailSession.close();
  return { head, tail, cut, cache, fileCount: files.length };
}

function checkTask(graph: Graph, task: FitTask): void {
  const wanted =
    task.kind === 'detection'
      ? [task.scores, task.boxes]
      : task.kind === 'classification'
        ? [task.output]
        : task.outputs;
  for (const name of wanted) {
    if (!graph.isOutput(name)) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `the task names '${name}', which is no output; outputs are ${graph.outputNames.join(', ')}`,
      );
    }
  }
}

/** A step of a fit runs a batch: the tail has to answer each row of it as if it stood alone. */
async function checkBatches(tail: Session, cut: string, cache: ActivationCache, size: number): Promise<void> {
  if (size < 2) return;
  const length = cache.activations[0]?.length ?? 0;
  const joined = new Float32Array(size * length);
  for (let i = 0; i < size; i++) joined.set(cache.activations[i] as Float32Array, i * length);
  const refuse = (reason: string, cause?: unknown): never => {
    throw new ScrimError(
      'UNSUPPORTED',
      `the tail does not answer ${size} inputs at once as it answers one: ${reason}; give --batch 1, or export the model ` +
        'with a symbolic batch',
      { cause },
    );
  };
  let outputs: Awaited<ReturnType<Session['run']>> = {};
  try {
    outputs = await tail.run({ [cut]: float32([size, ...cache.shape], joined) });
  } catch (error) {
    refuse(error instanceof Error ? error.message : String(error), error);
  }
  for (const [name, { values }] of cache.outputs) {
    const found = outputs[name];
    const alone = values.slice(0, size);
    const each = alone[0]?.length ?? 0;
    if (found?.data.length !== size * each) refuse(`'${name}' has another size`);
    const data = found?.data as Float32Array;
    let [worst, largest] = [0, 0];
    alone.forEach((answer, i) => {
      answer.forEach((value, j) => {
        worst = Math.max(worst, Math.abs(value - (data[i * each + j] as number)));
        largest = Math.max(largest, Math.abs(value));
      });
    });
    if (worst > BATCH_TOLERANCE * Math.max(largest, 1e-6)) refuse(`'${name}' differs`);
  }
}
