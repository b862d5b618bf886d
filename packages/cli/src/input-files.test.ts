import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { float32 } from 'scrim';
import { afterAll, describe, expect, it } from 'vitest';
import { type InputShape, listInputFiles, parseTable, readInputs } from './input-files.js';
import { decodeNpy, encodeNpy } from './npy.js';
import { decodeWav } from './wav.js';

const folder = mkdtempSync(join(tmpdir(), 'scrim-inputs-'));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

async function read(path: string, input: InputShape): Promise<{ shape: readonly number[]; data: number[] }[]> {
  const rows: { shape: readonly number[]; data: number[] }[] = [];
  for await (const { tensor } of readInputs([path], input)) {
    rows.push({ shape: tensor.shape, data: Array.from(tensor.data) });
  }
  return rows;
}

/** A .wav file of 16-bit samples. */
function wav(samples: readonly number[], { channels = 1, code = 1, bits = 16 } = {}): Uint8Array {
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const tag = (at: number, text: string): void => {
    for (let i = 0; i < 4; i++) data.setUint8(at + i, text.charCodeAt(i));
  };
  tag(0, 'RIFF');
  tag(8, 'WAVE');
  tag(12, 'fmt ');
  data.setUint32(16, 16, true);
  data.setUint16(20, code, true);
  data.setUint16(22, channels, true);
  data.setUint32(24, 16000, true);
  data.setUint16(34, bits, true);
  tag(36, 'data');
  data.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => {
    data.setInt16(44 + 2 * i, sample, true);
  });
  return new Uint8Array(data.buffer);
}

const VECTOR: InputShape = { name: 'x', shape: ['N', 3] };

describe('arrays', () => {
  it('are read from a Buffer that starts anywhere in its memory', () => {
    const bytes = encodeNpy(float32([2, 2], [1, 2, 3, 4]));
    const memory = Buffer.concat([Buffer.from('something before'), bytes]);
    expect(Array.from(decodeNpy(memory.subarray(16)).data)).toEqual([1, 2, 3, 4]);
  });

  it('give a row for each place of the first axis, or one row without it', async () => {
    const many = write('many.npy', encodeNpy(float32([2, 3], [1, 2, 3, 4, 5, 6])));
    expect(await read(many, VECTOR)).toEqual([
      { shape: [1, 3], data: [1, 2, 3] },
      { shape: [1, 3], data: [4, 5, 6] },
    ]);
    const one = write('one.npy', encodeNpy(float32([3], [7, 8, 9])));
    expect(await read(one, VECTOR)).toEqual([{ shape: [1, 3], data: [7, 8, 9] }]);
    await expect(read(one, { name: 'x', shape: ['N', 4] })).rejects.toThrow(/one\.npy.*\[3\].*'x' is \[N, 4\]/);
    await expect(read(one, { name: 'x', shape: ['N', 1, 1, 3] })).rejects.toThrow(/one\.npy/);
  });
});

describe('tables', () => {
  it('have a row a line, with or without names', async () => {
    const expected = [
      { shape: [1, 3], data: [1, 2, 3] },
      { shape: [1, 3], data: [4, 5, 6] },
    ];
    expect(await read(write('a.csv', 'a,b,c\n1,2,3\n4,5,6\n'), VECTOR)).toEqual(expected);
    expect(await read(write('b.csv', '1;2;3\r\n\r\n4;5;6'), VECTOR)).toEqual(expected);
    const [row] = await read(write('c.csv', '1,2,3,4'), { name: 'x', shape: ['N', 1, 2, 2] });
    expect(row?.shape).toEqual([1, 1, 2, 2]);
  });

  it('say where they are wrong, and not what stands there', async () => {
    expect(() => parseTable('1,2\n3,secret')).toThrow('line 2, column 2 is no number');
    expect(() => parseTable('a,b\n1,2\n3')).toThrow('line 3 has 1 columns, the lines before it 2');
    await expect(read(write('d.csv', 'a,b'), VECTOR)).rejects.toThrow(/d\.csv.*no row/);
    await expect(read(write('e.csv', '1,2'), VECTOR)).rejects.toThrow(/e\.csv/);
  });
});

describe('recordings', () => {
  it('are cut into windows of the model', async () => {
    const file = write('a.wav', wav([16384, -16384, 8192, 0, 1, 2, 3]));
    const rows = await read(file, { name: 'x', shape: ['N', 3] });
    expect(rows.map(({ data }) => data)).toEqual([
      [0.5, -0.5, 0.25],
      [0, 1 / 32768, 2 / 32768],
    ]);
    expect((await read(file, { name: 'x', shape: ['N', 2, 'T'] }))[0]?.shape).toEqual([1, 2, 3]);
    await expect(read(file, { name: 'x', shape: ['N', 8] })).rejects.toThrow(/7 samples, a window of the model 8/);
    await expect(read(file, { name: 'x', shape: ['N', 'a', 'b'] })).rejects.toThrow(/scrim model bind/);
  });

  it('are mixed to one channel, and refused where they are compressed', () => {
    expect(Array.from(decodeWav(wav([16384, 0, -16384, 16384], { channels: 2 })).samples)).toEqual([0.25, 0]);
    expect(() => decodeWav(wav([1], { code: 85 }))).toThrow(/format 85/);
    expect(() => decodeWav(new TextEncoder().encode('this is no recording'))).toThrow(/does not begin as one/);
    for (let length = 0; length < 44; length++) {
      expect(() => decodeWav(wav([1, 2]).subarray(0, length))).toThrow(/the \.wav file/);
    }
  });
});

describe('listInputFiles', () => {
  it('names what is missing or not read', async () => {
    await expect(listInputFiles([join(folder, 'none')])).rejects.toThrow(/none/);
    await expect(listInputFiles([write('x.txt', '')])).rejects.toThrow(/x\.txt.*\.npy, \.csv or \.wav/);
    expect((await listInputFiles([folder])).length).toBeGreaterThan(3);
  });
});
