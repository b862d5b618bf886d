/** Every gradient rule, by operator of the default domain. */
import type { GradientRule, GuardedRule, RuleTable } from '../rule.js';
import { ACTIVATION } from './activation.js';
import { ARITHMETIC } from './arithmetic.js';
import { CONVOLUTION } from './conv.js';
import { GATHERING } from './gathering.js';
import { LAYOUT } from './layout.js';
import { MATRIX } from './matrix.js';
import { NORMALIZATION } from './normalization.js';
import { POOLING } from './pooling.js';
import { RECURRENT } from './recurrent.js';
import { REDUCTION } from './reduction.js';
import { RESIZE } from './resize.js';
import { SLICING } from './slicing.js';
import { SOFTMAX } from './softmax.js';
import { UNARY } from './unary.js';

const FAMILIES: readonly RuleTable[] = [
  ARITHMETIC,
  UNARY,
  ACTIVATION,
  SOFTMAX,
  REDUCTION,
  LAYOUT,
  SLICING,
  GATHERING,
  MATRIX,
  CONVOLUTION,
  POOLING,
  NORMALIZATION,
  RESIZE,
  RECURRENT,
];

/** Rules by operator. */
export const RULES: ReadonlyMap<string, GradientRule | GuardedRule> = new Map(
  FAMILIES.flatMap((family) => Object.entries(family)),
);
