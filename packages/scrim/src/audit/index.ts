/** `scrim/audit`: what an attacker makes of a release. */
export {
  type AttackBaseline,
  type AttackCurve,
  type AttackData,
  type AttackHooks,
  type AttackPicture,
  type AttackPoint,
  type AttackRecord,
  type AttackResult,
  type AttackSample,
  type AttackTarget,
  type AttackTargetParts,
  type AttackValue,
  type CollectOptions,
  collectAttackData,
  createAttackTarget,
  openAttackTarget,
  type PixelEncoding,
  resizePicture,
  selectRecords,
} from './attack.js';
export {
  createReleaseSource,
  createTrainingNoise,
  type ReleaseKeys,
  type ReleaseSource,
  type ReleaseSourceTarget,
  type TrainingNoise,
} from './attack-releases.js';
export {
  judgeLiveness,
  type Liveness,
  type LivenessInput,
  type PictureScores,
  summarizeValue,
  type ValueKind,
} from './attack-result.js';
export {
  createReconstructionFitter,
  type LinearReconstruction,
  type ReconstructionFitter,
  reconstruct,
} from './linear-reconstruction.js';
