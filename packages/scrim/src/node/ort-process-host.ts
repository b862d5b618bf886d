/**
 * The host's side of ort-process.ts: makes the child process, watches it, and ends it.
 *
 * A process costs a copy of inputs and outputs through a pipe and some tens of megabytes. For that a fault in native code,
 * an allocation that fails or a kill ends one instance alone; whoever made it is told and may make another. The process
 * keeps this one alive only while an answer is awaited.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Backend } from '../engine/backend.js';
import type { Engine } from '../engine/engine.js';
import { createQueuedEngine } from '../engine/queued-engine.js';
import { RemoteBackend } from '../engine/remote-backend.js';
import { ScrimError } from '../errors.js';
import type { RuntimeSettings } from './ort-runtime.js';
import { ortWorkerUrl, WORKER_WIDTH } from './ort-worker-host.js';

/** An engine in a process of its own. */
export interface ProcessEngine extends Engine {
  readonly pid: number;
  /** Resolves when the process has ended or can't be reached any more, for whatever reason. */
  readonly ended: Promise<void>;
}

const END_MS = 5_000;

/**
 * Starts onnxruntime-node in a process of its own.
 * @throws ScrimError as {@link startOrtRuntime}; ENGINE_FAILED if the process can't be started.
 */
export async function startOrtProcess(settings: Omit<RuntimeSettings, 'thread'>): Promise<ProcessEngine> {
  const entry = fileURLToPath(new URL('./ort-process.js', ortWorkerUrl(import.meta.url)));
  const child = fork(entry, [JSON.stringify({ ...settings, thread: 'inline' })], {
    serialization: 'advanced',
    // Flags such as --import or --inspect-brk of the caller are not the child's.
    execArgv: [],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  let isReady = false;
  const remote = new RemoteBackend(
    (message) => {
      if (!child.connected) throw new ScrimError('ENGINE_FAILED', "the instance's process has ended");
      // What can't be sent any more fails when the end of the process is noticed.
      child.send(message as object, () => {});
    },
    WORKER_WIDTH,
    (busy) => {
      if (busy) hold(child);
      else if (isReady) release(child);
    },
  );
  const exited = new Promise<void>((resolve) => {
    child.on('error', (error) => {
      remote.fail(ScrimError.from(error, 'ENGINE_FAILED', "the instance's process can't be started"));
      if (child.pid === undefined) resolve();
    });
    child.on('exit', (code, signal) => {
      const how = signal === null ? `with code ${code}` : `by signal ${signal}`;
      remote.fail(new ScrimError('ENGINE_FAILED', `the process of the model's instance was ended ${how}`));
      resolve();
    });
  });
  // The pipe breaks a moment before the end is known.
  const broken = new Promise<void>((resolve) => child.once('disconnect', resolve));
  child.on('message', (message) => remote.receive(message));
  try {
    const identity = await remote.ready;
    isReady = true;
    release(child);
    const backend: Backend = {
      load: (model, options) => remote.load(model, options),
      // The pipe copies what is sent, so nothing has to be copied before.
      run: (graph, feeds, options) => remote.run(graph, feeds, { ...options, transfer: true }),
      release: (graph) => remote.release(graph),
      close: async () => {
        hold(child);
        const timer = setTimeout(() => child.kill('SIGKILL'), END_MS);
        await remote.close();
        await exited;
        clearTimeout(timer);
      },
    };
    const description = identity.description.replace('inline)', `process ${child.pid})`);
    const engine = createQueuedEngine(backend, { ...identity, description }, WORKER_WIDTH);
    return Object.assign(engine, { pid: child.pid as number, ended: Promise.race([exited, broken]) });
  } catch (error) {
    child.kill('SIGKILL');
    await exited;
    throw error;
  }
}

function hold(child: ChildProcess): void {
  child.ref();
  child.channel?.ref();
}

function release(child: ChildProcess): void {
  child.unref();
  child.channel?.unref();
}
