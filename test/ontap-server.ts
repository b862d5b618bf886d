/**
 * A stand-in for a storage system with ONTAP: HTTPS, basic authentication, FlexCache volumes, jobs. It holds every
 * request against ONTAP's published API description (vectors/ontap/flexcache.json) and refuses what that does not know:
 * paths, query parameters, fields, types, missing properties. What it answers is made up; no storage is behind it.
 */
import { execFileSync } from 'node:child_process';
import { createHash, randomUUID, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface Operation {
  readonly method: string;
  readonly path: string;
  readonly query?: readonly { name: string; type: string; minimum?: number; maximum?: number }[];
  readonly fields?: readonly string[];
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, string>>;
  readonly errors?: Readonly<Record<string, string>>;
  readonly asynchronous: boolean;
}

const description = JSON.parse(readFileSync(new URL('vectors/ontap/flexcache.json', import.meta.url), 'utf8')) as {
  readonly jobStates: readonly string[];
  readonly operations: readonly Operation[];
};

/** A cache, or another volume, of the storage system. */
export interface OntapVolume {
  readonly uuid: string;
  readonly name: string;
  readonly svm: string;
  path: string;
  readonly size?: number;
  /** Set for FlexCache volumes. */
  readonly origin?: { readonly svm: string; readonly volume: string };
}

/** The running stand-in. */
export interface OntapServer {
  /** Host and port. */
  readonly host: string;
  /** Its certificate, PEM, self-signed for 'storage.example.com'. */
  readonly certificate: string;
  /** SHA-256 fingerprint of the certificate. */
  readonly fingerprint: string;
  readonly username: string;
  readonly password: string;
  readonly volumes: OntapVolume[];
  /** Method and path of every request it took, and what it refused. */
  readonly requests: string[];
  readonly refusals: string[];
  /** The next job fails with this message. */
  failNextJob(message: string): void;
  close(): Promise<void>;
}

class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, message: string, code = '262197') {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Starts the stand-in on a free port of the loopback interface. Needs openssl for its certificate. */
export async function startOntapServer(): Promise<OntapServer> {
  const { key, cert } = makeCertificate();
  const username = 'admin';
  const password = `p:${randomUUID()}`;
  const volumes: OntapVolume[] = [
    { uuid: randomUUID(), name: 'origin1', svm: 'svm-origin', path: '/origin1' },
    { uuid: randomUUID(), name: 'unrelated', svm: 'svm1', path: '/unrelated' },
  ];
  const requests: string[] = [];
  const refusals: string[] = [];
  const jobs = new Map<string, { polls: number; finish: () => void; error?: string }>();
  let failing: string | undefined;

  const start = (finish: () => void): object => {
    const uuid = randomUUID();
    jobs.set(uuid, { polls: 0, finish, ...(failing === undefined ? {} : { error: failing }) });
    failing = undefined;
    return { job: { uuid, _links: { self: { href: `/api/cluster/jobs/${uuid}` } } } };
  };
  // biome-ignore lint/suspicious/noExplicitAny: the body was held against the description
  const answer = (operation: Operation, uuid: string, url: URL, body: any): { status: number; body: object } => {
    const found = volumes.find((volume) => volume.uuid === uuid);
    switch (`${operation.method} ${operation.path}`) {
      case 'POST /api/storage/flexcache/flexcaches': {
        const [origin] = body.origins;
        if (volumes.some(({ name, svm }) => name === body.name && svm === body.svm.name)) {
          throw new Refusal(409, `volume "${body.name}" in SVM "${body.svm.name}" already exists`, '917831');
        }
        if (!volumes.some(({ name, svm }) => name === origin.volume.name && svm === origin.svm.name)) {
          throw new Refusal(400, `origin volume "${origin.svm.name}:${origin.volume.name}" does not exist`, '66846812');
        }
        const cache: OntapVolume = {
          uuid: randomUUID(),
          name: body.name,
          svm: body.svm.name,
          path: body.path ?? '',
          size: body.size,
          origin: { svm: origin.svm.name, volume: origin.volume.name },
        };
        return { status: 202, body: start(() => void volumes.push(cache)) };
      }
      case 'DELETE /api/storage/flexcache/flexcaches/{uuid}': {
        if (found?.origin === undefined) {
          throw new Refusal(
            404,
            'The specified volume UUID is not a FlexCache volume',
            operation.errors?.notAFlexCache,
          );
        }
        if (found.path !== '')
          throw new Refusal(400, 'FlexCache volume is not unmounted', operation.errors?.notUnmounted);
        return { status: 202, body: start(() => void volumes.splice(volumes.indexOf(found), 1)) };
      }
      case 'PATCH /api/storage/volumes/{uuid}': {
        if (found === undefined) throw new Refusal(404, `volume ${uuid} does not exist`);
        const { path } = body.nas;
        return { status: 202, body: start(() => Object.assign(found, { path })) };
      }
      case 'GET /api/cluster/jobs/{uuid}': {
        const job = jobs.get(uuid);
        if (job === undefined) throw new Refusal(404, `job ${uuid} does not exist`, '4');
        const state = description.jobStates[Math.min(job.polls++, 1)];
        if (job.polls < 3) return { status: 200, body: { uuid, state, message: 'working' } };
        if (job.error !== undefined) {
          return { status: 200, body: { uuid, state: 'failure', error: { message: job.error, code: '66846731' } } };
        }
        job.finish();
        job.finish = () => undefined;
        return { status: 200, body: { uuid, state: 'success', message: 'Complete', code: 0 } };
      }
      default: {
        const caches = operation.path.includes('flexcache');
        const records = volumes
          .filter(({ origin }) => !caches || origin !== undefined)
          .filter(({ name, svm }) => {
            const query = url.searchParams;
            return name === (query.get('name') ?? name) && svm === (query.get('svm.name') ?? svm);
          })
          .map(({ uuid: id, name, svm, path, origin }) => ({
            uuid: id,
            name,
            svm: { name: svm },
            ...(caches
              ? { path, origins: [{ svm: { name: origin?.svm }, volume: { name: origin?.volume } }] }
              : { nas: path === '' ? {} : { path } }),
          }));
        return { status: 200, body: { records, num_records: records.length } };
      }
    }
  };

  const server: Server = createServer({ key, cert }, (request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const url = new URL(request.url ?? '/', 'https://storage');
      const send = (status: number, body: object): void => {
        response.writeHead(status, { 'Content-Type': 'application/hal+json' }).end(JSON.stringify(body));
      };
      try {
        requests.push(`${request.method} ${url.pathname}`);
        const wanted = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
        if (request.headers.authorization !== wanted)
          throw new Refusal(401, 'not authorized for that command', '6691623');
        const text = Buffer.concat(parts).toString('utf8');
        const { operation, uuid } = match(request.method ?? '', url.pathname);
        checkQuery(operation, url.searchParams);
        const body = text === '' ? undefined : JSON.parse(text);
        checkBody(operation, body, request.headers['content-type']);
        const { status, body: content } = answer(operation, uuid, url, body);
        send(status, content);
      } catch (error) {
        const refusal = error instanceof Refusal ? error : new Refusal(500, String(error));
        refusals.push(refusal.message);
        send(refusal.status, { error: { message: refusal.message, code: refusal.code } });
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    certificate: cert,
    fingerprint: createHash('sha256').update(new X509Certificate(cert).raw).digest('hex'),
    username,
    password,
    volumes,
    requests,
    refusals,
    failNextJob: (message) => {
      failing = message;
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function match(method: string, path: string): { operation: Operation; uuid: string } {
  for (const operation of description.operations) {
    const pattern = new RegExp(`^${operation.path.replace('{uuid}', '([0-9a-f-]{36})')}$`);
    const found = pattern.exec(path);
    if (operation.method === method && found !== null) return { operation, uuid: found[1] ?? '' };
  }
  throw new Refusal(404, `API not found: ${method} ${path}`, '3');
}

function checkQuery(operation: Operation, query: URLSearchParams): void {
  for (const [name, value] of query) {
    const parameter = operation.query?.find((each) => each.name === name);
    if (parameter !== undefined) {
      const number = Number(value);
      const { minimum = -Infinity, maximum = Infinity, type } = parameter;
      if (type === 'integer' && !(Number.isInteger(number) && number >= minimum && number <= maximum)) {
        throw new Refusal(400, `the value "${value}" is invalid for parameter "${name}"`);
      }
    } else if (operation.fields !== undefined && name === 'fields') {
      for (const field of value.split(',')) checkField(operation.fields, field);
    } else if (operation.fields !== undefined) {
      checkField(operation.fields, name); // GET filters by any field
    } else {
      throw new Refusal(400, `unexpected argument "${name}"`);
    }
  }
}

function checkField(fields: readonly string[], field: string): void {
  // 'origins' stands for everything below it.
  const known = fields.some((each) => each === field || field.startsWith(`${each}.`) || each.startsWith(`${field}.`));
  if (!known) throw new Refusal(400, `the value "${field}" is invalid for field "fields"`);
}

function checkBody(operation: Operation, body: unknown, contentType: string | undefined): void {
  if (operation.properties === undefined) {
    if (body !== undefined) throw new Refusal(400, 'unexpected body');
    return;
  }
  if (!/json/.test(contentType ?? '')) throw new Refusal(400, `unexpected content type "${contentType}"`);
  const seen = new Set<string>();
  walk(body, '', operation.properties, seen);
  for (const required of operation.required ?? []) {
    if (!seen.has(required)) throw new Refusal(400, `missing required property "${required}"`);
  }
}

function walk(value: unknown, path: string, properties: Readonly<Record<string, string>>, seen: Set<string>): void {
  for (const [key, entry] of Object.entries(value as object)) {
    const full = path === '' ? key : `${path}.${key}`;
    const expected = properties[full];
    const kind = Array.isArray(entry) ? 'array' : Number.isInteger(entry) ? 'integer' : typeof entry;
    if (expected === undefined) throw new Refusal(400, `unexpected argument "${full}"`);
    if (kind !== expected) throw new Refusal(400, `the value of "${full}" is of type ${kind}, expected ${expected}`);
    seen.add(full);
    if (kind === 'array') for (const item of entry as unknown[]) walk(item, `${full}[]`, properties, seen);
    else if (kind === 'object') walk(entry, full, properties, seen);
  }
}

function makeCertificate(): { key: string; cert: string } {
  const folder = mkdtempSync(join(tmpdir(), 'scrim-ontap-'));
  try {
    const subject = ['-subj', '/CN=storage.example.com', '-addext', 'subjectAltName=DNS:storage.example.com'];
    const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
    execFileSync('openssl', [...args, ...subject, '-keyout', 'key.pem', '-out', 'cert.pem'], {
      cwd: folder,
      stdio: 'pipe',
    });
    return { key: readFileSync(join(folder, 'key.pem'), 'utf8'), cert: readFileSync(join(folder, 'cert.pem'), 'utf8') };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
