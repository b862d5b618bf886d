/**
 * Several bundles of one model as one session: when a subject's nats do not suffice for a release of the first, the
 * next is tried, and so on. With bundles in rising order of alpha this raises alpha as the budget runs out. What was
 * refused was never sent; its noise is thrown away.
 */
import { assertArgument, ScrimError } from '../errors.js';
import type { ConfidentialSession } from './confidential-session.js';
import { isOutOfNats } from './release-ledger.js';

/**
 * Makes the session. Closing it closes all of them.
 * @param sessions at least one, with the same ledger and in falling order of what a release tells; each for a bundle of
 * the same model
 * @throws ScrimError INVALID_ARGUMENT for no sessions
 */
export function createEscalatingSession(sessions: readonly ConfidentialSession[]): ConfidentialSession {
  const [first] = sessions;
  assertArgument(first !== undefined, 'an escalating session needs at least one session');
  const tryEach = async <T>(attempt: (session: ConfidentialSession) => Promise<T>): Promise<T> => {
    for (const [i, session] of sessions.entries()) {
      try {
        return await attempt(session);
      } catch (error) {
        if (i === sessions.length - 1 || !isOutOfNats(error)) throw error;
      }
    }
    throw new ScrimError('INTERNAL', 'no session was tried');
  };
  return {
    payload: first.payload,
    model: first.model,
    trusted: first.trusted,
    check: async (options) => {
      for (const session of sessions) await session.check(options);
    },
    infer: (input, options) => tryEach((session) => session.infer(input, options)),
    detect: (image, options) => tryEach((session) => session.detect(image, options)),
    send: (release, options) => {
      const owner = sessions.find(({ trusted }) => trusted.noiser.bundleHash === release.bundleHash);
      return (owner ?? first).send(release, options);
    },
    close: async () => {
      for (const session of sessions) await session.close();
    },
  };
}
