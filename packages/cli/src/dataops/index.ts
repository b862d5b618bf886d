/** The Kubernetes commands of `scrim`: TR-4928's, with `scrim` in place of `netapp_dataops_k8s_cli.py`. */
import type { Command } from 'commander';
import type { CommandContext } from '../context.js';
import { registerBatchInference } from './batch-inference.js';
import { registerCaConfigMap } from './ca-config-map.js';
import { registerFlexCache } from './flexcache.js';
import { registerJupyterLab } from './jupyterlab.js';
import { registerJupyterLabSnapshot } from './jupyterlab-snapshot.js';
import { registerRepoPush } from './repo-push.js';
import { registerS3Job } from './s3-job.js';
import { registerS3Secret } from './s3-secret.js';
import { registerS3Transfer } from './s3-transfer.js';
import { registerSync } from './sync.js';
import { registerTritonServer } from './triton-server.js';
import { addVerbs } from './verbs.js';
import { registerVolume } from './volume.js';
import { registerVolumeSnapshot } from './volume-snapshot.js';

/** Adds the Kubernetes commands to the program. */
export function registerDataopsCommands(program: Command, context: CommandContext): void {
  const verbs = addVerbs(program);
  registerVolume(verbs, context);
  registerVolumeSnapshot(verbs, context);
  registerFlexCache(verbs, context);
  registerJupyterLab(verbs, context);
  registerJupyterLabSnapshot(verbs, context);
  registerTritonServer(verbs, context);
  registerS3Secret(verbs, context);
  registerCaConfigMap(verbs, context);
  registerS3Transfer(verbs, context);
  registerS3Job(verbs, context);
  registerSync(program, verbs, context);
  registerBatchInference(verbs, context);
  registerRepoPush(verbs, context);
}
