/** State of the story: the photo, one or two settings and what each made of it. Pages read signals; actions stand here. */
import { batch, computed, type ReadonlySignal, type Signal, signal } from '@preact/signals';
import { ScrimError } from 'scrim';
import { type Catalogue, type CatalogueBundle, fetchCatalogue } from './catalogue.js';
import { go, type Route, route } from './route.js';
import { createDesk } from './work/desk.js';
import type { Inspection, Photo, Run, Setting } from './work/messages.js';

/** The photo in the tab. */
export interface ShownPhoto {
  /** For people; of the sample, or what the person gave. */
  readonly name: string;
  readonly origin: 'sample' | 'own' | 'camera';
  readonly width: number;
  readonly height: number;
  readonly preview: ImageBitmap;
}

/** One of the two columns of settings. */
export interface Slot {
  readonly working: Signal<string | undefined>;
  readonly run: Signal<Run | undefined>;
  readonly error: Signal<unknown>;
}

const SETTLE_MS = 120;

/** The worker. */
const desk = createDesk();

export const catalogue: Signal<Catalogue | undefined> = signal(undefined);
export const catalogueError: Signal<unknown> = signal(undefined);
export const inspections: Signal<ReadonlyMap<string, Inspection>> = signal(new Map());
export const photo: Signal<ShownPhoto | undefined> = signal(undefined);
export const photoWorking: Signal<string | undefined> = signal(undefined);
export const photoError: Signal<unknown> = signal(undefined);
export const slots: readonly [Slot, Slot] = [createSlot(), createSlot()];

/** Ids of the settings in the order of the slider. */
export const settings: ReadonlySignal<readonly string[]> = computed(() => [
  'clean',
  ...(catalogue.value?.bundles.map(({ id }) => id) ?? []),
]);

/** Id of the setting of a slot: the address', else the bottleneck that `scrim detect` takes, where there is one. */
export function settingId(slot: 0 | 1): string | undefined {
  const all = settings.value;
  const wanted = slot === 0 ? route.value.setting : route.value.compare;
  if (wanted !== undefined && all.includes(wanted)) return wanted;
  if (slot === 1) return undefined;
  const bundles = catalogue.value?.bundles ?? [];
  return (bundles.find(({ kind, alpha }) => kind === 'bottleneck' && alpha === 0.8) ?? bundles[0])?.id;
}

/** The bundle of an id; undefined for 'clean'. */
export function bundleOf(id: string | undefined): CatalogueBundle | undefined {
  return catalogue.value?.bundles.find((bundle) => bundle.id === id);
}

/** Name of a setting for people. */
export function settingName(id: string): string {
  const bundle = bundleOf(id);
  if (!bundle) return 'clean';
  const others = catalogue.value?.bundles.filter(({ kind, alpha }) => kind === bundle.kind && alpha === bundle.alpha);
  const model = (others?.length ?? 0) > 1 ? ` (${bundle.id})` : '';
  return `${bundle.kind === 'diagonal' ? 'noise' : bundle.kind} α ${bundle.alpha.toFixed(2)}${model}`;
}

/** Asks the server what there is, reads what the bundles say, and opens the photo of the address. */
export async function loadCatalogue(): Promise<void> {
  catalogueError.value = undefined;
  try {
    catalogue.value = await fetchCatalogue();
  } catch (error) {
    catalogueError.value = error;
    return;
  }
  const { bundles, samples } = catalogue.value;
  const sample = samples.find(({ name }) => name === route.value.photo) ?? samples[0];
  if (sample && !photo.value) await openSample(sample.name);
  for (const bundle of bundles) {
    const found = await desk.inspect(bundle).catch(() => undefined);
    if (found) inspections.value = new Map(inspections.value).set(found.bundleId, found);
  }
}

/** Counts what the person chose, so that a slow answer does not undo a later choice. */
let latestChoice = 0;

/** Opens a sample photo and works on it. */
export async function openSample(name: string): Promise<void> {
  const sample = catalogue.value?.samples.find((candidate) => candidate.name === name);
  if (!sample) return;
  photoError.value = undefined;
  photoWorking.value = 'Fetching the sample photo';
  const choice = ++latestChoice;
  try {
    const response = await fetch(sample.path).catch((cause: unknown) => {
      throw new ScrimError('UNAVAILABLE', 'the sample photo can not be fetched', { cause });
    });
    if (!response.ok) throw new ScrimError('UNAVAILABLE', `the sample photo was answered with ${response.status}`);
    const file = await response.blob();
    if (choice !== latestChoice) return;
    go({ photo: sample.name });
    await openPhoto(file, sample.name, 'sample');
  } catch (error) {
    if (choice === latestChoice) photoError.value = error;
  } finally {
    if (choice === latestChoice) photoWorking.value = undefined;
  }
}

/** Opens a person's own file and works on it. It is read by the worker of this page and nothing else. */
export async function openFile(file: Blob): Promise<void> {
  latestChoice++;
  await openPhoto(file, file instanceof File ? file.name : 'pasted picture', 'own');
  if (!photoError.value) go({ photo: undefined });
}

/** Opens a photo or a frame of the camera and works on it. Returns false if it could not be read. */
export async function openPhoto(source: Photo, name: string, origin: ShownPhoto['origin']): Promise<boolean> {
  if (origin !== 'camera') photoWorking.value = 'Reading the photo';
  try {
    const opened = await desk.open(source);
    // Taking the picture over from the worker and making the panes are two turns, so that neither is long.
    await new Promise((resolve) => setTimeout(resolve));
    batch(() => {
      photo.value = { name, origin, ...opened };
      photoError.value = undefined;
      if (origin !== 'camera') for (const slot of slots) slot.run.value = undefined;
    });
  } catch (error) {
    photoError.value = error;
    return false;
  } finally {
    if (origin !== 'camera') photoWorking.value = undefined;
  }
  await runAll(origin === 'camera');
  return true;
}

/** Moves a slot to another setting; the work starts once the slider rests. */
export function chooseSetting(slot: 0 | 1, id: string): void {
  go(slot === 0 ? { setting: id } : { compare: id });
  const timers = settleTimers;
  clearTimeout(timers[slot]);
  timers[slot] = setTimeout(() => void runSlot(slot), SETTLE_MS);
}

/** Compares with a second setting, or stops to. */
export function setComparing(comparing: boolean): void {
  if (!comparing) {
    clearSlot(1);
    go({ compare: undefined });
    return;
  }
  const all = settings.value;
  const first = settingId(0);
  const other = first === 'clean' ? all.at(-1) : all[1] === first ? all.at(-1) : all[1];
  go({ compare: other });
  void runSlot(1);
}

/** Does what an address says that was edited or gone back to. */
export async function applyAddress(before: Route): Promise<void> {
  const { photo: name, setting, compare } = route.value;
  if (name !== undefined && name !== before.photo) {
    if (settingId(1) === undefined) clearSlot(1);
    await openSample(name);
    return;
  }
  if (setting !== before.setting) await runSlot(0);
  if (compare === before.compare) return;
  if (settingId(1) === undefined) clearSlot(1);
  else await runSlot(1);
}

/** Runs the slots that are in use; `live` for frames of a camera that goes on. */
export async function runAll(live = false): Promise<void> {
  await runSlot(0, live);
  if (settingId(1) !== undefined) await runSlot(1, live);
}

const settleTimers: (ReturnType<typeof setTimeout> | undefined)[] = [undefined, undefined];
const running: [AbortController | undefined, AbortController | undefined] = [undefined, undefined];

/** Stops what a slot is doing. */
export function cancelSlot(slot: 0 | 1): void {
  running[slot]?.abort();
}

function clearSlot(slot: 0 | 1): void {
  cancelSlot(slot);
  const { run, error } = slots[slot];
  run.value = undefined;
  error.value = undefined;
}

/** Runs one slot, in place of what it was doing. */
export async function runSlot(slot: 0 | 1, live = false): Promise<void> {
  const id = settingId(slot);
  const bundles = catalogue.value?.bundles;
  const reference = bundleOf(id) ?? bundles?.[0];
  if (id === undefined || !reference || !photo.value) return;
  cancelSlot(slot);
  const controller = new AbortController();
  running[slot] = controller;
  const { working, run, error } = slots[slot];
  const setting: Setting = bundleOf(id) ?? 'clean';
  working.value = 'Working';
  try {
    const result = await desk.run(
      { setting, reference, live },
      {
        signal: controller.signal,
        onProgress: (text) => {
          if (running[slot] === controller) working.value = text;
        },
      },
    );
    if (running[slot] !== controller) return;
    batch(() => {
      run.value = result;
      error.value = undefined;
    });
  } catch (thrown) {
    if (running[slot] !== controller) return;
    batch(() => {
      run.value = undefined;
      error.value = thrown instanceof ScrimError && thrown.code === 'CANCELLED' ? undefined : thrown;
    });
  } finally {
    if (running[slot] === controller) {
      running[slot] = undefined;
      working.value = undefined;
    }
  }
}

function createSlot(): Slot {
  return { working: signal(undefined), run: signal(undefined), error: signal(undefined) };
}
