/**
 * Randomness of a fit: minibatch indices and training noise, reproducible from a seed.
 *
 * Not for releases. The training noise is thrown away after each step, so speed and replay matter here and secrecy does
 * not; releases draw from noise/keystream.ts alone. Generator: xoshiro128** 1.1 (Blackman & Vigna), seeded by splitmix32
 * over the seed's characters; normals by the ziggurat of Marsaglia & Tsang (2000) with 128 layers in double precision.
 */

/** State of a {@link FitRandom}, to go on from the same point. */
export type FitRandomState = readonly number[];

/** Source of minibatch indices and training noise. */
export interface FitRandom {
  /** The seed it was made from, for the record. */
  readonly seed: string;
  /** Uniform integer in [0, bound). */
  integer(bound: number): number;
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Fills `out` with independent standard normals. */
  normal(out: Float32Array): void;
  state(): FitRandomState;
  restore(state: FitRandomState): void;
}

const LAYERS = 128;
const EDGE = 3.442619855899;
const AREA = 9.91256303526217e-3;
const widths = new Float64Array(LAYERS);
const edges = new Float64Array(LAYERS + 1);
const heights = new Float64Array(LAYERS + 1);

{
  // x_0 is the pseudo-width of the base layer, x_1 = EDGE; each layer has the same area.
  const density = (x: number): number => Math.exp(-0.5 * x * x);
  edges[0] = AREA / density(EDGE);
  edges[1] = EDGE;
  for (let i = 2; i < LAYERS; i++) {
    edges[i] = Math.sqrt(-2 * Math.log(AREA / (edges[i - 1] as number) + density(edges[i - 1] as number)));
  }
  edges[LAYERS] = 0;
  for (let i = 0; i <= LAYERS; i++) heights[i] = density(edges[i] as number);
  for (let i = 0; i < LAYERS; i++) widths[i] = (edges[i] as number) / 2 ** 24;
}

/** A reproducible source from any string. */
export function createFitRandom(seed: string): FitRandom {
  const words = new Uint32Array(4);
  let mix = 0x9e3779b9;
  for (let i = 0; i < seed.length; i++) mix = Math.imul(mix ^ seed.charCodeAt(i), 0x85ebca6b) + i;
  for (let i = 0; i < 4; i++) {
    mix = (mix + 0x9e3779b9) | 0;
    let word = mix ^ (mix >>> 16);
    word = Math.imul(word, 0x21f0aaad);
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
    words[i] = (word ^ (word >>> 15)) >>> 0;
  }
  if (words.every((word) => word === 0)) words[0] = 1;
  let [a = 1, b = 0, c = 0, d = 0] = words;

  const next = (): number => {
    const rotated = Math.imul(b, 5);
    const result = Math.imul((rotated << 7) | (rotated >>> 25), 9);
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = (d << 11) | (d >>> 21);
    return result;
  };
  const uniform = (): number => (next() >>> 0) / 2 ** 32;
  const normalValue = (): number => {
    for (;;) {
      const bits = next();
      const layer = bits & (LAYERS - 1);
      const mantissa = bits >> 7; // 25 bits with sign
      const x = mantissa * (widths[layer] as number);
      if (Math.abs(x) < (edges[layer + 1] as number)) return x;
      if (layer === 0) {
        // Tail beyond EDGE (Marsaglia 1964).
        let far: number;
        let y: number;
        do {
          far = -Math.log(1 - uniform()) / EDGE;
          y = -Math.log(1 - uniform());
        } while (y + y < far * far);
        return mantissa < 0 ? -(EDGE + far) : EDGE + far;
      }
      const low = heights[layer] as number;
      const high = heights[layer + 1] as number;
      if (low + uniform() * (high - low) < Math.exp(-0.5 * x * x)) return x;
    }
  };
  return {
    seed,
    uniform,
    integer: (bound) => Math.floor(uniform() * bound),
    normal: (out) => {
      for (let i = 0; i < out.length; i++) out[i] = normalValue();
    },
    state: () => [a, b, c, d],
    restore: (state) => {
      [a = 1, b = 0, c = 0, d = 0] = state;
    },
  };
}
