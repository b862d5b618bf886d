"""Times PyTorch's gradient step of FaceBoxes' tail, one round at a time on request.

Reads lines of JSON from stdin: {"batch", "pool", "weights", "threads", "steps"}; answers each with
{"ms": [per step], "loss", "norm": of the gradient by x} on stdout. Started by bench/gradient-step.mjs.
"""

import json
import sys
import time

import torch

from faceboxes_tail import Tail

tails = {}
print(json.dumps({"version": torch.__version__}), flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    torch.set_num_threads(ask["threads"])
    key = (ask["batch"], ask["pool"])
    if key not in tails:
        tails[key] = Tail(ask["batch"], pool=ask["pool"])
    times = []
    for _ in range(ask["steps"]):
        start = time.perf_counter()
        loss, gradients = tails[key].step(ask["weights"])
        times.append((time.perf_counter() - start) * 1000)
    print(json.dumps({"ms": times, "loss": float(loss), "norm": float(gradients["x"].norm())}), flush=True)
