/** Files for the person: pictures as a zip of PNGs, the record as JSON. Made in the tab from what it shows. */
import { zip } from 'fflate';
import type { Detection } from 'scrim/vision';
import { bundleOf, inspections, type ShownPhoto, settingName } from './story-state.js';
import type { Run } from './work/messages.js';

/** Offers a blob as a download. */
export function save(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The download has its own hold on the blob once it has begun.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Saves the pictures of the runs as one zip. */
export async function savePictures(photo: ShownPhoto, runs: readonly Run[]): Promise<void> {
  const files: Record<string, Uint8Array> = {};
  for (const run of runs) {
    const folder = settingName(run.settingId).replace(/[^A-Za-z0-9.]+/g, '-');
    files[`${folder}/1-photo.png`] = await png(photo.preview, photo, run.faces);
    if (run.release) files[`${folder}/2-what-left.png`] = await png(run.release.tiles);
    if (run.guess) files[`${folder}/3-attacker.png`] = await png(run.guess.picture);
    files[`${folder}/4-answer.png`] = await png(undefined, photo, run.faces);
  }
  const zipped = await new Promise<Uint8Array>((resolve, reject) => {
    // PNGs are compressed already.
    zip(files, { level: 0 }, (error, data) => (error ? reject(error) : resolve(data)));
  });
  save(new Blob([zipped as Uint8Array<ArrayBuffer>], { type: 'application/zip' }), 'scrim-pictures.zip');
}

/** Saves what was run, measured and proven, without the photo. */
export function saveRecord(photo: ShownPhoto, runs: readonly Run[]): void {
  save(new Blob([JSON.stringify(record(photo, runs), null, 2)], { type: 'application/json' }), 'scrim-record.json');
}

function record(photo: ShownPhoto, runs: readonly Run[]): unknown {
  return {
    format: 'scrim-studio-record',
    formatVersion: 1,
    createdAt: new Date().toISOString(),
    // The name of a person's own file may tell who is on it.
    photo: { sample: photo.origin === 'sample' ? photo.name : undefined, width: photo.width, height: photo.height },
    runs: runs.map((run) => {
      const bundle = bundleOf(run.settingId);
      return {
        setting: run.settingId,
        bundle: bundle && { id: bundle.id, hash: bundle.hash, alpha: bundle.alpha, kind: bundle.kind },
        engine: run.engine,
        timingMs: run.timing,
        minScore: run.minScore,
        faces: run.faces.map(toJson),
        cleanFaces: run.cleanFaces?.map(toJson),
        sent: run.release && {
          bytes: run.release.sentBytes,
          receivedBytes: run.release.receivedBytes,
          shape: run.release.shape,
          payload: bundle?.payload,
          keyId: run.release.keyId,
          url: run.release.request && new URL(run.release.request.url).pathname,
        },
        attacker: run.guess && {
          kind: 'measured',
          attacker: run.guess.attacker,
          training: run.guess.training,
          ssim: run.guess.likeness,
          photos: 1,
        },
        figures: bundle && inspections.value.get(bundle.id)?.figures,
      };
    }),
  };
}

function toJson({ box, score }: Detection): { box: number[]; score: number } {
  return { box: [...box], score };
}

/** A bitmap, or an empty ground, with boxes drawn on it, as PNG. */
async function png(
  bitmap: ImageBitmap | undefined,
  size: { readonly width: number; readonly height: number } = bitmap ?? { width: 1, height: 1 },
  faces: readonly Detection[] = [],
): Promise<Uint8Array> {
  const factor = bitmap ? bitmap.width / size.width : Math.min(1, 1280 / Math.max(size.width, size.height));
  const canvas = new OffscreenCanvas(
    bitmap?.width ?? Math.round(size.width * factor),
    bitmap?.height ?? Math.round(size.height * factor),
  );
  const context = canvas.getContext('2d') as OffscreenCanvasRenderingContext2D;
  if (bitmap) context.drawImage(bitmap, 0, 0);
  else {
    context.fillStyle = '#16191d';
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.lineWidth = Math.max(2, Math.max(canvas.width, canvas.height) / 300);
  context.strokeStyle = '#39ff14';
  for (const { box } of faces) {
    const [left, top, right, bottom] = box.map((edge) => edge * factor) as [number, number, number, number];
    context.strokeRect(left, top, right - left, bottom - top);
  }
  return new Uint8Array(await (await canvas.convertToBlob({ type: 'image/png' })).arrayBuffer());
}
