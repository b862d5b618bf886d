/** What goes wrong gives a message a person can act on, and the page goes on working. */
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { SAMPLES, type Studio, startStudio } from './studio.js';

let studio: Studio;
beforeAll(async () => {
  studio = await startStudio();
});
afterEach(() => studio.disturb(undefined));
afterAll(() => studio?.close());

const guess = (page: Page) => page.locator('.pane.attacker canvas');
const alert = (page: Page) => page.getByRole('alert');

it('refuses a corrupt bundle, sends nothing, and goes on with another', async () => {
  const { page } = await studio.open();
  studio.disturb({ kind: 'spoil', matching: /alpha-0\.80\/trusted\/noise/ });
  studio.sent.length = 0;
  await page.goto(studio.url);
  await alert(page).waitFor({ timeout: 90_000 });
  expect(await alert(page).textContent()).toMatch(/The bundle was changed or is damaged.*nothing was sent/s);
  expect(studio.sent.filter(({ method }) => method === 'POST')).toEqual([]);
  await page.getByRole('slider').focus();
  await page.keyboard.press('ArrowLeft');
  await guess(page).waitFor({ timeout: 60_000 });
  expect(await alert(page).count()).toBe(0);
  studio.disturb(undefined);
  await page.keyboard.press('ArrowRight');
  await page.waitForFunction(() => document.querySelector('.slider strong')?.textContent === 'bottleneck α 0.80');
  await page.waitForFunction(() => document.querySelector('.panes')?.getAttribute('aria-busy') === 'false');
  await guess(page).waitFor();
  expect(await alert(page).count()).toBe(0);
});

it('says that the server is down, and works when it is back', async () => {
  const { page } = await studio.open();
  studio.disturb({ kind: 'cut', matching: /\/v2\// });
  await page.goto(studio.url);
  await alert(page).waitFor({ timeout: 90_000 });
  expect(await alert(page).textContent()).toMatch(
    /The server does not answer.*still running.*Your photo is still here/s,
  );
  studio.disturb(undefined);
  await alert(page).getByRole('button', { name: 'Try again' }).click();
  await guess(page).waitFor({ timeout: 60_000 });
  expect(await alert(page).count()).toBe(0);
});

it('lets go of a slow server when asked, and after 15 seconds by itself', async () => {
  const { page } = await studio.open();
  studio.disturb({ kind: 'hang', matching: /\/infer$/ });
  await page.goto(studio.url);
  await page.getByRole('button', { name: 'Cancel' }).click({ timeout: 90_000 });
  await page.waitForFunction(() => document.querySelector('.panes')?.getAttribute('aria-busy') === 'false');
  expect(await alert(page).count()).toBe(0);
  await page.getByRole('slider').focus();
  await page.keyboard.press('ArrowLeft');
  await alert(page).waitFor({ timeout: 60_000 });
  expect(await alert(page).textContent()).toMatch(/The server takes too long/);
  studio.disturb(undefined);
  await alert(page).getByRole('button', { name: 'Try again' }).click();
  await guess(page).waitFor({ timeout: 60_000 });
});

it('says so when the page has no server at all, and starts when it is there', async () => {
  const { page } = await studio.open();
  studio.disturb({ kind: 'cut', matching: /studio\.json/ });
  await page.goto(studio.url);
  await alert(page).waitFor();
  expect(await alert(page).textContent()).toMatch(/The server does not answer/);
  studio.disturb(undefined);
  await alert(page).getByRole('button', { name: 'Try again' }).click();
  await guess(page).waitFor({ timeout: 90_000 });
});

it('says so when the code of a page can not be fetched, and shows the page once it can', async () => {
  const { page, problems } = await studio.open();
  studio.disturb({ kind: 'cut', matching: /\/assets\/server-page/ });
  await page.goto(`${studio.url}#/server`);
  await alert(page).waitFor();
  expect(await alert(page).textContent()).toMatch(/The server does not answer/);
  studio.disturb(undefined);
  await alert(page).getByRole('button', { name: 'Try again' }).click();
  await page.getByRole('row', { name: /tfjs_alpha_0_80/ }).waitFor();
  expect(problems).toEqual([]);
});

it('reads a photo of 40 megapixels, and refuses one above the limit before it is decoded', async () => {
  const { page, problems } = await studio.open();
  // With little noise, so that all faces are found every time.
  await page.goto(`${studio.url}#/story?setting=faceboxes-tfjs/alpha-0.05`);
  await guess(page).waitFor({ timeout: 90_000 });
  const large = await sharp(join(SAMPLES, 'sample3.jpg')).resize(7746, 5164, { fit: 'fill' }).jpeg().toBuffer();
  await page.getByLabel('Photo file').setInputFiles({ name: 'large.jpg', mimeType: 'image/jpeg', buffer: large });
  await page.waitForFunction(
    () => document.querySelector('.pane.trusted')?.textContent?.match(/7746\s×\s5164/) != null,
    null,
    {
      timeout: 90_000,
    },
  );
  expect(await page.locator('.pane.server .boxes g').count()).toBeGreaterThanOrEqual(3);
  const bomb = await sharp({ create: { width: 15_000, height: 15_000, channels: 3, background: '#888' } })
    .png({ compressionLevel: 1 })
    .toBuffer();
  await page.getByLabel('Photo file').setInputFiles({ name: 'bomb.png', mimeType: 'image/png', buffer: bomb });
  await alert(page).waitFor({ timeout: 30_000 });
  expect(await alert(page).textContent()).toMatch(/This photo is too large.*100 megapixels/s);
  expect(problems).toEqual([]);
});

it('says that a text file is no photo whatever its name', async () => {
  const { page, problems } = await studio.open();
  await page.goto(studio.url);
  await guess(page).waitFor({ timeout: 90_000 });
  const files = page.getByLabel('Photo file');
  await files.setInputFiles({ name: 'notes.jpg', mimeType: 'image/jpeg', buffer: Buffer.from('no photo at all\n') });
  await alert(page).waitFor();
  expect(await alert(page).textContent()).toMatch(/This file can’t be read as a photo.*Choose a JPEG/s);
  await files.setInputFiles(join(SAMPLES, 'human-sample-face.jpg'));
  await page.waitForFunction(() => document.querySelectorAll('[role=alert]').length === 0);
  await guess(page).waitFor();
  expect(problems).toEqual([]);
});

it('says that the camera is gone, or was not allowed, and lets it be started again', async () => {
  const { page, context, problems } = await studio.open({ permissions: ['camera'] });
  await page.addInitScript(() => {
    const devices = navigator.mediaDevices;
    const real = devices.getUserMedia.bind(devices);
    devices.getUserMedia = async (constraints) => {
      if ((globalThis as { refuse?: boolean }).refuse) throw new DOMException('no', 'NotAllowedError');
      const stream = await real(constraints);
      (globalThis as { track?: MediaStreamTrack }).track = stream.getVideoTracks()[0]!;
      return stream;
    };
  });
  await page.goto(studio.url);
  await guess(page).waitFor({ timeout: 90_000 });
  await page.getByRole('button', { name: 'Use the camera' }).click();
  await page.getByText(/frames a second/).waitFor({ timeout: 60_000 });
  // What a browser does when a camera is unplugged.
  await page.evaluate(() => {
    const { track } = globalThis as unknown as { track: MediaStreamTrack };
    track.stop();
    track.dispatchEvent(new Event('ended'));
  });
  await alert(page).waitFor();
  expect(await alert(page).textContent()).toMatch(/The camera is gone.*Connect it and start again/s);
  await page.evaluate(() => {
    (globalThis as { refuse?: boolean }).refuse = true;
  });
  await page.getByRole('button', { name: 'Start the camera again' }).click();
  await page.getByText('The camera was not allowed').waitFor();
  await page.getByRole('button', { name: 'sample2' }).click();
  await guess(page).waitFor({ timeout: 60_000 });
  await context.close();
  expect(problems).toEqual([]);
});
