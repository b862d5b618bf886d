/**
 * Works around a wrong kernel of onnxruntime's WebGPU provider (seen in 1.30, microsoft/onnxruntime#29651): a Conv with
 * a window above 1×1, input channels that are a multiple of 3 but not of 4 (3 itself apart) and output channels that
 * are a multiple of 4 reads its input in threes and gives wrong numbers without an error. Channels of zeros up to the next
 * multiple of 4, in input and weight, give the same answer by a kernel that is right.
 */

import { int64, scalar } from '../tensor.js';
import { intAttribute } from './attributes.js';
import { Graph } from './graph.js';
import { inferShapes } from './shape-inference.js';

/** Pads every such Conv of `graph`, in place; returns how many there were. */
export function padConvChannels(graph: Graph): number {
  const convolutions = graph.nodes().filter((node) => node.opType === 'Conv' && intAttribute(node, 'group', 1) === 1);
  if (convolutions.length === 0) return 0;
  const types = inferShapes(graph);
  let padded = 0;
  for (const node of convolutions) {
    const [input = '', weight = ''] = node.input;
    const [outputs, channels, ...window] = types.get(weight)?.shape ?? [];
    if (typeof outputs !== 'number' || typeof channels !== 'number' || window.length === 0) continue;
    if (channels === 3 || channels % 3 !== 0 || channels % 4 === 0 || outputs % 4 !== 0) continue;
    if (window.every((size) => size === 1)) continue;
    const rank = window.length + 2;
    const missing = 4 - (channels % 4);
    // Pads are begins, then ends, an axis each; the channels are axis 1 of both.
    const pads = Array.from({ length: 2 * rank }, (_, i) => (i === rank + 1 ? missing : 0));
    const amount = graph.addInitializer('conv_pads', int64(pads));
    const zero = graph.addInitializer('conv_zero', scalar(0));
    graph.replaceInput(node, 0, graph.add('Pad', [input, amount, zero]));
    graph.replaceInput(node, 1, graph.add('Pad', [weight, amount, zero]));
    padded++;
  }
  return padded;
}

/** The bytes of a model with every such Conv padded; what can't be decoded stays as it is, for the runtime to refuse. */
export function withPaddedConvolutions(model: Uint8Array): Uint8Array {
  let graph: Graph;
  try {
    graph = Graph.decode(model);
  } catch {
    return model;
  }
  return padConvChannels(graph) > 0 ? graph.encode() : model;
}
