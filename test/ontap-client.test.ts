/** Requests to ONTAP: the certificate comes before the password, jobs are awaited, refusals keep ONTAP's words. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { flexCacheBody } from '../packages/dataops/src/manifests/flexcache.js';
import { OntapClient, type OntapConnectOptions } from '../packages/dataops/src/ontap/client.js';
import { type OntapServer, startOntapServer } from './ontap-server.js';

const FLEXCACHES = '/api/storage/flexcache/flexcaches';
const { signal } = new AbortController();
let server: OntapServer;

beforeAll(async () => {
  server = await startOntapServer();
});
afterAll(() => server?.close());

async function using<R>(more: Partial<OntapConnectOptions>, task: (client: OntapClient) => Promise<R>): Promise<R> {
  const { host, username, password } = server;
  const client = new OntapClient({ host, username, password, ...more });
  try {
    return await task(client);
  } finally {
    client.close();
  }
}
const list = (client: OntapClient) => client.find(FLEXCACHES, { name: 'none' }, 'path', signal);
const cache = (name: string) => ({
  name,
  svm: 'svm1',
  sourceSvm: 'svm-origin',
  sourceVolume: 'origin1',
  junction: `/${name}`,
  bytes: 50 * 2 ** 30,
});

describe('the certificate', () => {
  it('is trusted by fingerprint, with and without colons', async () => {
    const colons = server.fingerprint.toUpperCase().replace(/(..)(?=.)/g, '$1:');
    for (const fingerprint of [server.fingerprint, colons]) {
      expect(await using({ fingerprint }, list)).toBeUndefined();
    }
  });

  it('is trusted by its CA, for the name it is issued for', async () => {
    const ca = server.certificate;
    expect(await using({ ca, serverName: 'storage.example.com' }, list)).toBeUndefined();
    await expect(using({ ca }, list)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
      details: { reason: 'CertificateRefused' },
    });
  });

  it('that nobody vouches for ends the call before anything is sent', async () => {
    const before = server.requests.length;
    await expect(using({}, list)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    await expect(using({ fingerprint: 'ab'.repeat(32) }, list)).rejects.toThrow(/expected AB:AB.*nothing was sent/);
    expect(server.requests).toHaveLength(before);
  });
});

describe('requests', () => {
  it('make a FlexCache and wait for its job', async () => {
    await using({ fingerprint: server.fingerprint }, async (client) => {
      await client.run({ method: 'POST', path: FLEXCACHES, body: flexCacheBody(cache('one')) }, 'creating', signal);
      expect(server.volumes.find(({ name }) => name === 'one')).toMatchObject({ path: '/one', size: 50 * 2 ** 30 });
      const found = await client.find(FLEXCACHES, { name: 'one', 'svm.name': 'svm1' }, 'path', signal);
      const path = `${FLEXCACHES}/${found?.uuid}`;
      await expect(client.run({ method: 'DELETE', path }, 'deleting', signal)).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: 'ONTAP: FlexCache volume is not unmounted',
        details: { ontapCode: '524546' },
      });
    });
  });

  it('report a job that fails, a refusal and a wrong password in the words of ONTAP', async () => {
    await using({ fingerprint: server.fingerprint }, async (client) => {
      const request = { method: 'POST', path: FLEXCACHES, body: flexCacheBody(cache('two')) } as const;
      server.failNextJob('no aggregate has 50 GB free');
      await expect(client.run(request, 'creating the FlexCache', signal)).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        message: 'ONTAP: creating the FlexCache failed: no aggregate has 50 GB free',
      });
      const wrong = { ...request, body: flexCacheBody({ ...cache('two'), sourceVolume: 'no' }) };
      await expect(client.run(wrong, 'creating', signal)).rejects.toThrow(
        'origin volume "svm-origin:no" does not exist',
      );
    });
    const denied = using({ fingerprint: server.fingerprint, password: 'guess' }, list);
    await expect(denied).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    await expect(denied).rejects.not.toThrow(/guess/);
  });

  it('end with the signal, and say so when nobody answers', async () => {
    const stop = new AbortController();
    stop.abort();
    await using({ fingerprint: server.fingerprint }, async (client) => {
      await expect(client.send({ method: 'GET', path: FLEXCACHES }, stop.signal)).rejects.toMatchObject({
        code: 'CANCELLED',
      });
    });
    await expect(using({ host: '127.0.0.1:1', fingerprint: server.fingerprint }, list)).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
  });

  it('are refused before they are sent where the arguments can not be right', () => {
    const right = { host: 'h', username: 'u', password: 'p' };
    for (const wrong of [
      { host: 'https://h' },
      { password: '' },
      { ca: 'not PEM' },
      { fingerprint: 'ab' },
      { ca: server.certificate, fingerprint: server.fingerprint },
    ]) {
      expect(() => new OntapClient({ ...right, ...wrong })).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
      );
    }
  });

  it('that the published description does not know are refused by the test server', async () => {
    await using({ fingerprint: server.fingerprint }, async (client) => {
      const post = (body: object) => client.send({ method: 'POST', path: FLEXCACHES, body }, signal);
      await expect(post({ ...flexCacheBody(cache('x')), junction: '/x' })).rejects.toThrow(
        'unexpected argument "junction"',
      );
      await expect(post({ ...flexCacheBody(cache('x')), size: '50Gi' })).rejects.toThrow('expected integer');
      await expect(post({ name: 'x' })).rejects.toThrow('missing required property "origins[].volume.name"');
      await expect(client.find(FLEXCACHES, {}, 'colour', signal)).rejects.toThrow('"colour" is invalid');
      await expect(client.send({ method: 'GET', path: '/api/nothing' }, signal)).rejects.toMatchObject({
        code: 'NOT_FOUND',
      });
    });
  });
});
