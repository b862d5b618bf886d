/** `scrim/vision`: pixels to tensors, FaceBoxes, boxes back to the photo, drawing. */
export * from './anchors.js';
export * from './boxes.js';
export * from './checkpoint.js';
export * from './detector.js';
export * from './drawing.js';
export * from './face-embedder.js';
export { FACE_API_DIMENSIONS, FACE_API_SIDE, faceEmbedderFromFaceApi } from './face-embedder-graph.js';
export * from './faceboxes.js';
export {
  buildFaceBoxesGraph,
  type ConvLayer,
  type ConvWeights,
  FACEBOXES_CUT,
  FACEBOXES_LAYERS,
  type FaceBoxesVariant,
  type FaceBoxesWeights,
} from './faceboxes-graph.js';
export { weightsFromStateDict, weightsFromTfjs } from './faceboxes-weights.js';
export * from './image.js';
export type { PixelKernelKind } from './pixel-kernel.js';
export * from './pixels.js';
export { makeTaps, type ResampleKernel, type Taps } from './resample.js';
export * from './tfjs.js';
