import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import { formatDetections, parseDetections, parseEllipseList, parseFoldList } from './fddb-format.js';

const ellipses = [
  '2002/08/11/big/img_1',
  '2',
  '20 10.5 0 100 50  1',
  '3.5e1 20 -1.570796 60.25 40  1',
  '2002/08/11/big/img_2',
  '0',
  '',
].join('\n');

describe('parseEllipseList', () => {
  it('reads names, ellipses and the boxes around them', () => {
    const images = parseEllipseList(ellipses, 'list.txt');
    expect(images.map(({ name, faces }) => [name, faces.length])).toEqual([
      ['2002/08/11/big/img_1', 2],
      ['2002/08/11/big/img_2', 0],
    ]);
    expect(images[0]!.faces[0]).toEqual({
      ellipse: { majorRadius: 20, minorRadius: 10.5, angle: 0, centerX: 100, centerY: 50 },
      box: { x: 80, y: 39.5, width: 40, height: 21 },
    });
    expect(images[0]!.faces[1]!.ellipse.majorRadius).toBe(35);
    expect(images[0]!.faces[1]!.box.height).toBeCloseTo(70, 5);
  });

  it('reads Windows line ends and a last line without one', () => {
    expect(parseEllipseList(ellipses.replaceAll('\n', '\r\n'), 'a')).toEqual(parseEllipseList(ellipses.trimEnd(), 'a'));
  });

  it('reads an empty file as no images', () => {
    expect(parseEllipseList('', 'a')).toEqual([]);
    expect(parseEllipseList(' \n\n', 'a')).toEqual([]);
  });

  it.each([
    ['a\nx\n', /^list\.txt:2: expected the number of faces/],
    ['a\n-1\n', /^list\.txt:2: expected the number of faces/],
    ['a\n1.0\n1 1 0 1 1 1\n', /^list\.txt:2: expected the number of faces/],
    ['a\n2\n1 1 0 1 1 1\n', /^list\.txt:2: announces 2 faces, but only 1 lines follow/],
    ['a\n999999999\n', /^list\.txt:2: announces 999999999 faces/],
    ['a', /^list\.txt:2: the file ends where the number of faces should stand/],
    ['a\n1\n1 1 0 1 1\n', /^list\.txt:3: face 1 of 1: has 5 fields, expected 6/],
    ['a\n1\n1 1 0 1 1 1 1\n', /^list\.txt:3: face 1 of 1: has 7 fields/],
    ['a\n1\n1 1 zero 1 1 1\n', /^list\.txt:3: face 1 of 1: angle is not a number/],
    ['a\n1\n1 1 NaN 1 1 1\n', /angle is not a number/],
    ['a\n1\n1 1 0x1 1 1 1\n', /angle is not a number/],
    ['a\n1\n1 1 0 1e999 1 1\n', /cx is too large/],
    ['a\n1\n0 1 0 1 1 1\n', /a radius is not above 0/],
    ['a\n1\n1 -1 0 1 1 1\n', /a radius is not above 0/],
    ['a\n1\n1 1 0 1 1 0\n', /the last field is not 1/],
    ['a\n0\n\nb\n0\n', /^list\.txt:3: expected an image name, found a blank line/],
    ['a\n0\nb\n0\na\n0\n', /^list\.txt:5: image a stands on line 1 already/],
    ['a\n1\n1 1 0 1 1 1\n2 2 0 2 2 1\n', /^list\.txt:4: .*is the count above too small/],
    ['../etc/passwd\n0\n', /not a plain relative path/],
    ['/etc/passwd\n0\n', /not a plain relative path/],
    ['a//b\n0\n', /not a plain relative path/],
    ['a\\b\n0\n', /backslash/],
    ['a\u0000b\n0\n', /control character/],
    [`${'a'.repeat(2000)}\n0\n`, /2000 characters/],
  ])('refuses %j', (text, message) => {
    try {
      parseEllipseList(text, 'list.txt');
      expect.unreachable('it was read');
    } catch (error) {
      expect(error).toBeInstanceOf(ScrimError);
      expect(error).toMatchObject({ code: 'INVALID_DATA', message: expect.stringMatching(message) });
      expect((error as ScrimError).details).toMatchObject({ file: 'list.txt', line: expect.any(Number) });
    }
  });
});

describe('parseFoldList', () => {
  it('reads one name a line', () => {
    expect(parseFoldList('2002/a\n2003/b c\n', 'f')).toEqual(['2002/a', '2003/b c']);
  });

  it('refuses a name that comes twice', () => {
    expect(() => parseFoldList('a\nb\na\n', 'f.txt')).toThrow(/^f\.txt:3: image a stands on line 1 already/);
  });
});

describe('parseDetections', () => {
  it('reads boxes and scores', () => {
    expect(parseDetections('a/b\n1\n195 68.5 148 203 0.99\nc\n0\n', 'd')).toEqual([
      { name: 'a/b', detections: [{ x: 195, y: 68.5, width: 148, height: 203, score: 0.99 }] },
      { name: 'c', detections: [] },
    ]);
  });

  it.each([
    ['a\n1\n1 1 1 1\n', /^d\.txt:3: detection 1 of 1: has 4 fields, expected 5 \(x, y, width, height, score\)/],
    ['a\n1\n1 1 -1 1 0.5\n', /width or height is below 0/],
    ['a\n1\n1 1 1 1 inf\n', /score is not a number/],
  ])('refuses %j', (text, message) => {
    expect(() => parseDetections(text, 'd.txt')).toThrow(message);
  });
});

describe('the readers', () => {
  const readers = [parseFoldList, parseEllipseList, parseDetections] as const;

  it('give a result or INVALID_DATA for any text', () => {
    const token = fc.constantFrom(
      'a',
      'a/b',
      '1',
      '2',
      '0',
      '-1',
      '1e400',
      ' ',
      '\n',
      '\r\n',
      '..',
      '1 1 0 1 1 1',
      'é',
    );
    const text = fc.oneof(
      fc.string(),
      fc.string({ unit: 'binary' }),
      fc.array(token).map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(text, (input) => {
        for (const read of readers) {
          try {
            read(input, 'fuzz.txt');
          } catch (error) {
            expect(error).toMatchObject({ name: 'ScrimError', code: 'INVALID_DATA' });
          }
        }
      }),
      { seed: 8, numRuns: 2000 },
    );
  });

  it('give a result or INVALID_DATA for a list with a few characters changed', () => {
    const edits = fc.array(
      fc.tuple(fc.nat({ max: ellipses.length - 1 }), fc.constantFrom('', ' ', '\n', '9', 'x', '-')),
      {
        minLength: 1,
        maxLength: 3,
      },
    );
    fc.assert(
      fc.property(edits, (changes) => {
        const characters = [...ellipses];
        for (const [place, replacement] of changes) characters[place] = replacement;
        try {
          for (const { faces } of parseEllipseList(characters.join(''), 'fuzz.txt')) {
            for (const { box } of faces) expect(Object.values(box).every(Number.isFinite)).toBe(true);
          }
        } catch (error) {
          expect(error).toMatchObject({ name: 'ScrimError', code: 'INVALID_DATA' });
        }
      }),
      { seed: 9, numRuns: 2000 },
    );
  });
});

describe('formatDetections', () => {
  it('is undone by parseDetections, to the last bit', () => {
    const number = fc.double({ noNaN: true, noDefaultInfinity: true }).map((v) => v + 0);
    const size = number.map(Math.abs);
    const detection = fc.record({ x: number, y: number, width: size, height: size, score: number });
    const segment = fc.stringMatching(/^[A-Za-z_][\w-]{0,8}$/);
    const name = fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'));
    const image = fc.record({ name, detections: fc.array(detection, { maxLength: 4 }) });
    fc.assert(
      fc.property(fc.uniqueArray(image, { selector: (i) => i.name, maxLength: 5 }), (images) => {
        expect(parseDetections(formatDetections(images), 'd')).toEqual(images);
      }),
      { seed: 10 },
    );
  });

  it('refuses what the format can not hold', () => {
    const box = { x: 0, y: 0, width: 1, height: 1 };
    expect(() => formatDetections([{ name: '../a', detections: [] }])).toThrow(/plain relative path/);
    expect(() => formatDetections([{ name: 'a\nb', detections: [] }])).toThrow(/control character/);
    expect(() => formatDetections([{ name: 'a', detections: [{ ...box, score: Number.NaN }] }])).toThrow(/not finite/);
    expect(() => formatDetections([{ name: 'a', detections: [{ ...box, width: -1, score: 1 }] }])).toThrow(/is no box/);
  });
});
