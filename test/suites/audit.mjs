// `scrim audit` on the sample photos npm installs, with budgets far too small to be trusted: wrong calls, an interrupted
// audit that goes on, a page without requests, a report that calls short attacks short, and the same for rows of a table. Needs a built tree.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { float32 } from 'scrim';
import { createFitRandom } from 'scrim/noise';
import { Graph } from 'scrim/onnx';

const root = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const bin = root('packages/cli/bin/scrim.js');
const folder = mkdtempSync(join(tmpdir(), 'scrim-audit-'));
const file = (name) => join(folder, name);

mkdirSync(file('photos'));
for (const [name, path] of [
  ['human', 'node_modules/@vladmandic/human/assets'],
  ['face-api', 'node_modules/@vladmandic/face-api/demo'],
]) {
  for (const photo of readdirSync(root(path)).filter((entry) => /^(sample|human-sample).*\.jpg$/.test(entry))) {
    symlinkSync(join(root(path), photo), file(`photos/${name}-${photo}`));
  }
}
const photos = readdirSync(file('photos'));
writeFileSync(
  file('labels.csv'),
  ['file,kind', ...photos.map((photo) => `photos/${photo},${photo.startsWith('human') ? 'a' : 'b'}`)].join('\n'),
);

const bundle = root('models/faceboxes-tfjs/alpha-0.80');
const shippedBefore = existsSync(join(bundle, 'audit/decoder.onnx'));
const small = ['--data', file('photos'), '--steps', '6', '--size', '256', '--picture-side', '32', '--capacity', '0.1'];
const out = ['--out', file('report')];
const run = (args) => spawnSync(process.execPath, [bin, 'audit', ...args], { encoding: 'utf8', timeout: 300_000 });
const print = (text) => process.stdout.write(`${text}\n`);
let [passed, failed] = [0, 0];
const check = (name, problems) => {
  const found = problems.filter(Boolean);
  if (found.length === 0) passed++;
  else failed++;
  print(`${found.length === 0 ? 'ok  ' : 'FAIL'} ${name}${found.length === 0 ? '' : `: ${found.join('; ')}`}`);
};

for (const [name, args, exit, message] of [
  ['unknown attack', [bundle, ...small, '--attacks', 'guessing'], 2, /names 'guessing'/],
  ['no attack at all', [bundle, ...small, '--attacks', 'none'], 2, /names 'none'/],
  ['people are missing', [bundle, ...small, '--attacks', 'identity'], 2, /needs --people/],
  ['labels are missing', [bundle, ...small, '--attacks', 'attributes'], 2, /needs --labels/],
  ['no bundle', [file('none'), ...small], 1, /no bundle/],
  ['tried photos are trained on', [bundle, ...small, '--try', file('photos')], 2, /keep them apart/],
  ['several alphas of one', [bundle, ...small, '--attacks', 'several-alphas'], 2, /at least two bundles/],
  ['no embedder', [bundle, ...small, '--attacks', 'right-face', '--embedder', file('none.onnx')], 1, /none\.onnx/],
  ['no photos', [bundle, '--data', file('empty')], 1, /empty/],
]) {
  const result = run([...args, ...out]);
  check(name, [
    result.status !== exit && `exit ${result.status}, expected ${exit}`,
    !message.test(result.stderr) && `stderr lacks ${message}: ${result.stderr.slice(-300)}`,
    /\n\s+at /.test(result.stderr) && 'a stack trace',
    result.stdout !== '' && 'a failure printed on stdout',
  ]);
}

const whole = [bundle, ...small, ...out, '--labels', file('labels.csv'), '--attacks', 'decoder,linkage,attributes'];
const code = await new Promise((resolve) => {
  const child = spawn(process.execPath, [bin, 'audit', ...whole], { stdio: 'ignore' });
  const parts = file('report/parts');
  const timer = setInterval(() => {
    if (existsSync(parts) && readdirSync(parts).some((entry) => /^decoder-clean.*json$/.test(entry)))
      child.kill('SIGINT');
  }, 100);
  child.on('exit', (status) => {
    clearInterval(timer);
    resolve(status);
  });
});
check('interrupted', [code !== 130 && `exit ${code}, expected 130`, existsSync(file('report/index.html')) && 'a page']);
const kept = readdirSync(file('report/parts')).filter((entry) => entry.startsWith('decoder-clean'));

const result = run([...whole, '--json']);
const report = result.status === 0 ? JSON.parse(result.stdout) : undefined;
check('goes on', [
  result.status !== 0 && `exit ${result.status}: ${result.stderr.slice(-400)}`,
  readdirSync(file('report/parts'))
    .filter((entry) => entry.startsWith('decoder-clean'))
    .join() !== kept.join() && 'the finished part was made again',
]);
const attacks = report?.bundles[0].attacks ?? [];
check('report', [
  report?.format !== 'scrim-audit' && 'another format',
  attacks.length !== 4 && `${attacks.length} attacks, expected 4`,
  attacks.some(({ verdict }) => verdict === 'measured') && 'an attack of six steps or three photos counts as measured',
  readFileSync(file('report/report.json'), 'utf8').trim() !== result.stdout.trim() && 'stdout and report.json differ',
]);
const page = readFileSync(file('report/index.html'), 'utf8');
check('page', [
  /<script|<link|@import|url\((?!#)|(?:src|href)="(?!data:|#)/.test(page) && 'it asks for something',
  !/too short to trust/.test(page) && 'it does not mark short attacks',
  (page.match(/<img /g) ?? []).length < 6 && 'pictures are missing',
]);

// Bottlenecks are judged by the same attacker on the activation that their encoder reads, trained once for a model.
const pair = ['0.80', '0.90'].map((alpha) => root(`models/faceboxes-tfjs-bottleneck/alpha-${alpha}`));
const both = run([
  ...pair,
  ...small,
  '--workers',
  '2',
  '--attacks',
  'decoder,right-face',
  '--out',
  file('both'),
  '--json',
]);
const compared = both.status === 0 ? JSON.parse(both.stdout).bundles : [];
const ceilings = existsSync(file('both/parts'))
  ? readdirSync(file('both/parts')).filter((entry) => /^decoder-clean.*onnx$/.test(entry))
  : [];
const channels = ceilings.map((entry) => {
  const graph = Graph.decode(readFileSync(file(`both/parts/${entry}`)));
  return graph.declaredType(graph.inputNames[0]).shape[1];
});
check('a bottleneck beside the clean activation', [
  both.status !== 0 && `exit ${both.status}: ${both.stderr.slice(-400)}`,
  channels.join() !== '128' && `decoders without noise for ${channels.join()} channels, expected one for 128`,
  compared.length !== 2 && `${compared.length} bundles, expected 2`,
  compared.some(({ attacks: [first] }) => first?.baselines.at(-1).name !== 'clean activation') && 'no such baseline',
]);

// A decoder for the studio: in the bundle, listed with its hash, with figures that say how short it was trained.
cpSync(bundle, file('bundle'), { recursive: true });
const shipping = run([file('bundle'), ...small, ...out, '--attacks', 'none', '--ship-decoder']);
const manifest = JSON.parse(readFileSync(file('bundle/manifest.json'), 'utf8'));
const decoder = existsSync(file('bundle/audit/decoder.onnx')) ? readFileSync(file('bundle/audit/decoder.onnx')) : '';
const figures = manifest.results.filter(({ name }) => name.startsWith('shipped decoder'));
check('ships a decoder', [
  shipping.status !== 0 && `exit ${shipping.status}: ${shipping.stderr.slice(-400)}`,
  manifest.files['audit/decoder.onnx'] !== createHash('sha256').update(decoder).digest('hex') && 'another hash',
  figures.length !== 2 && `${figures.length} figures, expected 2`,
  figures.some(({ data }) => !/6 steps.*at least this much.*too short/.test(data)) && 'it is not called short',
  existsSync(join(bundle, 'audit/decoder.onnx')) !== shippedBefore && 'the shipped bundle was changed',
]);

// A model of another kind: rows of a table, through the same commands.
const model = Graph.create({ name: 'table', opset: 17 });
const weight = (shape, seed) => {
  const data = new Float32Array(shape[0] * shape[1]);
  createFitRandom(seed).normal(data);
  return model.addInitializer(seed, float32(shape, data));
};
model.addInput('row', 'float32', ['N', 4]);
model.add('Tanh', [model.add('MatMul', ['row', weight([4, 6], 'a')])], {}, { outputs: ['hidden'] });
model.add('MatMul', ['hidden', weight([6, 2], 'b')], {}, { outputs: ['answer'] });
model.addOutput('answer', 'float32', ['N', 2]);
writeFileSync(file('table.onnx'), model.encode());
const random = createFitRandom('rows');
const rows = Array.from({ length: 80 }, () => Array.from({ length: 4 }, () => random.uniform().toFixed(3)));
for (const [name, from, to] of [
  ['known', 0, 60],
  ['others', 60, 80],
]) {
  mkdirSync(file(name));
  writeFileSync(file(`${name}/rows.csv`), rows.slice(from, to).join('\n'));
}
writeFileSync(file('high.csv'), `high\n${rows.map(([first]) => (first > 0.5 ? 'yes' : 'no')).join('\n')}\n`);
const call = (...args) => spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8', timeout: 120_000 });
const table = file('table-bundle');
const fitted = call(
  ...['fit', '--model', file('table.onnx'), '--cut', 'hidden', '--task', 'classification:answer', '--alpha', '0.5'],
  ...['--data', file('known'), '--transform', 'bottleneck', '--channels', '2', '--steps', '20', '--out', table],
);
const input = [table, '--data', file('known'), '--try', file('others'), '--steps', '20', '--out', file('table-report')];
const tabular = call('audit', ...input, '--labels', file('high.csv'), '--json');
const tabularReport = tabular.status === 0 ? JSON.parse(tabular.stdout) : undefined;
check('plain inputs', [
  fitted.status !== 0 && `fit: exit ${fitted.status}: ${fitted.stderr.slice(-300)}`,
  tabular.status !== 0 && `exit ${tabular.status}: ${tabular.stderr.slice(-300)}`,
  tabularReport?.bundles[0].attacks.map(({ name }) => name.split(',')[0]).join() !==
    'regression of the input,attribute high,linkage' && 'other attacks',
  tabularReport?.bundles[0].attacks.some(({ verdict }) => verdict === 'measured') && 'a short attack counts',
]);
const twice = call('audit', table, '--data', file('known'), '--try', file('known'), '--out', file('none'));
check('inputs that are trained on', [twice.status !== 2 && `exit ${twice.status}`, !/two inputs/.test(twice.stderr)]);
const certified = call('certify', table, '--data', file('known'), '--probe-inputs', '2', '--json');
check('certify a table', [certified.status !== 0 && `exit ${certified.status}: ${certified.stderr.slice(-300)}`]);

rmSync(folder, { recursive: true, force: true });
print(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
