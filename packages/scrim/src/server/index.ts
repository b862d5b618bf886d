/** `scrim/server`: an inference server that speaks KServe v2 as Triton does; the network is node/'s. */
export { errorAnswer } from './http-handler.js';
export {
  type ControlMode,
  createInferenceServer,
  type InferenceServerOptions,
} from './inference-server.js';
export type { EngineFactory, EngineRequest } from './model-instance.js';
export type { ServerEvent } from './model-registry.js';
export {
  MemoryRepository,
  type ModelFiles,
  type ModelFolder,
  type ModelRepository,
  openModelFiles,
} from './model-repository.js';
export type { Clock } from './served-model.js';
export type { Caller, HttpAnswer, HttpCall, InferenceServer } from './server-api.js';
export { spentBuffers } from './spent-buffers.js';
