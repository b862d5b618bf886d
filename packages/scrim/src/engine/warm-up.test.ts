import { describe, expect, it } from 'vitest';
import type { Session } from './engine.js';
import { warmUp, zeroFeeds } from './warm-up.js';

describe('zeroFeeds', () => {
  it('fills symbolic dimensions from sizes', () => {
    const feeds = zeroFeeds(
      [
        { name: 'x', dtype: 'float32', shape: ['batch', 3, 'w', ''] },
        { name: 't', dtype: 'string', shape: ['batch'] },
      ],
      { batch: 2, w: 4, '': 1 },
    );
    expect(feeds.x).toEqual({ dtype: 'float32', shape: [2, 3, 4, 1], data: new Float32Array(24) });
    expect(feeds.t).toEqual({ dtype: 'string', shape: [2], data: ['', ''] });
  });

  it('names the dimension that has no size', () => {
    expect(() => zeroFeeds([{ name: 'x', dtype: 'int8', shape: [1, 'toString'] }])).toThrow(
      /nothing for dimension 1 \("toString"\) of input "x"/,
    );
  });
});

describe('warmUp', () => {
  it('runs as often as asked and refuses less than once', async () => {
    let runs = 0;
    const run = async () => {
      runs++;
      return {};
    };
    const session: Session = { inputs: [], outputs: [], run, close: async () => {} };
    await warmUp(session, {}, 3);
    expect(runs).toBe(3);
    await expect(warmUp(session, {}, 0)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
