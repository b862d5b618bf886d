/**
 * Requests to ONTAP's REST API, as docs.netapp.com describes it: JSON, basic authentication, asynchronous jobs.
 *
 * TLS is always verified: against a CA that is given (or the system's), or by the fingerprint of the server's own
 * certificate, which is what a storage system with a self-signed certificate needs. The password is sent only after
 * that. What is asked for is flexcache.ts.
 */
import type { IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { ScrimError, type ScrimErrorCode } from 'scrim';
import { assertArgument } from '../argument.js';
import { aborted } from '../kube/client.js';

/** How to reach a storage system, and how to know that it is the right one. */
export interface OntapConnectOptions {
  /** Host name or address of the cluster's or SVM's management LIF, with ':port' where it is not 443. */
  readonly host: string;
  readonly username: string;
  readonly password: string;
  /** Certificates to trust, PEM; default: the system's. */
  readonly ca?: string;
  /** SHA-256 fingerprint of the server's certificate, 64 hexadecimal digits, colons allowed; instead of `ca`. */
  readonly fingerprint?: string;
  /** Name the certificate is issued for, where it is not `host`. */
  readonly serverName?: string;
}

/** A request of the REST API. */
export interface OntapRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Below the root, such as '/api/cluster/jobs'. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

interface OntapJob {
  readonly uuid: string;
  readonly state?: 'queued' | 'running' | 'paused' | 'success' | 'failure';
  readonly message?: string;
  readonly code?: number;
  readonly error?: { readonly message?: string; readonly code?: string };
}

/** Seconds a storage system may hold an answer back to finish the job first; it allows 0 to 120. */
const RETURN_TIMEOUT = 15;
const LONGEST_PAUSE_MS = 2_000;
const REQUEST_MS = 60_000;
const LARGEST_ANSWER_BYTES = 16 * 1024 * 1024;

/** A client of one storage system. */
export class OntapClient {
  readonly #options: OntapConnectOptions;
  readonly #agent: Agent;
  readonly #hostname: string;
  readonly #port: number;

  /** @throws INVALID_ARGUMENT */
  constructor(options: OntapConnectOptions) {
    const [, hostname, port = '443'] = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(\d+))?$/.exec(options.host) ?? [];
    assertArgument(
      hostname !== undefined,
      `the storage system's host is '${options.host}', expected a host name or address without scheme`,
    );
    assertArgument(options.username !== '' && options.password !== '', 'user name or password of ONTAP is empty');
    assertArgument(
      options.ca === undefined || options.fingerprint === undefined,
      'a CA and a fingerprint are given, expected one of them',
    );
    assertArgument(
      options.ca === undefined || options.ca.includes('-----BEGIN CERTIFICATE-----'),
      'ca holds no PEM certificate (-----BEGIN CERTIFICATE-----)',
    );
    this.#options = options;
    this.#hostname = hostname.replace(/^\[|\]$/g, '');
    this.#port = Number(port);
    this.#agent =
      options.fingerprint === undefined
        ? new Agent({
            keepAlive: true,
            ...(options.ca === undefined ? {} : { ca: options.ca }),
            ...(options.serverName === undefined ? {} : { servername: options.serverName }),
          })
        : pinnedAgent(fingerprintOf(options.fingerprint));
  }

  /** Sends a request and returns the answer's JSON. @throws the mapped error */
  async send<T>(request: OntapRequest, signal: AbortSignal): Promise<T> {
    const url = new URL(`https://host${request.path}`);
    for (const [key, value] of Object.entries(request.query ?? {})) url.searchParams.set(key, value);
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const { username, password } = this.#options;
    const options: RequestOptions = {
      host: this.#hostname,
      port: this.#port,
      method: request.method,
      path: url.pathname + url.search,
      agent: this.#agent,
      signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_MS)]),
      headers: {
        Accept: 'application/json',
        Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
        ...(body === undefined
          ? {}
          : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }),
      },
    };
    let status: number;
    let text: string;
    try {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        const sent = httpsRequest(options, resolve);
        sent.on('error', reject);
        sent.end(body);
      });
      status = response.statusCode ?? 500;
      text = await read(response);
    } catch (error) {
      throw signal.aborted ? aborted(signal) : this.#unreachable(error);
    }
    if (status >= 300) throw errorFrom(request, status, text);
    if (text === '') return {} as T;
    try {
      return JSON.parse(text) as T;
    } catch (error) {
      throw ScrimError.from(error, 'INVALID_DATA', `ONTAP's answer to ${request.method} ${request.path} is not JSON`);
    }
  }

  /** The only record that matches, or undefined. `fields` names what is asked for besides name and uuid. */
  async find<T>(
    path: string,
    query: Readonly<Record<string, string>>,
    fields: string,
    signal: AbortSignal,
  ): Promise<(T & { readonly uuid: string }) | undefined> {
    const { records = [] } = await this.send<{ records?: (T & { uuid: string })[] }>(
      { method: 'GET', path, query: { ...query, fields } },
      signal,
    );
    return records[0];
  }

  /** Sends a request that starts a job and waits until the job has ended. @throws UNAVAILABLE where the job fails */
  async run(request: OntapRequest, what: string, signal: AbortSignal): Promise<void> {
    const query = { ...request.query, return_timeout: String(RETURN_TIMEOUT) };
    const { job } = await this.send<{ job?: OntapJob }>({ ...request, query }, signal);
    if (job === undefined) return;
    for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      const path = `/api/cluster/jobs/${encodeURIComponent(job.uuid)}`;
      const { state, message, error, code } = await this.send<OntapJob>(
        { method: 'GET', path, query: { fields: 'state,message,error,code' } },
        signal,
      );
      if (state === 'success') return;
      if (state === 'failure') {
        throw new ScrimError(
          'UNAVAILABLE',
          `ONTAP: ${what} failed: ${error?.message ?? message ?? 'no reason given'}`,
          {
            details: { reason: 'OntapJobFailed', ontapCode: error?.code ?? String(code ?? '') },
          },
        );
      }
      await sleep(pauseMs, undefined, { signal }).catch(() => {
        throw aborted(signal);
      });
    }
  }

  /** Closes idle sockets. */
  close(): void {
    this.#agent.destroy();
  }

  #unreachable(error: unknown): ScrimError {
    const { host } = this.#options;
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (error instanceof ScrimError) return error;
    if (/CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(code)) {
      return new ScrimError(
        'UNAUTHENTICATED',
        `the certificate of '${host}' is not trusted (${code}): give its CA, the name it is issued for, or its SHA-256 fingerprint`,
        { cause: error, details: { reason: 'CertificateRefused' } },
      );
    }
    return ScrimError.from(
      error,
      'UNAVAILABLE',
      `ONTAP at '${host}' can't be reached${code === '' ? '' : ` (${code})`}`,
    );
  }
}

function fingerprintOf(text: string): string {
  const digits = text.replace(/:/g, '').toUpperCase();
  assertArgument(
    /^[0-9A-F]{64}$/.test(digits),
    'fingerprint is not one of SHA-256: expected 64 hexadecimal digits, with or without colons',
  );
  return digits.replace(/(..)(?=.)/g, '$1:');
}

/** An agent whose sockets are handed out only once the server has shown the certificate with this fingerprint. */
function pinnedAgent(fingerprint: string): Agent {
  const agent = new Agent({ keepAlive: true });
  type Create = typeof agent.createConnection;
  // Node takes the socket from the callback where nothing is returned; its types do not know that.
  const create = (options: Parameters<Create>[0], callback: Parameters<Create>[1]): void => {
    const { host = '', port = 443 } = options as { host?: string; port?: number };
    // The pin replaces the chain and the name, which a self-signed certificate can't satisfy.
    const socket = connectTls({ host, port: Number(port), rejectUnauthorized: false });
    socket.once('secureConnect', () => {
      const shown = socket.getPeerCertificate().fingerprint256;
      if (shown === fingerprint) {
        callback?.(null, socket);
        return;
      }
      socket.destroy();
      const message = `the certificate of '${host}' has the fingerprint ${shown}, expected ${fingerprint}; nothing was sent`;
      const details = { reason: 'CertificateRefused' };
      callback?.(new ScrimError('UNAUTHENTICATED', message, { details }), socket);
    });
    socket.once('error', (error) => callback?.(error, socket));
  };
  agent.createConnection = create as Create;
  return agent;
}

async function read(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > LARGEST_ANSWER_BYTES) {
      response.destroy();
      throw new ScrimError('LIMIT_EXCEEDED', `ONTAP's answer is larger than ${LARGEST_ANSWER_BYTES} bytes`);
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
};

function errorFrom({ method, path }: OntapRequest, status: number, text: string): ScrimError {
  let message = '';
  let ontapCode = '';
  try {
    const { error } = JSON.parse(text) as { error?: { message?: string; code?: string } };
    message = error?.message ?? '';
    ontapCode = error?.code ?? '';
  } catch {
    // No JSON: the status has to do.
  }
  return new ScrimError(
    CODES[status] ?? (status >= 500 || status === 429 ? 'UNAVAILABLE' : 'INTERNAL'),
    `ONTAP: ${message === '' ? `HTTP status ${status}` : message}`,
    { details: { status, reason: 'OntapError', ontapCode, method, path } },
  );
}
