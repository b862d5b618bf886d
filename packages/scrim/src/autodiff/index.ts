/** `scrim/autodiff`: gradients of ONNX graphs as ONNX graphs, and optimizers. */
export type { GradientTarget } from './emitter.js';
export * from './gradients.js';
export * from './optimizers.js';
