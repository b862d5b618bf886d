/**
 * Microsoft's WAVE files (RIFF, "fmt " and "data" chunks): PCM of 8, 16, 24 and 32 bits and 32-bit floats, any number of
 * channels, mixed to one by their mean. Compressed forms are refused by the number of their format.
 */
import { ScrimError } from 'scrim';

/** A recording. */
export interface Recording {
  /** Samples per second. */
  readonly sampleRate: number;
  /** One channel, in [−1, 1]. */
  readonly samples: Float32Array;
}

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;
const MAX_SAMPLES = 2 ** 30;

/** Reads a recording. @throws ScrimError INVALID_DATA naming what is wrong, UNSUPPORTED for a compressed form */
export function decodeWav(bytes: Uint8Array): Recording {
  const fail = (message: string): never => {
    throw new ScrimError('INVALID_DATA', `the .wav file ${message}`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const tag = (at: number): string => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (bytes.length < 12 || tag(0) !== 'RIFF' || tag(8) !== 'WAVE') fail('does not begin as one');
  let format: { code: number; channels: number; sampleRate: number; bits: number } | undefined;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    const start = at + 8;
    if (tag(at) === 'fmt ') {
      if (size < 16 || start + size > bytes.length) fail('is cut off in its format');
      const code = view.getUint16(start, true);
      format = {
        code: code === EXTENSIBLE && size >= 26 ? view.getUint16(start + 24, true) : code,
        channels: view.getUint16(start + 2, true),
        sampleRate: view.getUint32(start + 4, true),
        bits: view.getUint16(start + 14, true),
      };
    } else if (tag(at) === 'data') {
      if (!format) return fail('has data before its format');
      // Programs that stream leave the size open; what is there counts.
      return { sampleRate: format.sampleRate, samples: mix(view, start, Math.min(size, bytes.length - start), format) };
    }
    at = start + size + (size & 1);
  }
  return fail('has no data');
}

function mix(
  view: DataView,
  start: number,
  length: number,
  { code, channels, bits }: { code: number; channels: number; bits: number },
): Float32Array {
  const read = readerOf(code, bits);
  if (!read || channels === 0) {
    throw new ScrimError(
      'UNSUPPORTED',
      `the .wav file has format ${code} with ${bits} bits and ${channels} channels, expected PCM or 32-bit floats`,
    );
  }
  const width = bits / 8;
  const count = Math.floor(length / (width * channels));
  if (count > MAX_SAMPLES) throw new ScrimError('LIMIT_EXCEEDED', `the .wav file has ${count} samples`);
  const samples = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += read(view, start + (i * channels + c) * width);
    samples[i] = sum / channels;
  }
  return samples;
}

function readerOf(code: number, bits: number): ((view: DataView, at: number) => number) | undefined {
  if (code === FLOAT && bits === 32) return (view, at) => view.getFloat32(at, true);
  if (code !== PCM) return undefined;
  switch (bits) {
    case 8:
      return (view, at) => (view.getUint8(at) - 128) / 128;
    case 16:
      return (view, at) => view.getInt16(at, true) / 2 ** 15;
    case 24:
      return (view, at) => (view.getUint8(at) | (view.getInt16(at + 1, true) << 8)) / 2 ** 23;
    case 32:
      return (view, at) => view.getInt32(at, true) / 2 ** 31;
    default:
      return undefined;
  }
}
