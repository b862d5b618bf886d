import { availableParallelism } from 'node:os';
import { describe, expect, it } from 'vitest';
import { processorQuota, usableProcessors, withinQuota } from './usable-processors.js';

const quota = (files: Readonly<Record<string, string>>): number => processorQuota((path) => files[path]);

describe('processors', () => {
  it('are at least one and no more than there are', () => {
    expect(usableProcessors()).toBeGreaterThanOrEqual(1);
    expect(usableProcessors()).toBeLessThanOrEqual(availableParallelism());
  });

  it.each([
    [64, Number.POSITIVE_INFINITY, 64],
    [64, 2, 2],
    [64, 2.9, 2],
    [64, 0.5, 1],
    [2, 8, 2],
  ])('%d with a quota of %d are %d', (available, quota, expected) => {
    expect(withinQuota(available, quota)).toBe(expected);
  });

  it.each([
    ['no control groups', {}, Number.POSITIVE_INFINITY],
    ['v2, a container of its own', { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': '150000 100000\n' }, 1.5],
    ['v2 without a limit', { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': 'max 100000\n' }, Infinity],
    [
      'v2, the tightest of a group and those above it',
      {
        '/proc/self/cgroup': '0::/system.slice/scrim.service\n',
        '/sys/fs/cgroup/system.slice/scrim.service/cpu.max': '400000 100000\n',
        '/sys/fs/cgroup/system.slice/cpu.max': '200000 100000\n',
        '/sys/fs/cgroup/cpu.max': 'max 100000\n',
      },
      2,
    ],
    [
      'v1, named by a path that is not mounted in the container',
      {
        '/proc/self/cgroup': '9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n',
        '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '50000\n',
        '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000\n',
      },
      0.5,
    ],
    [
      'v1 without a limit',
      {
        '/proc/self/cgroup': '4:cpu:/\n',
        '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
        '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
      },
      Number.POSITIVE_INFINITY,
    ],
    ['what nobody expects there', { '/proc/self/cgroup': 'x\n0::/\n', '/sys/fs/cgroup/cpu.max': '\n' }, Infinity],
  ])('%s', (_, files, expected) => {
    expect(quota(files)).toBe(expected);
  });
});
