/**
 * What a classifier's output says: models end in probabilities or in logits, of classes that exclude each other (softmax) or
 * of ones that stand for themselves (sigmoid). ONNX does not say which, so the clean model's own answers do.
 */

/** How an output [N, …, classes] is to be read. */
export type ClassOutput = 'softmax' | 'softmax-logits' | 'sigmoid' | 'sigmoid-logits';

/** How far a row of probabilities may be from 1. */
const SUM_TOLERANCE = 0.01;

/**
 * Reads it off answers of the clean model: what lies in [0, 1] are probabilities, else logits; rows that add up to 1 are of
 * classes that exclude each other, as are logits of two and more classes.
 * @param values answers, each with a multiple of `classes` elements
 */
export function classOutputOf(values: readonly ArrayLike<number>[], classes: number): ClassOutput {
  let sums = classes > 1;
  for (const answer of values) {
    for (let row = 0; row < answer.length; row += classes) {
      let sum = 0;
      for (let i = row; i < row + classes; i++) {
        const value = answer[i] as number;
        if (value < 0 || value > 1) return classes > 1 ? 'softmax-logits' : 'sigmoid-logits';
        sum += value;
      }
      if (Math.abs(sum - 1) > SUM_TOLERANCE) sums = false;
    }
  }
  return sums ? 'softmax' : 'sigmoid';
}

/** The probabilities an answer stands for, in an array of its own. */
export function toProbabilities(answer: ArrayLike<number>, classes: number, output: ClassOutput): Float32Array {
  if (output === 'softmax' || output === 'sigmoid') return Float32Array.from(answer);
  if (output === 'sigmoid-logits') return Float32Array.from(answer, (logit) => 1 / (1 + Math.exp(-logit)));
  const result = new Float32Array(answer.length);
  for (let row = 0; row < answer.length; row += classes) {
    let most = Number.NEGATIVE_INFINITY;
    for (let i = row; i < row + classes; i++) most = Math.max(most, answer[i] as number);
    let sum = 0;
    for (let i = row; i < row + classes; i++) sum += Math.exp((answer[i] as number) - most);
    for (let i = row; i < row + classes; i++) result[i] = Math.exp((answer[i] as number) - most) / sum;
  }
  return result;
}

/** The classes an answer decides for: the most likely of each row, or 1 for each that is more likely than not. */
export function decideClasses(answer: ArrayLike<number>, classes: number, output: ClassOutput): number[] {
  if (output === 'sigmoid' || output === 'sigmoid-logits') {
    const threshold = output === 'sigmoid' ? 0.5 : 0;
    return Array.from(answer, (value) => (value > threshold ? 1 : 0));
  }
  const decided: number[] = [];
  for (let row = 0; row < answer.length; row += classes) {
    let best = row;
    for (let i = row + 1; i < row + classes; i++) if ((answer[i] as number) > (answer[best] as number)) best = i;
    decided.push(best - row);
  }
  return decided;
}
