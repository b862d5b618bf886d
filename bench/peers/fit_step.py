"""Times PyTorch's step of a bottleneck fit, one round at a time on request; on CUDA where it is there.

The same networks, losses and optimizer as `fitBottleneck`. Reads lines of JSON from stdin: {"batch", "adversary",
"steps", "warm"}; answers each with {"ms": [per step]} on stdout. Started by bench/fit-step.mjs.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from faceboxes_tail import Tail

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BETA, EXAMPLES, PICTURE, WIDTH = 0.1, 48, 128, 64


class Answering(Tail):
    """The tail with its answers instead of its loss."""

    def answer(self, x, weights):
        layers = iter(self.layers)

        def conv(value, relu=True):
            name, stride, padding = next(layers)
            y = F.conv2d(value, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding)
            return F.relu(y) if relu else y

        def inception(value):
            pooled = F.avg_pool2d(value, 3, 1, 1)
            return torch.cat([conv(value), conv(pooled), conv(conv(value)), conv(conv(conv(value)))], 1)

        first = inception(inception(inception(x)))
        second = conv(conv(first))
        third = conv(conv(second))

        def head(width):
            parts = [conv(source, False).permute(0, 2, 3, 1) for source in (first, second, third)]
            return torch.cat([part.reshape(len(x), -1, width) for part in parts], 1)

        return head(4), head(2)


def stack(*layers):
    return nn.Sequential(*layers).to(device)


class Fit:
    """Encoder, noise, expansion and tail under training, and the adversary where it is asked for."""

    def __init__(self, batch, adversary):
        torch.manual_seed(1)
        self.batch, self.adversary = batch, adversary
        tail = Answering(1)
        self.tail = tail
        self.weights = {name: value.to(device).requires_grad_() for name, value in tail.weights.items()}
        self.encoder = stack(
            nn.Conv2d(128, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 8, 1)
        )
        self.expansion = stack(nn.Conv2d(8, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 1))
        self.rho = torch.full((1, 8, 1, 1), math.log(0.5), device=device, requires_grad=True)
        self.examples = torch.randn(EXAMPLES, 128, 32, 32, device=device).relu()
        self.pictures = torch.rand(EXAMPLES, 3, PICTURE, PICTURE, device=device)
        with torch.no_grad():
            boxes, logits = tail.answer(self.examples, self.weights)
        self.boxes, self.scores = boxes, logits.softmax(-1)
        main = [*self.encoder.parameters(), *self.expansion.parameters(), self.rho]
        groups = [{"params": main, "lr": 2e-3}, {"params": list(self.weights.values()), "lr": 5e-4}]
        self.opponent = []
        if adversary:
            layers = [nn.Conv2d(8, WIDTH, 3, padding=1), nn.ReLU()]
            for _ in range(2):
                layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
            for _ in range(2):
                layers += [nn.Conv2d(WIDTH, 4 * WIDTH, 3, padding=1), nn.PixelShuffle(2), nn.ReLU()]
            self.decoder = stack(*layers, nn.Conv2d(WIDTH, 3, 3, padding=1))
            self.opponent = list(self.decoder.parameters())
            groups.append({"params": self.opponent, "lr": 2e-3})
        self.mine = [*main, *self.weights.values()]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self.average = [value.detach().clone() for value in [*self.mine, *self.opponent]]
        self.mean = self.pictures.mean(0)
        self.spread = (self.pictures - self.mean).square().mean()

    def step(self):
        index = torch.randint(EXAMPLES, (self.batch,), device=device)
        h0 = 3 * torch.tanh(self.encoder(self.examples[index]) / 3)
        sigma = self.rho.exp()
        h = h0 + sigma * torch.randn_like(h0)
        boxes, logits = self.tail.answer(self.expansion(h), self.weights)
        teacher = self.scores[index]
        positive = (teacher[..., 1:] > 0.3).float()
        count = positive.sum().clamp(min=1)
        divergence = (teacher * (teacher.clamp(min=1e-9).log() - logits.log_softmax(-1))).sum()
        shift = F.smooth_l1_loss(boxes, self.boxes[index], reduction="none")
        task = (divergence + 2 * (positive * shift).sum()) / count
        variance = h0.var((0, 2, 3), unbiased=False, keepdim=True)
        nats = 0.5 * 1024 * (1 + variance / sigma.square()).log().sum()
        loss = task + BETA * nats / 1000
        if self.adversary:
            rebuilt = self.decoder(h)
            loss = loss + self.adversary * rebuilt.square().mean() / self.spread
            target = self.pictures[index] - self.mean
            own = (rebuilt - target).square().mean() / self.spread
            theirs = torch.autograd.grad(own, self.opponent, retain_graph=True)
            gradients = [*torch.autograd.grad(loss, self.mine), *theirs]
        else:
            gradients = torch.autograd.grad(loss, self.mine)
        values = [*self.mine, *self.opponent]
        for value, gradient in zip(values, gradients):
            value.grad = gradient
        nn.utils.clip_grad_norm_(values, 5)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [value.detach() for value in values], 0.002)
        return float(loss.detach())


fits = {}
name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
print(json.dumps({"version": torch.__version__, "device": name}), flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    key = (ask["batch"], ask["adversary"])
    fit = fits.setdefault(key, None) or Fit(*key)
    fits[key] = fit
    times = []
    for i in range(ask["warm"] + ask["steps"]):
        start = time.perf_counter()
        fit.step()
        if i >= ask["warm"]:
            times.append((time.perf_counter() - start) * 1000)
    print(json.dumps({"ms": times}), flush=True)
