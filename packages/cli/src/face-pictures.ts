/** Pictures of one photo: clean boxes, what left the trusted side, noisy boxes. */
import { type Bundle, decodeSafetensors, expectType, type Release, ScrimError } from 'scrim';
import { type LinearReconstruction, reconstruct } from 'scrim/audit';
import { readImage, resizeImage } from 'scrim/node';
import { releaseToTensor } from 'scrim/noise';
import { type Detection, drawBoxes, drawTiles, type RgbImage, type Size } from 'scrim/vision';
import { RECONSTRUCTION_PATH } from './fit-bundle.js';

/** Longest side of a picture that is written. */
const LONGEST_SIDE = 640;
const NOISY_COLOUR = [255, 159, 64] as const;

/** The pictures of one photo, all of one height but for the tiles. */
export interface FacePictures {
  readonly clean: RgbImage;
  readonly noisy: RgbImage;
  /** The release itself, one grey tile a channel. */
  readonly tiles: RgbImage;
  /** A linear least-squares guess at the photo, from the release; undefined if the bundle has none. */
  readonly reconstruction?: RgbImage;
}

/** Reads the linear reconstruction of a bundle, undefined if it has none. */
export async function readReconstruction(bundle: Bundle): Promise<LinearReconstruction | undefined> {
  if (!(RECONSTRUCTION_PATH in bundle.manifest.files)) return undefined;
  const { tensors, metadata } = decodeSafetensors(await bundle.read(RECONSTRUCTION_PATH));
  const weights = tensors.get('weights');
  const patch = Number(metadata.patch);
  if (metadata.format !== 'scrim-linear-reconstruction' || !weights || !Number.isInteger(patch)) {
    throw new ScrimError('INVALID_BUNDLE', `'${RECONSTRUCTION_PATH}' holds no linear reconstruction`);
  }
  return { patch, weights: expectType(weights, 'float32', 'the weights of the reconstruction') };
}

/** Draws what the clean and the noisy path found in a photo, and what left. */
export async function drawFaces(
  photo: string,
  clean: readonly Detection[],
  noisy: readonly Detection[],
  release: Release,
  bundle: Bundle,
  reconstruction: LinearReconstruction | undefined,
): Promise<FacePictures> {
  const original = await readImage(photo);
  const size = fitInside(original);
  const small = await resizeImage(original, size);
  const factor = size.width / original.width;
  const scale = (detections: readonly Detection[]) =>
    detections.map(
      ({ box: [left, top, right, bottom] }) => [left * factor, top * factor, right * factor, bottom * factor] as const,
    );
  const tensor = releaseToTensor(release, bundle.parameters);
  return {
    clean: drawBoxes(small, scale(clean)),
    noisy: drawBoxes(small, scale(noisy), { colour: NOISY_COLOUR }),
    tiles: drawTiles(tensor),
    ...(reconstruction ? { reconstruction: await resizeImage(reconstruct(reconstruction, tensor), size) } : {}),
  };
}

function fitInside({ width, height }: Size): Size {
  const factor = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
}
