/** What a running operation tells its caller; the command line turns these into TR-4928's lines. */
import type { Kind } from './kube/kinds.js';

/** Stages of operations that have several, in the words of the code. */
export type DataopsStep =
  | 'snapshot-for-clone'
  | 'clone-volume'
  | 'clone-workspace'
  | 'volume-restored'
  | 'volume-cloned'
  | 'workspace-volume'
  | 'attach-volume'
  | 'snapshot-workspace'
  | 'restore-volume'
  | 'restore-workspace'
  | 'delete-snapshots'
  | 'delete-workspace-volume'
  | 'create-flexcache'
  | 'flexcache-created'
  | 'delete-flexcache'
  | 'flexcache-deleted';

/** One event; `namespace` is where the object is or would be. */
export type DataopsEvent =
  | {
      readonly type: 'creating' | 'created' | 'adopted' | 'waiting' | 'ready' | 'deleting' | 'deleted' | 'rolled-back';
      readonly kind: Kind;
      readonly name: string;
      readonly namespace: string;
      /** For snapshots: the volume they are of; for a FlexCache's volume and claim: the other one. */
      readonly source?: string;
    }
  | {
      readonly type: 'step';
      readonly step: DataopsStep;
      readonly namespace: string;
      /** What the step is about, and what it is made from or mounted at. */
      readonly name: string;
      readonly source?: string;
      /** For clones: the source is a snapshot. */
      readonly fromSnapshot?: boolean;
    }
  | { readonly type: 'scaling'; readonly name: string; readonly namespace: string; readonly replicas: number }
  | { readonly type: 'warning'; readonly message: string };
