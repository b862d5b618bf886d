"""tritonclient over HTTP and gRPC against a v2 server: what TR-4928's client does, and what else clients rely on.

Usage: triton_clients.py HTTP_ADDRESS GRPC_ADDRESS. Prints a line for each thing that worked; fails at the first that did not.
"""
import gzip
import json
import queue
import sys
import urllib.request

import numpy as np
import tritonclient
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

HTTP, GRPC = sys.argv[1], sys.argv[2]
SHAPE = [1, 128, 32, 32]
activation = np.random.default_rng(7).random(SHAPE, dtype=np.float32)


def said(text):
    print(f"  ok {text}", flush=True)


def refused(call, *fragments):
    try:
        call()
    except InferenceServerException as error:
        text = str(error)
        assert all(fragment in text for fragment in fragments), text
        return text
    raise AssertionError("the call was expected to fail")


def document_snippet():
    """The client of TR-4928: JSON in and out, then the statistics."""
    client = http.InferenceServerClient(url=HTTP, verbose=False)
    inputs = [http.InferInput("INPUT__0", SHAPE, "FP32")]
    inputs[0].set_data_from_numpy(activation, binary_data=False)
    outputs = [http.InferRequestedOutput(f"OUTPUT__{i}", binary_data=False) for i in range(2)]
    before = client.get_inference_statistics("faceboxes")
    results = client.infer("faceboxes", inputs, outputs=outputs)
    boxes, scores = results.as_numpy("OUTPUT__0"), results.as_numpy("OUTPUT__1")
    statistics = client.get_inference_statistics("faceboxes")
    assert len(statistics["model_stats"]) == 1, statistics
    success = lambda stats: stats["model_stats"][0]["inference_stats"]["success"]["count"]
    assert success(statistics) == success(before) + 1
    assert boxes.shape[-1] == 4 and scores.shape[-1] == 2, (boxes.shape, scores.shape)
    said(f"TR-4928 snippet: JSON, boxes {boxes.shape}, scores {scores.shape}, one entry in model_stats")
    client.close()
    return boxes, scores


def http_client(expected):
    client = http.InferenceServerClient(url=HTTP, concurrency=4)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("faceboxes")
    assert not client.is_model_ready("nothing")
    metadata = client.get_server_metadata()
    said(f"HTTP server metadata: {metadata['name']} {metadata['version']}, {', '.join(metadata['extensions'])}")
    model = client.get_model_metadata("faceboxes")
    assert model["inputs"][0]["shape"] == [-1, 128, -1, -1] and model["versions"] == ["1"], model
    config = client.get_model_config("faceboxes_batched")
    assert config["max_batch_size"] == 8 and "dynamic_batching" in config, config
    derived = client.get_model_config("tiny")
    assert derived["max_batch_size"] == 4 and derived["input"][0]["dims"] == [4], derived
    said("HTTP metadata and configuration, also derived where config.pbtxt is missing")

    def tensor(binary):
        value = http.InferInput("INPUT__0", SHAPE, "FP32")
        value.set_data_from_numpy(activation, binary_data=binary)
        return [value]

    for name, inputs, outputs, options in [
        ("binary in, all outputs binary", tensor(True), None, {}),
        ("JSON in, binary out", tensor(False), [http.InferRequestedOutput("OUTPUT__0", binary_data=True)], {}),
        ("gzip both ways", tensor(True), None, dict(request_compression_algorithm="gzip", response_compression_algorithm="gzip")),
        ("deflate both ways", tensor(True), None, dict(request_compression_algorithm="deflate", response_compression_algorithm="deflate")),
        ("id, version, priority and timeout", tensor(True), None, dict(request_id="a-1", model_version="1", priority=1, timeout=10_000_000)),
    ]:
        result = client.infer("faceboxes", inputs, outputs=outputs, **options)
        assert np.array_equal(result.as_numpy("OUTPUT__0"), expected[0]), name
        if "request_id" in options:
            assert result.get_response()["id"] == "a-1"
        said(f"HTTP {name}: the same numbers as JSON")
    running = [client.async_infer("faceboxes_batched", tensor(True)) for _ in range(8)]
    for request in running:
        np.testing.assert_allclose(request.get_result().as_numpy("OUTPUT__1"), expected[1], atol=1e-4)
    batches = client.get_inference_statistics("faceboxes_batched")["model_stats"][0]
    said(f"HTTP async_infer: 8 requests in {batches['execution_count']} executions")

    labelled = http.InferInput("INPUT__0", [1, 3], "FP32")
    labelled.set_data_from_numpy(np.array([[0.25, 2.0, 1.0]], np.float32))
    result = client.infer("labelled", [labelled], outputs=[http.InferRequestedOutput("OUTPUT__0", class_count=2)])
    assert result.as_numpy("OUTPUT__0").tolist() == [[b"3.000000:1:dog", b"2.000000:2:bird"]], result.as_numpy("OUTPUT__0")
    said("HTTP classification with labels")
    large = np.array([[2**62 + 1, -(2**62) - 1]], np.int64)
    for binary in (True, False):
        integers = http.InferInput("INPUT__0", [1, 2], "INT64")
        integers.set_data_from_numpy(large, binary_data=binary)
        out = client.infer("integers", [integers], outputs=[http.InferRequestedOutput("OUTPUT__0", binary_data=binary)])
        assert np.array_equal(out.as_numpy("OUTPUT__0"), large + 1)
    said("HTTP INT64 beyond 2^53 is exact, binary and JSON")
    odd = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    special = http.InferInput("INPUT__0", [1, 4], "FP32")
    special.set_data_from_numpy(odd, binary_data=False)
    out = client.infer("tiny", [special], outputs=[http.InferRequestedOutput("OUTPUT__0", binary_data=False)])
    assert np.array_equal(out.as_numpy("OUTPUT__0"), odd + 1, equal_nan=True)
    said("HTTP bare NaN and Infinity both ways")
    words = np.array([["grüße", "世界"]], dtype=object)
    for binary in (True, False):
        text = http.InferInput("INPUT__0", [1, 2], "BYTES")
        text.set_data_from_numpy(words, binary_data=binary)
        out = client.infer("text", [text], outputs=[http.InferRequestedOutput("OUTPUT__0", binary_data=binary)])
        assert [value.decode() if isinstance(value, bytes) else value for value in out.as_numpy("OUTPUT__0").ravel()] == ["grüße", "世界"]
    said("HTTP BYTES, binary and JSON")
    assert {entry["name"]: entry.get("state") for entry in client.get_model_repository_index()}["tiny"] == "READY"
    said("HTTP repository index")
    wrong = http.InferInput("INPUT__0", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros([1, 3], np.float32))
    said("HTTP errors: " + " | ".join([
        refused(lambda: client.infer("nothing", tensor(True)), "[404]", "is not found"),
        refused(lambda: client.infer("tiny", [wrong]), "[400]", "unexpected shape"),
        refused(lambda: client.infer("faceboxes", tensor(True), outputs=[http.InferRequestedOutput("OUTPUT__9")]), "[400]"),
        refused(lambda: client.infer("faceboxes", tensor(True), model_version="9"), "[404]"),
        refused(lambda: client.unload_model("tiny"), "[503]"),
        refused(lambda: client.get_system_shared_memory_status(), "[501]"),
    ]))
    client.close()


def grpc_client(expected):
    client = grpc.InferenceServerClient(url=GRPC)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("faceboxes")
    assert client.get_server_metadata().name and client.get_model_metadata("faceboxes").inputs[0].name == "INPUT__0"
    assert client.get_model_config("faceboxes_batched").config.max_batch_size == 8
    assert len(client.get_inference_statistics("faceboxes").model_stats) == 1
    assert any(model.name == "tiny" and model.state == "READY" for model in client.get_model_repository_index().models)
    said("gRPC health, metadata, configuration, statistics, index")

    def tensor():
        value = grpc.InferInput("INPUT__0", SHAPE, "FP32")
        value.set_data_from_numpy(activation)
        return [value]

    assert np.array_equal(client.infer("faceboxes", tensor()).as_numpy("OUTPUT__0"), expected[0])
    for algorithm in ("gzip", "deflate"):
        result = client.infer("faceboxes", tensor(), compression_algorithm=algorithm)
        assert np.array_equal(result.as_numpy("OUTPUT__1"), expected[1])
    said("gRPC infer, also with gzip and deflate: the same numbers as HTTP")
    answers = queue.Queue()
    for _ in range(4):
        client.async_infer("faceboxes", tensor(), lambda result, error: answers.put((result, error)))
    for _ in range(4):
        result, error = answers.get(timeout=30)
        assert error is None and np.array_equal(result.as_numpy("OUTPUT__0"), expected[0]), error
    said("gRPC async_infer")
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(6):
        value = grpc.InferInput("INPUT__0", [1, 4], "FP32")
        value.set_data_from_numpy(np.full([1, 4], i, np.float32))
        client.async_stream_infer("tiny" if i != 3 else "nothing", [value], request_id=str(i))
    for i in range(6):
        result, error = answers.get(timeout=30)
        if i == 3:
            assert error is not None and "is not found" in str(error), (result, error)
            continue
        assert error is None and result.get_response().id == str(i), (i, error)
        assert (result.as_numpy("OUTPUT__0") == i + 1).all()
    client.stop_stream()
    said("gRPC stream: 6 requests answered in order, one of them with an error that did not end the stream")
    labelled = grpc.InferInput("INPUT__0", [1, 3], "FP32")
    labelled.set_data_from_numpy(np.array([[0.25, 2.0, 1.0]], np.float32))
    result = client.infer("labelled", [labelled], outputs=[grpc.InferRequestedOutput("OUTPUT__0", class_count=1)])
    assert result.as_numpy("OUTPUT__0").tolist() == [[b"3.000000:1:dog"]]
    text = grpc.InferInput("INPUT__0", [1, 2], "BYTES")
    text.set_data_from_numpy(np.array([["a", ""]], dtype=object))
    assert client.infer("text", [text]).as_numpy("OUTPUT__0").tolist() == [[b"a", b""]]
    said("gRPC classification and BYTES")
    said("gRPC errors: " + " | ".join([
        refused(lambda: client.infer("nothing", tensor()), "NOT_FOUND"),
        refused(lambda: client.infer("tiny", tensor()), "INVALID_ARGUMENT"),
        refused(lambda: client.get_system_shared_memory_status(), "UNIMPLEMENTED"),
        refused(lambda: client.infer("faceboxes", tensor(), client_timeout=0.001), "Deadline"),
    ]))
    client.close()


def raw_http():
    """What frameworks refuse and Triton takes: no Content-Type, an index request without a body, compressed JSON."""
    body = json.dumps({"inputs": [{"name": "INPUT__0", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}).encode()
    request = urllib.request.Request(f"http://{HTTP}/v2/models/tiny/infer", gzip.compress(body), {"Content-Encoding": "gzip"})
    request.add_unredirected_header("Content-Type", "")
    answer = json.load(urllib.request.urlopen(request))
    assert answer["outputs"][0]["data"] == [2.0, 3.0, 4.0, 5.0], answer
    index = urllib.request.Request(f"http://{HTTP}/v2/repository/index", method="POST")
    assert len(json.load(urllib.request.urlopen(index))) == 6
    said("plain HTTP: gzip JSON without Content-Type, index without body")


print(f"tritonclient {tritonclient.__version__ if hasattr(tritonclient, '__version__') else ''} against {HTTP} and {GRPC}")
numbers = document_snippet()
http_client(numbers)
grpc_client(numbers)
raw_http()
