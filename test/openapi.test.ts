/**
 * docs/openapi.yaml against the server: every documented operation is called, well and badly, and what comes back has a
 * documented status and fits its schema; and every route of the handler is documented.
 */
import { readFileSync } from 'node:fs';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { createNodeEngine, listenHttp } from 'scrim/node';
import { Graph } from 'scrim/onnx';
import { createInferenceServer, type InferenceServer, MemoryRepository } from 'scrim/server';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';

interface Reply {
  readonly $ref?: string;
  readonly headers?: Record<string, { readonly schema: object }>;
  readonly content?: Record<string, { readonly schema: object }>;
}
interface Operation {
  readonly operationId: string;
  readonly responses: Record<string, Reply>;
  readonly requestBody?: { readonly content: Record<string, { readonly schema: object }> };
}
interface Document {
  readonly paths: Record<string, { readonly get?: Operation; readonly post?: Operation }>;
  readonly components: { readonly responses: Record<string, Reply> };
}

const text = readFileSync(new URL('../docs/openapi.yaml', import.meta.url), 'utf8');
const document = parse(text, { merge: true }) as Document;
const operations = Object.entries(document.paths).flatMap(([path, { get, post }]) => [
  ...(get ? [{ path, method: 'GET', ...get }] : []),
  ...(post ? [{ path, method: 'POST', ...post }] : []),
]);
const ajv = new Ajv2020({ strict: false });
ajv.addSchema({ ...document, $id: 'api' } as object);
const validators = new Map<object, ValidateFunction>();
let server: InferenceServer;
let bare: InferenceServer;

function validatorOf(schema: object): ValidateFunction {
  let validate = validators.get(schema);
  if (!validate) {
    const absolute = JSON.stringify(schema).replaceAll('"#/', '"api#/');
    validate = ajv.compile(JSON.parse(absolute));
    validators.set(schema, validate);
  }
  return validate;
}

function repository(): MemoryRepository {
  const graph = Graph.create({ opset: 17 });
  graph.addInput('x', 'float32', ['n', 2]);
  graph.add('Neg', ['x'], {}, { outputs: ['y'] });
  graph.addOutput('y', 'float32', ['n', 2]);
  const file = graph.encode();
  return new MemoryRepository({ m: { '1/model.onnx': file }, broken: { '1/model.onnx': file.slice(0, 9) } });
}

beforeAll(async () => {
  const engineFactory = () => createNodeEngine({ threads: 1, thread: 'inline' });
  server = createInferenceServer({
    repository: repository(),
    engineFactory,
    controlMode: 'explicit',
    loadModels: ['m'],
  });
  await server.start();
  // Never started: what it answers is "not ready".
  bare = createInferenceServer({ repository: repository(), engineFactory });
});

afterAll(async () => {
  await server.close();
  await bare.close();
});

async function expectDocumented(operation: (typeof operations)[number], response: Response): Promise<unknown> {
  const where = `${operation.method} ${operation.path} ${response.status}`;
  const given = operation.responses[String(response.status)];
  expect(given, `${where} is documented`).toBeDefined();
  const name = given?.$ref?.split('/').at(-1);
  const reply = (name === undefined ? given : document.components.responses[name]) as Reply;
  for (const [header, { schema }] of Object.entries(reply.headers ?? {})) {
    const value = response.headers.get(header);
    if (value === null) continue;
    const validate = validatorOf(schema);
    expect(validate(/^\d+$/.test(value) ? Number(value) : value), `${where}: ${header}`).toBe(true);
  }
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (reply.content === undefined || (name === 'NoOrError' && bytes.length === 0)) {
    expect(bytes.length, where).toBe(0);
    return undefined;
  }
  const type = (response.headers.get('content-type') ?? '').split(';', 1)[0] as string;
  expect(Object.keys(reply.content), where).toContain(type);
  if (type !== 'application/json') return bytes;
  const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
  const validate = validatorOf((reply.content[type] as { schema: object }).schema);
  expect(validate(value), `${where}: ${JSON.stringify(validate.errors)}`).toBe(true);
  return value;
}

const BODIES: Record<string, (string | undefined)[]> = {
  infer: [
    '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
    '{"id":"7","parameters":{"priority":0,"timeout":1000000},"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4]]}],"outputs":[{"name":"y","parameters":{"classification":1}}]}',
    '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"parameters":{"binary_data_output":true}}',
    '{"inputs":[{"name":"x","shape":[1,9],"datatype":"FP32","data":[1,2]}]}',
    '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}',
    '{]',
    undefined,
  ],
  repositoryIndex: [undefined, '{"ready":true}', '{"ready":3}'],
  loadModel: [
    undefined,
    '{"parameters":{"config":"{\\"platform\\":\\"tensorrt_plan\\"}"}}',
    '{"parameters":{"x":"y"}}',
  ],
  unloadModel: ['{"parameters":{"unload_dependents":3}}', undefined],
};
BODIES.inferVersion = BODIES.infer as string[];

describe('docs/openapi.yaml', () => {
  it.each(operations)('$method $path answers as documented', async (operation) => {
    const { path, method, operationId } = operation;
    const models = path.includes('{model}') ? ['m', 'nothing', 'broken', '%zz'] : [''];
    const versions = path.includes('{version}') ? ['1', '9', 'x'] : [''];
    const bodies = method === 'POST' ? (BODIES[operationId] ?? [undefined]) : [undefined];
    const seen = new Set<number>();
    for (const model of models) {
      for (const version of versions) {
        const url = `http://s${path.replace('{model}', model).replace('{version}', version)}`;
        for (const body of bodies) {
          for (const target of [server, bare]) {
            const init = { method, ...(body === undefined ? {} : { body }) };
            const response = await target.handle(new Request(url, init));
            seen.add(response.status);
            await expectDocumented(operation, response);
          }
        }
        const wrong = await server.handle(new Request(url, { method: method === 'GET' ? 'POST' : 'DELETE' }));
        if (wrong.status === 405) await expectDocumented(operation, wrong);
      }
    }
    if (operationId === 'unloadModel') await server.load('m');
    expect([...seen].some((status) => status === 200 || status === 501)).toBe(true);
  });

  it('describes the requests that the handler takes', () => {
    const schemas = new Map(operations.map(({ operationId, requestBody }) => [operationId, requestBody?.content]));
    const validate = (id: string, body: string): boolean =>
      validatorOf(schemas.get(id)?.['application/json']?.schema ?? {})(JSON.parse(body)) === true;
    for (const body of (BODIES.infer as string[]).slice(0, 3)) expect(validate('infer', body)).toBe(true);
    expect(validate('repositoryIndex', '{"ready":3}')).toBe(false);
    expect(validate('loadModel', '{"parameters":{"x":"y"}}')).toBe(false);
  });

  it('says what a listener answers to those without a token', async () => {
    const listener = await listenHttp({ port: 0, answer: (call) => server.answer(call), tokens: ['t'] });
    for (const operation of operations) {
      const path = operation.path.replace('{model}', 'm').replace('{version}', '1');
      const response = await fetch(`${listener.url}${path}`, { method: operation.method });
      if (path.startsWith('/v2/health')) expect(response.status).not.toBe(401);
      else expect(response.status).toBe(401);
      await expectDocumented(operation, response);
    }
    await listener.close(100);
  });

  it('has every route of the handler', () => {
    const source = readFileSync(new URL('../packages/scrim/src/server/http-handler.ts', import.meta.url), 'utf8');
    const literal = [...source.matchAll(/case '(\/[^']+)'/g)].map(([, path]) => path as string);
    const actions = [...source.matchAll(/case '([a-z_]+)':/g)].map(([, action]) => action as string);
    expect(literal.length).toBeGreaterThanOrEqual(5);
    expect(actions).toContain('infer');
    for (const path of literal) expect(Object.keys(document.paths)).toContain(path);
    for (const action of actions) expect(Object.keys(document.paths)).toContain(`/v2/models/{model}/${action}`);
  });
});
