"""Dense (fully connected) layer: ``out = x @ weight + bias``.

``x`` (batch, fan_in), ``weight`` (fan_in, fan_out), ``bias`` (fan_out,), ``out`` (batch, fan_out).

Source: Nielsen, *Neural Networks and Deep Learning*, chapter 2 (BP1-BP4);
Kinsley and Kukiela, *Neural Networks from Scratch*, chapters 3 and 9.
"""

from ._kernel import kernel, part
from ._memory import matrix, pointer, shifted, vector
from ._op import op, rows
from .gemm import NONE, SCRATCH, SPARE, UNIT, gemm, spare_part, zeros

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
    n, columns = values.shape
    wide = matrix(packed, 0, n, NARROW)
    for i in range(n):
        for c in range(NARROW):
            wide[i, c] = values[i, c] if c < columns else values.dtype.type(0)
    return wide


@part
def narrow_forward(x, weight, bias, scratch, out):
    """``out.T = bias + weight.T @ x.T``."""
    batch, fan_in = x.shape
    spare = spare_part(scratch)
    wide = pointer(widened(weight, spare))
    transposed = matrix(spare, NARROW * fan_in, NARROW, batch)
    for o in range(NARROW):
        transposed[o] = bias[o] if o < bias.size else x.dtype.type(0)
    start = pointer(transposed)
    gemm(
        NARROW, batch, fan_in, wide, UNIT, NARROW, pointer(x), UNIT, fan_in,
        start, batch, UNIT, start, batch, scratch,
    )  # fmt: skip
    for b in range(batch):
        for o in range(bias.size):
            out[b, o] = transposed[o, b]


@part
def narrow_gradient(grad_out, x, scratch, first, grad_weight):
    """``grad_weight.T = grad_out.T @ x``, for the columns of ``x`` from ``first`` on."""
    batch, fan_in = x.shape
    some, fan_out = grad_weight.shape
    spare = spare_part(scratch)
    wide = pointer(widened(grad_out, spare))
    transposed = matrix(spare, NARROW * batch, NARROW, some)
    gemm(
        NARROW, some, batch, wide, UNIT, NARROW, shifted(pointer(x), first), fan_in, UNIT,
        zeros(scratch), NONE, NONE, pointer(transposed), some, scratch,
    )  # fmt: skip
    for i in range(some):
        for o in range(fan_out):
            grad_weight[i, o] = transposed[o, i]


def dense_forward_reference(x, weight, bias):
    return x @ weight + bias


@kernel(
    "x(batch,fan_in) weight(fan_in,fan_out) bias(fan_out)"
    f" scratch({SCRATCH}) out(batch,fan_out) -> out",
    reference=dense_forward_reference,
)
def dense_forward(x, weight, bias, scratch, out):
    """``out = x @ weight + bias``."""
    batch, fan_in = x.shape
    fan_out = bias.size
    if narrow(batch, fan_in, fan_out):
        narrow_forward(x, weight, bias, pointer(scratch), out)
        return
    gemm(
        batch, fan_out, fan_in, pointer(x), fan_in, UNIT, pointer(weight), fan_out, UNIT,
        pointer(bias), NONE, UNIT, pointer(out), fan_out, pointer(scratch),
    )  # fmt: skip


def dense_backward_reference(grad_out, weight):
    return grad_out @ weight.T


@kernel(
    "grad_out(batch,fan_out) weight(fan_in,fan_out)"
    f" scratch({SCRATCH}) grad_x(batch,fan_in) -> grad_x",
    reference=dense_backward_reference,
)
def dense_backward(grad_out, weight, scratch, grad_x):
    """``grad_x = grad_out @ weight.T``: each row of the batch for itself."""
    fan_in, fan_out = weight.shape
    packed = pointer(scratch)
    gemm(
        grad_out.shape[0], fan_in, fan_out, pointer(grad_out), fan_out, UNIT, pointer(weight), UNIT,
        fan_out, zeros(packed), NONE, NONE, pointer(grad_x), fan_in, packed,
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
        vector(net.params, op.bias, op.fan_out),
        vector(net.scratch, 0, SCRATCH),
        rows(net, net.work, op.out, op.fan_out, lo, hi),
    )


def backward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    dense_backward(
        rows(net, net.grad_work, op.out, op.fan_out, lo, hi),
        matrix(net.params, op.weight, op.fan_in, op.fan_out),
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
    if hi == op.fan_in:
        bias_gradient(grad_out, vector(net.grads, op.bias, op.fan_out))


op("dense", "layer", forward=forward, backward=backward, gradient=gradient)
