/**
 * Keeps a copy of some objects up to date by list and watch, as Kubernetes' own controllers do.
 *
 * A watch that ends is taken up where it ended; one whose place the server has forgotten (410 Gone), or that broke off
 * with the server itself, starts over with a list. Nothing here polls.
 */
import type { IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ScrimError } from 'scrim';
import type { KubeClient, Selection } from './client.js';
import type { Kind, KindMap } from './kinds.js';
import { linesOf } from './lines.js';

interface WatchEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: T & { code?: number; message?: string; metadata?: { uid?: string; resourceVersion?: string } };
}

const LONGEST_PAUSE_MS = 2_000;
/** The server ends each watch after this long; a fresh one follows. */
const WATCH_SECONDS = 240;

/**
 * Calls `onChange` with all objects that `selection` matches, first as listed and then after every change.
 * Runs until `signal` fires.
 *
 * @throws what a list or watch is refused with, except while the server can't be reached: then it tries on
 */
export async function observe<K extends Kind>(
  client: KubeClient,
  kind: K,
  selection: Selection,
  signal: AbortSignal,
  onChange: (objects: readonly KindMap[K][]) => void,
): Promise<void> {
  let failures = 0;
  while (!signal.aborted) {
    try {
      const { items, resourceVersion } = await client.list(kind, selection, signal);
      const objects = new Map(items.map((item) => [item.metadata?.uid ?? '', item]));
      onChange([...objects.values()]);
      failures = 0;
      await follow(client, kind, selection, resourceVersion, objects, signal, onChange);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ScrimError) || error.code !== 'UNAVAILABLE') throw error;
      failures++;
      await sleep(Math.min(100 * 2 ** failures, LONGEST_PAUSE_MS), undefined, { signal }).catch(() => undefined);
    }
  }
}

/** Watches from `version` on; returns when a fresh list is needed. */
async function follow<K extends Kind>(
  client: KubeClient,
  kind: K,
  selection: Selection,
  version: string,
  objects: Map<string, KindMap[K]>,
  signal: AbortSignal,
  onChange: (objects: readonly KindMap[K][]) => void,
): Promise<void> {
  let resourceVersion = version;
  while (!signal.aborted) {
    const { namespace, fieldSelector, labelSelector } = selection;
    const response = await client.open({
      method: 'GET',
      path: client.path(kind, namespace),
      query: {
        watch: 'true',
        resourceVersion,
        fieldSelector,
        labelSelector,
        allowWatchBookmarks: 'true',
        timeoutSeconds: String(WATCH_SECONDS),
      },
      signal,
    });
    for await (const event of events<KindMap[K]>(response)) {
      if (event.type === 'ERROR') {
        response.destroy();
        return; // 410 and the like: list again
      }
      resourceVersion = event.object.metadata?.resourceVersion ?? resourceVersion;
      if (event.type === 'BOOKMARK') continue;
      const uid = event.object.metadata?.uid ?? '';
      if (event.type === 'DELETED') objects.delete(uid);
      else objects.set(uid, event.object);
      onChange([...objects.values()]);
    }
  }
}

async function* events<T>(response: IncomingMessage): AsyncGenerator<WatchEvent<T>, void, undefined> {
  try {
    for await (const line of linesOf(response)) {
      if (line !== '') yield JSON.parse(line) as WatchEvent<T>;
    }
  } catch (error) {
    throw ScrimError.from(error, 'UNAVAILABLE', 'the watch broke off');
  }
}
