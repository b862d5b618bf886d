import { describe, expect, it } from 'vitest';
import { float32 } from '../tensor.js';
import { drawBoxes, drawTiles, sideBySide } from './drawing.js';
import { createImage, type RgbImage } from './image.js';

const pixel = ({ width, data }: RgbImage, x: number, y: number): number[] => [
  ...data.subarray(3 * (y * width + x), 3 * (y * width + x) + 3),
];

describe('drawing', () => {
  it('frames a box, clips it at the edges and leaves the original alone', () => {
    const image = createImage(10, 8);
    const drawn = drawBoxes(image, [[2, 1, 14, 6]], { colour: [9, 8, 7], thickness: 1 });
    expect(pixel(drawn, 2, 1)).toEqual([9, 8, 7]);
    expect(pixel(drawn, 9, 5)).toEqual([9, 8, 7]);
    expect(pixel(drawn, 5, 3)).toEqual([0, 0, 0]);
    expect(pixel(image, 2, 1)).toEqual([0, 0, 0]);
  });

  it('lays pictures side by side', () => {
    const both = sideBySide([createImage(2, 3, [1, 1, 1]), createImage(4, 1, [2, 2, 2])], 1);
    expect([both.width, both.height]).toEqual([7, 3]);
    expect([pixel(both, 0, 2), pixel(both, 2, 0), pixel(both, 3, 0), pixel(both, 3, 1)]).toEqual([
      [1, 1, 1],
      [255, 255, 255],
      [2, 2, 2],
      [255, 255, 255],
    ]);
  });

  it('draws channels as tiles from black to white, constants as black', () => {
    const tiles = drawTiles(float32([1, 4, 1, 2], [0, 1, 5, 5, -1, 3, 2, 0]), 0);
    expect([tiles.width, tiles.height]).toEqual([4, 2]);
    expect([0, 1, 2, 3].map((x) => pixel(tiles, x, 0)[0])).toEqual([0, 255, 0, 0]);
    expect([0, 1, 2, 3].map((x) => pixel(tiles, x, 1)[0])).toEqual([0, 255, 255, 0]);
  });
});
