"""Dense (fully connected) layer: ``out = x @ weight + bias``.

``x`` (batch, fan_in), ``weight`` (fan_in, fan_out), ``bias`` (fan_out,), ``out`` (batch, fan_out).

A rectifier (relu, leaky_relu) between two dense layers needs no pass of its own over memory: the
layer before applies it to its sums, ``out = alpha * out where out <= 0``, and the layer behind
leads its gradient back through it, ``grad_x = alpha_x * grad_x where x <= 0``. Where there is
none ``alpha`` and ``alpha_x`` are 1.

Source: Nielsen, *Neural Networks and Deep Learning*, chapter 2 (BP1-BP4);
Kinsley and Kukiela, *Neural Networks from Scratch*, chapters 3 and 9.
"""

import numpy as np

from ._kernel import FOUR, ONE, THREE, TWO, kernel, part
from ._memory import matrix, pointer, shifted, vector
from ._op import op, rows
from .gemm import NONE, SCRATCH, SPARE, STRAIGHT, UNIT, bent_gemm, gemm, spare_part, zeros

# So few outputs would leave most of a vector empty. The product is then computed transposed, with
# vectors along the batch, or along fan_in: ``NARROW`` rows, those that do not exist all zero.
NARROW = 4


@part(inline=True)
def narrow(rows, fan_in, fan_out):
    """Whether a layer is narrow, and what is copied of it has room in the scratch."""
    room = NARROW * (rows + fan_in) <= SPARE
    return fan_out <= NARROW and fan_in >= NARROW and rows >= 4 * NARROW and room


@part
def widened(values, packed):
    """A copy of a narrow matrix with ``NARROW`` columns, in the spare part of the scratch."""
    rows, columns = values.shape
    wide = vector(packed, 0, rows * NARROW)
    if columns == 1:
        widen(values, wide, ONE)
    elif columns == 2:
        widen(values, wide, TWO)
    elif columns == 3:
        widen(values, wide, THREE)
    else:
        widen(values, wide, FOUR)
    return packed


@part(inline=True)
def widen(values, wide, columns):
    """Copy, for a number of columns that the compiler knows and vectorises for."""
    narrow = vector(pointer(values), 0, values.size)
    for i in range(values.shape[0]):
        for c in range(NARROW):
            value = narrow[i * columns + c] if c < columns else values.dtype.type(0)
            wide[i * NARROW + c] = value


@part
def narrowed(transposed, slope, out):
    """Copy the columns that exist back to rows, rectified."""
    columns = out.shape[1]
    if columns == 1:
        turn(transposed, slope, out, ONE)
    elif columns == 2:
        turn(transposed, slope, out, TWO)
    elif columns == 3:
        turn(transposed, slope, out, THREE)
    else:
        turn(transposed, slope, out, FOUR)


@part(inline=True)
def turn(transposed, slope, out, columns):
    """Copy, for a number of columns that the compiler knows and vectorises for."""
    rows = out.shape[0]
    narrow = vector(pointer(out), 0, out.size)
    for i in range(rows):
        for c in range(columns):
            value = transposed[c, i]
            narrow[i * columns + c] = slope * value if value <= 0 else value


@part
def narrow_forward(x, weight, bias, alpha, scratch, out):
    """``out.T = bias + weight.T @ x.T``, rectified."""
    batch, fan_in = x.shape
    spare = spare_part(scratch)
    wide = widened(weight, spare)
    transposed = matrix(spare, NARROW * fan_in, NARROW, batch)
    for o in range(NARROW):
        transposed[o] = bias[o] if o < bias.size else x.dtype.type(0)
    start = pointer(transposed)
    gemm(
        NARROW, batch, fan_in, wide, UNIT, NARROW, pointer(x), UNIT, fan_in,
        start, batch, UNIT, start, batch, scratch,
    )  # fmt: skip
    narrowed(transposed, alpha, out)


@part
def narrow_gradient(grad_out, x, scratch, first, grad_weight):
    """``grad_weight.T = grad_out.T @ x``, for the columns of ``x`` from ``first`` on."""
    batch, fan_in = x.shape
    some = grad_weight.shape[0]
    spare = spare_part(scratch)
    wide = widened(grad_out, spare)
    transposed = matrix(spare, NARROW * batch, NARROW, some)
    gemm(
        NARROW, some, batch, wide, UNIT, NARROW, shifted(pointer(x), first), fan_in, UNIT,
        zeros(scratch), NONE, NONE, pointer(transposed), some, scratch,
    )  # fmt: skip
    narrowed(transposed, STRAIGHT, grad_weight)


def weighted_sum(x, weight, bias):
    return x @ weight + bias


def dense_forward_reference(x, weight, bias, alpha):
    out = weighted_sum(x, weight, bias)
    return np.where(out <= 0, alpha * out, out)


@kernel(
    "x(batch,fan_in) weight(fan_in,fan_out) bias(fan_out) alpha()"
    f" scratch({SCRATCH}) out(batch,fan_out) -> out",
    reference=dense_forward_reference,
)
def dense_forward(x, weight, bias, alpha, scratch, out):
    """``out = x @ weight + bias``, times ``alpha`` where it is not above 0."""
    batch, fan_in = x.shape
    fan_out = weight.shape[1]
    slope = x.dtype.type(alpha)
    if narrow(batch, fan_in, fan_out):
        narrow_forward(x, weight, bias, slope, pointer(scratch), out)
        return
    start, step = pointer(bias), UNIT
    if bias.size == 0:  # the layer has none
        start, step = zeros(pointer(scratch)), NONE
    bent_gemm(
        batch, fan_out, fan_in, pointer(x), fan_in, UNIT, pointer(weight), fan_out, UNIT,
        start, NONE, step, pointer(out), fan_out, slope, pointer(out), pointer(scratch),
    )  # fmt: skip


def weighted_sum_backward(grad_out, weight):
    return grad_out @ weight.T


def dense_backward_reference(grad_out, x, weight, alpha_x):
    grad_x = weighted_sum_backward(grad_out, weight)
    return np.where(x <= 0, alpha_x * grad_x, grad_x)


@kernel(
    "grad_out(batch,fan_out) x(batch,fan_in) weight(fan_in,fan_out) alpha_x()"
    f" scratch({SCRATCH}) grad_x(batch,fan_in) -> grad_x",
    reference=dense_backward_reference,
)
def dense_backward(grad_out, x, weight, alpha_x, scratch, grad_x):
    """``grad_x = grad_out @ weight.T``, times ``alpha_x`` where ``x`` is not above 0."""
    fan_in, fan_out = weight.shape
    packed = pointer(scratch)
    bent_gemm(
        grad_out.shape[0], fan_in, fan_out, pointer(grad_out), fan_out, UNIT, pointer(weight), UNIT,
        fan_out, zeros(packed), NONE, NONE, pointer(grad_x), fan_in, x.dtype.type(alpha_x),
        pointer(x), packed,
    )  # fmt: skip


def dense_gradient_reference(grad_out, x):
    return x.T @ grad_out, grad_out.sum(axis=0)


@kernel(
    "grad_out(batch,fan_out) x(batch,fan_in)"
    f" scratch({SCRATCH}) grad_weight(fan_in,fan_out) grad_bias(fan_out) -> grad_weight grad_bias",
    reference=dense_gradient_reference,
)
def dense_gradient(grad_out, x, scratch, grad_weight, grad_bias):
    """``grad_weight = x.T @ grad_out`` and ``grad_bias = sum of grad_out``, over the batch."""
    weight_gradient(grad_out, x, scratch, 0, grad_weight)
    bias_gradient(grad_out, grad_bias)


@part
def weight_gradient(grad_out, x, scratch, first, grad_weight):
    """The rows of the weight's gradient from ``first`` on, as many as ``grad_weight`` has."""
    batch, fan_in = x.shape
    some, fan_out = grad_weight.shape
    packed = pointer(scratch)
    if narrow(batch, some, fan_out):
        narrow_gradient(grad_out, x, packed, first, grad_weight)
        return
    gemm(
        some, fan_out, batch, shifted(pointer(x), first), UNIT, fan_in, pointer(grad_out), fan_out,
        UNIT, zeros(packed), NONE, NONE, pointer(grad_weight), fan_out, packed,
    )  # fmt: skip


@part
def bias_gradient(grad_out, grad_bias):
    """Sum over the batch, row after row."""
    batch, fan_out = grad_out.shape
    for o in range(fan_out):
        grad_bias[o] = grad_out[0, o]
    for b in range(1, batch):
        for o in range(fan_out):
            grad_bias[o] += grad_out[b, o]


def forward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    dense_forward(
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        matrix(net.params, op.weight, op.fan_in, op.fan_out),
        vector(net.params, op.bias, op.tail),
        op.alpha,
        vector(net.scratch, 0, SCRATCH),
        rows(net, net.work, op.out, op.fan_out, lo, hi),
    )


def backward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    dense_backward(
        rows(net, net.grad_work, op.out, op.fan_out, lo, hi),
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        matrix(net.params, op.weight, op.fan_in, op.fan_out),
        op.alpha_x,
        vector(net.scratch, 0, SCRATCH),
        rows(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


def gradient(op, net, lo, hi):
    """Rows ``lo..hi`` of the weight, and the bias with the last of them."""
    grad_out = rows(net, net.grad_work, op.out, op.fan_out, net.first, net.last)
    weight_gradient(
        grad_out,
        rows(net, net.work, op.x, op.fan_in, net.first, net.last),
        vector(net.scratch, 0, SCRATCH),
        lo,
        matrix(net.grads, op.weight + lo * op.fan_out, hi - lo, op.fan_out),
    )
    if hi == op.fan_in and op.tail > 0:
        bias_gradient(grad_out, vector(net.grads, op.bias, op.tail))


op("dense", "layer", forward=forward, backward=backward, gradient=gradient)
