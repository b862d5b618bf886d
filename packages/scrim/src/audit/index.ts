/** `scrim/audit`: what an attacker makes of a release. */
export {
  createReconstructionFitter,
  type LinearReconstruction,
  type ReconstructionFitter,
  reconstruct,
} from './linear-reconstruction.js';
