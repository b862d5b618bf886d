// One process of bench/evaluation.mjs: the pipeline of `scrim evaluate` twice, without and with noise. It evaluates a block
// of photos with both in turns, as the command does, and answers with what each block took.
import { createFddbEvaluator } from 'scrim/metrics';
import { openFddb } from 'scrim/node';
import { openFor } from '../packages/cli/dist/bundle-store.js';
import { leastScore, toScoredBox } from '../packages/cli/dist/commands/evaluate.js';
import { createFacePipeline } from '../packages/cli/dist/face-pipeline.js';
import { loadModelSource } from '../packages/cli/dist/model-source.js';

const settings = JSON.parse(process.argv[2]);
const model = await loadModelSource('faceboxes');
const { folds, photos } = await openFddb(settings.fddb);

async function createSide(folder) {
  const bundle = folder === undefined ? undefined : await openFor(folder, model);
  const pipeline = await createFacePipeline({ model, size: settings.size, ...(bundle ? { bundle } : {}) });
  const minScore = leastScore(bundle);
  return {
    pipeline,
    async evaluate(from, count) {
      const evaluator = createFddbEvaluator(folds);
      let [boxes, next] = [0, from];
      const work = async () => {
        while (next < from + count) {
          const { name, path } = photos[next++ % photos.length];
          const { draws } = await pipeline.detect(path, { minScore });
          boxes += draws[0].length;
          evaluator.add(name, draws[0].map(toScoredBox));
        }
      };
      const cpu = process.cpuUsage();
      const started = performance.now();
      await Promise.all(Array.from({ length: 2 * pipeline.lanes }, work));
      const wallMs = performance.now() - started;
      const { user, system } = process.cpuUsage(cpu);
      return { wallMs, cpuMs: (user + system) / 1000, boxes };
    },
  };
}

const sides = { clean: await createSide(), noisy: await createSide(settings.bundle) };
process.on('message', async ({ from, count, order }) => {
  const turn = { clean: [], noisy: [] };
  for (const name of order) turn[name].push(await sides[name].evaluate(from, count));
  process.send(turn);
});
process.on('disconnect', async () => {
  for (const { pipeline } of Object.values(sides)) await pipeline.close();
  process.exit(0);
});
process.send({ engine: sides.clean.pipeline.description, lanes: sides.clean.pipeline.lanes });
