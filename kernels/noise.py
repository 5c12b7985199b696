"""Layers that are random while training and let everything pass afterwards.

A random number is a function of a key, which the seed and the number of the step decide, of the
op, and of the place of a value in the batch: it is computed where it is needed, the same for any
number of threads and in both paths, and nothing has to be remembered to draw it again.

Source of the generator: Steele, Lea and Flood (2014), "Fast splittable pseudorandom number
generators", OOPSLA (SplitMix64), here by counter.
"""

import numpy as np

from ._kernel import JIT, kernel, part
from ._op import op, row_values
from .elementary import log_value

GOLDEN, FIRST, SECOND = (
    np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
S27, S30, S31, S40 = (np.uint64(n) for n in (27, 30, 31, 40))
LOW = np.uint64(0xFFFFFF)  # 24 bits: as many as float32 tells apart
STEPS = np.float64(2.0**24)


@part(inline=True)
def mixed(key, number):
    """64 random bits, a different pattern for every key and number."""
    if not JIT:
        return mixed_reference(key, number)  # numpy would warn of every overflow
    z = key + np.uint64(number) * GOLDEN
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    return z ^ (z >> S31)


def mixed_reference(key, numbers):
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.asarray(numbers).astype(np.uint64) * GOLDEN
        z = (z ^ (z >> S30)) * FIRST
        z = (z ^ (z >> S27)) * SECOND
        return z ^ (z >> S31)


def key_of(seed: int, step: int) -> int:
    """The key of a step of training, as the interpreter computes it."""
    return int(mixed_reference(seed, step))


def sample_key(arguments, rng):
    """Any key, op and place."""
    arguments.update(
        key=np.uint64(rng.integers(0, 2**63)),
        stream=int(rng.integers(100)),
        first=int(rng.integers(1000)),
    )
    return arguments


def dropout_forward_reference(x, rate, key, stream, first):
    bits = mixed_reference(mixed_reference(key, stream), first + np.arange(x.size))
    kept = np.where((bits >> S40) >= np.uint64(rate * STEPS), 1 / (1 - rate), 0)
    return kept, x * kept


@kernel(
    "x(n) rate() key() stream() first() kept(n) out(n) -> kept out",
    reference=dropout_forward_reference,
    sample=sample_key,
)
def dropout_forward(x, rate, key, stream, first, kept, out):
    """``out = x * kept``, and ``kept`` 0 for a share ``rate`` of the values, else 1 / (1 - rate).

    What is kept is scaled up, so that nothing needs scaling afterwards. Source: Srivastava and
    others (2014), JMLR 15; *Neural Networks from Scratch*, chapter 15; Nielsen, chapter 3.
    """
    kind = x.dtype.type
    own = mixed(np.uint64(key), stream)
    least, zero, scale = np.uint64(rate * STEPS), kind(0), kind(1 / (1 - rate))
    for i in range(x.size):
        kept[i] = scale if (mixed(own, first + i) >> S40) >= least else zero
        out[i] = x[i] * kept[i]


@kernel("grad_out(n) kept(n) grad_x(n) -> grad_x", reference=lambda grad_out, kept: grad_out * kept)
def dropout_backward(grad_out, kept, grad_x):
    """``grad_x = grad_out * kept``."""
    for i in range(kept.size):
        grad_x[i] = grad_out[i] * kept[i]


def dropout(op, net, lo, hi):
    """Forward."""
    dropout_forward(
        row_values(net, net.work, op.x, op.fan_in, lo, hi),
        op.rate,
        net.key,
        op.out,
        lo * op.fan_in,
        row_values(net, net.work, op.kept, op.fan_in, lo, hi),
        row_values(net, net.work, op.out, op.fan_in, lo, hi),
    )


def dropout_grad(op, net, lo, hi):
    """Backward."""
    dropout_backward(
        row_values(net, net.grad_work, op.out, op.fan_in, lo, hi),
        row_values(net, net.work, op.kept, op.fan_in, lo, hi),
        row_values(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


op("dropout", "layer", forward=dropout, backward=dropout_grad)


def gaussian_noise_forward_reference(x, stddev, key, stream, first):
    bits = mixed_reference(mixed_reference(key, stream), first + np.arange(x.size))
    radius = np.sqrt(-2 * np.log(((bits >> S40) + 0.5) / STEPS))
    return x + stddev * radius * np.cos(2 * np.pi * (bits & LOW) / STEPS)


@kernel(
    "x(n) stddev() key() stream() first() out(n) -> out",
    reference=gaussian_noise_forward_reference,
    sample=sample_key,
)
def gaussian_noise_forward(x, stddev, key, stream, first, out):
    """``out = x + stddev * n``, ``n`` normal. Source: Box and Muller (1958)."""
    kind = x.dtype.type
    own, scale = mixed(np.uint64(key), stream), kind(stddev)
    turn, half, count = kind(2 * np.pi / STEPS), kind(0.5 / STEPS), kind(1 / STEPS)
    for i in range(x.size):
        bits = mixed(own, first + i)
        radius = np.sqrt(kind(-2) * log_value(kind(bits >> S40) * count + half))
        out[i] = x[i] + scale * radius * np.cos(turn * kind(bits & LOW))


@kernel("grad_out(n) grad_x(n) -> grad_x", reference=lambda grad_out: grad_out)
def gaussian_noise_backward(grad_out, grad_x):
    """``grad_x = grad_out``."""
    for i in range(grad_x.size):
        grad_x[i] = grad_out[i]


def gaussian_noise(op, net, lo, hi):
    """Forward."""
    gaussian_noise_forward(
        row_values(net, net.work, op.x, op.fan_in, lo, hi),
        op.stddev,
        net.key,
        op.out,
        lo * op.fan_in,
        row_values(net, net.work, op.out, op.fan_in, lo, hi),
    )


def gaussian_noise_grad(op, net, lo, hi):
    """Backward."""
    gaussian_noise_backward(
        row_values(net, net.grad_work, op.out, op.fan_in, lo, hi),
        row_values(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


op("gaussian_noise", "layer", forward=gaussian_noise, backward=gaussian_noise_grad)
