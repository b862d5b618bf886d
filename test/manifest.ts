/** Manifests of the bundles that tests make. */
import type { ManifestInput } from '../packages/scrim/src/bundle/manifest.js';

/** A manifest with what tests do not care about filled in. */
export function testManifest(given: Pick<ManifestInput, 'cut' | 'task'> & Partial<ManifestInput>): ManifestInput {
  return {
    createdAt: '2026-01-01T00:00:00.000Z',
    createdBy: 'test',
    alpha: 0.8,
    model: { name: 'small', source: 'test', sha256: 'a'.repeat(64), input: 'image' },
    fit: {
      steps: 1,
      batchSize: 1,
      learningRate: 0.05,
      canvases: 1,
      photos: 1,
      photoFolders: ['photos'],
      seed: 'test',
      finalTask: 1,
    },
    results: [],
    ...given,
  };
}
