// A clinic's table, made up: twelve columns about a person, and whether the person falls ill within five years.
//
// Illness follows from age, weight, blood pressure, glucose and smoking. Income, schooling, children and where somebody
// lives hang together with these and with each other, but the answer does not need them.
import { createFitRandom } from 'scrim/noise';

export const COLUMNS = [
  'age',
  'bmi',
  'blood_pressure',
  'glucose',
  'smokes',
  'sex',
  'income',
  'schooling',
  'children',
  'commute_km',
  'density',
  'rooms',
];

/** Columns that a person would rather not tell, and that the answer does not need. */
export const PRIVATE = ['sex', 'income', 'schooling', 'children', 'commute_km', 'density', 'rooms'];

/** `count` people: standardised rows of 12 numbers, and 0 or 1. */
export function makePeople(count, seed) {
  const random = createFitRandom(seed);
  const noise = new Float32Array(16);
  const rows = [];
  const labels = [];
  for (let n = 0; n < count; n++) {
    random.normal(noise);
    const age = noise[0];
    const schooling = noise[1];
    const income = 0.6 * schooling + 0.2 * age + 0.75 * noise[2];
    const bmi = 0.3 * age - 0.2 * income + 0.9 * noise[3];
    const smokes = -0.4 * schooling + noise[4] > 0.5 ? 1.5 : -0.7;
    const sex = noise[5] > 0 ? 1 : -1;
    const pressure = 0.5 * age + 0.4 * bmi + 0.7 * noise[6];
    const glucose = 0.5 * bmi + 0.2 * age + 0.8 * noise[7];
    const children = 0.4 * age - 0.2 * schooling + 0.9 * noise[8];
    const density = noise[9];
    const commute = -0.5 * density + 0.3 * income + 0.8 * noise[10];
    const rooms = 0.5 * income + 0.4 * children - 0.4 * density + 0.6 * noise[11];
    const risk = 1.1 * age + 0.9 * pressure + 1.0 * glucose + 0.8 * smokes + 0.6 * Math.max(0, bmi) - 1.2;
    rows.push(
      Float32Array.of(age, bmi, pressure, glucose, smokes, sex, income, schooling, children, commute, density, rooms),
    );
    labels.push(1 / (1 + Math.exp(-2 * risk)) > random.uniform() ? 1 : 0);
  }
  return { rows, labels };
}
