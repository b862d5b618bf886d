/** What the server of the page offers (`/studio.json`), checked before it is used. Its other half is cli's studio-catalogue.ts. */
import { ScrimError } from 'scrim';
import type { PayloadFormat } from 'scrim/client';

/** One bundle. */
export interface CatalogueBundle {
  readonly id: string;
  readonly kind: string;
  readonly alpha: number;
  readonly hash: string;
  readonly remoteModel: string;
  readonly payload: PayloadFormat;
}

/** One sample photo. */
export interface CatalogueSample {
  readonly name: string;
  readonly path: string;
}

/** Everything on offer. */
export interface Catalogue {
  readonly version: string;
  readonly bundles: readonly CatalogueBundle[];
  readonly samples: readonly CatalogueSample[];
}

/** Asks for it. @throws ScrimError UNAVAILABLE, INVALID_DATA */
export async function fetchCatalogue(): Promise<Catalogue> {
  const response = await fetch('studio.json').catch((cause: unknown) => {
    throw new ScrimError('UNAVAILABLE', 'the server of this page does not answer', { cause });
  });
  if (!response.ok) {
    throw new ScrimError('UNAVAILABLE', `the server of this page answered ${response.status} for studio.json`);
  }
  const value = (await response.json().catch(() => undefined)) as Partial<Catalogue> | undefined;
  if (!Array.isArray(value?.bundles) || !Array.isArray(value.samples) || value.bundles.length === 0) {
    throw new ScrimError('INVALID_DATA', 'studio.json does not list bundles and samples');
  }
  return value as Catalogue;
}
