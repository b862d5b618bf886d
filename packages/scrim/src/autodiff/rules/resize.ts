/**
 * Gradient of Resize.
 *
 * Every interpolation is a linear map of one axis at a time. Its matrix is what the same Resize makes of the identity
 * matrix, so all modes and coordinate conventions are the runtime's own; fixed ones are worked out when the graph is
 * loaded. Nearest upsampling by a whole factor is an average pool instead.
 */
import {
  type Attributes,
  float,
  floatAttribute,
  intAttribute,
  intsAttribute,
  stringAttribute,
} from '../../onnx/attributes.js';
import type { NodeProto } from '../../onnx/gen/onnx_pb.js';
import { floatTensor } from '../emitter.js';
import type { GradientRule, RuleContext, RuleTable } from '../rule.js';
import { isFixed, type Size } from '../size.js';

const ROUNDING: Readonly<Record<string, readonly string[]>> = {
  asymmetric: ['floor'],
  half_pixel: ['round_prefer_floor', 'round_prefer_ceil'],
  pytorch_half_pixel: ['round_prefer_floor', 'round_prefer_ceil'],
};

const resize: GradientRule = (context) => {
  const { emit, x, y, dy } = context;
  const rank = emit.rank(x);
  const factors = wholeFactors(context, rank);
  if (factors) {
    const pooled = emit.op('AveragePool', [dy], { kernel_shape: factors, strides: factors });
    return [
      emit.scale(
        pooled,
        factors.reduce((a, b) => a * b, 1),
        x,
      ),
    ];
  }
  const sizes = emit.sizes(y);
  let gradient = dy;
  for (let axis = rank - 1; axis >= 0; axis--) {
    const matrix = axisMatrix(context, axis, rank);
    if (matrix === undefined) continue;
    const size = emit.size(x, axis);
    gradient = emit.alongAxis(gradient, sizes, axis, matrix, size);
    sizes[axis] = size;
  }
  return [gradient];
};

/** The factors of the spatial axes if each pixel is simply repeated; undefined otherwise. */
function wholeFactors(context: RuleContext, rank: number): number[] | undefined {
  const { node } = context;
  if (stringAttribute(node, 'mode', 'nearest') !== 'nearest' || context.input(3) !== '' || rank < 3) return undefined;
  if (intsAttribute(node, 'axes')) return undefined;
  const coordinates = stringAttribute(node, 'coordinate_transformation_mode', 'half_pixel');
  const rounding = stringAttribute(node, 'nearest_mode', 'round_prefer_floor');
  if (!ROUNDING[coordinates]?.includes(rounding)) return undefined;
  const scales = context.constant(2)?.data;
  if (!scales || scales.length !== rank) return undefined;
  const factors = Array.from(scales as Float32Array);
  if (factors[0] !== 1 || factors[1] !== 1 || !factors.every((f) => Number.isInteger(f) && f >= 1)) return undefined;
  return factors.slice(2);
}

/** The [in, out] matrix of one axis; undefined if the axis stays as it is. */
function axisMatrix(context: RuleContext, axis: number, rank: number): string | undefined {
  const { emit, node, x, y } = context;
  const listed = intsAttribute(node, 'axes')?.map((given) => (given < 0 ? given + rank : given));
  const position = listed ? listed.indexOf(axis) : axis;
  if (position < 0) return undefined;
  const size = emit.size(x, axis);
  const out = emit.size(y, axis);
  const same = emit.sameSize(size, out) || emit.dims(x)[axis] === (emit.dims(y)[axis] || undefined);
  const bySizes = context.input(3) !== '';
  const scales = context.constant(2)?.data as Float32Array | undefined;
  if (bySizes ? same : scales ? scales[position] === 1 : same) return undefined;
  const plane = emit.reshape(emit.identity(size, x), [1, 1, size, size]);
  const attributes = sharedAttributes(node, emit.opset);
  if (bySizes) {
    return flat(context, emit.op('Resize', [plane, '', '', emit.vector([1, 1, size, out])], attributes), size, out);
  }
  const ones = emit.constant(floatTensor('float32', [3], [1, 1, 1]), 'ones');
  const scale = scales
    ? emit.constant(floatTensor('float32', [4], [1, 1, 1, scales[position] as number]), 'scales')
    : emit.op('Concat', [ones, emit.gather(context.input(2), emit.ints([position]), 0)], { axis: 0 });
  return flat(context, emit.op('Resize', [plane, '', scale], attributes), size, out);
}

function flat({ emit }: RuleContext, plane: string, size: Size, out: Size): string {
  return emit.reshape(plane, isFixed(size) && isFixed(out) ? [size, out] : [size, -1]);
}

function sharedAttributes(node: NodeProto, opset: number): Attributes {
  return {
    mode: stringAttribute(node, 'mode', 'nearest'),
    coordinate_transformation_mode: stringAttribute(node, 'coordinate_transformation_mode', 'half_pixel'),
    nearest_mode: stringAttribute(node, 'nearest_mode', 'round_prefer_floor'),
    cubic_coeff_a: float(floatAttribute(node, 'cubic_coeff_a', -0.75)),
    exclude_outside: intAttribute(node, 'exclude_outside', 0),
    ...(opset >= 18 ? { antialias: intAttribute(node, 'antialias', 0) } : {}),
  };
}

/** Rule of Resize. */
export const RESIZE: RuleTable = {
  Resize: {
    gradient: resize,
    refuse: (node) => {
      if (stringAttribute(node, 'coordinate_transformation_mode', 'half_pixel') === 'tf_crop_and_resize') {
        return 'coordinate_transformation_mode tf_crop_and_resize has no gradient rule';
      }
      const policy = stringAttribute(node, 'keep_aspect_ratio_policy', 'stretch');
      return policy === 'stretch' ? undefined : `keep_aspect_ratio_policy ${policy} has no gradient rule`;
    },
  },
};
