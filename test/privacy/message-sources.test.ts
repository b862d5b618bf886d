/**
 * Reads the sources: no error message, no details and no log line is built from an expression that names data or
 * secrets. Lengths, shapes, types and names of files are allowed; so are the few places listed with their reason.
 */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the samples are code that is scanned
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Identifiers whose value is data or a secret. */
const SENSITIVE =
  /^(data|values|pixel|activation|secret|secrets|token|tokens|bearerToken|password|authorization|seedKey|keystream|privateKey|subject)$/;

/** Expressions that are named like data but hold none, by file and text. */
const ALLOWED: readonly (readonly [file: string, expression: string])[] = [
  // The folder named by --data.
  ['packages/cli/src/commands/certify.ts', 'flags.data'],
];

interface Finding {
  readonly file: string;
  readonly line: number;
  readonly expression: string;
}

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'gen' || entry.name === 'node_modules' ? [] : sources(path);
    return entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts') ? [path] : [];
  });
}

/** True for `new ScrimError`, `ScrimError.from`, `assert…` and calls on a logger or the console. */
function isReport(node: ts.Node): node is ts.NewExpression | ts.CallExpression {
  if (ts.isNewExpression(node)) return /Error$/.test(calleeOf(node.expression));
  if (!ts.isCallExpression(node)) return false;
  return /^(ScrimError\.from|assert[A-Z]\w*|console\.\w+|logger\.\w+|log\.\w+|context\.remark)$/.test(
    calleeOf(node.expression),
  );
}

/** `name` or `name.member`; '' for anything longer. */
function calleeOf(callee: ts.Expression): string {
  if (ts.isIdentifier(callee)) return callee.text;
  const isMember = ts.isPropertyAccessExpression(callee) && ts.isIdentifier(callee.expression);
  return isMember ? `${(callee.expression as ts.Identifier).text}.${callee.name.text}` : '';
}

/** Sensitive expressions that reach text within `node`: parts of templates, and the members of `details`. */
function sensitiveParts(node: ts.Node): ts.Node[] {
  const found: ts.Node[] = [];
  const visit = (part: ts.Node, isText: boolean): void => {
    if (ts.isPropertyAssignment(part)) {
      const name = part.name.getText();
      if (name !== 'cause') visit(part.initializer, isText || name === 'details');
    } else if (ts.isTemplateSpan(part)) {
      visit(part.expression, true);
    } else if (!isText) {
      ts.forEachChild(part, (child) => visit(child, false));
    } else if (ts.isPropertyAccessExpression(part)) {
      if (SENSITIVE.test(part.name.text)) found.push(part);
    } else if (ts.isIdentifier(part)) {
      if (SENSITIVE.test(part.text)) found.push(part);
    } else if (ts.isConditionalExpression(part)) {
      visit(part.whenTrue, true);
      visit(part.whenFalse, true);
    } else if (!ts.isTypeOfExpression(part) && !ts.isArrowFunction(part)) {
      ts.forEachChild(part, (child) => visit(child, true));
    }
  };
  node.forEachChild((child) => visit(child, false));
  return found;
}

function scan(file: string, text: string): Finding[] {
  if (!/Error|assert|console|log|remark/.test(text)) return [];
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  const findings: Finding[] = [];
  const visit = (node: ts.Node): void => {
    if (isReport(node)) {
      for (const part of sensitiveParts(node)) {
        const { line } = source.getLineAndCharacterOfPosition(part.getStart());
        findings.push({ file, line: line + 1, expression: part.getText() });
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return findings;
}

describe('messages in the sources', () => {
  it('the scan finds what it looks for', () => {
    const bad = [
      "throw new ScrimError('X', `the value is ${data[3]}`);",
      'assertArgument(ok, `${tensor.data} is wrong`);',
      "throw new ScrimError('X', 'no', { details: { token } });",
      "throw ScrimError.from(error, 'X', `with ${options.secret}`);",
      'context.remark(`using ${bearerToken}`);',
    ];
    for (const line of bad) expect(scan('x.ts', line), line).toHaveLength(1);
    const good = [
      "throw new ScrimError('X', `there are ${data.length} of [${tensor.shape.join(', ')}], ${typeof value}`);",
      "throw new ScrimError('X', 'no', { details: { length: token.length }, cause: data });",
      'assertArgument(data[0] === 1, `the ${name} has another first element`);',
    ];
    for (const line of good) expect(scan('x.ts', line), line).toEqual([]);
  });

  it('tell of no data and no secrets', () => {
    const files = ['scrim', 'cli', 'dataops'].flatMap((name) => sources(join(ROOT, 'packages', name, 'src')));
    expect(files.length).toBeGreaterThan(100);
    const findings = files
      .flatMap((path) => scan(relative(ROOT, path).replaceAll('\\', '/'), readFileSync(path, 'utf8')))
      .filter(({ file, expression }) => !ALLOWED.some(([place, text]) => file.endsWith(place) && expression === text));
    expect(findings.map(({ file, line, expression }) => `${file}:${line} ${expression}`)).toEqual([]);
  });
});
