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
  type AttributeAttackInput,
  type AttributeAttackSettings,
  type NetworkTarget,
  runAttributeAttack,
} from './attribute.js';
export { type IdentityAttackInput, runIdentityAttack } from './identity.js';
export {
  createReconstructionFitter,
  type LinearReconstruction,
  type ReconstructionFitter,
  reconstruct,
} from './linear-reconstruction.js';
export { type LinkageAttackInput, runLinkageAttack } from './linkage.js';
export { type FaceAttackInput, runReidentification, runRightFace } from './re-identification.js';
export { type FaceScores, rankValue, summarizeFaceScores } from './re-identification-scores.js';
export type { ReleaseNetworkSettings } from './release-network.js';
export {
  collectVectorData,
  runVectorRegression,
  type VectorAttackInput,
  type VectorData,
  type VectorRecord,
  type VectorSample,
} from './vector-regression.js';
