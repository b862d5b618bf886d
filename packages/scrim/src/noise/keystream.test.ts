import { createHash, createHmac, hkdfSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { createNodeCrypto } from '../node/node-crypto.js';
import { createFreshKeys, createRepeatableKeys, createReplayKeys, ReleaseKey } from './keystream.js';
import type { NoiseCrypto } from './noise-crypto.js';

const crypto = createNodeCrypto();
const bundle = 'ab'.repeat(32);
const other = 'cd'.repeat(32);
const shape = [128, 34, 60];
const secret = new Uint8Array(32).map((_, i) => i + 1);
const photo = new Uint8Array(100).fill(9);

async function bytesOf(key: ReleaseKey, length = 64): Promise<string> {
  const out = new Uint8Array(length);
  await key.fill(out);
  return Buffer.from(out).toString('hex');
}

describe('fresh keys', () => {
  it('differ for each release and each session, in id and in keystream', async () => {
    const seen = new Set<string>();
    for (let session = 0; session < 3; session++) {
      const keys = createFreshKeys(crypto, bundle);
      for (let release = 0; release < 5; release++) {
        const key = await keys.next(shape);
        expect(key.id).toMatch(/^[0-9a-f]{32}$/);
        seen.add(key.id).add(await bytesOf(key));
      }
    }
    expect(seen.size).toBe(30);
  });

  it('are counted before anything waits, so that releases at the same time never share one', async () => {
    const keys = createFreshKeys(crypto, bundle);
    const ids = (await Promise.all(Array.from({ length: 50 }, () => keys.next(shape)))).map(({ id }) => id);
    expect(new Set(ids).size).toBe(50);
  });

  it.each([
    ['zeros', () => new Uint8Array(32)],
    ['too few bytes', () => new Uint8Array([1, 2, 3])],
    [
      'an error',
      () => {
        throw new Error('no entropy');
      },
    ],
  ])('are refused where the random source gives %s', (_, randomBytes) => {
    expect(() => createFreshKeys({ ...crypto, randomBytes }, bundle)).toThrow(
      expect.objectContaining({ code: 'NOISE_FAILED' }),
    );
  });

  it('are not given by a provider that fails its self-test', async () => {
    const broken: NoiseCrypto = { ...crypto, hmacSha256: () => new Uint8Array(32) };
    await expect(createFreshKeys(broken, bundle).next(shape)).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });

  it('end with close', async () => {
    const keys = createFreshKeys(crypto, bundle);
    keys.close();
    await expect(keys.next(shape)).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });
});

describe('replay keys', () => {
  it('follow the written derivation: HKDF of the seed, the label, the bundle and the number of the release', async () => {
    const keys = createReplayKeys(crypto, bundle, secret);
    await keys.next(shape);
    const key = await keys.next(shape);
    const info = Buffer.concat([
      Buffer.from('scrim release key v1 counted'),
      Buffer.from(bundle, 'hex'),
      Buffer.from('0000000000000001', 'hex'),
    ]);
    const output = Buffer.from(hkdfSync('sha256', secret, new Uint8Array(0), info, 48));
    expect(key.id).toBe(output.subarray(32).toString('hex'));
    const expected = new Uint8Array(64);
    crypto.aes256Ctr(output.subarray(0, 32), new Uint8Array(16)).fill(expected);
    expect(await bytesOf(key)).toBe(Buffer.from(expected).toString('hex'));
  });

  it('depend on the bundle', async () => {
    const [a, b] = [createReplayKeys(crypto, bundle, secret), createReplayKeys(crypto, other, secret)];
    expect(await bytesOf(await a.next(shape))).not.toBe(await bytesOf(await b.next(shape)));
  });

  it('refuse a seed or a hash of another length', () => {
    expect(() => createReplayKeys(crypto, bundle, new Uint8Array(31))).toThrow('31 bytes');
    expect(() => createReplayKeys(crypto, 'abc', secret)).toThrow('bundleHash');
  });
});

describe('repeatable keys', () => {
  const first = async (of: Parameters<typeof createRepeatableKeys>, input: Uint8Array, size = shape): Promise<string> =>
    bytesOf(await createRepeatableKeys(...of).next(size, input));

  it('follow the written derivation', async () => {
    const digest = createHash('sha256').update(photo).digest();
    const dimensions = Buffer.from('00000080000000220000003c', 'hex');
    const message = Buffer.concat([digest, Buffer.from(bundle, 'hex'), dimensions]);
    const own = createHmac('sha256', secret).update(message).digest();
    const info = Buffer.concat([Buffer.from('scrim release key v1 repeatable'), Buffer.from(bundle, 'hex')]);
    const output = Buffer.from(hkdfSync('sha256', own, new Uint8Array(0), info, 48));
    const key = await createRepeatableKeys(crypto, bundle, secret).next(shape, photo);
    expect(key.id).toBe(output.subarray(32).toString('hex'));
  });

  it('are the same for the same input, in this session and the next', async () => {
    const keys = createRepeatableKeys(crypto, bundle, secret);
    const one = await bytesOf(await keys.next(shape, photo));
    expect(await bytesOf(await keys.next(shape, photo))).toBe(one);
    expect(await first([crypto, bundle, secret], photo)).toBe(one);
  });

  it('differ with the input, the bundle, the secret and the shape', async () => {
    const changed = photo.slice();
    changed[50] = 8;
    const streams = await Promise.all([
      first([crypto, bundle, secret], photo),
      first([crypto, bundle, secret], changed),
      first([crypto, other, secret], photo),
      first([crypto, bundle, secret.map((byte) => byte ^ 1)], photo),
      first([crypto, bundle, secret], photo, [128, 60, 34]),
    ]);
    expect(new Set(streams).size).toBe(5);
  });

  it('need an input, and a secret that is long enough', async () => {
    await expect(createRepeatableKeys(crypto, bundle, secret).next(shape)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    expect(() => createRepeatableKeys(crypto, bundle, new Uint8Array(16))).toThrow('16 bytes');
  });

  it('outlive changes to the array that held the secret, and end with close', async () => {
    const mine = secret.slice();
    const keys = createRepeatableKeys(crypto, bundle, mine);
    mine.fill(0);
    expect(await bytesOf(await keys.next(shape, photo))).toBe(await first([crypto, bundle, secret], photo));
    keys.close();
    await expect(keys.next(shape, photo)).rejects.toMatchObject({ code: 'NOISE_FAILED' });
  });
});

describe('ReleaseKey', () => {
  const key = (provider: NoiseCrypto = crypto): ReleaseKey => new ReleaseKey(provider, secret.slice(), 'id');
  const failed = expect.objectContaining({ code: 'NOISE_FAILED' });

  it('reads on where it stopped', async () => {
    const [one, two] = [key(), key()];
    const whole = await bytesOf(one, 96);
    expect((await bytesOf(two, 32)) + (await bytesOf(two, 64))).toBe(whole);
  });

  it('gives nothing after close', () => {
    const closed = key();
    closed.close();
    expect(() => closed.fill(new Uint8Array(16))).toThrow(failed);
  });

  it.each([0, 8, 17])('refuses to fill %d bytes', (length) => {
    expect(() => key().fill(new Uint8Array(length))).toThrow(failed);
  });

  it('notices a provider that writes nothing, so that old noise is never used again', () => {
    const memory = new Uint8Array(64).fill(5);
    expect(() => key({ ...crypto, aes256Ctr: () => ({ fill() {}, close() {} }) }).fill(memory)).toThrow(failed);
  });

  it('notices a provider that stops half-way', () => {
    const lazy: NoiseCrypto = {
      ...crypto,
      aes256Ctr(own, counter) {
        const stream = crypto.aes256Ctr(own, counter);
        return { ...stream, fill: (out) => stream.fill(out.subarray(0, out.length / 2)) };
      },
    };
    expect(() => key(lazy).fill(new Uint8Array(64).fill(5))).toThrow(failed);
  });

  it('notices a stuck counter', () => {
    const stuck: NoiseCrypto = {
      ...crypto,
      aes256Ctr: (own, counter) => ({ fill: (out) => crypto.aes256Ctr(own, counter).fill(out), close() {} }),
    };
    const one = key(stuck);
    one.fill(new Uint8Array(32));
    expect(() => one.fill(new Uint8Array(32))).toThrow(failed);
  });

  it.each(['now', 'later'])('gives nothing after its provider failed %s, and lets go of the key', async (when) => {
    let [fills, closed] = [0, 0];
    let own: Uint8Array | undefined;
    const moody: NoiseCrypto = {
      ...crypto,
      aes256Ctr(given, counter) {
        own = given;
        const stream = crypto.aes256Ctr(given, counter);
        const fill = (out: Uint8Array) => {
          if (++fills < 2) return stream.fill(out);
          if (when === 'now') throw new Error('moody');
          return Promise.reject(new Error('moody'));
        };
        return { fill, close: () => closed++ };
      },
    };
    const one = key(moody);
    one.fill(new Uint8Array(32));
    await expect((async () => one.fill(new Uint8Array(32)))()).rejects.toEqual(failed);
    expect(() => one.fill(new Uint8Array(32))).toThrow(failed);
    one.close();
    expect([fills, closed, own?.every((byte) => byte === 0)]).toEqual([2, 1, true]);
  });

  it('opens one keystream, at counter 0, and closes it', () => {
    const events: string[] = [];
    const watched: NoiseCrypto = {
      ...crypto,
      aes256Ctr(own, counter) {
        events.push(Buffer.from(counter).toString('hex'));
        const stream = crypto.aes256Ctr(own, counter);
        return { ...stream, close: () => events.push('closed') };
      },
    };
    const one = key(watched);
    for (let i = 0; i < 3; i++) one.fill(new Uint8Array(32));
    one.close();
    one.close();
    expect(events).toEqual(['0'.repeat(32), 'closed']);
  });

  it('is read by one at a time', async () => {
    const slow: NoiseCrypto = {
      ...crypto,
      aes256Ctr(own, counter) {
        const stream = crypto.aes256Ctr(own, counter);
        const fill = async (out: Uint8Array) => {
          await Promise.resolve();
          await stream.fill(out);
        };
        return { ...stream, fill };
      },
    };
    const one = key(slow);
    const pending = one.fill(new Uint8Array(32));
    expect(() => one.fill(new Uint8Array(32))).toThrow(failed);
    await pending;
    await one.fill(new Uint8Array(32));
  });
});
