// Made-up recordings: voices and what is no voice, a second at a time, 16,000 samples a second.
//
// A voice is a train of glottal pulses through four resonances (Klatt 1980) that glide from vowel to vowel, with hisses
// between them. Each speaker has a pitch and a length of the vocal tract; what is said is the vowels. Between voices there is
// noise, hum, clicks or nothing.
import { createFitRandom } from 'scrim/noise';

export const RATE = 16_000;

/** First two resonances of vowels in Hz, after Peterson & Barney (1952). */
const VOWELS = [
  [270, 2290],
  [390, 1990],
  [530, 1840],
  [660, 1720],
  [730, 1090],
  [570, 840],
  [440, 1020],
  [300, 870],
];

/** What an attacker would like to know of a second of speech. */
export const ATTRIBUTES = ['pitch', 'vocal tract', 'first resonance', 'second resonance'];

/**
 * One second: `length` samples, whether each stretch of `frame` samples (after the first `lead`) is mostly voice, and, if
 * there is a voice, its attributes.
 */
function makeSecond(random, length, lead, frame) {
  const samples = new Float32Array(length);
  const voiced = new Float32Array(length);
  const noise = new Float32Array(length);
  random.normal(noise);
  const speaks = random.uniform() < 0.75;
  const background = random.uniform();
  const loudness = background < 0.5 ? 0.0005 : 0.002 + 0.006 * random.uniform();
  let brown = 0;
  const hum = 2 * Math.PI * (background < 0.75 ? 50 : 120 + 600 * random.uniform());
  for (let i = 0; i < length; i++) {
    brown = 0.95 * brown + 0.3 * noise[i];
    samples[i] = loudness * (background < 0.75 ? brown : noise[i] * 0.3 + 2 * Math.sin((hum * i) / RATE));
  }
  let attributes;
  if (speaks) {
    const pitch = 90 + 150 * random.uniform();
    const tract = 0.85 + 0.35 * random.uniform();
    const start = Math.floor(random.uniform() * 0.5 * length);
    const end = Math.min(length, start + Math.floor((0.35 + 0.6 * random.uniform()) * length));
    const vowels = Array.from({ length: 5 }, () => VOWELS[random.integer(VOWELS.length)]);
    const states = Array.from({ length: 4 }, () => [0, 0]);
    const mean = [0, 0];
    let phase = 0;
    for (let i = start; i < end; i++) {
      const place = ((i - start) / (end - start)) * (vowels.length - 1);
      const [from, to] = [vowels[Math.floor(place)], vowels[Math.min(vowels.length - 1, Math.floor(place) + 1)]];
      const share = place % 1;
      const formants = [0, 1].map((k) => ((1 - share) * from[k] + share * to[k]) * tract);
      mean[0] += formants[0] / (end - start);
      mean[1] += formants[1] / (end - start);
      const hiss = share > 0.88 && Math.floor(place) % 2 === 1;
      const now = pitch * (1 + 0.12 * Math.sin((2 * Math.PI * 2.5 * i) / RATE) - (0.15 * (i - start)) / (end - start));
      phase += now / RATE;
      if (phase >= 1) phase -= 1;
      // A glottal wave's slope: rises, then falls back fast.
      const pulse = phase < 0.6 ? Math.sin((Math.PI * phase) / 0.6) ** 2 - 0.35 : -0.35;
      let sound = hiss ? 0.25 * noise[i] : pulse + 0.02 * noise[i];
      const bands = [
        [formants[0], 70],
        [formants[1], 90],
        [2600 * tract, 130],
        [3500 * tract, 200],
      ];
      if (!hiss) {
        let sum = 0;
        bands.forEach(([frequency, width], k) => {
          const radius = Math.exp((-Math.PI * width) / RATE);
          const state = states[k];
          const out =
            (1 - radius) * sound +
            2 * radius * Math.cos((2 * Math.PI * frequency) / RATE) * state[0] -
            radius ** 2 * state[1];
          state[1] = state[0];
          state[0] = out;
          sum += out * [1, 0.8, 0.4, 0.25][k];
        });
        sound = sum;
      }
      const syllable = 0.35 + 0.65 * Math.sin(Math.PI * Math.min(0.999, share + 0.1)) ** 2;
      const edge = Math.min(1, (i - start) / 400, (end - i) / 400);
      samples[i] += 0.6 * sound * syllable * edge;
      voiced[i] = 1;
    }
    attributes = Float32Array.of(pitch, tract, ...mean);
  }
  const labels = [];
  for (let at = lead; at + frame <= length; at += frame) {
    let sum = 0;
    for (let i = at; i < at + frame; i++) sum += voiced[i];
    labels.push(sum > frame / 2 ? 1 : 0);
  }
  return { samples, labels, attributes };
}

/** `count` seconds of `length` samples each. */
export function makeSeconds(count, { length, lead, frame, seed }) {
  const random = createFitRandom(seed);
  return Array.from({ length: count }, () => makeSecond(random, length, lead, frame));
}

/** 16-bit samples as a .wav file. */
export function encodeWav(parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const bytes = Buffer.alloc(44 + 2 * length);
  bytes.write('RIFF', 0);
  bytes.writeUInt32LE(36 + 2 * length, 4);
  bytes.write('WAVEfmt ', 8);
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(1, 20);
  bytes.writeUInt16LE(1, 22);
  bytes.writeUInt32LE(RATE, 24);
  bytes.writeUInt32LE(2 * RATE, 28);
  bytes.writeUInt16LE(2, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write('data', 36);
  bytes.writeUInt32LE(2 * length, 40);
  let at = 44;
  for (const part of parts) {
    for (const sample of part) {
      bytes.writeInt16LE(Math.max(-32768, Math.min(32767, Math.round(sample * 32768))), at);
      at += 2;
    }
  }
  return bytes;
}
