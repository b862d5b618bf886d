/**
 * Writes any message in the protobuf text format, driven by its descriptor.
 *
 * The text is canonical: fields by number, map entries by key, one field a line, two spaces a level, lists of scalars
 * in brackets, enums by name, the shortest decimal that reads back the same. Fields at their default without presence
 * are left out, unknown fields are not written.
 */
import { type DescField, type DescMessage, type MessageShape, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { shortestFloat32 } from './float32-text.js';

/** `message` as text that ends with a line break, or '' where no field is set. */
export function formatText<D extends DescMessage>(schema: D, message: MessageShape<D>): string {
  const lines: string[] = [];
  writeMessage(reflect(schema, message), '', lines);
  return lines.map((line) => `${line}\n`).join('');
}

function writeMessage(message: ReflectMessage, indent: string, lines: string[]): void {
  const fields = [...message.desc.fields].sort((a, b) => a.number - b.number);
  for (const field of fields) {
    if (!message.isSet(field)) continue;
    switch (field.fieldKind) {
      case 'map':
        writeMap(message, field, indent, lines);
        break;
      case 'list': {
        const values = [...message.get(field)];
        if (field.listKind === 'message') {
          for (const value of values) writeElement(field, field.name, value, indent, lines);
        } else {
          lines.push(`${indent}${field.name}: [${values.map((value) => scalarText(field, value)).join(', ')}]`);
        }
        break;
      }
      default:
        writeElement(field, field.name, message.get(field), indent, lines);
    }
  }
}

function writeMap(
  message: ReflectMessage,
  field: DescField & { fieldKind: 'map' },
  indent: string,
  lines: string[],
): void {
  const entries = ([...message.get(field)] as [string | number | bigint | boolean, unknown][]).sort(([a], [b]) =>
    a < b ? -1 : a > b ? 1 : 0,
  );
  for (const [key, value] of entries) {
    lines.push(`${indent}${field.name} {`);
    lines.push(`${indent}  key: ${typeof key === 'string' ? quoteText(key) : String(key)}`);
    writeElement(field, 'value', value, `${indent}  `, lines);
    lines.push(`${indent}}`);
  }
}

function writeElement(field: DescField, name: string, value: unknown, indent: string, lines: string[]): void {
  if (field.message === undefined) {
    lines.push(`${indent}${name}: ${scalarText(field, value)}`);
    return;
  }
  lines.push(`${indent}${name} {`);
  writeMessage(value as ReflectMessage, `${indent}  `, lines);
  lines.push(`${indent}}`);
}

function scalarText(field: DescField, value: unknown): string {
  if (field.enum !== undefined) return field.enum.value[value as number]?.name ?? String(value);
  if (typeof value === 'string' && field.scalar === ScalarType.STRING) return quoteText(value);
  if (value instanceof Uint8Array) return quoteBytes(value);
  if (typeof value === 'number') return numberText(field.scalar === ScalarType.FLOAT ? shortestFloat32(value) : value);
  return String(value);
}

function numberText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  return Object.is(value, -0) ? '-0' : String(value).replace('+', '');
}

const NAMED: ReadonlyMap<number, string> = new Map([
  [9, '\\t'],
  [10, '\\n'],
  [13, '\\r'],
  [34, '\\"'],
  [92, '\\\\'],
]);

/** Text in double quotes; characters beyond ASCII stay as they are. */
function quoteText(text: string): string {
  const characters = Array.from(text, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return code < 128 ? escapeAscii(code) : character;
  });
  return `"${characters.join('')}"`;
}

/** Bytes in double quotes; those that are no printable ASCII become octal escapes. */
function quoteBytes(bytes: Uint8Array): string {
  return `"${Array.from(bytes, escapeAscii).join('')}"`;
}

function escapeAscii(code: number): string {
  if (code >= 32 && code < 127) return NAMED.get(code) ?? String.fromCharCode(code);
  return NAMED.get(code) ?? `\\${code.toString(8).padStart(3, '0')}`;
}
