import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import * as fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { HttpTransport, TransportRequest, TransportResponse } from '../client/http-transport.js';
import { createHttpAgent, type HttpAgentOptions } from './http-agent.js';
import { AnswerReader } from './http-answer-reader.js';
import { ConnectionPool } from './http-connection.js';

const ending: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end();
});

interface Peer {
  readonly url: string;
  /** Sockets of the connections that were made. */
  readonly sockets: readonly Socket[];
  /** All that came, of all connections. */
  readonly received: () => string;
}

/** A server that does with each request (what comes until its announced end) what `answer` says. */
async function peer(answer: (socket: Socket, count: number) => void): Promise<Peer> {
  const sockets: Socket[] = [];
  let received = '';
  let count = 0;
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    let text = '';
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      received += bytes.toString('latin1');
      for (;;) {
        const head = text.indexOf('\r\n\r\n');
        const length = Number(/\r\ncontent-length: (\d+)/.exec(text)?.[1] ?? 0);
        if (head === -1 || text.length < head + 4 + length) return;
        text = text.slice(head + 4 + length);
        answer(socket, count++);
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  ending.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/v2`, sockets, received: () => received };
}

function agent(options?: HttpAgentOptions): HttpTransport {
  const made = createHttpAgent(options);
  ending.push(() => made.close());
  return made;
}

function ask(transport: HttpTransport, url: string, more: Partial<TransportRequest> = {}): Promise<TransportResponse> {
  const { signal = new AbortController().signal } = more;
  return transport.exchange({ method: 'GET', url, headers: {}, maxBytes: 2 ** 24, ...more, signal });
}

const ok = (body: string, headers = ''): string =>
  `HTTP/1.1 200 OK\r\n${headers}content-length: ${body.length}\r\n\r\n${body}`;
const text = ({ body }: { readonly body: Uint8Array }): string => Buffer.from(body).toString('latin1');

describe('an agent', () => {
  it('sends line, headers and parts, and uses a connection again', async () => {
    const { url, sockets, received } = await peer((socket, count) => socket.write(ok(`answer ${count}`)));
    const transport = agent();
    const body = [Buffer.from('ab'), Buffer.alloc(0), Buffer.from('c')];
    expect(text(await ask(transport, `${url}/x?y=z`, { method: 'POST', headers: { 'x-one': 'ü' }, body }))).toBe(
      'answer 0',
    );
    expect(text(await ask(transport, url))).toBe('answer 1');
    const large = [Buffer.alloc(2 ** 14, 1), Buffer.alloc(2 ** 20, 2)];
    expect(text(await ask(transport, url, { method: 'POST', body: large }))).toBe('answer 2');
    expect(sockets.length).toBe(1);
    const { host } = new URL(url);
    expect(received()).toBe(
      `POST /v2/x?y=z HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\nx-one: \xfc\r\ncontent-length: 3\r\n\r\nabc` +
        `GET /v2 HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\n\r\n` +
        `POST /v2 HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\ncontent-length: ${2 ** 14 + 2 ** 20}\r\n\r\n` +
        Buffer.concat(large).toString('latin1'),
    );
  });

  it('gives every answer memory of its own', async () => {
    const bodies = [0, 1, 2].map((n) => Buffer.alloc(3_000_000 + n, n + 1));
    const { url } = await peer((socket, count) => {
      socket.write(ok('', '').replace('content-length: 0', `content-length: ${bodies[count]?.length}`));
      socket.write(bodies[count] as Buffer);
    });
    const transport = agent();
    const answers: Uint8Array[] = [];
    for (let n = 0; n < 3; n++) answers.push((await ask(transport, url)).body);
    for (const [n, body] of answers.entries()) {
      expect(Buffer.compare(body, bodies[n] as Buffer)).toBe(0);
      expect(body.byteLength).toBe(body.buffer.byteLength);
    }
  });

  it('makes a new connection where the old one is to end, and gives up none too early', async () => {
    const answers = [
      ok('close', 'Connection: close\r\n'),
      'HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold',
      ok('soon', 'keep-alive: timeout=1\r\n'),
      `${ok('more')}HTTP`,
      ok('kept', 'keep-alive: timeout=5, max=100\r\n'),
      ok('last'),
    ];
    const { url, sockets } = await peer((socket, count) => socket.write(answers[count] as string));
    const transport = agent();
    const given: string[] = [];
    for (const _ of answers) given.push(text(await ask(transport, url)));
    expect(given).toEqual(['close', 'old', 'soon', 'more', 'kept', 'last']);
    expect(sockets.length).toBe(5);
  });

  it('drops a connection that says something unasked', async () => {
    const { url, sockets } = await peer((socket, count) => socket.write(ok(`answer ${count}`)));
    const transport = agent();
    await ask(transport, url);
    sockets[0]?.write(ok('forged'));
    await once(sockets[0] as Socket, 'close');
    expect(text(await ask(transport, url))).toBe('answer 1');
  });

  it('waits for a connection when it may make no more, in the order of the calls', async () => {
    const { url, sockets } = await peer((socket, count) => {
      setTimeout(() => socket.write(ok(`answer ${count}`, count === 1 ? 'connection: close\r\n' : '')), 10);
    });
    const transport = agent({ maxConnections: 1 });
    const controller = new AbortController();
    const first = ask(transport, url);
    const given = ask(transport, url, { signal: controller.signal });
    const rest = [1, 2, 3].map(() => ask(transport, url));
    controller.abort();
    await expect(given).rejects.toMatchObject({ code: 'CANCELLED' });
    const answers = await Promise.all([first, ...rest]);
    expect(answers.map(text)).toEqual([0, 1, 2, 3].map((n) => `answer ${n}`));
    expect(sockets.length).toBe(2);
    expect(() => createHttpAgent({ maxConnections: 0 })).toThrowError(/maxConnections is 0/);
  });

  it('ends a connection whose exchange was cancelled, or answered before the request was sent', async () => {
    const { url, sockets } = await peer((socket, count) => count > 0 && socket.write(ok(`answer ${count}`)));
    const transport = agent();
    const controller = new AbortController();
    const call = ask(transport, url, { signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    await expect(call).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(text(await ask(transport, url))).toBe('answer 1');
    expect(sockets.length).toBe(2);

    const early = createServer((socket) => {
      socket.on('error', () => {});
      socket.write('HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge');
      socket.pause();
      ending.push(() => void socket.destroy());
    });
    early.listen(0, '127.0.0.1');
    await once(early, 'listening');
    ending.push(() => void early.close());
    const { port } = early.address() as AddressInfo;
    const body = [new Uint8Array(2 ** 26)];
    const accepted = once(early, 'connection') as Promise<[Socket]>;
    const answer = await ask(transport, `http://127.0.0.1:${port}`, { method: 'POST', body });
    expect(answer.status).toBe(413);
    const [socket] = await accepted;
    socket.resume();
    await once(socket, 'close');
    expect(socket.bytesRead).toBeLessThan(2 ** 26);
  });

  it('says what went wrong', async () => {
    const answers: Record<string, string> = {
      garbage: 'SSH-2.0-OpenSSH\r\n\r\n',
      nothing: '',
      'half a head': 'HTTP/1.1 200 OK\r\ncontent-le',
      'half a body': 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal',
      'half a chunk': 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal',
      'announced too long': 'HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n',
      'too long': `HTTP/1.1 200 OK\r\n\r\n${'x'.repeat(2000)}`,
      'a chunk too long': 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\n',
      'two lengths': 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n',
      'two framings': 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n',
      'an unknown coding': 'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n',
      'a folded header': 'HTTP/1.1 200 OK\r\na: b\r\n c: d\r\n\r\n',
      'a header without a name': 'HTTP/1.1 200 OK\r\n: b\r\n\r\n',
      'a bare line feed': 'HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n',
      'a wrong chunk': 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n',
      'no chunk size': 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-3\r\n',
      'another protocol': 'HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n',
      'an endless head': `HTTP/1.1 200 OK\r\na: ${'b'.repeat(2 ** 15)}`,
    };
    const found: Record<string, string> = {};
    for (const [name, answer] of Object.entries(answers)) {
      const { url } = await peer((socket) => socket.end(answer));
      await ask(agent(), url, { maxBytes: 1000 }).catch(({ code }) => {
        found[name] = code;
      });
    }
    expect(found).toEqual({
      ...Object.fromEntries(Object.keys(answers).map((name) => [name, 'INVALID_DATA'])),
      nothing: 'UNAVAILABLE',
      'half a head': 'UNAVAILABLE',
      'half a body': 'UNAVAILABLE',
      'half a chunk': 'UNAVAILABLE',
      'announced too long': 'LIMIT_EXCEEDED',
      'too long': 'LIMIT_EXCEEDED',
      'a chunk too long': 'LIMIT_EXCEEDED',
    });
  });

  it('refuses headers that would be more than one, or that are its own', async () => {
    const { url, sockets } = await peer((socket) => socket.write(ok('')));
    for (const headers of [
      { 'x-a': 'b\r\nx-c: d' },
      { 'x-a\r\nx-c': 'd' },
      { 'transfer-encoding': 'chunked' },
      { 'content-length': '7' },
    ]) {
      await expect(ask(agent(), url, { headers } as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect(sockets.length).toBe(0);
  });

  it('ends what is under way when it is closed, and does nothing afterwards', async () => {
    const { url } = await peer(() => {});
    const transport = agent({ maxConnections: 1 });
    const calls = [ask(transport, url), ask(transport, url)];
    setTimeout(() => void transport.close(), 20);
    for (const call of calls) await expect(call).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(ask(transport, url)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});

describe('connections', () => {
  it('read whole answers where the runtime does not read into given memory, as Deno and Bun', async () => {
    const large = Buffer.from(Float64Array.from({ length: 400_000 }, (_, i) => i).buffer);
    const answers = [ok('one'), ok('').replace(' 0\r', ` ${large.length}\r`), ok('three'), ok('four').slice(0, -1)];
    const { url, sockets } = await peer((socket, count) => {
      socket.write(answers[count] as string);
      if (count === 1) socket.write(large);
      if (count === 3) socket.end();
    });
    const { port } = new URL(url);
    const pool = new ConnectionPool(() => connect(Number(port), '127.0.0.1'), 1, false);
    ending.push(() => pool.close());
    const head = Buffer.from('GET / HTTP/1.1\r\n\r\n');
    const exchange = (): Promise<AnswerReader> =>
      pool.exchange({ head, body: [], signal: new AbortController().signal, maxBytes: 2 ** 24 });
    const [first, second, third] = [await exchange(), await exchange(), await exchange()];
    expect([text(first), text(third)]).toEqual(['one', 'three']);
    expect(Buffer.compare(second.body, large)).toBe(0);
    expect(sockets.length).toBe(1);
    await expect(exchange()).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringMatching(/broke off/),
    });
  });
});

describe('an answer', () => {
  /** The answer in `bytes`, given in pieces, read in place where the reader offers space. */
  function readPieces(bytes: Buffer, cuts: readonly number[]): { reader: AnswerReader; used: number } {
    const reader = new AnswerReader(2 ** 20);
    const scratch = Buffer.alloc(100);
    let used = 0;
    const places = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
    for (const place of places) {
      while (used < place && !reader.isWhole) {
        const into = reader.space ?? scratch;
        const size = Math.min(place - used, into.length);
        into.set(bytes.subarray(used, used + size));
        used += reader.push(into.subarray(0, size));
        scratch.fill(0);
      }
    }
    return { reader, used };
  }

  it.each([
    ['a length', 'HTTP/1.1 200 OK\r\nContent-Length: 300\r\nA: b\r\na:c\r\n\r\n', 'x'.repeat(300), ''],
    [
      'chunks',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\na: b, c\r\n\r\n',
      'x'.repeat(300),
      (body: string) =>
        `${[body.slice(0, 1), body.slice(1, 200), body.slice(200)].map((part) => `${part.length.toString(16)};e=f\r\n${part}\r\n`).join('')}0\r\nt: u\r\n\r\n`,
    ],
    [
      'words before it',
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nl: m\r\n\r\nHTTP/1.1 200\r\na: b, c\r\ncontent-length: 2\r\n\r\n',
      'xy',
      '',
    ],
    ['no body', 'HTTP/1.1 204 No Content\r\na: b, c\r\ncontent-length: 0\r\n\r\n', '', ''],
  ])('with %s is the same in whatever pieces it comes', (_, head, body, framed) => {
    const sent = typeof framed === 'string' ? body : framed(body);
    const next = 'HTTP/1.1 500 no\r\n';
    const bytes = Buffer.from(`${head}${sent}${next}`, 'latin1');
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 40 }), (cuts) => {
        const { reader, used } = readPieces(bytes, cuts);
        expect(reader.isWhole).toBe(true);
        expect(used).toBe(bytes.length - next.length);
        expect(text(reader)).toBe(body);
        expect(reader.header('a')).toBe('b, c');
        expect(reader.keepsAlive).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  it('without a length ends with the connection', () => {
    const { reader } = readPieces(Buffer.from('HTTP/1.1 200 OK\r\n\r\nsome'), [20, 21]);
    expect(reader.isWhole).toBe(false);
    reader.end();
    expect([reader.isWhole, reader.keepsAlive, text(reader)]).toEqual([true, false, 'some']);
  });

  it('takes memory as bytes come, not as they are announced', () => {
    const reader = new AnswerReader(2 ** 40);
    reader.push(Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${2 ** 39}\r\n\r\n`));
    reader.push(new Uint8Array(1000));
    expect(reader.space?.length).toBe(15_000);
  });

  it('fails with an error of this project, whatever comes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary-ascii', maxLength: 60 }), fc.boolean(), (some, isHead) => {
        const reader = new AnswerReader(100);
        try {
          reader.push(Buffer.from(isHead ? some : `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${some}`));
          reader.end();
        } catch (error) {
          expect(error).toMatchObject({ name: 'ScrimError' });
        }
      }),
      { numRuns: 500 },
    );
  });
});
