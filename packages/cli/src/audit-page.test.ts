import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AttackValue, AuditedBundle, AuditReport, ReportedAttack } from 'scrim/audit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderAuditPage } from './audit-page.js';
import { openPartStore } from './audit-parts.js';
import { readLabels, splitPhotos } from './audit-samples.js';

const value = (mean: number): AttackValue => ({
  name: 'SSIM',
  unit: '',
  better: 'higher',
  mean,
  interval: { estimate: mean, low: mean - 0.05, high: mean + 0.05, level: 0.95, samples: 40 },
  samples: 40,
  seeds: 1,
});

const attack = (name: string, changes: Partial<ReportedAttack> = {}): ReportedAttack => ({
  name,
  description: 'Rebuilds <photos> & faces.',
  verdict: 'measured',
  live: true,
  liveReason: 'beats its floors',
  trusted: true,
  trustedReason: 'long enough',
  values: [value(0.5)],
  baselines: [
    { name: 'mean photo', kind: 'floor', values: [value(0.1)] },
    { name: 'clean activation', kind: 'ceiling', values: [value(0.8)] },
  ],
  samples: 40,
  trainedOn: 2000,
  seconds: 10,
  settings: {},
  curves: [
    {
      name: 'loss',
      xLabel: 'step',
      yLabel: 'loss',
      points: [
        { x: 0, y: 1 },
        { x: 10, y: 0.5 },
      ],
    },
  ],
  ...changes,
});

const bundle = (name: string, transform: string, attacks: readonly ReportedAttack[]): AuditedBundle => ({
  name,
  hash: 'ab'.repeat(32),
  model: 'faceboxes',
  transform,
  alpha: 0.8,
  releasedValues: 8192,
  accuracy: { kind: 'measured', name: 'average precision', value: 0.9, data: 'FDDB', sampleSize: 103 },
  cleanAccuracy: { kind: 'measured', name: 'average precision', value: 0.94, data: 'FDDB', sampleSize: 103 },
  attacks,
  notRun: [{ attack: 'identity', reason: '1 people' }],
  proven: [
    { kind: 'proven', name: 'mutual information', value: 1667, unit: 'nats', assumptions: ['Gaussian <bound>'] },
  ],
});

const report = (bundles: AuditedBundle[]): AuditReport => ({
  createdAt: '2026-01-02T00:00:00.000Z',
  createdBy: 'scrim 0.1.0',
  command: 'scrim audit "a"',
  machine: 'test',
  data: '2,000 photos',
  bundles,
});

describe('renderAuditPage', () => {
  const dead = attack('optimisation', { live: false, verdict: 'failed', liveReason: 'does not beat its floor' });
  const short = attack('averaging', { trusted: false, verdict: 'too-short', trustedReason: '12 steps, below 5000' });
  const page = renderAuditPage(
    report([
      bundle('diagonal', 'diagonal', [attack('decoder T'), dead, short]),
      bundle('small', 'bottleneck', [attack('decoder T')]),
    ]),
    new Map([
      [
        'diagonal',
        [{ title: 'Photos', pictures: [{ id: 'a "b"', label: 'original', jpeg: 'AAAA', width: 4, height: 4 }] }],
      ],
    ]),
  );

  it('asks nobody for anything and runs nothing', () => {
    expect(page).not.toMatch(/<script|<link|@import|url\((?!#)|(?:src|href)="(?!data:|#)/);
    expect(page).toContain("default-src 'none'");
  });

  it('marks attacks that failed or ran too short, with the reason', () => {
    expect(page).toMatch(/<span class="badge failed">failed attack<\/span>/);
    expect(page).toContain('Does not beat its floor.');
    expect(page).toMatch(/<span class="badge too-short">too short to trust<\/span>/);
    expect(page).toContain('12 steps, below 5000.');
    expect(page).toContain('identity: 1 people');
  });

  it('keeps measured and proven apart and escapes what it is given', () => {
    const [, measured = '', proven = ''] =
      /<h3>Measured<\/h3>([\s\S]*?)<h3>Proven<\/h3>([\s\S]*?)<\/section>/.exec(page) ?? [];
    expect(measured).toContain('decoder T');
    expect(measured).not.toContain('nats');
    expect(proven).toContain('1,667 nats');
    expect(proven).not.toContain('decoder T</th>');
    expect(page).toContain('Rebuilds &#60;photos&#62; &#38; faces.');
    expect(page).toContain('alt="a &#34;b&#34;: original"');
    expect(page).not.toContain('<bound>');
  });

  it("draws accuracy against success in the page's own colour, with a table beside it", () => {
    expect(page).toMatch(/<svg[\s\S]*currentColor/);
    expect(page).not.toContain('#010203');
    expect(page).toContain('The same as a table');
    const alone = renderAuditPage(report([bundle('diagonal', 'diagonal', [attack('decoder T')])]), new Map());
    expect(alone).toContain('two bundles or more');
  });

  it('has every heading cell scoped and every picture described', () => {
    for (const [cell] of page.matchAll(/<th[ >][^>]*>?/g)) expect(cell).toMatch(/scope=/);
    for (const [image] of page.matchAll(/<img[^>]*>/g)) expect(image).toMatch(/alt="[^"]+"/);
  });
});

describe('parts, labels and splits of an audit', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'scrim-audit-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('makes a part once, keeps its models, and makes it again when what it depends on changes', async () => {
    const store = openPartStore(join(folder, 'parts'));
    let made = 0;
    const make = async () => {
      made++;
      return {
        attacks: [attack('decoder T')],
        groups: [],
        notes: { n: made },
        models: new Map([['d', Uint8Array.of(1, 2)]]),
      };
    };
    expect((await store.once('decoder', { steps: 1 }, make)).found).toBe(false);
    const again = await openPartStore(join(folder, 'parts')).once('decoder', { steps: 1 }, make);
    expect([again.found, made, again.attacks[0]?.name, [...(again.models.get('d') ?? [])]]).toEqual([
      true,
      1,
      'decoder T',
      [1, 2],
    ]);
    await store.once('decoder', { steps: 2 }, make);
    expect(made).toBe(2);
    const failing = store.once('other', {}, async () => {
      throw new Error('stopped');
    });
    await expect(failing).rejects.toThrowError('stopped');
    expect((await readdir(join(folder, 'parts'))).some((name) => name.startsWith('other'))).toBe(false);
  });

  it('reads labels by path and by name, and names the line that is wrong', async () => {
    const file = join(folder, 'labels.csv');
    await writeFile(
      file,
      'file,glasses,"hat, or cap"\r\nx/one.jpg,yes,"no ""really"""\r\ntwo.jpg,,yes\r\n\r\ny/two.jpg,no,\r\n',
    );
    const find = await readLabels(file);
    expect(find(join(folder, 'x/one.jpg'))).toEqual({ glasses: 'yes', 'hat, or cap': 'no "really"' });
    expect(find('/elsewhere/one.jpg')).toEqual({ glasses: 'yes', 'hat, or cap': 'no "really"' });
    expect(find(join(folder, 'two.jpg'))).toEqual({ 'hat, or cap': 'yes' });
    // Two files have this name, so the name alone says nothing.
    expect(find('/elsewhere/two.jpg')).toBeUndefined();
    await writeFile(file, 'file,glasses\na.jpg,yes\nb.jpg\n');
    await expect(readLabels(file)).rejects.toThrowError(/line 3: 1 fields, expected 2/);
    await writeFile(file, 'photo,glasses\n');
    await expect(readLabels(file)).rejects.toThrowError(/expected file,<attribute>/);
  });

  it('tries attackers on photos they are not trained on, the same ones for a seed', () => {
    const photos = Array.from({ length: 50 }, (_, i) => ({ path: `/${i}.jpg`, id: `${i}` }));
    const { train, test } = splitPhotos(photos, 100, 'a');
    expect([train.length, test.length]).toEqual([40, 10]);
    expect(new Set([...train, ...test].map(({ id }) => id)).size).toBe(50);
    expect(splitPhotos(photos, 100, 'a')).toEqual({ train, test });
    expect(splitPhotos(photos, 4, 'b').test).toHaveLength(4);
    expect(() => splitPhotos(photos.slice(0, 9), 4, 'b')).toThrowError(/9 photos/);
  });
});
