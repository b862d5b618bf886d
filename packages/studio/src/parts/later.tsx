/** Parts of the page that come later: code that is loaded when it is wanted, and what may wait for the next turn. */
import type { ComponentChildren, ComponentType, JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';

/** A component whose code is fetched when it is first shown. */
export function loadedLater(load: () => Promise<ComponentType>): ComponentType {
  let known: ComponentType | undefined;
  return function Later(): JSX.Element | null {
    const [, arrived] = useState(false);
    useEffect(() => {
      if (known) return;
      void load().then((component) => {
        known = component;
        arrived(true);
      });
    }, []);
    const Known = known;
    return Known ? <Known /> : null;
  };
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
