/** Computes sizes that shape inference wrote as text, for tests that compare them with real sizes. */

/** Reads a computed size: sums of products of integers, symbols and floor(sum/k). */
export function evaluateDimension(expression: string, symbols: ReadonlyMap<string, number>): number {
  let at = 0;
  const eat = (token: string): boolean => {
    if (!expression.startsWith(token, at)) return false;
    at += token.length;
    return true;
  };
  const need = (token: string): void => {
    if (!eat(token)) throw new Error(`expected '${token}' at ${at} of '${expression}'`);
  };
  const atom = (): number => {
    if (eat('floor(')) {
      const bracketed = eat('(');
      const numerator = sum();
      if (bracketed) need(')');
      need('/');
      const result = Math.floor(numerator / atom());
      need(')');
      return result;
    }
    const [word = ''] = /^\w+/.exec(expression.slice(at)) ?? [];
    at += word.length;
    return symbols.get(word) ?? Number(word);
  };
  const product = (): number => {
    let value = atom();
    while (eat('*')) value *= atom();
    return value;
  };
  const sum = (): number => {
    let value = eat('-') ? -product() : product();
    for (;;) {
      if (eat('+')) value += product();
      else if (eat('-')) value -= product();
      else return value;
    }
  };
  const value = sum();
  if (at !== expression.length) throw new Error(`unexpected text at ${at} of '${expression}'`);
  return value;
}
