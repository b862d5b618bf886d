/**
 * The `scrim` command. Each command lives in its own file under commands/ and is loaded when it is called.
 *
 * stdout carries results alone; progress and remarks go to stderr. Exit codes: 0 done, 1 failed, 2 called wrongly,
 * 130 interrupted.
 */
import { Command, CommanderError, Option } from 'commander';
import { ScrimError } from 'scrim';
import { clientFlags, exportFlags, payloadFlag, transformFlag } from './client-flags.js';
import { type CommandContext, createContext } from './context.js';
import { registerDataopsCommands } from './dataops/index.js';
import { gatewayFlags } from './gateway-flags.js';
import { ledgerFileFlags, ledgerPolicyFlags } from './ledger-flags.js';
import { serveFlags } from './serve-options.js';

/** A command. Commander has parsed the options; their types are the command's own. */
type Action = (context: CommandContext, options: never, args: string[]) => Promise<void>;

/** Runs the command line and returns the exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  const context = createContext();
  const program = buildProgram(context);
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    return reportFailure(error, context);
  } finally {
    await context.close();
  }
}

function reportFailure(error: unknown, context: CommandContext): number {
  if (context.signal.aborted && !(error instanceof ScrimError && error.code !== 'CANCELLED')) {
    context.remark(error instanceof ScrimError ? error.message : 'interrupted');
    return 130;
  }
  if (error instanceof ScrimError) {
    process.stderr.write(`scrim: ${error.message} (${error.code})\n`);
    if (process.env.SCRIM_DEBUG) process.stderr.write(`${error.stack ?? ''}\n`);
    return error.info.exit;
  }
  process.stderr.write(`scrim: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return 1;
}

function buildProgram(context: CommandContext): Command {
  const program = new Command('scrim')
    .description(
      'Confidential inference: the head of a model runs here, a noisy release leaves, the tail runs anywhere.',
    )
    .version(context.version, '-V, --version')
    .exitOverride()
    .showHelpAfterError('(see scrim --help)')
    .configureHelp({ sortSubcommands: false });
  const action =
    (load: () => Promise<Action>) =>
    async (...values: unknown[]): Promise<void> => {
      const command = values.at(-1) as Command;
      const run = await load();
      await run(context, command.optsWithGlobals() as never, command.args);
    };
  const json = (): Option => new Option('--json', 'print one JSON document on stdout');
  const model = (): Option =>
    new Option('--model <file>', "ONNX file, FaceBoxes .pth checkpoint, or 'faceboxes' (npm weights)").default(
      'faceboxes',
    );
  const threads = (): Option =>
    new Option(
      '--threads <n>',
      'threads for inference; default: all cores, or the CPU limit of the container',
    ).argParser(positiveInteger('--threads'));
  const workers = (): Option =>
    new Option(
      '--workers <n>',
      'processes that prepare photos; default: one for two cores, none where photos are few',
    ).argParser(positiveInteger('--workers'));
  const provider = (): Option =>
    new Option('--provider <name>', 'execution provider: cpu, webgpu or cuda').default('cpu');
  const alpha = (): Option =>
    new Option('--alpha <a>', 'weight of privacy against accuracy, from 0 up to 1').argParser(fraction('--alpha'));
  const size = (fallback?: number): Option => {
    const option = new Option(
      '--size <pixels>',
      `side the photos are resized to${fallback === undefined ? " (default: the bundle's, or 1024)" : ''}`,
    ).argParser(positiveInteger('--size'));
    return fallback === undefined ? option : option.default(fallback);
  };

  const models = program.command('model').description('import a model, or see what can be done with it');
  models
    .command('import <weights>')
    .description("make an ONNX file from 'faceboxes' (npm weights) or a FaceBoxes .pth checkpoint")
    .requiredOption('--out <file>', 'ONNX file to write')
    .option('--force', 'replace the file if it exists')
    .addOption(json())
    .action(action(async () => (await import('./commands/model-import.js')).modelImport));
  models
    .command('bind <model>')
    .description('give inputs a constant value and symbolic sizes a number, and decide the branches that follow')
    .requiredOption('--out <file>', 'ONNX file to write')
    .option('--value <name=numbers...>', 'an input that always has this value, such as sr=16000; zeros for all 0')
    .option('--shape <name=sizes...>', 'sizes of an input that stays, such as input=N,576; a name stays symbolic')
    .option(
      '--float32',
      'make half precision, quantised arithmetic and inputs of integers float32, so that it can be fitted',
    )
    .option('--force', 'replace the file if it exists')
    .addOption(json())
    .action(action(async () => (await import('./commands/model-bind.js')).modelBind));
  models
    .command('inspect [model]')
    .description('operators of a model, and which can run, be differentiated and be cut')
    .addOption(json())
    .action(action(async () => (await import('./commands/model-inspect.js')).modelInspect));

  const split = program
    .command('split')
    .description('cut a model into head and tail')
    .addOption(model())
    .option('--cut <tensors>', 'names of the tensors to cut at, separated by commas; default: the one the model names')
    .option('--out <dir>', 'directory for head.onnx and tail.onnx')
    .option('--force', 'replace the files if they exist')
    .addOption(json())
    .action(action(async () => (await import('./commands/split.js')).split));
  split
    .command('plan')
    .description('list every valid cut with its size and share of the work')
    .addOption(model())
    .addOption(size(1024))
    .option('--input-shape <shape>', 'shape of the input, such as 1,3,1024,1024; default from --size')
    .addOption(
      new Option('--max-tensors <n>', 'largest number of tensors that may cross')
        .default(3)
        .argParser(positiveInteger('--max-tensors')),
    )
    .addOption(json())
    .action(action(async () => (await import('./commands/split.js')).splitPlan));

  program
    .command('fit')
    .description('learn the noise for one alpha on unlabelled photos and write a bundle')
    .addOption(model())
    .addOption(alpha().makeOptionMandatory())
    .option('--photos <dir...>', 'folders of photos, for a detector; each weighs the same')
    .option('--data <path...>', 'files or folders of .npy, .csv or .wav inputs, for any other model')
    .requiredOption('--out <dir>', 'bundle to write')
    .option('--cut <tensor>', 'tensor to cut at; default: the one the model names')
    .option('--task <kind>', 'detection:SCORES,BOXES, classification:OUTPUT or regression:OUTPUT,…')
    .addOption(
      new Option('--transform <kind>', 'how noise is shaped')
        .choices(['diagonal-per-channel', 'diagonal-per-element', 'bottleneck'])
        .default('diagonal-per-channel'),
    )
    .addOption(new Option('--encoder <kind>', 'of a bottleneck (default: "deep")').choices(['linear', 'mlp', 'deep']))
    .addOption(
      new Option('--channels <k>', 'that a bottleneck releases (default: 8)').argParser(positiveInteger('--channels')),
    )
    .option('--adversary <weight>', 'of a decoder that a bottleneck is trained against (default: 0)', Number)
    .addOption(
      new Option('--steps <n>', 'optimisation steps (default: 600, bottleneck 3200)').argParser(
        positiveInteger('--steps'),
      ),
    )
    .addOption(
      new Option('--batch <n>', 'activations per step (default: 8, bottleneck 16)').argParser(
        positiveInteger('--batch'),
      ),
    )
    .addOption(
      new Option('--canvases <n>', 'pictures composed from the photos (default: 384, bottleneck 2000)').argParser(
        positiveInteger('--canvases'),
      ),
    )
    .option('--learning-rate <r>', 'of Adam (default: 0.05, bottleneck 0.002)', Number)
    .option('--tail-learning-rate <r>', "of the tail's weights in a bottleneck fit (default: 0.0005)", Number)
    .option('--seed <text>', 'seed of the fit (not of any key): the same seed gives the same noise parameters', 'scrim')
    .option('--noise-only', 'leave the models out of the bundle (they are completed from the model it names)')
    .option('--checkpoint <file>', 'where an interrupted fit is kept; default: <out>.checkpoint')
    .option('--cache <dir>', 'keep what the model makes of the canvases there, for further fits on the same ones')
    .addOption(workers())
    .option('--force', 'replace the bundle if it exists')
    .addOption(size(1024))
    .addOption(
      new Option(
        '--read-at <pixels>',
        'side that photos are resized to when the bundle is used; default: --size',
      ).argParser(positiveInteger('--read-at')),
    )
    .addOption(threads())
    .addOption(provider())
    .addOption(json())
    .action(action(async () => (await import('./commands/fit.js')).fit));

  program
    .command('detect <photos...>')
    .description('find faces with and without noise and write pictures of what left')
    .addOption(model())
    .option('--bundle <dir>', 'bundle to use; default: the shipped one for --model, --transform and --alpha')
    .addOption(transformFlag('bottleneck'))
    .addOption(alpha().default(0.8))
    .option('--out <dir>', 'directory for the pictures', 'out')
    .addOption(
      new Option('--threshold <t>', 'score a face must reach; halved with noise')
        .default(0.5)
        .argParser(fraction('--threshold')),
    )
    .addOption(size())
    .addOption(threads())
    .addOption(provider())
    .addOption(json())
    .action(action(async () => (await import('./commands/detect.js')).detect));

  const evaluate = program
    .command('evaluate')
    .description('average precision on FDDB, as TR-4928 prints it; with --data, answers of any other model')
    .option('--dataset <dir>', 'directory with FDDB-folds and originalPics')
    .option('--data <path...>', 'files or folders of .npy, .csv or .wav inputs to answer with and without noise')
    .option('--labels <file>', 'right answers for --data: a .csv or .npy with a line for each input, in their order')
    .addOption(model())
    .option('--bundle <dir>', 'bundle to use; default: the shipped one for --model and --alpha')
    .addOption(alpha())
    .option('--noisy', 'add the noise of the bundle')
    .option('--allow-missing', 'go on when some of the 2,845 photos are not there')
    .addOption(new Option('--repeats <n>', 'runs with fresh noise').default(1).argParser(positiveInteger('--repeats')))
    .option('--scores <file>', 'also write every detection, in the format of FDDB')
    .option('--shard <i/n>', 'count one part of n only, from 0; needs --partial')
    .option('--partial <file>', 'keep what was counted here; goes on where such a file ends')
    .addOption(size())
    .addOption(threads())
    .addOption(provider())
    .addOption(json())
    .action(action(async () => (await import('./commands/evaluate.js')).evaluate));
  evaluate
    .command('merge <parts...>')
    .description('put the parts that --partial kept together: exactly the figures of a single run')
    .action(action(async () => (await import('./commands/evaluate-merge.js')).evaluateMerge));

  program
    .command('sweep')
    .description('accuracy against alpha: table, JSON and chart')
    .requiredOption('--dataset <dir>', 'directory with FDDB-folds and originalPics')
    .addOption(model())
    .addOption(transformFlag('diagonal'))
    .option('--photos <dir...>', 'folders of photos, to fit the alphas that have no diagonal bundle yet')
    .option('--bundles <dir>', 'where bundles are kept; default: the shipped ones for the npm weights')
    .option('--noise-only', 'fit bundles without models')
    .option('--record', 'write the measured accuracy into the manifests of the bundles')
    .option('--alphas <list>', 'alphas, separated by commas', '0.05,0.1,0.2,0.4,0.6,0.8,0.9,0.95')
    .option('--out <dir>', 'directory for sweep.txt, sweep.json, sweep.svg and sweep.png', 'out')
    .option('--allow-missing', 'go on when some of the 2,845 photos are not there')
    .addOption(new Option('--repeats <n>', 'runs with fresh noise').default(5).argParser(positiveInteger('--repeats')))
    .addOption(new Option('--steps <n>', 'optimisation steps').default(600).argParser(positiveInteger('--steps')))
    .addOption(
      new Option('--canvases <n>', 'pictures composed from the photos')
        .default(384)
        .argParser(positiveInteger('--canvases')),
    )
    .option('--seed <text>', 'seed of the fits', 'scrim')
    .addOption(size())
    .addOption(threads())
    .addOption(provider())
    .addOption(json())
    .action(action(async () => (await import('./commands/sweep.js')).sweep));

  program
    .command('audit <bundles...>')
    .description('what attackers get from releases of bundles: trained, tried and reported as a page and JSON')
    .requiredOption(
      '--data <path...>',
      'folders of photos (for other models files or folders of .npy, .csv or .wav inputs): most to train attackers on, ' +
        'the rest to try them on',
    )
    .option(
      '--try <path...>',
      'photos or inputs to try attackers on, none of them in --data; then all of --data is for training',
    )
    .option('--people <dir>', 'a folder of photos for each person, none of them in --data: can they be recognised?')
    .option(
      '--labels <file>',
      'CSV with a line file,<attribute>,… and one for each photo (or input, as FILE#ROW): can attributes be told?',
    )
    .option(
      '--attacks <list>',
      "attacks to run, separated by commas; default: all that the data allows; 'none' with --ship-decoder",
    )
    .addOption(model())
    .addOption(
      new Option('--steps <n>', 'training steps of an attacker; below 5,000 a decoder is not trusted')
        .default(6000)
        .argParser(positiveInteger('--steps')),
    )
    .addOption(
      new Option(
        '--ceiling-steps <n>',
        'training steps of the same attacker without noise, which learns sooner; default: as --steps',
      ).argParser(positiveInteger('--ceiling-steps')),
    )
    .addOption(
      new Option('--tried <n>', 'most photos of --data to try attackers on')
        .default(100)
        .argParser(positiveInteger('--tried')),
    )
    .addOption(
      new Option('--capacity <factor>', "multiplies the widths of attackers' decoders")
        .default(1)
        .argParser(positiveNumber('--capacity')),
    )
    .addOption(
      new Option('--seeds <n>', 'decoders to train for each attack by decoders, for the spread between them')
        .default(1)
        .argParser(positiveInteger('--seeds')),
    )
    .addOption(
      new Option(
        '--canvases <n>',
        'train decoders on so many pictures composed of the photos of --data, as fits compose theirs; default: on the photos',
      ).argParser(positiveInteger('--canvases')),
    )
    .addOption(
      new Option('--picture-side <pixels>', 'longest side of what attackers rebuild')
        .default(256)
        .argParser(positiveInteger('--picture-side')),
    )
    .addOption(workers())
    .option('--embedder <file>', 'ONNX face recognition network; default: that of the npm package @vladmandic/face-api')
    .option('--embedder-spec <json>', 'side, layout, preprocessing, margin, shift and similarity of --embedder')
    .option('--seed <text>', 'seed of attackers and splits, not of any key', 'audit')
    .option('--out <dir>', 'directory for index.html, report.json and finished parts', 'report')
    .option('--record', 'write what was measured into the manifests of the bundles')
    .option('--ship-decoder', 'train a small decoder besides and put it into the bundles, for the studio to run')
    .addOption(size())
    .addOption(threads())
    .addOption(provider())
    .addOption(json())
    .action(action(async () => (await import('./commands/audit.js')).audit));

  const bench = program.command('bench').description('measure on this machine');
  bench
    .command('obfuscation')
    .description("the document's measurement: head and transform on a 1920×1080 image, five runs")
    .addOption(model())
    .option('--bundle <dir>', 'bundle to use; default: the shipped one for --model and --alpha')
    .addOption(alpha().default(0.8))
    .addOption(threads())
    .addOption(json())
    .action(action(async () => (await import('./commands/bench-obfuscation.js')).benchObfuscation));

  program
    .command('certify <bundle>')
    .description('what releases tell at most, whatever an attacker does: information, odds, least reconstruction error')
    .addOption(model())
    .requiredOption(
      '--data <dir>',
      'photos (.npy, .csv or .wav inputs for a model that takes none) like those to protect',
    )
    .addOption(
      new Option('--releases <n>', 'fresh releases of one input that an attacker may have')
        .default(1)
        .argParser(positiveInteger('--releases')),
    )
    .addOption(
      new Option('--prior <p...>', 'probability of a right guess without the release, such as 0.5 or 1/1000').argParser(
        probabilities('--prior'),
      ),
    )
    .option('--region <x,y,w,h>', "part of the input, in its pixels, such as a face's place")
    .addOption(new Option('--inputs <n>', 'inputs to use at most').default(240).argParser(positiveInteger('--inputs')))
    .addOption(
      new Option('--confidence <c>', 'of the figures that rest on samples')
        .default(0.95)
        .argParser(fraction('--confidence')),
    )
    .option('--smoothing <s>', 'noise the inputs are taken to have, in levels of 255 (or input units)', Number, 8)
    .addOption(
      new Option('--probe-inputs <n>', 'inputs probed for Fisher information')
        .default(24)
        .argParser(positiveInteger('--probe-inputs')),
    )
    .addOption(new Option('--probes <n>', 'probes of each').default(2).argParser(positiveInteger('--probes')))
    .option('--seed <text>', 'seed of the order and the probes (not of any key)', 'certify')
    .addOption(size())
    .addOption(threads())
    .addOption(json())
    .action(action(async () => (await import('./commands/certify.js')).certify));

  program
    .command('demo')
    .description('the whole story on sample photos: faces found in photos that were never sent')
    .option('--out <dir>', 'directory for the pictures and the page', 'demo-out')
    .option('--fit', 'fit the noise here instead of taking the shipped bundle')
    .addOption(transformFlag('bottleneck'))
    .addOption(alpha().default(0.8))
    .addOption(threads())
    .addOption(json())
    .action(action(async () => (await import('./commands/demo.js')).demo));

  program
    .command('studio')
    .description('the page that shows it at work in a browser, with bundles and a server, on one local address')
    .addOption(model())
    .option('--bundles <dir...>', 'folders of bundles; default: the shipped ones')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .addOption(
      new Option('--port <port>', 'port to listen on; 0 for any free one')
        .default(7860)
        .argParser(portNumber('--port')),
    )
    .addOption(threads())
    .option('--access-log', 'log single requests on stderr')
    .action(action(async () => (await import('./commands/studio.js')).studio));

  const serve = program
    .command('serve <repository>')
    .description('serve a Triton model repository over HTTP and gRPC, as Triton does');
  for (const flag of serveFlags()) serve.addOption(flag);
  serve.action(action(async () => (await import('./commands/serve.js')).serve));

  const infer = program
    .command('infer <inputs...>')
    .description('head and noise here, tail on a v2 server: photos in, faces out; .npy, .csv or .wav in, outputs out')
    .option('--bundle <dir>', 'bundle to use; default: the shipped one for --model, --transform and --alpha')
    .addOption(model())
    .addOption(transformFlag('bottleneck'))
    .addOption(alpha().default(0.8))
    .addOption(payloadFlag())
    .option('--remote-model <name>', 'model to ask; default: what the bundle calls the one for --payload')
    .option('--out <dir>', 'directory for pictures or .npy outputs')
    .addOption(
      new Option('--threshold <t>', 'score a face must reach').default(0.25).argParser(fraction('--threshold')),
    )
    .addOption(size())
    .addOption(threads())
    .addOption(json());
  for (const flag of clientFlags()) infer.addOption(flag);
  infer.action(action(async () => (await import('./commands/infer.js')).infer));

  const exported = program
    .command('repo')
    .description('Triton model repositories')
    .command('export')
    .description('write the remote half of a bundle as a Triton model repository')
    .option('--bundle <dir>', 'bundle to use; default: the shipped one for --model, --transform and --alpha')
    .addOption(model())
    .addOption(transformFlag('bottleneck'))
    .addOption(alpha().default(0.8))
    .requiredOption('--out <repo>', 'repository to write')
    .option('--force', 'replace the repository if it exists')
    .addOption(json());
  for (const flag of exportFlags()) exported.addOption(flag);
  exported.action(action(async () => (await import('./commands/repo-export.js')).repoExport));

  const perf = program
    .command('perf')
    .description('latency and throughput of a v2 server at rising concurrency')
    .requiredOption('-m, --model-name <name>', 'model to ask')
    .option('--concurrency-range <a:b:c>', 'start:end:step', '1')
    .addOption(
      new Option('--measurement-ms <n>', 'length of a window')
        .default(5000)
        .argParser(positiveInteger('--measurement-ms')),
    )
    .addOption(
      new Option('--warmup-ms <n>', 'load before each window').default(500).argParser(positiveInteger('--warmup-ms')),
    )
    .addOption(new Option('-b, --batch <n>', 'batch size').default(1).argParser(positiveInteger('--batch')))
    .option('--shape <name:dims...>', 'shape of an input without the batch, such as x:3,224,224')
    .option('--csv <file>', "also write perf_analyzer's CSV")
    .addOption(json());
  for (const flag of clientFlags('-u, --url <url>')) perf.addOption(flag);
  perf.action(action(async () => (await import('./commands/perf.js')).perf));

  const gateway = program
    .command('gateway')
    .description('let existing v2 clients use a remote server that sees releases alone; runs on the trusted side')
    .option('--bundle <dir>', 'bundle to use; default: the shipped one for --model, --transform and --alpha')
    .addOption(model())
    .addOption(transformFlag('bottleneck'))
    .addOption(alpha().default(0.8))
    .addOption(payloadFlag())
    .addOption(size())
    .addOption(threads());
  for (const flag of [...gatewayFlags(), ...clientFlags('--upstream <url>')]) gateway.addOption(flag);
  gateway.action(action(async () => (await import('./commands/gateway.js')).gateway));

  const ledger = program.command('ledger').description('what was released about whom, and how much may be');
  const ledgerFile = (): Option[] => {
    const [file, ...rest] = ledgerFileFlags();
    return [(file as Option).makeOptionMandatory(), ...rest];
  };
  const show = ledger
    .command('show')
    .description('releases and nats by subject, the subjects as keyed hashes')
    .option('--subject <name>', "this one alone; '-' reads the name from standard input");
  for (const flag of [...ledgerFile(), json()]) show.addOption(flag);
  show.action(action(async () => (await import('./commands/ledger.js')).ledgerShow));
  const forget = ledger
    .command('forget <subject>')
    .description("delete all that is kept about a subject; '-' reads the name from standard input");
  for (const flag of [...ledgerFile(), json()]) forget.addOption(flag);
  forget.action(action(async () => (await import('./commands/ledger.js')).ledgerForget));
  const policy = ledger
    .command('policy')
    .description('show the limits, or replace them')
    .option('--unlimited', 'no limits: count only');
  for (const flag of [...ledgerFile(), ...ledgerPolicyFlags(), json()]) policy.addOption(flag);
  policy.action(action(async () => (await import('./commands/ledger.js')).ledgerPolicy));
  registerDataopsCommands(program, context);
  return program;
}

function positiveInteger(flag: string): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected an integer of at least 1`);
    }
    return value;
  };
}

function positiveNumber(flag: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!(value > 0 && Number.isFinite(value))) {
      throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected a number above 0`);
    }
    return value;
  };
}

function probabilities(flag: string): (text: string, before?: readonly number[]) => number[] {
  return (text, before = []) => {
    const [top = '', bottom = '1', ...more] = text.split('/').map((part) => part.trim());
    const value = top === '' || bottom === '' || more.length > 0 ? Number.NaN : Number(top) / Number(bottom);
    if (!(value > 0 && value < 1)) {
      throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected a number between 0 and 1 or 1/N`);
    }
    return [...before, value];
  };
}

function portNumber(flag: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!Number.isInteger(value) || value < 0 || value > 65_535) {
      throw new ScrimError('INVALID_ARGUMENT', `${flag} is '${text}', expected a port from 0 to 65535`);
    }
    return value;
  };
}

function fraction(flag: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!(value >= 0 && value < 1)) {
      throw new ScrimError(
        'INVALID_ARGUMENT',
        `${flag} is '${text}', expected a number from 0 up to, but not including, 1`,
      );
    }
    return value;
  };
}
