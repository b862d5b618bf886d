/**
 * Copies of a photo that look the same and count as other inputs: shifted, as the next frames of a video, or encoded anew.
 *
 * Repeatable keys give equal inputs equal noise. A copy is another input, so it gets other noise, and the mean of several
 * releases has less of it. Encoding anew is what JPEG loses: 8×8 blocks, DCT, rounded by the tables of ITU T.81 annex K
 * scaled to a quality, without subsampling of colours.
 */
import { assertArgument } from '../errors.js';
import { expectType, float32, type Tensor } from '../tensor.js';
import type { AttackSample, AttackTarget, PixelEncoding } from './attack.js';

/** A way to make copies: the n-th copy of an input, [1, C, H, W]. Copy 0 is the input itself. */
export interface CopyMaker {
  /** 'shifted copies', 'neighbouring frames', 're-encoded copies'. */
  readonly name: string;
  /** How many different copies there are, the input itself included. */
  readonly copies: number;
  make(input: Tensor<'float32'>, copy: number): Tensor<'float32'>;
}

/** Clean activations of copies: one row of `copies` activations for each sample. */
export interface AttackCopies {
  readonly name: string;
  readonly copies: number;
  readonly activations: readonly (readonly Float32Array[])[];
}

/** The input moved by every whole number of pixels up to `reach` along both axes; the border is repeated. */
export function shiftedCopies(reach: number): CopyMaker {
  assertArgument(Number.isInteger(reach) && reach > 0, `reach is ${reach}, expected an integer > 0`);
  const side = 2 * reach + 1;
  const offsets = Array.from({ length: side * side }, (_, i) => [(i % side) - reach, Math.floor(i / side) - reach]);
  offsets.sort((a, b) => Math.hypot(...a) - Math.hypot(...b));
  return {
    name: 'shifted copies',
    copies: offsets.length,
    make: (input, copy) => shift(input, ...((offsets[copy] ?? [0, 0]) as [number, number])),
  };
}

/** Frames of a video that pans by `pixels` a frame along x, back and forth so that it stays near the photo. */
export function neighbouringFrames(frames: number, pixels = 1): CopyMaker {
  assertArgument(Number.isInteger(frames) && frames > 0, `frames is ${frames}, expected an integer > 0`);
  return {
    name: 'neighbouring frames',
    copies: frames,
    make: (input, copy) => shift(input, Math.ceil(copy / 2) * pixels * (copy % 2 === 0 ? 1 : -1), 0),
  };
}

/** The input after JPEG's losses at qualities from 95 downwards, one point a copy. */
export function reencodedCopies(encoding: PixelEncoding, copies: number): CopyMaker {
  assertArgument(Number.isInteger(copies) && copies > 0 && copies < 60, `copies is ${copies}, expected 1 to 59`);
  return {
    name: 're-encoded copies',
    copies,
    make: (input, copy) => (copy === 0 ? input : reencode(input, encoding, 96 - copy)),
  };
}

/**
 * Runs the head over copies of samples.
 * @throws ScrimError INVALID_ARGUMENT unless inputs are float32 [1, C, H, W]
 */
export async function collectCopies(
  target: Pick<AttackTarget, 'headSession' | 'input' | 'cut'>,
  samples: AsyncIterable<AttackSample> | Iterable<AttackSample>,
  maker: CopyMaker,
): Promise<AttackCopies> {
  const activations: Float32Array[][] = [];
  for await (const { input } of samples) {
    const image = expectType(input, 'float32', 'the input');
    assertArgument(
      image.shape.length === 4 && image.shape[0] === 1,
      `the input has shape [${image.shape.join(', ')}], expected [1, C, H, W]`,
    );
    const row: Float32Array[] = [];
    for (let copy = 0; copy < maker.copies; copy++) {
      const { [target.cut]: cut } = await target.headSession.run({ [target.input]: maker.make(image, copy) });
      row.push(expectType(cut as Tensor, 'float32', 'the activation').data);
    }
    activations.push(row);
  }
  return { name: maker.name, copies: maker.copies, activations };
}

function shift(input: Tensor<'float32'>, dx: number, dy: number): Tensor<'float32'> {
  const [, channels = 0, height = 0, width = 0] = input.shape;
  const data = new Float32Array(input.data.length);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const row = (c * height + Math.max(0, Math.min(height - 1, y - dy))) * width;
      for (let x = 0; x < width; x++) {
        data[(c * height + y) * width + x] = input.data[row + Math.max(0, Math.min(width - 1, x - dx))] as number;
      }
    }
  }
  return float32(input.shape, data);
}

const BLOCK = 8;
// Quantisation tables K.1 (luminance) and K.2 (chrominance) of ITU-T T.81, row by row.
const LUMINANCE = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
  87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
  72, 92, 95, 98, 112, 100, 103, 99,
];
const CHROMINANCE = LUMINANCE.map((_, i) => {
  const [row, column] = [Math.floor(i / BLOCK), i % BLOCK];
  const corner = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
  ];
  return corner[row]?.[column] ?? 99;
});
/** cos((2x + 1)uπ/16)·norm(u): row u of the transform. */
const COSINES = Array.from({ length: BLOCK }, (_, u) =>
  Array.from(
    { length: BLOCK },
    (__, x) => Math.cos(((2 * x + 1) * u * Math.PI) / 16) * (u === 0 ? Math.sqrt(1 / 8) : 0.5),
  ),
);

/** Decodes the input to colours, rounds them as JPEG does, and encodes it again. */
function reencode(input: Tensor<'float32'>, { rgb, black, white }: PixelEncoding, quality: number): Tensor<'float32'> {
  const [, , height = 0, width = 0] = input.shape;
  const plane = height * width;
  const scale = quality < 50 ? 50 / quality : 2 - quality / 50;
  const colour = (which: number, i: number): number => {
    const c = rgb[which] as number;
    const span = (white[c] as number) - (black[c] as number);
    return (255 * ((input.data[c * plane + i] as number) - (black[c] as number))) / span;
  };
  const planes = [0, 1, 2].map(() => new Float64Array(plane));
  const [luma, blue, red] = planes as [Float64Array, Float64Array, Float64Array];
  for (let i = 0; i < plane; i++) {
    const [r, g, b] = [colour(0, i), colour(1, i), colour(2, i)];
    luma[i] = 0.299 * r + 0.587 * g + 0.114 * b - 128;
    blue[i] = (b - (luma[i] as number) - 128) / 1.772;
    red[i] = (r - (luma[i] as number) - 128) / 1.402;
  }
  quantizeBlocks(luma, width, height, LUMINANCE, scale);
  quantizeBlocks(blue, width, height, CHROMINANCE, scale);
  quantizeBlocks(red, width, height, CHROMINANCE, scale);
  const data = input.data.slice();
  for (let i = 0; i < plane; i++) {
    const y = (luma[i] as number) + 128;
    const [cb, cr] = [blue[i] as number, red[i] as number];
    const colours = [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb];
    for (const [which, c] of rgb.entries()) {
      const pixel = Math.max(0, Math.min(255, Math.round(colours[which] as number)));
      data[c * plane + i] = (black[c] as number) + (pixel / 255) * ((white[c] as number) - (black[c] as number));
    }
  }
  return float32(input.shape, data);
}

function quantizeBlocks(
  values: Float64Array,
  width: number,
  height: number,
  table: readonly number[],
  scale: number,
): void {
  const block = new Float64Array(BLOCK * BLOCK);
  const half = new Float64Array(BLOCK * BLOCK);
  /** out = M·block·Mᵀ with M = COSINES, or its transpose. */
  const transform = (inverse: boolean): void => {
    const at = (u: number, x: number): number => (COSINES[inverse ? x : u] as number[])[inverse ? u : x] as number;
    for (let u = 0; u < BLOCK; u++) {
      for (let x = 0; x < BLOCK; x++) {
        let sum = 0;
        for (let k = 0; k < BLOCK; k++) sum += at(u, k) * (block[k * BLOCK + x] as number);
        half[u * BLOCK + x] = sum;
      }
    }
    for (let u = 0; u < BLOCK; u++) {
      for (let v = 0; v < BLOCK; v++) {
        let sum = 0;
        for (let k = 0; k < BLOCK; k++) sum += at(v, k) * (half[u * BLOCK + k] as number);
        block[u * BLOCK + v] = sum;
      }
    }
  };
  for (let top = 0; top < height; top += BLOCK) {
    for (let left = 0; left < width; left += BLOCK) {
      for (let i = 0; i < BLOCK * BLOCK; i++) {
        const y = Math.min(height - 1, top + Math.floor(i / BLOCK));
        block[i] = values[y * width + Math.min(width - 1, left + (i % BLOCK))] as number;
      }
      transform(false);
      for (let i = 0; i < block.length; i++) {
        const step = Math.max(1, Math.min(255, Math.round((table[i] as number) * scale)));
        block[i] = Math.round((block[i] as number) / step) * step;
      }
      transform(true);
      for (let i = 0; i < BLOCK * BLOCK; i++) {
        const [y, x] = [top + Math.floor(i / BLOCK), left + (i % BLOCK)];
        if (y < height && x < width) values[y * width + x] = block[i] as number;
      }
    }
  }
}
