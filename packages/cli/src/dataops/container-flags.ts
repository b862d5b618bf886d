/** Flags that size a container: --cpu, --memory, --nvidia-gpu, --allocate-resource. */
import type { ContainerResources } from '@scrim/dataops';
import type { Command } from 'commander';
import { collect, given, numberOf, pairsOf } from './session.js';

/** Values of the flags. */
export interface ContainerFlags {
  readonly cpu?: string;
  readonly memory?: string;
  readonly nvidiaGpu?: string;
  readonly allocateResource?: readonly string[];
}

/** Adds the flags. */
export function containerFlags(command: Command): Command {
  return command
    .option('-g, --nvidia-gpu <n>', 'number of NVIDIA GPUs')
    .option('-m, --memory <amount>', 'memory, such as 1024Mi or 100Gi')
    .option('-p, --cpu <amount>', 'CPUs, such as 0.5 or 4')
    .option('-r, --allocate-resource <name=amount>', 'another resource, such as nvidia.com/mig-1g.5gb=1', collect);
}

/** The resources the flags ask for. @throws INVALID_ARGUMENT */
export function resourcesOf(flags: ContainerFlags): ContainerResources {
  const { cpu, memory } = flags;
  const gpus = numberOf('--nvidia-gpu', flags.nvidiaGpu);
  const others = pairsOf('--allocate-resource', flags.allocateResource, 'NAME=AMOUNT');
  return given<ContainerResources>({ cpu, memory, gpus, others });
}
