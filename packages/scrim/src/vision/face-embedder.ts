/**
 * Faces to embeddings: vectors that lie close for photos of one person. The network is any ONNX model with one picture in
 * and one vector a picture out; how pixels go in is said by a spec. That of `@vladmandic/face-api` is built by
 * face-embedder-graph.ts.
 *
 * A face is cut out as face-api does without landmarks: the detected box, widened, made a square, what lies outside the
 * photo black. Nothing is rotated upright. Scores are cosines, or minus Euclidean distances where the spec says so.
 */
import type { Engine, Session } from '../engine/engine.js';
import { assertArgument, ScrimError } from '../errors.js';
import { expectType, float32 } from '../tensor.js';
import { FACE_API_SIDE } from './face-embedder-graph.js';
import { createImage, type RgbImage } from './image.js';
import { createPixelConverter, type Preprocessing } from './pixels.js';

/** How pictures become the input of an embedder, and how its vectors are compared. JSON-safe. */
export interface FaceEmbedderSpec {
  /** For people. */
  readonly name: string;
  /** Side of the square input, in pixels. */
  readonly side: number;
  readonly preprocessing: Preprocessing;
  /** Order of the input's dimensions; 'channels-first' is [N, 3, S, S]. */
  readonly layout: 'channels-first' | 'channels-last';
  /** Side of the square that is cut out, as a multiple of the longer side of the detected box. */
  readonly margin: number;
  /** How much lower than the box's centre the square's centre lies, as a share of the box's height. */
  readonly shift: number;
  readonly similarity: 'cosine' | 'euclidean';
}

/**
 * The network of `@vladmandic/face-api` 1.7.15: RGB minus the mean that dlib uses, over 255. Margin and shift suit boxes
 * of FaceBoxes, whose training boxes include the forehead.
 */
export const FACE_API_SPEC: FaceEmbedderSpec = {
  name: 'face-api recognition (dlib ResNet, 128 numbers)',
  side: FACE_API_SIDE,
  preprocessing: {
    order: 'rgb',
    mean: [122.782, 117.001, 104.298],
    scale: 1 / 255,
    fill: [0, 0, 0],
    kernel: 'linear',
  },
  layout: 'channels-first',
  margin: 0.9,
  shift: 0.05,
  similarity: 'euclidean',
};

/** Where a face is in a picture, in its pixels. */
export interface FaceBox {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** A loaded embedder. */
export interface FaceEmbedder {
  readonly spec: FaceEmbedderSpec;
  /**
   * Embeds one face. @param box where it is; left out, the whole picture is the face and is shrunk to fit.
   * @throws ScrimError INVALID_ARGUMENT for an empty box; as the engine
   */
  embed(image: RgbImage, box?: FaceBox): Promise<Float32Array>;
  /** How alike two embeddings are; higher is more alike. @throws ScrimError INVALID_ARGUMENT for other lengths */
  similarity(a: Float32Array, b: Float32Array): number;
  close(): Promise<void>;
}

/**
 * Loads an embedder.
 * @param model encoded ONNX with one input, [N, 3, side, side] or [N, side, side, 3], and one vector a picture as its
 * first output
 * @throws ScrimError INVALID_MODEL for another input; as {@link Engine.load}
 */
export async function createFaceEmbedder(
  engine: Engine,
  model: Uint8Array,
  spec: FaceEmbedderSpec = FACE_API_SPEC,
): Promise<FaceEmbedder> {
  const session = await engine.load(model);
  try {
    expectInput(session, spec);
  } catch (error) {
    await session.close();
    throw error;
  }
  const input = session.inputs[0]!.name;
  const output = session.outputs[0]!.name;
  const converter = createPixelConverter(spec.preprocessing);
  const canvas = { width: spec.side, height: spec.side };
  return {
    spec,
    embed: async (image, box) => {
      const face = cropFace(image, box ?? wholePicture(image), box ? spec : { margin: 1, shift: 0 });
      const pixels = converter.convert(face, { resized: canvas });
      const feed = spec.layout === 'channels-first' ? pixels : channelsLast(pixels.data, spec.side);
      const { [output]: vector } = await session.run({ [input]: feed }, { fetches: [output] });
      const { data } = expectType(vector!, 'float32', 'the embedding');
      if (!data.every(Number.isFinite)) {
        throw new ScrimError('ENGINE_FAILED', 'the embedder gave numbers that are not finite');
      }
      return data;
    },
    similarity: (a, b) => compareEmbeddings(a, b, spec.similarity),
    close: () => session.close(),
  };
}

/**
 * How alike two vectors are: the cosine of their angle, or minus their Euclidean distance.
 * @throws ScrimError INVALID_ARGUMENT for vectors of different lengths
 */
export function compareEmbeddings(
  a: Float32Array,
  b: Float32Array,
  similarity: FaceEmbedderSpec['similarity'],
): number {
  assertArgument(a.length === b.length, `embeddings of ${a.length} and ${b.length} numbers can't be compared`);
  let [dot, ofA, ofB, distance] = [0, 0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [p, q] = [a[i]!, b[i]!];
    dot += p * q;
    ofA += p * p;
    ofB += q * q;
    distance += (p - q) ** 2;
  }
  if (similarity === 'euclidean') return -Math.sqrt(distance);
  const lengths = Math.sqrt(ofA * ofB);
  return lengths === 0 ? 0 : dot / lengths;
}

/**
 * Cuts out the square around a face; black where it reaches beyond the picture.
 * @throws ScrimError INVALID_ARGUMENT for an empty box
 */
export function cropFace(
  image: RgbImage,
  box: FaceBox,
  { margin, shift }: Pick<FaceEmbedderSpec, 'margin' | 'shift'>,
): RgbImage {
  assertArgument(
    box.width > 0 && box.height > 0 && [box.x, box.y, box.width, box.height].every(Number.isFinite),
    `the face is ${box.width}×${box.height}, expected a box that is not empty`,
  );
  const side = Math.max(1, Math.round(Math.max(box.width, box.height) * margin));
  const left = Math.round(box.x + box.width / 2 - side / 2);
  const top = Math.round(box.y + box.height * (0.5 + shift) - side / 2);
  const face = createImage(side, side);
  const [fromX, toX] = [Math.max(0, left), Math.min(image.width, left + side)];
  for (let y = Math.max(0, top); y < Math.min(image.height, top + side); y++) {
    if (toX <= fromX) break;
    const start = (y * image.width + fromX) * 3;
    face.data.set(image.data.subarray(start, start + (toX - fromX) * 3), ((y - top) * side + fromX - left) * 3);
  }
  return face;
}

function wholePicture({ width, height }: RgbImage): FaceBox {
  return { x: 0, y: 0, width, height };
}

function channelsLast(planes: Float32Array, side: number): ReturnType<typeof float32> {
  const area = side * side;
  const data = new Float32Array(planes.length);
  for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) data[i * 3 + c] = planes[c * area + i]!;
  return float32([1, side, side, 3], data);
}

function expectInput(session: Session, { side, layout }: FaceEmbedderSpec): void {
  const expected = layout === 'channels-first' ? [1, 3, side, side] : [1, side, side, 3];
  const [input] = session.inputs;
  const fits =
    session.inputs.length === 1 &&
    input?.dtype === 'float32' &&
    input.shape.length === 4 &&
    input.shape.every((size, i) => typeof size === 'string' || size === expected[i]);
  if (!fits || session.outputs[0]?.dtype !== 'float32') {
    throw new ScrimError(
      'INVALID_MODEL',
      `the embedder takes ${session.inputs.map(({ dtype, shape }) => `${dtype} [${shape.join(', ')}]`).join(' and ')}, ` +
        `expected one float32 [N, ${expected.slice(1).join(', ')}] and a float32 vector out`,
    );
  }
}
