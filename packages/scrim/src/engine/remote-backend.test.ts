import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { float32, type Tensor, tensor } from '../tensor.js';
import type { Backend, BackendRunOptions } from './backend.js';
import type { NamedTensors } from './engine.js';
import { RemoteBackend, serveBackend } from './remote-backend.js';

const RUN: BackendRunOptions = { fetches: ['y'], transfer: false };
const BIG = 100_000;
const ports: MessagePort[] = [];

afterEach(() => {
  for (const port of ports.splice(0)) port.close();
});

/** Doubles float32 inputs (into fresh arrays) and passes the rest through; `before` is awaited in each run. */
function doubling(before: (feeds: NamedTensors) => unknown = () => {}): Backend & { seen: NamedTensors[] } {
  const seen: NamedTensors[] = [];
  const twice = ({ dtype, shape, data }: Tensor): Tensor =>
    dtype === 'float32'
      ? float32(
          shape,
          (data as Float32Array).map((v) => 2 * v),
        )
      : { dtype, shape, data };
  return {
    seen,
    load: async (model, options) => {
      if (model.length === 0) throw new ScrimError('INVALID_MODEL', 'empty', { details: { bytes: 0 } });
      return {
        graph: 40 + options.threads,
        inputs: [],
        outputs: [{ name: 'y', dtype: 'float32', shape: [model.length] }],
      };
    },
    run: async (_graph, feeds) => {
      seen.push(feeds);
      await before(feeds);
      return Object.fromEntries(Object.entries(feeds).map(([name, value]) => [name, twice(value)]));
    },
    release: async () => {},
    close: async () => {},
  };
}

function connect(backend: Backend, onBusy?: (busy: boolean) => void, failStart = false): RemoteBackend {
  const { port1, port2 } = new MessageChannel();
  ports.push(port1, port2);
  const start = async () => {
    if (failStart) throw new ScrimError('UNSUPPORTED', 'not here');
    return { backend, identity: { description: 'd', executionProvider: 'cpu', threads: 3 } };
  };
  const serve = serveBackend(start, (message, transfer) => port2.postMessage(message, transfer), {
    defer: setImmediate,
  });
  port2.on('message', serve);
  const remote = new RemoteBackend((message, transfer) => port1.postMessage(message, transfer), 2, onBusy);
  port1.on('message', (message) => remote.receive(message));
  return remote;
}

describe('RemoteBackend and serveBackend', () => {
  it('carry identity, loads, runs and errors', async () => {
    const remote = connect(doubling());
    expect(await remote.ready).toEqual({ description: 'd', executionProvider: 'cpu', threads: 3 });
    const model = Uint8Array.of(0, 1, 2, 3).subarray(1);
    const loaded = await remote.load(model, { threads: 2, optimize: 'all', resident: {} });
    expect(loaded).toMatchObject({ graph: 42, outputs: [{ shape: [3] }] });
    expect(model.length).toBe(3);
    const words = tensor('string', [2], ['ü', '']);
    expect(await remote.run(42, { x: float32([2], [1, 2]), words }, RUN)).toEqual({ x: float32([2], [2, 4]), words });
    await expect(remote.load(new Uint8Array(), { threads: 1, optimize: 'all', resident: {} })).rejects.toMatchObject({
      code: 'INVALID_MODEL',
      message: 'empty',
      details: { bytes: 0 },
    });
  });

  it('leaves inputs alone, small or large, whole or part of a buffer, shared or not', async () => {
    const remote = connect(doubling());
    const shared = new Float32Array(new SharedArrayBuffer(4 * BIG)).fill(7);
    const whole = new Float32Array(BIG).fill(3);
    const part = new Float32Array(3 * BIG).fill(5).subarray(BIG, 2 * BIG);
    const little = Float32Array.of(9, 1, 2, 9).subarray(1, 3);
    for (let i = 0; i < 3; i++) {
      const given = await remote.run(
        0,
        {
          shared: float32([BIG], shared),
          whole: float32([BIG], whole),
          part: float32([BIG], part),
          little: float32([2], little),
        },
        RUN,
      );
      expect(given.shared?.data.every((v) => v === 14)).toBe(true);
      expect(given.whole?.data.every((v) => v === 6)).toBe(true);
      expect(given.part?.data.every((v) => v === 10)).toBe(true);
      expect(given.little?.data).toEqual(Float32Array.of(2, 4));
    }
    expect([shared.length, whole.length, part.length, little.length]).toEqual([BIG, BIG, BIG, 2]);
  });

  it('stages every element type', async () => {
    const remote = connect(doubling());
    const big = BigUint64Array.from({ length: BIG }, (_, i) => BigInt(i) << 40n);
    const bool = new Uint8Array(BIG).fill(1);
    const half = new Uint16Array(BIG).fill(0x3c00);
    const given = await remote.run(
      0,
      { big: tensor('uint64', [BIG], big), bool: tensor('bool', [BIG], bool), half: tensor('float16', [BIG], half) },
      RUN,
    );
    for (const [name, sent] of Object.entries({ big, bool, half })) {
      const { data } = given[name]!;
      expect([data.constructor, data.length]).toEqual([sent.constructor, BIG]);
      expect(data.every((v: unknown, i: number) => v === sent[i])).toBe(true);
    }
  });

  it('moves inputs that are given up, also when two share a buffer, and copies those that can not be moved', async () => {
    const backend = doubling();
    const remote = connect(backend);
    const moved = new Float32Array(BIG).fill(1);
    const part = new Float32Array(2 * BIG).fill(1).subarray(BIG);
    const given = await remote.run(
      0,
      { x: float32([BIG], moved), again: float32([BIG], moved), part: float32([BIG], part) },
      { ...RUN, transfer: true },
    );
    expect(Object.values(given).every(({ data }) => data.length === BIG && data[BIG - 1] === 2)).toBe(true);
    expect([moved.length, part.length]).toEqual([0, BIG]);

    // Node 20 copies such a buffer itself, later versions refuse the whole message and it is sent again, copied.
    const wasm = new Float32Array(new WebAssembly.Memory({ initial: 7 }).buffer).fill(4);
    const other = new Float32Array(BIG).fill(1);
    const { x } = await remote.run(
      0,
      { other: float32([BIG], other), x: float32([wasm.length], wasm) },
      { ...RUN, transfer: true },
    );
    expect(x?.data.every((v) => v === 8)).toBe(true);
    expect([wasm.length > 0, [0, BIG].includes(other.length)]).toEqual([true, true]);
  });

  it('uses staging buffers again', async () => {
    const { port1, port2 } = new MessageChannel();
    ports.push(port1, port2);
    const backend = doubling();
    const serve = serveBackend(
      async () => ({ backend, identity: { description: '', executionProvider: 'cpu', threads: 1 } }),
      (message, transfer) => port2.postMessage(message, transfer),
    );
    port2.on('message', serve);
    const sent = new Set<ArrayBuffer>();
    const received = new Set<ArrayBuffer>();
    const remote = new RemoteBackend((message, transfer) => {
      for (const buffer of transfer) sent.add(buffer);
      port1.postMessage(message, transfer);
    }, 2);
    port1.on('message', (message) => {
      for (const buffer of (message as { returned?: ArrayBuffer[] }).returned ?? []) received.add(buffer);
      remote.receive(message);
    });
    const x = float32([BIG], new Float32Array(BIG));
    for (let i = 0; i < 10; i++) await remote.run(0, { x }, RUN);
    // Each answer brings the buffer back as a new object over the same memory, and the next run sends that one.
    expect(sent.size).toBe(10);
    expect([...sent].filter((buffer) => received.has(buffer))).toHaveLength(9);
  });

  it('does not make a run that is cancelled before the other side starts it, and answers both', async () => {
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const backend = doubling(() => held);
    const remote = connect(backend);
    const controller = new AbortController();
    const x = float32([1], [1]);
    const first = remote.run(0, { x }, RUN);
    const second = remote.run(0, { x }, { ...RUN, signal: controller.signal });
    await remote.ready;
    controller.abort();
    setTimeout(release, 20);
    await expect(second).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(await first).toEqual({ x: float32([1], [2]) });
    expect(backend.seen).toHaveLength(1);
  });

  it('says when it awaits answers and when it does not', async () => {
    const log: boolean[] = [];
    const remote = connect(doubling(), (busy) => log.push(busy));
    const x = float32([1], [1]);
    await Promise.all([remote.run(0, { x }, RUN), remote.run(0, { x }, RUN)]);
    expect(log).toEqual([true, false]);
  });

  it('rejects everything once the start failed', async () => {
    const remote = connect(doubling(), undefined, true);
    const early = remote.run(0, {}, RUN);
    await expect(remote.ready).rejects.toMatchObject({ code: 'UNSUPPORTED', message: 'not here' });
    await expect(early).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(remote.run(0, {}, RUN)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await remote.release(0);
    await remote.close();
  });

  it('rejects what is awaited and what is asked later when the other side is gone', async () => {
    const remote = connect(doubling(() => new Promise(() => {})));
    await remote.ready;
    const under = remote.run(0, { x: float32([1], [1]) }, RUN);
    remote.fail(new ScrimError('ENGINE_FAILED', 'gone'));
    await expect(under).rejects.toMatchObject({ code: 'ENGINE_FAILED', message: 'gone' });
    await expect(remote.load(Uint8Array.of(1), { threads: 1, optimize: 'all', resident: {} })).rejects.toMatchObject({
      message: 'gone',
    });
  });
});
