"""Activations: one number in, one number out, but for softmax, which looks at a row.

Each ``backward`` multiplies ``grad_out`` by the derivative, written with the
forward pass's output where that is simpler than with its input.

To add one: reference, forward, backward, ``op(...)``, all here. It can then be
used by its name in ``Dense(..., activation="name")`` and is tested at once.
"""

import numpy as np

from ._kernel import SUMS, kernel, part
from ._memory import pointer, vector
from ._op import op, row_values, rows
from .elementary import exp_value, sigmoid_value, tanh_value


@part(inline=True)
def forward_views(op, net, lo, hi):
    """Input and output of an elementwise op, flat."""
    return (
        row_values(net, net.work, op.x, op.fan_in, lo, hi),
        row_values(net, net.work, op.out, op.fan_out, lo, hi),
    )


@part(inline=True)
def backward_views(op, net, lo, hi):
    """Gradient of the output, the output, and where the gradient of the input goes, flat."""
    return (
        row_values(net, net.grad_work, op.out, op.fan_out, lo, hi),
        row_values(net, net.work, op.out, op.fan_out, lo, hi),
        row_values(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


# linear: out = x


@kernel("x(n) out(n) -> out", reference=lambda x: x)
def linear_forward(x, out):
    """``out = x``."""
    for i in range(x.size):
        out[i] = x[i]


@kernel("grad_out(n) out(n) grad_x(n) -> grad_x", reference=lambda grad_out: grad_out)
def linear_backward(grad_out, out, grad_x):
    """``grad_x = grad_out``."""
    for i in range(out.size):
        grad_x[i] = grad_out[i]


def linear(op, net, lo, hi):
    """Forward."""
    linear_forward(*forward_views(op, net, lo, hi))


def linear_grad(op, net, lo, hi):
    """Backward."""
    linear_backward(*backward_views(op, net, lo, hi))


op("linear", "activation", forward=linear, backward=linear_grad)


# relu: out = max(x, 0). The comparisons are written so that NaN stays NaN.


@kernel("x(n) out(n) -> out", reference=lambda x: np.maximum(x, 0))
def relu_forward(x, out):
    """``out = max(x, 0)``. Source: Nair and Hinton (2010), ICML."""
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = zero if x[i] <= zero else x[i]


@kernel(
    "grad_out(n) out(n) grad_x(n) -> grad_x",
    reference=lambda grad_out, out: np.where(out <= 0, 0, grad_out),
)
def relu_backward(grad_out, out, grad_x):
    """``grad_x = grad_out where out > 0``; 0 at 0."""
    zero = out.dtype.type(0)
    for i in range(out.size):
        grad_x[i] = zero if out[i] <= zero else grad_out[i]


def relu(op, net, lo, hi):
    """Forward."""
    relu_forward(*forward_views(op, net, lo, hi))


def relu_grad(op, net, lo, hi):
    """Backward."""
    relu_backward(*backward_views(op, net, lo, hi))


op("relu", "activation", forward=relu, backward=relu_grad)


# leaky_relu: out = x above 0, alpha * x below


@kernel("x(n) alpha() out(n) -> out", reference=lambda x, alpha: np.where(x <= 0, alpha * x, x))
def leaky_relu_forward(x, alpha, out):
    """``out = x above 0, alpha * x below``. Source: Maas, Hannun and Ng (2013), ICML."""
    zero = x.dtype.type(0)
    slope = x.dtype.type(alpha)
    for i in range(x.size):
        out[i] = slope * x[i] if x[i] <= zero else x[i]


@kernel(
    "grad_out(n) x(n) alpha() grad_x(n) -> grad_x",
    reference=lambda grad_out, x, alpha: np.where(x <= 0, alpha * grad_out, grad_out),
)
def leaky_relu_backward(grad_out, x, alpha, grad_x):
    """``grad_x = grad_out above 0, alpha * grad_out below``; alpha at 0."""
    zero = x.dtype.type(0)
    slope = x.dtype.type(alpha)
    for i in range(x.size):
        grad_x[i] = slope * grad_out[i] if x[i] <= zero else grad_out[i]


def leaky_relu(op, net, lo, hi):
    """Forward."""
    x, out = forward_views(op, net, lo, hi)
    leaky_relu_forward(x, op.alpha, out)


def leaky_relu_grad(op, net, lo, hi):
    """Backward."""
    grad_out, _, grad_x = backward_views(op, net, lo, hi)
    x = row_values(net, net.work, op.x, op.fan_in, lo, hi)
    leaky_relu_backward(grad_out, x, op.alpha, grad_x)


op("leaky_relu", "activation", forward=leaky_relu, backward=leaky_relu_grad)


# sigmoid: out = 1 / (1 + exp(-x))


def sigmoid_reference(x):
    e = np.exp(-np.abs(x))  # at most 1, so nothing overflows
    return np.where(x >= 0, 1, e) / (1 + e)


@kernel("x(n) out(n) -> out", reference=sigmoid_reference)
def sigmoid_forward(x, out):
    """``out = 1 / (1 + exp(-x))``. Source: Nielsen, chapter 1, eq. 3."""
    for i in range(x.size):
        out[i] = sigmoid_value(x[i])


@kernel(
    "grad_out(n) out(n) grad_x(n) -> grad_x",
    reference=lambda grad_out, out: grad_out * out * (1 - out),
)
def sigmoid_backward(grad_out, out, grad_x):
    """``grad_x = grad_out * out * (1 - out)``."""
    one = out.dtype.type(1)
    for i in range(out.size):
        grad_x[i] = grad_out[i] * out[i] * (one - out[i])


def sigmoid(op, net, lo, hi):
    """Forward."""
    sigmoid_forward(*forward_views(op, net, lo, hi))


def sigmoid_grad(op, net, lo, hi):
    """Backward."""
    sigmoid_backward(*backward_views(op, net, lo, hi))


op("sigmoid", "activation", forward=sigmoid, backward=sigmoid_grad)


# tanh


@kernel("x(n) out(n) -> out", reference=lambda x: np.tanh(x))
def tanh_forward(x, out):
    """``out = tanh(x)``."""
    for i in range(x.size):
        out[i] = tanh_value(x[i])


@kernel(
    "grad_out(n) out(n) grad_x(n) -> grad_x",
    reference=lambda grad_out, out: grad_out * (1 - out * out),
)
def tanh_backward(grad_out, out, grad_x):
    """``grad_x = grad_out * (1 - out**2)``."""
    one = out.dtype.type(1)
    for i in range(out.size):
        grad_x[i] = grad_out[i] * (one - out[i] * out[i])


def tanh(op, net, lo, hi):
    """Forward."""
    tanh_forward(*forward_views(op, net, lo, hi))


def tanh_grad(op, net, lo, hi):
    """Backward."""
    tanh_backward(*backward_views(op, net, lo, hi))


op("tanh", "activation", forward=tanh, backward=tanh_grad)


# softmax: out = exp(x) / sum of exp(x) over the row


def softmax_reference(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))  # the largest is exp(0): nothing overflows
    return e / e.sum(axis=1, keepdims=True)


@kernel("x(batch,n) out(batch,n) -> out", reference=softmax_reference, fastmath=SUMS)
def softmax_forward(x, out):
    """``out = exp(x - max) / sum of exp(x - max)`` in each row.

    Source: Bridle (1990), "Probabilistic interpretation of feedforward classification
    network outputs"; Nielsen, chapter 3, eq. 78.
    """
    exponentials(x, out)
    batch, n = x.shape
    for b in range(batch):
        total = x.dtype.type(0)
        for c in range(n):
            total += out[b, c]
        share = x.dtype.type(1) / total
        for c in range(n):
            out[b, c] *= share


@part
def exponentials(x, out):
    """``out = exp(x - max)`` in each row, in one loop over all rows: a row may be short."""
    batch, n = x.shape
    for b in range(batch):
        top = largest(x[b])
        for c in range(n):
            out[b, c] = x[b, c] - top
    flat = vector(pointer(out), 0, out.size)
    for i in range(flat.size):
        flat[i] = exp_value(flat[i])


@part(inline=True)
def largest(row):
    """The largest value of a row, or NaN if there is one."""
    top = row[0]
    for c in range(1, row.size):
        top = row[c] if row[c] > top or row[c] != row[c] else top
    return top


@kernel(
    "grad_out(batch,n) out(batch,n) grad_x(batch,n) -> grad_x",
    reference=lambda grad_out, out: out * (grad_out - (grad_out * out).sum(axis=1, keepdims=True)),
    fastmath=SUMS,
)
def softmax_backward(grad_out, out, grad_x):
    """``grad_x = out * (grad_out - sum of grad_out * out)`` in each row."""
    batch, n = out.shape
    for b in range(batch):
        dot = out.dtype.type(0)
        for c in range(n):
            dot += grad_out[b, c] * out[b, c]
        for c in range(n):
            grad_x[b, c] = out[b, c] * (grad_out[b, c] - dot)


def softmax(op, net, lo, hi):
    """Forward."""
    softmax_forward(
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        rows(net, net.work, op.out, op.fan_out, lo, hi),
    )


def softmax_grad(op, net, lo, hi):
    """Backward."""
    softmax_backward(
        rows(net, net.grad_work, op.out, op.fan_out, lo, hi),
        rows(net, net.work, op.out, op.fan_out, lo, hi),
        rows(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


op("softmax", "activation", forward=softmax, backward=softmax_grad)
