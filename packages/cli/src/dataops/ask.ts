/** Questions to the person at the terminal: passwords (not shown while typed) and yes or no. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { ScrimError } from 'scrim';
import type { CommandContext } from '../context.js';

/** Reads standard input to its end; for --password-stdin and its like. */
export async function readStdin(): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of process.stdin as AsyncIterable<Buffer>) parts.push(Buffer.from(part));
  return Buffer.concat(parts).toString('utf8');
}

/** First line of standard input. @throws INVALID_ARGUMENT where it is empty */
export async function secretFromStdin(what: string): Promise<string> {
  const [line = ''] = (await readStdin()).split(/\r?\n/, 1);
  if (line === '')
    throw new ScrimError('INVALID_ARGUMENT', `standard input is empty, expected ${what} on its first line`);
  return line;
}

/** Asks for a password twice, as the toolkit does. @throws INVALID_ARGUMENT where nobody can be asked */
export async function askPassword(question: string, again: string, signal: AbortSignal): Promise<string> {
  if (!process.stdin.isTTY) {
    throw new ScrimError(
      'INVALID_ARGUMENT',
      'standard input is not a terminal: give the password with --password-stdin',
    );
  }
  for (;;) {
    const first = await hidden(`${question} `, signal);
    if (first === '') process.stderr.write('The password must not be empty.\n');
    else if (first === (await hidden(`${again} `, signal))) return first;
    else process.stderr.write('Passwords do not match.\n');
  }
}

/** Asks for something that is not shown while it is typed. @throws INVALID_ARGUMENT where input ends instead */
export async function hidden(question: string, signal: AbortSignal): Promise<string> {
  process.stdout.write(question);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const reader = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  // The terminal is in raw mode meanwhile: Ctrl-C arrives as a character.
  reader.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  try {
    return await new Promise((resolve, reject) => {
      reader.once('close', () => reject(new ScrimError('INVALID_ARGUMENT', 'the input ended without an answer')));
      reader.question('', { signal }).then(resolve, reject);
    });
  } finally {
    reader.close();
    process.stdout.write('\n');
  }
}

/** Whether to go on: by --force, in a dry run, or because a person said so. @throws as {@link confirm} */
export async function agreed(
  { force, dryRun }: { readonly force?: boolean; readonly dryRun?: string },
  warning: string,
  context: CommandContext,
): Promise<boolean> {
  return force === true || dryRun !== undefined || confirm(warning, context.signal);
}

/**
 * Warns and asks whether to go on; anything but yes or no is asked again.
 *
 * @throws INVALID_ARGUMENT where input ends without an answer, CANCELLED; nothing was done then
 */
async function confirm(warning: string, signal: AbortSignal): Promise<boolean> {
  process.stdout.write(`${warning}\n`);
  const reader = createInterface({ input: process.stdin, terminal: false });
  const answers = reader[Symbol.asyncIterator]();
  const stop = (): void => reader.close();
  signal.addEventListener('abort', stop, { once: true });
  try {
    for (;;) {
      process.stdout.write('Are you sure that you want to proceed? (yes/no): ');
      const { value, done } = await answers.next();
      if (!process.stdin.isTTY || done) process.stdout.write('\n');
      if (signal.aborted) throw new ScrimError('CANCELLED', 'interrupted: nothing was done');
      if (done) {
        throw new ScrimError('INVALID_ARGUMENT', 'the input ended without an answer, nothing was done: give --force');
      }
      const answer = String(value).trim().toLowerCase();
      if (answer === 'yes') return true;
      if (answer === 'no') return false;
      process.stdout.write("Invalid value. Must enter 'yes' or 'no'.\n");
    }
  } finally {
    signal.removeEventListener('abort', stop);
    reader.close();
  }
}
