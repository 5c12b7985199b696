"""Losses of classes and of chances: cross-entropies, fused with their activation and not.

See `losses` for what is common to all.
"""

import numpy as np

from ._kernel import SUMS, THREE, TWO, kernel, part
from ._memory import pointer, vector
from ._op import op, row_values, rows
from .activations import exponentials, largest, sigmoid_reference, softmax_reference
from .elementary import exp_value, log1p_value, log_value, sigmoid_value
from .losses import backward_views, forward_views


def with_labels(arguments, rng):
    """Random arguments turned into a classifier's: rows of probabilities, one-hot targets."""
    if "prob" in arguments:
        arguments["prob"][...] = softmax_reference(arguments["prob"])
    target = arguments["target"]
    target[...] = 0
    target[np.arange(len(target)), rng.integers(0, target.shape[1], len(target))] = 1
    return arguments


def with_chances(arguments, rng):
    """Probabilities inside (0, 1) for each output alone, targets from 0 to 1, both included."""
    if "prob" in arguments:
        arguments["prob"][...] = rng.uniform(0.05, 0.95, arguments["prob"].shape)
    target = arguments["target"]
    target[...] = np.clip(rng.uniform(-0.5, 1.5, target.shape), 0, 1)
    return arguments


@part(inline=True)
def fused_forward_views(op, net, lo, hi):
    """What goes into the activation, targets, and where probabilities and rows' losses go."""
    return (
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        rows(net, net.work, op.target, op.fan_in, lo, hi),
        rows(net, net.work, op.prob, op.fan_in, lo, hi),
        row_values(net, net.work, op.out, 1, lo, hi),
    )


@part(inline=True)
def fused_views(op, net, lo, hi):
    """Probabilities, targets, the gradient of a row's loss, and where the gradient goes."""
    return (
        rows(net, net.work, op.prob, op.fan_in, lo, hi),
        rows(net, net.work, op.target, op.fan_in, lo, hi),
        row_values(net, net.grad_work, op.out, 1, lo, hi),
        rows(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


# softmax and cross_entropy in one: exact for any logits


def softmax_cross_entropy_forward_reference(x, target):
    z = x - x.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(z).sum(axis=1, keepdims=True))
    return softmax_reference(x), (target * (log_total - z)).sum(axis=1)


@kernel(
    "x(batch,n) target(batch,n) prob(batch,n) out(batch) -> prob out",
    reference=softmax_cross_entropy_forward_reference,
    sample=with_labels,
    fastmath=SUMS,
)
def softmax_cross_entropy_forward(x, target, prob, out):
    """``out = -sum of target * log(softmax(x))``, with ``prob = softmax(x)`` kept.

    ``log softmax(x) = x - max - log(sum of exp(x - max))``: no probability is ever so
    small that its logarithm is lost. Source: Bridle (1990); Nielsen, chapter 3, eq. 80.
    """
    batch, n = x.shape
    if n == 2:
        short_rows(x, target, prob, out, TWO)
        return
    if n == 3:
        short_rows(x, target, prob, out, THREE)
        return
    exponentials(x, prob)
    for b in range(batch):
        total = x.dtype.type(0)
        for c in range(n):
            total += prob[b, c]
        share = x.dtype.type(1) / total
        for c in range(n):
            prob[b, c] *= share
        out[b] = total
    for b in range(batch):  # a loop of its own, with vectors along the batch: rows may be short
        out[b] = log_value(out[b])
    for b in range(batch):
        top, loss = largest(x, b), x.dtype.type(0)
        for c in range(n):
            loss += target[b, c] * (out[b] - (x[b, c] - top))
        out[b] = loss


@part(inline=True, fastmath=SUMS)
def short_rows(x, target, prob, out, n):
    """The same with vectors along the batch, for a number of classes that the compiler knows."""
    x, target, prob = flat(x), flat(target), flat(prob)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(out.size):
        top, total, loss = x[b * n], zero, zero
        for c in range(1, n):
            value = x[b * n + c]
            top = value if value > top or value != value else top
        for c in range(n):
            power = exp_value(x[b * n + c] - top)
            prob[b * n + c] = power
            total += power
        share, log_total = one / total, log_value(total)
        for c in range(n):
            prob[b * n + c] *= share
            loss += target[b * n + c] * (log_total - (x[b * n + c] - top))
        out[b] = loss


@part(inline=True)
def flat(values):
    """View of all values, row after row."""
    return vector(pointer(values), 0, values.size)


@kernel(
    "prob(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda prob, target, grad_out: (
        (prob * target.sum(axis=1, keepdims=True) - target) * grad_out[:, None]
    ),
    sample=with_labels,
    fastmath=SUMS,
)
def softmax_cross_entropy_backward(prob, target, grad_out, grad_x):
    """``grad_x = (prob - target) * grad_out``, for targets that sum to 1."""
    n = prob.shape[1]
    if n == 2:
        difference(prob, target, grad_out, grad_x, TWO)
    elif n == 3:
        difference(prob, target, grad_out, grad_x, THREE)
    else:
        difference(prob, target, grad_out, grad_x, n)


@part(inline=True, fastmath=SUMS)
def difference(prob, target, grad_out, grad_x, n):
    """``(prob * sum of targets - target) * grad_out`` in rows of ``n``."""
    prob, target, grad_x = flat(prob), flat(target), flat(grad_x)
    for b in range(grad_out.size):
        total = prob.dtype.type(0)
        for c in range(n):
            total += target[b * n + c]
        for c in range(n):
            grad_x[b * n + c] = (prob[b * n + c] * total - target[b * n + c]) * grad_out[b]


def softmax_cross_entropy(op, net, lo, hi):
    """Forward."""
    softmax_cross_entropy_forward(*fused_forward_views(op, net, lo, hi))


def softmax_cross_entropy_grad(op, net, lo, hi):
    """Backward."""
    softmax_cross_entropy_backward(*fused_views(op, net, lo, hi))


op(
    "softmax_cross_entropy",
    "loss",
    forward=softmax_cross_entropy,
    backward=softmax_cross_entropy_grad,
    targets="classes",
    metric="categorical_accuracy",
)


# sigmoid and binary_cross_entropy in one: exact when saturated


def sigmoid_binary_cross_entropy_forward_reference(x, target):
    loss = np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))
    return sigmoid_reference(x), loss.mean(axis=1)


@kernel(
    "x(batch,n) target(batch,n) prob(batch,n) out(batch) -> prob out",
    reference=sigmoid_binary_cross_entropy_forward_reference,
    sample=with_chances,
    fastmath=SUMS,
)
def sigmoid_binary_cross_entropy_forward(x, target, prob, out):
    """``out = mean of -target log p - (1 - target) log(1 - p)``, ``p = sigmoid(x)`` kept.

    Written as ``max(x, 0) - x * target + log(1 + exp(-|x|))``, which holds however far
    ``x`` is from 0. Source: Nielsen, chapter 3, eq. 57.
    """
    batch, n = x.shape
    zero = x.dtype.type(0)
    for b in range(batch):
        loss = zero
        for c in range(n):
            z = x[b, c]
            prob[b, c] = sigmoid_value(z)
            above = zero if z <= zero else z
            below = z if z <= zero else -z
            loss += above - z * target[b, c] + log1p_value(exp_value(below))
        out[b] = loss / x.dtype.type(n)


@kernel(
    "prob(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda prob, target, grad_out: (prob - target) * (grad_out[:, None] / prob.shape[1]),
    sample=with_chances,
)
def sigmoid_binary_cross_entropy_backward(prob, target, grad_out, grad_x):
    """``grad_x = (prob - target) * grad_out / n``."""
    batch, n = prob.shape
    for b in range(batch):
        weight = grad_out[b] / prob.dtype.type(n)
        for c in range(n):
            grad_x[b, c] = (prob[b, c] - target[b, c]) * weight


def sigmoid_binary_cross_entropy(op, net, lo, hi):
    """Forward."""
    sigmoid_binary_cross_entropy_forward(*fused_forward_views(op, net, lo, hi))


def sigmoid_binary_cross_entropy_grad(op, net, lo, hi):
    """Backward."""
    sigmoid_binary_cross_entropy_backward(*fused_views(op, net, lo, hi))


op(
    "sigmoid_binary_cross_entropy",
    "loss",
    forward=sigmoid_binary_cross_entropy,
    backward=sigmoid_binary_cross_entropy_grad,
    targets="chances",
    metric="binary_accuracy",
)


# cross_entropy on probabilities


def cross_entropy_forward_reference(x, target):
    return -np.where(target == 0, 0, target * np.log(x)).sum(axis=1)


def probabilities(arguments, rng):
    """A classifier's arguments whose ``x`` are probabilities."""
    arguments["x"][...] = softmax_reference(arguments["x"])
    return with_labels(arguments, rng)


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=cross_entropy_forward_reference,
    sample=probabilities,
    fastmath=SUMS,
)
def cross_entropy_forward(x, target, out):
    """``out = -sum of target * log(x)``; nothing is clipped: an impossible truth costs inf."""
    batch, n = x.shape
    zero = x.dtype.type(0)
    for b in range(batch):
        loss = zero
        for c in range(n):
            if target[b, c] != zero:
                loss -= target[b, c] * log_value(x[b, c])
        out[b] = loss


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda x, target, grad_out: -np.where(target == 0, 0, target / x) * grad_out[:, None],
    sample=probabilities,
)
def cross_entropy_backward(x, target, grad_out, grad_x):
    """``grad_x = -target / x * grad_out``."""
    batch, n = x.shape
    zero = x.dtype.type(0)
    for b in range(batch):
        weight = grad_out[b]
        for c in range(n):
            grad_x[b, c] = -target[b, c] / x[b, c] * weight if target[b, c] != zero else zero


def cross_entropy(op, net, lo, hi):
    """Forward."""
    cross_entropy_forward(*forward_views(op, net, lo, hi))


def cross_entropy_grad(op, net, lo, hi):
    """Backward."""
    cross_entropy_backward(*backward_views(op, net, lo, hi))


op(
    "cross_entropy",
    "loss",
    forward=cross_entropy,
    backward=cross_entropy_grad,
    targets="classes",
    metric="categorical_accuracy",
)


# binary_cross_entropy on probabilities


def binary_cross_entropy_forward_reference(x, target):
    yes = np.where(target == 0, 0, target * np.log(x))
    no = np.where(target == 1, 0, (1 - target) * np.log1p(-x))
    return -(yes + no).mean(axis=1)


def binary_cross_entropy_backward_reference(x, target, grad_out):
    yes = np.where(target == 0, 0, target / x)
    no = np.where(target == 1, 0, (1 - target) / (1 - x))
    return (no - yes) * (grad_out[:, None] / x.shape[1])


def chances(arguments, rng):
    """Arguments whose ``x`` are probabilities, each for itself."""
    arguments["x"][...] = rng.uniform(0.05, 0.95, arguments["x"].shape)
    return with_chances(arguments, rng)


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=binary_cross_entropy_forward_reference,
    sample=chances,
    fastmath=SUMS,
)
def binary_cross_entropy_forward(x, target, out):
    """``out = mean of -target log x - (1 - target) log(1 - x)``, ``0 log 0`` being 0."""
    batch, n = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(batch):
        loss = zero
        for c in range(n):
            t = target[b, c]
            if t != zero:
                loss -= t * log_value(x[b, c])
            if t != one:
                loss -= (one - t) * log1p_value(-x[b, c])
        out[b] = loss / x.dtype.type(n)


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=binary_cross_entropy_backward_reference,
    sample=chances,
)
def binary_cross_entropy_backward(x, target, grad_out, grad_x):
    """``grad_x = ((1 - target) / (1 - x) - target / x) * grad_out / n``."""
    batch, n = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(batch):
        weight = grad_out[b] / x.dtype.type(n)
        for c in range(n):
            t = target[b, c]
            yes = t / x[b, c] if t != zero else zero
            no = (one - t) / (one - x[b, c]) if t != one else zero
            grad_x[b, c] = (no - yes) * weight


def binary_cross_entropy(op, net, lo, hi):
    """Forward."""
    binary_cross_entropy_forward(*forward_views(op, net, lo, hi))


def binary_cross_entropy_grad(op, net, lo, hi):
    """Backward."""
    binary_cross_entropy_backward(*backward_views(op, net, lo, hi))


op(
    "binary_cross_entropy",
    "loss",
    forward=binary_cross_entropy,
    backward=binary_cross_entropy_grad,
    targets="chances",
    metric="binary_accuracy",
)
