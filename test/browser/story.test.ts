/** The whole story in real Chromium on WebAssembly: what a person does with the page, and what they see. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { unzipSync } from 'fflate';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { SAMPLES, type Studio, startStudio } from './studio.js';

let studio: Studio;
beforeAll(async () => {
  studio = await startStudio();
});
afterAll(() => studio?.close());

const guess = (page: Page) => page.locator('.pane.attacker canvas');
const facesOf = async (page: Page): Promise<number> => page.locator('.pane.server .boxes g').count();

it('tells the story of a sample photo', async () => {
  const { page, problems } = await studio.open();
  await page.goto(studio.url);
  await guess(page).waitFor({ timeout: 90_000 });
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  expect(await page.locator('.engine').textContent()).toMatch(/onnxruntime-web .* \(wasm, \d+ threads?, inline\)/);
  expect(await facesOf(page)).toBeGreaterThanOrEqual(2);
  expect(await page.locator('.pane.trusted .boxes g').count()).toBe(await facesOf(page));
  expect(await page.locator('.pane.wire').textContent()).toMatch(/[\d.]+\skB of noisy activation/);
  await page.getByText('Vacuous').waitFor({ timeout: 30_000 });
  expect(await page.locator('.proven').textContent()).toMatch(/at most [\d,]+ nats\s*Vacuous/);
  expect(await page.locator('.measured').textContent()).toMatch(/FDDB average precision with noise/);

  await page.getByRole('button', { name: 'Open the request' }).click();
  const dialog = page.getByRole('dialog');
  expect(await dialog.textContent()).toMatch(/POST \/v2\/models\/faces_\w+\/infer/);
  expect(await dialog.textContent()).toMatch(/"datatype": "FP16"/);
  const body = page.waitForEvent('download');
  await dialog.getByRole('button', { name: 'Download the whole body' }).click();
  const downloaded = await readFile(await (await body).path());
  const wire = studio.sent.filter(({ url }) => url.endsWith('/infer')).at(-1);
  expect(Buffer.compare(downloaded, wire?.body ?? Buffer.alloc(0))).toBe(0);
  await page.keyboard.press('Escape');
  expect(await dialog.isVisible()).toBe(false);
  expect(problems).toEqual([]);
});

it('moves through the settings by keyboard and keeps the state in the address', async () => {
  const { page, problems } = await studio.open();
  await page.goto(`${studio.url}#/story?photo=sample5&setting=clean`);
  await guess(page).waitFor({ timeout: 90_000 });
  expect(await page.locator('.pane.wire').textContent()).toMatch(/Nothing left/);
  const clean = await facesOf(page);
  expect(clean).toBeGreaterThanOrEqual(4);

  const slider = page.getByRole('slider', { name: /Setting/ });
  await slider.focus();
  await page.keyboard.press('ArrowRight');
  expect(await slider.getAttribute('aria-valuetext')).toBe('noise α 0.05');
  await page.getByRole('button', { name: 'Open the request' }).waitFor({ timeout: 60_000 });
  expect(page.url()).toContain('setting=faceboxes-tfjs/alpha-0.05');
  expect(Math.abs((await facesOf(page)) - clean)).toBeLessThanOrEqual(1);

  await page.getByLabel('Compare two settings').check();
  await page.waitForFunction(() => document.querySelectorAll('.pane.attacker canvas').length === 2);
  expect(page.url()).toMatch(/compare=/);
  const address = page.url();
  await page.goto('about:blank');
  await page.goto(address);
  await page.waitForFunction(() => document.querySelectorAll('.pane.attacker canvas').length === 2, null, {
    timeout: 90_000,
  });

  const pictures = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download pictures' }).click();
  const files = Object.keys(unzipSync(await readFile(await (await pictures).path()))).map((name) => name.split('/')[1]);
  expect(files.sort()).toEqual(
    ['1-photo.png', '2-what-left.png', '3-attacker.png', '4-answer.png'].flatMap((name) => [name, name]),
  );
  const record = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download record' }).click();
  const json = JSON.parse(await readFile(await (await record).path(), 'utf8'));
  expect(json).toMatchObject({ format: 'scrim-studio-record', photo: { sample: 'sample5' } });
  expect(json.runs).toHaveLength(2);
  expect(json.runs[0].sent.bytes).toBeGreaterThan(50_000);
  expect(problems).toEqual([]);
});

it('starts at any setting, a bottleneck too, and compares it with the clean model', async () => {
  const { page, problems } = await studio.open();
  await page.goto(`${studio.url}#/story?photo=sample2&setting=faceboxes-tfjs-bottleneck/alpha-0.80`);
  await guess(page).waitFor({ timeout: 90_000 });
  expect(await page.locator('.pane.wire').textContent()).toMatch(/8\s×\s24\s×\s24 numbers/);
  expect(await page.locator('.pane.trusted').textContent()).toMatch(/without noise 3/);
  expect(await page.getByRole('alert').count()).toBe(0);
  expect(problems).toEqual([]);
});

it('follows an address that is edited or gone back to', async () => {
  const { page, problems } = await studio.open();
  await page.goto(`${studio.url}#/story?photo=sample5&setting=clean`);
  await guess(page).waitFor({ timeout: 90_000 });
  await page.evaluate(() => {
    location.hash = '#/story?photo=sample2&setting=faceboxes-tfjs-bottleneck/alpha-0.90&compare=clean';
  });
  await page.waitForFunction(() => document.querySelectorAll('.pane.attacker canvas').length === 2);
  await page.getByRole('button', { name: 'Open the request' }).waitFor({ timeout: 60_000 });
  expect(await page.locator('.pane.wire').allTextContents()).toEqual([
    expect.stringMatching(/noisy activation/),
    expect.stringMatching(/Nothing left/),
  ]);
  await page.goBack();
  await page.waitForFunction(() => document.querySelectorAll('.panes').length === 1);
  await page.getByText('Nothing left').waitFor({ timeout: 60_000 });
  expect(await page.locator('.sample[aria-pressed=true] img').getAttribute('alt')).toBe('sample5');
  expect(problems).toEqual([]);
});

it('takes a photo that is picked, dropped or pasted', async () => {
  const { page, problems } = await studio.open();
  await page.goto(`${studio.url}#/story?photo=human-sample-face`);
  await guess(page).waitFor({ timeout: 90_000 });
  const photo = join(SAMPLES, 'sample3.jpg');
  await page.getByLabel('Photo file').setInputFiles(photo);
  await page.waitForFunction(() => document.querySelector('.pane.trusted')?.textContent?.match(/1920\s×/) != null);
  expect(page.url()).not.toMatch(/sample3|photo=/);
  await guess(page).waitFor();

  const bytes = [...(await readFile(join(SAMPLES, 'human-sample-body.jpg')))];
  for (const kind of ['drop', 'paste']) {
    await page.getByRole('button', { name: 'sample1' }).click();
    await page.waitForFunction(() => document.querySelector('.pane.trusted')?.textContent?.match(/1920\s×/) != null);
    await guess(page).waitFor();
    await page.evaluate(
      ([name, content]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(content as number[])], 'own.jpg', { type: 'image/jpeg' }));
        const event =
          name === 'drop'
            ? new DragEvent('drop', { dataTransfer: transfer, bubbles: true })
            : new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true });
        document.body.dispatchEvent(event);
      },
      [kind, bytes] as const,
    );
    await page.waitForFunction(() => {
      const text = document.querySelector('.pane.trusted')?.textContent ?? '';
      return /\s×\s/.test(text) && !/1920\s×/.test(text);
    });
  }
  expect(problems).toEqual([]);
});

it('follows the camera and keeps the last frame', async () => {
  const { page, problems } = await studio.open({ permissions: ['camera'] });
  await page.goto(studio.url);
  await guess(page).waitFor({ timeout: 90_000 });
  await page.getByRole('button', { name: 'Use the camera' }).click();
  await page.getByText(/frames a second/).waitFor({ timeout: 60_000 });
  // All four panes follow.
  await page.locator('.pane.wire canvas').waitFor({ timeout: 60_000 });
  await guess(page).waitFor({ timeout: 60_000 });
  await page.getByRole('button', { name: 'Stop and keep this frame' }).click();
  await guess(page).waitFor({ timeout: 60_000 });
  // It does not go on where nobody sees it.
  await page.getByRole('button', { name: 'Use the camera' }).click();
  await page.getByText(/frames a second/).waitFor({ timeout: 60_000 });
  await page.getByRole('link', { name: 'Server' }).click();
  await page.getByRole('row', { name: /tfjs_alpha_0_80/ }).waitFor();
  await page.getByRole('link', { name: 'Story' }).click();
  await page.getByRole('button', { name: 'Use the camera' }).waitFor();
  expect(problems).toEqual([]);
});

it('shows the running server, live', async () => {
  const { page, problems } = await studio.open();
  await page.goto(`${studio.url}#/server`);
  const row = page.getByRole('row', { name: /tfjs_bottleneck_alpha_0_80/ });
  await row.waitFor();
  const before = Number(await row.getByRole('cell').nth(2).textContent());
  await page.getByRole('link', { name: 'Story' }).click();
  await guess(page).waitFor({ timeout: 90_000 });
  await page.goBack();
  await page.waitForFunction((count) => {
    const found = [...document.querySelectorAll('tr')].find((entry) =>
      entry.textContent?.includes('bottleneck_alpha_0_80'),
    );
    return Number(found?.querySelectorAll('td')[2]?.textContent) > count;
  }, before);
  expect(await row.textContent()).toMatch(/ready/);
  expect(await row.textContent()).toMatch(/\d\sms/);
  expect(problems).toEqual([]);
});
