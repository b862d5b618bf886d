/** The real request, opened: its line, headers, the JSON part, and the first bytes of the tensor. */
import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { bytes } from '../format.js';
import type { SentRequest } from '../work/messages.js';
import { Scrollable } from './scrollable.js';

const SHOWN_BYTES = 256;
const ROW = 16;

/** A modal dialog; the browser's own, so that Escape and focus work. */
export function RequestDialog(props: { readonly request: SentRequest; readonly onClose: () => void }): JSX.Element {
  const { request, onClose } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const tensor = new Uint8Array(request.body, request.jsonBytes);
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="request-title">
      <header>
        <h2 id="request-title">The request that left this tab</h2>
        <button type="button" class="quiet" onClick={() => dialog.current?.close()}>
          Close
        </button>
      </header>
      <p>
        {bytes(request.body.byteLength)}: {bytes(request.jsonBytes)} of JSON by the v2 protocol, then the release as
        float16 numbers. No photo, no pixels, no clean activation, no key.
      </p>
      <h3>Head</h3>
      <Scrollable label="Head of the request">
        <pre>
          {`${request.method} ${new URL(request.url).pathname} HTTP/1.1\nHost: ${new URL(request.url).host}\n`}
          {request.headers.map(([name, value]) => `${name}: ${value}\n`).join('')}
        </pre>
      </Scrollable>
      <h3>JSON</h3>
      <Scrollable label="JSON of the request">
        <pre>{pretty(request.json)}</pre>
      </Scrollable>
      <h3>
        First {Math.min(SHOWN_BYTES, tensor.length)} of {tensor.length.toLocaleString('en')} bytes of the release
      </h3>
      <Scrollable label="Bytes of the release">
        <pre>{hex(tensor.subarray(0, SHOWN_BYTES))}</pre>
      </Scrollable>
      <button type="button" onClick={() => void saveBody(request.body)}>
        Download the whole body
      </button>
    </dialog>
  );
}

async function saveBody(body: ArrayBuffer): Promise<void> {
  const { save } = await import('../save.js');
  save(new Blob([body]), 'scrim-request-body.bin');
}

function pretty(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

function hex(data: Uint8Array): string {
  const rows: string[] = [];
  for (let at = 0; at < data.length; at += ROW) {
    const row = Array.from(data.subarray(at, at + ROW), (byte) => byte.toString(16).padStart(2, '0'));
    rows.push(`${at.toString(16).padStart(6, '0')}  ${row.join(' ')}`);
  }
  return rows.join('\n');
}
