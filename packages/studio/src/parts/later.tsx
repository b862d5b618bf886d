/** Parts of the page that come later: code that is loaded when it is wanted, and what may wait for the next turn. */
import type { ComponentChildren, ComponentType, JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { ScrimError } from 'scrim';
import { Notice } from './notice.js';

/** When code that may be wanted is fetched beforehand: the server may be gone by the time it is. */
const AHEAD_MS = 4_000;

/** A component whose code is fetched when it is first shown, or a while after the page began. */
export function loadedLater(load: () => Promise<ComponentType>): ComponentType {
  let known: ComponentType | undefined;
  const fetchOnce = async (): Promise<void> => {
    known ??= await load();
  };
  fetchAhead(fetchOnce);
  return function Later(): JSX.Element | null {
    const [failure, setFailure] = useState<unknown>(undefined);
    const [, arrived] = useState(false);
    const start = (): void => {
      setFailure(undefined);
      fetchOnce().then(
        () => arrived(true),
        (cause: unknown) =>
          setFailure(new ScrimError('UNAVAILABLE', 'a part of this page can not be fetched', { cause })),
      );
    };
    useEffect(() => {
      if (!known) start();
    }, []);
    const Known = known;
    if (Known) return <Known />;
    return failure === undefined ? null : <Notice error={failure} onRetry={start} />;
  };
}

/** Fetches code a while after the page began; failures are told when it is wanted. */
export function fetchAhead(load: () => Promise<unknown>): void {
  setTimeout(() => void load().catch(() => undefined), AHEAD_MS);
}

/** Shows its children one turn of the event loop later, so that a large page is not made in one long task. */
export function NextTurn({ children }: { readonly children: ComponentChildren }): JSX.Element | null {
  const [isShown, show] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => show(true), 30);
    return () => clearTimeout(timer);
  }, []);
  return isShown ? <div class="contents">{children}</div> : null;
}
