/**
 * What a session asks before it sends: a ledger of releases by subject.
 *
 * A subject is whoever a release can tell something about, or the stream it belongs to: a customer, a patient, a
 * camera. Every fresh release tells more, so whoever answers for the data sets a budget. node/ledger-store.ts keeps one
 * in a file. What it may spend is decided there; here is only what is asked.
 */
import type { Bundle } from '../bundle/bundle.js';
import { ScrimError } from '../errors.js';
import { natsPerPosition } from '../noise/information-bound.js';
import type { Release } from '../noise/release.js';

/** One release that is about to leave. */
export interface ReleaseCharge {
  /** Who or what it is about, in the caller's own words; 1 to 512 characters. */
  readonly subject: string;
  /** Bound on what it tells: the bundle's nats per position times the positions. */
  readonly nats: number;
  /** SHA-256 of the bundle in hexadecimal. */
  readonly bundleHash: string;
  readonly alpha: number;
  /** Public name of the noise's key. The same key for the same subject is the same release again and costs nothing. */
  readonly keyId?: string;
}

/** Counts releases. */
export interface ReleaseLedger {
  /**
   * Counts `charges`, all or none, and keeps them before it returns: only then may the releases leave.
   * @throws ScrimError RESOURCE_EXHAUSTED if the budget of a subject does not allow them, with `details.limit`
   * 'releases' or 'nats'; UNAVAILABLE if the ledger can't be written. Nothing may be sent then.
   */
  charge(charges: readonly ReleaseCharge[]): Promise<void> | void;
}

/** What a release of `bundle` costs at most, in nats, for an activation with `positions` positions. */
export function releaseNats(bundle: Bundle, positions: number): number {
  return natsPerPosition(bundle.parameters) * positions;
}

/** Charges one release. @throws ScrimError INVALID_ARGUMENT without a subject; as {@link ReleaseLedger.charge} */
export async function chargeRelease(
  ledger: ReleaseLedger,
  bundle: Bundle,
  release: Release,
  subject: string | undefined,
): Promise<void> {
  if (subject === undefined) {
    throw new ScrimError('INVALID_ARGUMENT', 'a session with a ledger sends nothing without a subject');
  }
  const [, , height = 1, width = 1] = release.shape;
  const { bundleHash, alpha, keyId } = release;
  await ledger.charge([{ subject, nats: releaseNats(bundle, height * width), bundleHash, alpha, keyId }]);
}

/** True if `error` says that a subject's nats do not suffice: a release that tells less may still be allowed. */
export function isOutOfNats(error: unknown): boolean {
  return error instanceof ScrimError && error.code === 'RESOURCE_EXHAUSTED' && error.details.limit === 'nats';
}
