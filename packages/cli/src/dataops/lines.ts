/** TR-4928's output lines: one for each event of @scrim/dataops that the toolkit speaks about. */
import type { DataopsEvent } from '@scrim/dataops';

/** The toolkit's line for an event, or undefined where it says nothing. */
export function lineOf(event: DataopsEvent): string | undefined {
  switch (event.type) {
    case 'step':
      return stepLine(event);
    case 'scaling':
      return `Scaling Deployment '${event.name}' in namespace '${event.namespace}' to ${event.replicas} pod(s).`;
    case 'warning':
    case 'adopted':
    case 'rolled-back':
      return undefined;
    default:
      return objectLine(event);
  }
}

type StepEvent = Extract<DataopsEvent, { type: 'step' }>;
type ObjectEvent = Extract<DataopsEvent, { readonly kind: unknown }>;

function stepLine({ step, name, namespace, source = '', fromSnapshot }: StepEvent): string | undefined {
  const where = `in namespace '${namespace}'`;
  switch (step) {
    case 'snapshot-for-clone':
      return `Creating new VolumeSnapshot '${name}' for source PVC '${source}' ${where} to use as source for clone...`;
    case 'clone-volume':
      return `Creating new PersistentVolumeClaim (PVC) '${name}' from VolumeSnapshot '${source}' ${where}...`;
    case 'volume-cloned':
      return 'Volume successfully cloned.';
    case 'workspace-volume':
      return 'Creating persistent volume for workspace...';
    case 'attach-volume':
      return `Attaching Additional PVC: '${name}' at mount_path: '${source}'.`;
    case 'clone-workspace':
      return `Creating new JupyterLab workspace '${name}' from ${fromSnapshot ? 'VolumeSnapshot' : 'source workspace'} '${source}' ${where}...`;
    case 'snapshot-workspace':
      return `Creating VolumeSnapshot for JupyterLab workspace '${name}' ${where}...`;
    case 'restore-workspace':
      return `Restoring VolumeSnapshot '${source}' for JupyterLab workspace '${name}' ${where}...`;
    case 'restore-volume':
      return `Restoring VolumeSnapshot '${source}' for PersistentVolumeClaim '${name}' ${where}.`;
    case 'volume-restored':
      return 'VolumeSnapshot successfully restored.';
    case 'delete-snapshots':
      return `Deleting all VolumeSnapshots associated with PersistentVolumeClaim (PVC) '${name}' ${where}...`;
    case 'delete-workspace-volume':
      return 'Deleting PVC...';
    default:
      return undefined;
  }
}

function objectLine({ type, kind, name, namespace, source = '' }: ObjectEvent): string | undefined {
  const where = `in namespace '${namespace}'`;
  const claim = `PersistentVolumeClaim (PVC) '${name}'`;
  const lines: Partial<Record<string, Partial<Record<ObjectEvent['type'], string>>>> = {
    PersistentVolumeClaim: {
      creating: `Creating ${claim} ${where}.`,
      created: `${claim} created. Waiting for Kubernetes to bind volume to PVC.`,
      ready: `Volume successfully created and bound to ${claim} ${where}.`,
      deleting: `Deleting ${claim} ${where} and associated volume.`,
      deleted: 'PersistentVolumeClaim (PVC) successfully deleted.',
    },
    Service: {
      creating: `Creating Service '${name}' ${where}.`,
      created: 'Service successfully created.',
      deleting: 'Deleting Service...',
    },
    Deployment: {
      creating: `Creating Deployment '${name}' ${where}.`,
      created: `Deployment '${name}' created.`,
      waiting: `Waiting for Deployment '${name}' to reach Ready state.`,
      ready: 'Deployment successfully created.',
      deleting: 'Deleting Deployment...',
    },
    VolumeSnapshot: {
      creating: `Creating VolumeSnapshot '${name}' for PersistentVolumeClaim (PVC) '${source}' ${where}.`,
      created: `VolumeSnapshot '${name}' created. Waiting for Trident to create snapshot on backing storage.`,
      ready: 'Snapshot successfully created.',
      deleting: `Deleting VolumeSnapshot '${name}' ${where}.`,
      deleted: 'VolumeSnapshot successfully deleted.',
    },
  };
  return lines[kind]?.[type];
}
