/**
 * How many processors this process may use: those of its affinity, and no more than the CPU quota of its control group.
 *
 * A container with a CPU limit sees all processors of its node. Threads beyond the limit use up the quota of a period
 * early, and then the kernel stops all of them until the next one. libuv, and so Node's `availableParallelism`, looks at the
 * quota from 1.49 on; Node 20 has 1.46. Files as Linux documents them: cgroup v2, "cpu.max"; v1, "cpu.cfs_quota_us" and "cpu.cfs_period_us".
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Reads a text file; undefined if it is not there. */
export type ReadText = (path: string) => string | undefined;

const GROUPS = '/sys/fs/cgroup';

/** Processors to spread work over, at least 1. */
export function usableProcessors(): number {
  return withinQuota(availableParallelism(), processorQuota(readText));
}

/** Whole processors of `available` that a quota pays for, at least 1. */
export function withinQuota(available: number, quota: number): number {
  return Math.max(1, Math.min(available, Math.floor(quota)));
}

/** CPU time a second that the control group of this process and all above it allow, in seconds; Infinity without a limit. */
export function processorQuota(read: ReadText): number {
  let least = Number.POSITIVE_INFINITY;
  for (const line of (read('/proc/self/cgroup') ?? '').split('\n')) {
    const [, id, controllers = '', path = ''] = /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? [];
    if (id === undefined) continue;
    if (controllers === '') {
      for (const folder of upwards(GROUPS, path)) least = Math.min(least, quotaOf(read(`${folder}/cpu.max`)));
    } else if (controllers.split(',').includes('cpu')) {
      for (const root of new Set([`${GROUPS}/${controllers}`, `${GROUPS}/cpu`])) {
        for (const folder of upwards(root, path)) {
          const [quota, period] = [read(`${folder}/cpu.cfs_quota_us`), read(`${folder}/cpu.cfs_period_us`)];
          least = Math.min(least, quotaOf(`${quota?.trim()} ${period?.trim()}`));
        }
      }
    }
  }
  return least;
}

/** The folder of a group and of those above it. In a container some lie outside what is mounted, and can't be read. */
function upwards(root: string, path: string): string[] {
  const names = path.split('/').filter((name) => name !== '');
  return Array.from({ length: names.length + 1 }, (_, i) => [root, ...names.slice(0, names.length - i)].join('/'));
}

/** 'QUOTA PERIOD' in microseconds; 'max' or −1 is none. */
function quotaOf(text = ''): number {
  const [quota, period] = text.trim().split(/\s+/).map(Number);
  return quota !== undefined && period !== undefined && quota > 0 && period > 0
    ? quota / period
    : Number.POSITIVE_INFINITY;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
