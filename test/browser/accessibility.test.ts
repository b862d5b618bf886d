/** axe-core on every page, light and dark, wide and narrow: no serious findings; and the page by keyboard alone. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import type { Page } from 'playwright-core';
import { encodeAuditReport } from 'scrim/audit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Studio, startStudio } from './studio.js';

let studio: Studio;
let axe: string;
beforeAll(async () => {
  studio = await startStudio();
  axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
});
afterAll(() => studio?.close());

interface Finding {
  readonly id: string;
  readonly impact: string | null;
  readonly nodes: { readonly html: string; readonly failureSummary?: string }[];
}

async function findings(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const found = (await page.evaluate(
    'axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then((r) => r.violations)',
  )) as Finding[];
  return found
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, nodes }) =>
      nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 160)} ${failureSummary}`),
    );
}

const report = encodeAuditReport({
  createdAt: '2026-01-01T00:00:00.000Z',
  createdBy: 'scrim 0.1.0',
  command: 'scrim audit',
  machine: 'a machine',
  data: 'ten photos',
  bundles: [
    {
      name: 'faceboxes α 0.8',
      hash: '0'.repeat(64),
      model: 'faceboxes',
      transform: 'diagonal',
      alpha: 0.8,
      releasedValues: 94_208,
      accuracy: undefined,
      cleanAccuracy: undefined,
      attacks: [
        {
          name: 'decoder',
          description: 'A network that was trained to rebuild photos from releases.',
          verdict: 'too-short',
          live: true,
          liveReason: '',
          trusted: false,
          trustedReason: 'It was still getting better when it was stopped.',
          values: [
            {
              name: 'SSIM',
              unit: '',
              better: 'higher',
              mean: 0.41,
              interval: { estimate: 0.41, low: 0.38, high: 0.44, level: 0.95, samples: 1000 },
              samples: 10,
              seeds: 1,
            },
          ],
          baselines: [],
          samples: 10,
          trainedOn: 100,
          seconds: 12,
          settings: {},
          curves: [],
        },
      ],
      proven: [
        { kind: 'proven', name: 'mutual information', value: 21_528, unit: 'nats', assumptions: ['one release'] },
      ],
    },
  ],
});

describe.each([
  ['light and wide', { colorScheme: 'light' as const, viewport: { width: 1360, height: 900 } }],
  ['dark and narrow', { colorScheme: 'dark' as const, viewport: { width: 390, height: 844 } }],
])('%s', (_, options) => {
  it('has no serious findings on any page', async () => {
    const { page } = await studio.open(options);
    await page.goto(`${studio.url}#/story?photo=sample5&compare=clean`);
    await page.waitForFunction(() => document.querySelectorAll('.pane.attacker canvas').length === 2, null, {
      timeout: 90_000,
    });
    await page.getByText('Vacuous').first().waitFor();
    expect(await findings(page)).toEqual([]);
    const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(width, 'the page scrolls sideways').toBeLessThanOrEqual(0);

    await page.getByRole('button', { name: 'Open the request' }).click();
    expect(await findings(page)).toEqual([]);
    await page.keyboard.press('Escape');
    await page.getByLabel('Photo file').setInputFiles({
      name: 'notes.jpg',
      mimeType: 'image/jpeg',
      buffer: Buffer.from('no photo'),
    });
    await page.getByRole('alert').waitFor();
    expect(await findings(page)).toEqual([]);

    await page.getByRole('link', { name: 'Server' }).click();
    await page.getByRole('row', { name: /tfjs_alpha_0_80/ }).waitFor();
    expect(await findings(page)).toEqual([]);

    await page.getByRole('link', { name: 'Audit report' }).click();
    await page.getByLabel('Report file').setInputFiles({
      name: 'report.json',
      mimeType: 'application/json',
      buffer: Buffer.from(report),
    });
    await page.getByText('at least this much').waitFor();
    expect(await findings(page)).toEqual([]);
    await page.getByLabel('Report file').setInputFiles({
      name: 'other.json',
      mimeType: 'application/json',
      buffer: Buffer.from('{"format":"other"}'),
    });
    expect(await page.getByRole('alert').textContent()).toMatch(/This is no audit report/);
  });
});

it('is worked by keyboard alone', async () => {
  const { page } = await studio.open();
  await page.goto(studio.url);
  await page.locator('.pane.attacker canvas').waitFor({ timeout: 90_000 });
  await page.locator('body').focus();
  const reached: string[] = [];
  for (let i = 0; i < 26; i++) {
    await page.keyboard.press('Tab');
    reached.push(
      await page.evaluate(() => {
        const element = document.activeElement as HTMLElement | null;
        return (
          element?.getAttribute('aria-label') ||
          element?.querySelector('img')?.alt ||
          element?.id ||
          element?.textContent ||
          ''
        );
      }),
    );
  }
  expect(reached[0]).toBe('Skip to the content');
  for (const name of ['Server', 'sample1', 'Choose a photo', 'Use the camera', 'Open the request', 'setting-0']) {
    expect(reached, name).toContain(name);
  }
});
