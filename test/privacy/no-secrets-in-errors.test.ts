/**
 * Messages, details, causes and logs never carry tensor values, pixels, keys, seeds, tokens or subjects.
 *
 * Failures are provoked all along the path of the data with marked values; everything an error or a log shows is then
 * searched for the marks in the forms they could take: decimal, hexadecimal, base64 and raw.
 */
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { float32, ScrimError, type Tensor } from 'scrim';
import { certifyBundle } from 'scrim/certify';
import { createConfidentialSession, createTritonClient } from 'scrim/client';
import { createNodeCrypto, createNodeEngine, createServerLog, listenHttp, openLedger } from 'scrim/node';
import { createDiagonalTransform, createNoiser, createReplayNoiser } from 'scrim/noise';
import { createInferenceServer, MemoryRepository } from 'scrim/server';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type MarkedBundle, makeMarkedBundle } from './marked-bundle.js';

/** A value nobody would write by chance; float32 shows it as 7313.13720703125. */
const MARK = 7313.1372;
const TOKEN = 'token-4f1c9be27a';
const SUBJECT = 'subject-9d31aa70';
const SECRET = new Uint8Array(32).map((_, i) => (i * 37 + 11) % 256);
const crypto = createNodeCrypto();

let folder: string;
let marked: MarkedBundle;
let engine: Awaited<ReturnType<typeof createNodeEngine>>;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'scrim-privacy-'));
  engine = await createNodeEngine({ threads: 1 });
  marked = await makeMarkedBundle(crypto);
});
afterAll(async () => {
  await engine.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Every form in which a mark could show. */
function formsOf(): string[] {
  const bits = Buffer.from(Float32Array.of(MARK).buffer);
  const secret = Buffer.from(SECRET);
  return [
    '7313.1',
    '7313,1',
    '7.313',
    bits.toString('hex'),
    bits.toString('base64').slice(0, 5),
    Buffer.concat([bits, bits, bits]).toString('base64').slice(0, 14),
    secret.toString('hex').slice(0, 16),
    secret.toString('base64').slice(0, 12),
    secret.subarray(0, 8).join(','),
    secret.subarray(0, 8).join(', '),
    TOKEN,
    SUBJECT,
  ];
}

function expectClean(text: string): void {
  for (const form of formsOf()) expect(text, `'${form}' shows in: ${text.slice(0, 300)}`).not.toContain(form);
}

/** Runs something that must fail with a ScrimError, and looks at all that the error shows, its causes included. */
async function expectCleanFailure(what: string, work: () => unknown): Promise<ScrimError> {
  let failure: unknown;
  try {
    await work();
  } catch (error) {
    failure = error;
  }
  expect(failure, `${what} did not fail`).toBeInstanceOf(ScrimError);
  for (let error: unknown = failure; error !== undefined; error = (error as Error).cause) {
    if (!(error instanceof Error)) break;
    expectClean(error.message);
    expectClean(JSON.stringify((error as ScrimError).details ?? {}));
    expectClean(inspect(error, { depth: 6, maxArrayLength: 1000 }));
  }
  return failure as ScrimError;
}

/** An input or activation full of marks, with `edit` applied. */
function tensorOf(shape: readonly number[], edit: (data: Float32Array) => void = () => {}): Tensor<'float32'> {
  const data = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(MARK);
  edit(data);
  return float32(shape, data);
}

describe('what failures show', () => {
  it('the form of a mark is found where it stands', () => {
    expect(() => expectClean(`value ${Math.fround(MARK)}`)).toThrow();
    expect(() => expectClean(inspect(Float32Array.of(MARK)))).toThrow();
    expect(() => expectClean(Buffer.from(SECRET).toString('hex'))).toThrow();
    expect(() => expectClean(JSON.stringify([...SECRET]))).toThrow();
  });

  it('noise: activations that do not fit, hold NaN, or meet a broken keystream', async () => {
    const transform = createDiagonalTransform(marked.parameters);
    const options = { transform, bundleHash: 'ab'.repeat(32), alpha: 0.5, crypto };
    const noiser = createNoiser({ ...options, mode: 'repeatable', secret: SECRET });
    const withNaN = tensorOf([1, 3, 2, 2], (data) => {
      data[5] = Number.NaN;
    });
    await expectCleanFailure('NaN', () => noiser.release(withNaN, new Uint8Array(8).fill(0x99)));
    await expectCleanFailure('shape', () => noiser.release(tensorOf([1, 4, 2, 2]), SECRET));
    await expectCleanFailure('no canonical input', () => noiser.release(tensorOf([1, 3, 2, 2])));
    await expectCleanFailure('batch', () => noiser.releaseBatch(tensorOf([2, 3, 2, 2]), [SECRET]));
    noiser.close();
    await expectCleanFailure('closed', () => noiser.release(tensorOf([1, 3, 2, 2]), SECRET));
    await expectCleanFailure('short secret', () =>
      createNoiser({ ...options, mode: 'repeatable', secret: SECRET.subarray(0, 31) }),
    );
    await expectCleanFailure('short seed', () => createReplayNoiser({ ...options, seedKey: SECRET.subarray(0, 8) }));
    const broken = {
      ...crypto,
      aes256Ctr: () => {
        throw new Error('the keystream is broken');
      },
    };
    await expectCleanFailure('broken keystream', async () => {
      const failing = createNoiser({ ...options, crypto: broken, mode: 'fresh' });
      await failing.release(tensorOf([1, 3, 2, 2]));
    });
  });

  it('engine: inputs of the wrong kind', async () => {
    const session = await engine.load(marked.head);
    await expectCleanFailure('shape', () => session.run({ image: tensorOf([1, 2, 4, 4]) }));
    await expectCleanFailure('name', () => session.run({ picture: tensorOf([1, 3, 4, 4]) }));
    await expectCleanFailure('type', () =>
      session.run({ image: { dtype: 'float64', shape: [1, 3, 4, 4], data: new Float64Array(48).fill(MARK) } }),
    );
    await session.close();
  });

  it('session, server and their log: requests that are refused, and a tail that fails', async () => {
    const fd = openSync(join(folder, 'server.log'), 'a');
    const log = createServerLog({ fd });
    const server = createInferenceServer({
      repository: new MemoryRepository({ [marked.model]: marked.remoteFiles }),
      engineFactory: () => createNodeEngine({ threads: 1 }),
      onEvent: (event) => log.onEvent(event),
    });
    await server.start();
    const listener = await listenHttp({
      port: 0,
      tokens: [TOKEN],
      answer: (call) => server.answer(call),
      onAccess: (record) => log.onAccess(record),
    });
    const client = createTritonClient({ url: listener.url, bearerToken: TOKEN, retry: { retries: 0 } });
    const stranger = createTritonClient({ url: listener.url, bearerToken: `${TOKEN}x`, retry: { retries: 0 } });
    const { bundle } = marked;
    const session = await createConfidentialSession({
      bundle,
      client,
      engine,
      crypto,
      payload: 'fp32',
      noise: { mode: 'repeatable', secret: SECRET },
    });
    await session.infer(tensorOf([1, 3, 4, 4]));
    await expectCleanFailure('rank', () => session.infer(tensorOf([3, 4, 4])));
    await expectCleanFailure('name', () => session.infer({ picture: tensorOf([1, 3, 4, 4]) }));
    await expectCleanFailure('NaN', () =>
      session.infer(
        tensorOf([1, 3, 4, 4], (data) => {
          data[0] = Number.NaN;
        }),
      ),
    );
    await expectCleanFailure('no release', () => session.send(tensorOf([1, 3, 4, 4]) as never));
    await expectCleanFailure('token', () => stranger.modelMetadata(marked.model));
    const wrong = [tensorOf([1, 5, 4, 4]), tensorOf([9, 3, 4, 4])];
    for (const tensor of wrong) {
      await expectCleanFailure('request', () =>
        client.infer({ modelName: marked.model, inputs: [{ name: 'INPUT__0', tensor }] }),
      );
    }
    const numbers = new Array<string>(47).fill(String(MARK)).join(',');
    const body = `{"inputs":[{"name":"INPUT__0","datatype":"FP32","shape":[1,3,4,4],"data":[${numbers},"x"]}]}`;
    const answer = await fetch(`${listener.url}/v2/models/${marked.model}/infer`, {
      method: 'POST',
      headers: { authorization: `Bearer ${TOKEN}` },
      body,
    });
    expect(answer.status).toBe(400);
    expectClean(await answer.text());
    await session.close();
    await listener.close(500);
    await server.close();
    log.flush();
    const written = readFileSync(join(folder, 'server.log'), 'utf8');
    expect(written.split('\n').length).toBeGreaterThan(4);
    expectClean(written);
  });

  it('ledger: refusals and wrong secrets', async () => {
    const file = join(folder, 'releases.db');
    const ledger = await openLedger({ file });
    ledger.setPolicy({ maxReleases: 1, maxNats: 5 });
    const charge = { subject: SUBJECT, nats: 4, bundleHash: 'ab'.repeat(32), alpha: 0.5, keyId: 'k1' };
    ledger.charge([charge]);
    await expectCleanFailure('spent', () => ledger.charge([{ ...charge, keyId: 'k2' }]));
    await expectCleanFailure('nats', () => ledger.charge([{ ...charge, nats: Number.NaN }]));
    await expectCleanFailure('length', () => ledger.charge([{ ...charge, subject: SUBJECT.repeat(50) }]));
    expectClean(JSON.stringify(ledger.report()));
    ledger.close();
    await expectCleanFailure('closed', () => ledger.charge([{ ...charge, keyId: 'k3' }]));
  });

  it('certify: inputs that do not fit', async () => {
    async function* inputs(): AsyncGenerator<Tensor> {
      yield tensorOf([1, 3, 4, 4]);
      yield tensorOf([1, 3, 8, 4]);
    }
    const { bundle } = marked;
    await expectCleanFailure('sizes', () =>
      certifyBundle({ bundle, engine, inputs: inputs(), count: 6, data: 'marks', releases: 1 }),
    );
  });
});
