/** What every command gets: an abort signal for Ctrl-C, results on stdout, remarks and progress on stderr. */
import { createRequire } from 'node:module';
import { Presets, SingleBar } from 'cli-progress';

/** A progress bar on stderr, or a line every few seconds where stderr is no terminal. */
export interface Progress {
  update(done: number, remark?: string): void;
  stop(): void;
}

/** Surroundings of one command. */
export interface CommandContext {
  readonly version: string;
  /** Fires at the first Ctrl-C; the second one ends the process. */
  readonly signal: AbortSignal;
  /** Prints a result on stdout. */
  print(text: string): void;
  /** Prints one JSON document on stdout. */
  printJson(value: unknown): void;
  /** Says something on stderr. */
  remark(text: string): void;
  progress(label: string, total: number): Progress;
  /** Runs `task` at the end of the command, whatever happens; last added first. */
  onClose(task: () => Promise<void> | void): void;
  close(): Promise<void>;
}

/** Makes the context of this process. */
export function createContext(): CommandContext {
  const controller = new AbortController();
  const tasks: (() => Promise<void> | void)[] = [];
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(130);
    process.stderr.write('\nstopping; press Ctrl-C again to end at once\n');
    controller.abort();
  };
  // Whoever reads our output may stop reading (| head): that is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : 1);
  });
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  const { version } = createRequire(import.meta.url)('../package.json') as { version: string };
  return {
    version,
    signal: controller.signal,
    print: (text) => {
      process.stdout.write(`${text}\n`);
    },
    printJson: (value) => {
      process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
    },
    remark: (text) => {
      process.stderr.write(`${text}\n`);
    },
    progress: (label, total) => (process.stderr.isTTY ? bar(label, total) : lines(label, total)),
    onClose: (task) => {
      tasks.push(task);
    },
    close: async () => {
      for (const task of tasks.reverse()) await task();
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}

function bar(label: string, total: number): Progress {
  const single = new SingleBar(
    {
      format: `${label} {bar} {value}/{total} {duration_formatted} {remark}`,
      stream: process.stderr,
      hideCursor: true,
      barsize: 30,
    },
    Presets.shades_classic,
  );
  single.start(total, 0, { remark: '' });
  return {
    update: (done, remark = '') => single.update(done, { remark }),
    stop: () => single.stop(),
  };
}

const LINE_EVERY_MS = 5_000;

function lines(label: string, total: number): Progress {
  let last = performance.now();
  const write = (done: number, remark: string): void => {
    process.stderr.write(`${label}: ${done}/${total}${remark === '' ? '' : ` ${remark}`}\n`);
  };
  let latest: [number, string] = [0, ''];
  return {
    update: (done, remark = '') => {
      latest = [done, remark];
      if (performance.now() - last < LINE_EVERY_MS) return;
      last = performance.now();
      write(done, remark);
    },
    stop: () => write(...latest),
  };
}
