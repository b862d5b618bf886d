/**
 * The gateway: existing v2 clients speak to it as if it ran the clean model; it stands on the trusted side, runs head and
 * noise, lets a remote server run the tail on the release, and answers under the clean names.
 *
 * The server of server/ does what a server does (queues, statistics, metrics, draining); its engine is the
 * confidential session. In front of it two things are added: encoded images as BYTES become input tensors, and releases
 * of the same image are counted for each client, since every further fresh release tells more about an image.
 */
import { createHmac, randomBytes } from 'node:crypto';
import type { Bundle } from '../bundle/bundle.js';
import { HEAD_PATH } from '../bundle/bundle.js';
import { findCandidates } from '../bundle/candidates.js';
import type { ConfidentialSession } from '../client/confidential-session.js';
import type { TritonClient } from '../client/triton-client.js';
import type { Engine, NamedTensors, RunOptions, Session, ValueInfo } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import { Graph } from '../onnx/index.js';
import {
  configPb,
  createModelConfig,
  DTYPE_OF,
  formatModelConfig,
  type InferRequest,
  type InferResponse,
  isDatatype,
  type Limits,
  type WireTensor,
} from '../protocol/index.js';
import { answerHttp, type HttpAnswer, type HttpCall, handleRequest } from '../server/http-handler.js';
import { createInferenceServer, type InferenceServer } from '../server/inference-server.js';
import { MemoryRepository } from '../server/model-repository.js';
import type { Caller } from '../server/server-api.js';
import { type DataType, expectType, float32, type Tensor } from '../tensor.js';
import type { ResizeMode } from '../vision/index.js';
import { createGatewayBudget, type GatewayLedgerOptions } from './gateway-ledger.js';
import { createInputReader } from './vision-input.js';

/** What a gateway is made of. */
export interface GatewayOptions {
  readonly bundle: Bundle;
  /** Head, noise and the way to the remote server; belongs to the caller. */
  readonly session: ConfidentialSession;
  /** The session's client: asked for the outputs' shapes and whether the remote server is ready. */
  readonly upstream: TritonClient;
  /** Name under which clients find the model. Default: the clean model's name in the bundle. */
  readonly name?: string;
  /** How encoded images become inputs. Default: the square that the bundle's detector names, or 1024×1024. */
  readonly resize?: ResizeMode;
  /** Requests that may be under way to the remote server. Default 4. */
  readonly concurrency?: number;
  /** Counts releases of the same image for each client; default true. */
  readonly countReleases?: boolean;
  /** Counts releases by subject in a ledger, before they leave; default: none. */
  readonly ledger?: GatewayLedgerOptions;
  readonly limits?: Limits;
  readonly version?: string;
}

/** How often one client had images released. Counts only. */
export interface ReleaseCounts {
  /** A name that stands for the client's token, not the token; without one its network address; else 'anonymous'. */
  readonly client: string;
  readonly releases: number;
  /** Different images among them, of those still remembered. */
  readonly images: number;
  /** Releases of the image that was released most often. */
  readonly most: number;
}

/** A gateway: a server of one model, and its counts. */
export interface Gateway {
  /** Speaks v2; for the listeners of this folder. */
  readonly server: InferenceServer;
  /** Answers HTTP, counting for the client by its token or, without one, its address. Never rejects. */
  answer(call: HttpCall): Promise<HttpAnswer>;
  /** As `server.infer`, for a caller that is known; for listeners of gRPC. */
  infer(caller: Caller, request: InferRequest, options?: { readonly signal?: AbortSignal }): Promise<InferResponse>;
  /** As `answer`, on the platform's fetch types. */
  handle(request: Request): Promise<Response>;
  report(): ReleaseCounts[];
  close(): Promise<void>;
}

const READY_EVERY_MS = 1_000;
/** Clients, and images of one client, that are remembered; the oldest are forgotten first. */
const MAX_CLIENTS = 1_000;
const MAX_IMAGES = 10_000;
const MAX_BATCH = 8;
const MAX_CONCURRENCY = 64;
const WHOLE_BYTES = 2 ** 20;
const RUN_BYTES = 256;
const SKIP = 32;

/**
 * Makes a gateway. The remote server must answer now, as the outputs' shapes come from it.
 * @throws ScrimError INVALID_BUNDLE if the remote model does not fit the bundle; as the client
 */
export async function createGateway(options: GatewayOptions): Promise<Gateway> {
  const { bundle, session, upstream, concurrency = 4, countReleases = true, resize } = options;
  assertArgument(
    Number.isSafeInteger(concurrency) && concurrency >= 1 && concurrency <= MAX_CONCURRENCY,
    `concurrency is ${concurrency}, expected an integer from 1 to ${MAX_CONCURRENCY}`,
  );
  const { manifest } = bundle;
  const name = options.name ?? manifest.model.name;
  await session.check();
  const types = await typesOf(bundle, session, upstream);
  const counter = createReleaseCounter();
  // Counted when the head is about to run: what is refused before that was never released.
  const countings = new WeakMap<Tensor, () => void>();
  const counted = (input: Tensor): void => countings.get(input)?.();
  const inner = createInferenceServer({
    repository: new MemoryRepository({
      [name]: {
        'config.pbtxt': formatModelConfig(
          createModelConfig({
            name,
            maxBatchSize: MAX_BATCH,
            instanceGroup: [{ count: concurrency, kind: configPb.ModelInstanceGroup_Kind.CPU }],
          }),
        ),
        '1/model.onnx': new Uint8Array(0),
      },
    }),
    engineFactory: async () => sessionEngine(confidentialRun(session, types, counted), types),
    ...(options.limits === undefined ? {} : { limits: options.limits }),
    ...(options.version === undefined ? {} : { version: options.version }),
  });
  await inner.start();
  const [entry] = await inner.index();
  if (!inner.modelReady(name)) {
    await inner.close();
    throw new ScrimError('INTERNAL', `the gateway's model can't be served: ${entry?.reason ?? 'no reason given'}`);
  }

  let upstreamReady = true;
  const look = async (): Promise<void> => {
    upstreamReady = await upstream.modelReady(session.model, { timeoutMs: READY_EVERY_MS }).catch(() => false);
  };
  const timer = setInterval(() => void look(), READY_EVERY_MS);
  timer.unref();

  const reader = manifest.model.detector && createInputReader(manifest.model.detector, resize);
  const budget = options.ledger && (await createGatewayBudget(bundle, options.ledger));
  // Bundles of higher alpha bypass the queue: they serve those few whose budget runs out.
  const raised = (options.ledger?.raiseTo ?? []).map((rung) => confidentialRun(rung.session, types, counted));
  const input = manifest.model.input;

  /** Charges the subject, then lets the bundle run that its budget allows. */
  const inferWithin = async (
    header: string | null | undefined,
    request: InferRequest,
    inferOptions?: { readonly signal?: AbortSignal },
  ): Promise<InferResponse> => {
    const [only] = request.inputs;
    if (!budget || request.modelName !== name || only?.name !== input) return inner.infer(request, inferOptions);
    const tensor = expectType(only.tensor as Tensor, 'float32', `input '${input}'`);
    const samples = tensor.shape[0] ?? 0;
    assertArgument(samples <= MAX_BATCH, `input '${input}' holds ${samples} samples, expected 1 to ${MAX_BATCH}`);
    const run = raised[(await budget.charge(header, request, tensor.shape)) - 1];
    if (!run) return inner.infer(request, inferOptions);
    const outputs = await run({ [input]: tensor }, inferOptions);
    const asked = request.outputs?.map((output) => output.name) ?? [];
    return {
      modelName: name,
      modelVersion: '1',
      ...(request.id === undefined ? {} : { id: request.id }),
      outputs: types.outputs
        .filter((output) => asked.length === 0 || asked.includes(output.name))
        .map((output) => ({ name: output.name, tensor: outputs[output.name] as Tensor })),
    };
  };
  const inferFor = async (
    client: string,
    subject: string | null | undefined,
    request: InferRequest,
    inferOptions?: { readonly signal?: AbortSignal },
  ): Promise<InferResponse> => {
    const [only] = request.inputs;
    const tensor = request.modelName === name && only?.name === input ? only.tensor : undefined;
    // Images are the same where what the client sent is.
    const countAs = (fed: Tensor, sent: WireTensor): void => {
      if (countReleases) countings.set(fed, () => counter.count(client, samplesOf(sent)));
    };
    if (only === undefined || tensor?.dtype !== 'bytes') {
      if (tensor) countAs(tensor as Tensor, tensor);
      return inferWithin(subject, request, inferOptions);
    }
    if (!reader) throw new ScrimError('UNSUPPORTED', `'${name}' takes no encoded images: send its input tensor`);
    assertArgument(
      tensor.data.length >= 1 && tensor.data.length <= MAX_BATCH,
      `input '${input}' holds ${tensor.data.length} images, expected 1 to ${MAX_BATCH}`,
    );
    const tensors = await Promise.all(
      (tensor.data as Uint8Array[]).map(async (file) => (await reader.read(file)).tensor),
    );
    const joined = concat(tensors);
    countAs(joined, tensor);
    return inferWithin(subject, { ...request, inputs: [{ ...only, tensor: joined }] }, inferOptions);
  };
  const inferOf: Gateway['infer'] = (caller, request, inferOptions) =>
    inferFor(
      counter.nameOf(caller),
      options.ledger && caller.header(options.ledger.subjectHeader.toLowerCase()),
      request,
      inferOptions,
    );
  const serverFor = (caller: Caller): InferenceServer => {
    const server: InferenceServer = {
      limits: inner.limits,
      start: () => inner.start(),
      live: () => inner.live(),
      ready: () => upstreamReady && inner.ready(),
      modelReady: (model, version) => upstreamReady && inner.modelReady(model, version),
      metadata: () => inner.metadata(),
      modelMetadata: (model, version) => inner.modelMetadata(model, version),
      modelConfig: (model, version) => inner.modelConfig(model, version),
      statistics: (model, version) => inner.statistics(model, version),
      infer: (request, inferOptions) => inferOf(caller, request, inferOptions),
      index: (readyOnly) => inner.index(readyOnly),
      load: (model, request) => inner.load(model, request),
      unload: (model) => inner.unload(model),
      poll: () => inner.poll(),
      metrics: () => inner.metrics(),
      handle: (request) => handleRequest(server, request),
      answer: (call) => answerHttp(server, call),
      drain: (timeoutMs) => inner.drain(timeoutMs),
      close: () => inner.close(),
    };
    return server;
  };
  return {
    server: serverFor({ header: () => undefined }),
    infer: inferOf,
    answer: (call) => serverFor(call).answer(call),
    handle: (request) => serverFor({ header: (header) => request.headers.get(header) }).handle(request),
    report: () => counter.report(),
    close: async () => {
      clearInterval(timer);
      await inner.close();
    },
  };
}

interface ModelTypes {
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
}

/**
 * Input as the head declares it, outputs as the remote model does, under the clean names; where that sends candidates, the
 * number of anchors is left open, as a session gives the rows of all.
 */
async function typesOf(bundle: Bundle, session: ConfidentialSession, upstream: TritonClient): Promise<ModelTypes> {
  const { manifest } = bundle;
  const type = Graph.decode(await bundle.read(HEAD_PATH)).declaredType(manifest.model.input);
  const [, ...dims] = type?.shape ?? [];
  const metadata = await upstream.modelMetadata(session.model);
  const candidates = findCandidates(manifest, metadata.outputs);
  return {
    inputs: [{ name: manifest.model.input, dtype: 'float32', shape: ['N', ...dims] }],
    outputs: manifest.remote.outputs.map(({ remote, model }) => {
      const found = metadata.outputs.find((output) => output.name === remote);
      const dtype = found && isDatatype(found.datatype) ? DTYPE_OF[found.datatype] : undefined;
      if (!found || dtype === undefined || dtype === 'bytes') {
        throw new ScrimError('INVALID_BUNDLE', `remote model '${session.model}' has no tensor '${remote}'`);
      }
      const isPart = remote === candidates?.boxes || remote === candidates?.scores;
      const shape = found.shape.slice(1).map((dimension, i) => (dimension < 0 || (isPart && i === 0) ? '' : dimension));
      return { name: model, dtype: dtype as DataType, shape: ['N', ...shape] };
    }),
  };
}

/** Sends each sample of a batch through the session and joins the answers; `onStart` is told of the batch before. */
function confidentialRun(
  confidential: ConfidentialSession,
  { inputs, outputs }: ModelTypes,
  onStart: (input: Tensor) => void,
): Session['run'] {
  return async (feeds: NamedTensors, { signal }: RunOptions = {}): Promise<Record<string, Tensor>> => {
    const input = expectType(feeds[inputs[0]?.name ?? ''] as Tensor, 'float32', 'the input');
    onStart(input);
    const [samples = 0, ...rest] = input.shape;
    const size = input.data.length / Math.max(1, samples);
    const answers = await Promise.all(
      Array.from({ length: samples }, (_, n) =>
        confidential.infer(
          float32([1, ...rest], input.data.subarray(n * size, (n + 1) * size)),
          signal ? { signal } : {},
        ),
      ),
    );
    const joined: Record<string, Tensor> = {};
    for (const { name } of outputs) joined[name] = concat(answers.map((answer) => answer.outputs[name] as Tensor));
    return joined;
  };
}

/** An engine whose only graph is the session. */
function sessionEngine(run: Session['run'], types: ModelTypes): Engine {
  const session: Session = { ...types, run, close: async () => {} };
  return {
    description: 'confidential session',
    executionProvider: 'remote',
    threads: 1,
    load: async () => session,
    close: async () => {},
  };
}

/** Tensors of one type, one after another along the first dimension. */
function concat<T extends Tensor>(tensors: readonly T[]): T {
  const [first, ...more] = tensors;
  if (!first) throw new ScrimError('INVALID_ARGUMENT', 'there is no sample');
  if (more.length === 0) return first;
  const arrays = tensors.map(({ data }) => data as Float32Array) as [Float32Array, ...Float32Array[]];
  const array = new (arrays[0].constructor as typeof Float32Array)(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of arrays) {
    array.set(part, at);
    at += part.length;
  }
  return { ...first, shape: [tensors.length, ...first.shape.slice(1)], data: array };
}

/** Bytes of each sample of an input. */
function samplesOf(tensor: WireTensor): Uint8Array[] {
  if (tensor.dtype === 'bytes') return [...(tensor.data as readonly Uint8Array[])];
  if (!ArrayBuffer.isView(tensor.data)) return [];
  const { buffer, byteOffset, byteLength } = tensor.data;
  const samples = Math.min(tensor.shape[0] ?? 1, MAX_BATCH);
  const size = Math.floor(byteLength / Math.max(1, samples));
  return Array.from({ length: samples }, (_, n) => new Uint8Array(buffer, byteOffset + n * size, size));
}

interface ReleaseCounter {
  nameOf(caller: Caller): string;
  count(client: string, samples: readonly Uint8Array[]): void;
  report(): ReleaseCounts[];
}

/** Counts under keyed hashes; the key dies with the process, so the counts name neither images nor tokens. */
function createReleaseCounter(): ReleaseCounter {
  const secret = randomBytes(32);
  const clients = new Map<string, { releases: number; images: Map<string, number> }>();
  return {
    nameOf: (caller) => {
      const authorization = caller.header('authorization');
      if (!authorization) return caller.peer ?? 'anonymous';
      return createHmac('sha256', secret).update(authorization).digest('hex').slice(0, 12);
    },
    count: (client, samples) => {
      const hashes = samples.map((bytes) =>
        createHmac('sha256', secret).update(excerpt(bytes, secret)).digest('base64'),
      );
      let entry = clients.get(client);
      if (!entry) {
        forgetOldest(clients, MAX_CLIENTS);
        entry = { releases: 0, images: new Map() };
        clients.set(client, entry);
      }
      for (const image of hashes) {
        const before = entry.images.get(image) ?? 0;
        if (before === 0) forgetOldest(entry.images, MAX_IMAGES);
        entry.images.set(image, before + 1);
        entry.releases++;
      }
    },
    report: () =>
      Array.from(clients, ([client, { releases, images }]) => ({
        client,
        releases,
        images: images.size,
        most: Math.max(0, ...images.values()),
      })),
  };
}

/**
 * What stands for an image in the hash: all of it up to a mebibyte, else its length and every 32nd run of 256 bytes from a
 * secret start. Hashing a whole input tensor would take longer than its head.
 */
function excerpt(bytes: Uint8Array, secret: Uint8Array): Uint8Array {
  if (bytes.length <= WHOLE_BYTES) return bytes;
  const first = (secret[0] ?? 0) % SKIP;
  const part = new Uint8Array(Math.ceil(bytes.length / (RUN_BYTES * SKIP)) * RUN_BYTES + 8);
  let at = 8;
  for (let from = first * RUN_BYTES; from < bytes.length; from += RUN_BYTES * SKIP) {
    part.set(bytes.subarray(from, from + RUN_BYTES), at);
    at += RUN_BYTES;
  }
  new DataView(part.buffer).setFloat64(0, bytes.length);
  return part;
}

function forgetOldest(map: Map<string, unknown>, most: number): void {
  const oldest = map.keys().next();
  if (map.size >= most && !oldest.done) map.delete(oldest.value);
}
