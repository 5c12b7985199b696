"""Metrics: one number for each row of the batch; no gradient flows back from them."""

from ._kernel import SUMS, kernel
from ._op import op
from .cross_entropies import with_chances, with_labels
from .losses import forward_views


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=lambda x, target: (x.argmax(axis=1) == target.argmax(axis=1)).astype(x.dtype),
    sample=with_labels,
)
def categorical_accuracy_forward(x, target, out):
    """``out = 1 where the largest output is the largest target``, the first of equals."""
    batch, n = x.shape
    for b in range(batch):
        said, true = 0, 0
        most, truest = x[b, 0], target[b, 0]
        for c in range(1, n):
            if x[b, c] > most:
                said, most = c, x[b, c]
            if target[b, c] > truest:
                true, truest = c, target[b, c]
        out[b] = said == true


def categorical_accuracy(op, net, lo, hi):
    """Forward."""
    categorical_accuracy_forward(*forward_views(op, net, lo, hi))


op("categorical_accuracy", "metric", forward=categorical_accuracy)


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=lambda x, target: ((x > 0.5) == (target > 0.5)).mean(axis=1),
    sample=with_chances,
    fastmath=SUMS,
)
def binary_accuracy_forward(x, target, out):
    """``out = share of the outputs on the target's side of one half``."""
    batch, n = x.shape
    half = x.dtype.type(0.5)
    for b in range(batch):
        right = x.dtype.type(0)
        for c in range(n):
            right += (x[b, c] > half) == (target[b, c] > half)
        out[b] = right / x.dtype.type(n)


def binary_accuracy(op, net, lo, hi):
    """Forward."""
    binary_accuracy_forward(*forward_views(op, net, lo, hi))


op("binary_accuracy", "metric", forward=binary_accuracy)
