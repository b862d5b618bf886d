"""Writes faceboxes-tail.json: loss and gradients of the small FaceBoxes tail, by PyTorch in double precision.

Run from the repository's root with a Python that has numpy and torch:
    python3 test/vectors/autodiff/make.py

For each pooling and every value differentiated by (the input and all weights): the Euclidean norm of the gradient, and
its elements at evenly spaced positions (200 of the input, 12 of each weight).
"""

import json
import pathlib
import sys

import torch

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[2] / "bench" / "peers"))

from faceboxes_tail import Tail  # noqa: E402


def probe(gradient, count):
    flat = gradient.detach().reshape(-1)
    count = min(count, len(flat))
    values = [float(f"{flat[i * len(flat) // count]:.7g}") for i in range(count)]
    return {"norm": float(f"{gradient.norm():.9g}"), "values": values}


cases = {}
for pool in ("average", "max"):
    loss, gradients = Tail(2, "small", pool, torch.float64).step(True)
    cases[pool] = {
        "loss": float(f"{loss:.9g}"),
        "gradients": {name: probe(value, 200 if name == "x" else 12) for name, value in gradients.items()},
    }
document = {"made_by": f"PyTorch {torch.__version__.split('+')[0]}, float64", "batch": 2, "cases": cases}
text = json.dumps(document, separators=(",", ":"))
(here / "faceboxes-tail.json").write_text(text.replace('"conv', '\n"conv').replace('"average"', '\n"average"').replace('"max"', '\n"max"') + "\n")
