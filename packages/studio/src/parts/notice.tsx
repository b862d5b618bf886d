/** What went wrong and what a person can do about it. */
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { adviseOn } from '../advice.js';

/** A failure with its advice. */
export function Notice({ error, onRetry }: { readonly error: unknown; readonly onRetry?: () => void }): JSX.Element {
  const { title, text, detail, retry } = adviseOn(error);
  return (
    <NoticeBox title={title} text={text} detail={detail}>
      {retry && onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </NoticeBox>
  );
}

/** A box with a title, advice and buttons. It brings itself into view: what failed may have been dropped far below. */
export function NoticeBox(props: {
  readonly title: string;
  readonly text: string;
  readonly detail?: string;
  readonly children?: ComponentChildren;
}): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => box.current?.scrollIntoView({ block: 'nearest' }), [props.title, props.detail]);
  return (
    <div ref={box} class="notice" role="alert">
      <p>
        <strong>{props.title}.</strong> {props.text}
      </p>
      {props.detail && <p class="detail">{props.detail}</p>}
      {props.children}
    </div>
  );
}
