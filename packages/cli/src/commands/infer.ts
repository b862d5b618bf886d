/**
 * `scrim infer`: head and noise here, tail on a v2 server. Photos give faces; .npy, .csv and .wav inputs give the model's
 * outputs.
 */
import { mkdir } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { expectType } from 'scrim';
import {
  type ConfidentialSession,
  createConfidentialSession,
  type PayloadFormat,
  type SessionAnswer,
} from 'scrim/client';
import { createNodeCrypto, createNodeEngine, readImage, writeFileAtomically, writeImage } from 'scrim/node';
import { Graph } from 'scrim/onnx';
import { drawBoxes } from 'scrim/vision';
import { type ClientFlags, createClient } from '../client-flags.js';
import type { CommandContext } from '../context.js';
import { type InputRow, type InputShape, isInputFile, readInputs } from '../input-files.js';
import { encodeNpy } from '../npy.js';
import { type BundleFlags, openServable } from '../remote-bundle.js';
import { formatBytes, formatTable } from '../table.js';

interface InferOptions extends ClientFlags, BundleFlags {
  readonly payload: PayloadFormat;
  readonly remoteModel?: string;
  readonly size?: number;
  readonly threshold: number;
  readonly out?: string;
  readonly threads?: number;
  readonly json?: boolean;
}

/** What went over the wire for one input. */
type Transferred = Pick<SessionAnswer, 'sentBytes' | 'receivedBytes' | 'candidates'>;

/** Sends one release for each input. */
export async function infer(context: CommandContext, options: InferOptions, inputs: string[]): Promise<void> {
  const bundle = await openServable(options);
  const client = await createClient(options);
  context.onClose(() => client.close());
  const engine = await createNodeEngine(options.threads === undefined ? {} : { threads: options.threads });
  context.onClose(() => engine.close());
  const session = await createConfidentialSession({
    bundle,
    client,
    engine,
    crypto: createNodeCrypto(),
    payload: options.payload,
    ...(options.remoteModel === undefined ? {} : { model: options.remoteModel }),
  });
  context.onClose(() => session.close());
  if (options.out !== undefined) await mkdir(options.out, { recursive: true });
  await session.check({ signal: context.signal });
  const shape = headInput(await bundle.read('trusted/head.onnx'));
  const rows: (Transferred & { input: string; [key: string]: unknown })[] = [];
  for (const input of inputs) {
    if (!isInputFile(input)) {
      const started = performance.now();
      const answer = await inferPhoto(session, input, options, context.signal);
      rows.push({ input, ...answer, ms: Math.round(performance.now() - started) });
      continue;
    }
    for await (const row of readInputs([input], shape)) {
      const started = performance.now();
      const answer = await inferRow(session, row, options, context.signal);
      rows.push({ input: row.label, ...answer, ms: Math.round(performance.now() - started) });
    }
  }
  if (options.json) {
    context.printJson({
      bundle: bundle.hash,
      alpha: bundle.manifest.alpha,
      server: client.url,
      model: session.model,
      payload: session.payload,
      answers: rows,
    });
    return;
  }
  context.print(
    formatTable(
      ['input', 'answer', 'sent', 'received', 'ms'],
      rows.map(({ input, sentBytes, receivedBytes, ms, ...rest }) => [
        basename(input),
        Array.isArray(rest.faces) ? `${rest.faces.length} faces` : Object.keys(rest.outputs as object).join(', '),
        ...[sentBytes, receivedBytes].map((bytes) => `${bytes} (${formatBytes(bytes)})`),
        String(ms),
      ]),
    ),
  );
}

/** Name and shape of what the head takes. */
function headInput(head: Uint8Array): InputShape {
  const graph = Graph.decode(head);
  const [name = ''] = graph.inputNames;
  return { name, shape: graph.declaredType(name)?.shape ?? [] };
}

async function inferPhoto(
  session: ConfidentialSession,
  file: string,
  { size, threshold, out }: InferOptions,
  signal: AbortSignal,
): Promise<Transferred & { faces: unknown[]; picture?: string }> {
  const image = await readImage(file);
  const { detections, ...answer } = await session.detect(image, {
    minScore: threshold,
    signal,
    ...(size === undefined ? {} : { resize: { kind: 'stretch', width: size, height: size } }),
  });
  const faces = detections.map(({ box, score }) => ({ box: box.map((side) => Number(side.toFixed(1))), score }));
  const transferred = transferredOf(answer);
  if (out === undefined) return { faces, ...transferred };
  const picture = join(out, `${basename(file, extname(file))}.png`);
  await writeImage(
    picture,
    drawBoxes(
      image,
      detections.map(({ box }) => box),
    ),
  );
  return { faces, ...transferred, picture };
}

async function inferRow(
  session: ConfidentialSession,
  { label, tensor }: InputRow,
  { out }: InferOptions,
  signal: AbortSignal,
): Promise<Transferred & { outputs: Record<string, unknown> }> {
  const { outputs, ...answer } = await session.infer(tensor, { signal });
  const shown: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(outputs)) {
    const { shape, data } = value;
    if (out === undefined) shown[name] = { shape, data: Array.from(data as ArrayLike<number | bigint>, Number) };
    else {
      const title = `${label.replace(/\.(npy|csv|wav)/i, '')}-${name}`.replace(/[^A-Za-z0-9_.-]/g, '_');
      const target = join(out, `${title}.npy`);
      await writeFileAtomically(target, encodeNpy(expectType(value, 'float32', `output '${name}'`)));
      shown[name] = { shape, file: target };
    }
  }
  return { outputs: shown, ...transferredOf(answer) };
}

function transferredOf({ sentBytes, receivedBytes, candidates }: Transferred): Transferred {
  return { sentBytes, receivedBytes, ...(candidates ? { candidates } : {}) };
}
