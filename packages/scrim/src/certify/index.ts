/** `scrim/certify`: what holds whatever an attacker does, and under which assumptions. */
export { type Certificate, type CertifyOptions, certifyBundle } from './certificate.js';
export type { CertifiedFigure, CertifiedOdds, CertifiedReconstruction, InputUnit } from './certificate-figures.js';
export { createFisherProbe, type FisherEstimate, type FisherProbe, type FisherProbeOptions } from './fisher-probe.js';
export { type InferenceOdds, inferenceOdds } from './inference-odds.js';
export { informationLimit } from './information-limit.js';
export type { InputRegion } from './input-region.js';
export { reconstructionLimit } from './reconstruction-limit.js';
export { createReferenceLimit, type ReferenceLimit } from './reference-limit.js';
export { createReleasedSignal, type ReleasedSignal } from './released-signal.js';
export { createSignalStatistics, type SignalStatistics, type SignalVariances } from './signal-variance.js';
