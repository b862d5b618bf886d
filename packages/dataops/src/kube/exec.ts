/**
 * Runs a command in a pod's container and feeds its standard input, over the websocket protocol v4.channel.k8s.io.
 *
 * That protocol can't say "end of input", so a command that reads has to know how much it is to read (`head -c SIZE`).
 * Output is for messages, not for data: what goes beyond a limit is dropped.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ScrimError, type ScrimErrorCode } from 'scrim';
import { aborted, type KubeClient } from './client.js';
import { pathOf } from './kinds.js';

/** A command and where it runs. */
export interface PodCommand {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly command: readonly string[];
  /** Bytes for its standard input. */
  readonly input?: Iterable<Uint8Array>;
  /** Told how many bytes of the input were handed to the connection. */
  readonly onSent?: (bytes: number) => void;
  readonly signal: AbortSignal;
}

const CHUNK_BYTES = 64 * 1024;
const MOST_BUFFERED_BYTES = 1024 * 1024;
const MOST_OUTPUT_CHARS = 64 * 1024;
const CODES: Readonly<Record<number, ScrimErrorCode>> = {
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
};

/**
 * Runs the command to its end and returns its output.
 *
 * @throws PERMISSION_DENIED, NOT_FOUND, UNAVAILABLE where it can't be run or the connection breaks; UNAVAILABLE with
 * reason 'NonZeroExitCode' and what the command said where it fails
 */
export async function execInPod(client: KubeClient, run: PodCommand): Promise<string> {
  const { namespace, pod, container, command, signal } = run;
  const query = new URLSearchParams([
    ['container', container],
    ...command.map((word): [string, string] => ['command', word]),
    ['stdin', String(run.input !== undefined)],
    ['stdout', 'true'],
    ['stderr', 'true'],
  ]);
  let output = '';
  let errors = '';
  let status: { status?: string; reason?: string; message?: string } | undefined;
  const path = `${pathOf('Pod', namespace, pod)}/exec?${query}`;
  const socket = await client.connection
    .openStreams(path, (stream, bytes) => {
      const text = new TextDecoder().decode(bytes);
      if (stream === 1) output = (output + text).slice(0, MOST_OUTPUT_CHARS);
      else if (stream === 2) errors = (errors + text).slice(-MOST_OUTPUT_CHARS);
      else if (stream === 3) {
        status = JSON.parse(text) as typeof status;
        socket.close();
      }
    })
    .catch((error: { message?: string }) => {
      const answer = Number(/server response: (\d+)/.exec(error.message ?? '')?.[1] ?? 0);
      throw new ScrimError(
        CODES[answer] ?? 'UNAVAILABLE',
        `a command can't be run in pod '${pod}' in namespace '${namespace}': ${
          answer === 403 ? "this needs the rights 'get' and 'create' on pods/exec" : (error.message ?? 'no connection')
        }`,
        { cause: error, details: { status: answer } },
      );
    });
  let open = true;
  const closed = new Promise<void>((resolve) =>
    socket.onClose(() => {
      open = false;
      resolve();
    }),
  );
  const stop = (): void => socket.close();
  signal.addEventListener('abort', stop, { once: true });
  try {
    if (run.input !== undefined) await feed(socket, run.input, () => !open || status !== undefined, run.onSent);
    await closed;
  } finally {
    signal.removeEventListener('abort', stop);
    socket.close();
  }
  if (signal.aborted) throw aborted(signal);
  if (status === undefined) {
    throw new ScrimError('UNAVAILABLE', `the connection to pod '${pod}' broke off before its command had ended`);
  }
  if (status.status !== 'Success') {
    const said = errors.trim() || (status.message ?? '');
    throw new ScrimError('UNAVAILABLE', `a command in pod '${pod}' failed: ${said}`, {
      details: { reason: status.reason ?? 'Failure' },
    });
  }
  return output;
}

async function feed(
  socket: { readonly bufferedAmount: number; send(frame: Uint8Array): void },
  input: Iterable<Uint8Array>,
  ended: () => boolean,
  onSent: ((bytes: number) => void) | undefined,
): Promise<void> {
  let sent = 0;
  for (const bytes of input) {
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      if (ended()) return;
      const part = bytes.subarray(at, at + CHUNK_BYTES);
      const frame = new Uint8Array(part.length + 1); // stream 0
      frame.set(part, 1);
      socket.send(frame);
      sent += part.length;
      onSent?.(sent);
      while (socket.bufferedAmount > MOST_BUFFERED_BYTES && !ended()) await sleep(10);
    }
  }
}
