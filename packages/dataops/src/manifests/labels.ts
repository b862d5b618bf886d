/** Labels of what this package makes. The toolkit's own stay, so that its lists and ours show the same objects. */
import { JUPYTERLAB_PREFIX, labelValue, TRITON_PREFIX } from '../naming.js';

/** Selects JupyterLab workspaces. */
export const JUPYTERLAB_SELECTOR = 'created-by=ntap-dsutil,entity-type=jupyterlab-workspace';
/** Selects Triton servers. */
export const TRITON_SELECTOR = 'created-by=ntap-dsutil,entity-type=triton_server';

/** Labels that every object carries. */
export function operationLabels(operation: string): Record<string, string> {
  return { 'created-by': 'ntap-dsutil', 'created-by-operation': operation };
}

/** Labels of a workspace's objects. `app` alone selects its pods. */
export function workspaceLabels(workspace: string, operation = 'create-jupyterlab'): Record<string, string> {
  return {
    ...operationLabels(operation),
    app: `${JUPYTERLAB_PREFIX}${workspace}`,
    'entity-type': 'jupyterlab-workspace',
    'jupyterlab-workspace-name': labelValue(workspace),
  };
}

/** Labels of a Triton server's objects. The toolkit gives it the `app` of a workspace, which mixes up their traffic. */
export function tritonLabels(server: string): Record<string, string> {
  return {
    ...operationLabels('create-triton-server'),
    app: `${TRITON_PREFIX}${server}`,
    'entity-type': 'triton_server',
    'triton-server-name': labelValue(server),
  };
}
