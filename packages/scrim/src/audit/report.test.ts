import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import type { AttackResult, AttackValue } from './attack.js';
import {
  type AuditedBundle,
  type AuditReport,
  decodeAuditReport,
  encodeAuditReport,
  recordableFigures,
  reportAttack,
  tradeOffs,
} from './report.js';

const value = (mean: number): AttackValue => ({
  seeds: 1,
  samples: 40,
  interval: { samples: 40, level: 0.95, high: mean + 0.1, low: mean - 0.1, estimate: mean },
  mean,
  better: 'higher',
  unit: '',
  name: 'SSIM',
});

const result = (changes: Partial<AttackResult> = {}): AttackResult => ({
  name: 'decoder T',
  description: 'A network.',
  values: [value(0.5)],
  baselines: [{ name: 'mean photo', kind: 'floor', values: [value(0.1)] }],
  samples: 40,
  trainedOn: 2000,
  live: true,
  liveReason: 'beats its floors',
  trusted: true,
  trustedReason: 'long enough',
  settings: { steps: 6000 },
  pictures: [{ id: 'a', label: 'rebuilt', image: { width: 1, height: 1, data: new Uint8Array(3) } }],
  curves: [],
  ...changes,
});

const bundle = (attacks: AttackResult[], changes: Partial<AuditedBundle> = {}): AuditedBundle => ({
  name: 'diagonal 0.8',
  hash: 'a'.repeat(64),
  model: 'faceboxes',
  transform: 'diagonal',
  alpha: 0.8,
  releasedValues: 131072,
  accuracy: { kind: 'measured', name: 'AP', value: 0.85, data: 'FDDB', sampleSize: 103 },
  cleanAccuracy: undefined,
  attacks: attacks.map((attack) => reportAttack(attack, 12)),
  notRun: [],
  proven: [],
  ...changes,
});

const report = (bundles: AuditedBundle[]): AuditReport => ({
  createdAt: '2026-01-01T00:00:00.000Z',
  createdBy: 'scrim 0.1.0',
  command: 'scrim audit',
  machine: 'none',
  data: '2,000 photos',
  bundles,
});

describe('audit report', () => {
  it('tells measured, too short and failed apart', () => {
    expect(reportAttack(result(), 1).verdict).toBe('measured');
    expect(reportAttack(result({ trusted: false }), 1).verdict).toBe('too-short');
    expect(reportAttack(result({ live: false }), 1).verdict).toBe('failed');
    expect(reportAttack(result({ live: false, trusted: false }), 1).verdict).toBe('failed');
  });

  it('keeps its fields and their order', () => {
    const text = encodeAuditReport(report([bundle([result()])]));
    const json = JSON.parse(text) as Record<string, unknown>;
    expect(Object.keys(json)).toEqual([
      'format',
      'formatVersion',
      'createdAt',
      'createdBy',
      'command',
      'machine',
      'data',
      'bundles',
    ]);
    const [first] = json.bundles as { attacks: Record<string, unknown>[] }[];
    expect(Object.keys(first!.attacks[0]!)).toEqual([
      'name',
      'description',
      'verdict',
      'live',
      'liveReason',
      'trusted',
      'trustedReason',
      'values',
      'baselines',
      'samples',
      'trainedOn',
      'seconds',
      'settings',
      'curves',
    ]);
    expect(Object.keys((first!.attacks[0]!.values as object[])[0]!)).toEqual([
      'name',
      'unit',
      'better',
      'mean',
      'interval',
      'samples',
      'seeds',
    ]);
    expect(decodeAuditReport(text)).toEqual(JSON.parse(JSON.stringify(report([bundle([result()])]))));
  });

  it('refuses what is no report of this version', () => {
    const codes = ['{', '{}', '{"format":"scrim-audit","formatVersion":2,"bundles":[]}'].map((text) => {
      try {
        decodeAuditReport(text);
        return 'read';
      } catch (error) {
        return error instanceof ScrimError ? error.code : 'other';
      }
    });
    expect(codes).toEqual(['INVALID_DATA', 'INVALID_DATA', 'INVALID_DATA']);
  });

  it('records only what was measured', () => {
    const audited = bundle([
      result(),
      result({ name: 'short', trusted: false }),
      result({ name: 'dead', live: false }),
    ]);
    const figures = recordableFigures(audited, report([audited]));
    expect(figures.map(({ name }) => name)).toEqual(['attack decoder T: SSIM']);
    expect(figures[0]).toMatchObject({ kind: 'measured', value: 0.5, sampleSize: 40, runs: 1 });
  });

  it('pairs accuracy with success where both are known', () => {
    const other = bundle([result({ values: [value(0.2)] })], { name: 'bottleneck', transform: 'bottleneck' });
    const [found, ...more] = tradeOffs([bundle([result()]), other, bundle([result()], { accuracy: undefined })]);
    expect(more).toEqual([]);
    expect(found!.points.map(({ transform, accuracy, success }) => [transform, accuracy, success])).toEqual([
      ['diagonal', 0.85, 0.5],
      ['bottleneck', 0.85, 0.2],
    ]);
  });
});
