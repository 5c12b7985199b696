"""Losses that are likelihoods: of counts, of numbers with a spread, and of one chance by another.

Constants that no output can change are left off, as nothing is learnt from them. See
`losses` for what is common to all.
"""

import numpy as np

from ._kernel import SUMS, kernel, part
from ._memory import cube
from ._op import op, row_values, rows
from .cross_entropies import (
    cross_entropy_backward,
    fused_forward_views,
    fused_views,
    probabilities,
    sigmoid_binary_cross_entropy_backward,
)
from .elementary import exp_value, log_value
from .losses import backward_views, forward_views

# poisson: the output is the rate, the target a count


def with_counts(arguments, rng):
    """Rates above 0, and counts."""
    if "x" in arguments and "prob" not in arguments:
        arguments["x"][...] = rng.uniform(0.2, 4, arguments["x"].shape)
    if "prob" in arguments:
        arguments["prob"][...] = rng.uniform(0.2, 4, arguments["prob"].shape)
    arguments["target"][...] = rng.poisson(1.5, arguments["target"].shape)
    return arguments


def poisson_reference(x, target):
    return (x - np.where(target == 0, 0, target * np.log(x))).mean(axis=1)


def poisson_backward_reference(x, target, grad_out):
    return (1 - np.where(target == 0, 0, target / x)) * (grad_out[:, None] / x.shape[1])


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=poisson_reference,
    sample=with_counts,
    fastmath=SUMS,
)
def poisson_forward(x, target, out):
    """``out = mean of x - target * log(x)``, ``0 log 0`` being 0; x is the rate, above 0.

    The negative log-likelihood of a Poisson distribution but for ``log(target!)``.
    """
    batch, n = x.shape
    zero = x.dtype.type(0)
    for b in range(batch):
        loss = zero
        for c in range(n):
            loss += x[b, c]
            if target[b, c] != zero:
                loss -= target[b, c] * log_value(x[b, c])
        out[b] = loss / x.dtype.type(n)


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=poisson_backward_reference,
    sample=with_counts,
)
def poisson_backward(x, target, grad_out, grad_x):
    """``grad_x = (1 - target / x) * grad_out / n``."""
    batch, n = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(batch):
        weight = grad_out[b] / x.dtype.type(n)
        for c in range(n):
            t = target[b, c]
            grad_x[b, c] = (one - (t / x[b, c] if t != zero else zero)) * weight


def poisson(op, net, lo, hi):
    """Forward."""
    poisson_forward(*forward_views(op, net, lo, hi))


def poisson_grad(op, net, lo, hi):
    """Backward."""
    poisson_backward(*backward_views(op, net, lo, hi))


op("poisson", "loss", forward=poisson, backward=poisson_grad, targets="counts")


# exponential and poisson in one: the logarithm of the rate needs no logarithm


@kernel(
    "x(batch,n) target(batch,n) prob(batch,n) out(batch) -> prob out",
    reference=lambda x, target: (np.exp(x), (np.exp(x) - target * x).mean(axis=1)),
    sample=with_counts,
    fastmath=SUMS,
)
def exponential_poisson_forward(x, target, prob, out):
    """``out = mean of exp(x) - target * x``, with the rate ``prob = exp(x)`` kept."""
    batch, n = x.shape
    for b in range(batch):
        loss = x.dtype.type(0)
        for c in range(n):
            prob[b, c] = exp_value(x[b, c])
            loss += prob[b, c] - target[b, c] * x[b, c]
        out[b] = loss / x.dtype.type(n)


@kernel(
    "prob(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda prob, target, grad_out: (prob - target) * (grad_out[:, None] / prob.shape[1]),
    sample=with_counts,
)
def exponential_poisson_backward(prob, target, grad_out, grad_x):
    """``grad_x = (prob - target) * grad_out / n``: that of sigmoid_binary_cross_entropy."""
    sigmoid_binary_cross_entropy_backward(prob, target, grad_out, grad_x)


def exponential_poisson(op, net, lo, hi):
    """Forward."""
    exponential_poisson_forward(*fused_forward_views(op, net, lo, hi))


def exponential_poisson_grad(op, net, lo, hi):
    """Backward."""
    exponential_poisson_backward(*fused_views(op, net, lo, hi))


op(
    "exponential_poisson",
    "loss",
    forward=exponential_poisson,
    backward=exponential_poisson_grad,
    targets="counts",
)


# gaussian_nll: a mean and the logarithm of a variance for each target


def gaussian_nll_reference(x, target):
    mean, log_variance = x[:, 0], x[:, 1]
    scaled = (mean - target) * np.exp(-log_variance / 2)
    return ((log_variance + scaled**2) / 2).mean(axis=1)


def gaussian_nll_backward_reference(x, target, grad_out):
    mean, log_variance = x[:, 0], x[:, 1]
    narrow = np.exp(-log_variance / 2)
    scaled = (mean - target) * narrow
    weight = grad_out[:, None] / target.shape[1]
    return np.stack([scaled * narrow * weight, (1 - scaled**2) / 2 * weight], axis=1)


@kernel(
    "x(batch,2,n) target(batch,n) out(batch) -> out",
    reference=gaussian_nll_reference,
    fastmath=SUMS,
)
def gaussian_nll_forward(x, target, out):
    """``out = mean of (s + (m - target)**2 / exp(s)) / 2``, with ``m = x[:, 0], s = x[:, 1]``.

    The negative log-likelihood of a normal distribution with mean m and variance exp(s), but
    for ``log(2 pi) / 2``. Source: Nix and Weigend (1994), "Estimating the mean and variance
    of the target probability distribution".
    """
    batch, _, n = x.shape
    half = x.dtype.type(0.5)
    for b in range(batch):
        loss = x.dtype.type(0)
        for c in range(n):
            scaled = (x[b, 0, c] - target[b, c]) * exp_value(-half * x[b, 1, c])
            loss += half * (x[b, 1, c] + scaled * scaled)
        out[b] = loss / x.dtype.type(n)


@kernel(
    "x(batch,2,n) target(batch,n) grad_out(batch) grad_x(batch,2,n) -> grad_x",
    reference=gaussian_nll_backward_reference,
)
def gaussian_nll_backward(x, target, grad_out, grad_x):
    """``(m - target) / exp(s)`` and ``(1 - (m - target)**2 / exp(s)) / 2``, times grad_out / n."""
    batch, _, n = x.shape
    half, one = x.dtype.type(0.5), x.dtype.type(1)
    for b in range(batch):
        weight = grad_out[b] / x.dtype.type(n)
        for c in range(n):
            narrow = exp_value(-half * x[b, 1, c])
            scaled = (x[b, 0, c] - target[b, c]) * narrow
            grad_x[b, 0, c] = scaled * narrow * weight
            grad_x[b, 1, c] = half * (one - scaled * scaled) * weight


@part(inline=True)
def pairs(net, buffer, op, lo, hi):
    """View of a network's outputs of the batch rows ``lo..hi``: (hi - lo, 2, targets)."""
    start = op.x * net.capacity + lo * op.fan_in
    return cube(buffer, start, hi - lo, 2, op.fan_in // 2)


def gaussian_nll(op, net, lo, hi):
    """Forward."""
    gaussian_nll_forward(
        pairs(net, net.work, op, lo, hi),
        rows(net, net.work, op.target, op.fan_in // 2, lo, hi),
        row_values(net, net.work, op.out, 1, lo, hi),
    )


def gaussian_nll_grad(op, net, lo, hi):
    """Backward."""
    gaussian_nll_backward(
        pairs(net, net.work, op, lo, hi),
        rows(net, net.work, op.target, op.fan_in // 2, lo, hi),
        row_values(net, net.grad_work, op.out, 1, lo, hi),
        pairs(net, net.grad_work, op, lo, hi),
    )


op(
    "gaussian_nll",
    "loss",
    forward=gaussian_nll,
    backward=gaussian_nll_grad,
    targets="numbers",
    per_target=2,
)


# kl_divergence: what the true probabilities know that the output's do not


def kl_divergence_reference(x, target):
    known = np.where(target == 0, 1, target)
    return np.where(target == 0, 0, target * (np.log(known) - np.log(x))).sum(axis=1)


def with_probabilities(arguments, rng):
    """Rows of probabilities on both sides, some of the true ones 0."""
    target = probabilities(arguments, rng)["target"]
    target += np.where(rng.random(target.shape) < 0.5, 0, rng.random(target.shape))
    target /= target.sum(axis=1, keepdims=True)
    return arguments


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=kl_divergence_reference,
    sample=with_probabilities,
    fastmath=SUMS,
)
def kl_divergence_forward(x, target, out):
    """``out = sum of target * (log(target) - log(x))``, ``0 log 0`` being 0.

    Source: Kullback and Leibler (1951), "On information and sufficiency".
    """
    batch, n = x.shape
    zero = x.dtype.type(0)
    for b in range(batch):
        loss = zero
        for c in range(n):
            t = target[b, c]
            if t != zero:
                loss += t * (log_value(t) - log_value(x[b, c]))
        out[b] = loss


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda x, target, grad_out: -np.where(target == 0, 0, target / x) * grad_out[:, None],
    sample=with_probabilities,
)
def kl_divergence_backward(x, target, grad_out, grad_x):
    """``grad_x = -target / x * grad_out``: that of cross_entropy."""
    cross_entropy_backward(x, target, grad_out, grad_x)


def kl_divergence(op, net, lo, hi):
    """Forward."""
    kl_divergence_forward(*forward_views(op, net, lo, hi))


def kl_divergence_grad(op, net, lo, hi):
    """Backward."""
    kl_divergence_backward(*backward_views(op, net, lo, hi))


op(
    "kl_divergence",
    "loss",
    forward=kl_divergence,
    backward=kl_divergence_grad,
    targets="classes",
    metric="categorical_accuracy",
)
