/**
 * Operators through which no gradient flows: their outputs are constant almost everywhere, are no functions of the
 * values of their inputs (shapes, ranges), or are random.
 */

/** Operators of the default domain whose outputs have the gradient 0 by every input. */
export const STOPS: ReadonlySet<string> = new Set([
  'And',
  'ArgMax',
  'ArgMin',
  'Bernoulli',
  'BitShift',
  'BitwiseAnd',
  'BitwiseNot',
  'BitwiseOr',
  'BitwiseXor',
  'Ceil',
  'Constant',
  'ConstantOfShape',
  'Equal',
  'EyeLike',
  'Floor',
  'Greater',
  'GreaterOrEqual',
  'IsInf',
  'IsNaN',
  'Less',
  'LessOrEqual',
  'Multinomial',
  'NonMaxSuppression',
  'NonZero',
  'Not',
  'Or',
  'RandomNormal',
  'RandomNormalLike',
  'RandomUniform',
  'RandomUniformLike',
  'Round',
  'Shape',
  'Sign',
  'Size',
  'Xor',
]);
