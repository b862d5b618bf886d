/** The bundle a remote command works with: a complete one stands for itself, a noise-only one is completed from its model. */
import type { Bundle } from 'scrim';
import { openBundle } from 'scrim/node';
import { findBundle, openFor } from './bundle-store.js';
import { loadModelSource } from './model-source.js';

/** Flags that name a bundle. */
export interface BundleFlags {
  readonly bundle?: string;
  readonly model: string;
  readonly alpha: number;
}

/** Opens it. @throws ScrimError as openBundle and findBundle */
export async function openServable({ bundle: directory, model, alpha }: BundleFlags): Promise<Bundle> {
  if (directory === undefined) return findBundle(await loadModelSource(model), alpha);
  const bundle = await openBundle(directory);
  return bundle.complete ? bundle : openFor(directory, await loadModelSource(model));
}
