/**
 * Confidential inference against a remote v2 server: head and noise here, the tail there.
 *
 * The one way out is `send`, which takes a `Release` that a noiser made and nothing else. Before the first request the
 * remote model's metadata must agree with the bundle, so that a release never goes to a model it was not made for.
 * The remote side learns the release, the name of the model and the sizes; no pixel, clean activation or key travels.
 */
import type { Bundle } from '../bundle/bundle.js';
import { type CandidateNames, type CandidateSummary, findCandidates, placeCandidates } from '../bundle/candidates.js';
import { createPayloadPlan, encodePayload, PAYLOAD_DTYPES, type PayloadFormat } from '../bundle/payload-format.js';
import { remoteName } from '../bundle/remote-variants.js';
import type { Engine } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import type { NoiseCrypto } from '../noise/noise-crypto.js';
import { type NoiserMode, Release } from '../noise/release.js';
import { DATATYPE_OF } from '../protocol/datatype.js';
import type { ModelMetadata } from '../protocol/metadata.js';
import { expectType, type Tensor } from '../tensor.js';
import {
  createDetectionDecoder,
  createPixelConverter,
  type Detection,
  defaultResize,
  type PixelSource,
  planResize,
  type ResizeMode,
} from '../vision/index.js';
import { chargeRelease, type ReleaseLedger } from './release-ledger.js';
import type { CallOptions, TritonClient } from './triton-client.js';
import { createTrustedHalf, type TrustedHalf } from './trusted-half.js';

const BINARY_EXTENSION = 'binary_tensor_data';
/** TR-4928's threshold of 0.5, halved because there is noise, as there. */
const DEFAULT_MIN_SCORE = 0.25;

/** What {@link createConfidentialSession} needs. */
export interface ConfidentialSessionOptions {
  readonly bundle: Bundle;
  readonly client: TritonClient;
  readonly engine: Engine;
  readonly crypto: NoiseCrypto;
  /** How releases travel. Default 'fp16'; 'fp32' is the document's form and fits the plain remote model. */
  readonly payload?: PayloadFormat;
  /** Default: fresh noise for every release. */
  readonly noise?: NoiserMode;
  /** Name of the remote model. Default: what the bundle calls the one that takes `payload`. */
  readonly model?: string;
  readonly version?: string;
  /**
   * HTTP only: whether tensors travel as bytes (Triton's binary extension) or as JSON. Default: as bytes if the server
   * lists the extension 'binary_tensor_data', else as JSON, which 'fp16' has no form for.
   */
  readonly binary?: boolean;
  /** Counts releases by subject before they leave; every call then needs a subject. */
  readonly ledger?: ReleaseLedger;
}

/** Options of one inference. */
export interface SessionCallOptions extends CallOptions {
  /** Bytes that are the same exactly if the input is the same, for repeatable noise; default: the input's own. */
  readonly canonicalInput?: Uint8Array;
  /** Who or what the input is about, for the session's ledger. */
  readonly subject?: string;
}

/** What came back for one release. */
export interface SessionAnswer {
  /** Outputs by the names they have in the model, with the shapes they have there: [1, P, …] for P anchors of a detector. */
  readonly outputs: Record<string, Tensor>;
  /**
   * Where the remote model sends the rows of the strongest anchors alone: how many of how many. The other anchors read
   * offsets 0, background 1, objects 0.
   */
  readonly candidates?: CandidateSummary;
  /** Bytes of the request's body as sent. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Public name of the noise's key. */
  readonly keyId: string;
}

/** What a detector found. */
export interface DetectionAnswer extends Omit<SessionAnswer, 'outputs'> {
  /** Strongest first, in pixels of the picture. */
  readonly detections: readonly Detection[];
}

/** A session. Calls may overlap. */
export interface ConfidentialSession {
  readonly payload: PayloadFormat;
  /** Name of the remote model. */
  readonly model: string;
  readonly trusted: TrustedHalf;
  /** Compares the remote model with the bundle; the first request does so by itself. @throws ScrimError INVALID_BUNDLE */
  check(options?: CallOptions): Promise<void>;
  /**
   * Head, noise, remote tail: one input of the model in, the model's outputs out.
   * @param input float32 with batch dimension 1, alone or by the name of the model's input
   * @throws ScrimError INVALID_ARGUMENT for anything else; NOISE_FAILED, and RESOURCE_EXHAUSTED from the ledger, and
   * nothing is sent; as the client
   */
  infer(input: Tensor | Readonly<Record<string, Tensor>>, options?: SessionCallOptions): Promise<SessionAnswer>;
  /**
   * Finds faces in a picture.
   * @param options.resize default: the square that the bundle's detector names, 1024×1024 where it names none
   * @param options.minScore least probability, 0 to 1; default 0.25. The detector drops what is below its own floor anyway.
   * @throws ScrimError UNSUPPORTED if the bundle's model is no detector; as `infer`
   */
  detect(
    image: PixelSource,
    options?: SessionCallOptions & { readonly resize?: ResizeMode; readonly minScore?: number },
  ): Promise<DetectionAnswer>;
  /**
   * Sends a release that this bundle made.
   * @throws ScrimError INVALID_ARGUMENT for anything else, an object that only looks like a release included; nothing is
   * sent then
   */
  send(release: Release, options?: CallOptions & { readonly subject?: string }): Promise<SessionAnswer>;
  /** Forgets the keys and frees the head. The client stays open: it belongs to the caller. */
  close(): Promise<void>;
}

/** Loads head and noise. @throws ScrimError INVALID_BUNDLE if the bundle is incomplete or was changed */
export async function createConfidentialSession(options: ConfidentialSessionOptions): Promise<ConfidentialSession> {
  const { bundle, client, engine, crypto, payload = 'fp16', noise, version, ledger } = options;
  assertArgument(
    Object.hasOwn(PAYLOAD_DTYPES, payload),
    `payload is '${String(payload)}', which is no form of a release`,
  );
  const { manifest, parameters } = bundle;
  const model = options.model ?? remoteName(manifest.remote.noisy, payload);
  const plan = createPayloadPlan(parameters);
  const trusted = await createTrustedHalf({ bundle, engine, crypto, ...(noise ? { noise } : {}) });
  const detector = manifest.model.detector;
  const vision = detector && {
    decoder: createDetectionDecoder(detector),
    converter: createPixelConverter(detector.preprocessing),
  };

  let isBinary = options.binary ?? true;
  let declared: CandidateNames | undefined;
  const compare = async (callOptions: CallOptions): Promise<void> => {
    const asks = options.binary === undefined && client.protocol === 'http';
    const [metadata, server] = await Promise.all([
      client.modelMetadata(model, { ...callOptions, ...(version === undefined ? {} : { version }) }).catch((error) => {
        throw error instanceof ScrimError && error.code === 'NOT_FOUND'
          ? missingModel(error, model, payload, manifest.remote.noisy)
          : error;
      }),
      // A server that is away fails the other call too.
      asks ? client.serverMetadata(callOptions).catch(() => undefined) : undefined,
    ]);
    expectAgreement(metadata, bundle, payload, plan.sentChannels.length);
    declared = findCandidates(manifest, metadata.outputs);
    if (server) isBinary = server.extensions.includes(BINARY_EXTENSION);
    if (isBinary || client.protocol !== 'http' || payload !== 'fp16') return;
    throw new ScrimError(
      'UNSUPPORTED',
      `payload 'fp16' has no JSON form, and the server lists no '${BINARY_EXTENSION}': choose fp32, int16 or uint8`,
    );
  };
  let checked: Promise<void> | undefined;
  const check = (callOptions: CallOptions = {}): Promise<void> => {
    checked ??= compare(callOptions);
    const outcome = checked;
    // A server that was away or a model of another bundle may be put right: the next request looks again.
    outcome.catch(() => {
      if (checked === outcome) checked = undefined;
    });
    return outcome;
  };

  const send: ConfidentialSession['send'] = async (release, { subject, ...callOptions } = {}) => {
    assertArgument(Release.isRelease(release), 'what is to be sent is no Release: only what a noiser made leaves');
    assertArgument(
      release.bundleHash === bundle.hash,
      `the release was made by bundle ${release.bundleHash.slice(0, 12)}…, this session has ${bundle.hash.slice(0, 12)}…`,
    );
    const tensor = encodePayload(release, payload, plan, parameters);
    await check(callOptions);
    if (ledger) await chargeRelease(ledger, bundle, release, subject);
    let size = { sentBytes: 0, receivedBytes: 0 };
    const response = await client.infer(
      {
        modelName: model,
        ...(version === undefined ? {} : { modelVersion: version }),
        inputs: [{ name: manifest.remote.input, tensor, binary: isBinary }],
        binaryOutputs: isBinary,
      },
      {
        ...callOptions,
        onTransfer: (transfer) => {
          size = transfer;
        },
      },
    );
    // All outputs are asked for, so that an answer shows by itself whether it is one of candidates: a server may have been
    // given another export of the model since its metadata was read. One that lacks them is whole only if the metadata says so.
    const found = response.outputs.map(({ name, tensor: { dtype } }) => ({ name, datatype: DATATYPE_OF[dtype] }));
    let candidates = findCandidates(manifest, found);
    if (!candidates && declared) {
      checked = undefined;
      await check(callOptions);
      candidates = declared;
    }
    const received = Object.fromEntries(response.outputs.map(({ name, tensor: output }) => [name, output]));
    const placed = candidates && placeCandidates(received, candidates);
    const outputs: Record<string, Tensor> = {};
    for (const { remote, model: name } of manifest.remote.outputs) {
      const output = placed?.outputs[remote] ?? received[remote];
      if (output === undefined || output.dtype === 'bytes') {
        throw new ScrimError('INVALID_DATA', `the answer of model '${model}' has no tensor '${remote}'`);
      }
      outputs[name] = output;
    }
    const summary = placed ? { candidates: placed.candidates } : {};
    return { outputs, ...summary, ...size, keyId: release.keyId };
  };

  const infer: ConfidentialSession['infer'] = async (input, { canonicalInput, subject, ...callOptions } = {}) => {
    const release = await trusted.release(inputOf(input, manifest.model.input), {
      ...(canonicalInput === undefined ? {} : { canonicalInput }),
      ...(callOptions.signal === undefined ? {} : { signal: callOptions.signal }),
    });
    return send(release, { ...callOptions, ...(subject === undefined ? {} : { subject }) });
  };

  return {
    payload,
    model,
    trusted,
    check,
    infer,
    send,
    detect: async (image, { resize: asked, minScore = DEFAULT_MIN_SCORE, ...callOptions } = {}) => {
      if (!detector || !vision) {
        throw new ScrimError('UNSUPPORTED', `'${manifest.model.name}' is no detector: use infer`);
      }
      const resize = asked ?? defaultResize(detector);
      const resizePlan = planResize(image, resize, detector.multiple);
      const { resized, canvas } = resizePlan;
      const input = vision.converter.convert(image, { resized, canvas });
      const { outputs, ...rest } = await infer(input, callOptions);
      const [detections = []] = vision.decoder.decodeOutputs(outputs, [resizePlan], { minScore });
      return { detections, ...rest };
    },
    close: () => trusted.close(),
  };
}

/** One float32 tensor, alone or by name. What has not the shape of a tensor is refused before the head sees it. */
function inputOf(input: Tensor | Readonly<Record<string, Tensor>>, name: string): Tensor<'float32'> {
  assertArgument(typeof input === 'object' && input !== null, 'the input is no tensor');
  const value = 'dtype' in input && 'shape' in input && 'data' in input ? (input as Tensor) : undefined;
  if (value) return expectType(value, 'float32', 'the input');
  const names = Object.keys(input);
  const [only] = names;
  assertArgument(
    names.length === 1 && only === name,
    `the input is neither a tensor nor an object with the one member '${name}'`,
  );
  return expectType((input as Readonly<Record<string, Tensor>>)[name] as Tensor, 'float32', `'${name}'`);
}

/** A bundle's own remote/ has the model for fp32 alone, so what is missing is most often the one for another payload. */
function missingModel(cause: unknown, model: string, payload: PayloadFormat, plain: string): ScrimError {
  const remedy =
    payload === 'fp32'
      ? ''
      : `; 'scrim repo export' makes a model for payload ${payload}, payload 'fp32' fits '${plain}' of the bundle's remote/`;
  return new ScrimError('NOT_FOUND', `the server has no model '${model}'${remedy}`, { cause });
}

/** @throws ScrimError INVALID_BUNDLE naming the first difference */
function expectAgreement(metadata: ModelMetadata, bundle: Bundle, payload: PayloadFormat, sent: number): void {
  const { remote, transform, cut } = bundle.manifest;
  const differ = (what: string): ScrimError =>
    new ScrimError('INVALID_BUNDLE', `remote model '${metadata.name}' does not fit the bundle: ${what}`);
  const [input, ...more] = metadata.inputs;
  if (!input || more.length > 0) throw differ(`it has ${metadata.inputs.length} inputs, expected one`);
  if (input.name !== remote.input) throw differ(`its input is '${input.name}', expected '${remote.input}'`);
  const datatype = DATATYPE_OF[PAYLOAD_DTYPES[payload]];
  if (input.datatype !== datatype)
    throw differ(`its input is ${input.datatype}, expected ${datatype} for payload ${payload}`);
  const declared = cut.tensors[0]?.shape ?? [];
  const shape = declared.map((dimension, i) => (i === 1 ? channelsOf(payload, transform.channels, sent) : dimension));
  const fits =
    input.shape.length === shape.length &&
    input.shape.every((found, i) => {
      const expected = shape[i];
      return i === 0 || found === -1 || typeof expected !== 'number' || found === expected;
    });
  if (!fits) throw differ(`its input is [${input.shape.join(', ')}], expected [${shape.join(', ')}]`);
  // A model that takes any number of channels would take a payload with the wrong ones.
  if (input.shape[1] === -1) throw differ('its input leaves the number of channels open');
  const names = new Set(metadata.outputs.map(({ name }) => name));
  for (const output of remote.outputs)
    if (!names.has(output.remote)) throw differ(`it has no output '${output.remote}'`);
}

function channelsOf(payload: PayloadFormat, all: number, sent: number): number {
  return payload === 'fp32' ? all : sent;
}
