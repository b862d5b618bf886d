/** One share of a fit's canvases: composed, sent through head and tail, written into the folder they are kept in. */
import { expectType, ScrimError } from 'scrim';
import { createCanvases, createNodeEngine, resizeImage } from 'scrim/node';
import { createFitRandom } from 'scrim/noise';
import { splitAt } from 'scrim/split';
import { imageToTensor } from 'scrim/vision';
import { openRows, type RowShapes } from './activation-store.js';
import { loadModelSource } from './model-source.js';
import type { Work } from './workers.js';

/** What every worker is told. */
export interface ActivationSetup {
  /** As `--model` names it. */
  readonly model: string;
  readonly cut: string;
  readonly folders: readonly (readonly string[])[];
  readonly count: number;
  readonly size: number;
  readonly seed: string;
  readonly folder: string;
  /** Pictures of the first canvases, for the reconstruction. */
  readonly reconstruction: { readonly count: number; readonly width: number; readonly height: number };
  /** Side of a small picture of every canvas; 0 for none. */
  readonly side: number;
}

/** What a worker says: a canvas is done, or a photo can't be read. */
export type ActivationNews = { readonly done: RowShapes } | { readonly unreadable: string };

export const work: Work<ActivationSetup, ActivationNews> = async (setup, share, say) => {
  const { folder, reconstruction, side, size } = setup;
  const { graph, input, detector } = await loadModelSource(setup.model);
  if (!detector) throw new ScrimError('INTERNAL', `'${setup.model}' reads no photos`);
  const { head, tail } = splitAt(graph, [setup.cut]);
  const engine = await createNodeEngine({ threads: 1, thread: 'inline' });
  const [first, second] = [await engine.load(head.encode()), await engine.load(tail.encode())];
  const rows = openRows(folder);
  const canvases = createCanvases({
    folders: setup.folders,
    count: setup.count,
    width: size,
    height: size,
    random: createFitRandom(`${setup.seed}/canvases`),
    part: share,
    onUnreadable: (path) => void say({ unreadable: path }),
  });
  let index = share.index;
  for await (const canvas of canvases) {
    const { [setup.cut]: cut } = await first.run({ [input]: imageToTensor(canvas, detector.preprocessing) });
    if (!cut) throw new ScrimError('INVALID_ARGUMENT', `the head has no output '${setup.cut}'`);
    const activation = expectType(cut, 'float32', `the activation '${setup.cut}'`);
    const answers = Object.entries(await second.run({ [setup.cut]: activation }));
    const done = rows.write(index, {
      activation,
      // Labels and counts beside the probabilities teach nothing.
      outputs: new Map(
        answers.flatMap(([name, value]) =>
          value.dtype === 'float32' ? [[name, expectType(value, 'float32', name)]] : [],
        ),
      ),
      ...(index < reconstruction.count ? { reconstruction: await resizeImage(canvas, reconstruction) } : {}),
      ...(side > 0 ? { picture: await resizeImage(canvas, { width: side, height: side }) } : {}),
    });
    await say({ done });
    index += share.count;
  }
  rows.close();
  await engine.close();
};
