/**
 * The camera: frames go to the worker one after another, as fast as they are answered, and nowhere else. It starts when
 * the person asks for it, after the browser's own question, and every way it can end leaves the page working.
 */
import { type Signal, signal } from '@preact/signals';
import { openPhoto, photoError, runAll, slots } from './story-state.js';

/** What the page knows of the camera. */
export interface CameraState {
  readonly on: boolean;
  /** Frames answered a second, over the last few. */
  readonly rate?: number;
}

export const camera: Signal<CameraState> = signal({ on: false });
/** Why there is no camera, for the person. */
export const cameraProblem: Signal<{ readonly title: string; readonly text: string } | undefined> = signal(undefined);

const RATE_OVER = 5;
let stopCurrent: (() => void) | undefined;

/** Asks for the camera and works on its frames until it is stopped, lost, or a frame fails. */
export async function startCamera(): Promise<void> {
  cameraProblem.value = undefined;
  if (!navigator.mediaDevices?.getUserMedia) {
    cameraProblem.value = {
      title: 'This browser gives no access to a camera here',
      text: 'It does on https and on localhost. Choose a photo instead.',
    };
    return;
  }
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } }, audio: false });
  } catch (error) {
    cameraProblem.value = problemOf(error);
    return;
  }
  const [track] = stream.getVideoTracks();
  const video = document.createElement('video');
  video.muted = true;
  video.playsInline = true;
  video.srcObject = stream;
  let on = true;
  const stop = (): void => {
    on = false;
    for (const part of stream.getTracks()) part.stop();
    video.srcObject = null;
    if (stopCurrent === stop) stopCurrent = undefined;
    camera.value = { on: false };
  };
  stopCurrent?.();
  stopCurrent = stop;
  track?.addEventListener('ended', () => {
    if (!on) return;
    stop();
    cameraProblem.value = {
      title: 'The camera is gone',
      text: 'It was unplugged, or another program took it. Connect it and start again, or choose a photo.',
    };
  });
  camera.value = { on: true };
  await video.play().catch(() => undefined);
  const times: number[] = [];
  while (on) {
    const frame = await createImageBitmap(video).catch(() => undefined);
    if (!frame) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      continue;
    }
    const read = await openPhoto(frame, 'camera', 'camera');
    if (!on) break;
    if (!read || photoError.value || slots[0].error.value) {
      stop();
      break;
    }
    times.push(performance.now());
    if (times.length > RATE_OVER + 1) times.shift();
    const span = (times.at(-1) ?? 0) - (times[0] ?? 0);
    camera.value = { on: true, ...(times.length > 1 ? { rate: ((times.length - 1) * 1000) / span } : {}) };
  }
}

/** Stops the camera; with `keep`, the last frame is worked on as a photo. */
export async function stopCamera(keep = true): Promise<void> {
  if (!stopCurrent) return;
  stopCurrent();
  if (keep) await runAll();
}

function problemOf(error: unknown): { title: string; text: string } {
  const name = error instanceof Error ? error.name : '';
  if (name === 'NotAllowedError') {
    return {
      title: 'The camera was not allowed',
      text: 'Allow it for this page in the address bar of the browser and start again, or choose a photo.',
    };
  }
  if (name === 'NotFoundError' || name === 'OverconstrainedError') {
    return { title: 'There is no camera', text: 'Connect one and start again, or choose a photo.' };
  }
  return {
    title: 'The camera can’t be started',
    text: 'Another program may be using it. Close that and start again, or choose a photo.',
  };
}
