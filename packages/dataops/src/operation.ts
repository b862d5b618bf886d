/**
 * One run of a command against a cluster: deadline, cancellation, progress, what it made and how that is undone.
 *
 * Objects are made by server-side apply under a field manager of the run's own (`scrim:<id>`) with the id in an
 * annotation. Two runs that race for a name thus differ in a field each of them owns, so the server itself refuses the
 * second one instead of merging the two. A run that fails removes exactly what it made (by uid), newest first.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { ScrimError } from 'scrim';
import type { DataopsEvent } from './events.js';
import { aborted, type KubeClient } from './kube/client.js';
import type { Kind, KindMap, Manifest } from './kube/kinds.js';
import { observe } from './kube/observe.js';
import { uniqueSuffix } from './naming.js';

/** What every call takes, besides its own arguments. */
export interface OperationOptions {
  /** Namespace; default: the one the kubeconfig's context names. */
  readonly namespace?: string;
  /** How long the whole call may take; default 10 minutes. */
  readonly timeoutMs?: number;
  /** How long a fault that may mend itself (unschedulable, a retried provisioning) is watched; default 30 s. */
  readonly stallMs?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: DataopsEvent) => void;
  /** 'client' talks to no server and only returns the manifests; 'server' has the server check them, storing nothing. */
  readonly dryRun?: 'client' | 'server';
}

/** Annotation with the id of the run that made an object. */
export const OPERATION_ANNOTATION = 'scrim.dev/operation';
/** Annotation with a digest of what was asked for, by which a repeated run knows its own leftovers. */
export const REQUEST_ANNOTATION = 'scrim.dev/request';

const DEFAULT_TIMEOUT_MS = 600_000;
const DEFAULT_STALL_MS = 30_000;
const ROLLBACK_MS = 60_000;
const REEVALUATE_MS = 250;

interface Made {
  readonly kind: Kind;
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
}

/** Objects an {@link Operation.waitFor} looks at, by the caller's own name for each set. */
export type Watched<S> = { readonly [P in keyof S]: WatchSpec<S[P] extends Kind ? S[P] : never> };

/** One set of objects to keep an eye on. */
export interface WatchSpec<K extends Kind> {
  readonly kind: K;
  readonly name?: string;
  readonly labels?: string;
  readonly fields?: string;
  /** Default: the operation's namespace. */
  readonly namespace?: string;
}

/** What is known about the watched objects; undefined for a set that was not listed yet. */
export type Seen<S> = { readonly [P in keyof S]: readonly KindMap[S[P] extends Kind ? S[P] : never][] | undefined };

/** One run. */
export class Operation {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly signal: AbortSignal;
  readonly stallMs: number;
  readonly dryRun: 'client' | 'server' | undefined;
  readonly id: string = uniqueSuffix();
  /** Everything this run applied, in order; for dry runs and `-o yaml`. */
  readonly manifests: Manifest[] = [];
  readonly #made: Made[] = [];
  readonly #adopted: (Made & { readonly from: string })[] = [];
  readonly #undo: { readonly name: string; readonly task: (signal: AbortSignal) => Promise<void> }[] = [];
  readonly #emit: (event: DataopsEvent) => void;
  readonly #timeoutMs: number;
  #lastSeen = '';
  #silent = false;

  constructor(client: KubeClient, options: OperationOptions, signal: AbortSignal) {
    this.client = client;
    this.namespace = options.namespace ?? client.namespace;
    this.stallMs = options.stallMs ?? DEFAULT_STALL_MS;
    this.dryRun = options.dryRun;
    this.signal = signal;
    this.#emit = options.onProgress ?? (() => undefined);
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  }

  /** Field manager of this run. */
  get fieldManager(): string {
    return `scrim:${this.id}`;
  }

  emit(event: DataopsEvent): void {
    if (!this.#silent || event.type === 'warning') this.#emit(event);
  }

  /** Runs `task` without progress events: a detail the caller of the operation did not ask for by name. */
  async silently<R>(task: () => Promise<R>): Promise<R> {
    const before = this.#silent;
    this.#silent = true;
    try {
      return await task();
    } finally {
      this.#silent = before;
    }
  }

  /**
   * Makes an object that must not exist yet; it is removed again if the run fails later.
   *
   * With `adopt`, an object that an earlier, interrupted run of the same request left behind is taken over.
   *
   * @throws ALREADY_EXISTS
   */
  async create<K extends Kind>(
    manifest: Manifest<K>,
    { adopt }: { readonly adopt?: string } = {},
  ): Promise<{ readonly object: KindMap[K]; readonly adopted: boolean }> {
    const { kind } = manifest;
    const { name } = manifest.metadata;
    const annotated = {
      ...manifest,
      metadata: {
        ...manifest.metadata,
        annotations: {
          ...manifest.metadata.annotations,
          [OPERATION_ANNOTATION]: this.id,
          ...(adopt === undefined ? {} : { [REQUEST_ANNOTATION]: adopt }),
        },
      },
    } as Manifest<K>;
    this.manifests.push(manifest as Manifest);
    if (this.dryRun === 'client') return { object: manifest as KindMap[K], adopted: false };
    const source = (manifest as Manifest<'VolumeSnapshot'>).spec?.source?.persistentVolumeClaimName;
    const about = { kind, name, namespace: this.namespace, ...(source === undefined ? {} : { source }) };
    this.emit({ type: 'creating', ...about });
    const existing = await this.#findStaying(kind as K, name);
    if (existing !== undefined) {
      const annotations = existing.metadata?.annotations ?? {};
      if (annotations[OPERATION_ANNOTATION] !== this.id) {
        if (adopt === undefined || annotations[REQUEST_ANNOTATION] !== adopt || existing.metadata?.deletionTimestamp) {
          throw alreadyExists(
            kind,
            name,
            this.namespace,
            annotations[OPERATION_ANNOTATION] !== undefined && adopt !== undefined,
          );
        }
        await this.adopt(existing, kind as K);
        return { object: existing, adopted: true };
      }
    }
    try {
      const { object, created } = await this.client.apply(annotated, this.namespace, {
        fieldManager: this.fieldManager,
        dryRun: this.dryRun === 'server',
        signal: this.signal,
      });
      // 200 instead of 201 is ours only if a lost answer was asked for again: the annotation tells.
      if (!created && object.metadata?.annotations?.[OPERATION_ANNOTATION] !== this.id) {
        throw alreadyExists(kind, name, this.namespace, false);
      }
      if (this.dryRun === undefined) {
        this.#made.push({ kind, name, namespace: this.namespace, uid: object.metadata?.uid ?? '' });
      }
      this.emit({ type: 'created', ...about });
      return { object, adopted: false };
    } catch (error) {
      if (error instanceof ScrimError && error.code === 'ALREADY_EXISTS') {
        throw alreadyExists(kind, name, this.namespace, false, error);
      }
      throw error;
    }
  }

  /**
   * Takes over an object that another run made. Should that run still live and fail, it leaves the object alone; should
   * this one fail, the object is the other's again.
   */
  async adopt<K extends Kind>(object: KindMap[K], kind: K): Promise<void> {
    const { name = '', uid = '', annotations = {} } = object.metadata ?? {};
    this.emit({ type: 'adopted', kind, name, namespace: this.namespace });
    if (this.dryRun !== undefined) return;
    const made = { kind, name, namespace: this.namespace, uid };
    await this.#sign(made, this.id, this.signal);
    this.#adopted.push({ ...made, from: annotations[OPERATION_ANNOTATION] ?? '' });
  }

  async #sign({ kind, name, namespace, uid }: Made, id: string, signal: AbortSignal): Promise<void> {
    const change = { metadata: { uid, annotations: { [OPERATION_ANNOTATION]: id } } };
    await this.client.patch(kind, namespace, name, change, { fieldManager: this.fieldManager, signal });
  }

  /**
   * Reads an object; one that is on its way out (a run that failed just before took it back) is given time to go.
   * Creating needs no right to watch, so this asks again and again.
   */
  async #findStaying<K extends Kind>(kind: K, name: string): Promise<KindMap[K] | undefined> {
    const until = performance.now() + this.stallMs;
    for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, 1_000)) {
      const existing = await this.client.find(kind, this.namespace, name, this.signal);
      if (existing?.metadata?.deletionTimestamp === undefined || performance.now() > until) return existing;
      await sleep(pauseMs, undefined, { signal: this.signal }).catch(() => {
        throw this.#stopped(`the deletion of ${kind} '${name}'`);
      });
    }
  }

  /** Removes an object and waits until it is gone; one that isn't there is gone. */
  async remove(
    kind: Kind,
    name: string,
    options: { readonly uid?: string; readonly wait?: boolean } = {},
  ): Promise<boolean> {
    if (this.dryRun === 'client') return true;
    const before = await this.client.find(kind, this.namespace, name, this.signal);
    const uid = before?.metadata?.uid;
    if (uid === undefined || (options.uid !== undefined && uid !== options.uid)) return false;
    const found = await this.client.delete(kind, this.namespace, name, {
      uid,
      dryRun: this.dryRun === 'server',
      signal: this.signal,
      propagationPolicy: kind === 'Deployment' || kind === 'Job' ? 'Foreground' : 'Background',
    });
    if (!found || this.dryRun !== undefined || options.wait === false) return found;
    await this.waitFor(
      `the deletion of ${kind} '${name}'`,
      { objects: { kind, name } },
      ({ objects }) => (objects?.every((object) => object.metadata?.uid !== uid) ? true : undefined),
      ({ objects }) => {
        const finalizers = objects?.[0]?.metadata?.finalizers ?? [];
        return finalizers.length === 0 ? '' : `held by ${finalizers.join(', ')}`;
      },
    );
    return true;
  }

  /** Something to do if the run fails later, besides removing what it made. */
  onFailure(name: string, task: (signal: AbortSignal) => Promise<void>): void {
    this.#undo.push({ name, task });
  }

  /** Takes back that an object be removed on failure: it is not this run's alone any more. */
  keep(kind: Kind, name: string): void {
    const index = this.#made.findIndex((made) => made.kind === kind && made.name === name);
    if (index >= 0) this.#made.splice(index, 1);
  }

  /**
   * Watches objects until `decide` returns something or throws. `decide` runs on every change and, so that it can
   * judge how long a state lasts, four times a second; no request is sent for that.
   *
   * @throws DEADLINE_EXCEEDED with what `describe` last knew, CANCELLED, or what `decide` throws
   */
  async waitFor<S extends Record<string, Kind>, R>(
    what: string,
    watched: Watched<S>,
    decide: (seen: Seen<S>, elapsedMs: number) => R | undefined,
    describe: (seen: Seen<S>) => string = () => '',
  ): Promise<R> {
    if (this.signal.aborted) throw this.#stopped(what);
    const stop = new AbortController();
    const signal = AbortSignal.any([this.signal, stop.signal]);
    const seen = {} as Record<string, readonly unknown[]>;
    const start = performance.now();
    let timer: NodeJS.Timeout | undefined;
    let onAbort: (() => void) | undefined;
    const watches: Promise<void>[] = [];
    try {
      return await new Promise<R>((resolve, reject) => {
        const evaluate = (): void => {
          if (stop.signal.aborted) return;
          try {
            this.#lastSeen = describe(seen as Seen<S>);
            const result = decide(seen as Seen<S>, performance.now() - start);
            if (result !== undefined) resolve(result);
          } catch (error) {
            reject(error);
          }
        };
        onAbort = () => reject(this.#stopped(what));
        this.signal.addEventListener('abort', onAbort, { once: true });
        for (const [key, spec] of Object.entries(watched) as [string, WatchSpec<Kind>][]) {
          const fields = [spec.name === undefined ? undefined : `metadata.name=${spec.name}`, spec.fields];
          const fieldSelector = fields.filter((field) => field !== undefined).join(',');
          const selection = {
            namespace: spec.namespace ?? this.namespace,
            ...(fieldSelector === '' ? {} : { fieldSelector }),
            ...(spec.labels === undefined ? {} : { labelSelector: spec.labels }),
          };
          watches.push(
            observe(this.client, spec.kind, selection, signal, (objects) => {
              seen[key] = objects;
              evaluate();
            }).catch(reject),
          );
        }
        timer = setInterval(evaluate, REEVALUATE_MS);
      });
    } finally {
      stop.abort();
      clearInterval(timer);
      if (onAbort !== undefined) this.signal.removeEventListener('abort', onAbort);
      await Promise.allSettled(watches);
    }
  }

  #stopped(what: string): ScrimError {
    const error = aborted(this.signal);
    if (error.code !== 'DEADLINE_EXCEEDED') return error;
    return new ScrimError(
      'DEADLINE_EXCEEDED',
      `waited ${Math.round(this.#timeoutMs / 100) / 10} s for ${what}${this.#lastSeen === '' ? '' : `: ${this.#lastSeen}`}`,
      { details: { reason: 'Timeout', timeoutMs: this.#timeoutMs } },
    );
  }

  /** Undoes what this run did; returns what could not be undone. */
  async rollBack(): Promise<readonly string[]> {
    const signal = AbortSignal.timeout(ROLLBACK_MS);
    const left: string[] = [];
    for (const { name, task } of this.#undo.reverse()) {
      await task(signal).catch(() => left.push(name));
    }
    for (const made of this.#made.reverse()) {
      const { kind, name, namespace } = made;
      try {
        if (await this.#removeOwn(made, signal)) this.emit({ type: 'rolled-back', kind, name, namespace });
      } catch {
        left.push(`${kind} '${name}'`);
      }
    }
    for (const { from, ...made } of this.#adopted.reverse()) {
      // Gone, or another's by now: then there is nothing to give back.
      await this.#sign(made, from, signal).catch(() => undefined);
    }
    return left;
  }

  /** Deletes an object unless it is another run's by now; false where there was nothing to delete. */
  async #removeOwn({ kind, name, namespace, uid }: Made, signal: AbortSignal): Promise<boolean> {
    for (;;) {
      const object = await this.client.find(kind, namespace, name, signal);
      const { resourceVersion, annotations = {} } = object?.metadata ?? {};
      if (object?.metadata?.uid !== uid || annotations[OPERATION_ANNOTATION] !== this.id) return false;
      const exact = { uid, signal, ...(resourceVersion === undefined ? {} : { resourceVersion }) };
      // False: it changed since it was read, or went by itself.
      if (await this.client.delete(kind, namespace, name, exact)) return true;
    }
  }
}

/** Runs `body` under a deadline; what it made is removed again if it throws. */
export async function runOperation<R>(
  client: KubeClient,
  options: OperationOptions,
  body: (operation: Operation) => Promise<R>,
): Promise<R> {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  if (!(timeoutMs > 0)) throw new ScrimError('INVALID_ARGUMENT', `timeoutMs is ${timeoutMs}, expected more than 0`);
  const deadline = new AbortController();
  const timer = setTimeout(
    () =>
      deadline.abort(
        new ScrimError('DEADLINE_EXCEEDED', `the operation took longer than ${timeoutMs} ms`, {
          details: { reason: 'Timeout', timeoutMs },
        }),
      ),
    timeoutMs,
  );
  const signal = options.signal === undefined ? deadline.signal : AbortSignal.any([options.signal, deadline.signal]);
  const operation = new Operation(client, options, signal);
  try {
    return await body(operation);
  } catch (error) {
    const left = await operation.rollBack();
    if (left.length === 0) throw error;
    const first = ScrimError.from(error, 'INTERNAL', 'the operation failed');
    throw new ScrimError(first.code, `${first.message}; could not be undone: ${left.join(', ')}`, {
      cause: first,
      details: { ...first.details, left },
    });
  } finally {
    clearTimeout(timer);
  }
}

/** Digest of what was asked for: the same request always gives the same one. Leave secrets out of `request`. */
export function requestDigest(command: string, request: Readonly<Record<string, unknown>>): string {
  const entries = Object.entries(request)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([command, entries]))
    .digest('hex')
    .slice(0, 16);
}

function alreadyExists(kind: Kind, name: string, namespace: string, leftover: boolean, cause?: unknown): ScrimError {
  const hint = leftover ? '; an unfinished run with other options left it: delete it first, or repeat that run' : '';
  return new ScrimError('ALREADY_EXISTS', `${kind} '${name}' exists already in namespace '${namespace}'${hint}`, {
    details: { reason: 'AlreadyExists', kind, name, namespace },
    ...(cause === undefined ? {} : { cause }),
  });
}
