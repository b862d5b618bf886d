import { create, type DescMessage, type Message } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ScrimError } from '../errors.js';
import {
  configPb,
  createLimits,
  formatModelConfig,
  formatText,
  type ModelConfig,
  parseModelConfig,
  parseTextFormat,
  pb,
} from './index.js';

const { DataType, ModelConfigSchema, ModelInstanceGroup_Kind } = configPb;
function refusal(run: () => unknown): ScrimError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(ScrimError);
    return error as ScrimError;
  }
  throw new Error('nothing was thrown');
}

const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
// protobuf-es takes −0 in a field without presence for the default and leaves it out.
const fraction = fc.float().filter((value) => !Object.is(value, -0));
const text = fc.string({ unit: 'binary' }).filter((value) => value.isWellFormed());
const name = fc.constantFrom('a', 'b"', 'ü', '\n', '\\x41', '');
const configs: fc.Arbitrary<ModelConfig> = fc
  .record(
    {
      name: text,
      maxBatchSize: fc.integer(),
      input: fc.array(
        fc.record({
          name: text,
          dataType: fc.constantFrom(DataType.TYPE_FP32, DataType.TYPE_STRING),
          dims: fc.array(int64),
          optional: fc.boolean(),
        }),
        { maxLength: 2 },
      ),
      instanceGroup: fc.array(
        fc.record({ kind: fc.constantFrom(ModelInstanceGroup_Kind.KIND_CPU, 0), gpus: fc.array(fc.integer()) }),
        { maxLength: 2 },
      ),
      parameters: fc.dictionary(name, fc.record({ stringValue: text })),
      metricTags: fc.dictionary(name, text),
      schedulingChoice: fc.oneof(
        fc.record({
          case: fc.constant('dynamicBatching' as const),
          value: fc.record({
            maxQueueDelayMicroseconds: uint64,
            priorityQueuePolicy: fc.dictionary(
              uint64.map(String),
              fc.record({ maxQueueSize: fc.integer({ min: 0, max: 2 ** 32 - 1 }) }),
            ),
          }),
        }),
        fc.record({
          case: fc.constant('sequenceBatching' as const),
          value: fc.record({
            strategyChoice: fc.record({
              case: fc.constant('direct' as const),
              value: fc.record({ minimumSlotUtilization: fraction }),
            }),
          }),
        }),
      ),
      versionPolicy: fc.record({
        policyChoice: fc.record({ case: fc.constant('all' as const), value: fc.constant({}) }),
      }),
      modelMetrics: fc.record({
        metricControl: fc.array(
          fc.record({
            metricOptions: fc.record({
              case: fc.constant('histogramOptions' as const),
              value: fc.record({ buckets: fc.array(fc.double()) }),
            }),
          }),
          { maxLength: 2 },
        ),
      }),
    },
    { requiredKeys: [] },
  )
  .map((fields) => create(ModelConfigSchema, fields as never));

describe('the text format', () => {
  it('reads what it writes, and writes it again', () => {
    fc.assert(
      fc.property(configs, (config) => {
        const written = formatModelConfig(config);
        const read = parseModelConfig(written);
        expect(read).toEqual(config);
        expect(formatModelConfig(read)).toBe(written);
      }),
      { seed: 11, numRuns: 300 },
    );
  });

  it('does so for messages of any type', () => {
    const cases: [DescMessage, object][] = [
      [
        pb.InferTensorContentsSchema,
        {
          boolContents: [true, false],
          bytesContents: [Uint8Array.of(0, 34, 92, 200, 255)],
          fp32Contents: [Math.fround(0.1), -0, Number.NaN],
        },
      ],
      [pb.InferParameterSchema, { parameterChoice: { case: 'doubleParam', value: 0 } }],
      [pb.InferParameterSchema, { parameterChoice: { case: 'boolParam', value: false } }],
      [
        pb.ModelInferRequestSchema,
        { parameters: { x: { parameterChoice: { case: 'uint64Param', value: 2n ** 64n - 1n } } } },
      ],
      [pb.ServerLiveRequestSchema, {}],
    ];
    for (const [schema, fields] of cases) {
      const message = create(schema, fields) as Message;
      expect(parseTextFormat(schema, formatText(schema, message))).toEqual(message);
    }
  });

  it('has one canonical form', () => {
    const config = parseModelConfig(`${`
      output [{name:'y' dims:[1]}, <name:"z">];;`.replace(';;', ';')}
      input: { name: "x" "\\x79", data_type: 11; dims: 0x10 dims: 010 }  # a comment
      parameters { key: "b" value { string_value: "\\303\\274\\n" } } parameters { value {} key: "a" }
      max_batch_size: -0 model_warmup [] instance_group [ { count: 2 kind: KIND_CPU } ]
      sequence_batching { direct { minimum_slot_utilization: 1.5E-1f } }`);
    expect(formatModelConfig(config)).toBe(
      `input {
  name: "xy"
  data_type: TYPE_FP32
  dims: [16, 8]
}
output {
  name: "y"
  dims: [1]
}
output {
  name: "z"
}
instance_group {
  kind: KIND_CPU
  count: 2
}
sequence_batching {
  direct {
    minimum_slot_utilization: 0.15
  }
}
parameters {
  key: "a"
  value {
  }
}
parameters {
  key: "b"
  value {
    string_value: "ü\\n"
  }
}
`.replace('  kind: KIND_CPU\n  count: 2\n', '  count: 2\n  kind: KIND_CPU\n'),
    );
    expect(formatModelConfig(parseModelConfig(''))).toBe('');
  });

  it.each([
    ['name: 1', '1:7', "'name' needs a string"],
    ['\n\n  nme: "x"', '3:3', "no field 'nme'"],
    ['name: "a"\nname: "b"', '2:1', 'given twice'],
    ['max_batch_size: 0 max_batch_size: 0', '1:19', 'given twice'],
    ['max_batch_size: 2147483648', '1:17', 'out of range'],
    ['input { dims: -9223372036854775809 }', '1:16', 'out of range'],
    ['input { data_type: TYPE_NONE }', '1:20', "no value 'TYPE_NONE'"],
    ['input { data_type: 99 }', '1:20', 'no value with that number'],
    ['version_policy { all {} latest {} }', '1:25', 'exclude each other'],
    ['input {', '1:8', "where '}' should be"],
    ['input { > ', '1:9', 'expected the name'],
    ['input < } ', '1:9', 'expected the name'],
    ['name "x"', '1:6', "expected ':'"],
    ['name: "x', '1:7', 'does not end'],
    ['name: "x\n"', '1:7', 'does not end'],
    ['[a.b]: 1', '1:1', 'Any are not supported'],
    ['[type.googleapis.com/a.B] {}', '1:1', 'Any are not supported'],
    ['max_batch_size: [1]', '1:17', 'needs an integer'],
    ['max_batch_size: 1a', '1:17', 'does not end'],
    ['max_batch_size: 08', '1:17', 'does not end'],
    ['max_batch_size: 1.5', '1:17', 'needs an integer'],
    [`max_batch_size: ${'1'.repeat(5000)}`, '1:17', 'out of range'],
    ['name: "\\400"', '1:7', 'octal'],
    ['name: "\\q"', '1:7', 'unknown escape'],
    ['name: "\\ud800"', '1:7', 'no character'],
    ['name: "\\xff"', '1:7', 'not valid UTF-8'],
    ['parameters { key: "a" key: "b" }', '1:23', 'given twice'],
    ['metric_tags { key: "a" } metric_tags { key: "a" }', '1:38', 'same key twice'],
    ['metric_tags { ke: "a" }', '1:15', "expected 'key'"],
    ['input { dims: [1, ] }', '1:19', 'needs an integer'],
    ['input { dims: [1 2] }', '1:18', "expected ',' or ']'"],
    ['optimization { cuda { graphs: 2 } }', '1:31', 'true or false'],
    ['name: "a" ;; backend: "b"', '1:12', 'expected the name'],
    ['§', '1:1', 'no meaning'],
  ])('refuses %j at %s', (source, place, message) => {
    const error = refusal(() => parseModelConfig(source, { what: 'file' }));
    expect(error.code).toBe('INVALID_DATA');
    expect(error.message).toContain(message);
    expect(error.message.startsWith(`file:${place}: `), error.message).toBe(true);
  });

  it('has limits', () => {
    const nested = (levels: number) => () =>
      parseTextFormat(ModelConfigSchema, 'optimization { cuda { graph_spec { '.repeat(1) + '}'.repeat(3), {
        limits: createLimits({ maxDepth: levels }),
      });
    expect(nested(4)()).toBeDefined();
    expect(refusal(nested(3)).code).toBe('LIMIT_EXCEEDED');
    const many = createLimits({ maxValues: 5 });
    expect(refusal(() => parseModelConfig('input { dims: [1,2,3,4,5] }', { limits: many })).code).toBe(
      'LIMIT_EXCEEDED',
    );
    // A pattern over white space and comments used to run out of stack on this.
    const long = `${'#\n'.repeat(2 ** 21)}name: "m"`;
    expect(formatText(ModelConfigSchema, parseTextFormat(ModelConfigSchema, long))).toBe('name: "m"\n');
    expect(refusal(() => parseModelConfig(long)).code).toBe('LIMIT_EXCEEDED');
    expect(refusal(() => parseModelConfig('name: "" "" "" "" "" ""', { limits: many })).code).toBe('LIMIT_EXCEEDED');
    expect(refusal(() => parseModelConfig(' '.repeat(11), { limits: createLimits({ maxBytes: 10 }) })).code).toBe(
      'LIMIT_EXCEEDED',
    );
  });

  it('never does anything but fail on noise', () => {
    const words = [
      'name',
      'input',
      'dims',
      'key',
      'value',
      'parameters',
      'version_policy',
      'all',
      ':',
      '{',
      '}',
      '<',
      '>',
      '[',
      ']',
      ',',
      ';',
      '-',
      '1',
      '0x',
      '1e',
      '.',
      '"a"',
      "'",
      '"',
      '\\',
      '#',
      '\n',
      ' ',
      'nan',
      'TYPE_FP32',
      '\u0000',
      '🎭',
    ];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...words), { maxLength: 40 }), (parts) => {
        try {
          parseModelConfig(parts.join(' '));
        } catch (error) {
          expect(error).toBeInstanceOf(ScrimError);
        }
      }),
      { seed: 12, numRuns: 3000 },
    );
  });
});
