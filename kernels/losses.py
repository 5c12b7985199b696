"""Losses of numbers, and what all losses share: one number for each row of the batch.

The loss of a batch is the mean of its rows' losses; the sum is taken outside,
in float64 and in the order of the rows. ``grad_out`` is the derivative of that
mean by a row's loss, 1 / batch times the row's weight where it has one, so a
``backward`` gives the derivative of the mean.

``target`` always has the shape of the output: class labels have been turned
into one-hot rows where the batch was gathered.
"""

import numpy as np

from ._kernel import SUMS, kernel, part
from ._op import op, row_values, rows


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
