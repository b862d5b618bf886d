/**
 * A reader of Python pickles that runs nothing. It knows the opcodes that data needs (numbers, strings, bytes, lists,
 * tuples, dicts, sets, memo), and hands every global to the caller's allow-list; a global that the list lacks, and
 * every opcode that could build an object in another way, ends the reading. Opcodes and their argument formats are
 * those of Python's `pickletools` (the binary forms, which is all that protocols 1 to 5 write).
 *
 * What a global means is left to the caller: checkpoint.ts knows PyTorch's.
 */
import { ScrimError } from '../errors.js';

/** Limits of one pickle. */
export interface PickleLimits {
  /** Longest pickle program in bytes; also bounds the number of values, since each costs at least a byte. */
  readonly maxBytes: number;
  /** Largest number of entries in the memo, and of values on the stack. */
  readonly maxEntries: number;
}

/** A Python list or tuple. */
export interface PickleSequence {
  readonly kind: 'list' | 'tuple' | 'set';
  readonly items: PickleValue[];
}

/** A Python dict (of any class that the allow-list reads as one). Keys are compared as JavaScript values. */
export interface PickleDict {
  readonly kind: 'dict';
  readonly entries: Map<PickleKey, PickleValue>;
}

/** A global that the allow-list knows: `call` is what REDUCE does with it, absent where it can't be called. */
export interface PickleGlobal {
  readonly kind: 'global';
  readonly name: string;
  readonly call?: (args: readonly PickleValue[]) => PickleValue;
}

/** A value made by a {@link PickleGlobal} or by the persistent loader; the reader passes it on unread. */
export interface PickleObject {
  readonly kind: 'object';
  readonly value: unknown;
}

/** Keys that a dict may have here. */
export type PickleKey = string | number | bigint | boolean | null;

/** What a pickle can hold. */
export type PickleValue = PickleKey | Uint8Array | PickleSequence | PickleDict | PickleGlobal | PickleObject;

/** What the caller of {@link readPickle} decides. */
export interface PickleHost {
  /** The allow-list: the meaning of `module.name`, or undefined to refuse it. */
  readonly findGlobal: (module: string, name: string) => PickleGlobal | undefined;
  /** The meaning of a persistent id; absent: such ids are refused. */
  readonly loadPersistent?: (id: PickleValue) => PickleValue;
}

/** One pickle's value, and the index of the byte after its STOP. */
export interface PickleResult {
  readonly value: PickleValue;
  readonly end: number;
}

const DEFAULT_LIMITS: PickleLimits = { maxBytes: 2 ** 24, maxEntries: 2 ** 20 };
const MAX_INTEGER_BYTES = 256;

/**
 * Reads the pickle that starts at `start` in `bytes`. Costs time and memory linear in the program's length.
 * @throws ScrimError INVALID_DATA for malformed bytes, an opcode that data doesn't need, or a global that the host
 * refuses (the message names it); LIMIT_EXCEEDED for a program above the limits.
 */
export function readPickle(
  bytes: Uint8Array,
  host: PickleHost,
  start = 0,
  limits: Partial<PickleLimits> = {},
): PickleResult {
  return new Reader(bytes, host, start, { ...DEFAULT_LIMITS, ...limits }).read();
}

/** True if `value` is a list, tuple or set. */
export function isSequence(value: PickleValue): value is PickleSequence {
  return isRecord(value) && (value.kind === 'list' || value.kind === 'tuple' || value.kind === 'set');
}

/** True if `value` is a dict. */
export function isDict(value: PickleValue): value is PickleDict {
  return isRecord(value) && value.kind === 'dict';
}

/** True if `value` came from a global or the persistent loader. */
export function isObject(value: PickleValue): value is PickleObject {
  return isRecord(value) && value.kind === 'object';
}

function isRecord(value: PickleValue): value is PickleSequence | PickleDict | PickleGlobal | PickleObject {
  return typeof value === 'object' && value !== null && !(value instanceof Uint8Array);
}

const fail = (message: string): ScrimError => new ScrimError('INVALID_DATA', `pickle: ${message}`);

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const latin1 = (bytes: Uint8Array): string => {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
};

/** The pickle machine: a stack, the positions of its marks, and a memo. */
class Reader {
  private readonly stack: PickleValue[] = [];
  private readonly marks: number[] = [];
  private readonly memo = new Map<number, PickleValue>();
  private readonly view: DataView;
  private readonly limit: number;
  private position: number;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly host: PickleHost,
    private readonly start: number,
    private readonly limits: PickleLimits,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.position = start;
    this.limit = Math.min(bytes.length, start + limits.maxBytes);
  }

  read(): PickleResult {
    for (;;) {
      if (Math.max(this.stack.length, this.memo.size, this.marks.length) > this.limits.maxEntries) {
        throw new ScrimError('LIMIT_EXCEEDED', `pickle: more than ${this.limits.maxEntries} entries`);
      }
      const opcode = this.byte();
      if (opcode === OP.STOP) {
        const value = this.pop();
        if (this.stack.length > 0 || this.marks.length > 0) throw fail('values are left over at its end');
        return { value, end: this.position };
      }
      this.step(opcode);
    }
  }

  private step(opcode: number): void {
    const made = this.make(opcode);
    if (made === undefined) this.change(opcode);
    else this.stack.push(made);
  }

  /** The value that `opcode` puts on the stack; undefined for the opcodes of {@link change}. */
  private make(opcode: number): PickleValue | undefined {
    switch (opcode) {
      case OP.NONE:
        return null;
      case OP.NEWTRUE:
        return true;
      case OP.NEWFALSE:
        return false;
      case OP.BININT:
        return this.view.getInt32(this.take(4), true);
      case OP.BININT1:
        return this.byte();
      case OP.BININT2:
        return this.view.getUint16(this.take(2), true);
      case OP.LONG1:
        return this.integer(this.byte());
      case OP.LONG4:
        return this.integer(this.length(4));
      case OP.BINFLOAT:
        return this.view.getFloat64(this.take(8), false);
      case OP.BINUNICODE:
        return this.unicode(this.length(4));
      case OP.SHORT_BINUNICODE:
        return this.unicode(this.byte());
      case OP.BINUNICODE8:
        return this.unicode(this.length(8));
      case OP.BINSTRING:
        return latin1(this.slice(this.length(4)));
      case OP.SHORT_BINSTRING:
        return latin1(this.slice(this.byte()));
      case OP.BINBYTES:
        return this.slice(this.length(4));
      case OP.SHORT_BINBYTES:
        return this.slice(this.byte());
      case OP.BINBYTES8:
      case OP.BYTEARRAY8:
        return this.slice(this.length(8));
      case OP.EMPTY_LIST:
        return { kind: 'list', items: [] };
      case OP.LIST:
        return { kind: 'list', items: this.popMark() };
      case OP.EMPTY_TUPLE:
        return { kind: 'tuple', items: [] };
      case OP.TUPLE:
        return { kind: 'tuple', items: this.popMark() };
      case OP.TUPLE1:
      case OP.TUPLE2:
      case OP.TUPLE3: {
        const items: PickleValue[] = [];
        for (let count = opcode - OP.TUPLE1 + 1; count > 0; count--) items.unshift(this.pop());
        return { kind: 'tuple', items };
      }
      case OP.EMPTY_SET:
        return { kind: 'set', items: [] };
      case OP.FROZENSET:
        return { kind: 'set', items: this.popMark() };
      case OP.EMPTY_DICT:
        return { kind: 'dict', entries: new Map() };
      case OP.DICT: {
        const dict: PickleDict = { kind: 'dict', entries: new Map() };
        setItems(dict, this.popMark());
        return dict;
      }
      case OP.DUP:
        return this.top();
      case OP.BINGET:
        return this.recall(this.byte());
      case OP.LONG_BINGET:
        return this.recall(this.view.getUint32(this.take(4), true));
      case OP.GLOBAL: {
        const module = this.line();
        return this.global(module, this.line());
      }
      case OP.STACK_GLOBAL: {
        const name = this.pop();
        const module = this.pop();
        if (typeof module !== 'string' || typeof name !== 'string') throw fail('a global has a name that is no text');
        return this.global(module, name);
      }
      case OP.REDUCE: {
        const args = this.pop();
        const callee = this.pop();
        if (!isRecord(callee) || callee.kind !== 'global') throw fail('REDUCE calls something that is no global');
        if (callee.call === undefined) throw fail(`it calls ${callee.name}, which is not allowed`);
        if (!isRecord(args) || args.kind !== 'tuple') throw fail(`the arguments of ${callee.name} are no tuple`);
        return callee.call(args.items);
      }
      case OP.BINPERSID:
        return this.persistent(this.pop());
      default:
        return undefined;
    }
  }

  /** Carries out the opcodes that change the stack's values, its marks or the memo. */
  private change(opcode: number): void {
    switch (opcode) {
      case OP.PROTO: {
        const protocol = this.byte();
        if (protocol > 5) throw fail(`protocol ${protocol} is not known, expected 0 to 5`);
        break;
      }
      case OP.FRAME:
        this.take(8);
        break;
      case OP.MARK:
        this.marks.push(this.stack.length);
        break;
      case OP.POP:
        if (this.stack.length === this.base() && this.marks.length > 0) this.marks.pop();
        else this.pop();
        break;
      case OP.POP_MARK:
        this.popMark();
        break;
      case OP.APPEND: {
        const item = this.pop();
        this.sequence('list').items.push(item);
        break;
      }
      case OP.APPENDS: {
        const items = this.popMark();
        const list = this.sequence('list');
        for (const item of items) list.items.push(item);
        break;
      }
      case OP.ADDITEMS: {
        const items = this.popMark();
        const set = this.sequence('set');
        for (const item of items) set.items.push(item);
        break;
      }
      case OP.SETITEM: {
        const value = this.pop();
        const key = this.pop();
        setItems(this.dict(), [key, value]);
        break;
      }
      case OP.SETITEMS: {
        const items = this.popMark();
        setItems(this.dict(), items);
        break;
      }
      case OP.BUILD: {
        // PyTorch sets the attribute `_metadata` of a state dict this way; attributes are not data, so they are dropped.
        const state = this.pop();
        if (!isDict(state) || !isDict(this.top())) throw fail('BUILD sets the state of something that is no dict');
        break;
      }
      case OP.BINPUT:
        this.memoize(this.byte());
        break;
      case OP.LONG_BINPUT:
        this.memoize(this.view.getUint32(this.take(4), true));
        break;
      case OP.MEMOIZE:
        this.memoize(this.memo.size);
        break;
      default:
        throw fail(`opcode 0x${opcode.toString(16).padStart(2, '0')} at byte ${this.position - 1} is not allowed`);
    }
  }

  /** Stack height that the innermost mark protects. */
  private base(): number {
    return this.marks[this.marks.length - 1] ?? 0;
  }

  private pop(): PickleValue {
    if (this.stack.length <= this.base()) throw fail('it takes a value from an empty stack');
    return this.stack.pop()!;
  }

  private top(): PickleValue {
    if (this.stack.length <= this.base()) throw fail('it takes a value from an empty stack');
    return this.stack[this.stack.length - 1]!;
  }

  private popMark(): PickleValue[] {
    const mark = this.marks.pop();
    if (mark === undefined) throw fail('it takes values back to a mark that is not there');
    return this.stack.splice(mark);
  }

  private sequence(kind: 'list' | 'set'): PickleSequence {
    const top = this.top();
    if (!isRecord(top) || top.kind !== kind) throw fail(`it adds items to something that is no ${kind}`);
    return top;
  }

  private dict(): PickleDict {
    const top = this.top();
    if (!isDict(top)) throw fail('it sets items of something that is no dict');
    return top;
  }

  private memoize(index: number): void {
    this.memo.set(index, this.top());
  }

  private recall(index: number): PickleValue {
    const value = this.memo.get(index);
    if (value === undefined) throw fail(`memo entry ${index} is not there`);
    return value;
  }

  private global(module: string, name: string): PickleGlobal {
    const found = this.host.findGlobal(module, name);
    if (found === undefined) {
      const shown = printable(`${module}.${name}`);
      throw new ScrimError('INVALID_DATA', `pickle: global ${shown} is not allowed`, { details: { global: shown } });
    }
    return found;
  }

  private persistent(id: PickleValue): PickleValue {
    if (this.host.loadPersistent === undefined) throw fail('it refers to data outside itself');
    return this.host.loadPersistent(id);
  }

  /** Index of the next `count` bytes, which are then behind the reader. */
  private take(count: number): number {
    const at = this.position;
    if (count > this.limit - at) {
      if (this.limit < this.bytes.length) {
        throw new ScrimError('LIMIT_EXCEEDED', `pickle: longer than ${this.limits.maxBytes} bytes`);
      }
      throw fail(`it ends too early, at byte ${this.limit - this.start}`);
    }
    this.position = at + count;
    return at;
  }

  private byte(): number {
    return this.bytes[this.take(1)]!;
  }

  private length(size: 4 | 8): number {
    const at = this.take(size);
    // Lengths of 2³² and above end the reading in take(); Number() is exact enough for that.
    return size === 4 ? this.view.getUint32(at, true) : Number(this.view.getBigUint64(at, true));
  }

  private slice(count: number): Uint8Array {
    const at = this.take(count);
    return this.bytes.subarray(at, at + count);
  }

  private unicode(count: number): string {
    try {
      return utf8.decode(this.slice(count));
    } catch (error) {
      throw ScrimError.from(error, 'INVALID_DATA', 'pickle: a string is no UTF-8');
    }
  }

  /** Little-endian two's complement integer of `count` bytes. */
  private integer(count: number): number | bigint {
    if (count > MAX_INTEGER_BYTES) throw fail(`an integer has ${count} bytes, at most ${MAX_INTEGER_BYTES} are read`);
    let value = 0n;
    const bytes = this.slice(count);
    for (let i = count - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
    return narrow(count === 0 ? 0n : BigInt.asIntN(8 * count, value));
  }

  private line(): string {
    const end = this.bytes.indexOf(0x0a, this.position);
    if (end < 0 || end - this.position > 1024) throw fail('a text argument has no end within 1024 bytes');
    const text = this.unicode(end - this.position);
    this.take(1);
    return text;
  }
}

function setItems(dict: PickleDict, items: readonly PickleValue[]): void {
  if (items.length % 2 !== 0) throw fail('a dict has a key without a value');
  for (let i = 0; i < items.length; i += 2) {
    const key = items[i]!;
    if (typeof key === 'object' && key !== null) throw fail('a dict has a key that is neither a number nor text');
    dict.entries.set(key, items[i + 1]!);
  }
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** `text` as it may stand in a message: at most 120 printable ASCII characters. */
function printable(text: string): string {
  return text.slice(0, 120).replace(/[^\x20-\x7e]/g, '?');
}

/** Opcodes, by their names in pickletools. */
const OP = {
  MARK: 0x28,
  EMPTY_TUPLE: 0x29,
  STOP: 0x2e,
  POP: 0x30,
  POP_MARK: 0x31,
  DUP: 0x32,
  BINBYTES: 0x42,
  SHORT_BINBYTES: 0x43,
  BINFLOAT: 0x47,
  BININT: 0x4a,
  BININT1: 0x4b,
  BININT2: 0x4d,
  NONE: 0x4e,
  BINPERSID: 0x51,
  REDUCE: 0x52,
  BINSTRING: 0x54,
  SHORT_BINSTRING: 0x55,
  BINUNICODE: 0x58,
  EMPTY_LIST: 0x5d,
  APPEND: 0x61,
  BUILD: 0x62,
  GLOBAL: 0x63,
  DICT: 0x64,
  APPENDS: 0x65,
  BINGET: 0x68,
  LONG_BINGET: 0x6a,
  LIST: 0x6c,
  BINPUT: 0x71,
  LONG_BINPUT: 0x72,
  SETITEM: 0x73,
  TUPLE: 0x74,
  SETITEMS: 0x75,
  EMPTY_DICT: 0x7d,
  PROTO: 0x80,
  TUPLE1: 0x85,
  TUPLE2: 0x86,
  TUPLE3: 0x87,
  NEWTRUE: 0x88,
  NEWFALSE: 0x89,
  LONG1: 0x8a,
  LONG4: 0x8b,
  SHORT_BINUNICODE: 0x8c,
  BINUNICODE8: 0x8d,
  BINBYTES8: 0x8e,
  EMPTY_SET: 0x8f,
  ADDITEMS: 0x90,
  FROZENSET: 0x91,
  STACK_GLOBAL: 0x93,
  MEMOIZE: 0x94,
  FRAME: 0x95,
  BYTEARRAY8: 0x96,
} as const;
