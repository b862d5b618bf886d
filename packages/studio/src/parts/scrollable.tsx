/** A region that scrolls on its own, reachable by keyboard and named for screen readers. */
import type { ComponentChildren, JSX } from 'preact';

/** Wraps what may be wider than the page. */
export function Scrollable({
  label,
  children,
}: {
  readonly label: string;
  readonly children: ComponentChildren;
}): JSX.Element {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
    <section class="scroll" tabIndex={0} aria-label={label}>
      {children}
    </section>
  );
}
