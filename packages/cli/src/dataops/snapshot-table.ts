/** The toolkit's table of snapshots, for volumes and workspaces. */
import type { VolumeSnapshotInfo } from '@scrim/dataops';
import type { Session } from './session.js';

/** Prints snapshots. */
export function listSnapshots(session: Session, snapshots: readonly VolumeSnapshotInfo[]): void {
  session.list(snapshots, {
    'VolumeSnapshot Name': ({ name }) => name,
    'Ready to Use': ({ readyToUse }) => (readyToUse ? 'True' : 'False'),
    'Creation Time': ({ creationTime }) => creationTime ?? '',
    'Source PersistentVolumeClaim (PVC)': ({ sourcePvc, sourceExists }) =>
      sourcePvc === undefined || sourceExists ? (sourcePvc ?? '') : '*deleted*',
    'Source JupyterLab workspace': ({ sourceWorkspace }) => sourceWorkspace ?? '',
    VolumeSnapshotClass: ({ volumeSnapshotClass }) => volumeSnapshotClass ?? '',
  });
}
