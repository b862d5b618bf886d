/**
 * Names of objects: as TR-4928's toolkit gives them, but valid and free of collisions.
 *
 * Kubernetes takes names up to 253 characters of [a-z0-9.-] (RFC 1123 subdomain), Service names up to 63 without dots,
 * label values up to 63. Two snapshots of one second differ by random letters.
 */
import { createHash, randomBytes } from 'node:crypto';
import { assertArgument } from './argument.js';

/** Prefix the toolkit gives the objects of a JupyterLab workspace. */
export const JUPYTERLAB_PREFIX = 'ntap-dsutil-jupyterlab-';
/** Prefix the toolkit gives the objects of a Triton server. */
export const TRITON_PREFIX = 'ntap-dsutil-triton-';

/** Eight letters and digits that no other call returns. */
export function uniqueSuffix(): string {
  return randomBytes(4).toString('hex');
}

/** Name of a snapshot nobody named: `ntap-dsutil.20211122185043.3f9a1c02`. */
export function snapshotName(kind: 'plain' | 'for-clone', now: Date, suffix: string): string {
  const stamp = now.toISOString().replace(/[-:T]/g, '').slice(0, 14);
  return `ntap-dsutil.${kind === 'for-clone' ? 'for-clone.' : ''}${stamp}.${suffix}`;
}

/** Cuts `text` to `length` characters; what is cut off leaves a digest, so that two long names stay two. */
export function shorten(text: string, length: number): string {
  if (text.length <= length) return text;
  const digest = createHash('sha256').update(text).digest('hex').slice(0, 10);
  return `${text.slice(0, length - 11).replace(/[^A-Za-z0-9]+$/, '')}-${digest}`;
}

/** `text` as the value of a label: 63 characters at most. */
export function labelValue(text: string): string {
  return shorten(text, 63);
}

const SUBDOMAIN = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
const LABEL = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;
const QUANTITY = /^(\d+|\d*\.\d+|\d+\.)([kMGTPE]i?|Ki|m|[eE][+-]?\d+)?$/;

/** Checks an object's name. @throws INVALID_ARGUMENT */
export function checkName(argument: string, name: string): void {
  assertArgument(
    name.length <= 253 && SUBDOMAIN.test(name),
    `${argument} is '${name}', expected at most 253 of a-z, 0-9, '-' and '.', starting and ending with a letter or digit`,
  );
}

/** Checks a name that becomes part of a Service's name behind `prefix`. @throws INVALID_ARGUMENT */
export function checkServiceName(argument: string, name: string, prefix: string): void {
  const longest = 63 - prefix.length;
  assertArgument(
    name.length <= longest && LABEL.test(name),
    `${argument} is '${name}', expected at most ${longest} of a-z, 0-9 and '-', starting and ending with a letter or digit`,
  );
}

/** Checks an amount such as '20Gi' or '500m'. @throws INVALID_ARGUMENT */
export function checkQuantity(argument: string, amount: string): void {
  assertArgument(QUANTITY.test(amount), `${argument} is '${amount}', expected an amount such as 20Gi, 500M or 0.5`);
}

/** Checks the size of a volume: an amount of more than 0. @throws INVALID_ARGUMENT */
export function checkSize(argument: string, amount: string): void {
  checkQuantity(argument, amount);
  assertArgument(quantityValue(amount) > 0, `${argument} is '${amount}', expected more than 0`);
}

const ACCESS_MODES = ['ReadWriteOnce', 'ReadOnlyMany', 'ReadWriteMany', 'ReadWriteOncePod'];

/** Checks access modes, where some are given. @throws INVALID_ARGUMENT */
export function checkAccessModes(modes: readonly string[] | undefined): void {
  for (const mode of modes ?? []) {
    assertArgument(ACCESS_MODES.includes(mode), `accessModes has '${mode}', expected ${ACCESS_MODES.join(', ')}`);
  }
}

const FACTORS: Readonly<Record<string, number>> = {
  '': 1,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** Value of an amount, for comparing: '1Gi' is 1073741824. @throws INVALID_ARGUMENT */
export function quantityValue(amount: string): number {
  checkQuantity('amount', amount);
  const [, digits = '0', unit = ''] = /^([\d.]+)(.*)$/.exec(amount) ?? [];
  const factor = FACTORS[unit];
  return factor === undefined ? Number(`${digits}${unit}`) : Number(digits) * factor;
}

/** The larger of two amounts, as it was written. */
export function largerQuantity(first: string, second: string | undefined): string {
  return second !== undefined && quantityValue(second) > quantityValue(first) ? second : first;
}
