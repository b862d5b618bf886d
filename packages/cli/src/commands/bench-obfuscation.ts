/**
 * `scrim bench obfuscation`: the document's measurement, head and transform on a 1920×1080 image, five runs. The
 * document's transform sends every channel; a bundle that suppresses some is measured so as well, and apart as it is.
 */
import { cpus } from 'node:os';
import { type Bundle, createTrustedHalf, type Tensor, type TrustedHalf, tensor } from 'scrim';
import { mean } from 'scrim/metrics';
import { createNodeCrypto, createNodeEngine } from 'scrim/node';
import { createFitRandom } from 'scrim/noise';
import { findBundle, openFor } from '../bundle-store.js';
import type { CommandContext } from '../context.js';
import { loadModelSource } from '../model-source.js';
import { formatTable } from '../table.js';

const WIDTH = 1920;
const HEIGHT = 1080;
const RUNS = 5;
/** The engine compiles the kernel in two tiers: it takes some runs until the faster one is in place. */
const WARM_UP_RUNS = 30;

export async function benchObfuscation(
  context: CommandContext,
  options: { model: string; bundle?: string; alpha: number; threads?: number; json?: boolean },
): Promise<void> {
  const model = await loadModelSource(options.model);
  const bundle =
    options.bundle === undefined ? await findBundle(model, options.alpha) : await openFor(options.bundle, model);
  const engine = await createNodeEngine(options.threads === undefined ? {} : { threads: options.threads });
  context.onClose(() => engine.close());
  const open = async (opened: Bundle): Promise<TrustedHalf> => {
    const half = await createTrustedHalf({ bundle: opened, engine, crypto: createNodeCrypto() });
    context.onClose(() => half.close());
    return half;
  };
  const suppresses = bundle.manifest.transform.suppressedChannels > 0;
  const whole = await open({ ...bundle, parameters: withEveryChannel(bundle.parameters) });
  const fitted = suppresses ? await open(bundle) : undefined;
  const input = randomInput();
  const headMs: number[] = [];
  const all: Measured = { values: 0, runsMs: [] };
  const own: Measured = { values: 0, runsMs: [] };
  for (let run = -WARM_UP_RUNS; run < RUNS; run++) {
    context.signal.throwIfAborted();
    const measure = async (half: TrustedHalf, into: Measured, headInto?: number[]): Promise<void> => {
      const release = await half.release(input, {
        now: () => performance.now(),
        onTiming: (timing) => {
          if (run < 0) return;
          headInto?.push(timing.headMs);
          into.runsMs.push(timing.transformMs);
        },
      });
      into.values = release.payload.length;
    };
    await measure(whole, all, headMs);
    if (fitted) await measure(fitted, own);
  }
  const result = {
    image: { width: WIDTH, height: HEIGHT },
    values: all.values,
    alpha: bundle.manifest.alpha,
    transform: { runsMs: all.runsMs, meanMs: mean(all.runsMs), threads: 1 },
    ...(fitted ? { transformAsFitted: { values: own.values, runsMs: own.runsMs, meanMs: mean(own.runsMs) } } : {}),
    head: { runsMs: headMs, meanMs: mean(headMs), threads: engine.threads },
    engine: engine.description,
    machine: `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores`,
    document: { transformMs: 5.07, machine: 'NVIDIA V100 (TR-4928)' },
  };
  if (options.json) return context.printJson(result);
  const ms = (value: number | undefined): string => (value ?? Number.NaN).toFixed(3);
  context.print(`${WIDTH}×${HEIGHT} image, ${all.values.toLocaleString('en')} values released, alpha ${result.alpha}`);
  context.print(
    formatTable(
      ['', ...Array.from({ length: RUNS }, (_, i) => `run ${i + 1}`), 'mean'],
      [
        ['transform ms', ...all.runsMs.map(ms), ms(result.transform.meanMs)],
        ...(fitted ? [['as fitted ms', ...own.runsMs.map(ms), ms(mean(own.runsMs))]] : []),
        ['head ms', ...headMs.map(ms), ms(result.head.meanMs)],
      ],
    ),
  );
  if (fitted) {
    context.print(
      `as fitted: ${bundle.manifest.transform.suppressedChannels} channels are suppressed and not sent, ${own.values.toLocaleString('en')} values`,
    );
  }
  context.print(`transform on 1 thread, head on ${engine.threads} of ${engine.description}; ${result.machine}`);
  context.print('TR-4928: 5.07 ms for the transform on an NVIDIA V100');
}

interface Measured {
  values: number;
  readonly runsMs: number[];
}

/** Parameters that send every channel: a suppressed one gets gain 1 and noise as large as its signal. */
function withEveryChannel(parameters: Bundle['parameters']): Bundle['parameters'] {
  const { gain, sigma, variance } = parameters;
  const perChannel = gain.length / variance.length;
  const deviation = (i: number): number => Math.sqrt(variance[Math.floor(i / perChannel)] as number);
  return {
    ...parameters,
    gain: gain.map((m) => (m === 0 ? 1 : m)),
    sigma: sigma.map((s, i) => (gain[i] === 0 ? Math.max(s, deviation(i), LEAST_SIGMA) : s)),
  };
}

/** Noise of a suppressed channel that never varied. */
const LEAST_SIGMA = 1e-3;

/** Pixels of a normalised picture of that size; what they show does not matter to the time. */
function randomInput(): Tensor {
  const random = createFitRandom('bench');
  const data = new Float32Array(3 * WIDTH * HEIGHT);
  for (let i = 0; i < data.length; i++) data[i] = random.uniform() * 255 - 120;
  return tensor('float32', [1, 3, HEIGHT, WIDTH], data);
}
