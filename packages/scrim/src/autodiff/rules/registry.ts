/** Every gradient rule, by operator of the default domain. */
import type { GradientRule, GuardedRule, RuleTable } from '../rule.js';
import { ACTIVATION } from './activation.js';
import { ARITHMETIC } from './arithmetic.js';
import { UNARY } from './unary.js';

const FAMILIES: readonly RuleTable[] = [ARITHMETIC, UNARY, ACTIVATION];

/** Rules by operator. */
export const RULES: ReadonlyMap<string, GradientRule | GuardedRule> = new Map(
  FAMILIES.flatMap((family) => Object.entries(family)),
);
