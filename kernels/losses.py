"""Losses of numbers, and what all losses share: one number for each row of the batch.

The loss of a batch is the mean of its rows' losses; the sum is taken outside,
in float64 and in the order of the rows. ``grad_out`` is the derivative of that
mean by a row's loss, 1 / batch times the row's weight where it has one, so a
``backward`` gives the derivative of the mean.

``target`` always has the shape of the output: class labels have been turned
into rows, one-hot or smoothed, where the batch was gathered.
"""

import numpy as np

from ._kernel import SUMS, kernel, part
from ._op import op, row_values, rows
from .elementary import exp_value, log1p_value, tanh_value

LOG_2 = np.log(2.0)


@part(inline=True)
def forward_views(op, net, lo, hi):
    """Output of the network, targets, and where the rows' losses go."""
    return (
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        rows(net, net.work, op.target, op.fan_in, lo, hi),
        row_values(net, net.work, op.out, 1, lo, hi),
    )


@part(inline=True)
def backward_views(op, net, lo, hi):
    """Output of the network, targets, the gradient of a row's loss, and where the gradient goes."""
    return (
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        rows(net, net.work, op.target, op.fan_in, lo, hi),
        row_values(net, net.grad_work, op.out, 1, lo, hi),
        rows(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


# mse: mean over the outputs of the squared error


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=lambda x, target: ((x - target) ** 2).mean(axis=1),
    fastmath=SUMS,
)
def mse_forward(x, target, out):
    """``out = mean of (x - target)**2``."""
    batch, n = x.shape
    for b in range(batch):
        loss = x.dtype.type(0)
        for c in range(n):
            loss += (x[b, c] - target[b, c]) * (x[b, c] - target[b, c])
        out[b] = loss / x.dtype.type(n)


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda x, target, grad_out: (x - target) * (2 * grad_out[:, None] / x.shape[1]),
)
def mse_backward(x, target, grad_out, grad_x):
    """``grad_x = 2 (x - target) * grad_out / n``."""
    batch, n = x.shape
    for b in range(batch):
        weight = grad_out[b] * x.dtype.type(2 / n)
        for c in range(n):
            grad_x[b, c] = (x[b, c] - target[b, c]) * weight


def mse(op, net, lo, hi):
    """Forward."""
    mse_forward(*forward_views(op, net, lo, hi))


def mse_grad(op, net, lo, hi):
    """Backward."""
    mse_backward(*backward_views(op, net, lo, hi))


op("mse", "loss", forward=mse, backward=mse_grad, targets="numbers")


# quadratic: half the sum over the outputs of the squared error


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=lambda x, target: ((x - target) ** 2).sum(axis=1) / 2,
    fastmath=SUMS,
)
def quadratic_forward(x, target, out):
    """``out = half the sum of (x - target)**2``. Source: Nielsen, chapter 1, eq. 6."""
    batch, n = x.shape
    for b in range(batch):
        loss = x.dtype.type(0)
        for c in range(n):
            loss += (x[b, c] - target[b, c]) * (x[b, c] - target[b, c])
        out[b] = loss * x.dtype.type(0.5)


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda x, target, grad_out: (x - target) * grad_out[:, None],
)
def quadratic_backward(x, target, grad_out, grad_x):
    """``grad_x = (x - target) * grad_out``. Source: Nielsen, chapter 2, eq. 30."""
    batch, n = x.shape
    for b in range(batch):
        weight = grad_out[b]
        for c in range(n):
            grad_x[b, c] = (x[b, c] - target[b, c]) * weight


def quadratic(op, net, lo, hi):
    """Forward."""
    quadratic_forward(*forward_views(op, net, lo, hi))


def quadratic_grad(op, net, lo, hi):
    """Backward."""
    quadratic_backward(*backward_views(op, net, lo, hi))


op("quadratic", "loss", forward=quadratic, backward=quadratic_grad, targets="numbers")


# mae: mean over the outputs of the absolute error


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=lambda x, target: np.abs(x - target).mean(axis=1),
    fastmath=SUMS,
)
def mae_forward(x, target, out):
    """``out = mean of |x - target|``."""
    batch, n = x.shape
    for b in range(batch):
        loss = x.dtype.type(0)
        for c in range(n):
            loss += abs(x[b, c] - target[b, c])
        out[b] = loss / x.dtype.type(n)


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda x, target, grad_out: np.sign(x - target) * (grad_out[:, None] / x.shape[1]),
)
def mae_backward(x, target, grad_out, grad_x):
    """``grad_x = sign(x - target) * grad_out / n``, 0 where they are equal."""
    batch, n = x.shape
    zero = x.dtype.type(0)
    for b in range(batch):
        weight = grad_out[b] / x.dtype.type(n)
        for c in range(n):
            error = x[b, c] - target[b, c]  # left over at the end: 0 or NaN
            grad_x[b, c] = weight if error > zero else -weight if error < zero else error


def mae(op, net, lo, hi):
    """Forward."""
    mae_forward(*forward_views(op, net, lo, hi))


def mae_grad(op, net, lo, hi):
    """Backward."""
    mae_backward(*backward_views(op, net, lo, hi))


op("mae", "loss", forward=mae, backward=mae_grad, targets="numbers")


# huber: a parabola near the target, a straight line beyond delta


def huber_reference(x, target, delta):
    error = np.abs(x - target)
    return np.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).mean(axis=1)


@kernel(
    "x(batch,n) target(batch,n) delta() out(batch) -> out",
    reference=huber_reference,
    fastmath=SUMS,
)
def huber_forward(x, target, delta, out):
    """``out = mean of error**2 / 2``, beyond delta of ``delta * (|error| - delta / 2)``.

    Both are ``e * (error - e / 2)`` with the error clipped to e. Source: Huber (1964),
    "Robust estimation of a location parameter".
    """
    batch, n = x.shape
    most, half = x.dtype.type(delta), x.dtype.type(0.5)
    for b in range(batch):
        loss = x.dtype.type(0)
        for c in range(n):
            error = x[b, c] - target[b, c]
            e = clipped(error, most)
            loss += e * (error - half * e)
        out[b] = loss / x.dtype.type(n)


@part(inline=True)
def clipped(value, most):
    """The value, no further from 0 than ``most``; NaN stays NaN."""
    return most if value > most else -most if value < -most else value


@kernel(
    "x(batch,n) target(batch,n) delta() grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda x, target, delta, grad_out: (
        np.clip(x - target, -delta, delta) * (grad_out[:, None] / x.shape[1])
    ),
)
def huber_backward(x, target, delta, grad_out, grad_x):
    """``grad_x = the error clipped to delta * grad_out / n``."""
    batch, n = x.shape
    most = x.dtype.type(delta)
    for b in range(batch):
        weight = grad_out[b] / x.dtype.type(n)
        for c in range(n):
            grad_x[b, c] = clipped(x[b, c] - target[b, c], most) * weight


def huber(op, net, lo, hi):
    """Forward."""
    x, target, out = forward_views(op, net, lo, hi)
    huber_forward(x, target, op.delta, out)


def huber_grad(op, net, lo, hi):
    """Backward."""
    x, target, grad_out, grad_x = backward_views(op, net, lo, hi)
    huber_backward(x, target, op.delta, grad_out, grad_x)


op("huber", "loss", forward=huber, backward=huber_grad, targets="numbers")


# log_cosh: as huber, but smooth


def log_cosh_reference(x, target):
    error = x - target
    return (np.logaddexp(error, -error) - np.log(2)).mean(axis=1)


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=log_cosh_reference,
    fastmath=SUMS,
)
def log_cosh_forward(x, target, out):
    """``out = mean of log(cosh(x - target))``.

    Written as ``-log(1 - tanh(e)**2) / 2`` near 0, where the loss is small and keeps its
    digits, and as ``|e| + log(1 + exp(-2 |e|)) - log 2`` elsewhere, where cosh overflows.
    """
    batch, n = x.shape
    one, two, half = x.dtype.type(1), x.dtype.type(2), x.dtype.type(0.5)
    log_2 = x.dtype.type(LOG_2)
    for b in range(batch):
        loss = x.dtype.type(0)
        for c in range(n):
            error = abs(x[b, c] - target[b, c])
            t = tanh_value(error)
            near = half * log1p_value(-t * t)
            far = error + log1p_value(exp_value(-two * error)) - log_2
            loss += -near if error < one else far
        out[b] = loss / x.dtype.type(n)


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda x, target, grad_out: np.tanh(x - target) * (grad_out[:, None] / x.shape[1]),
)
def log_cosh_backward(x, target, grad_out, grad_x):
    """``grad_x = tanh(x - target) * grad_out / n``."""
    batch, n = x.shape
    for b in range(batch):
        weight = grad_out[b] / x.dtype.type(n)
        for c in range(n):
            grad_x[b, c] = tanh_value(x[b, c] - target[b, c]) * weight


def log_cosh(op, net, lo, hi):
    """Forward."""
    log_cosh_forward(*forward_views(op, net, lo, hi))


def log_cosh_grad(op, net, lo, hi):
    """Backward."""
    log_cosh_backward(*backward_views(op, net, lo, hi))


op("log_cosh", "loss", forward=log_cosh, backward=log_cosh_grad, targets="numbers")


# quantile: least where a given share of the targets lies below the output


def quantile_reference(x, target, quantile):
    below = target - x  # what the output lies below the target
    return np.where(below >= 0, quantile * below, (quantile - 1) * below).mean(axis=1)


def quantile_backward_reference(x, target, quantile, grad_out):
    slope = np.where(x > target, 1 - quantile, np.where(x < target, -quantile, x - target))
    return slope * (grad_out[:, None] / x.shape[1])


@kernel(
    "x(batch,n) target(batch,n) quantile() out(batch) -> out",
    reference=quantile_reference,
    fastmath=SUMS,
)
def quantile_forward(x, target, quantile, out):
    """``out = mean of quantile * (target - x)``, of ``(1 - quantile) * (x - target)`` above.

    Also called the pinball loss. Source: Koenker and Bassett (1978), "Regression quantiles".
    """
    batch, n = x.shape
    under, over = x.dtype.type(quantile), x.dtype.type(1 - quantile)
    for b in range(batch):
        loss, zero = x.dtype.type(0), x.dtype.type(0)
        for c in range(n):
            error = x[b, c] - target[b, c]
            loss += over * error if error > zero else -under * error
        out[b] = loss / x.dtype.type(n)


@kernel(
    "x(batch,n) target(batch,n) quantile() grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=quantile_backward_reference,
)
def quantile_backward(x, target, quantile, grad_out, grad_x):
    """``grad_x = -quantile * grad_out / n`` below the target, ``1 - quantile`` above, 0 on it."""
    batch, n = x.shape
    zero = x.dtype.type(0)
    for b in range(batch):
        weight = grad_out[b] / x.dtype.type(n)
        under, over = -weight * x.dtype.type(quantile), weight * x.dtype.type(1 - quantile)
        for c in range(n):
            error = x[b, c] - target[b, c]  # left over at the end: 0 or NaN
            grad_x[b, c] = over if error > zero else under if error < zero else error


def quantile(op, net, lo, hi):
    """Forward."""
    x, target, out = forward_views(op, net, lo, hi)
    quantile_forward(x, target, op.quantile, out)


def quantile_grad(op, net, lo, hi):
    """Backward."""
    x, target, grad_out, grad_x = backward_views(op, net, lo, hi)
    quantile_backward(x, target, op.quantile, grad_out, grad_x)


op("quantile", "loss", forward=quantile, backward=quantile_grad, targets="numbers")


# hinge: nothing to pay for an output on the right side of 0 and 1 or more away from it


def with_signs(arguments, rng):
    """Arguments whose targets are -1 or 1."""
    target = arguments["target"]
    target[...] = rng.choice([-1, 1], target.shape)
    return arguments


@kernel(
    "x(batch,n) target(batch,n) out(batch) -> out",
    reference=lambda x, target: np.maximum(1 - target * x, 0).mean(axis=1),
    sample=with_signs,
    fastmath=SUMS,
)
def hinge_forward(x, target, out):
    """``out = mean of max(1 - target * x, 0)``, targets being -1 or 1.

    Source: Cortes and Vapnik (1995), "Support-vector networks".
    """
    batch, n = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(batch):
        loss = zero
        for c in range(n):
            short = one - target[b, c] * x[b, c]
            loss += zero if short <= zero else short
        out[b] = loss / x.dtype.type(n)


@kernel(
    "x(batch,n) target(batch,n) grad_out(batch) grad_x(batch,n) -> grad_x",
    reference=lambda x, target, grad_out: (
        np.where(target * x >= 1, 0, -target) * (grad_out[:, None] / x.shape[1])
    ),
    sample=with_signs,
)
def hinge_backward(x, target, grad_out, grad_x):
    """``grad_x = -target * grad_out / n`` where ``target * x < 1``, 0 elsewhere."""
    batch, n = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(batch):
        weight = grad_out[b] / x.dtype.type(n)
        for c in range(n):
            t = target[b, c]
            grad_x[b, c] = zero if t * x[b, c] >= one else -t * weight


def hinge(op, net, lo, hi):
    """Forward."""
    hinge_forward(*forward_views(op, net, lo, hi))


def hinge_grad(op, net, lo, hi):
    """Backward."""
    hinge_backward(*backward_views(op, net, lo, hi))


op(
    "hinge",
    "loss",
    forward=hinge,
    backward=hinge_grad,
    targets="signs",
    metric="binary_accuracy",
)


# weighted: what a row's loss counts, whichever loss it is


@kernel(
    "x(batch) sample_weight(batch) out(batch) -> out",
    reference=lambda x, sample_weight: x * sample_weight,
)
def weighted_forward(x, sample_weight, out):
    """``out = x * sample_weight``."""
    for b in range(x.size):
        out[b] = x[b] * sample_weight[b]


@kernel(
    "grad_out(batch) sample_weight(batch) grad_x(batch) -> grad_x",
    reference=lambda grad_out, sample_weight: grad_out * sample_weight,
)
def weighted_backward(grad_out, sample_weight, grad_x):
    """``grad_x = grad_out * sample_weight``."""
    for b in range(grad_x.size):
        grad_x[b] = grad_out[b] * sample_weight[b]


def weighted(op, net, lo, hi):
    """Forward."""
    weighted_forward(
        row_values(net, net.work, op.x, 1, lo, hi),
        row_values(net, net.work, op.sample_weight, 1, lo, hi),
        row_values(net, net.work, op.out, 1, lo, hi),
    )


def weighted_grad(op, net, lo, hi):
    """Backward."""
    weighted_backward(
        row_values(net, net.grad_work, op.out, 1, lo, hi),
        row_values(net, net.work, op.sample_weight, 1, lo, hi),
        row_values(net, net.grad_work, op.x, 1, lo, hi),
    )


op("weighted", "weights", forward=weighted, backward=weighted_grad)
