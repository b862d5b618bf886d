# Writes the vectors beside this file: messages made by Python's tritonclient, which this project did not write.
#   python -m venv V && V/bin/pip install 'tritonclient[all]==2.73.0' && V/bin/python test/vectors/protocol/generate.py
import base64, gzip, importlib.metadata, json, os, zlib
import ml_dtypes, numpy as np
import tritonclient.http as http, tritonclient.grpc as grpc
from tritonclient.http._utils import _get_inference_request as http_request
from tritonclient.grpc._utils import _get_inference_request as grpc_request
from tritonclient.grpc import service_pb2 as pb, model_config_pb2 as cfg
from google.protobuf import text_format, json_format

here = os.path.dirname(os.path.abspath(__file__))
COMMAND = f"tritonclient {importlib.metadata.version('tritonclient')}: python test/vectors/protocol/generate.py"
b64 = lambda b: base64.b64encode(bytes(b)).decode()

VALUES = {
    "BOOL": np.array([[True, False, True]]),
    "INT8": np.array([[-128, 0, 127]], np.int8),
    "UINT8": np.array([[0, 1, 255]], np.uint8),
    "INT16": np.array([[-32768, 1, 32767]], np.int16),
    "UINT16": np.array([[0, 1, 65535]], np.uint16),
    "INT32": np.array([[-(2**31), 1, 2**31 - 1]], np.int32),
    "UINT32": np.array([[0, 1, 2**32 - 1]], np.uint32),
    "INT64": np.array([[-(2**63), 2**53 + 1, 2**63 - 1]], np.int64),
    "UINT64": np.array([[0, 2**53 + 1, 2**64 - 1]], np.uint64),
    "FP16": np.array([[-1.5, 0.0999755859375, 65504]], np.float16),
    "BF16": np.array([[-1.5, 0.1, 3e38]], ml_dtypes.bfloat16),
    "FP32": np.array([[0.1, -0.0, 3.4028234663852886e38, 1e-45, np.nan, np.inf, -np.inf]], np.float32),
    "FP64": np.array([[0.1, -0.0, 1.7976931348623157e308, 5e-324, np.nan, np.inf, -np.inf]], np.float64),
    "BYTES": np.array([[b"", b"plain", "grün 🎭".encode()]], np.object_),
}

def raw(value, datatype):
    """The elements as the wire has them, as an independent statement of what was sent."""
    if datatype == "BYTES":
        return b"".join(len(e).to_bytes(4, "little") + e for e in value.flatten())
    return value.tobytes()

def http_vector(name, datatype, value, binary, **settings):
    tensor = http.InferInput("IN", list(value.shape), datatype)
    tensor.set_data_from_numpy(value, binary_data=binary)
    arguments = dict(request_id="", outputs=None, sequence_id=0, sequence_start=False, sequence_end=False,
                     priority=0, timeout=None, custom_parameters=None)
    arguments.update(settings)
    body, length = http_request([tensor], **arguments)
    return {"name": name, "datatype": datatype, "shape": list(value.shape), "raw": b64(raw(value, datatype)),
            "headerLength": length, "body": b64(body)}

requests = []
for datatype, value in VALUES.items():
    requests.append(http_vector(f"{datatype} binary", datatype, value, True))
    if datatype not in ("FP16", "BF16"):
        requests.append(http_vector(f"{datatype} json", datatype, value, False))
requests.append(http_vector("BYTES not UTF-8", "BYTES", np.array([b"\xff\x00\xfe"], np.object_), True))
requests.append(http_vector("scalar", "FP32", np.array(1.5, np.float32).reshape(()), True))
requests.append(http_vector("empty", "FP32", np.zeros((0, 3), np.float32), True))
full = http_vector("every setting", "FP32", np.array([1.0, 2.0], np.float32), True,
    request_id="id-1",
    outputs=[http.InferRequestedOutput("A", binary_data=False), http.InferRequestedOutput("B", binary_data=True, class_count=3)],
    sequence_id=2**63 + 5, sequence_start=True, sequence_end=False, priority=7, timeout=250_000,
    custom_parameters={"mode": "fast", "depth": 3, "ratio": 0.25, "on": True, "whole": 1.0})
requests.append(full)
encoded = http_vector("compressed", "FP32", np.arange(64, dtype=np.float32), False)
body = base64.b64decode(encoded["body"])
compressed = {"plain": encoded["body"], "gzip": b64(gzip.compress(body, mtime=0)), "deflate": b64(zlib.compress(body))}
json.dump({"command": COMMAND, "requests": requests, "compressed": compressed},
          open(os.path.join(here, "http.json"), "w"), indent=1)

def grpc_vector(name, datatype, value, **settings):
    tensor = grpc.InferInput("IN", list(value.shape), datatype)
    tensor.set_data_from_numpy(value)
    arguments = dict(request_id="", outputs=None, sequence_id=0, sequence_start=False, sequence_end=False,
                     priority=0, timeout=None, parameters=None)
    arguments.update(settings)
    message = grpc_request("m", [tensor], "", **arguments)
    return {"name": name, "datatype": datatype, "shape": list(value.shape), "raw": b64(raw(value, datatype)),
            "message": b64(message.SerializeToString(deterministic=True))}

messages = [grpc_vector(d, d, v) for d, v in VALUES.items()]
messages.append(grpc_vector("every setting", "FP32", np.array([1.0, 2.0], np.float32), request_id="id-1",
    outputs=[grpc.InferRequestedOutput("A"), grpc.InferRequestedOutput("B", class_count=3)],
    sequence_id="seq", sequence_start=True, sequence_end=False, priority=7, timeout=250_000,
    parameters={"mode": "fast", "depth": 3, "ratio": 0.25, "on": True, "whole": 1.0}))

FIELDS = {"BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
          "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
          "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}
typed = []
for datatype, field in FIELDS.items():
    value = VALUES[datatype]
    message = pb.ModelInferRequest(model_name="m")
    entry = message.inputs.add(name="IN", datatype=datatype, shape=value.shape)
    getattr(entry.contents, field).extend(value.flatten().tolist())
    typed.append({"name": datatype, "datatype": datatype, "shape": list(value.shape), "raw": b64(raw(value, datatype)),
                  "message": b64(message.SerializeToString(deterministic=True))})

statistics = pb.ModelStatisticsResponse()
entry = statistics.model_stats.add(name="m", version="3", last_inference=1700000000123,
                                   inference_count=2**53 + 1, execution_count=9)
for i, step in enumerate(("success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
                          "cache_hit", "cache_miss")):
    getattr(entry.inference_stats, step).count = i
    getattr(entry.inference_stats, step).ns = 2**64 - 1 - i
entry.batch_stats.add(batch_size=4).compute_infer.ns = 12
entry.response_stats["0"].cancel.count = 2
entry.memory_usage.add(type="CPU", id=0, byte_size=2**40)
json.dump({"command": COMMAND, "raw": messages, "typed": typed,
           "statistics": b64(statistics.SerializeToString(deterministic=True))},
          open(os.path.join(here, "grpc.json"), "w"), indent=1)

CONFIGS = [
'''name: "tail"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 128, 32, 32 ] } ]
output [
  { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ -1, 4 ] },
  { name: "OUTPUT__1", data_type: TYPE_FP32; dims: [ -1, 2 ]; label_filename: 'labels.txt' }
]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy < timeout_action: DELAY default_timeout_microseconds: 5000000000000 max_queue_size: 16 >
  priority_levels: 2 default_priority_level: 1
  priority_queue_policy { key: 2 value { max_queue_size: 4 } }
}
version_policy: { specific { versions: [ 1, 3 ] } }
parameters { key: "tune" value: { string_value: "a\\tb\\303\\274" "c" } }
parameters: { key: "other", value: { string_value: 'd"' } }
model_warmup [ { name: "zero" batch_size: 1 inputs { key: "INPUT__0" value: { data_type: TYPE_FP32 dims: 128 dims: 32 dims: 32 zero_data: true } } } ]
''',
'''# every number form
backend: "onnxruntime"   # trailing comment
max_batch_size: 0x10
input { name: "x" data_type: 11 format: FORMAT_NCHW dims: 010 dims: -1 reshape { shape: [] } optional: t }
output { name: "y" data_type: TYPE_STRING dims: [1] }
sequence_batching { direct { minimum_slot_utilization: 1.5e-1f max_queue_delay_microseconds: 18446744073709551615 }
  control_input { name: "start" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1.0 ] } }
  control_input [ { name: "end" control [ { kind: CONTROL_SEQUENCE_END bool_false_true: [ false, True ] } ] } ] }
model_metrics { metric_control { metric_identifier { family: "nv" } histogram_options { buckets: [ .5, 1., inf, -INF, 1e3 ] } } }
optimization { cuda { graphs: true graph_spec { batch_size: 1 input { key: "x" value { dim: [ 1, 2 ] } } } } }
''',
'',
'name: "u\\u00fc\\U0001F3AD\\x41\\101"\nversion_policy { all {} }\nmetric_tags { key: "a" value: "b" }',
]
BAD = ['name: 1', 'nme: "x"', 'name: "a" name: "b"', 'max_batch_size: 1.5', 'max_batch_size: 2147483648',
       'input { dims: 9223372036854775808 }', 'input { data_type: TYPE_NONE }', 'version_policy { all {} latest {} }',
       'input {', 'input { > ', 'name "x"', 'name: "x', '[a.b]: 1', 'max_batch_size: [1]', 'name: "\\400"',
       'dynamic_batching {} dynamic_batching {}', 'dynamic_batching {} sequence_batching {}', 'max_batch_size: 08',
       'optimization { cuda { graphs: maybe } }', 'input { dims: [1, ] }', 'name: "\\xff"', 'max_batch_size: "1"',
       'sequence_batching { direct { minimum_slot_utilization: 0x1 } }', 'name: "a";; backend: "b"', 'name:']
good = []
for text in CONFIGS:
    message = text_format.Parse(text, cfg.ModelConfig())
    good.append({"text": text, "message": b64(message.SerializeToString(deterministic=True)),
                 "json": json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)})
for text in BAD:
    try:
        text_format.Parse(text, cfg.ModelConfig())
    except text_format.ParseError:
        continue
    raise SystemExit(f"Python reads {text!r}")
json.dump({"command": COMMAND, "good": good, "bad": BAD}, open(os.path.join(here, "config.json"), "w"), indent=1)
