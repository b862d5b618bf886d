// How long does a person wait? Wall time of whole commands, `scrim` against NetApp's DataOps Toolkit for Kubernetes 3.1.0
// (netapp-dataops-k8s from PyPI), both on the same cluster in the same run, in turns. The cluster is that of test/cluster:
// a real API server, controllers and scheduler; node and storage are simulated and ready within a fraction of a second,
// so what is measured is the tools' own waiting. Needs a built tree, root (the cluster's packages) and Python 3.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
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
function time(command, args, env) {
  const start = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (text) => {
      output += text;
    });
    child.stderr.on('data', (text) => {
      output += text;
    });
    child.once('close', (code) => {
      if (code === 0) resolve((performance.now() - start) / 1000);
      else reject(new Error(`${command} ${args.join(' ')} ended with ${code}:\n${output}`));
    });
  });
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const venv = toolkitPython();
const vite = await createViteServer({
  configFile: path('../test/cluster/vitest.config.ts'),
  server: { middlewareMode: true, hmr: false, watch: null },
  appType: 'custom',
  logLevel: 'error',
});
const { startTestCluster } = await vite.ssrLoadModule(path('../test/cluster/test-cluster.ts'));
const cluster = await startTestCluster();
try {
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
} finally {
  await cluster.stop();
  await vite.close();
}
