/**
 * `scrim studio` as a process, real Chromium, and a proxy between the two through which every byte of the browser goes:
 * pages, workers and workers' workers alike. The proxy keeps a record and can play a network that fails.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingHttpHeaders, type Server } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from 'playwright-core';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Folder of the sample photos. */
export const SAMPLES: string = join(
  dirname(createRequire(import.meta.url).resolve('@vladmandic/human/package.json')),
  'assets',
);

/** One request as it left the browser. */
export interface SentRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** How the network behaves: as it should, or for the paths of `matching` another way. */
export interface Disturbance {
  readonly kind: 'cut' | 'hang' | 'spoil';
  readonly matching: RegExp;
}

/** Everything that runs. */
export interface Studio {
  readonly url: string;
  readonly browser: Browser;
  /** Requests since the last `forget`, in order. */
  readonly sent: SentRequest[];
  /** Hosts the browser tried to reach by TLS. */
  readonly tunnels: string[];
  disturb(disturbance: Disturbance | undefined): void;
  /** A page in a profile of its own. */
  open(options?: BrowserContextOptions): Promise<{ page: Page; context: BrowserContext; problems: string[] }>;
  close(): Promise<void>;
}

/** Starts all of it. */
export async function startStudio(): Promise<Studio> {
  const server = spawn(process.execPath, [join(ROOT, 'packages/cli/bin/scrim.js'), 'studio', '--port', '0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const url = await firstLine(server);
  const sent: SentRequest[] = [];
  const tunnels: string[] = [];
  let disturbance: Disturbance | undefined;
  const proxy = await startProxy(sent, tunnels, () => disturbance);
  const browser = await chromium.launch({
    executablePath: chromiumPath(),
    proxy: { server: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`, bypass: '<-loopback>' },
    args: ['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
  });
  const contexts: BrowserContext[] = [];
  return {
    url,
    browser,
    sent,
    tunnels,
    disturb: (wanted) => {
      disturbance = wanted;
    },
    open: async (options = {}) => {
      for (const context of contexts.splice(0)) await context.close();
      const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, ...options });
      contexts.push(context);
      const page = await context.newPage();
      const problems: string[] = [];
      page.on('pageerror', (error) => problems.push(error.message));
      page.on('console', (message) => {
        // A request that fails on purpose is reported by the browser itself.
        const isNetwork = message.text().startsWith('Failed to load resource');
        if (message.type() === 'error' && !isNetwork) problems.push(message.text());
      });
      return { page, context, problems };
    },
    close: async () => {
      await browser.close();
      proxy.closeAllConnections();
      await new Promise((resolve) => proxy.close(resolve));
      const ended = new Promise((resolve) => server.once('exit', resolve));
      server.kill('SIGTERM');
      await ended;
    },
  };
}

/** Chromium where Debian puts it, or where SCRIM_CHROMIUM says. */
export function chromiumPath(): string {
  const wanted = process.env.SCRIM_CHROMIUM;
  const found = [wanted, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(
    (path) => path !== undefined && existsSync(path),
  );
  if (found === undefined) {
    throw new Error('no Chromium: apt-get install -y chromium, or name one with SCRIM_CHROMIUM');
  }
  return found;
}

function firstLine(server: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = '';
    let complaints = '';
    server.stderr?.on('data', (data) => {
      complaints += data;
    });
    server.stdout?.on('data', (data) => {
      output += data;
      const [line, rest] = output.split('\n', 2);
      if (line && rest !== undefined) resolve(line);
    });
    server.once('exit', (code) => reject(new Error(`scrim studio ended with ${code}: ${complaints}`)));
  });
}

function startProxy(sent: SentRequest[], tunnels: string[], disturbed: () => Disturbance | undefined): Promise<Server> {
  const proxy = createServer((incoming, outgoing) => {
    const parts: Buffer[] = [];
    incoming.on('data', (part: Buffer) => parts.push(part));
    incoming.on('end', () => {
      const body = Buffer.concat(parts);
      const target = new URL(incoming.url ?? '', 'http://not-a-proxy-request');
      sent.push({ method: incoming.method ?? '', url: target.href, headers: incoming.headers, body });
      const disturbance = disturbed();
      const applies = disturbance?.matching.test(target.pathname) ?? false;
      if (applies && disturbance?.kind === 'hang') return;
      if (target.hostname !== '127.0.0.1' || (applies && disturbance?.kind === 'cut')) {
        incoming.socket.destroy();
        return;
      }
      const forwarded = httpRequest(
        target,
        { method: incoming.method ?? 'GET', headers: incoming.headers, agent: false },
        (answer) => {
          const received: Buffer[] = [];
          answer.on('data', (part: Buffer) => received.push(part));
          answer.on('end', () => {
            const content = Buffer.concat(received);
            if (applies && disturbance?.kind === 'spoil') content[content.length - 1]! ^= 1;
            outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
            outgoing.end(content);
          });
        },
      );
      forwarded.on('error', () => incoming.socket.destroy());
      forwarded.end(body);
    });
  });
  proxy.on('connect', (incoming, socket) => {
    tunnels.push(incoming.url ?? '');
    socket.destroy();
  });
  return new Promise((resolve) => {
    proxy.listen(0, '127.0.0.1', () => resolve(proxy));
  });
}
