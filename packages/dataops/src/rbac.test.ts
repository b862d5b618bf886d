/** deploy/rbac.yaml is what the table of rights says. SCRIM_WRITE_RBAC=1 writes it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { toYaml } from './index.js';
import { COMMAND_RULES, clusterRoles } from './rbac.js';

const file = fileURLToPath(new URL('../../../deploy/rbac.yaml', import.meta.url));
const HEADER = `# Least rights for each Kubernetes command of scrim, written from packages/dataops/src/rbac.ts.
# Bind scrim-COMMAND in a namespace with a RoleBinding; where there is a scrim-COMMAND-cluster, bind that one with a
# ClusterRoleBinding (volumes and nodes belong to no namespace); scrim-COMMAND-trident with a RoleBinding in Trident's.
`;

it('deploy/rbac.yaml grants exactly the rights of the table', () => {
  const roles = Object.keys(COMMAND_RULES).flatMap((command) => clusterRoles(command));
  const text = `${HEADER}${roles.map((role) => toYaml(role)).join('\n---\n')}\n`;
  if (process.env.SCRIM_WRITE_RBAC) writeFileSync(file, text);
  expect(readFileSync(file, 'utf8')).toBe(text);
});
