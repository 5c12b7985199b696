"""A row of a table for each whole number that comes in.

Source: Bengio, Ducharme, Vincent and Jauvin (2003), "A neural probabilistic language model",
JMLR 3, section 2.
"""

import numpy as np

from ._kernel import kernel, part
from ._memory import matrix
from ._op import op, rows


def places(arguments, rng):
    """Whole numbers that fit the table, and widths that fit each other."""
    table = arguments.get("weight", arguments.get("grad_weight"))
    x = arguments["x"]
    x[...] = rng.integers(0, len(table), x.shape)
    arguments.update(first=0)
    return arguments


@part(inline=True)
def place(value, count):
    """The row of a number; one that is out of range, which Python has refused, takes an end."""
    return min(max(int(value), 0), count - 1)


@kernel(
    "x(batch,fan_in) weight(weight_rows,row_size) out(batch,fan_in,row_size) -> out",
    reference=lambda x, weight: weight[x.astype(int)],
    sample=places,
)
def embedding_forward(x, weight, out):
    """``out[b, c] = weight[x[b, c]]``."""
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            row = place(x[b, c], weight.shape[0])
            for k in range(weight.shape[1]):
                out[b, c, k] = weight[row, k]


def embedding_gradient_reference(grad_out, x, grad_weight):
    result = np.zeros_like(grad_weight)
    np.add.at(result, x.astype(int), grad_out)
    return result


@kernel(
    "grad_out(batch,fan_in,row_size) x(batch,fan_in) first() grad_weight(weight_rows,row_size)"
    " -> grad_weight",
    reference=embedding_gradient_reference,
    sample=places,
)
def embedding_gradient(grad_out, x, first, grad_weight):
    """Add ``grad_out[b, c]`` to the row ``x[b, c]``, of the rows from ``first`` on."""
    zero = grad_out.dtype.type(0)
    for r in range(grad_weight.shape[0]):
        for k in range(grad_weight.shape[1]):
            grad_weight[r, k] = zero
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            row = int(x[b, c]) - int(first)
            if 0 <= row < grad_weight.shape[0]:
                for k in range(grad_weight.shape[1]):
                    grad_weight[row, k] += grad_out[b, c, k]


def embedding(op, net, lo, hi):
    """Forward."""
    embedding_forward(
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        matrix(net.params, op.weight, op.weight_rows, op.row_size),
        rows(net, net.work, op.out, op.fan_out, lo, hi).reshape(hi - lo, op.fan_in, op.row_size),
    )


def embedding_weights(op, net, lo, hi):
    """Gradient of the rows ``lo..hi`` of the table."""
    size = net.last - net.first
    embedding_gradient(
        rows(net, net.grad_work, op.out, op.fan_out, net.first, net.last).reshape(
            size, op.fan_in, op.row_size
        ),
        rows(net, net.work, op.x, op.fan_in, net.first, net.last),
        lo,
        matrix(net.grads, op.weight + lo * op.row_size, hi - lo, op.row_size),
    )


op("embedding", "layer", forward=embedding, gradient=embedding_weights)
