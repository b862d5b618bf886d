/** `scrim/audit`: what an attacker makes of a release. */
export {
  type AttackBaseline,
  type AttackCurve,
  type AttackData,
  type AttackedModel,
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
  openCleanModel,
  type PixelEncoding,
  planesToImage,
  resizePicture,
  selectEvenly,
  selectRecords,
  type TrainingCheckpoint,
  type TrainingCheckpoints,
} from './attack.js';
export {
  createReleaseSource,
  createTrainingNoise,
  type ReleaseKeys,
  type ReleaseMechanism,
  type ReleaseSource,
  type ReleaseSourceTarget,
  releaseMechanism,
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
export {
  type AveragingAttack,
  type AveragingSettings,
  type BundleOfSeveral,
  runAveragingAttack,
  runSeveralAlphas,
} from './averaging.js';
export {
  type AttackCopies,
  type CopyMaker,
  collectCopies,
  neighbouringFrames,
  reencodedCopies,
  shiftedCopies,
} from './averaging-copies.js';
export { averageObject, type FloorGuesses, meanPhoto, pictureFloors, scorePictures } from './baselines.js';
export {
  type CompleteDecoderSettings,
  type DecoderSettings,
  type DecoderTarget,
  type TrainedDecoder,
  trainDecoder,
} from './decoder.js';
export {
  DECODER_SWEEP,
  type DecoderAttack,
  type DecoderAttackSettings,
  type DecoderVariant,
  type PictureAttackInput,
  type PictureCeiling,
  runDecoderAttack,
  runDecoderSweep,
  type TrialSettings,
  tryDecoder,
} from './decoder-attack.js';
export type { DecoderLoss, DecoderPlan, DecoderSize } from './decoder-graph.js';
export { type IdentityAttackInput, runIdentityAttack } from './identity.js';
export {
  createReconstructionFitter,
  type LinearReconstruction,
  type ReconstructionFitter,
  reconstruct,
} from './linear-reconstruction.js';
export { type LinkageAttackInput, runLinkageAttack } from './linkage.js';
export { type OptimisationSettings, pixelEncoding } from './optimisation.js';
export { type OptimisationAttackSettings, runOptimisationAttack } from './optimisation-attack.js';
export { type FaceAttackInput, runReidentification, runRightFace } from './re-identification.js';
export { type FaceScores, rankValue, summarizeFaceScores } from './re-identification-scores.js';
export type { ReleaseNetworkSettings } from './release-network.js';
export {
  type AttackVerdict,
  type AuditedBundle,
  type AuditReport,
  decodeAuditReport,
  encodeAuditReport,
  type ReportedAttack,
  recordableFigures,
  reportAttack,
  type TradeOff,
  tradeOffs,
} from './report.js';
export {
  collectVectorData,
  runVectorRegression,
  type VectorAttackInput,
  type VectorData,
  type VectorRecord,
  type VectorSample,
} from './vector-regression.js';
