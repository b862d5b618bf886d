/** Where a photo comes from: samples, a file (picked, dropped, pasted), the camera. */
import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { ScrimError } from 'scrim';
import { camera, cameraProblem, startCamera, stopCamera } from '../camera.js';
import { catalogue, openFile, openSample, photo, photoError, photoWorking } from '../story-state.js';
import { Notice, NoticeBox } from './notice.js';

/** The bar of sources, and what went wrong with the last one. */
export function PhotoSource(): JSX.Element {
  const input = useRef<HTMLInputElement>(null);
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    const onPaste = (event: ClipboardEvent): void => {
      const file = [...(event.clipboardData?.files ?? [])][0];
      if (file) void give(file);
    };
    const onDrag = (event: DragEvent): void => {
      event.preventDefault();
      setOver(event.type === 'dragover');
    };
    const onDrop = (event: DragEvent): void => {
      event.preventDefault();
      setOver(false);
      const file = event.dataTransfer?.files[0];
      if (file) void give(file);
      else photoError.value = new ScrimError('INVALID_DATA', 'what was dropped is no file');
    };
    addEventListener('paste', onPaste);
    addEventListener('dragover', onDrag);
    addEventListener('dragleave', onDrag);
    addEventListener('drop', onDrop);
    return () => {
      removeEventListener('paste', onPaste);
      removeEventListener('dragover', onDrag);
      removeEventListener('dragleave', onDrag);
      removeEventListener('drop', onDrop);
      // Nobody sees what the camera shows on another page.
      void stopCamera(false);
    };
  }, []);
  const { on, rate } = camera.value;
  const shown = photo.value;
  return (
    <section class="source" aria-label="Photo">
      <section class="samples" aria-label="Samples">
        {catalogue.value?.samples.map(({ name, path }) => (
          <button
            type="button"
            key={name}
            class="sample"
            aria-pressed={shown?.origin === 'sample' && shown.name === name}
            onClick={() => void leaveCamera().then(() => openSample(name))}
          >
            <img
              src={path}
              alt={name.replace('human-', '').replace(/-/g, ' ')}
              loading="lazy"
              decoding="async"
              width="64"
              height="48"
            />
          </button>
        ))}
      </section>
      <div class="buttons">
        <button type="button" onClick={() => input.current?.click()}>
          Choose a photo
        </button>
        {on ? (
          <button type="button" onClick={() => void stopCamera()}>
            Stop and keep this frame
          </button>
        ) : (
          <button type="button" onClick={() => void startCamera()}>
            Use the camera
          </button>
        )}
        <span class="hint">{hint(on, rate)}</span>
      </div>
      <input
        ref={input}
        type="file"
        accept="image/*"
        class="hidden"
        aria-label="Photo file"
        tabIndex={-1}
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = '';
          if (file) void give(file);
        }}
      />
      {photoError.value !== undefined && <Notice error={photoError.value} />}
      {cameraProblem.value && (
        <NoticeBox {...cameraProblem.value}>
          <button type="button" onClick={() => void startCamera()}>
            Start the camera again
          </button>
        </NoticeBox>
      )}
      {photoWorking.value && !on && (
        <p class="working">
          <span class="spinner" aria-hidden="true" />
          {photoWorking.value}…
        </p>
      )}
      {isOver && (
        <div class="drop" aria-hidden="true">
          Drop the photo: it stays in this tab
        </div>
      )}
    </section>
  );
}

async function give(file: File): Promise<void> {
  await leaveCamera();
  await openFile(file);
}

async function leaveCamera(): Promise<void> {
  if (camera.value.on) await stopCamera(false);
}

function hint(on: boolean, rate: number | undefined): string {
  if (!on) return 'or drop or paste one anywhere';
  return rate === undefined ? 'starting' : `${rate.toFixed(1)} frames a second`;
}
