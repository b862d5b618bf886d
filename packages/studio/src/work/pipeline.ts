/**
 * The trusted side, whole, in a worker: photo -> head -> noise -> release -> request -> faces, and beside it what an
 * attacker makes of the same release. `createConfidentialSession` is used as any page would use it; the only way out is
 * `session.send`, and it takes a Release alone.
 *
 * The clean setting sends nothing: head and tail run here, and the attacker looks at the activation without noise.
 */
import { type Bundle, type Engine, expectType, float32, ScrimError, type Session, type Tensor } from 'scrim';
import {
  type ConfidentialSession,
  createConfidentialSession,
  createTritonClient,
  type TritonClient,
} from 'scrim/client';
import { ssim } from 'scrim/metrics';
import { releaseToTensor } from 'scrim/noise';
import { Graph } from 'scrim/onnx';
import { createDetectionDecoder, type Detection, type DetectorSpec, drawTiles, type ResizePlan } from 'scrim/vision';
import {
  createInputReader,
  createWebCrypto,
  createWebEngine,
  decodePhoto,
  fetchBundle,
  readImageTowards,
  type WebInputReader,
} from 'scrim/web';
import type { CatalogueBundle } from '../catalogue.js';
import { type Attacker, attackerKind, loadAttacker } from './attacker.js';
import type { Guess, Inspection, OpenedPhoto, Order, Photo, Run, SentRequest } from './messages.js';
import { shrinkBitmap, toBitmap, toUnitTensor } from './pictures.js';

/** Score a face must reach: as `scrim detect`, halved with noise, which lowers scores throughout. */
const CLEAN_SCORE = 0.5;
const NOISY_SCORE = 0.25;
const PREVIEW_SIDE = 800;
const SERVER_TIMEOUT_MS = 15_000;
/** Sessions that stay loaded; each keeps a head of its own. */
const KEPT_SETTINGS = 3;
const HEAD = 'trusted/head.onnx';

/** A bundle, ready to work. */
interface Loaded {
  readonly bundle: Bundle;
  readonly detector: DetectorSpec;
  readonly reader: WebInputReader;
  session?: Promise<ConfidentialSession>;
  attacker?: Promise<Attacker | undefined>;
}

interface CurrentPhoto {
  readonly bitmap: ImageBitmap;
  /** What clean models make of it, by the hash of their head; made when first wanted. */
  readonly clean: Map<string, Promise<CleanAnswer>>;
}

/** The clean model of a bundle. */
interface CleanModel {
  readonly head: Session;
  readonly tail: Session;
  /** Names of what the tail takes, and of what a release would be made of: with a bottleneck they differ. */
  readonly cut: string;
  readonly released: string;
}

interface CleanAnswer {
  /** What a release would be made of. */
  readonly activation: Tensor<'float32'>;
  readonly faces: Detection[];
  readonly readMs: number;
  /** Head and tail. */
  readonly modelMs: number;
}

/** What is told while something takes long. */
type Progress = (text: string) => void;

/** The worker's state and the three things it can do. */
export class Pipeline {
  readonly #crypto = createWebCrypto();
  readonly #bundles = new Map<string, Promise<Loaded>>();
  /** By the hash of the head: diagonal bundles of one model share it. */
  readonly #cleanModels = new Map<string, Promise<CleanModel>>();
  #engine: Promise<Engine> | undefined;
  #client: TritonClient | undefined;
  #request: SentRequest | undefined;
  #photo: CurrentPhoto | undefined;

  /** Decodes a photo, which stays here until the next one. */
  async open(photo: Photo): Promise<OpenedPhoto> {
    const bitmap = photo instanceof Blob ? await decodePhoto(photo) : photo;
    this.#photo?.bitmap.close();
    this.#photo = { bitmap, clean: new Map() };
    return { width: bitmap.width, height: bitmap.height, preview: await shrinkBitmap(bitmap, PREVIEW_SIDE) };
  }

  /** Reads what a bundle says of itself. */
  async inspect(entry: CatalogueBundle): Promise<Inspection> {
    const { bundle } = await this.#load(entry);
    const { manifest } = bundle;
    return {
      bundleId: entry.id,
      hash: bundle.hash,
      figures: manifest.results,
      modelSource: manifest.model.source,
      natsPerPosition: manifest.transform.natsPerPosition,
      channels: manifest.transform.channels,
      suppressedChannels: manifest.transform.suppressedChannels,
      attacker: attackerKind(bundle),
    };
  }

  /** One pass over the opened photo. */
  async run(order: Extract<Order, { kind: 'run' }>, signal: AbortSignal, progress: Progress): Promise<Run> {
    const photo = this.#photo;
    if (!photo) throw new ScrimError('INVALID_ARGUMENT', 'there is no photo yet');
    const entry = order.setting === 'clean' ? order.reference : order.setting;
    progress('Fetching the bundle and checking its hashes');
    const loaded = await this.#load(entry);
    if (!this.#engine) progress('Starting the engine in this tab');
    const engine = await this.#startEngine();
    signal.throwIfAborted();
    if (order.setting === 'clean') {
      progress('Running the whole model in this tab');
      const { activation, faces, readMs, modelMs } = await this.#cleanAnswer(photo, loaded, engine);
      return {
        settingId: 'clean',
        faces,
        cleanFaces: faces,
        minScore: CLEAN_SCORE,
        release: undefined,
        guess: await this.#guess(photo, loaded, engine, activation),
        timing: { readMs, headMs: modelMs, noiseMs: 0, remoteMs: 0, totalMs: readMs + modelMs },
        engine: engine.description,
      };
    }
    progress('Loading the head');
    const session = await this.#session(loaded, entry, order.server, engine);
    const started = performance.now();
    const { tensor: input, plan } = await loaded.reader.read(photo.bitmap);
    const readMs = performance.now() - started;
    progress('Running head and noise in this tab');
    let [headMs, noiseMs] = [0, 0];
    const release = await session.trusted.release(input, {
      transfer: true,
      signal,
      now: () => performance.now(),
      onTiming: (timing) => {
        headMs = timing.headMs;
        noiseMs = timing.transformMs;
      },
    });
    progress('Waiting for the server');
    const remoteStarted = performance.now();
    this.#request = undefined;
    const answer = await session.send(release, { signal });
    const request = this.#request;
    const remoteMs = performance.now() - remoteStarted;
    const faces = decodeFaces(loaded.detector, answer.outputs, plan, NOISY_SCORE);
    const totalMs = performance.now() - started;
    progress('Drawing what left, and what an attacker makes of it');
    const activation = releaseToTensor(release, loaded.bundle.parameters);
    const guess = await this.#guess(photo, loaded, engine, activation);
    const clean = order.live ? undefined : await this.#cleanAnswer(photo, loaded, engine);
    return {
      settingId: entry.id,
      faces,
      cleanFaces: clean?.faces,
      minScore: NOISY_SCORE,
      release: {
        tiles: await toBitmap(drawTiles(activation, { magnify: 1 })),
        shape: release.shape,
        channels: release.channels,
        keyId: release.keyId,
        sentBytes: answer.sentBytes,
        receivedBytes: answer.receivedBytes,
        request,
      },
      guess,
      timing: { readMs, headMs, noiseMs, remoteMs, totalMs },
      engine: engine.description,
    };
  }

  #startEngine(): Promise<Engine> {
    this.#engine ??= createWebEngine({ worker: false });
    const starting = this.#engine;
    // What failed once (a file that did not arrive) may succeed later.
    starting.catch(() => {
      if (this.#engine === starting) this.#engine = undefined;
    });
    return starting;
  }

  #load(entry: CatalogueBundle): Promise<Loaded> {
    const known = this.#bundles.get(entry.id);
    if (known) return known;
    const loading = fetchBundle(`/bundles/${entry.id}`, { crypto: this.#crypto, expectedHash: entry.hash }).then(
      (bundle): Loaded => {
        const detector = bundle.manifest.model.detector;
        if (!detector) throw new ScrimError('UNSUPPORTED', `the model of bundle '${entry.id}' finds no faces`);
        return { bundle, detector, reader: createInputReader(detector) };
      },
    );
    this.#bundles.set(entry.id, loading);
    loading.catch(() => this.#bundles.delete(entry.id));
    return loading;
  }

  async #session(loaded: Loaded, entry: CatalogueBundle, server: string, engine: Engine): Promise<ConfidentialSession> {
    loaded.session ??= createConfidentialSession({
      bundle: loaded.bundle,
      client: this.#clientOf(server),
      engine,
      crypto: this.#crypto,
      payload: entry.payload,
      model: entry.remoteModel,
    });
    const opening = loaded.session;
    opening.catch(() => delete loaded.session);
    const session = await opening;
    await this.#closeOldest(loaded);
    return session;
  }

  /** Closes the sessions of all but the last few bundles used. */
  async #closeOldest(used: Loaded): Promise<void> {
    const all = await Promise.all([...this.#bundles.values()].map((loading) => loading.catch(() => undefined)));
    const open = all.filter((loaded) => loaded?.session !== undefined && loaded !== used);
    for (const loaded of open.slice(0, Math.max(0, open.length - KEPT_SETTINGS + 1))) {
      const session = loaded?.session;
      if (!loaded || !session) continue;
      delete loaded.session;
      await (await session).close();
    }
  }

  /** A client that remembers the last inference as it was sent. */
  #clientOf(server: string): TritonClient {
    this.#client ??= createTritonClient({
      url: server,
      timeoutMs: SERVER_TIMEOUT_MS,
      retry: { retries: 1 },
      fetch: async (request) => {
        if (request.url.endsWith('/infer')) this.#request = await recordRequest(request.clone());
        return fetch(request);
      },
    });
    return this.#client;
  }

  #cleanAnswer(photo: CurrentPhoto, loaded: Loaded, engine: Engine): Promise<CleanAnswer> {
    const key = loaded.bundle.manifest.files[HEAD] ?? '';
    const known = photo.clean.get(key);
    if (known) return known;
    const making = (async (): Promise<CleanAnswer> => {
      const { bundle, detector, reader } = loaded;
      const { head, tail, cut, released } = await this.#cleanModel(key, bundle, engine);
      const started = performance.now();
      const { tensor, plan } = await reader.read(photo.bitmap);
      const readMs = performance.now() - started;
      const inner = await head.run({ [bundle.manifest.model.input]: tensor }, { transfer: true });
      const answer = await tail.run({ [bundle.manifest.remote.input]: inner[cut] as Tensor });
      const named = Object.fromEntries(
        bundle.manifest.remote.outputs.map(({ remote, model }) => [model, answer[remote] as Tensor]),
      );
      const faces = decodeFaces(detector, named, plan, CLEAN_SCORE);
      const modelMs = performance.now() - started - readMs;
      return { activation: expectType(inner[released] as Tensor, 'float32', 'the activation'), faces, readMs, modelMs };
    })();
    photo.clean.set(key, making);
    making.catch(() => photo.clean.delete(key));
    return making;
  }

  #cleanModel(key: string, bundle: Bundle, engine: Engine): Promise<CleanModel> {
    const known = this.#cleanModels.get(key);
    if (known) return known;
    const loading = loadClean(bundle, engine);
    this.#cleanModels.set(key, loading);
    loading.catch(() => this.#cleanModels.delete(key));
    return loading;
  }

  async #guess(
    photo: CurrentPhoto,
    loaded: Loaded,
    engine: Engine,
    activation: Tensor<'float32'>,
  ): Promise<Guess | undefined> {
    loaded.attacker ??= loadAttacker(loaded.bundle, engine);
    const attacker = await loaded.attacker;
    if (!attacker) return undefined;
    const picture = await attacker.rebuild(activation);
    if (!picture) return undefined;
    const { width, height } = picture;
    const seen = await readImageTowards(photo.bitmap, { width, height });
    const original = toUnitTensor(seen, width, height);
    const likeness = ssim(
      float32([3, height, width], original.data),
      float32([3, height, width], toUnitTensor(picture, width, height).data),
      { dataRange: 1 },
    );
    return { picture: await toBitmap(picture), attacker: attacker.kind, training: attacker.training, likeness };
  }
}

/** The head of a bottleneck bundle ends in its encoder; the clean tail takes what lies before that. */
async function loadClean(bundle: Bundle, engine: Engine): Promise<CleanModel> {
  const { remote, bottleneck, cut: crossing } = bundle.manifest;
  const released = crossing.tensors[0]?.name ?? '';
  const cut = bottleneck?.cut ?? released;
  const graph = Graph.decode(await bundle.read(HEAD));
  if (cut !== released) graph.setOutputs([cut, released]);
  const tail = await engine.load(await bundle.read(`remote/${remote.base}/1/model.onnx`));
  return { head: await engine.load(graph.encode()), tail, cut, released };
}

function decodeFaces(
  detector: DetectorSpec,
  outputs: Readonly<Record<string, Tensor>>,
  plan: ResizePlan,
  minScore: number,
): Detection[] {
  return createDetectionDecoder(detector).decodeOutputs(outputs, [plan], { minScore })[0] ?? [];
}

async function recordRequest(request: Request): Promise<SentRequest> {
  const body = await request.arrayBuffer();
  const jsonBytes = Number(request.headers.get('inference-header-content-length') ?? body.byteLength);
  const json = new TextDecoder().decode(new Uint8Array(body, 0, Math.min(jsonBytes, body.byteLength)));
  return { method: request.method, url: request.url, headers: [...request.headers], json, body, jsonBytes };
}
