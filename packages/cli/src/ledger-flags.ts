/** Flags that name a ledger and its policy, for `scrim ledger` and `scrim gateway`. */
import { Option } from 'commander';
import { ScrimError } from 'scrim';
import type { LedgerPolicy } from 'scrim/node';

/** What the flags hold. */
export interface LedgerFlags {
  readonly ledger?: string;
  readonly ledgerSecret?: string;
  readonly maxReleases?: number;
  readonly maxNats?: number;
  readonly period?: number | 'forever';
  readonly unlimited?: boolean;
}

const UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `--ledger` and `--ledger-secret`. */
export function ledgerFileFlags(): Option[] {
  return [
    new Option('--ledger <file>', 'SQLite file that counts releases by subject; made if it is not there'),
    new Option('--ledger-secret <file>', "key of the subjects' hashes; default: <ledger>.key, made with the ledger"),
  ];
}

/** The limits of a policy. */
export function ledgerPolicyFlags(): Option[] {
  return [
    new Option('--max-releases <n>', 'releases of one subject in a period').argParser(limit('--max-releases', true)),
    new Option('--max-nats <x>', 'nats of one subject in a period').argParser(limit('--max-nats', false)),
    new Option('--period <time>', "such as 90s, 30m, 24h or 7d, or 'forever' (default)").argParser(parsePeriod),
  ];
}

/** The policy that flags ask for; undefined if none of them was given. */
export function policyOf({ maxReleases, maxNats, period, unlimited }: LedgerFlags): LedgerPolicy | undefined {
  if (maxReleases === undefined && maxNats === undefined && period === undefined && !unlimited) return undefined;
  return {
    ...(maxReleases === undefined ? {} : { maxReleases }),
    ...(maxNats === undefined ? {} : { maxNats }),
    ...(typeof period === 'number' ? { periodMs: period } : {}),
  };
}

/** Milliseconds as the largest unit that fits. */
export function formatPeriod(milliseconds: number): string {
  for (const [unit, length] of Object.entries(UNITS).reverse()) {
    if (milliseconds % length === 0) return `${milliseconds / length} ${unit}`;
  }
  return `${milliseconds} ms`;
}

function parsePeriod(text: string): number | 'forever' {
  if (text === 'forever') return text;
  const [, digits = '', unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const period = Number(digits) * (UNITS[unit] ?? 0);
  if (period > 0) return period;
  throw new ScrimError('INVALID_ARGUMENT', `--period is '${text}', expected a time such as 90s, 30m, 24h or 7d`);
}

function limit(flag: string, whole: boolean): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (value >= 0 && Number.isFinite(value) && (!whole || Number.isSafeInteger(value))) return value;
    throw new ScrimError(
      'INVALID_ARGUMENT',
      `${flag} is '${text}', expected ${whole ? 'an integer' : 'a number'} of at least 0`,
    );
  };
}
