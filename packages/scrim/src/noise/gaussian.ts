/**
 * Standard normals from keystream by Box and Muller (1958), in plain TypeScript: the twin of the WebAssembly kernel.
 *
 * A block is 32 bytes: four words a, then four words b. Each pair (a, b) of 64 bits gives two normals
 *   r·cos θ and r·sin θ,  r = √(−2 ln u),
 *   u = a·2⁻³² + (low 12 bits of b + ½)·2⁻⁴⁴,  θ from the upper 20 bits of b.
 * u takes 2⁴⁴ values and is never 0, so |r| ≤ 7.9, and what is lost of the tail has probability below 2⁻⁴⁴. θ: bits 31 and
 * 30 are the signs of cosine and sine, bits 12 to 29 the place i in the first quadrant, θ = (i + ½)·2⁻¹⁸·π/2.
 *
 * All arithmetic is float32 (Math.fround after each operation) and in the order of assembly/release-kernel.ts, so the
 * bits are the same on every machine. Against the formula in double precision the error is below 2·10⁻⁶·max(1, |ε|).
 */

/** Bytes of keystream in a block. */
export const KEYSTREAM_BLOCK_BYTES = 32;
/** Normals that a block gives. */
export const NORMALS_PER_BLOCK = 8;

const fround = Math.fround;

// −2 ln((1 + s)/(1 − s)) = s·P(s²) for s in [−⅓, 0], minimax in relative error (1.7·10⁻⁷).
const LOG_0 = fround(-3.9999993417270088);
const LOG_1 = fround(-1.3335200576197228);
const LOG_2 = fround(-0.7917892254931447);
const LOG_3 = fround(-0.6845210113210151);
/** −2 ln 2 for each step of the exponent, which stands 23 bits up. */
const LOG_STEP = fround((-2 * Math.LN2) / 2 ** 23);

// sin(x·π/2)/√2 = x·Q(x²) for x in [−½, ½], minimax (4·10⁻⁹).
const SINE_0 = fround(1.1107207311256166);
const SINE_1 = fround(-0.456765156146417);
const SINE_2 = fround(0.05634242959293945);
const SINE_3 = fround(-0.0032542305629506313);

/**
 * Turns `blocks` blocks of keystream at the start of `memory` into eight standard normals each, in place: the cosines of
 * the four pairs, then their sines.
 * @param memory at least 32·`blocks` bytes, starting at a multiple of 4
 */
export function gaussianInPlace(memory: Uint8Array, blocks: number): void {
  const words = new Int32Array(memory.buffer, memory.byteOffset, blocks * NORMALS_PER_BLOCK);
  const values = new Float32Array(memory.buffer, memory.byteOffset, blocks * NORMALS_PER_BLOCK);
  const bits = new Int32Array(1);
  const float = new Float32Array(bits.buffer);
  for (let block = 0; block < words.length; block += NORMALS_PER_BLOCK) {
    for (let i = block; i < block + 4; i++) {
      const a = words[i] as number;
      const b = words[i + 4] as number;

      // t = 2³²·u for u < ½ and −2³²·(1 − u) above: exact near both ends, where a float32 u would not be.
      bits[0] = (b & 0xfff) | 0x45000000;
      const low = fround((float[0] as number) - 2047.9998779296875);
      const t = fround(fround(a) + low);
      float[0] = t;
      const pattern = bits[0];

      // u < ½: u = 2^e·m with m in [½, 1), f = m − 1. Else f = u − 1 and e = 0. `exponent` is e·2²³.
      const field = (pattern & 0xff800000) >>> 0;
      const exponent = Math.min(field, 0x4f000000) - 0x4f000000;
      bits[0] = pattern - 0x10000000 - exponent;
      const f = fround((float[0] as number) - (t < 0 ? 0 : 1));

      // ln(1 + f) by s = f/(2 + f).
      const s = fround(f / fround(f + 2));
      const z = fround(s * s);
      let p = fround(fround(z * LOG_3) + LOG_2);
      p = fround(fround(z * p) + LOG_1);
      p = fround(fround(z * p) + LOG_0);
      const whole = fround(fround(exponent) * LOG_STEP);
      const r = fround(Math.sqrt(fround(fround(s * p) + whole)));

      // x in (−½, ½) counts from the middle of the quadrant: cos(π/4 + xπ/2) = C − S with S = sin(xπ/2)/√2.
      bits[0] = ((b & 0x3ffff000) >>> 7) | 0x3f800010;
      const x = fround((float[0] as number) - 1.5);
      const y = fround(x * x);
      let q = fround(fround(y * SINE_3) + SINE_2);
      q = fround(fround(y * q) + SINE_1);
      q = fround(fround(y * q) + SINE_0);
      const sine = fround(x * q);
      const cosine = fround(Math.sqrt(fround(0.5 - fround(sine * sine))));

      const first = fround(r * fround(cosine - sine));
      const second = fround(r * fround(cosine + sine));
      values[i] = b < 0 ? -first : first;
      values[i + 4] = b << 1 < 0 ? -second : second;
    }
  }
}
