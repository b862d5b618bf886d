/** `scrim bench obfuscation`: the document's measurement, head and transform on a 1920×1080 image, five runs. */
import { cpus } from 'node:os';
import { createTrustedHalf, type Tensor, tensor } from 'scrim';
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
  const trusted = await createTrustedHalf({ bundle, engine, crypto: createNodeCrypto() });
  context.onClose(() => trusted.close());
  const input = randomInput();
  const headMs: number[] = [];
  const transformMs: number[] = [];
  let values = 0;
  for (let run = -WARM_UP_RUNS; run < RUNS; run++) {
    context.signal.throwIfAborted();
    const release = await trusted.release(input, {
      now: () => performance.now(),
      onTiming: (timing) => {
        if (run < 0) return;
        headMs.push(timing.headMs);
        transformMs.push(timing.transformMs);
      },
    });
    values = release.shape.reduce((product, dimension) => product * dimension, 1);
  }
  const result = {
    image: { width: WIDTH, height: HEIGHT },
    values,
    alpha: bundle.manifest.alpha,
    transform: { runsMs: transformMs, meanMs: mean(transformMs), threads: 1 },
    head: { runsMs: headMs, meanMs: mean(headMs), threads: engine.threads },
    engine: engine.description,
    machine: `${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores`,
    document: { transformMs: 5.07, machine: 'NVIDIA V100 (TR-4928)' },
  };
  if (options.json) return context.printJson(result);
  const ms = (value: number | undefined): string => (value ?? Number.NaN).toFixed(3);
  context.print(`${WIDTH}×${HEIGHT} image, ${values.toLocaleString('en')} values released, alpha ${result.alpha}`);
  context.print(
    formatTable(
      ['', ...Array.from({ length: RUNS }, (_, i) => `run ${i + 1}`), 'mean'],
      [
        ['transform ms', ...transformMs.map(ms), ms(result.transform.meanMs)],
        ['head ms', ...headMs.map(ms), ms(result.head.meanMs)],
      ],
    ),
  );
  context.print(`transform on 1 thread, head on ${engine.threads} of ${engine.description}; ${result.machine}`);
  context.print('TR-4928: 5.07 ms for the transform on an NVIDIA V100');
}

/** Pixels of a normalised picture of that size; what they show does not matter to the time. */
function randomInput(): Tensor {
  const random = createFitRandom('bench');
  const data = new Float32Array(3 * WIDTH * HEIGHT);
  for (let i = 0; i < data.length; i++) data[i] = random.uniform() * 255 - 120;
  return tensor('float32', [1, 3, HEIGHT, WIDTH], data);
}
