/**
 * Reads the tensors of a PyTorch checkpoint (`torch.save`) in its two containers: the zip archive of PyTorch 1.6 and
 * later (`data.pkl` beside one file per storage), and the legacy stream before it (five pickles, then the storages).
 * Nothing is executed: {@link GLOBALS} is all that the pickles may name. Formats follow torch/serialization.py and
 * torch/_utils.py (`_rebuild_tensor_v2`).
 *
 * What the tensors mean is left to the caller, such as faceboxes-import.ts.
 */
import { ScrimError } from '../errors.js';
import { BYTES_PER_ELEMENT, type DataType, type Tensor, type TensorArrays, tensor } from '../tensor.js';
import {
  isDict,
  isObject,
  isSequence,
  type PickleGlobal,
  type PickleHost,
  type PickleLimits,
  type PickleValue,
  readPickle,
} from './pickle.js';
import { isZip, readZipDirectory } from './zip-directory.js';

/** Limits of one checkpoint. */
export interface CheckpointLimits {
  /** Largest file. */
  readonly maxBytes: number;
  /** Longest pickle program. */
  readonly maxPickleBytes: number;
  /** Largest number of tensors. */
  readonly maxTensors: number;
  /** Largest sum of the tensors' bytes; views that repeat elements count in full. */
  readonly maxTensorBytes: number;
  /** How deep dicts and lists may be nested. */
  readonly maxDepth: number;
}

const DEFAULT_LIMITS: CheckpointLimits = {
  maxBytes: 2 ** 31,
  maxPickleBytes: 2 ** 24,
  maxTensors: 100_000,
  maxTensorBytes: 2 ** 31,
  maxDepth: 32,
};

/** Element types of PyTorch's storage classes. */
const STORAGES: Readonly<Record<string, StorageType>> = {
  FloatStorage: 'float32',
  DoubleStorage: 'float64',
  HalfStorage: 'float16',
  BFloat16Storage: 'bfloat16',
  LongStorage: 'int64',
  IntStorage: 'int32',
  ShortStorage: 'int16',
  CharStorage: 'int8',
  ByteStorage: 'uint8',
  BoolStorage: 'bool',
};

type StorageType = Exclude<DataType, 'string' | 'uint16' | 'uint32' | 'uint64'>;

const MAX_RANK = 16;
/** `torch.serialization.MAGIC_NUMBER`, as the ten bytes of a LONG1. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
const LEGACY_PROTOCOL = 1001;

const fail = (message: string): ScrimError => new ScrimError('INVALID_DATA', `checkpoint: ${message}`);

/**
 * Reads every tensor of a checkpoint, named by its path: `conv1.weight` in a plain state dict,
 * `state_dict.conv1.weight` in a dict that holds one, list items by index. Tensors come out contiguous in row-major
 * order with their own element type; other values are left out.
 * @throws ScrimError INVALID_DATA for malformed bytes, a global outside the allow-list (named in the message) or
 * tensors that reach outside their storage; LIMIT_EXCEEDED above the limits; UNSUPPORTED for big-endian files.
 */
export function readCheckpoint(bytes: Uint8Array, limits: Partial<CheckpointLimits> = {}): Map<string, Tensor> {
  const bounds = { ...DEFAULT_LIMITS, ...limits };
  if (bytes.length > bounds.maxBytes) {
    throw new ScrimError('LIMIT_EXCEEDED', `checkpoint: ${bytes.length} bytes, at most ${bounds.maxBytes} are read`);
  }
  const { root, storage } = isZip(bytes) ? readArchive(bytes, bounds) : readLegacy(bytes, bounds);
  return new Collector(storage, bounds).collect(root);
}

/** A storage as a pickle refers to it; legacy views are offsets into it. */
interface StorageReference {
  readonly key: string;
  readonly dtype: StorageType;
  readonly length: number;
  readonly viewOffset: number;
}

/** A tensor before its elements are gathered. */
interface TensorReference {
  readonly storage: StorageReference;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** The pickled value, and where the bytes of its storages are. */
interface Contents {
  readonly root: PickleValue;
  readonly storage: (reference: StorageReference) => Uint8Array;
}

// ---- containers

function readArchive(bytes: Uint8Array, limits: CheckpointLimits): Contents {
  const entries = readZipDirectory(bytes, { maxEntryBytes: limits.maxBytes, maxTotalBytes: limits.maxBytes });
  const program = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (program.length !== 1) throw fail(`the archive has ${program.length} files <name>/data.pkl, expected 1`);
  const folder = program[0]!.slice(0, -'data.pkl'.length);
  const order = entries.get(`${folder}byteorder`);
  if (order !== undefined) checkByteOrder(order.bytes <= 16 ? String.fromCharCode(...order.read()).trim() : 'unknown');

  const host: PickleHost = { findGlobal, loadPersistent: storageReference };
  const { value } = readPickle(entries.get(program[0]!)!.read(), host, 0, pickleLimits(limits));
  const storage = (reference: StorageReference): Uint8Array => {
    const entry = entries.get(`${folder}data/${reference.key}`);
    if (entry === undefined) throw fail(`storage ${shown(reference.key)} is not in the archive`);
    return entry.read();
  };
  return { root: value, storage };
}

function readLegacy(bytes: Uint8Array, limits: CheckpointLimits): Contents {
  const bounds = pickleLimits(limits);
  const header = (start: number): { value: PickleValue; end: number } =>
    readPickle(bytes, { findGlobal: () => undefined }, start, { ...bounds, maxBytes: 4096 });

  if (bytes[0] !== 0x80) throw fail('the bytes are neither a zip archive nor a legacy stream');
  const magic = header(0);
  if (magic.value !== LEGACY_MAGIC) throw fail('the legacy stream lacks its magic number');
  const protocol = header(magic.end);
  if (protocol.value !== LEGACY_PROTOCOL) throw fail(`the legacy stream's protocol is not ${LEGACY_PROTOCOL}`);
  const system = header(protocol.end);
  if (!isDict(system.value)) throw fail('the legacy stream lacks its system information');
  checkByteOrder(system.value.entries.get('little_endian') === true ? 'little' : 'big');

  const types = new Map<string, StorageType>();
  const loadPersistent = (id: PickleValue): PickleValue => {
    const object = storageReference(id);
    const reference = object.value as StorageReference;
    const known = types.get(reference.key);
    if (known !== undefined && known !== reference.dtype) {
      throw fail(`storage ${shown(reference.key)} has two element types`);
    }
    types.set(reference.key, reference.dtype);
    return object;
  };
  const root = readPickle(bytes, { findGlobal, loadPersistent }, system.end, bounds);
  const keys = readPickle(bytes, { findGlobal: () => undefined }, root.end, bounds);
  if (!isSequence(keys.value)) throw fail('the legacy stream lacks the list of its storages');

  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const storages = new Map<string, Uint8Array>();
  let at = keys.end;
  for (const key of keys.value.items) {
    const dtype = typeof key === 'string' ? types.get(key) : undefined;
    if (typeof key !== 'string' || dtype === undefined) throw fail('the list of storages names one that is not used');
    if (at + 8 > bytes.length) throw fail(`it ends before storage ${shown(key)}`);
    const size = Number(view.getBigInt64(at, true)) * BYTES_PER_ELEMENT[dtype];
    at += 8;
    if (size < 0 || size > bytes.length - at) throw fail(`it ends within storage ${shown(key)}`);
    storages.set(key, bytes.subarray(at, at + size));
    at += size;
  }
  const storage = (reference: StorageReference): Uint8Array => {
    const found = storages.get(reference.key);
    if (found === undefined) throw fail(`storage ${shown(reference.key)} is not in the stream`);
    return found;
  };
  return { root: root.value, storage };
}

function checkByteOrder(order: string): void {
  if (order !== 'little') throw new ScrimError('UNSUPPORTED', 'checkpoint: its byte order is not little-endian');
}

function pickleLimits(limits: CheckpointLimits): Partial<PickleLimits> {
  return { maxBytes: limits.maxPickleBytes };
}

// ---- the allow-list

/** Everything a checkpoint's pickle may name; none of it runs Python. */
const GLOBALS: ReadonlyMap<string, PickleGlobal> = new Map(
  [
    global('collections.OrderedDict', ([items]) => orderedDict(items)),
    global('torch._utils._rebuild_tensor', ([storage, offset, shape, strides]) =>
      tensorReference(storage, offset, shape, strides),
    ),
    global('torch._utils._rebuild_tensor_v2', ([storage, offset, shape, strides]) =>
      tensorReference(storage, offset, shape, strides),
    ),
    global('torch._utils._rebuild_parameter', ([data]) => {
      if (data === undefined || !isObject(data)) throw fail('a parameter has no tensor');
      return data;
    }),
    global('torch.Size', ([items]) => {
      if (items === undefined || !isSequence(items)) throw fail('a torch.Size has no list of numbers');
      return { kind: 'tuple', items: items.items };
    }),
    ...Object.keys(STORAGES).map((name) => global(`torch.${name}`)),
  ].map((entry) => [entry.name, entry]),
);

function global(name: string, call?: (args: readonly PickleValue[]) => PickleValue): PickleGlobal {
  return call === undefined ? { kind: 'global', name } : { kind: 'global', name, call };
}

function findGlobal(module: string, name: string): PickleGlobal | undefined {
  return GLOBALS.get(`${module}.${name}`);
}

function orderedDict(items: PickleValue | undefined): PickleValue {
  const entries = new Map();
  if (items !== undefined) {
    if (!isSequence(items)) throw fail('an OrderedDict is made from something that is no list');
    for (const pair of items.items) {
      if (!isSequence(pair) || pair.items.length !== 2) throw fail('an OrderedDict has an item that is no pair');
      const key = pair.items[0]!;
      if (typeof key === 'object' && key !== null) throw fail('an OrderedDict has a key that is no number or text');
      entries.set(key, pair.items[1]!);
    }
  }
  return { kind: 'dict', entries };
}

/** Reads a persistent id: ('storage', type, key, device, length), in legacy streams with (view, offset, length) or None. */
function storageReference(id: PickleValue): { kind: 'object'; value: StorageReference } {
  const items = isSequence(id) ? id.items : [];
  const [tag, type, key, , length, viewed] = items;
  if (tag !== 'storage' || items.length < 5 || items.length > 6 || typeof key !== 'string') {
    throw fail('a reference to a storage is malformed');
  }
  const name = type !== null && typeof type === 'object' && 'kind' in type && type.kind === 'global' ? type.name : '';
  const dtype = name.startsWith('torch.') ? STORAGES[name.slice('torch.'.length)] : undefined;
  if (dtype === undefined) throw fail('a reference to a storage names no storage class');
  let viewOffset = 0;
  if (viewed !== undefined && viewed !== null) {
    if (!isSequence(viewed) || viewed.items.length !== 3) throw fail('a view of a storage is malformed');
    viewOffset = index(viewed.items[1], 'the offset of a view');
  }
  return { kind: 'object', value: { key, dtype, length: index(length, 'the length of a storage'), viewOffset } };
}

/** Marks the tensors among a pickle's objects. */
class TensorMark {
  constructor(readonly reference: TensorReference) {}
}

function tensorReference(
  storage: PickleValue | undefined,
  offset: PickleValue | undefined,
  shape: PickleValue | undefined,
  strides: PickleValue | undefined,
): PickleValue {
  if (storage === undefined || !isObject(storage) || storage.value instanceof TensorMark) {
    throw fail('a tensor has no storage');
  }
  const dimensions = indexes(shape, 'the shape of a tensor');
  const steps = indexes(strides, 'the strides of a tensor');
  if (dimensions.length !== steps.length || dimensions.length > MAX_RANK) {
    throw fail(`a tensor has ${dimensions.length} dimensions and ${steps.length} strides`);
  }
  return {
    kind: 'object',
    value: new TensorMark({
      storage: storage.value as StorageReference,
      offset: index(offset, 'the offset of a tensor'),
      shape: dimensions,
      strides: steps,
    }),
  };
}

function index(value: PickleValue | undefined, what: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw fail(`${what} is no integer ≥ 0`);
  return value;
}

function indexes(value: PickleValue | undefined, what: string): number[] {
  if (value === undefined || !isSequence(value)) throw fail(`${what} is no list of numbers`);
  return value.items.map((item) => index(item, what));
}

// ---- tensors

/** Walks the pickled value and gathers its tensors, within the limits. */
class Collector {
  private readonly found = new Map<string, Tensor>();
  private readonly arrays = new Map<string, TensorArrays[StorageType]>();
  private totalBytes = 0;
  private visits = 0;

  constructor(
    private readonly storage: Contents['storage'],
    private readonly limits: CheckpointLimits,
  ) {}

  collect(root: PickleValue): Map<string, Tensor> {
    this.visit(root, '', 0);
    return this.found;
  }

  private visit(value: PickleValue, path: string, depth: number): void {
    // A memo can make few bytes into a huge or endless tree: both bounds end the walk.
    if (depth > this.limits.maxDepth) {
      throw new ScrimError('LIMIT_EXCEEDED', `checkpoint: nested deeper than ${this.limits.maxDepth}`);
    }
    if (++this.visits > 20 * this.limits.maxTensors) {
      throw new ScrimError('LIMIT_EXCEEDED', `checkpoint: more than ${20 * this.limits.maxTensors} values`);
    }
    if (isDict(value)) {
      for (const [key, item] of value.entries) this.visit(item, join(path, String(key)), depth + 1);
    } else if (isSequence(value)) {
      value.items.forEach((item, i) => {
        this.visit(item, join(path, String(i)), depth + 1);
      });
    } else if (isObject(value) && value.value instanceof TensorMark) {
      this.add(path, value.value.reference);
    }
  }

  private add(path: string, reference: TensorReference): void {
    if (this.found.size >= this.limits.maxTensors) {
      throw new ScrimError('LIMIT_EXCEEDED', `checkpoint: more than ${this.limits.maxTensors} tensors`);
    }
    if (this.found.has(path)) throw fail(`tensor ${shown(path)} is there twice`);
    const { shape, strides, storage } = reference;
    const size = shape.reduce((product, dimension) => product * dimension, 1);
    this.totalBytes += size * BYTES_PER_ELEMENT[storage.dtype];
    if (!(this.totalBytes <= this.limits.maxTensorBytes)) {
      throw new ScrimError(
        'LIMIT_EXCEEDED',
        `checkpoint: the tensors up to ${shown(path)} have more than ${this.limits.maxTensorBytes} bytes`,
      );
    }
    const source = this.elements(storage);
    const start = storage.viewOffset + reference.offset;
    const last = start + shape.reduce((sum, dimension, axis) => sum + (dimension - 1) * strides[axis]!, 0);
    if (size > 0 && !(last < source.length)) throw fail(`tensor ${shown(path)} reaches outside its storage`);
    const data = size === 0 ? source.slice(0, 0) : gather(source, start, shape, strides, size);
    this.found.set(path, tensor(storage.dtype, shape, data as TensorArrays[StorageType]) as Tensor);
  }

  private elements(reference: StorageReference): TensorArrays[StorageType] {
    const cached = this.arrays.get(reference.key);
    const width = BYTES_PER_ELEMENT[reference.dtype];
    if (cached !== undefined) {
      if (cached.constructor !== ARRAYS[reference.dtype]) {
        throw fail(`storage ${shown(reference.key)} has two element types`);
      }
      return cached;
    }
    const bytes = this.storage(reference);
    if (bytes.length % width !== 0 || bytes.length < reference.length * width) {
      throw fail(`storage ${shown(reference.key)} has ${bytes.length} bytes, ${reference.length * width} were stated`);
    }
    // A fresh array: aligned, and not Buffer's slice(), which would share memory.
    const array = new ARRAYS[reference.dtype](new Uint8Array(bytes).buffer);
    this.arrays.set(reference.key, array);
    return array;
  }
}

const ARRAYS: Readonly<Record<StorageType, new (buffer: ArrayBuffer) => TensorArrays[StorageType]>> = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
};

/** Copies the elements `start + Σ iₐ·strideₐ` into row-major order. */
function gather<A extends TensorArrays[StorageType]>(
  source: A,
  start: number,
  shape: readonly number[],
  strides: readonly number[],
  size: number,
): A {
  let expected = 1;
  let contiguous = true;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) contiguous = false;
    expected *= shape[axis]!;
  }
  if (contiguous) return source.slice(start, start + size) as A;

  const result = new (source.constructor as new (length: number) => A)(size);
  const counter = new Array<number>(shape.length).fill(0);
  let at = start;
  for (let i = 0; i < size; i++) {
    result[i] = source[at]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++counter[axis]! < shape[axis]!) break;
      at -= shape[axis]! * strides[axis]!;
      counter[axis] = 0;
    }
  }
  return result;
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}

/** `text` as it may stand in a message. */
function shown(text: string): string {
  return `'${text.slice(0, 120).replace(/[^\x20-\x7e]/g, '?')}'`;
}
