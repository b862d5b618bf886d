/**
 * Bearer tokens (RFC 6750), compared in constant time: both sides are hashed first, so that neither content nor length
 * shows in the time, and every token is compared whichever matches.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { assertArgument } from '../errors.js';

/**
 * Makes the check of an Authorization header; without tokens everything passes.
 * @throws ScrimError INVALID_ARGUMENT for an empty token.
 */
export function createTokenCheck(tokens: readonly string[]): (authorization: string | undefined) => boolean {
  assertArgument(
    tokens.every((token) => token.trim() !== ''),
    'tokens has an empty token',
  );
  const digests = tokens.map(digest);
  return (authorization = '') => {
    if (digests.length === 0) return true;
    const match = /^bearer +(\S+) *$/i.exec(authorization);
    const given = digest(match?.[1] ?? '');
    let found = false;
    for (const known of digests) {
      if (timingSafeEqual(known, given)) found = true;
    }
    return found && match !== null;
  };
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
