// Silero VAD v5 as the npm package @ricky0123/vad-web ships it, made into a model of a second at a time.
//
// The file picks one of two networks by the sampling rate and squeezes by sizes, all in If nodes; it takes 512 new samples
// and 64 old ones with the state of an LSTM, and gives the state back. Bound to 16 kHz the branches go away. A state that
// comes in and goes out leaves no place to cut, so the frames of a second are made the steps of the LSTM: samples
// [N, 64 + 512·L] in, the probability of speech [N, L] out, the same numbers as frame by frame from an empty state.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { float32, int64, tensor } from 'scrim';
import { bindInputs, extractGraph, Graph } from 'scrim/onnx';

/** Frames in a second (30 × 512 samples). */
export const FRAMES = 30;
export const FRAME = 512;
/** Samples of the frame before that the network looks back at. */
export const LEAD = 64;
export const LENGTH = LEAD + FRAMES * FRAME;

const RATE = tensor('int64', [], BigInt64Array.of(16_000n));

/** The bytes of the model as it is shipped. */
export function readSilero() {
  const folder = dirname(createRequire(import.meta.url).resolve('@ricky0123/vad-web/package.json'));
  return readFileSync(join(folder, 'dist', 'silero_vad_v5.onnx'));
}

/** Every node that `values` are computed by. */
function behind(graph, values) {
  const nodes = new Set();
  const seen = new Set(values);
  for (const value of seen) {
    const node = graph.producer(value);
    if (!node || nodes.has(node)) continue;
    nodes.add(node);
    for (const input of node.input) if (input !== '') seen.add(input);
  }
  return nodes;
}

/** A second at a time: 'samples' [N, 64 + 512·30] in, 'speech' [N, 30] out; 'features' [N, 128, 30] is the natural cut. */
export function sileroBySeconds(bytes = readSilero()) {
  const bound = bindInputs(Graph.decode(bytes), {
    values: { sr: RATE },
    shapes: { input: [1, LEAD + FRAME], state: [2, 1, 128] },
  });
  const lstm = bound.nodes().find(({ opType }) => opType === 'LSTM');
  const decode = bound.nodes().findLast(({ opType }) => opType === 'Conv');
  const encoded = bound
    .nodes()
    .findLast(
      ({ opType, output }) => opType === 'Relu' && behind(bound, [lstm.input[0]]).has(bound.producer(output[0])),
    );
  const kept = [encoded.output[0], ...lstm.input.slice(1, 4), ...decode.input.slice(1)];
  const info = (name) => bound.proto.input.find((input) => input.name === name);
  const graph = extractGraph(bound, {
    name: 'silero_vad_seconds',
    nodes: behind(bound, kept),
    inputs: [info('input')],
    outputs: [],
  });
  graph.addInput('samples', 'float32', ['N', LENGTH]);
  const places = Array.from({ length: FRAMES * (LEAD + FRAME) }, (_, i) => {
    const frame = Math.floor(i / (LEAD + FRAME));
    return frame * FRAME + (i % (LEAD + FRAME));
  });
  const reshape = (value, shape, name) =>
    graph.add('Reshape', [value, graph.addInitializer('shape', int64(shape))], {}, name ? { outputs: [name] } : {});
  const frames = graph.add('Gather', ['samples', graph.addInitializer('frames', int64(places))], { axis: 1 });
  graph.replaceUses('input', reshape(frames, [-1, LEAD + FRAME]));
  const steps = reshape(encoded.output[0], [-1, FRAMES, 128]);
  graph.add('Transpose', [steps], { perm: [0, 2, 1] }, { outputs: ['features'] });
  const sequence = graph.add('Transpose', ['features'], { perm: [2, 0, 1] });
  const [states] = graph.addMany('LSTM', [sequence, ...lstm.input.slice(1, 4)], { hidden_size: 128 });
  const rectified = graph.add('Relu', [graph.add('Squeeze', [states, graph.addInitializer('axis', int64([1]))])]);
  const column = reshape(decode.input[1], [128, 1]);
  const logits = graph.add('Add', [graph.add('MatMul', [rectified, column]), decode.input[2]]);
  const rows = graph.add('Transpose', [graph.add('Sigmoid', [logits])], { perm: [1, 0, 2] });
  reshape(rows, [-1, FRAMES], 'speech');
  graph.addOutput('speech', 'float32', ['N', FRAMES]);
  graph.prune({ inputs: true });
  return new Graph(graph.model);
}

/** The shipped model, frame by frame, from an empty state: what `sileroBySeconds` has to agree with. */
export async function runFrameByFrame(session, samples) {
  let state = float32([2, 1, 128], new Float32Array(256));
  const speech = [];
  for (let frame = 0; frame < FRAMES; frame++) {
    const input = float32([1, LEAD + FRAME], samples.slice(frame * FRAME, frame * FRAME + LEAD + FRAME));
    const { output, stateN } = await session.run({ input, state, sr: RATE });
    state = stateN;
    speech.push(output.data[0]);
  }
  return speech;
}
