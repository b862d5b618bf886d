/**
 * What a configuration asks of this server: read, checked, and completed from the model where it is silent.
 *
 * Triton's model configuration (model_config.proto) and its auto-complete for ONNX. Features that this server lacks
 * are refused by name, so that no model is served otherwise than its configuration says.
 */
import type { ValueInfo } from '../engine/engine.js';
import { ScrimError } from '../errors.js';
import {
  configPb,
  configTypeOf,
  createModelConfig,
  DATATYPE_OF,
  type Datatype,
  datatypeOfConfig,
  type ModelConfig,
} from '../protocol/index.js';

/** Name, element type and dimensions (without the batch; −1 for any) of an input or output. */
export interface TensorSpec {
  readonly name: string;
  readonly datatype: Datatype;
  readonly dims: readonly number[];
}

/** How long and how many requests may wait. */
export interface QueuePolicy {
  /** Requests that may wait; 0 for any number. */
  readonly maxQueueSize: number;
  /** Microseconds a request may wait; 0 for any time. */
  readonly timeoutUs: number;
  /** Whether a request may set its own, smaller timeout. */
  readonly allowOverride: boolean;
  /** What becomes of a request whose time is over. */
  readonly onTimeout: 'reject' | 'delay';
}

/** How requests are gathered into batches. */
export interface BatchingSettings {
  /** Sizes to send at once when reached, ascending; empty means the largest allowed. */
  readonly preferred: readonly number[];
  /** Microseconds the oldest request may wait for company. */
  readonly maxDelayUs: number;
}

/** Settings of one loaded model. */
export interface ModelSettings {
  /** The configuration, completed. */
  readonly config: ModelConfig;
  /** 0: the model has no batch dimension. */
  readonly maxBatchSize: number;
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  /** Undefined where requests are executed one by one. */
  readonly batching: BatchingSettings | undefined;
  /** Priority levels: 1 is served first. At least one. */
  readonly policies: readonly QueuePolicy[];
  /** Level of a request that names none, 1-based. */
  readonly defaultPriority: number;
}

const OPEN_POLICY: QueuePolicy = { maxQueueSize: 0, timeoutUs: 0, allowOverride: true, onTimeout: 'reject' };
const MAX_INSTANCES = 64;
const MAX_PRIORITIES = 64;
const MAX_THREADS = 1024;
const THREADS = 'intra_op_thread_count';
const PLATFORM = 'onnxruntime_onnx';
const BACKEND = 'onnxruntime';

/** Throws UNSUPPORTED naming what `config` asks for and this server lacks; INVALID_ARGUMENT for what can't be. */
export function checkConfig(name: string, config: ModelConfig): void {
  const refuse = (what: string): never => {
    throw new ScrimError('UNSUPPORTED', `model '${name}': ${what}`);
  };
  if (config.name !== '' && config.name !== name) {
    throw new ScrimError('INVALID_ARGUMENT', `model '${name}': config.pbtxt names it '${config.name.slice(0, 200)}'`);
  }
  if (config.platform !== '' && config.platform !== PLATFORM) {
    refuse(`platform '${config.platform.slice(0, 100)}' is not supported, expected '${PLATFORM}'`);
  }
  if (config.backend !== '' && config.backend !== BACKEND) {
    refuse(`backend '${config.backend.slice(0, 100)}' is not supported, expected '${BACKEND}'`);
  }
  if (config.maxBatchSize < 0) {
    throw new ScrimError('INVALID_ARGUMENT', `model '${name}': max_batch_size is ${config.maxBatchSize}, expected ≥ 0`);
  }
  const scheduling = config.schedulingChoice.case;
  if (scheduling === 'sequenceBatching') refuse('sequence_batching is not supported');
  if (scheduling === 'ensembleScheduling') refuse('ensembles are not supported');
  if (config.modelTransactionPolicy?.decoupled) refuse('decoupled models are not supported');
  if (config.batchInput.length > 0 || config.batchOutput.length > 0) refuse('batch_input is not supported');
  if (config.responseCache?.enable) refuse('response_cache is not supported');
  if ((config.modelOperations?.opLibraryFilename.length ?? 0) > 0) refuse('libraries of operators are not supported');
  wantedThreads(name, config);
  for (const input of config.input) {
    const what = `input '${input.name}'`;
    if (input.allowRaggedBatch) refuse(`${what}: allow_ragged_batch is not supported`);
    if (input.optional) refuse(`${what}: optional inputs are not supported`);
    if (input.isShapeTensor) refuse(`${what}: shape tensors are not supported`);
  }
  for (const tensor of [...config.input, ...config.output]) {
    if (tensor.reshape) refuse(`'${tensor.name}': reshape is not supported`);
    if (datatypeOfConfig(tensor.dataType) === undefined) {
      throw new ScrimError('INVALID_ARGUMENT', `model '${name}': '${tensor.name}' has no data_type`);
    }
  }
  const count = instanceCount(config);
  if (count > MAX_INSTANCES) refuse(`instance_group asks for ${count} instances, at most ${MAX_INSTANCES} are allowed`);
}

/** Instances a configuration asks for; 1 where it is silent. */
export function instanceCount(config: ModelConfig): number {
  if (config.instanceGroup.length === 0) return 1;
  return config.instanceGroup.reduce((sum, { count, gpus }) => sum + Math.max(1, count) * Math.max(1, gpus.length), 0);
}

/**
 * Threads of one run that a configuration asks for by the parameter of Triton's ONNX backend; undefined for as many as the
 * server has.
 * @throws ScrimError INVALID_ARGUMENT
 */
export function wantedThreads(name: string, config: ModelConfig): number | undefined {
  const text = config.parameters[THREADS]?.stringValue;
  if (text === undefined || text === '0') return undefined;
  if (/^\d{1,4}$/.test(text) && Number(text) <= MAX_THREADS) return Number(text);
  throw new ScrimError(
    'INVALID_ARGUMENT',
    `model '${name}': parameter ${THREADS} is '${text.slice(0, 20)}', expected 0 to ${MAX_THREADS}`,
  );
}

/** Whether a configuration asks for a GPU. */
export function wantsGpu(config: ModelConfig): boolean {
  return config.instanceGroup.some(({ kind }) => kind === configPb.ModelInstanceGroup_Kind.GPU);
}

/** The versions a configuration makes available, ascending; default: the latest one. */
export function chooseVersions(config: ModelConfig, versions: readonly number[]): number[] {
  const ascending = [...versions].sort((a, b) => a - b);
  const policy = config.versionPolicy?.policyChoice;
  switch (policy?.case) {
    case 'all':
      return ascending;
    case 'specific': {
      const wanted = new Set(policy.value.versions.map(Number));
      return ascending.filter((version) => wanted.has(version));
    }
    default: {
      const count = policy?.case === 'latest' ? Math.max(1, policy.value.numVersions) : 1;
      return ascending.slice(-count);
    }
  }
}

/**
 * Completes `config` from what the loaded graph takes and gives, and reads the settings out of it.
 * @param defaultMaxBatch largest batch of a model whose configuration is silent and whose tensors all begin with a
 * dimension of variable size
 * @throws ScrimError INVALID_ARGUMENT where configuration and graph disagree.
 */
export function settleModel(
  name: string,
  config: ModelConfig,
  graph: { readonly inputs: readonly ValueInfo[]; readonly outputs: readonly ValueInfo[] },
  defaultMaxBatch: number,
): ModelSettings {
  const silent = config.input.length === 0 && config.output.length === 0 && config.maxBatchSize === 0;
  const all = [...graph.inputs, ...graph.outputs];
  const batches = all.length > 0 && all.every(({ shape }) => typeof shape[0] === 'string');
  const maxBatchSize = silent && batches ? defaultMaxBatch : config.maxBatchSize;
  const spec = (info: ValueInfo) => {
    const dims = (maxBatchSize > 0 ? info.shape.slice(1) : info.shape).map((dim) =>
      BigInt(typeof dim === 'number' ? dim : -1),
    );
    return { name: info.name, dataType: configTypeOf(DATATYPE_OF[info.dtype]), dims };
  };
  const merged: ModelConfig = {
    ...config,
    name,
    maxBatchSize,
    platform: config.platform === '' ? PLATFORM : config.platform,
    backend: config.backend === '' ? BACKEND : config.backend,
    defaultModelFilename: config.defaultModelFilename === '' ? 'model.onnx' : config.defaultModelFilename,
  };
  const derived = createModelConfig({
    input: config.input.length > 0 ? [] : graph.inputs.map(spec),
    output: config.output.length > 0 ? [] : graph.outputs.map(spec),
    ...(silent && maxBatchSize > 1 && config.schedulingChoice.case === undefined
      ? { schedulingChoice: { case: 'dynamicBatching' as const, value: {} } }
      : {}),
    instanceGroup:
      config.instanceGroup.length > 0 ? [] : [{ name, count: 1, kind: configPb.ModelInstanceGroup_Kind.CPU }],
    versionPolicy: { policyChoice: { case: 'latest', value: { numVersions: 1 } } },
  });
  if (config.input.length === 0) merged.input = derived.input;
  if (config.output.length === 0) merged.output = derived.output;
  if (config.instanceGroup.length === 0) merged.instanceGroup = derived.instanceGroup;
  if (config.versionPolicy === undefined && derived.versionPolicy) merged.versionPolicy = derived.versionPolicy;
  if (derived.schedulingChoice.case !== undefined) merged.schedulingChoice = derived.schedulingChoice;

  const inputs = merged.input.map((tensor) => toSpec(name, tensor));
  const outputs = merged.output.map((tensor) => toSpec(name, tensor));
  compare(name, 'input', inputs, graph.inputs, maxBatchSize, true);
  compare(name, 'output', outputs, graph.outputs, maxBatchSize, false);
  return { config: merged, maxBatchSize, inputs, outputs, ...schedulingOf(name, merged) };
}

function toSpec(model: string, tensor: { name: string; dataType: configPb.DataType; dims: bigint[] }): TensorSpec {
  const datatype = datatypeOfConfig(tensor.dataType);
  if (datatype === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', `model '${model}': '${tensor.name}' has no data_type`);
  }
  return { name: tensor.name, datatype, dims: tensor.dims.map(Number) };
}

function compare(
  model: string,
  kind: 'input' | 'output',
  specs: readonly TensorSpec[],
  values: readonly ValueInfo[],
  maxBatchSize: number,
  complete: boolean,
): void {
  const fail = (text: string): never => {
    throw new ScrimError('INVALID_ARGUMENT', `model '${model}': ${text}`);
  };
  const byName = new Map(values.map((value) => [value.name, value]));
  for (const spec of specs) {
    const value = byName.get(spec.name);
    if (value === undefined) {
      fail(`the configuration has ${kind} '${spec.name}', the model has ${[...byName.keys()].join(', ')}`);
      continue;
    }
    if (DATATYPE_OF[value.dtype] !== spec.datatype) {
      fail(`${kind} '${spec.name}' is ${spec.datatype} in the configuration, ${DATATYPE_OF[value.dtype]} in the model`);
    }
    // onnxruntime reports an unknown rank as rank 0.
    if (value.shape.length === 0) continue;
    const shape = maxBatchSize > 0 ? value.shape.slice(1) : value.shape;
    if (maxBatchSize > 0 && typeof value.shape[0] === 'number') {
      fail(`max_batch_size is ${maxBatchSize}, but ${kind} '${spec.name}' has a fixed first dimension in the model`);
    }
    const fits =
      shape.length === spec.dims.length &&
      shape.every((dim, i) => typeof dim === 'string' || dim === spec.dims[i] || spec.dims[i] === -1);
    if (!fits) {
      const shown = shape.map((dim) => (typeof dim === 'string' ? -1 : dim)).join(', ');
      fail(`${kind} '${spec.name}' has dims [${spec.dims.join(', ')}] in the configuration, [${shown}] in the model`);
    }
  }
  if (complete && specs.length !== values.length) {
    fail(`the configuration has ${specs.length} ${kind}s, the model has ${values.length}`);
  }
}

function schedulingOf(
  name: string,
  config: ModelConfig,
): Pick<ModelSettings, 'batching' | 'policies' | 'defaultPriority'> {
  if (config.schedulingChoice.case !== 'dynamicBatching') {
    return { batching: undefined, policies: [OPEN_POLICY], defaultPriority: 1 };
  }
  const { value } = config.schedulingChoice;
  const levels = Math.max(1, Number(value.priorityLevels));
  if (levels > MAX_PRIORITIES) {
    throw new ScrimError('UNSUPPORTED', `model '${name}': ${levels} priority_levels, at most ${MAX_PRIORITIES}`);
  }
  const preferred = [...value.preferredBatchSize].sort((a, b) => a - b);
  const wrong = preferred.find((size) => size < 1 || size > config.maxBatchSize);
  if (wrong !== undefined) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `model '${name}': preferred_batch_size ${wrong}, expected 1 to max_batch_size ${config.maxBatchSize}`,
    );
  }
  const policies = Array.from({ length: levels }, (_, i) =>
    policyOf(value.priorityQueuePolicy[String(i + 1)] ?? value.defaultQueuePolicy),
  );
  const chosen = Number(value.defaultPriorityLevel);
  return {
    batching: config.maxBatchSize > 1 ? { preferred, maxDelayUs: Number(value.maxQueueDelayMicroseconds) } : undefined,
    policies,
    defaultPriority: chosen >= 1 && chosen <= levels ? chosen : Math.ceil(levels / 2),
  };
}

function policyOf(policy: configPb.ModelQueuePolicy | undefined): QueuePolicy {
  if (policy === undefined) return OPEN_POLICY;
  return {
    maxQueueSize: policy.maxQueueSize,
    timeoutUs: Number(policy.defaultTimeoutMicroseconds),
    allowOverride: policy.allowTimeoutOverride,
    onTimeout: policy.timeoutAction === configPb.ModelQueuePolicy_TimeoutAction.DELAY ? 'delay' : 'reject',
  };
}
