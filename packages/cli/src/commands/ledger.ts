/** `scrim ledger`: what was released about whom, the policy that limits it, and forgetting somebody. */
import { existsSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { ScrimError } from 'scrim';
import { type LedgerPolicy, type LedgerStore, openLedger } from 'scrim/node';
import type { CommandContext } from '../context.js';
import { formatPeriod, type LedgerFlags, policyOf } from '../ledger-flags.js';
import { formatTable } from '../table.js';

interface ShowFlags extends LedgerFlags {
  readonly ledger: string;
  readonly subject?: string;
  readonly json?: boolean;
}

/** Prints sums by subject, or of one. */
export async function ledgerShow(context: CommandContext, flags: ShowFlags): Promise<void> {
  const store = await openExisting(context, flags);
  const records = store.report(flags.subject === undefined ? undefined : await readSubject(flags.subject));
  const policy = store.policy();
  if (flags.json) return context.printJson({ policy, subjects: records });
  context.print(describePolicy(policy));
  context.print(
    formatTable(
      ['subject (keyed hash)', 'releases', 'nats', 'first', 'last'],
      records.map(({ subject, releases, nats, first, last }) => [
        subject,
        String(releases),
        Math.round(nats).toLocaleString('en'),
        new Date(first).toISOString(),
        new Date(last).toISOString(),
      ]),
    ),
  );
}

/** Deletes what is kept about a subject. */
export async function ledgerForget(context: CommandContext, flags: ShowFlags, [subject = '']: string[]): Promise<void> {
  const store = await openExisting(context, flags);
  const releases = store.forget(await readSubject(subject));
  if (flags.json) return context.printJson({ forgotten: releases });
  context.print(
    `${releases} releases forgotten. What the remote server kept of them is out of this ledger's reach; a budget starts anew.`,
  );
}

/** Prints the policy, after setting it if limits were given. */
export async function ledgerPolicy(context: CommandContext, flags: ShowFlags): Promise<void> {
  const store = await openLedger({ file: flags.ledger, ...secretOf(flags) });
  context.onClose(() => store.close());
  const next = policyOf(flags);
  if (next) store.setPolicy(next);
  const policy = store.policy();
  if (flags.json) return context.printJson(policy);
  context.print(describePolicy(policy));
}

async function openExisting(context: CommandContext, flags: ShowFlags): Promise<LedgerStore> {
  if (!existsSync(flags.ledger)) throw new ScrimError('NOT_FOUND', `there is no ledger '${flags.ledger}'`);
  const store = await openLedger({ file: flags.ledger, ...secretOf(flags) });
  context.onClose(() => store.close());
  return store;
}

function secretOf({ ledgerSecret }: LedgerFlags): { secretFile?: string } {
  return ledgerSecret === undefined ? {} : { secretFile: ledgerSecret };
}

/** '-' reads standard input: an argument shows in process lists and histories. */
async function readSubject(argument: string): Promise<string> {
  return argument === '-' ? (await text(process.stdin)).trim() : argument;
}

function describePolicy({ maxReleases, maxNats, periodMs }: LedgerPolicy): string {
  const limits = [
    ...(maxReleases === undefined ? [] : [`${maxReleases.toLocaleString('en')} releases`]),
    ...(maxNats === undefined ? [] : [`${maxNats.toLocaleString('en')} nats`]),
  ];
  const period = periodMs === undefined ? 'for ever' : `within ${formatPeriod(periodMs)}`;
  return limits.length === 0
    ? `policy: no limit, entries kept ${periodMs === undefined ? 'for ever' : `for ${formatPeriod(periodMs)}`}`
    : `policy: at most ${limits.join(' and ')} of one subject ${period}`;
}
