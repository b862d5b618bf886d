/** A cluster for one test file: control plane, simulated node, simulated storage, and clients for both users. */
import { randomBytes } from 'node:crypto';
import { connect, KubeClient } from '../../packages/dataops/src/index.js';
import { type ControlPlane, eventually, startControlPlane } from './control-plane.js';
import { type Pace, startNodeSimulator } from './node-simulator.js';
import { type StorageSimulator, startStorageSimulator } from './storage-simulator.js';

/** What tests get. */
export interface TestCluster extends ControlPlane {
  readonly storage: StorageSimulator;
  /** How fast the simulated node and storage act. */
  readonly pace: Pace;
  /** The client under test, as administrator. */
  readonly client: KubeClient;
  /** The client under test, as a user with no rights but those a test gives it. */
  readonly limited: KubeClient;
  /** A fresh namespace. */
  createNamespace(): Promise<string>;
}

/** Starts everything; `stop` ends everything. */
export async function startTestCluster(): Promise<TestCluster> {
  const plane = await startControlPlane();
  const pace: Pace = { delayMs: 0 };
  const stopNode = await startNodeSimulator(plane.api, pace);
  const storage = await startStorageSimulator(plane.api, plane.directory, pace);
  const client = new KubeClient(connect({ kubeconfig: plane.kubeconfig('admin') }));
  const limited = new KubeClient(connect({ kubeconfig: plane.kubeconfig('limited') }));
  return {
    ...plane,
    storage,
    pace,
    client,
    limited,
    createNamespace: async () => {
      const name = `test-${randomBytes(4).toString('hex')}`;
      await plane.api.send('POST', '/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
      // Pods are refused until the namespace has its default ServiceAccount.
      await eventually(30_000, () => plane.api.get(`/api/v1/namespaces/${name}/serviceaccounts/default`));
      return name;
    },
    stop: async () => {
      client.connection.close();
      limited.connection.close();
      await stopNode();
      await storage.stop();
      await plane.stop();
    },
  };
}
