"""Metrics: one number for each row of the batch; no gradient flows back from them.

A loss can stand in the place of a metric too.
"""

import numpy as np

from ._kernel import SUMS, THREE, TWO, kernel, part
from ._op import op
from .cross_entropies import flat, with_chances, with_labels
from .losses import forward_views


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=lambda x, target: (x.argmax(axis=1) == target.argmax(axis=1)).astype(x.dtype),
    sample=with_labels,
)
def categorical_accuracy_forward(x, target, out):
    """``out = 1 where the largest output is the largest target``, the first of equals."""
    n = x.shape[1]
    if n == 2:  # vectors along the batch, as in softmax_cross_entropy_forward
        agreement(x, target, out, TWO)
    elif n == 3:
        agreement(x, target, out, THREE)
    else:
        agreement(x, target, out, n)


@part(inline=True)
def agreement(x, target, out, n):
    """The same in rows of ``n``."""
    x, target = flat(x), flat(target)
    for b in range(out.size):
        said, true = 0, 0
        most, truest = x[b * n], target[b * n]
        for c in range(1, n):
            value, wanted = x[b * n + c], target[b * n + c]
            said, most = (c, value) if value > most else (said, most)
            true, truest = (c, wanted) if wanted > truest else (true, truest)
        out[b] = said == true


def categorical_accuracy(op, net, lo, hi):
    """Forward."""
    categorical_accuracy_forward(*forward_views(op, net, lo, hi))


op("categorical_accuracy", "metric", forward=categorical_accuracy)


@kernel(
    "x(batch,n) target(batch,n) threshold() out(batch) -> out",
    reference=lambda x, target, threshold: ((x > threshold) == (target > threshold)).mean(axis=1),
    sample=with_chances,
    fastmath=SUMS,
)
def binary_accuracy_forward(x, target, threshold, out):
    """``out = share of the outputs on the target's side of the threshold``."""
    batch, n = x.shape
    half = x.dtype.type(threshold)
    for b in range(batch):
        right = x.dtype.type(0)
        for c in range(n):
            right += (x[b, c] > half) == (target[b, c] > half)
        out[b] = right / x.dtype.type(n)


def binary_accuracy(op, net, lo, hi):
    """Forward."""
    x, target, out = forward_views(op, net, lo, hi)
    binary_accuracy_forward(x, target, op.threshold, out)


op("binary_accuracy", "metric", forward=binary_accuracy)


def top_k_accuracy_reference(x, target, top):
    true = target.argmax(axis=1)[:, None]
    score = np.take_along_axis(x, true, axis=1)
    before = (x > score) | ((x == score) & (np.arange(x.shape[1]) < true))
    return (before.sum(axis=1) < top).astype(x.dtype)


def with_top(arguments, rng):
    """A classifier's arguments, and how many outputs count."""
    arguments["top"] = int(rng.integers(1, arguments["x"].shape[1] + 1))
    return with_labels(arguments, rng)


@kernel(
    "x(batch,n) target(batch,n) top() out(batch) -> out",
    reference=top_k_accuracy_reference,
    sample=with_top,
)
def top_k_accuracy_forward(x, target, top, out):
    """``out = 1 where the largest target is among the top outputs``, the first of equals."""
    batch, n = x.shape
    for b in range(batch):
        true, truest = 0, target[b, 0]
        for c in range(1, n):
            if target[b, c] > truest:
                true, truest = c, target[b, c]
        before, score = 0, x[b, true]
        for c in range(n):
            before += x[b, c] > score or (x[b, c] == score and c < true)
        out[b] = before < top


def top_k_accuracy(op, net, lo, hi):
    """Forward."""
    x, target, out = forward_views(op, net, lo, hi)
    top_k_accuracy_forward(x, target, op.top, out)


op("top_k_accuracy", "metric", forward=top_k_accuracy)
