/** `scrim/noise`: the transform, its release, what it can tell, and how its parameters are learned. */
export {
  createDiagonalTransform,
  type DiagonalParameters,
  type DiagonalTransform,
  MAX_GAIN,
  MIN_SIGMA,
  validateDiagonalParameters,
} from './diagonal.js';
export {
  type ActivationCache,
  type CacheOptions,
  type ChannelStatistics,
  cacheActivations,
  createActivationCache,
} from './fit/activation-cache.js';
export {
  BOTTLENECK_WEIGHT,
  type BottleneckCheckpoint,
  type BottleneckFit,
  type BottleneckFitOptions,
  type BottleneckFitSettings,
  type BottleneckHooks,
  type BottleneckProgress,
  bottleneckWeight,
  completeBottleneckSettings,
  fitBottleneck,
} from './fit/bottleneck-fit.js';
export {
  BOTTLENECK_BOUND,
  type BottleneckArchitecture,
  type BottleneckWeights,
  ENCODER_KINDS,
  type EncoderKind,
} from './fit/bottleneck-model.js';
export { type ClassOutput, classOutputOf, decideClasses, toProbabilities } from './fit/class-output.js';
export {
  createDiagonalFitter,
  type DiagonalFit,
  type DiagonalFitCheckpoint,
  type DiagonalFitSettings,
  type DiagonalFitter,
  type DiagonalFitterOptions,
  type FitHooks,
  type FitProgress,
  PRIVACY_EXPONENT,
  PRIVACY_WEIGHT,
  privacyWeight,
  SUPPRESSION_NATS,
} from './fit/diagonal-fit.js';
export { createFitRandom, type FitRandom, type FitRandomState } from './fit/fit-random.js';
export {
  createNetworkTrainer,
  type NetworkTrainer,
  type NetworkTrainerOptions,
  stepsPerRun,
  type TrainedWeight,
  type TrainerState,
  type TrainingStep,
} from './fit/network-trainer.js';
export { type FitTask, POSITIVE_THRESHOLD } from './fit/task-loss.js';
export { natsPerElement, natsPerPosition } from './information-bound.js';
export type { KeyMode } from './keystream.js';
export {
  type CheckOptions,
  type CheckResult,
  checkMechanism,
  checkSeedSpace,
  type Mechanism,
  type ReleasedGrid,
} from './mechanism-checks.js';
export { type Awaitable, fromHex, type NoiseCrypto, toHex, verifyNoiseCrypto } from './noise-crypto.js';
export {
  createNoiser,
  createReplayNoiser,
  type Noiser,
  type NoiserMode,
  type NoiserOptions,
  type PreparedRelease,
  Release,
  releaseToFloat16,
  releaseToFloat32,
} from './release.js';
export { createReleaseReader, type ReleaseReader, releaseToTensor } from './release-reader.js';
