/** A Triton server as KServe runs it: an InferenceService over a volume with the model repository. */
import type { Manifest } from '../kube/kinds.js';
import { tritonLabels } from './labels.js';
import { type ContainerResources, resourceRequirements } from './resources.js';

/** The InferenceService. KServe's Triton runtime brings probes, arguments and the security context of its installation. */
export function tritonInferenceService(spec: {
  readonly server: string;
  readonly modelRepository: string;
  readonly image?: string;
  readonly resources?: ContainerResources;
  readonly minReplicas?: number;
  readonly maxReplicas?: number;
}): Manifest<'InferenceService'> {
  const { app: _app, ...labels } = tritonLabels(spec.server);
  const resources = resourceRequirements(spec.resources ?? {});
  return {
    apiVersion: 'serving.kserve.io/v1beta1',
    kind: 'InferenceService',
    metadata: { name: spec.server, labels },
    spec: {
      predictor: {
        ...(spec.minReplicas === undefined ? {} : { minReplicas: spec.minReplicas }),
        ...(spec.maxReplicas === undefined ? {} : { maxReplicas: spec.maxReplicas }),
        model: {
          modelFormat: { name: 'triton' },
          protocolVersion: 'v2',
          storageUri: `pvc://${spec.modelRepository}/`,
          ...(spec.image === undefined ? {} : { image: spec.image }),
          ...(resources === undefined ? {} : { resources }),
        },
      },
    },
  };
}
