"""Times what NumPy and PyTorch need for z + mu + sigma * normal, one round at a time on request.

Says first which cases it has and what is missing. Then reads lines of JSON from stdin: {"case", "shape", "runs"}, and
answers each with {"ms": [per run]} on stdout. One thread. Started by bench/obfuscation.mjs.
"""

import json
import sys
import time

cases = {}
versions = {}
missing = []
SEED = 1


def arrays(shape, ones):
    channels = [1, shape[1], 1, 1]
    return ones(shape), ones(channels), ones(channels)


try:
    import numpy

    versions["numpy"] = numpy.__version__

    def with_numpy(draw):
        def prepare(shape):
            z, mu, sigma = arrays(shape, lambda s: numpy.full(s, 0.5, dtype=numpy.float32))
            return lambda: z + mu + sigma * draw(shape)

        return prepare

    legacy = numpy.random.RandomState(SEED)
    generator = numpy.random.default_rng(SEED)
    cases["numpy.random.normal (float64)"] = with_numpy(lambda shape: legacy.normal(size=shape))
    cases["numpy Generator.normal (float64)"] = with_numpy(lambda shape: generator.normal(size=shape))
    cases["numpy Generator.standard_normal (float32)"] = with_numpy(
        lambda shape: generator.standard_normal(shape, dtype=numpy.float32)
    )
except ImportError:
    missing.append("numpy")

try:
    import torch

    versions["torch"] = torch.__version__
    torch.set_num_threads(1)
    torch.manual_seed(SEED)

    def torch_randn(shape):
        z, mu, sigma = arrays(shape, lambda s: torch.full(s, 0.5))
        return lambda: z + mu + sigma * torch.randn(shape)

    def torch_in_place(shape):
        z, mu, sigma = arrays(shape, lambda s: torch.full(s, 0.5))
        noise = torch.empty(shape)
        return lambda: noise.normal_().mul_(sigma).add_(mu).add_(z)

    cases["torch.randn, new tensors (float32)"] = torch_randn
    cases["torch normal_, in place (float32)"] = torch_in_place
except ImportError:
    missing.append("torch")

prepared = {}
print(json.dumps({"cases": list(cases), "versions": versions, "missing": missing}), flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    if ask["case"] not in prepared:
        prepared[ask["case"]] = cases[ask["case"]](ask["shape"])
    times = []
    for _ in range(ask["runs"]):
        start = time.perf_counter()
        prepared[ask["case"]]()
        times.append((time.perf_counter() - start) * 1000)
    print(json.dumps({"ms": times}), flush=True)
