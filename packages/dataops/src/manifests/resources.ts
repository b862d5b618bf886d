/** Requests and limits of a container, as the flags of TR-4928 give them: the same amount for both. */
import type { V1ResourceRequirements } from '@kubernetes/client-node';
import { assertArgument } from '../argument.js';
import { checkQuantity } from '../naming.js';

/** What a container is given. */
export interface ContainerResources {
  /** CPU, such as '4' or '500m'. */
  readonly cpu?: string;
  /** Memory, such as '32Gi'. */
  readonly memory?: string;
  /** Number of NVIDIA GPUs. */
  readonly gpus?: number;
  /** Further resources by name, such as { 'nvidia.com/mig-1g.5gb': '1' }. */
  readonly others?: Readonly<Record<string, string>>;
}

/** The `resources` of a container; undefined where nothing was asked for. @throws INVALID_ARGUMENT */
export function resourceRequirements(resources: ContainerResources): V1ResourceRequirements | undefined {
  const amounts: Record<string, string> = {};
  if (resources.cpu !== undefined) amounts.cpu = resources.cpu;
  if (resources.memory !== undefined) amounts.memory = resources.memory;
  if (resources.gpus !== undefined) {
    assertArgument(
      Number.isSafeInteger(resources.gpus) && resources.gpus >= 0,
      `gpus is ${resources.gpus}, expected a whole number of at least 0`,
    );
    if (resources.gpus > 0) amounts['nvidia.com/gpu'] = String(resources.gpus);
  }
  Object.assign(amounts, resources.others);
  for (const [name, amount] of Object.entries(amounts)) checkQuantity(`the amount of ${name}`, amount);
  return Object.keys(amounts).length === 0 ? undefined : { requests: { ...amounts }, limits: { ...amounts } };
}
