/** `scrim/autodiff`: gradients of ONNX graphs as ONNX graphs, and optimizers. */
export * from './gradients.js';
export * from './optimizers.js';
