/** `scrim create|delete|list triton-server`. */
import type { TritonEndpoints } from '@scrim/dataops';
import type { Command } from 'commander';
import type { CommandContext } from '../context.js';
import { confirm } from './ask.js';
import { type ContainerFlags, containerFlags, resourcesOf } from './container-flags.js';
import { given, inSession, type SharedFlags, shared } from './session.js';
import type { Verbs } from './verbs.js';

/** Adds the commands. */
export function registerTritonServer(verbs: Verbs, context: CommandContext): void {
  createServer(verbs.create, context);
  deleteServer(verbs.delete, context);
  listServers(verbs.list, context);
}

interface CreateFlags extends SharedFlags, ContainerFlags {
  readonly serverName: string;
  readonly modelRepoPvcName: string;
  readonly image?: string;
  readonly loadBalancer?: boolean;
}

function createServer(create: Command, context: CommandContext): void {
  containerFlags(
    shared(create.command('triton-server').aliases(['triton']).description('make an NVIDIA Triton Inference Server'), {
      dryRun: true,
    })
      .requiredOption('-s, --server-name <name>', 'name of the new server')
      .requiredOption('-v, --model-repo-pvc-name <name>', 'claim with the model repository')
      .option('-i, --image <image>', "container image; default: 'nvcr.io/nvidia/tritonserver:21.11-py3'")
      .option('-b, --load-balancer', 'Service of type LoadBalancer instead of NodePort'),
  ).action((flags: CreateFlags) =>
    inSession(context, flags, async ({ dataops, client, operation, made, say }) => {
      const { serverName, modelRepoPvcName, image, loadBalancer } = flags;
      const result = await dataops.createTritonServer(client, {
        ...operation,
        serverName,
        modelRepoPvcName,
        resources: resourcesOf(flags),
        ...given<{ image: string; loadBalancer: boolean }>({ image, loadBalancer }),
      });
      if (result.endpoints !== undefined) {
        const { host, http, grpc, metrics } = result.endpoints;
        say('Server successfully created.');
        say('Server endpoints:');
        say(`http: ${host}: ${http}`);
        say(`grpc: ${host}: ${grpc}`);
        say(`metrics: ${host}: ${metrics}/metrics`);
      }
      made(result);
    }),
  );
}

function deleteServer(remove: Command, context: CommandContext): void {
  shared(remove.command('triton-server').aliases(['triton']).description('delete a server; its models stay'))
    .requiredOption('-s, --server-name <name>', 'server to delete')
    .option('-f, --force', 'do not ask')
    .action((flags: SharedFlags & { readonly serverName: string; readonly force?: boolean }) =>
      inSession(context, flags, async ({ dataops, client, operation, say }) => {
        const warning = 'Warning: This server will be permanently deleted.';
        if (!flags.force && !(await confirm(warning, context.signal))) return;
        const { serverName, namespace } = flags;
        say(`Deleting server '${serverName}' in namespace '${namespace}'.`);
        say('Note: this operation does NOT delete the model repository PVC.');
        await dataops.deleteTritonServer(client, { ...operation, serverName });
        say('Triton Server instance successfully deleted.');
      }),
    );
}

function listServers(list: Command, context: CommandContext): void {
  shared(
    list
      .command('triton-servers')
      .aliases(['triton-server', 'triton_server', 'triton'])
      .description('list the Triton servers of a namespace'),
  ).action((flags: SharedFlags) =>
    inSession(context, flags, async (session) => {
      const servers = await session.dataops.listTritonServers(session.client, session.operation);
      const endpoint = (endpoints: TritonEndpoints | undefined, port: 'http' | 'grpc' | 'metrics'): string =>
        endpoints === undefined ? 'unavailable' : `${endpoints.host}:${endpoints[port]}`;
      session.list(servers, {
        'Server Name': ({ name }) => name,
        Status: ({ ready }) => (ready ? 'Ready' : 'Not Ready'),
        'HTTP Endpoint': ({ endpoints }) => endpoint(endpoints, 'http'),
        'gRPC Endpoint': ({ endpoints }) => endpoint(endpoints, 'grpc'),
        'Metrics Endpoint': ({ endpoints }) => endpoint(endpoints, 'metrics'),
      });
    }),
  );
}
