/** Errors as sentences a person can act on. */
import { ScrimError, type ScrimErrorCode } from 'scrim';

/** What is said about a failure. */
export interface Advice {
  readonly title: string;
  readonly text: string;
  /** For those who report it. */
  readonly detail: string;
  /** True where the same thing may work when it is tried again. */
  readonly retry: boolean;
}

type Entry = Pick<Advice, 'title' | 'text' | 'retry'>;

const GENERAL: Readonly<Partial<Record<ScrimErrorCode, Entry>>> = {
  INVALID_DATA: {
    title: 'This file can’t be read as a photo',
    text: 'It may be damaged, or not a picture whatever its name says. Choose a JPEG, PNG, WebP, AVIF or GIF.',
    retry: false,
  },
  LIMIT_EXCEEDED: {
    title: 'This photo is too large',
    text: 'Photos up to 100 megapixels and 256 MB are read. Choose a smaller one, or scale it down first.',
    retry: false,
  },
  INVALID_BUNDLE: {
    title: 'The bundle was changed or is damaged',
    text: 'One of its files does not match the hash it was published with, so nothing was run and nothing was sent. Choose another setting, or get the bundle again and try once more.',
    retry: true,
  },
  NOT_FOUND: {
    title: 'The server does not have what this page asks for',
    text: 'It may have been started with other bundles. Reload the page.',
    retry: true,
  },
  UNAVAILABLE: {
    title: 'The server does not answer',
    text: 'Check that “scrim studio” is still running in its terminal, then try again. Your photo is still here.',
    retry: true,
  },
  DEADLINE_EXCEEDED: {
    title: 'The server takes too long',
    text: 'It did not answer within 15 seconds. It may be busy: wait a little, then try again.',
    retry: true,
  },
  RESOURCE_EXHAUSTED: {
    title: 'The server is full',
    text: 'It has more requests than it takes at a time. Wait a little, then try again.',
    retry: true,
  },
  NOISE_FAILED: {
    title: 'The noise could not be made as specified',
    text: 'Nothing was sent. Reload the page; if it happens again, please report it.',
    retry: true,
  },
  UNSUPPORTED: {
    title: 'This browser lacks something the page needs',
    text: 'A current Chromium, Firefox or Safari has it. The page must be opened over https or on localhost.',
    retry: false,
  },
};

const OTHER: Entry = {
  title: 'That did not work',
  text: 'Try again. If it happens again, reload the page.',
  retry: true,
};

/** Says what can be done about an error. */
export function adviseOn(error: unknown): Advice {
  const known = ScrimError.from(error, 'INTERNAL', 'the page failed');
  return { ...(GENERAL[known.code] ?? OTHER), detail: `${known.message} (${known.code})` };
}
