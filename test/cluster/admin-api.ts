/**
 * Plain HTTPS requests to the test cluster's API server, as administrator. The simulators and the tests' read-backs use
 * this and not the client under test.
 */
import { Agent, request } from 'node:https';

/** Any object as the API gives it. */
// biome-ignore lint/suspicious/noExplicitAny: objects of every kind pass through here, as plain JSON
export type Json = any;

/** Requests with one bearer token. */
export class AdminApi {
  readonly server: string;
  readonly #token: string;
  readonly #agent: Agent;

  constructor(server: string, ca: string, token: string) {
    this.server = server;
    this.#token = token;
    this.#agent = new Agent({ ca, keepAlive: true });
  }

  /** Sends a request; throws an Error with `status` for anything but 2xx. */
  async send(method: string, path: string, body?: Json, contentType = 'application/json'): Promise<Json> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const sent = request(
        this.server + path,
        {
          method,
          agent: this.#agent,
          headers: {
            Authorization: `Bearer ${this.#token}`,
            ...(text === undefined
              ? {}
              : { 'Content-Type': contentType, 'Content-Length': String(Buffer.byteLength(text)) }),
          },
        },
        (response) => {
          let answer = '';
          response.setEncoding('utf8');
          response.on('data', (chunk: string) => {
            answer += chunk;
          });
          response.on('error', reject);
          response.on('end', () => {
            const status = response.statusCode ?? 500;
            if (status < 300) resolve(answer.startsWith('{') ? JSON.parse(answer) : answer);
            else reject(Object.assign(new Error(`${method} ${path}: ${status} ${answer.slice(0, 300)}`), { status }));
          });
        },
      );
      sent.on('error', reject);
      sent.end(text);
    });
  }

  get(path: string): Promise<Json> {
    return this.send('GET', path);
  }

  /** Reads an object, or undefined where there is none. */
  async find(path: string): Promise<Json> {
    return this.get(path).catch((error: { status?: number }) => {
      if (error.status === 404) return undefined;
      throw error;
    });
  }

  /** Creates an object; one that is there already is left as it is. */
  async ensure(path: string, body: Json): Promise<void> {
    await this.send('POST', path, body).catch((error: { status?: number }) => {
      if (error.status !== 409) throw error;
    });
  }

  patch(path: string, change: Json): Promise<Json> {
    return this.send('PATCH', path, change, 'application/merge-patch+json');
  }

  /** Calls `onObject` for every object that is there and for every change, until `signal` fires. */
  async watch(path: string, signal: AbortSignal, onObject: (type: string, object: Json) => void): Promise<void> {
    while (!signal.aborted) {
      try {
        const list = await this.get(path);
        const kind = list.kind.replace(/List$/, '');
        for (const item of list.items) onObject('ADDED', { apiVersion: list.apiVersion, kind, ...item });
        await this.#follow(path, list.metadata.resourceVersion, signal, onObject);
      } catch {
        if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }

  #follow(
    path: string,
    resourceVersion: string,
    signal: AbortSignal,
    onObject: (type: string, object: Json) => void,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const sent = request(
        `${this.server}${path}?watch=true&resourceVersion=${resourceVersion}`,
        { agent: this.#agent, signal, headers: { Authorization: `Bearer ${this.#token}` } },
        (response) => {
          let rest = '';
          response.setEncoding('utf8');
          response.on('data', (chunk: string) => {
            const lines = (rest + chunk).split('\n');
            rest = lines.pop() ?? '';
            for (const line of lines) {
              const { type, object } = JSON.parse(line);
              if (type !== 'ERROR') onObject(type, object);
            }
          });
          response.on('error', reject);
          response.on('close', () => resolve());
        },
      );
      sent.on('error', reject);
      sent.end();
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}
