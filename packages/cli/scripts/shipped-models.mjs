// The bundles under models/ travel with the packed command: `npm pack` copies them into the package first and removes
// the copy afterwards. In a clone the command reads the original (src/bundle-store.ts knows both places).
//
//   node scripts/shipped-models.mjs copy|remove
import { cpSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const copy = fileURLToPath(new URL('../models/', import.meta.url));
rmSync(copy, { recursive: true, force: true });
if (process.argv[2] === 'copy') {
  cpSync(fileURLToPath(new URL('../../../models/', import.meta.url)), copy, { recursive: true });
}
