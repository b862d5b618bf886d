// What do the bottleneck bundles keep, and what do attackers get from them, beside diagonal noise and no noise?
//
// Fits, evaluates and audits through the `scrim` command, stage by stage, and prints the table of figures. Every stage
// leaves a JSON file with its seconds in --out; a stage that is there is not run again, and fits and decoders under
// training are kept by the command itself, so that an interrupted run (Ctrl-C, --until) goes on where it stopped.
// Several runs with different --stages may share an --out. --list shows the stages and what is done, --table prints the
// figures that are there.
//
//   node bench/privacy-figures.mjs --data ../shared/data --provider webgpu --until 560
//
// --data holds lfw/fit, lfw/audit, photos, fddb and weights/FaceBoxesProd.pth, as ../shared/data does. --models npm,prod;
// --alphas (the first is the headline); --ceiling-steps for attackers without noise, which learn sooner; --stages is a
// regular expression over the stages' names; --cache DIR keeps the canvases of a model for its other fits (a megabyte
// each); --size for bundles that are fitted here and all that is measured (default: 1024 for fits, else the bundle's); --fit-flags='…' are further flags of the bottleneck fits, separated by spaces; --shipped takes bundles from models/
// instead of fitting them, where they are there; --record writes what audits measured into the bundles' manifests; --until gives the seconds after which running stages are told to stop;
// --jobs how many stages may run at a time.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: flags } = parseArgs({
  options: {
    data: { type: 'string', default: fileURLToPath(new URL('../../shared/data', import.meta.url)) },
    out: { type: 'string', default: 'out/privacy-figures' },
    provider: { type: 'string', default: 'cpu' },
    models: { type: 'string', default: 'npm,prod' },
    alphas: { type: 'string', default: '0.8,0.9' },
    'fit-steps': { type: 'string', default: '3200' },
    canvases: { type: 'string', default: '2500' },
    batch: { type: 'string', default: '16' },
    'attack-steps': { type: 'string', default: '5000' },
    'ceiling-steps': { type: 'string' },
    'attack-canvases': { type: 'string', default: '0' },
    'attack-capacity': { type: 'string', default: '1' },
    'picture-side': { type: 'string', default: '256' },
    size: { type: 'string' },
    repeats: { type: 'string', default: '10' },
    photos: { type: 'string' },
    people: { type: 'string' },
    stages: { type: 'string', default: '.' },
    until: { type: 'string' },
    jobs: { type: 'string', default: '1' },
    threads: { type: 'string' },
    shipped: { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
    cache: { type: 'string' },
    'fit-flags': { type: 'string', default: '' },
    list: { type: 'boolean', default: false },
    table: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const BIN = fileURLToPath(new URL('../packages/cli/bin/scrim.js', import.meta.url));
const HERE = fileURLToPath(new URL('.', import.meta.url));
const alphas = flags.alphas.split(',').map(Number);
const [headline] = alphas;
const data = (path) => join(flags.data, path);
const photos = flags.photos?.split(',') ?? [data('lfw/fit'), data('photos')];
const people = flags.people ?? data('lfw/audit');
const out = (...path) => join(flags.out, ...path);
const MODELS = { npm: 'faceboxes', prod: data('weights/FaceBoxesProd.pth') };
const models = flags.models.split(',');
const unknown = models.find((model) => !(model in MODELS));
if (unknown !== undefined || !alphas.every((alpha) => alpha > 0 && alpha < 1)) {
  process.stderr.write(
    `--models is ${flags.models}, expected some of npm,prod; --alphas is ${flags.alphas}, expected numbers below 1\n`,
  );
  process.exit(2);
}
const size = flags.size === undefined ? [] : ['--size', flags.size];
const common = [...size, ...(flags.threads ? ['--threads', flags.threads] : [])];
const onDevice = [...common, '--provider', flags.provider];
const record = flags.record ? ['--record'] : [];
const ceiling = flags['ceiling-steps'] === undefined ? [] : ['--ceiling-steps', flags['ceiling-steps']];
const alphaName = (alpha) => `alpha-${alpha.toFixed(2)}`;
const SHIPPED = { npm: 'faceboxes-tfjs', prod: 'faceboxes-pytorch' };
const folderOf = (model, kind, alpha) =>
  shippedBundle(model, kind, alpha) ?? out('bundles', model, kind, alphaName(alpha));

/** The bundle under models/, where those are asked for and there is one. */
function shippedBundle(model, kind, alpha) {
  const name = `${SHIPPED[model]}${kind === 'diagonal' ? '' : `-${kind}`}`;
  const folder = join(HERE, '..', 'models', name, alphaName(alpha));
  return flags.shipped && existsSync(join(folder, 'manifest.json')) ? folder : undefined;
}

/** The bound of a bundle, in nats of one release. */
function natsOf(folder) {
  const { results } = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'));
  return results.find(({ unit }) => unit === 'nats')?.value;
}

/** True for the fit of a bundle that is there. */
function isShipped(stage) {
  const [what, kind, alpha, model] = stage.split(' ');
  return what === 'fit' && shippedBundle(model, kind, Number(alpha)) !== undefined;
}

/** A stage: the command that makes it, which stages it needs, and whether it wants the device. */
function stagesOf(model) {
  const spec = ['--model', MODELS[model]];
  const stages = [];
  const bundles = [...alphas.map((alpha) => ({ kind: 'bottleneck', alpha })), { kind: 'diagonal', alpha: headline }];
  const stage = (name, args, needs = [], command = [process.execPath, BIN]) =>
    stages.push({
      name: `${name} ${model}`,
      command: [...command, ...args],
      needs: needs.map((need) => `${need} ${model}`).filter((need) => !isShipped(need)),
    });
  for (const { kind, alpha } of bundles) {
    const shape =
      kind === 'bottleneck'
        ? [
            '--transform',
            'bottleneck',
            '--encoder',
            'deep',
            '--channels',
            '8',
            '--steps',
            flags['fit-steps'],
            '--batch',
            flags.batch,
            ...flags['fit-flags'].split(' ').filter((flag) => flag !== ''),
            ...(flags.cache === undefined ? [] : ['--cache', join(flags.cache, model)]),
          ]
        : ['--steps', String(Math.min(600, Number(flags['fit-steps'])))];
    const canvases = kind === 'bottleneck' ? flags.canvases : String(Math.min(384, Number(flags.canvases)));
    const device = kind === 'bottleneck' ? onDevice : common;
    const where = folderOf(model, kind, alpha);
    if (shippedBundle(model, kind, alpha)) continue;
    stage(`fit ${kind} ${alpha}`, [
      ...['fit', ...spec, '--alpha', String(alpha), '--photos', ...photos, ...shape, '--canvases', canvases],
      ...['--noise-only', '--out', where, '--force', '--json', ...device],
    ]);
  }
  for (const { kind, alpha } of bundles) {
    const where = folderOf(model, kind, alpha);
    // What the table needs first comes first: a run may end before it is through.
    stage(
      `audit ${kind} ${alpha}`,
      [
        ...['audit', where, ...spec, '--data', ...photos, '--try', data('fddb/originalPics'), '--people', people],
        ...['--attacks', 'decoder,right-face,re-identification', '--steps', flags['attack-steps']],
        // The diagonal bundle's ceiling is the row without a transform, so it is trained to the end.
        ...(kind === 'diagonal' ? [] : ceiling),
        ...(flags['attack-canvases'] === '0' ? [] : ['--canvases', flags['attack-canvases']]),
        ...['--capacity', flags['attack-capacity'], '--picture-side', flags['picture-side']],
        ...['--out', out('audits', model, `${kind}-${alphaName(alpha)}`), '--json', ...record, ...onDevice],
      ],
      [`fit ${kind} ${alpha}`],
    );
  }
  stage(
    `audit averaging ${headline}`,
    [
      ...['audit', folderOf(model, 'bottleneck', headline), ...spec, '--data', ...photos],
      ...['--try', data('fddb/originalPics'), '--attacks', 'plain-decoder,averaging', '--steps', flags['attack-steps']],
      ...ceiling,
      ...(flags['attack-canvases'] === '0' ? [] : ['--canvases', flags['attack-canvases']]),
      ...['--capacity', flags['attack-capacity'], '--picture-side', flags['picture-side']],
      ...['--out', out('audits', model, `bottleneck-${alphaName(headline)}`), '--json', ...record, ...onDevice],
    ],
    [`fit bottleneck ${headline}`, `audit bottleneck ${headline}`],
  );
  const fddb = ['--dataset', data('fddb'), '--allow-missing', '--json', ...common];
  stage('ap clean', ['evaluate', ...spec, ...fddb]);
  for (const { kind, alpha } of bundles) {
    const noisy = ['--bundle', folderOf(model, kind, alpha), '--noisy', '--repeats', flags.repeats];
    stage(`ap ${kind} ${alpha}`, ['evaluate', ...spec, ...fddb, ...noisy], [`fit ${kind} ${alpha}`]);
  }
  stage(
    `cost ${headline}`,
    ['--bundle', folderOf(model, 'bottleneck', headline), ...size, '--json', ...spec],
    [`fit bottleneck ${headline}`],
    [process.execPath, join(HERE, 'transform-cost.mjs')],
  );
  return stages;
}

const steps = ['--provider', flags.provider, '--batch', flags.batch, '--json'];
const all = [
  ...models.flatMap(stagesOf),
  { name: 'fit-step', command: [process.execPath, join(HERE, 'fit-step.mjs'), ...steps], needs: [] },
];
const fileOf = (name) => out('stages', `${name.replaceAll(' ', '-')}.json`);
/** What figures depend on: a stage of other settings is run again. */
const SETTINGS = [
  ...[
    'provider',
    'fit-steps',
    'canvases',
    'batch',
    'attack-steps',
    'ceiling-steps',
    'attack-canvases',
    'attack-capacity',
    'fit-flags',
  ],
  ...['picture-side', 'size', 'repeats', 'photos', 'people', 'shipped'],
];
/** The files of the shipped bundles with their hashes: one that was fitted anew is attacked anew. */
const shippedFiles = models.flatMap((model) =>
  [...alphas.map((alpha) => ['bottleneck', alpha]), ['diagonal', headline]].map(([kind, alpha]) => {
    const folder = shippedBundle(model, kind, alpha);
    return folder && JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')).files;
  }),
);
const settings = JSON.stringify([Object.fromEntries(SETTINGS.map((name) => [name, flags[name]])), shippedFiles]);
function done(name) {
  if (!existsSync(fileOf(name))) return undefined;
  const kept = JSON.parse(readFileSync(fileOf(name), 'utf8'));
  return kept.settings === settings ? kept : undefined;
}

const say = (text) => process.stderr.write(`${text}\n`);
const started = performance.now();
const children = new Set();
let stopping = false;
function stop() {
  stopping = true;
  for (const child of children) child.kill('SIGINT');
}
process.on('SIGINT', stop);
process.on('SIGTERM', stop);

function run({ name, command }) {
  const from = performance.now();
  say(`${name}: ${command.slice(1).join(' ')}`);
  const [program, ...args] = command;
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    children.add(child);
    let text = '';
    let errors = '';
    child.stdout.on('data', (chunk) => {
      text += chunk;
    });
    child.stderr.on('data', (chunk) => {
      errors = `${errors}${chunk}`.slice(-4000);
      process.stderr.write(chunk);
    });
    child.on('close', (status) => {
      children.delete(child);
      // Earlier runs of a stage that was interrupted count too.
      const spent = `${fileOf(name)}.seconds`;
      const before = existsSync(spent) ? Number(readFileSync(spent, 'utf8')) : 0;
      const seconds = Math.round(10 * before + (performance.now() - from) / 100) / 10;
      mkdirSync(out('stages'), { recursive: true });
      if (status !== 0) writeFileSync(spent, String(seconds));
      if (status === 0) {
        const kept = {
          stage: name,
          seconds,
          provider: flags.provider,
          machine: `${cpus()[0]?.model}, ${cpus().length} cores`,
          settings,
          result: JSON.parse(text),
        };
        writeFileSync(`${fileOf(name)}.tmp`, JSON.stringify(kept));
        renameSync(`${fileOf(name)}.tmp`, fileOf(name));
        say(`${name}: ${seconds} s`);
      } else if (!stopping) say(`${name} ended with ${status} after ${seconds} s:\n${errors.slice(-600)}`);
      resolve(status === 0);
    });
  });
}

async function runAll() {
  const wanted = new RegExp(flags.stages);
  const waiting = all.filter(({ name }) => wanted.test(name) && done(name) === undefined);
  const broken = new Set();
  const running = new Map();
  const timer = flags.until === undefined ? undefined : setTimeout(stop, Number(flags.until) * 1000);
  let failed = 0;
  for (;;) {
    for (let i = 0; i < waiting.length && running.size < Number(flags.jobs) && !stopping; ) {
      const stage = waiting[i];
      const open = stage.needs.filter((need) => done(need) === undefined);
      const coming = open.filter((need) => running.has(need) || waiting.some(({ name }) => name === need));
      if (open.length === 0) {
        waiting.splice(i, 1);
        running.set(
          stage.name,
          run(stage).then((well) => {
            if (!well && !stopping) {
              failed++;
              broken.add(stage.name);
            }
            running.delete(stage.name);
          }),
        );
      } else if (coming.length === 0 || open.some((need) => broken.has(need))) {
        say(`${stage.name} is left out: it needs '${open.join("', '")}', which is not there`);
        broken.add(stage.name);
        waiting.splice(i, 1);
        failed++;
      } else i++;
    }
    if (running.size === 0) break;
    await Promise.race(running.values());
  }
  clearTimeout(timer);
  say(
    `${Math.round((performance.now() - started) / 1000)} s; ${waiting.length} stages not begun${stopping ? ', stopped' : ''}`,
  );
  return failed;
}

const attackOf = (audit, name) => audit?.result.bundles[0].attacks.find((attack) => attack.name.startsWith(name));
const pick = (attack, name) => attack?.values.find((value) => value.name === name);
const baseline = (attack, name) => attack?.baselines.find((item) => item.name === name);

/** Everything that is there, as data: a row for each model and bundle. */
function figures() {
  const rows = [];
  for (const model of models) {
    const clean = done(`ap clean ${model}`);
    const sums = done(`audit diagonal ${headline} ${model}`);
    const decoder = attackOf(sums, 'decoder T');
    const face = attackOf(sums, 'right face');
    rows.push({
      model,
      transform: 'none',
      ap: clean && { mean: clean.result.mAP, sd: 0, runs: 1 },
      centred: pick(baseline(decoder, 'clean activation'), 'centred SSIM'),
      ssim: pick(baseline(decoder, 'clean activation'), 'SSIM'),
      psnr: pick(baseline(decoder, 'clean activation'), 'PSNR'),
      rightFace: baseline(face, 'clean activation')?.values[0],
    });
    rows.push({
      model,
      transform: 'mean photo',
      centred: pick(baseline(decoder, 'mean photo'), 'centred SSIM'),
      ssim: pick(baseline(decoder, 'mean photo'), 'SSIM'),
      psnr: pick(baseline(decoder, 'mean photo'), 'PSNR'),
    });
    const bundles = [{ kind: 'diagonal', alpha: headline }, ...alphas.map((alpha) => ({ kind: 'bottleneck', alpha }))];
    for (const { kind, alpha } of bundles) {
      const fit = done(`fit ${kind} ${alpha} ${model}`);
      const audit = done(`audit ${kind} ${alpha} ${model}`);
      const ap = done(`ap ${kind} ${alpha} ${model}`)?.result.mAP;
      const attack = attackOf(audit, 'decoder T');
      const recognised = attackOf(audit, 're-identification');
      const averaging =
        alpha === headline && kind === 'bottleneck' ? done(`audit averaging ${headline} ${model}`) : undefined;
      const repeated = attackOf(averaging, 'averaging, repeatable keys');
      rows.push({
        model,
        transform: kind,
        alpha,
        // A single draw is a number.
        ap:
          typeof ap === 'number'
            ? { mean: ap, sd: 0, runs: 1 }
            : ap && { mean: ap.mean, sd: ap.sd, runs: ap.runs.length },
        nats: fit?.result.nats ?? (shippedBundle(model, kind, alpha) && natsOf(folderOf(model, kind, alpha))),
        fitSeconds: fit?.result.seconds,
        verdict: attack?.verdict,
        reason: attack && (attack.live ? attack.trustedReason : attack.liveReason),
        centred: pick(attack, 'centred SSIM'),
        ssim: pick(attack, 'SSIM'),
        psnr: pick(attack, 'PSNR'),
        plain: pick(attackOf(averaging, 'plain decoder'), 'centred SSIM'),
        rightFace: attackOf(audit, 'right face')?.values[0],
        auc: recognised?.values.find(({ name }) => /AUC/i.test(name)),
        repeatable: repeated && {
          one: pick(repeated, 'centred SSIM ×1'),
          sixtyFour: pick(repeated, 'centred SSIM ×64'),
          distinct: repeated.settings.distinctReleases,
        },
        ...(alpha === headline && kind === 'bottleneck' ? { cost: done(`cost ${headline} ${model}`)?.result } : {}),
      });
    }
  }
  const seconds = Object.fromEntries(
    all.map(({ name }) => [name, done(name)?.seconds]).filter(([, value]) => value !== undefined),
  );
  return { settings: JSON.parse(settings), provider: flags.provider, rows, fitStep: done('fit-step')?.result, seconds };
}

function printTable({ rows, fitStep, seconds }) {
  const number = (value, digits = 3) => (value === undefined ? '–' : value.toFixed(digits));
  const headings = [
    'model',
    'transform',
    'alpha',
    'AP',
    'centred SSIM',
    'worst decile',
    'SSIM',
    'PSNR',
    'right face',
    'AUC',
    'nats',
    'plain',
    '×1 / ×64 repeatable',
    'verdict',
  ];
  const cells = rows.map((row) => [
    row.model,
    row.transform,
    row.alpha ?? '',
    row.ap ? `${number(row.ap.mean)} ± ${number(row.ap.sd)} (${row.ap.runs})` : '–',
    number(row.centred?.mean),
    number(row.centred?.worstDecile),
    number(row.ssim?.mean),
    number(row.psnr?.mean, 1),
    row.rightFace ? `${number(row.rightFace.mean)} (${row.rightFace.name})` : '–',
    number(row.auc?.mean),
    row.nats ?? '–',
    number(row.plain?.mean),
    row.repeatable
      ? `${number(row.repeatable.one?.mean)} / ${number(row.repeatable.sixtyFour?.mean)} (${row.repeatable.distinct} distinct)`
      : '–',
    row.verdict ?? '',
  ]);
  const widths = headings.map((_, i) => Math.max(...[headings, ...cells].map((row) => String(row[i]).length)));
  for (const row of [headings, ...cells]) {
    process.stdout.write(
      `${row
        .map((cell, i) => String(cell).padEnd(widths[i]))
        .join('  ')
        .trimEnd()}\n`,
    );
  }
  process.stdout.write('\n');
  for (const { model, cost } of rows) {
    if (!cost) continue;
    process.stdout.write(
      `${model}: ${cost.bytes.uint8} bytes as uint8, ${cost.bytes.fp16} as FP16; CPU time of head and transform ` +
        `${cost.ratio.toFixed(3)} × that of the clean head; 64 releases with repeatable keys are ${cost.distinctRepeatable} distinct, ` +
        `with fresh keys ${cost.distinctFresh}\n`,
    );
  }
  for (const { fit, scrimPerSecond, pytorchPerSecond, ratio } of fitStep?.cases ?? []) {
    const beside =
      ratio === undefined ? 'PyTorch not found' : `PyTorch ${pytorchPerSecond}/s (${fitStep.pytorch}), ratio ${ratio}`;
    process.stdout.write(`${fit} fit: ${scrimPerSecond} steps/s on ${fitStep.engine}; ${beside}\n`);
  }
  for (const [name, value] of Object.entries(seconds)) process.stdout.write(`${name.padEnd(32)} ${value} s\n`);
}

if (flags.list) {
  for (const { name, command } of all) {
    const kept = done(name);
    process.stdout.write(
      `${kept ? `done ${kept.seconds} s`.padEnd(16) : ''.padEnd(16)}${name}: ${command.slice(1).join(' ')}\n`,
    );
  }
} else {
  const failed = flags.table ? 0 : await runAll();
  const found = figures();
  mkdirSync(flags.out, { recursive: true });
  writeFileSync(out('figures.json'), `${JSON.stringify(found, null, 2)}\n`);
  if (flags.json) process.stdout.write(`${JSON.stringify(found, null, 2)}\n`);
  else printTable(found);
  process.exitCode = stopping ? 130 : failed > 0 ? 1 : 0;
}
