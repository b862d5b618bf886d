// How long does a person wait? Wall time of whole commands, `scrim` against NetApp's DataOps Toolkit for Kubernetes 3.1.0
// (netapp-dataops-k8s from PyPI), both on the same cluster in the same run, in turns. The cluster is that of test/cluster:
// a real API server, controllers and scheduler; node and storage are simulated and ready within a fraction of a second,
// so what is measured is the tools' own waiting. Then, on such a cluster with a real S3 server and real rclone in the
// pods: how many of 1,000 files does a synchronisation move when 10 have changed? The toolkit has nothing like it: its
// put-s3 copies with 'mc cp', which moves all 1,000. Needs a built tree, root (the cluster's packages), Python 3, Go 1.21.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createViteServer } from 'vitest/node';

const ROUNDS = Number(process.env.ROUNDS ?? 3);
const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const print = (text) => process.stdout.write(`${text}\n`);

/** Python of a virtual environment with the toolkit; made once, outside the checkout. */
function toolkitPython() {
  const venv =
    process.env.SCRIM_TOOLKIT_VENV ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'scrim-toolkit');
  if (!existsSync(join(venv, 'bin/netapp_dataops_k8s_cli.py'))) {
    execFileSync('python3', ['-m', 'venv', venv], { stdio: 'inherit' });
    const install = ['-m', 'pip', 'install', '-q', '-r', path('peers/dataops-requirements.txt')];
    execFileSync(join(venv, 'bin/python'), install, { stdio: 'inherit' });
  }
  return venv;
}

/** Runs a command to its end; returns seconds. */
async function time(command, args, env) {
  const start = performance.now();
  await outputOf(command, args, env);
  return (performance.now() - start) / 1000;
}

/** Runs a command to its end; returns what it wrote to stdout. */
function outputOf(command, args, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    child.stdout.on('data', (text) => {
      output += text;
    });
    child.stderr.on('data', (text) => {
      errors += text;
    });
    child.once('close', (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${command} ${args.join(' ')} ended with ${code}:\n${output}${errors}`));
    });
  });
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const vite = await createViteServer({
  configFile: path('../test/cluster/vitest.config.ts'),
  server: { middlewareMode: true, hmr: false, watch: null },
  appType: 'custom',
  logLevel: 'error',
});
const load = (name) => vite.ssrLoadModule(path(`../test/cluster/${name}.ts`));

/** Wall time of commands, in turns with the toolkit. */
async function compareCommands() {
  const { startTestCluster } = await load('test-cluster');
  const cluster = await startTestCluster();
  try {
    const venv = toolkitPython();
    const namespace = await cluster.createNamespace();
    const env = { KUBECONFIG: cluster.kubeconfig('admin') };
    const tools = {
      scrim: (args) => time(process.execPath, [path('../packages/cli/bin/scrim.js'), ...args, '-n', namespace], env),
      toolkit: (args) =>
        time(join(venv, 'bin/python'), [join(venv, 'bin/netapp_dataops_k8s_cli.py'), ...args, '-n', namespace], env),
    };
    const image = 'nvcr.io/nvidia/tritonserver:25.01-py3';
    // Each command works on what the one before it made.
    const commands = {
      'create volume': (name) => ['create', 'volume', '-p', name, '-s', '1Gi'],
      'create volume-snapshot': (name) => ['create', 'volume-snapshot', '-p', name, '-s', `${name}-snapshot`],
      'clone volume': (name) => ['clone', 'volume', '-p', `${name}-clone`, '-v', name],
      'create triton-server': (name) => ['create', 'triton-server', '-s', name, '-v', name, '-i', image],
    };
    const seconds = Object.fromEntries(Object.keys(commands).map((command) => [command, { scrim: [], toolkit: [] }]));
    for (let round = 0; round < ROUNDS; round++) {
      for (const [command, args] of Object.entries(commands)) {
        for (const [tool, run] of Object.entries(tools)) {
          seconds[command][tool].push(await run(args(`${tool}-${round}`)));
        }
      }
    }
    print(`median wall time of ${ROUNDS} runs of each command, same cluster, in turns`);
    print('command                  scrim     toolkit   ratio');
    let within = true;
    for (const [command, { scrim, toolkit }] of Object.entries(seconds)) {
      const ratio = median(scrim) / median(toolkit);
      within &&= ratio <= 0.5;
      const cells = [`${median(scrim).toFixed(2)} s`, `${median(toolkit).toFixed(2)} s`].map((cell) => cell.padEnd(10));
      print(`${command.padEnd(25)}${cells.join('')}${ratio.toFixed(2)}`);
    }
    print(`every ratio at most 0.5: ${within ? 'yes' : 'no'}`);
    return within;
  } finally {
    await cluster.stop();
  }
}

const FILES = 1_000;
const CHANGED = 10;

/** What a synchronisation of a volume to a bucket moves: all, then what changed, then nothing. */
async function countMoved() {
  const { eventually, startControlPlane } = await load('control-plane');
  const { startProcessNode } = await load('process-node');
  const { startStorageSimulator } = await load('storage-simulator');
  const { startS3Server } = await load('s3-server');
  const s3 = await startS3Server('faces');
  const plane = await startControlPlane();
  const storage = await startStorageSimulator(plane.api, plane.directory, { delayMs: 0 });
  const node = await startProcessNode(plane.api, storage, join(plane.directory, 'certs'), { rclone: s3.rclone });
  try {
    const namespace = 'sync';
    const env = { KUBECONFIG: plane.kubeconfig('admin') };
    const scrim = (...args) => {
      const argv = [path('../packages/cli/bin/scrim.js'), ...args, '-n', namespace];
      return time(process.execPath, argv, env);
    };
    await plane.api.ensure('/api/v1/namespaces', {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace },
    });
    await eventually(30_000, () => plane.api.get(`/api/v1/namespaces/${namespace}/serviceaccounts/default`));
    const certificate = join(s3.folder, 'cert.pem');
    await scrim('create', 's3-secret', '-d', 'keys', '-a', s3.accessKey, '-s', s3.secretKey);
    await scrim('create', 'ca-config-map', '-c', 'ca', '-f', certificate);
    await scrim('create', 'volume', '-p', 'data', '-s', '1Gi');
    const volume = await storage.directoryOf(namespace, 'data');
    const target = join(s3.folder, 'data/faces');
    const name = (i) => join(`d${i % 10}`, `f${i}.bin`);
    for (let i = 0; i < 10; i++) mkdirSync(join(volume, `d${i}`), { recursive: true });
    for (let i = 0; i < FILES; i++) writeFileSync(join(volume, name(i)), `${i}`.repeat(500));
    const server = ['--s3-host', '127.0.0.1', '--s3-port', String(s3.port), '-c', 'keys', '-m', 'ca'];
    const sync = async () => {
      const argv = [path('../packages/cli/bin/scrim.js'), 'sync', '--from', 'pvc:data', '--to', 's3:faces'];
      const start = performance.now();
      const output = await outputOf(
        process.execPath,
        [...argv, ...server, '--follow', '-o', 'json', '-n', namespace],
        env,
      );
      const { moved, bytes, checked } = JSON.parse(output).statistics;
      return { moved, bytes, checked, seconds: (performance.now() - start) / 1000 };
    };
    const rows = { 'first time': await sync() };
    for (let i = 0; i < CHANGED; i++) writeFileSync(join(volume, name(i * 97)), `changed ${i}`);
    rows[`${CHANGED} files changed`] = await sync();
    rows['nothing changed'] = await sync();
    let same = true;
    for (let i = 0; i < FILES; i++)
      same &&= readFileSync(join(volume, name(i))).equals(readFileSync(join(target, name(i))));
    print(
      `\nsync of ${FILES.toLocaleString('en')} files from a volume to S3, checksums of all files compared in each run`,
    );
    print('                     moved   bytes     compared  wall time');
    for (const [what, { moved, bytes, checked, seconds }] of Object.entries(rows)) {
      const cells = [String(moved).padEnd(8), String(bytes).padEnd(10), String(checked).padEnd(10)];
      print(`${what.padEnd(21)}${cells.join('')}${seconds.toFixed(2)} s`);
    }
    const exact =
      Object.values(rows)
        .map(({ moved }) => moved)
        .join() === [FILES, CHANGED, 0].join();
    print(
      `moves exactly what changed: ${exact ? 'yes' : 'no'}; both sides the same, byte for byte: ${same ? 'yes' : 'no'}`,
    );
    return exact && same;
  } finally {
    await node.stop();
    await storage.stop();
    await plane.stop();
    s3.stop();
  }
}

const parts = { commands: compareCommands, sync: countMoved };
const chosen = process.argv.slice(2);
for (const part of chosen) {
  if (!(part in parts)) throw new Error(`there is no part '${part}', expected ${Object.keys(parts).join(' or ')}`);
}
try {
  let good = true;
  for (const [part, measure] of Object.entries(parts)) {
    if (chosen.length === 0 || chosen.includes(part)) good = (await measure()) && good;
  }
  process.exitCode = good ? 0 : 1;
} finally {
  await vite.close();
}
