/**
 * float32 numbers as the shortest decimals that read back the same.
 *
 * Printing a float32 as the double it equals takes up to 17 digits; 9 always tell it from its neighbours. The digits
 * are found by trying: scale to an integer of 7, 8 or 9 digits, divide back, compare. Scaling back is one correctly
 * rounded division, the same that a reader of the decimal makes, so the comparison is a proof.
 */

const ZERO = 0x30;
const POWERS = Float64Array.from({ length: 23 }, (_, i) => Number(`1e${i}`));
/** Bytes {@link writeFloat32} may write. */
export const MAX_FLOAT32_TEXT = 26;

/** The double with the fewest digits that rounds to the float32 `value`. */
export function shortestFloat32(value: number): number {
  if (!Number.isFinite(value) || value === 0) return value;
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

/**
 * Writes a float32 as JSON text at `at` and returns the offset after it. NaN and Infinity stand bare, −0 is -0.0.
 * `out` needs {@link MAX_FLOAT32_TEXT} bytes from `at` on.
 */
export function writeFloat32(value: number, out: Uint8Array, at: number): number {
  const size = Math.abs(value);
  if (size >= 1e-6 && size < 1e9) {
    // Power of ten of the first digit.
    let first = size >= 1 ? 0 : -6;
    while (first < 8 && size >= (first < -1 ? 1 / POWERS[-first - 1]! : POWERS[first + 1]!)) first++;
    for (let digits = 7; digits <= 9; digits++) {
      const scale = digits - 1 - first;
      const scaled = scale >= 0 ? Math.round(size * POWERS[scale]!) : Math.round(size / POWERS[-scale]!);
      const back = scale >= 0 ? scaled / POWERS[scale]! : scaled * POWERS[-scale]!;
      if (Math.fround(back) === size) return writeDecimal(value < 0, scaled, scale, out, at);
    }
  }
  const text = Object.is(value, -0) ? '-0.0' : String(shortestFloat32(value));
  for (let i = 0; i < text.length; i++) out[at + i] = text.charCodeAt(i);
  return at + text.length;
}

/** Writes `digits` · 10^−scale, digits < 2³¹, without trailing zeros behind the point. */
function writeDecimal(negative: boolean, digits: number, scale: number, out: Uint8Array, at: number): number {
  let left = digits | 0;
  let places = scale;
  while (places > 0 && left % 10 === 0) {
    left = (left / 10) | 0;
    places--;
  }
  for (; places < 0; places++) left *= 10;
  let length = 1;
  while (length < 10 && left >= POWERS[length]!) length++;
  if (places >= length) length = places + 1;
  let end = at;
  if (negative) out[end++] = 0x2d;
  end += length + (places > 0 ? 1 : 0);
  let position = end;
  for (let i = 0; i < length; i++) {
    if (i === places && places > 0) out[--position] = 0x2e;
    const rest = (left / 10) | 0;
    out[--position] = ZERO + left - rest * 10;
    left = rest;
  }
  return end;
}
