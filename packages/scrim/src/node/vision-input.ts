/**
 * Photos in files -> inputs of a detector. Decoding runs in libvips' threads, so that several photos can be read ahead
 * while the network works; what is left for the event loop is one pass over the pixels.
 */
import type { Tensor } from '../tensor.js';
import {
  createPixelConverter,
  type DetectorSpec,
  defaultResize,
  planResize,
  type ResizeMode,
  type ResizePlan,
} from '../vision/index.js';
import { type ImageInput, type ImageLimits, readImageTowards } from './images.js';

/** A photo as a detector's input. */
export interface DetectorInput {
  /** [1, 3, canvas height, canvas width]. */
  readonly tensor: Tensor<'float32'>;
  /** How boxes get back to the photo. */
  readonly plan: ResizePlan;
}

/** Reads photos for one detector. */
export interface InputReader {
  /**
   * Reads a photo. Reads may overlap.
   * @param out array to write to, of the canvas' `3 · width · height` elements; not to be shared by overlapping reads.
   * @throws ScrimError NOT_FOUND, INVALID_DATA, LIMIT_EXCEEDED as `readImage`; INVALID_ARGUMENT as `planResize`.
   */
  read(input: ImageInput, out?: Float32Array): Promise<DetectorInput>;
}

/** Makes a reader of photos; `mode` defaults to the square that `spec` names, 1024×1024 where it names none. */
export function createInputReader(
  spec: DetectorSpec,
  mode: ResizeMode = defaultResize(spec),
  limits: ImageLimits = {},
): InputReader {
  const converter = createPixelConverter(spec.preprocessing);
  return {
    async read(input, out) {
      const image = await readImageTowards(
        input,
        (original) => planResize(original, mode, spec.multiple).resized,
        limits,
      );
      const plan = planResize(image.original, mode, spec.multiple);
      const { resized, canvas } = plan;
      const tensor = converter.convert(image, { resized, canvas, ...(out === undefined ? {} : { out }) });
      return { tensor, plan };
    },
  };
}
