"""The network of bench/faceboxes-tail.mjs in PyTorch, number for number (needs numpy and torch)."""

import math

import numpy
import torch
import torch.nn.functional as F

SIZES = {
    "real": dict(space=32, channels=128, branch=32, reduce=24, wide=256, anchors=[21, 1, 1]),
    "small": dict(space=12, channels=32, branch=8, reduce=6, wide=48, anchors=[3, 1, 1]),
}


class Generator:
    """Numbers in [-1, 1): s <- 1664525 s + 1013904223 mod 2^32, s/2^31 - 1."""

    def __init__(self, seed):
        self.state = numpy.uint32(seed)

    def draw(self, count):
        with numpy.errstate(over="ignore"):
            powers = numpy.cumprod(numpy.full(count, 1664525, numpy.uint32), dtype=numpy.uint32)
            shifted = numpy.concatenate([numpy.ones(1, numpy.uint32), powers[:-1]])
            sums = numpy.cumsum(shifted, dtype=numpy.uint32)
            states = powers * self.state + sums * numpy.uint32(1013904223)
        self.state = states[-1]
        return states / 2147483648.0 - 1


class Tail:
    """Weights, feeds and loss. `dtype` float64 gives a reference, float32 the peer of the benchmark."""

    def __init__(self, batch, size="real", pool="average", dtype=torch.float32):
        self.sizes = SIZES[size]
        self.batch, self.pool, self.dtype = batch, pool, dtype
        self.random = Generator(1)
        self.weights = {}
        self.layers = []
        c, b, r, wide = (self.sizes[k] for k in ("channels", "branch", "reduce", "wide"))
        for _ in range(3):
            for inputs, outputs, kernel in [(c, b, 1), (c, b, 1), (c, r, 1), (r, b, 3), (c, r, 1), (r, b, 3), (b, b, 3)]:
                self.layer(inputs, outputs, kernel)
        self.layer(c, c, 1)
        self.layer(c, wide, 3, 2)
        self.layer(wide, c, 1)
        self.layer(c, wide, 3, 2)
        for width in (4, 2):
            for inputs, anchors in zip((c, wide, wide), self.sizes["anchors"]):
                self.layer(inputs, anchors * width, 3)
        space = self.sizes["space"]
        priors = sum(anchors * (space >> i) ** 2 for i, anchors in enumerate(self.sizes["anchors"]))
        self.x = self.tensor((batch, c, space, space), self.random.draw(batch * c * space * space)).abs()
        self.boxes = self.tensor((batch, priors, 4), self.random.draw(batch * priors * 4))
        # In the precision of the fed tensors.
        face = (0.5 + 0.4 * self.random.draw(batch * priors)).astype(numpy.float32)
        scores = numpy.stack([face, (1 - face.astype(numpy.float64)).astype(numpy.float32)], -1)
        self.scores = self.tensor((batch, priors, 2), scores.reshape(-1))

    def tensor(self, shape, values):
        return torch.from_numpy(numpy.asarray(values, numpy.float32).reshape(shape)).to(self.dtype)

    def layer(self, inputs, outputs, kernel, stride=1):
        name = f"conv{len(self.layers)}"
        scale = math.sqrt(6 / (inputs * kernel * kernel))
        count = outputs * inputs * kernel * kernel
        shape = (outputs, inputs, kernel, kernel)
        self.weights[f"{name}.weight"] = self.tensor(shape, self.random.draw(count) * scale)
        self.weights[f"{name}.bias"] = self.tensor((outputs,), self.random.draw(outputs) * 0.1)
        self.layers.append((name, stride, kernel // 2))

    def loss(self, x, weights):
        layers = iter(self.layers)

        def conv(value, relu=True):
            name, stride, padding = next(layers)
            y = F.conv2d(value, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding)
            return F.relu(y) if relu else y

        def inception(value):
            pool = F.max_pool2d if self.pool == "max" else F.avg_pool2d
            return torch.cat(
                [conv(value), conv(pool(value, 3, 1, 1)), conv(conv(value)), conv(conv(conv(value)))], 1
            )

        first = inception(inception(inception(x)))
        second = conv(conv(first))
        third = conv(conv(second))

        def head(width):
            parts = [conv(source, False).permute(0, 2, 3, 1) for source in (first, second, third)]
            return torch.cat([part.reshape(self.batch, -1, width) for part in parts], 1)

        boxes, logits = head(4), head(2)
        cross = (self.scores * F.log_softmax(logits, -1)).sum()
        return ((boxes - self.boxes) ** 2).sum() * 0.01 - cross

    def step(self, by_weights):
        """The loss and its gradients by x, and by every weight if asked."""
        names = list(self.weights) if by_weights else []
        x = self.x.detach().requires_grad_()
        weights = {name: value.detach().requires_grad_(by_weights) for name, value in self.weights.items()}
        loss = self.loss(x, weights)
        gradients = torch.autograd.grad(loss, [x] + [weights[name] for name in names])
        return loss, dict(zip(["x"] + names, gradients))
