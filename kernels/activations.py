"""Activations: one number in, one number out, but for softmax, which looks at a row.

Those that go on rising with x, as relu does, are in ``rectifiers``. Each ``backward`` multiplies
``grad_out`` by the derivative, written with the forward pass's output where that is simpler
than with its input, and no less exact.

To add one: reference, forward, backward, ``op(...)``, all here. It can then be
used by its name in ``Dense(..., activation="name")`` and is tested at once.
"""

import numpy as np

from ._kernel import SUMS, kernel, part
from ._memory import pointer, vector
from ._op import op, row_values, rows
from .elementary import (
    exp_value,
    in_two,
    inverse_in_two,
    log1p_value,
    number_at,
    place,
    product,
    rounded,
    sigmoid_value,
    tanh_value,
)


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


@part(inline=True)
def backward_views_of_input(op, net, lo, hi):
    """Gradient of the output, the input, and where the gradient of the input goes, flat."""
    return (
        row_values(net, net.grad_work, op.out, op.fan_out, lo, hi),
        row_values(net, net.work, op.x, op.fan_in, lo, hi),
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


# step: out = 1 above 0, 0 elsewhere. It is flat on both sides: nothing can be learnt through it.


@kernel("x(n) out(n) -> out", reference=lambda x: np.heaviside(x, 0))
def step_forward(x, out):
    """``out = 1 above 0, 0 elsewhere``: Rosenblatt's perceptron.

    Source: Rosenblatt (1958), Psychological Review 65; Nielsen, chapter 1, eq. 1; *Neural
    Networks from Scratch*, chapter 4.
    """
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(x.size):
        out[i] = one if x[i] > zero else zero if x[i] <= zero else x[i]  # NaN stays NaN


def step(op, net, lo, hi):
    """Forward."""
    step_forward(*forward_views(op, net, lo, hi))


op("step", "activation", forward=step)


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


# softsign: out = x / (1 + |x|)


@kernel("x(n) out(n) -> out", reference=lambda x: x / (1 + np.abs(x)))
def softsign_forward(x, out):
    """``out = x / (1 + |x|)``: tanh's range, reached more slowly.

    Source: Turian, Bergstra and Bengio (2009), NAACL.
    """
    one = x.dtype.type(1)
    for i in range(x.size):
        out[i] = x[i] / (one + abs(x[i]))


@kernel(
    "grad_out(n) x(n) grad_x(n) -> grad_x",
    reference=lambda grad_out, x: grad_out / (1 + np.abs(x)) ** 2,
)
def softsign_backward(grad_out, x, grad_x):
    """``grad_x = grad_out / (1 + |x|)**2``."""
    one = x.dtype.type(1)
    for i in range(x.size):
        size = one + abs(x[i])
        grad_x[i] = grad_out[i] / (size * size)


def softsign(op, net, lo, hi):
    """Forward."""
    softsign_forward(*forward_views(op, net, lo, hi))


def softsign_grad(op, net, lo, hi):
    """Backward."""
    softsign_backward(*backward_views_of_input(op, net, lo, hi))


op("softsign", "activation", forward=softsign, backward=softsign_grad)


# softplus: out = log(1 + exp(x))


@kernel("x(n) out(n) -> out", reference=lambda x: np.logaddexp(0, x))
def softplus_forward(x, out):
    """``out = log(1 + exp(x))``, as ``max(x, 0) + log(1 + exp(-|x|))``: nothing overflows.

    Source: Dugas et al. (2001), NIPS 13.
    """
    zero = x.dtype.type(0)
    for i in range(x.size):
        above = x[i] if x[i] > zero else zero
        out[i] = above + log1p_value(exp_value(-abs(x[i])))


@kernel(
    "grad_out(n) x(n) grad_x(n) -> grad_x",
    reference=lambda grad_out, x: grad_out * sigmoid_reference(x),
)
def softplus_backward(grad_out, x, grad_x):
    """``grad_x = grad_out * sigmoid(x)``."""
    for i in range(x.size):
        grad_x[i] = grad_out[i] * sigmoid_value(x[i])


def softplus(op, net, lo, hi):
    """Forward."""
    softplus_forward(*forward_views(op, net, lo, hi))


def softplus_grad(op, net, lo, hi):
    """Backward."""
    softplus_backward(*backward_views_of_input(op, net, lo, hi))


op("softplus", "activation", forward=softplus, backward=softplus_grad)


# exponential: out = exp(x)


@kernel("x(n) out(n) -> out", reference=lambda x: np.exp(x))
def exponential_forward(x, out):
    """``out = exp(x)``: an output that is a rate, as a Poisson loss expects it."""
    for i in range(x.size):
        out[i] = exp_value(x[i])


@kernel(
    "grad_out(n) out(n) grad_x(n) -> grad_x",
    reference=lambda grad_out, out: grad_out * out,
)
def exponential_backward(grad_out, out, grad_x):
    """``grad_x = grad_out * out``."""
    for i in range(out.size):
        grad_x[i] = grad_out[i] * out[i]


def exponential(op, net, lo, hi):
    """Forward."""
    exponential_forward(*forward_views(op, net, lo, hi))


def exponential_grad(op, net, lo, hi):
    """Backward."""
    exponential_backward(*backward_views(op, net, lo, hi))


op("exponential", "activation", forward=exponential, backward=exponential_grad)


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
    zero, grid = x.dtype.type(0), x.dtype.type(4 * n)
    for b in range(batch):
        # Multiples of a last bit so large add up without rounding; so little is left of them that
        # its rounding does not count.
        coarse, fine = zero, zero
        for c in range(n):
            multiple, rest = rounded(out[b, c], grid)
            coarse += multiple
            fine += rest
        total, rest = in_two(coarse, fine)
        share, rest = inverse_in_two(total, rest)
        for c in range(n):
            out[b, c] = product(out[b, c], share, rest)


@part
def exponentials(x, out):
    """``out = exp(x - max)`` in each row, in one loop over all rows: a row may be short."""
    batch, n = x.shape
    for b in range(batch):
        top = largest(x, b)
        for c in range(n):
            out[b, c] = x[b, c] - top
    flat = vector(pointer(out), 0, out.size)
    for i in range(flat.size):
        flat[i] = exp_value(flat[i])


FEW = 16  # columns, at most a vector or two


@part(inline=True)
def largest(x, b):
    """The largest value of a row; where there is a NaN any of them.

    As whole numbers they are compared in vectors, which floats with their NaN are not.
    """
    n = x.shape[1]
    if n < FEW:
        highest = x[b, 0]
        for c in range(1, n):
            highest = x[b, c] if x[b, c] > highest else highest
        return highest
    top = place(x[b, 0])
    for c in range(1, n):
        value = place(x[b, c])
        top = value if value > top else top
    return number_at(top)


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
