/** The bundle a remote command works with: a complete one stands for itself, a noise-only one is completed from its model. */
import type { Bundle } from 'scrim';
import { openBundle } from 'scrim/node';
import { findBundle, openFor, type TransformKind } from './bundle-store.js';
import { loadModelSource } from './model-source.js';

/** Flags that name a bundle. */
export interface BundleFlags {
  readonly bundle?: string;
  readonly model: string;
  readonly alpha: number;
  /** Which of the shipped bundles; default 'diagonal'. */
  readonly transform?: TransformKind;
}

/** Opens it. @throws ScrimError as openBundle and findBundle */
export async function openServable({ bundle: directory, model, alpha, transform }: BundleFlags): Promise<Bundle> {
  if (directory === undefined) return findBundle(await loadModelSource(model), alpha, transform);
  const bundle = await openBundle(directory);
  return bundle.complete ? bundle : openFor(directory, await loadModelSource(model));
}
