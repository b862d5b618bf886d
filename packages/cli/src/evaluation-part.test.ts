/** Parts of an evaluation as files: what they hold, what is refused, and that together they are the single run. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { createFddbEvaluator } from 'scrim/metrics';
import type { FddbDataset } from 'scrim/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  countedPositions,
  type EvaluationPart,
  type EvaluationSettings,
  inShard,
  mergeParts,
  parseShard,
  readBegunPart,
  type Shard,
  writePart,
} from './evaluation-part.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scrim-parts-'));
});
afterAll(() => rm(folder, { recursive: true }));

const ellipse = { majorRadius: 10, minorRadius: 8, angle: 0, centerX: 20, centerY: 20 };
const face = { ellipse, box: { x: 12, y: 10, width: 16, height: 20 } };
const folds = Array.from({ length: 10 }, (_, f) => ({
  fold: f + 1,
  images: Array.from({ length: 7 }, (_, i) => ({ name: `f${f + 1}/i${i}`, faces: [face] })),
}));
const names = folds.flatMap(({ images }) => images.map(({ name }) => name));
const dataset = (present: (position: number) => boolean = () => true): FddbDataset => {
  const photos = folds.flatMap(({ fold, images }) =>
    images.map(({ name }) => ({ fold, name, path: name, present: true })),
  );
  const marked = photos.map((photo, position) => ({ ...photo, present: present(position) }));
  const found = marked.filter((photo) => photo.present).length;
  return { root: '/fddb', folds, photos: marked, images: { found, expected: 70 }, faces: { found, expected: 70 } };
};
/** What a detector might find: offsets and scores that differ from image to image. */
const found = (position: number) =>
  [0, 1, 2].map((k) => ({
    ...face.box,
    x: face.box.x + ((position * 7 + k * 5) % 13),
    score: 1 / (1 + ((position * 31 + k * 17) % 97)),
  }));

const settings: EvaluationSettings = {
  model: 'test',
  sha256: 'ab',
  bundle: null,
  alpha: null,
  size: 512,
  repeats: 1,
  minScore: 0.05,
};

function part(shard: Shard, count = Number.POSITIVE_INFINITY, over: Partial<EvaluationPart> = {}): EvaluationPart {
  const evaluator = createFddbEvaluator(folds);
  const mine = names.flatMap((name, position) => (inShard(position, shard) ? [{ name, position }] : []));
  for (const { name, position } of mine.slice(0, count)) evaluator.add(name, found(position));
  const states = [evaluator.state()];
  const done = Math.min(count, mine.length);
  const base = {
    format: 'scrim-evaluation-part',
    version: 1,
    settings,
    shard,
    seconds: 1,
    threads: 1,
    engine: 'x',
  } as const;
  return { ...base, images: { done, found: mine.length }, states, ...over };
}

async function write(name: string, content: EvaluationPart): Promise<string> {
  const path = join(folder, name);
  await writePart(path, content);
  return path;
}

describe('parts', () => {
  it('merge to the single run, however many there are and in any order', async () => {
    const single = createFddbEvaluator(folds);
    names.forEach((name, position) => {
      single.add(name, found(position));
    });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 9 }), fc.infiniteStream(fc.nat()), async (of, order) => {
        const paths: [number, string][] = [];
        for (let index = 0; index < of; index++) {
          const keys = order.next().value ?? 0;
          paths.push([keys, await write(`part-${index}-of-${of}.json`, part({ index, of }))]);
        }
        paths.sort(([a], [b]) => a - b);
        const { results } = await mergeParts(
          paths.map(([, path]) => path),
          dataset(),
        );
        expect(results).toEqual([single.result()]);
      }),
      { seed: 5, numRuns: 20 },
    );
  });

  it('name the images they counted', async () => {
    const path = await write('begun.json', part({ index: 1, of: 3 }, 4));
    const begun = await readBegunPart(path, settings, { index: 1, of: 3 }, () => undefined);
    expect([...countedPositions(begun as EvaluationPart)]).toEqual([1, 4, 7, 10]);
  });

  it('are not gone on with where they are of another evaluation or another part', async () => {
    const path = await write('other.json', part({ index: 1, of: 3 }));
    const other = { code: 'ALREADY_EXISTS' };
    const nothing = (): void => undefined;
    await expect(readBegunPart(path, { ...settings, size: 1024 }, { index: 1, of: 3 }, nothing)).rejects.toMatchObject({
      ...other,
      message: expect.stringContaining('size is 512 there, 1024 here'),
    });
    await expect(readBegunPart(path, settings, { index: 0, of: 3 }, nothing)).rejects.toMatchObject(other);
  });

  it('start over where a crash cut the file off, and say so', async () => {
    const path = join(folder, 'cut.json');
    await writeFile(path, '{"format":"scrim-evaluation-part","ver');
    const said: string[] = [];
    expect(await readBegunPart(path, settings, { index: 0, of: 1 }, (text) => said.push(text))).toBeUndefined();
    expect(said.join()).toMatch(/cut off/);
    expect(await readBegunPart(join(folder, 'none'), settings, { index: 0, of: 1 }, () => undefined)).toBeUndefined();
  });

  it.each<[string, (paths: readonly string[]) => Promise<string[]>, RegExp]>([
    ['one is missing', async ([a = '']) => [a], /2 of 3 parts are missing: 1, 2/],
    ['one comes twice', async ([a = '', b = '', c = '']) => [a, b, c, b], /are both part 1\/3/],
    [
      'one is unfinished',
      async ([a = '', b = '']) => [a, b, await write('u.json', part({ index: 2, of: 3 }, 2))],
      /unfinished: 2 of 23 images/,
    ],
    [
      'one is of other settings',
      async ([a = '', b = '']) => [
        a,
        b,
        await write('s.json', part({ index: 2, of: 3 }, 99, { settings: { ...settings, alpha: 0.8 } })),
      ],
      /do not belong together: alpha is 0.8 there, null here/,
    ],
    [
      'one is of another number of parts',
      async ([a = '', b = '']) => [a, b, await write('n.json', part({ index: 2, of: 4 }))],
      /one of 4 parts, not of 3/,
    ],
  ])('are refused where %s', async (_, change, message) => {
    const paths = [];
    for (let index = 0; index < 3; index++) paths.push(await write(`ok-${index}.json`, part({ index, of: 3 })));
    await expect(mergeParts(await change(paths), dataset())).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });

  it('are refused over other photos, and where the file is something else', async () => {
    const path = await write('whole.json', part({ index: 0, of: 1 }));
    await expect(
      mergeParts(
        [path],
        dataset((position) => position > 3),
      ),
    ).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringContaining('was made over 70 photos'),
    });
    const text = join(folder, 'text.json');
    await writeFile(text, '[]');
    await expect(mergeParts([text], dataset())).rejects.toMatchObject({ code: 'INVALID_DATA' });
    await expect(mergeParts([join(folder, 'none.json')], dataset())).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('parseShard', () => {
  it('reads i/n from 0', () => {
    expect(parseShard('0/1')).toEqual({ index: 0, of: 1 });
    expect(parseShard('7/8')).toEqual({ index: 7, of: 8 });
  });
  it.each(['1/1', '8/8', '-1/2', '1', '1/', 'a/b', '0/0', '1.5/2', ''])('refuses %j', (text) => {
    expect(() => parseShard(text)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});
