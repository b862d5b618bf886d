// Serves the page of bench/browser.mjs from a folder in place of the studio's, with the studio's own bundles and server:
//
//   node bench/browser-page/serve.mjs FOLDER
//
// Prints its address; ends when it is told to.
import { listenHttp, nodeEngineFactory } from 'scrim/node';
import { createInferenceServer } from 'scrim/server';
import { loadModelSource } from '../../packages/cli/dist/model-source.js';
import { buildCatalogue } from '../../packages/cli/dist/studio-catalogue.js';
import { createStudioSite } from '../../packages/cli/dist/studio-site.js';

const [page] = process.argv.slice(2);
const catalogue = await buildCatalogue({
  model: await loadModelSource('faceboxes'),
  remark: () => {},
  signal: new AbortController().signal,
});
const server = createInferenceServer({ repository: catalogue.repository, engineFactory: nodeEngineFactory() });
await server.start();
const answer = await createStudioSite({ page, catalogue, server, version: 'bench' });
const listener = await listenHttp({ answer, port: 0 });
process.stdout.write(`${listener.url}/\n`);
process.once('SIGTERM', async () => {
  await listener.close(1_000);
  await server.close();
});
