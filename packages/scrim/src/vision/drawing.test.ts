import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { float32 } from '../tensor.js';
import { copyImage, drawBoxes, drawTiles, sideBySide } from './drawing.js';
import { createImage, type RgbImage } from './image.js';

/** A picture as text: '#' where a pixel has the colour, '.' where it is black. */
function sketch({ width, height, data }: RgbImage): string[] {
  return Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => (data[3 * (y * width + x) + 1] === 0 ? '.' : '#')).join(''),
  );
}

describe('drawBoxes', () => {
  it('draws the frame inside the box', () => {
    expect(sketch(drawBoxes(createImage(7, 5), [[1, 1, 6, 4]], { thickness: 1 }))).toEqual([
      '.......',
      '.#####.',
      '.#...#.',
      '.#####.',
      '.......',
    ]);
  });

  it('draws corners only, on request', () => {
    expect(sketch(drawBoxes(createImage(8, 8), [[0, 0, 8, 8]], { thickness: 1, shape: 'corners' }))).toEqual([
      '##....##',
      '#......#',
      '........',
      '........',
      '........',
      '........',
      '#......#',
      '##....##',
    ]);
  });

  it('cuts off what reaches beyond, and leaves out what is no box', () => {
    const drawn = drawBoxes(
      createImage(4, 3),
      [
        [-5, 1, 2, 9],
        [Number.NaN, 0, 1, 1],
        [3, 3, 1, 1],
        [1e300, 0, 1e301, 4],
      ],
      { thickness: 1 },
    );
    expect(sketch(drawn)).toEqual(['....', '##..', '.#..']);
  });

  it('leaves the picture itself alone', () => {
    const image = createImage(9, 9);
    drawBoxes(image, [[0, 0, 9, 9]]);
    expect(image.data.some((value) => value !== 0)).toBe(false);
  });

  it('law: any boxes are drawn without an error, and nothing outside them changes', () => {
    const edge = fc.double({ min: -50, max: 60, noNaN: true });
    fc.assert(
      fc.property(edge, edge, edge, edge, fc.integer({ min: 1, max: 9 }), (left, top, right, bottom, thickness) => {
        const { data } = drawBoxes(createImage(20, 15), [[left, top, right, bottom]], { thickness });
        for (let i = 0; i < data.length; i += 3) {
          const [x, y] = [(i / 3) % 20, Math.floor(i / 60)];
          const inside =
            x >= Math.round(left) && x < Math.round(right) && y >= Math.round(top) && y < Math.round(bottom);
          if (!inside) expect(data[i + 1]).toBe(0);
        }
      }),
      { numRuns: 300, seed: 8 },
    );
  });
});

describe('sideBySide', () => {
  it('centres pictures in cells of the largest one’s size', () => {
    const sheet = sideBySide([createImage(2, 1, [9, 9, 9]), createImage(2, 3, [9, 9, 9])], {
      gap: 1,
      background: [0, 0, 0],
    });
    expect(sketch(sheet)).toEqual(['.......', '....##.', '.##.##.', '....##.', '.......']);
    expect(sideBySide([createImage(2, 1), createImage(2, 3), createImage(1, 1)], { columns: 2, gap: 0 })).toMatchObject(
      {
        width: 4,
        height: 6,
      },
    );
  });

  it('takes RGBA', () => {
    const image = { width: 1, height: 1, data: Uint8ClampedArray.of(1, 2, 3, 4) };
    expect([...sideBySide([image], { gap: 0 }).data]).toEqual([1, 2, 3]);
    expect([...copyImage(image).data]).toEqual([1, 2, 3]);
  });

  it('refuses nothing, and too much', () => {
    expect(() => sideBySide([])).toThrow('images is empty');
    expect(() => sideBySide([createImage(1, 1)], { columns: 0 })).toThrow('columns is 0');
    expect(() => sideBySide([createImage(1, 1)], { gap: 1e6 })).toThrow(ScrimError);
  });
});

describe('drawTiles', () => {
  const activation = float32([2, 3, 1, 2], [0, 0, 0, 0, 0, 0, -1, 1, 5, 5, 0, Number.NaN]);

  it('draws each channel from its least to its greatest value', () => {
    const sheet = drawTiles(activation, { index: 1, columns: 3, magnify: 1, gap: 0 });
    expect([sheet.width, sheet.height]).toEqual([6, 1]);
    expect([...sheet.data]).toEqual([0, 0, 0, 255, 255, 255, ...new Array(6).fill(128), 128, 128, 128, 255, 0, 0]);
  });

  it('draws all channels on one scale, larger and apart', () => {
    const sheet = drawTiles(float32([1, 2, 1, 1], [0, 10]), { columns: 1, magnify: 2, gap: 1, range: 'all' });
    expect([sheet.width, sheet.height]).toEqual([4, 7]);
    expect([sheet.data[3 * 5], sheet.data[3 * 17]]).toEqual([0, 255]);
  });

  it('makes a sheet that is about square', () => {
    const { width, height } = drawTiles(float32([1, 128, 32, 32], new Float32Array(128 * 1024)));
    expect(width / height).toBeGreaterThan(0.8);
    expect(width / height).toBeLessThan(1.25);
  });

  it('refuses other ranks and a picture that the batch lacks', () => {
    expect(() => drawTiles(float32([3, 1, 2], new Float32Array(6)))).toThrow('expected [N, C, H, W]');
    expect(() => drawTiles(activation, { index: 2 })).toThrow('index 2');
    expect(() => drawTiles(activation, { magnify: 0 })).toThrow('magnify is 0');
  });
});
