/** Manifests hold only fields that Kubernetes 1.34 knows: what a server with strict field validation would refuse. */

import * as models from '@kubernetes/client-node';
import { describe, expect, it } from 'vitest';
import { COMMAND_RULES, clusterRoles } from '../rbac.js';
import { workspaceDeployment, workspaceSecret, workspaceService } from './jupyterlab.js';
import { workspaceLabels } from './labels.js';
import { caConfigMap, s3Secret, transferJob } from './s3.js';
import { tritonDeployment, tritonService } from './triton.js';
import { claimManifest } from './volume.js';

interface Model {
  getAttributeTypeMap?(): readonly { readonly name: string; readonly type: string }[];
}

/** Paths of fields that the model of Kubernetes 1.34 does not have. */
function unknownFields(value: unknown, type: string, path = ''): string[] {
  const array = /^Array<(.+)>$/.exec(type);
  if (array?.[1] !== undefined) {
    return (value as unknown[]).flatMap((item, index) => unknownFields(item, array[1] ?? '', `${path}[${index}]`));
  }
  const map = /^\{ \[key: string\]: (.+); \}$/.exec(type);
  if (map?.[1] !== undefined) {
    return Object.entries(value as object).flatMap(([key, item]) =>
      unknownFields(item, map[1] ?? '', `${path}.${key}`),
    );
  }
  const attributes = (models as unknown as Record<string, Model>)[type]?.getAttributeTypeMap?.();
  if (attributes === undefined) return [];
  return Object.entries(value as object).flatMap(([key, item]) => {
    const attribute = attributes.find(({ name }) => name === key);
    return attribute === undefined ? [`${path}.${key}`] : unknownFields(item, attribute.type, `${path}.${key}`);
  });
}

const labels = workspaceLabels('live');
const s3 = {
  endpoint: 'https://s3.example.com',
  credentialsSecret: 'keys',
  claim: 'data',
  image: 'rclone',
  verifyCertificates: true,
  caConfigMaps: ['ca'],
  requests: { cpu: '1' },
  limits: { memory: '1Gi' },
  runAsUser: 1000,
  runAsGroup: 100,
};
const mounts = [{ claim: 'data', path: '/data' }];
const resources = { cpu: '1', memory: '1Gi', gpus: 1 };
const CASES: readonly [string, object][] = [
  [
    'V1PersistentVolumeClaim',
    claimManifest({ name: 'a', size: '1Gi', storageClass: 'b', snapshot: 'c', volumeName: 'd' }),
  ],
  ['V1Secret', workspaceSecret({ name: 'a', labels, passwordHash: 'argon2:x', tls: true })],
  ['V1Service', workspaceService({ workspace: 'live', labels, loadBalancer: true, tls: true })],
  [
    'V1Deployment',
    workspaceDeployment({ workspace: 'live', labels, image: 'i', secret: 's', tlsSecret: 't', mounts, resources }),
  ],
  ['V1Service', tritonService({ server: 'a', loadBalancer: false })],
  ['V1Deployment', tritonDeployment({ server: 'a', image: 'i', modelRepository: 'm', resources, replicas: 2 })],
  ['V1Secret', s3Secret('a', 'b', 'c')],
  ['V1ConfigMap', caConfigMap('a', 'b')],
  ['V1Job', transferJob('a', 'get-bucket', s3, ['copy', 's3:a', '/mnt/data'])],
  ...Object.keys(COMMAND_RULES).flatMap((command) =>
    clusterRoles(command).map((role): [string, object] => ['V1ClusterRole', role]),
  ),
];

describe('manifests', () => {
  it.each(CASES)('%s has no field that Kubernetes 1.34 does not know', (type, manifest) => {
    expect(unknownFields(manifest, type)).toEqual([]);
  });

  it('notices a field at a wrong place', () => {
    const wrong = { spec: { template: { spec: { containers: [{ name: 'a', restartPolicy: 'Never', mounts: [] }] } } } };
    expect(unknownFields(wrong, 'V1Job')).toEqual(['.spec.template.spec.containers[0].mounts']);
  });

  it('gives a workspace and a server of one name different pods', () => {
    const workspace = workspaceService({ workspace: 'same', labels, loadBalancer: false, tls: false });
    expect(workspace.spec?.selector).not.toEqual(tritonService({ server: 'same', loadBalancer: false }).spec?.selector);
  });

  it('keeps the password hash out of the pod', () => {
    const pod = JSON.stringify(workspaceDeployment({ workspace: 'live', labels, image: 'i', secret: 's' }));
    expect(pod).not.toContain('argon2');
    expect(pod).not.toContain('password');
  });
});
