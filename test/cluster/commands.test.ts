/** The commands of `scrim` against a real API server: TR-4928's lines in their order, aliases, formats, exit codes. */
import { execFileSync } from 'node:child_process';
import { Command, CommanderError } from 'commander';
import { ScrimError } from 'scrim';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { CommandContext } from '../../packages/cli/src/context.js';
import { registerDataopsCommands } from '../../packages/cli/src/dataops/index.js';
import { startOntapServer } from '../ontap-server.js';
import { NODE_ADDRESS } from './node-simulator.js';
import { startTestCluster, type TestCluster } from './test-cluster.js';

let cluster: TestCluster;
let namespace: string;

beforeAll(async () => {
  cluster = await startTestCluster();
});
afterAll(() => cluster?.stop());
beforeEach(async () => {
  namespace = await cluster.createNamespace();
});

interface Outcome {
  readonly code: number;
  readonly stdout: string[];
  readonly stderr: string[];
}

/** Runs a command line as `scrim` does; `input` is what standard input holds. */
async function scrim(
  line: string,
  { input, kubeconfig }: { input?: string; kubeconfig?: string } = {},
): Promise<Outcome> {
  const stdout: string[] = [];
  const stderr: string[] = [];
  const closing: (() => Promise<void> | void)[] = [];
  const context: CommandContext = {
    version: '0',
    signal: new AbortController().signal,
    print: (text) => void stdout.push(...text.split('\n')),
    printJson: (value) => void stdout.push(JSON.stringify(value)),
    remark: (text) => void stderr.push(text),
    progress: () => ({ update: () => undefined, stop: () => undefined }),
    onClose: (task) => void closing.push(task),
    close: async () => undefined,
  };
  const program = new Command('scrim').exitOverride().configureOutput({ writeErr: (text) => void stderr.push(text) });
  registerDataopsCommands(program, context);
  const stdin = vi.spyOn(process, 'stdin', 'get').mockReturnValue(
    Object.assign((await import('node:stream')).Readable.from(input === undefined ? [] : [Buffer.from(input)]), {
      isTTY: false,
    }) as unknown as typeof process.stdin,
  );
  const written = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout.push(...String(text).trimEnd().split('\n'));
    return true;
  });
  const argv = [...line.split(' '), '--kubeconfig', kubeconfig ?? cluster.kubeconfig('admin'), '-n', namespace];
  let code = 0;
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    stderr.push(String(error));
    code = error instanceof CommanderError ? 2 : error instanceof ScrimError ? error.info.exit : 1;
  } finally {
    stdin.mockRestore();
    written.mockRestore();
    for (const task of closing) await task();
  }
  return { code, stdout, stderr };
}

const volumeLines = (name: string): string[] => [
  `Creating PersistentVolumeClaim (PVC) '${name}' in namespace '${namespace}'.`,
  `PersistentVolumeClaim (PVC) '${name}' created. Waiting for Kubernetes to bind volume to PVC.`,
  `Volume successfully created and bound to PersistentVolumeClaim (PVC) '${name}' in namespace '${namespace}'.`,
];

describe("TR-4928's commands print its lines", () => {
  it('volumes, a workspace and a server, as in the three scenarios', async () => {
    const volume = await scrim('create volume --pvc-name=inference-data --size=50Gi');
    expect(volume).toEqual({ code: 0, stdout: volumeLines('inference-data'), stderr: [] });

    const workspace = 'ntap-dsutil-jupyterlab-live-inference';
    const made = await scrim(
      'create jupyterlab --workspace-name=live-inference --size=50Gi --nvidia-gpu=1 --mount-pvc=inference-data:/home/jovyan/data --password-stdin',
      { input: 'secret\n' },
    );
    expect(made.stdout).toEqual([
      'Creating persistent volume for workspace...',
      ...volumeLines(workspace),
      `Creating Service '${workspace}' in namespace '${namespace}'.`,
      'Service successfully created.',
      "Attaching Additional PVC: 'inference-data' at mount_path: '/home/jovyan/data'.",
      `Creating Deployment '${workspace}' in namespace '${namespace}'.`,
      `Deployment '${workspace}' created.`,
      `Waiting for Deployment '${workspace}' to reach Ready state.`,
      'Deployment successfully created.',
      'Workspace successfully created.',
      expect.stringMatching(new RegExp(`^To access workspace, navigate to http://${NODE_ADDRESS}:\\d+$`)),
    ]);

    await scrim('create pvc -p triton-model-repo -s 10Gi');
    const server = 'ntap-dsutil-triton-netapp-inference';
    const triton = await scrim('create triton -s netapp-inference -v triton-model-repo -g 1');
    expect(triton.stdout).toEqual([
      `Creating Service '${server}' in namespace '${namespace}'.`,
      'Service successfully created.',
      `Creating Deployment '${server}' in namespace '${namespace}'.`,
      `Deployment '${server}' created.`,
      `Waiting for Deployment '${server}' to reach Ready state.`,
      'Deployment successfully created.',
      'Server successfully created.',
      'Server endpoints:',
      expect.stringMatching(new RegExp(`^http: ${NODE_ADDRESS}: \\d+$`)),
      expect.stringMatching(new RegExp(`^grpc: ${NODE_ADDRESS}: \\d+$`)),
      expect.stringMatching(new RegExp(`^metrics: ${NODE_ADDRESS}: \\d+/metrics$`)),
    ]);
    expect((await scrim('ls triton')).stdout[2]).toMatch(/^netapp-inference +Ready/);
    expect((await scrim('rm triton-server -s netapp-inference --force')).stdout).toEqual([
      `Deleting server 'netapp-inference' in namespace '${namespace}'.`,
      'Note: this operation does NOT delete the model repository PVC.',
      'Deleting Deployment...',
      'Deleting Service...',
      'Triton Server instance successfully deleted.',
    ]);

    const snapshot = await scrim('create jupyter-snapshot -w live-inference -s before');
    expect(snapshot.stdout).toEqual([
      `Creating VolumeSnapshot for JupyterLab workspace 'live-inference' in namespace '${namespace}'...`,
      `Creating VolumeSnapshot 'before' for PersistentVolumeClaim (PVC) '${workspace}' in namespace '${namespace}'.`,
      "VolumeSnapshot 'before' created. Waiting for Trident to create snapshot on backing storage.",
      'Snapshot successfully created.',
    ]);
    expect((await scrim('restore jupyterlab-snapshot -s before')).stdout).toEqual([
      `Restoring VolumeSnapshot 'before' for JupyterLab workspace 'live-inference' in namespace '${namespace}'...`,
      `Scaling Deployment '${workspace}' in namespace '${namespace}' to 0 pod(s).`,
      `Restoring VolumeSnapshot 'before' for PersistentVolumeClaim '${workspace}' in namespace '${namespace}'.`,
      'VolumeSnapshot successfully restored.',
      `Scaling Deployment '${workspace}' in namespace '${namespace}' to 1 pod(s).`,
      `Waiting for Deployment '${workspace}' to reach Ready state.`,
      'JupyterLab workspace snapshot successfully restored.',
    ]);
    expect((await scrim('list jupyterlab-snapshots -o json')).stdout.join()).toContain(
      '"sourceWorkspace":"live-inference"',
    );
    expect((await scrim('list jupyterlabs')).stdout[2]).toMatch(/^live-inference +Ready +50Gi +sim/);
    expect((await scrim('delete jupyterlab -w live-inference -f')).stdout).toEqual([
      `Deleting workspace 'live-inference' in namespace '${namespace}'.`,
      'Deleting Deployment...',
      'Deleting Service...',
      'Deleting PVC...',
      `Deleting all VolumeSnapshots associated with PersistentVolumeClaim (PVC) '${workspace}' in namespace '${namespace}'...`,
      `Deleting VolumeSnapshot 'before' in namespace '${namespace}'.`,
      'VolumeSnapshot successfully deleted.',
      `Deleting PersistentVolumeClaim (PVC) '${workspace}' in namespace '${namespace}' and associated volume.`,
      'PersistentVolumeClaim (PVC) successfully deleted.',
      'Workspace successfully deleted.',
    ]);
  });

  it('snapshots, clones and restores of volumes', async () => {
    await scrim('create vol -p data -s 1Gi --access-mode ReadWriteOnce');
    await scrim('create volume-snapshot -p data -s mark');
    expect((await scrim('list volume-snapshots -p data')).stdout[2]).toMatch(/^mark +True/);
    const clone = (await scrim('clone volume -p copy -v data')).stdout;
    expect(clone[0]).toMatch(
      /^Creating new VolumeSnapshot 'ntap-dsutil\.for-clone\.\d{14}\.[0-9a-f]{8}' for source PVC 'data'/,
    );
    expect(clone.slice(1, 4).map((line) => line.split(' ')[0])).toEqual(['Creating', 'VolumeSnapshot', 'Snapshot']);
    expect(clone[4]).toMatch(/^Creating new PersistentVolumeClaim \(PVC\) 'copy' from VolumeSnapshot/);
    expect(clone.slice(5)).toEqual([...volumeLines('copy'), 'Volume successfully cloned.']);
    expect((await scrim('restore volume-snapshot -s mark --dry-run=server')).stdout).toEqual([
      "PersistentVolumeClaim 'data' would be restored by a new volume (dry run of the server).",
    ]);
    expect((await scrim('restore volume-snapshot -s mark -f')).stdout).toEqual([
      `Restoring VolumeSnapshot 'mark' for PersistentVolumeClaim 'data' in namespace '${namespace}'.`,
      'VolumeSnapshot successfully restored.',
    ]);
    expect((await scrim('delete volume-snapshot -s mark -f')).stdout).toEqual([
      `Deleting VolumeSnapshot 'mark' in namespace '${namespace}'.`,
      'VolumeSnapshot successfully deleted.',
    ]);
  });

  it('FlexCache volumes; the password is in a Secret, on stdin or in the environment', async () => {
    const ontap = await startOntapServer();
    try {
      const { host, username, password, fingerprint } = ontap;
      const spec = { storageDriverName: 'ontap-nas', managementLIF: host, dataLIF: '10.0.0.2', svm: 'svm1' };
      await cluster.storage.installTridentBackend('backend1', spec, { username, password });
      const where = `-b backend1 --ssl-cert-fingerprint=${fingerprint}`;
      const make = `create flexcache -f cache1 -z 50Gi -v origin1 -s svm-origin ${where}`;
      expect((await scrim(make)).stdout).toEqual([
        'Creating FlexCache: svm-origin:origin1 -> svm1:cache1',
        'FlexCache created successfully.',
        `Creating PV 'pv-cache1' in namespace '${namespace}'...`,
        "PV 'pv-cache1' created successfully.",
        `Creating PVC 'cache1' in namespace '${namespace}'...`,
        "PVC 'cache1' created successfully.",
        'Waiting for Kubernetes to bind volume to PVC.',
        "PVC 'cache1' is bound to PV 'pv-cache1'.",
        `Volume successfully created and bound to PersistentVolumeClaim (PVC) 'cache1' in namespace '${namespace}'.`,
      ]);
      expect((await scrim('list volumes')).stdout[2]).toMatch(/^cache1 +Bound +50Gi .*Yes +svm-origin +origin1/);
      expect((await scrim('delete volume -p cache1 -f')).code).toBe(2);
      const wrong = `delete flexcache -p cache1 ${where} --ontap-username admin --password-stdin`;
      expect((await scrim(wrong, { input: 'guess\n' })).code).toBe(2);
      const denied = await scrim(`${wrong} -f`, { input: 'guess\n' });
      expect(denied.code).toBe(1);
      expect(denied.stderr.join()).not.toContain('guess');
      expect((await scrim(`delete flexcache-volume -p cache1 ${where}`, { input: 'yes\n' })).stdout.slice(-6)).toEqual([
        `Deleting PVC 'cache1' in namespace '${namespace}'.`,
        "PVC 'cache1' successfully deleted.",
        "Deleting FlexCache volume 'cache1' in SVM 'svm1'.",
        "FlexCache volume 'cache1' successfully deleted.",
        "Deleting PersistentVolume (PV) 'pv-cache1' associated with FlexCache PVC 'cache1'.",
        "PersistentVolume (PV) 'pv-cache1' successfully deleted.",
      ]);
    } finally {
      await ontap.close();
    }
  });

  it('secrets, certificates and transfers', async () => {
    await scrim('create volume -p data -s 1Gi');
    const secret = await scrim('create s3-secret -d keys --keys-stdin', { input: 'AKIA\na/b+c\n' });
    expect(secret).toEqual({ code: 0, stdout: ['Kubernetes secret successfully created.'], stderr: [] });
    const started = await scrim('get-s3 bucket -o s3.example.com -t 9000 -b faces -p data -c keys -u -v --wait');
    const job = /^Created Kubernetes job (s3mover-get-bucket-[0-9a-f]{8})$/.exec(started.stdout[0] ?? '')?.[1] ?? '';
    expect(started.stdout[1]).toBe(`Job ${job} succeeded.`);
    expect((await scrim(`show s3-job -j ${job}`)).stdout).toContain('state: succeeded');
    expect((await scrim(`delete s3-job --job=${job}`)).stdout).toEqual([`Job ${job} deleted.`]);
    const put = 'put-s3 object --object-host h -b faces -p data -c keys -f a.bin --no-use-https --dry-run=client';
    expect((await scrim(`${put} --output yaml`)).stdout.join('\n')).toContain('value: http://h');
    expect((await scrim('delete s3-secret -d keys')).stdout).toEqual(['Kubernetes secret successfully deleted.']);
  });
});

/** Runs kubectl as administrator in the test's namespace. */
function kubectl(args: readonly string[], input?: string): string {
  return execFileSync('kubectl', ['--kubeconfig', cluster.kubeconfig('admin'), '-n', namespace, ...args], {
    encoding: 'utf8',
    ...(input === undefined ? {} : { input }),
  });
}

describe('what kubectl sees', () => {
  it('is what the commands say they made', async () => {
    await scrim('create volume -p data -s 1Gi');
    await scrim('create volume-snapshot -p data -s mark');
    await scrim('create jupyterlab -w live -s 1Gi --password-stdin', { input: 'secret\n' });
    await scrim('create triton -s live -v data');
    await scrim('create s3-secret -d keys --keys-stdin', { input: 'AKIA\nkey\n' });
    await scrim('sync --from s3:faces --to pvc:data/in --s3-host h -c keys --schedule @daily --name nightly');
    const names = kubectl([
      'get',
      'pvc,volumesnapshots,svc,deploy,secrets,cronjobs',
      '-l',
      'created-by=ntap-dsutil',
      '-o',
      'name',
    ]);
    expect(
      names
        .trim()
        .split('\n')
        .map((name) => name.replace(/-[0-9a-f]{8}$/, '-*'))
        .sort(),
    ).toEqual([
      'cronjob.batch/nightly',
      'deployment.apps/ntap-dsutil-jupyterlab-live',
      'deployment.apps/ntap-dsutil-triton-live',
      'persistentvolumeclaim/data',
      'persistentvolumeclaim/ntap-dsutil-jupyterlab-live',
      'secret/keys',
      'secret/ntap-dsutil-jupyterlab-live-*',
      'service/ntap-dsutil-jupyterlab-live',
      'service/ntap-dsutil-triton-live',
      'volumesnapshot.snapshot.storage.k8s.io/mark',
    ]);
    expect(kubectl(['get', 'pvc', 'data', '-o', 'jsonpath={.status.phase} {.spec.accessModes[0]}'])).toBe(
      'Bound ReadWriteMany',
    );
    expect((await scrim('list syncs')).stdout[2]).toMatch(/^nightly +@daily +No +0/);
    expect((await scrim('delete sync --name nightly')).stdout).toEqual(["Synchronisation 'nightly' deleted."]);
    expect(kubectl(['get', 'cronjobs', '-o', 'name'])).toBe('');
  });

  it('takes what -o yaml prints', async () => {
    for (const line of [
      'create volume -p printed -s 1Gi',
      'create jupyterlab -w printed -s 1Gi --password-stdin',
      'create triton-server -s printed -v printed',
      'sync --from pvc:printed --to s3:faces/in --s3-host h -c keys',
    ]) {
      const { stdout } = await scrim(`${line} --dry-run=client -o yaml`, { input: 'secret\n' });
      const answer = kubectl(['apply', '--dry-run=server', '-f', '-'], stdout.join('\n'));
      expect(answer).toMatch(/created \(server dry run\)/);
    }
  });
});

describe('beyond the document', () => {
  it('asks before it deletes, and does nothing without an answer', async () => {
    await scrim('create volume -p data -s 1Gi');
    const asked = await scrim('delete volume -p data', { input: 'maybe\nno\n' });
    expect(asked.stdout).toContain('Warning: All data associated with the volume will be permanently deleted.');
    expect(asked.stdout).toContain("Invalid value. Must enter 'yes' or 'no'.");
    const dry = await scrim('delete volume -p data --dry-run=server');
    expect(dry.stdout).toEqual(["PersistentVolumeClaim 'data' would be deleted (dry run of the server)."]);
    const unanswered = await scrim('delete volume -p data');
    expect(unanswered.code).toBe(2);
    expect(unanswered.stderr.join()).toMatch(/without an answer, nothing was done: give --force/);
    expect((await scrim('list volumes')).stdout[2]).toMatch(/^data/);
    expect((await scrim('delete volume -p data', { input: 'yes\n' })).stdout.at(-1)).toBe(
      'PersistentVolumeClaim (PVC) successfully deleted.',
    );
  });

  it('prints objects and lists for programs, and makes nothing in a dry run', async () => {
    const yaml = await scrim('create volume -p data -s 1Gi --dry-run=client -o yaml');
    expect(yaml.stdout).toContain('kind: PersistentVolumeClaim');
    const annotated = await scrim(
      'create volume -p data -s 1Gi --annotation trident.netapp.io/snapshotDirectory=true --dry-run=client -o json',
    );
    expect(JSON.parse(annotated.stdout.join('')).manifests[0].metadata.annotations).toEqual({
      'trident.netapp.io/snapshotDirectory': 'true',
    });
    const dry = await scrim('create volume -p data -s 1Gi --dry-run=server');
    expect(dry.stdout).toEqual(["PersistentVolumeClaim 'data' would be created (dry run of the server)."]);
    expect((await scrim('list volumes -o json')).stdout).toEqual(['[]']);
  });

  it('exits with 2 for a wrong call and 1 for a failure, and says what', async () => {
    expect((await scrim('create volume -p data')).code).toBe(2);
    expect((await scrim('create volume -p Data -s 1Gi')).code).toBe(2);
    expect((await scrim('create volume -p data -s lots')).code).toBe(2);
    expect((await scrim('create jupyterlab -w w -s 1Gi')).code).toBe(2);
    expect((await scrim('get-s3 object -o h -b faces -p data -c keys')).code).toBe(2);
    expect((await scrim('create volume -p data -s 1Gi --context=nowhere')).code).toBe(2);
    expect((await scrim('create volume -p data -s 1Gi --timeout=1x')).code).toBe(2);
    expect((await scrim('create volume -p data -s 0')).code).toBe(2);
    expect((await scrim('create volume -p data -s 1Gi --access-mode Many')).stderr.join()).toMatch(
      /has 'Many', expected/,
    );
    expect((await scrim('create volume -p data -s 1Gi --annotation a')).stderr.join()).toMatch(
      /'a', expected NAME=VALUE/,
    );
    for (const [flags, message] of [
      ['-g some', /--nvidia-gpu is 'some', expected a number/],
      ['--replicas 0', /replicas is 0, expected a whole number of at least 1/],
      ['--target kserve --queue-time 5ms', /--queue-time has no effect with --target kserve/],
    ] as const) {
      const refused = await scrim(`create triton -s a -v data ${flags}`);
      expect(refused.code).toBe(2);
      expect(refused.stderr.join()).toMatch(message);
    }
    const wrongClass = await scrim('create volume -p data -s 1Gi -c nope');
    expect(wrongClass.code).toBe(1);
    expect(wrongClass.stderr.join()).toMatch(/nope.*not found/);
    const slow = await scrim('create volume -p data -s 1Gi -c nobody --timeout 1s');
    expect(slow.code).toBe(1);
    expect(slow.stderr.join()).toMatch(/waited 1 s/);
    const forbidden = await scrim('list volumes', { kubeconfig: cluster.kubeconfig('limited') });
    expect(forbidden.code).toBe(1);
    expect(forbidden.stderr.join()).toMatch(/cannot list resource "persistentvolumeclaims"/);
  });
});
