/** The toolkit's first words (`create volume`, `delete jupyterlab`, …) as commands that the second words are added to. */
import type { Command } from 'commander';

/** One command for each first word. */
export interface Verbs {
  readonly create: Command;
  readonly clone: Command;
  readonly delete: Command;
  readonly list: Command;
  readonly restore: Command;
  readonly show: Command;
  readonly getS3: Command;
  readonly putS3: Command;
  readonly run: Command;
  readonly repo: Command;
}

/** Adds the first words to the program; one that is there already is used. */
export function addVerbs(program: Command): Verbs {
  const verb = (name: string, description: string, aliases: readonly string[] = []): Command =>
    program.commands.find((command) => command.name() === name) ??
    program.command(name).aliases(aliases).description(description);
  return {
    create: verb('create', 'Kubernetes: make volumes, snapshots, workspaces, servers, secrets'),
    clone: verb('clone', 'Kubernetes: clone a volume or a workspace'),
    delete: verb('delete', 'Kubernetes: delete what create made', ['del', 'rm']),
    list: verb('list', 'Kubernetes: list volumes, snapshots, workspaces, servers', ['ls']),
    restore: verb('restore', 'Kubernetes: put a volume or a workspace back to a snapshot'),
    show: verb('show', 'Kubernetes: show how a transfer stands'),
    getS3: verb('get-s3', 'Kubernetes: copy a bucket or an object to a volume'),
    putS3: verb('put-s3', 'Kubernetes: copy a volume or a file to a bucket'),
    repo: verb('repo', 'Triton model repositories'),
    run: verb('run', 'Kubernetes: run an evaluation as a Job'),
  };
}
