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

from ._kernel import kernel, part
from ._memory import matrix, pointer, shifted, vector
from ._narrow import DOTS, NARROW, SPREAD, SUMS, narrow_product
from ._op import op, rows
from .gemm import NONE, SCRATCH, UNIT, bent_gemm, gemm, zeros

AS_IT_LIES, TURNED = np.int64(0), np.int64(1)


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
    start, step = pointer(bias), UNIT
    if bias.size == 0:  # the layer has none
        start, step = zeros(pointer(scratch)), NONE
    if fan_out <= NARROW:
        narrow_product(
            DOTS, fan_out, TURNED, batch, fan_in, pointer(x), fan_in, pointer(weight),
            NONE, start, step, pointer(out), slope, pointer(out),
        )  # fmt: skip
        return
    if fan_in <= NARROW:
        narrow_product(
            SPREAD, fan_in, AS_IT_LIES, batch, fan_out, pointer(x), fan_in, pointer(weight),
            NONE, start, step, pointer(out), slope, pointer(out),
        )  # fmt: skip
        return
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
    batch, packed, slope = grad_out.shape[0], pointer(scratch), x.dtype.type(alpha_x)
    if fan_out <= NARROW:
        narrow_product(
            SPREAD, fan_out, TURNED, batch, fan_in, pointer(grad_out), fan_out, pointer(weight),
            NONE, zeros(packed), NONE, pointer(grad_x), slope, pointer(x),
        )  # fmt: skip
        return
    bent_gemm(
        batch, fan_in, fan_out, pointer(grad_out), fan_out, UNIT, pointer(weight), UNIT, fan_out,
        zeros(packed), NONE, NONE, pointer(grad_x), fan_in, slope, pointer(x), packed,
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
    bias_gradient(grad_out, pointer(scratch), grad_bias)


@part
def weight_gradient(grad_out, x, scratch, first, grad_weight):
    """The rows of the weight's gradient from ``first`` on, as many as ``grad_weight`` has."""
    batch, fan_in = x.shape
    some, fan_out = grad_weight.shape
    packed, one = pointer(scratch), x.dtype.type(1)
    if fan_out <= NARROW:
        narrow_product(
            SUMS, fan_out, TURNED, batch, some, shifted(pointer(x), first), fan_in,
            pointer(grad_out), fan_out, packed, NONE, pointer(grad_weight), one, packed,
        )  # fmt: skip
        return
    if fan_in <= NARROW:
        narrow_product(
            SUMS, some, AS_IT_LIES, batch, fan_out, pointer(grad_out), fan_out,
            shifted(pointer(x), first), fan_in, packed, NONE, pointer(grad_weight), one, packed,
        )  # fmt: skip
        return
    gemm(
        some, fan_out, batch, shifted(pointer(x), first), UNIT, fan_in, pointer(grad_out), fan_out,
        UNIT, zeros(packed), NONE, NONE, pointer(grad_weight), fan_out, packed,
    )  # fmt: skip


@part
def bias_gradient(grad_out, scratch, grad_bias):
    """Sum over the batch, row after row: the product of a row of ones with ``grad_out``."""
    batch, fan_out = grad_out.shape
    vector(scratch, 0, 1)[0] = 1  # a product of a single row packs nothing
    gemm(
        UNIT, fan_out, batch, scratch, NONE, NONE, pointer(grad_out), fan_out, UNIT,
        zeros(scratch), NONE, NONE, pointer(grad_bias), fan_out, scratch,
    )  # fmt: skip


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
        bias_gradient(grad_out, net.scratch, vector(net.grads, op.bias, op.tail))


op("dense", "layer", forward=forward, backward=backward, gradient=gradient)
