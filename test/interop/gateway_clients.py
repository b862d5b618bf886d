"""tritonclient through `scrim gateway` to a remote server that has the tail alone: nothing but the URL is new to the client.

Usage: gateway_clients.py HTTP_ADDRESS GRPC_ADDRESS MODEL SIDE PHOTO... Sends each photo as its file's bytes and as the
model's input tensor, over HTTP and gRPC, and compares how many anchors look like a face.
"""
import io
import sys

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from PIL import Image

HTTP, GRPC, MODEL, SIDE = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def pixels(data):
    """The model's own preprocessing: stretched, [-1, 1], NCHW."""
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
    return ((np.asarray(image, np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None].copy()


def faces(result):
    scores = result.as_numpy("conf")
    assert scores.shape[0] == 1 and scores.shape[2] == 2, scores.shape
    assert result.as_numpy("loc").shape == (1, scores.shape[1], 4)
    return int((scores[0, :, 1] > 0.5).sum())


for name, library, url in (("HTTP", http, HTTP), ("gRPC", grpc, GRPC)):
    client = library.InferenceServerClient(url)
    assert client.is_server_ready() and client.is_model_ready(MODEL)
    metadata = client.get_model_metadata(MODEL)
    inputs = metadata["inputs"] if name == "HTTP" else metadata.inputs
    assert (inputs[0]["name"] if name == "HTTP" else inputs[0].name) == "image"
    found = []
    for path in sys.argv[5:]:
        data = open(path, "rb").read()
        encoded = library.InferInput("image", [1], "BYTES")
        encoded.set_data_from_numpy(np.array([data], dtype=object))
        tensor = pixels(data)
        plain = library.InferInput("image", list(tensor.shape), "FP32")
        plain.set_data_from_numpy(tensor)
        options = [{}] if name == "gRPC" else [{}, {"request_compression_algorithm": "gzip"}]
        counts = [faces(client.infer(MODEL, [value], **option)) for value in (encoded, plain) for option in options]
        assert min(counts) > 0, (path, counts)
        found.append("/".join(map(str, counts)))
    print(f"  ok {name} through the gateway: anchors on faces, by photo: {', '.join(found)}", flush=True)
    client.close()
