/**
 * Typed requests to a Kubernetes API server: get, list, server-side apply, merge patch, delete, discovery, logs.
 *
 * Failures become ScrimErrors with the server's own reason in `details.reason`. Requests that are safe to repeat are
 * repeated while the server can't be reached (it restarts, it sheds load), until the caller's signal fires.
 * Watching is kube/observe.ts; waiting and rolling back are operation.ts.
 */
import type { IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ScrimError, type ScrimErrorCode } from 'scrim';
import type { Connection, KubeRequest } from './connection.js';
import { KINDS, type Kind, type KindMap, type Manifest, pathOf } from './kinds.js';
import { linesOf } from './lines.js';

/** Narrows a list or a watch. */
export interface Selection {
  readonly namespace: string;
  readonly fieldSelector?: string;
  readonly labelSelector?: string;
}

/** One page-less list: its objects and the version they were read at. */
export interface KubeList<T> {
  readonly items: readonly T[];
  readonly resourceVersion: string;
}

/** How an object is sent. */
export interface ApplyOptions {
  readonly fieldManager: string;
  /** Takes fields over from other managers. */
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
}

/** How an object is deleted. */
export interface DeleteOptions {
  /** Only if the object still is the one with this uid. */
  readonly uid?: string;
  /** With `uid`: only if it is unchanged since it was read. */
  readonly resourceVersion?: string;
  readonly propagationPolicy?: 'Foreground' | 'Background' | 'Orphan';
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
}

/** How often a request that can't reach the server is repeated, and how long each pause may be. */
const RETRIES = 8;
const LONGEST_PAUSE_MS = 3_000;

/** A client of one API server. */
export class KubeClient {
  readonly connection: Connection;
  /** Versions this server has of kinds it does not serve in the version of {@link KINDS}. */
  readonly #versions = new Map<Kind, string>();

  constructor(connection: Connection) {
    this.connection = connection;
  }

  /** Namespace of the kubeconfig's context. */
  get namespace(): string {
    return this.connection.namespace;
  }

  /** Path of a kind's collection, or of one object, on this server. */
  path(kind: Kind, namespace: string, name?: string): string {
    const path = pathOf(kind, namespace, name);
    const version = this.#versions.get(kind);
    return version === undefined ? path : path.replace(KINDS[kind].apiVersion, version);
  }

  /** Uses `older` for a kind that the server does not serve in its usual version: Kubernetes before 1.21 for CronJob. */
  async negotiate(kind: Kind, older: string, signal?: AbortSignal): Promise<void> {
    if (!(await this.serves(kind, signal))) this.#versions.set(kind, older);
  }

  /** Reads one object. @throws NOT_FOUND */
  async get<K extends Kind>(kind: K, namespace: string, name: string, signal?: AbortSignal): Promise<KindMap[K]> {
    return this.#json({ method: 'GET', path: this.path(kind, namespace, name), ...signalled(signal) });
  }

  /** Reads one object, or undefined where there is none. */
  async find<K extends Kind>(
    kind: K,
    namespace: string,
    name: string,
    signal?: AbortSignal,
  ): Promise<KindMap[K] | undefined> {
    try {
      return await this.get(kind, namespace, name, signal);
    } catch (error) {
      if (error instanceof ScrimError && error.code === 'NOT_FOUND') return undefined;
      throw error;
    }
  }

  /** Reads all objects that `selection` matches. */
  async list<K extends Kind>(kind: K, selection: Selection, signal?: AbortSignal): Promise<KubeList<KindMap[K]>> {
    const { namespace, fieldSelector, labelSelector } = selection;
    const list: { items?: KindMap[K][]; metadata?: { resourceVersion?: string } } = await this.#json({
      method: 'GET',
      path: this.path(kind, namespace),
      query: { fieldSelector, labelSelector },
      ...signalled(signal),
    });
    return { items: list.items ?? [], resourceVersion: list.metadata?.resourceVersion ?? '' };
  }

  /**
   * Server-side apply. `created` tells whether the object came into being by this request.
   *
   * @throws ALREADY_EXISTS with reason 'Conflict' when another manager holds a field with another value
   */
  async apply<K extends Kind>(
    manifest: Manifest<K>,
    namespace: string,
    options: ApplyOptions,
  ): Promise<{ readonly object: KindMap[K]; readonly created: boolean }> {
    const kind = manifest.kind as K;
    const { status, body } = await this.#request({
      method: 'PATCH',
      path: this.path(kind, namespace, manifest.metadata.name),
      query: {
        fieldManager: options.fieldManager,
        fieldValidation: 'Strict',
        force: options.force ? 'true' : undefined,
        dryRun: options.dryRun ? 'All' : undefined,
      },
      contentType: 'application/apply-patch+yaml',
      body: { ...manifest, apiVersion: this.#versions.get(kind) ?? manifest.apiVersion },
      ...signalled(options.signal),
    });
    return { object: body as KindMap[K], created: status === 201 };
  }

  /** Changes parts of an object by a JSON merge patch; null removes a field. */
  async patch<K extends Kind>(
    kind: K,
    namespace: string,
    name: string,
    change: object,
    options: ApplyOptions,
  ): Promise<KindMap[K]> {
    return this.#json({
      method: 'PATCH',
      path: this.path(kind, namespace, name),
      query: { fieldManager: options.fieldManager, dryRun: options.dryRun ? 'All' : undefined },
      contentType: 'application/merge-patch+json',
      body: change,
      ...signalled(options.signal),
    });
  }

  /** Sets the replicas of a Deployment through its scale. */
  async scale(namespace: string, name: string, replicas: number, options: ApplyOptions): Promise<void> {
    await this.#json({
      method: 'PATCH',
      path: `${this.path('Deployment', namespace, name)}/scale`,
      query: { fieldManager: options.fieldManager, dryRun: options.dryRun ? 'All' : undefined },
      contentType: 'application/merge-patch+json',
      body: { spec: { replicas } },
      ...signalled(options.signal),
    });
  }

  /** Asks for an object's deletion; false where there was none (or, with `uid`, another one). */
  async delete(kind: Kind, namespace: string, name: string, options: DeleteOptions = {}): Promise<boolean> {
    const version = options.resourceVersion === undefined ? {} : { resourceVersion: options.resourceVersion };
    try {
      await this.#json({
        method: 'DELETE',
        path: this.path(kind, namespace, name),
        // Where there is a body, the server does not read options from the query.
        body: {
          apiVersion: 'v1',
          kind: 'DeleteOptions',
          ...(options.dryRun ? { dryRun: ['All'] } : {}),
          propagationPolicy: options.propagationPolicy ?? 'Background',
          ...(options.uid === undefined ? {} : { preconditions: { uid: options.uid, ...version } }),
        },
        ...signalled(options.signal),
      });
      return true;
    } catch (error) {
      if (!(error instanceof ScrimError)) throw error;
      if (error.code === 'NOT_FOUND') return false;
      if (error.details.reason === 'Conflict' && options.uid !== undefined) return false;
      throw error;
    }
  }

  /** Whether the server knows the kind: a custom resource may not be installed. */
  async serves(kind: Kind, signal?: AbortSignal): Promise<boolean> {
    const { apiVersion } = KINDS[kind];
    try {
      const list: { resources?: { kind?: string }[] } = await this.#json({
        method: 'GET',
        path: apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`,
        ...signalled(signal),
      });
      return list.resources?.some((resource) => resource.kind === kind) ?? false;
    } catch (error) {
      if (error instanceof ScrimError && error.code === 'NOT_FOUND') return false;
      throw error;
    }
  }

  /** Lines of a pod's log as they come; ends with the container, or at once without `follow`. */
  async *logs(
    namespace: string,
    pod: string,
    options: { readonly container?: string; readonly follow?: boolean; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<string, void, undefined> {
    const response = await this.open({
      method: 'GET',
      path: `${this.path('Pod', namespace, pod)}/log`,
      query: { container: options.container, follow: options.follow ? 'true' : undefined },
      ...signalled(options.signal),
    });
    yield* linesOf(response);
  }

  /** Opens a streaming response (a watch, a log). @throws the mapped error when the server refuses */
  async open(request: KubeRequest): Promise<IncomingMessage> {
    const response = await this.#send(request);
    if ((response.statusCode ?? 500) >= 300) throw errorFrom(request, response.statusCode ?? 500, await read(response));
    return response;
  }

  async #json<T>(request: KubeRequest): Promise<T> {
    return (await this.#request(request)).body as T;
  }

  async #request(request: KubeRequest): Promise<{ readonly status: number; readonly body: unknown }> {
    for (let attempt = 0; ; attempt++) {
      try {
        const response = await this.#send(request);
        const status = response.statusCode ?? 500;
        const text = await read(response);
        if (status >= 300) throw errorFrom(request, status, text);
        return { status, body: JSON.parse(text) };
      } catch (cause) {
        const error = request.signal?.aborted ? aborted(request.signal) : asUnavailable(cause, this.connection.server);
        if (error.code !== 'UNAVAILABLE' || attempt === RETRIES) throw error;
        await sleep(Math.min(100 * 2 ** attempt, LONGEST_PAUSE_MS), undefined, { ...signalled(request.signal) }).catch(
          () => {
            throw endedWhile(aborted(request.signal), error);
          },
        );
      }
    }
  }

  async #send(request: KubeRequest): Promise<IncomingMessage> {
    try {
      return await this.connection.send(request);
    } catch (error) {
      throw request.signal?.aborted ? aborted(request.signal) : asUnavailable(error, this.connection.server);
    }
  }
}

function signalled(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

/** The error of a fired signal: its reason where that is ours, else CANCELLED. */
export function aborted(signal: AbortSignal | undefined): ScrimError {
  const reason: unknown = signal?.reason;
  return reason instanceof ScrimError ? reason : new ScrimError('CANCELLED', 'the operation was cancelled');
}

/** A deadline that passed while the server could not be reached says so. */
function endedWhile(end: ScrimError, trouble: ScrimError): ScrimError {
  if (end.code !== 'DEADLINE_EXCEEDED') return end;
  return new ScrimError(end.code, `${end.message}: ${trouble.message}`, { cause: trouble, details: end.details });
}

function asUnavailable(error: unknown, server: string): ScrimError {
  return ScrimError.from(error, 'UNAVAILABLE', `the Kubernetes API server at ${server} can't be reached`);
}

const LARGEST_ANSWER_BYTES = 64 * 1024 * 1024;

async function read(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > LARGEST_ANSWER_BYTES) {
      response.destroy();
      throw new ScrimError('LIMIT_EXCEEDED', `the API server's answer is larger than ${LARGEST_ANSWER_BYTES} bytes`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

const CODES: Readonly<Record<number, ScrimErrorCode>> = {
  400: 'INVALID_ARGUMENT',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  409: 'ALREADY_EXISTS',
  415: 'UNSUPPORTED',
  422: 'INVALID_ARGUMENT',
};

/** The API server's Status as a ScrimError; a Secret's message is left out, for it may quote what was sent. */
export function errorFrom(request: Pick<KubeRequest, 'method' | 'path'>, status: number, text: string): ScrimError {
  let reason = '';
  let message = '';
  try {
    const body = JSON.parse(text) as { reason?: string; message?: string };
    reason = body.reason ?? '';
    message = body.message ?? '';
  } catch {
    message = `HTTP status ${status}`;
  }
  const secret = /\/secrets(\/|$)/.test(request.path) && (status === 400 || status === 422);
  const overQuota = status === 403 && /exceeded quota/.test(message);
  const code = overQuota
    ? 'RESOURCE_EXHAUSTED'
    : (CODES[status] ?? (status >= 500 || status === 429 ? 'UNAVAILABLE' : 'INTERNAL'));
  return new ScrimError(
    code,
    `Kubernetes: ${secret ? `the Secret was refused (${reason})` : message || reason || `HTTP status ${status}`}`,
    { details: { status, reason, method: request.method, path: request.path } },
  );
}
