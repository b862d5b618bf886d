/**
 * One instance of a model: an engine of its own with the graph loaded, made anew when it dies.
 *
 * An engine that fails a run is asked to load a graph of one node; one that can't is dead. Only the runs it had fail.
 * It is replaced with growing pauses between attempts, and the instance serves again once that worked.
 */
import type { Engine, NamedTensors, RunOptions, Session, ValueInfo } from '../engine/engine.js';
import { ScrimError } from '../errors.js';
import { Graph } from '../onnx/index.js';
import type { Tensor } from '../tensor.js';

/** What an engine is wanted for. */
export interface EngineRequest {
  readonly model: string;
  readonly version: number;
  /** Instances of this model that will run side by side. */
  readonly instances: number;
  /** True if the configuration asks for a GPU. */
  readonly gpu: boolean;
  /** Threads of one run that the configuration asks for. */
  readonly threads?: number;
}

/** An engine that may tell when what it runs in has ended, so that it is replaced before a request finds out. */
export type InstanceEngine = Engine & { readonly ended?: Promise<void> };

/** Makes an engine. Each instance gets its own, so that a dead one takes nothing else with it. */
export type EngineFactory = (request: EngineRequest) => Promise<InstanceEngine>;

const FIRST_PAUSE_MS = 50;
const LAST_PAUSE_MS = 5_000;

/** A loaded graph that outlives its engine. */
export class ModelInstance {
  readonly #factory: EngineFactory;
  readonly #request: EngineRequest;
  readonly #model: Uint8Array;
  #engine: InstanceEngine | undefined;
  #recovering: Promise<void> | undefined;
  #onRecovered: () => void = () => {};
  #session: Session | undefined;
  #graph: Pick<Session, 'inputs' | 'outputs'> = { inputs: [], outputs: [] };
  #closed = false;
  #wake: (() => void) | undefined;
  #restarts = 0;

  private constructor(factory: EngineFactory, request: EngineRequest, model: Uint8Array) {
    this.#factory = factory;
    this.#request = request;
    // Plain bytes: slice() of Node's Buffer shares memory, so an engine that moves its copy would take these along.
    this.#model = new Uint8Array(model.buffer, model.byteOffset, model.byteLength);
  }

  /** Makes an engine and loads `model`, which is kept. @throws ScrimError as the engine does. */
  static async start(factory: EngineFactory, request: EngineRequest, model: Uint8Array): Promise<ModelInstance> {
    const instance = new ModelInstance(factory, request, model);
    await instance.#open();
    return instance;
  }

  /** What the graph takes and gives. */
  get graph(): { readonly inputs: readonly ValueInfo[]; readonly outputs: readonly ValueInfo[] } {
    return this.#graph;
  }

  /** How often the engine was replaced. */
  get restarts(): number {
    return this.#restarts;
  }

  /** False while the engine is being replaced. */
  get alive(): boolean {
    return this.#session !== undefined;
  }

  /** Runs the graph. @throws ScrimError as the engine does. */
  async run(feeds: NamedTensors, options: RunOptions): Promise<Record<string, Tensor>> {
    if (this.#session === undefined) throw new ScrimError('ENGINE_FAILED', 'the instance is being restarted');
    return this.#session.run(feeds, options);
  }

  /** Called whenever a dead engine was replaced. */
  set onRecovered(listener: () => void) {
    this.#onRecovered = listener;
  }

  /**
   * To be called after a failed run: finds out whether the engine still lives and replaces it if not. Resolves when
   * the instance can run again, or is closed.
   */
  recover(): Promise<void> {
    this.#recovering ??= this.#replaceDead().finally(() => {
      this.#recovering = undefined;
    });
    return this.#recovering;
  }

  async #replaceDead(): Promise<void> {
    const engine = this.#engine;
    if (this.#closed || engine === undefined || (await isAlive(engine))) return;
    this.#session = undefined;
    this.#engine = undefined;
    void engine.close().catch(() => {});
    for (let pause = FIRST_PAUSE_MS; !this.#closed; pause = Math.min(2 * pause, LAST_PAUSE_MS)) {
      try {
        await this.#open();
        this.#restarts++;
        this.#onRecovered();
        return;
      } catch {
        await this.#sleep(pause);
      }
    }
  }

  /** Frees the engine after the runs asked for before. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#wake?.();
    const engine = this.#engine;
    this.#engine = undefined;
    this.#session = undefined;
    await engine?.close();
  }

  async #open(): Promise<void> {
    const engine = await this.#factory(this.#request);
    try {
      const session = await engine.load(this.#model);
      if (this.#closed) throw new ScrimError('ENGINE_FAILED', 'the instance was closed while it started');
      this.#engine = engine;
      this.#session = session;
      this.#graph = session;
      void engine.ended?.then(() => {
        if (this.#engine !== engine || this.#closed) return;
        // From now on no request is given to it.
        this.#session = undefined;
        void this.recover();
      });
    } catch (error) {
      await engine.close().catch(() => {});
      throw error;
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

async function isAlive(engine: Engine): Promise<boolean> {
  try {
    const session = await engine.load(probeModel());
    await session.close();
    return true;
  } catch {
    return false;
  }
}

let encodedProbe: Uint8Array | undefined;

function probeModel(): Uint8Array {
  if (encodedProbe === undefined) {
    const graph = Graph.create({ opset: 17 });
    graph.addInput('x', 'float32', [1]);
    graph.add('Neg', ['x'], {}, { outputs: ['y'] });
    graph.addOutput('y', 'float32', [1]);
    encodedProbe = graph.encode();
  }
  return encodedProbe;
}
