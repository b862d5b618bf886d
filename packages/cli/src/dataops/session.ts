/**
 * What every command of this folder shares: the flags for cluster, deadline, dry run and output; the connection; how
 * results are printed. @scrim/dataops is loaded only when a command runs.
 */
import type { DataopsEvent, KubeClient, Manifest, OperationOptions } from '@scrim/dataops';
import { type Command, Option } from 'commander';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';
import { formatTable } from '../table.js';
import { lineOf } from './lines.js';

/** The library, loaded. */
export type Dataops = typeof import('@scrim/dataops');

/** Values of the shared flags. */
export interface SharedFlags {
  readonly namespace: string;
  readonly context?: string;
  readonly kubeconfig?: string;
  readonly timeout?: number;
  readonly dryRun?: 'client' | 'server';
  readonly output?: 'yaml' | 'json' | 'table';
}

/** One run of a command. */
export interface Session {
  readonly dataops: Dataops;
  readonly client: KubeClient;
  readonly context: CommandContext;
  readonly flags: SharedFlags;
  /** Namespace, deadline, cancellation, dry run and progress for a call of the library. */
  readonly operation: OperationOptions;
  /** Prints a line of the text output; with -o yaml or json it goes to stderr. */
  say(line: string): void;
  /** Prints a list: `columns` for people, `items` for programs. */
  list<T>(items: readonly T[], columns: Readonly<Record<string, (item: T) => string>>): void;
  /** Prints what was made; does nothing in text output, except in a dry run. */
  made(result: { readonly manifests?: readonly Manifest[] }): void;
}

/**
 * Adds the flags every command has. `shortOutput` is false where -o means something else; `dryRun` is 'server' where what
 * would be done depends on what is there.
 */
export function shared(
  command: Command,
  { shortOutput = true, dryRun = false }: { readonly shortOutput?: boolean; readonly dryRun?: boolean | 'server' } = {},
): Command {
  command
    .option('-n, --namespace <name>', 'Kubernetes namespace', 'default')
    .option('--context <name>', 'context of the kubeconfig; default: the current one')
    .option('--kubeconfig <file>', 'kubeconfig; default: $KUBECONFIG, else ~/.kube/config, else the pod')
    .addOption(
      new Option('--timeout <duration>', "give up after this long, such as 90s, 10m or 1h; default '10m'").argParser(
        duration,
      ),
    )
    .addOption(
      new Option(`${shortOutput ? '-o, ' : ''}--output <format>`, 'print yaml, json or text').choices([
        'yaml',
        'json',
        'table',
      ]),
    );
  if (dryRun === 'server') {
    command.addOption(
      new Option('--dry-run <where>', "'server': have the server check it, and change nothing").choices(['server']),
    );
  } else if (dryRun) {
    command.addOption(
      new Option('--dry-run <where>', "'client': only write the objects; 'server': have the server check them").choices(
        ['client', 'server'],
      ),
    );
  }
  return command;
}

/** Runs `task` with a connection; the library's events become the toolkit's lines. */
export async function inSession(
  context: CommandContext,
  flags: SharedFlags,
  task: (session: Session) => Promise<void>,
  line: (event: DataopsEvent) => string | undefined = lineOf,
): Promise<void> {
  const dataops = await import('@scrim/dataops');
  const machine = flags.output === 'yaml' || flags.output === 'json';
  const say = (text: string): void => (machine ? context.remark(text) : context.print(text));
  const connection = dataops.connect({
    ...(flags.kubeconfig === undefined ? {} : { kubeconfig: flags.kubeconfig }),
    ...(flags.context === undefined ? {} : { context: flags.context }),
  });
  context.onClose(() => connection.close());
  const operation: OperationOptions = {
    namespace: flags.namespace,
    signal: context.signal,
    onProgress: (event) => {
      if (event.type === 'warning') context.remark(`warning: ${event.message}`);
      else if (event.type === 'rolled-back') context.remark(`removed ${event.kind} '${event.name}' again`);
      else if (flags.dryRun === undefined) {
        const text = line(event);
        if (text !== undefined) say(text);
      } else if (event.type === 'deleting') {
        say(`${event.kind} '${event.name}' would be deleted (dry run of the ${flags.dryRun}).`);
      }
    },
    ...(flags.timeout === undefined ? {} : { timeoutMs: flags.timeout }),
    ...(flags.dryRun === undefined ? {} : { dryRun: flags.dryRun }),
  };
  await task({
    dataops,
    client: new dataops.KubeClient(connection),
    context,
    flags,
    operation,
    say: (text) => {
      if (flags.dryRun === undefined) say(text);
    },
    list: (items, columns) => {
      if (flags.output === 'json') context.printJson(items);
      else if (flags.output === 'yaml') context.print(dataops.toYaml(items));
      else {
        const cells = Object.values(columns);
        context.print(
          formatTable(
            Object.keys(columns),
            items.map((item) => cells.map((cell) => cell(item))),
          ),
        );
      }
    },
    made: (result) => {
      if (flags.output === 'json') context.printJson(result);
      else if (flags.output === 'yaml') context.print(dataops.manifestsYaml(result.manifests ?? []));
      else if (flags.dryRun !== undefined) {
        for (const { kind, metadata } of result.manifests ?? []) {
          context.print(`${kind} '${metadata.name}' would be created (dry run of the ${flags.dryRun}).`);
        }
      }
    },
  });
}

/** Milliseconds of '90s', '10m', '1h', '500ms'; a bare number counts seconds. @throws INVALID_ARGUMENT */
export function duration(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+(?:\.\d+)?)(ms|s|m|h|)$/.exec(text) ?? [];
  const factor = { ms: 1, s: 1_000, '': 1_000, m: 60_000, h: 3_600_000 }[unit];
  const value = digits === '' || factor === undefined ? 0 : Number(digits) * factor;
  if (!(value > 0))
    throw new ScrimError('INVALID_ARGUMENT', `the duration is '${text}', expected one such as 90s, 10m or 1h`);
  return value;
}

/** A flag's number; undefined where it was not given. @throws INVALID_ARGUMENT */
export function numberOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isNaN(value)) throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected a number`);
  return value;
}

/** NAME=VALUE flags as a record; undefined where none was given. `expected` says what they look like. @throws INVALID_ARGUMENT */
export function pairsOf(
  flag: string,
  texts: readonly string[] | undefined,
  expected: string,
): Readonly<Record<string, string>> | undefined {
  if (texts === undefined) return undefined;
  const pairs = texts.map((text) => {
    const at = text.indexOf('=');
    if (at < 1) throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected ${expected}`);
    return [text.slice(0, at), text.slice(at + 1)];
  });
  return Object.fromEntries(pairs);
}

/** A flag that is given again and again, collected. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

/** Copies the entries of `flags` that were given, under the names on the right. */
export function given<T extends object>(values: { [P in keyof T]: T[P] | undefined }): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}
