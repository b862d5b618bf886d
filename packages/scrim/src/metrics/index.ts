/**
 * `scrim/metrics`: how good detections are, how alike two images are, and how sure a figure is.
 *
 * Pure functions over numbers and text. Files on disk are read by `scrim/node`.
 */
export {
  type AveragePrecisionOptions,
  averagePrecision,
  type PrecisionRecallPoint,
  precisionRecallCurve,
} from './average-precision.js';
export { type Ellipse, ellipseBox } from './ellipse-box.js';
export {
  type AnnotatedFold,
  type AnnotatedImage,
  createFddbEvaluator,
  type FddbEvaluator,
  type FddbEvaluatorOptions,
  type FddbFoldResult,
  type FddbResult,
} from './fddb-evaluator.js';
export {
  type FddbFace,
  type FddbImage,
  formatDetections,
  type ImageDetections,
  parseDetections,
  parseEllipseList,
  parseFoldList,
} from './fddb-format.js';
export type { FddbEvaluatorState, FddbFoldState } from './fddb-state.js';
export { type IdentificationScores, rankOneRate } from './identification.js';
export { type Box, intersectionOverUnion, type ScoredBox } from './intersection-over-union.js';
export { DEFAULT_IOU_THRESHOLD, type GroundTruth, type Match, matchDetections } from './match-detections.js';
export { type DataRangeOptions, mse, type PixelTensor, psnr } from './squared-error.js';
export { CENTRED_UNIT, centredSsim, PHOTO_COLOUR, ssim } from './ssim.js';
export {
  type BootstrapOptions,
  bootstrapInterval,
  type Interval,
  mean,
  meanInterval,
  proportionInterval,
  quantile,
  standardDeviation,
} from './summary.js';
export { type OperatingPoint, rocAuc, tarAtFar } from './verification.js';
