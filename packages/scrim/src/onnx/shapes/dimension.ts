/**
 * Arithmetic on dimensions: numbers, symbols and sizes computed from symbols.
 *
 * A computed symbolic size is written as text in one normal form (a polynomial with integer coefficients over symbols
 * and `floor(…/k)` terms), so that two equal texts always stand for equal sizes: '2*H', 'floor((H+1)/2)', 'C*H*W'.
 * What has no such form is '' (unknown). Expressions assume sizes at which the graph can run: nothing is cropped to less
 * than nothing. Texts the file itself declares as names are never produced here, whatever they look like.
 */
import type { Dimension } from '../value-info.js';

/** A polynomial: coefficient by monomial, whose factors are joined by {@link JOIN}; '' is the constant term. */
type Form = ReadonlyMap<string, number>;

const JOIN = '\u0001';
const IDENTIFIER = /^[\p{L}_][\p{L}\p{N}_.]*$/u;

/** Names some exporters give to every dimension they don't know: equal names don't mean equal sizes there. */
const PLACEHOLDERS: ReadonlySet<string> = new Set(['?', 'None', 'none', 'null', 'unk', 'unknown', 'undefined', '-1']);

/** Longest text of a computed size; longer ones are given up as unknown. */
const MAX_TEXT = 160;

/** Dimension arithmetic of one inference: remembers how each computed size was made. */
export class DimensionAlgebra {
  readonly #forms = new Map<string, Form>();
  readonly #floors = new Map<string, { readonly form: Form; readonly divisor: number }>();
  readonly #declared = new Set<string>();

  /** Notes a dimension name the file declares; returns '' for a name that only says "unknown". */
  declare(dimension: Dimension): Dimension {
    if (typeof dimension === 'number') return Number.isSafeInteger(dimension) && dimension >= 0 ? dimension : '';
    if (PLACEHOLDERS.has(dimension)) return '';
    if (dimension !== '') this.#declared.add(dimension);
    return dimension;
  }

  /** a + b. */
  add(a: Dimension, b: Dimension): Dimension {
    if (typeof a === 'number' && typeof b === 'number') return safe(a + b);
    return this.#combine(a, b, 1);
  }

  /** a − b. */
  subtract(a: Dimension, b: Dimension): Dimension {
    if (typeof a === 'number' && typeof b === 'number') return safe(a - b);
    if (a === b && a !== '') return 0;
    return this.#combine(a, b, -1);
  }

  /** a · b. */
  multiply(a: Dimension, b: Dimension): Dimension {
    if (typeof a === 'number' && typeof b === 'number') return safe(a * b);
    if (a === 0 || b === 0) return 0;
    if (a === 1) return b;
    if (b === 1) return a;
    const left = this.#form(a);
    const right = this.#form(b);
    if (!left || !right || left.size * right.size > 64) return '';
    const product = new Map<string, number>();
    for (const [m, c] of left) {
      for (const [n, d] of right) {
        const factors = [...split(m), ...split(n)].sort();
        const key = factors.join(JOIN);
        product.set(key, (product.get(key) ?? 0) + c * d);
      }
    }
    return this.#write(product);
  }

  /** The product of `dimensions`, 1 for none. */
  product(dimensions: readonly Dimension[]): Dimension {
    return dimensions.reduce<Dimension>((total, dimension) => this.multiply(total, dimension), 1);
  }

  /** floor(a / divisor) for an integer divisor ≥ 1. */
  floorDivide(a: Dimension, divisor: number): Dimension {
    if (!Number.isSafeInteger(divisor) || divisor < 1) return '';
    if (typeof a === 'number') return Math.floor(a / divisor);
    if (divisor === 1) return a;
    const form = this.#form(a);
    if (!form) return '';
    const whole = new Map<string, number>();
    let rest = new Map<string, number>();
    for (const [key, coefficient] of form) {
      const quotient = Math.floor(coefficient / divisor);
      // Only the constant may be split: floor((3H+5)/2) is left as floor((3H+1)/2) + 2, exact terms are taken out.
      if (key === '' || coefficient % divisor === 0) {
        whole.set(key, quotient);
        rest.set(key, coefficient - quotient * divisor);
      } else rest.set(key, coefficient);
    }
    rest = new Map([...rest].filter(([, coefficient]) => coefficient !== 0));
    if ([...rest.keys()].every((key) => key === '')) return this.#write(whole);
    // floor((floor(p/m) + c)/k) = floor((p + c·m)/(m·k))
    let by = divisor;
    const atoms = [...rest.keys()].filter((key) => key !== '');
    const inner =
      atoms.length === 1 && rest.get(atoms[0] as string) === 1 ? this.#floors.get(atoms[0] as string) : undefined;
    if (inner) {
      const merged = new Map(inner.form);
      merged.set('', (merged.get('') ?? 0) + (rest.get('') ?? 0) * inner.divisor);
      by *= inner.divisor;
      return this.#sum(whole, this.floorDivide(this.#write(merged), by));
    }
    const numerator = text(rest);
    const atom = `floor(${rest.size === 1 ? numerator : `(${numerator})`}/${by})`;
    this.#floors.set(atom, { form: rest, divisor: by });
    return this.#sum(whole, this.#write(new Map([[atom, 1]])));
  }

  /** ceil(a / divisor) for an integer divisor ≥ 1. */
  ceilDivide(a: Dimension, divisor: number): Dimension {
    return this.floorDivide(this.add(a, divisor - 1), divisor);
  }

  /** a / b where b is known to divide a; '' if the quotient has no form. */
  divideExactly(a: Dimension, b: Dimension): Dimension {
    if (b === 0) return '';
    if (a === b && a !== '') return 1;
    if (typeof b === 'number') return this.floorDivide(a, b);
    const divisor = this.#form(b);
    const form = this.#form(a);
    const [only] = divisor ?? [];
    if (!form || !divisor || !only || divisor.size !== 1) return '';
    const quotient = new Map<string, number>();
    for (const [key, coefficient] of form) {
      const factors = split(key);
      for (const factor of split(only[0])) {
        const at = factors.indexOf(factor);
        if (at < 0) return '';
        factors.splice(at, 1);
      }
      if (coefficient % only[1] !== 0) return '';
      quotient.set(factors.join(JOIN), coefficient / only[1]);
    }
    return this.#write(quotient);
  }

  /** True if the size can't be below zero whatever its symbols are. */
  isNonNegative(a: Dimension): boolean {
    if (typeof a === 'number') return a >= 0;
    const form = this.#form(a);
    return form !== undefined && [...form.values()].every((coefficient) => coefficient >= 0);
  }

  /** The size two dimensions broadcast to; undefined where they can't. */
  broadcast(a: Dimension, b: Dimension): Dimension | undefined {
    if (a === b) return a;
    if (a === 1) return b;
    if (b === 1) return a;
    if (typeof a === 'number') return typeof b === 'number' ? undefined : a;
    return typeof b === 'number' ? b : '';
  }

  /** The more precise of two descriptions of one size; undefined if they contradict each other. */
  unify(a: Dimension, b: Dimension): Dimension | undefined {
    if (typeof a === 'number') return typeof b === 'number' && a !== b ? undefined : a;
    if (typeof b === 'number') return b;
    return a === '' ? b : a;
  }

  #combine(a: Dimension, b: Dimension, sign: 1 | -1): Dimension {
    if (b === 0) return a;
    if (a === 0 && sign === 1) return b;
    const left = this.#form(a);
    const right = this.#form(b);
    if (!left || !right) return '';
    const sum = new Map(left);
    for (const [key, coefficient] of right) sum.set(key, (sum.get(key) ?? 0) + sign * coefficient);
    return this.#write(sum);
  }

  #sum(form: Form, b: Dimension): Dimension {
    return b === '' ? '' : this.add(this.#write(form), b);
  }

  #form(dimension: Dimension): Form | undefined {
    if (typeof dimension === 'number') {
      return Number.isSafeInteger(dimension) ? new Map(dimension === 0 ? [] : [['', dimension]]) : undefined;
    }
    const known = this.#forms.get(dimension);
    if (known) return known;
    return IDENTIFIER.test(dimension) ? new Map([[dimension, 1]]) : undefined;
  }

  #write(form: Form): Dimension {
    const terms = new Map([...form].filter(([, coefficient]) => coefficient !== 0));
    for (const coefficient of terms.values()) if (!Number.isSafeInteger(coefficient)) return '';
    if (terms.size === 0) return 0;
    if (terms.size === 1 && terms.has('')) return terms.get('') as number;
    const written = text(terms);
    if (written.length > MAX_TEXT) return '';
    const [only] = terms;
    const isSymbol = only !== undefined && terms.size === 1 && only[1] === 1 && IDENTIFIER.test(only[0]);
    if (isSymbol) return written;
    if (this.#declared.has(written)) return '';
    this.#forms.set(written, terms);
    return written;
  }
}

function split(monomial: string): string[] {
  return monomial === '' ? [] : monomial.split(JOIN);
}

function safe(value: number): Dimension {
  return Number.isSafeInteger(value) ? value : '';
}

/** Highest degree first, then by name, the constant last. */
function text(form: Form): string {
  const terms = [...form].sort(([a], [b]) => split(b).length - split(a).length || (a < b ? -1 : 1));
  let written = '';
  for (const [key, coefficient] of terms) {
    const size = Math.abs(coefficient);
    const sign = coefficient < 0 ? '-' : written === '' ? '' : '+';
    const factors = split(key).join('*');
    written += sign + (factors === '' ? String(size) : size === 1 ? factors : `${size}*${factors}`);
  }
  return written;
}
