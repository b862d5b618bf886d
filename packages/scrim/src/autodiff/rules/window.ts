/**
 * The geometry that convolutions and pools share: per spatial axis, which input positions a window covers.
 *
 * Window o covers positions o·stride + i·dilation − begin for i = 0 … kernel − 1. auto_pad is resolved to numbers; for
 * SAME with a stride above 1 that needs the input's size.
 */
import { intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import type { RuleContext } from '../rule.js';
import { isFixed, type Size } from '../size.js';

/** One spatial axis of a windowed operator. */
export interface WindowAxis {
  /** Size of the input and of the output. */
  readonly size: Size;
  readonly out: Size;
  readonly kernel: number;
  readonly stride: number;
  readonly dilation: number;
  /** Padding before and after. */
  readonly begin: number;
  readonly end: number;
  /** Positions one window spans: (kernel − 1)·dilation + 1. */
  readonly span: number;
}

/** One side of a convolution: the forward value whose shape it has, and the value itself. */
export interface Side {
  readonly shape: string;
  readonly value: string;
}

/** Resolves the windows of a Conv or pool from `input` [N, C, …] to `output` [N, M, …]. */
export function windowAxes(
  context: RuleContext,
  input: string,
  output: string,
  kernel: readonly number[],
): WindowAxis[] {
  const { emit, node } = context;
  const autoPad = stringAttribute(node, 'auto_pad', 'NOTSET');
  const ones = kernel.map(() => 1);
  const strides = intsAttribute(node, 'strides', ones);
  const dilations = intsAttribute(node, 'dilations', ones);
  const pads = intsAttribute(node, 'pads', [...kernel, ...kernel].fill(0));
  return kernel.map((k, i) => {
    const size = emit.size(input, i + 2);
    const out = emit.size(output, i + 2);
    const stride = strides[i] as number;
    const dilation = dilations[i] as number;
    const span = (k - 1) * dilation + 1;
    let [begin, end] = [pads[i] as number, pads[i + kernel.length] as number];
    if (autoPad === 'VALID') [begin, end] = [0, 0];
    if (autoPad === 'SAME_UPPER' || autoPad === 'SAME_LOWER') {
      if (!isFixed(size) && stride > 1) {
        throw context.unsupported(
          `auto_pad ${autoPad} with stride ${stride} needs a fixed input size; pass inputShapes`,
        );
      }
      const total = isFixed(size) ? Math.max((Math.ceil(size / stride) - 1) * stride + span - size, 0) : span - 1;
      begin = autoPad === 'SAME_UPPER' ? Math.floor(total / 2) : Math.ceil(total / 2);
      end = total - begin;
    }
    return { size, out, kernel: k, stride, dilation, begin, end, span };
  });
}

/** Positions of the padded input that the windows reach: (out − 1)·stride + span. */
export function reach(context: RuleContext, { out, stride, span }: WindowAxis): Size {
  const { emit } = context;
  return emit.plus(emit.times(emit.minus(out, 1), stride), span);
}

/** The spatial part of a weight's shape. @throws ScrimError UNSUPPORTED if it is symbolic. */
export function kernelOf(context: RuleContext, weight: string): number[] {
  const dims = context.emit.dims(weight).slice(2);
  if (!dims.every((dimension) => typeof dimension === 'number')) {
    throw context.unsupported(`the kernel size of its weight '${weight}' is symbolic`);
  }
  return dims as number[];
}
