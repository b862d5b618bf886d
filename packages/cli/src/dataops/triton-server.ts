/** `scrim create|delete|list triton-server`. */
import type { CreateTritonServerOptions, TritonAutoscale, TritonEndpoints } from '@scrim/dataops';
import { type Command, Option } from 'commander';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { agreed } from './ask.js';
import { type ContainerFlags, containerFlags, resourcesOf } from './container-flags.js';
import { duration, given, inSession, numberOf, type SharedFlags, shared } from './session.js';
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
  readonly replicas?: string;
  readonly autoscale?: string;
  readonly queueTime?: number;
  readonly target?: Target;
}

type Target = 'deployment' | 'kserve';

function targetFlag(command: Command): Command {
  return command.addOption(
    new Option(
      '--target <kind>',
      "what runs the server: a 'deployment' (default), or 'kserve' by an InferenceService",
    ).choices(['deployment', 'kserve']),
  );
}

function createServer(create: Command, context: CommandContext): void {
  const command = containerFlags(
    shared(create.command('triton-server').aliases(['triton']).description('make an NVIDIA Triton Inference Server'), {
      dryRun: true,
    })
      .requiredOption('-s, --server-name <name>', 'name of the new server')
      .requiredOption('-v, --model-repo-pvc-name <name>', 'claim with the model repository')
      .option('-i, --image <image>', "container image; default: 'nvcr.io/nvidia/tritonserver:21.11-py3'")
      .option('-b, --load-balancer', 'Service of type LoadBalancer instead of NodePort')
      .option('--replicas <n>', 'number of servers; default: 1')
      .option('--autoscale <min-max>', 'let the number of servers follow the queue, such as 1-4')
      .option('--queue-time <duration>', 'average wait in the queue that adds a server; default: 10ms', duration),
  );
  targetFlag(command).action((flags: CreateFlags) =>
    inSession(context, flags, async ({ dataops, client, operation, made, say }) => {
      const { serverName, modelRepoPvcName, image, loadBalancer } = flags;
      const autoscale = autoscaleOf(flags);
      const replicas = numberOf('--replicas', flags.replicas);
      if (flags.target === 'kserve') {
        refuseWithKServe(flags);
        const service = await dataops.createInferenceService(client, {
          ...operation,
          serverName,
          modelRepoPvcName,
          resources: resourcesOf(flags),
          ...given<{ image: string; minReplicas: number; maxReplicas: number }>({
            image,
            minReplicas: autoscale?.minReplicas ?? replicas,
            maxReplicas: autoscale?.maxReplicas ?? replicas,
          }),
        });
        if (service.ready) say('Server successfully created.');
        if (service.url !== undefined) say(`Server endpoints:\nhttp: ${service.url}`);
        made(service);
        return;
      }
      const result = await dataops.createTritonServer(client, {
        ...operation,
        serverName,
        modelRepoPvcName,
        resources: resourcesOf(flags),
        ...given<Pick<CreateTritonServerOptions, 'image' | 'loadBalancer' | 'replicas' | 'autoscale'>>({
          image,
          loadBalancer,
          replicas,
          autoscale,
        }),
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

/** Reachability and scaling are KServe's own business. @throws INVALID_ARGUMENT for flags that would be without effect */
function refuseWithKServe({ queueTime, loadBalancer }: CreateFlags): void {
  const flag = queueTime === undefined ? (loadBalancer ? '--load-balancer' : undefined) : '--queue-time';
  if (flag === undefined) return;
  throw new ScrimError(
    'INVALID_ARGUMENT',
    `${flag} has no effect with --target kserve: KServe goes by its own settings`,
  );
}

const DEFAULT_QUEUE_TIME_MS = 10;

function autoscaleOf({ autoscale, queueTime }: CreateFlags): TritonAutoscale | undefined {
  if (autoscale === undefined) return undefined;
  const [, least, most] = /^(\d+)-(\d+)$/.exec(autoscale) ?? [];
  if (least === undefined || most === undefined) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `--autoscale is '${autoscale}', expected the least and the most servers, such as 1-4`,
    );
  }
  return { minReplicas: Number(least), maxReplicas: Number(most), queueTimeMs: queueTime ?? DEFAULT_QUEUE_TIME_MS };
}

function deleteServer(remove: Command, context: CommandContext): void {
  targetFlag(
    shared(remove.command('triton-server').aliases(['triton']).description('delete a server; its models stay'), {
      dryRun: 'server',
    }),
  )
    .requiredOption('-s, --server-name <name>', 'server to delete')
    .option('-f, --force', 'do not ask')
    .action(
      (flags: SharedFlags & { readonly serverName: string; readonly force?: boolean; readonly target?: Target }) =>
        inSession(context, flags, async ({ dataops, client, operation, say }) => {
          const warning = 'Warning: This server will be permanently deleted.';
          if (!(await agreed(flags, warning, context))) return;
          const { serverName, namespace } = flags;
          say(`Deleting server '${serverName}' in namespace '${namespace}'.`);
          say('Note: this operation does NOT delete the model repository PVC.');
          if (flags.target === 'kserve') await dataops.deleteInferenceService(client, { ...operation, serverName });
          else await dataops.deleteTritonServer(client, { ...operation, serverName });
          say('Triton Server instance successfully deleted.');
        }),
    );
}

function listServers(list: Command, context: CommandContext): void {
  targetFlag(
    shared(
      list
        .command('triton-servers')
        .aliases(['triton-server', 'triton_server', 'triton'])
        .description('list the Triton servers of a namespace'),
    ),
  ).action((flags: SharedFlags & { readonly target?: Target }) =>
    inSession(context, flags, async (session) => {
      if (flags.target === 'kserve') {
        session.list(await session.dataops.listInferenceServices(session.client, session.operation), {
          'Server Name': ({ name }) => name,
          Status: ({ ready }) => (ready ? 'Ready' : 'Not Ready'),
          URL: ({ url = 'unavailable' }) => url,
        });
        return;
      }
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
