"""Layers that bring values to mean 0 and variance 1: over a batch, over a row, over the data.

``weight`` and ``bias`` (the papers' gamma and beta) scale and shift what comes out, one of each
for a column. Variances are those of what is there, sums divided by its number.

Sources: Ioffe and Szegedy (2015), "Batch Normalization", arXiv:1502.03167, algorithm 1; Ba, Kiros
and Hinton (2016), "Layer Normalization", arXiv:1607.06450, eq. 3-4.
"""

import numpy as np

from ._kernel import SUMS, kernel, part
from ._memory import ROOM, pointer, room_like, vector
from ._op import op, row_values, rows
from .elementary import rounded


def all_columns(arguments, rng):
    """Every column, variances that are none below 0, and a share of old and new."""
    arguments.update(first=0, last=next(iter(arguments.values())).shape[1], momentum=0.9)
    if "running_var" in arguments:
        arguments["running_var"][...] **= 2
    return arguments


@part
def column_moments(x, first, columns, mean, var):
    """Mean and variance in float64 of so many columns side by side.

    Rows are read in pieces of so many numbers: a column for itself would be read from as many
    places in memory as there are rows.
    """
    place, n, width = pointer(x), x.shape[0], x.shape[1]
    for j in range(columns):
        mean[j], var[j] = 0.0, 0.0
    for b in range(n):
        row = vector(place, b * width + first, columns)
        for j in range(columns):
            mean[j] += np.float64(row[j])
    for j in range(columns):
        mean[j] /= n
    for b in range(n):
        row = vector(place, b * width + first, columns)
        for j in range(columns):
            apart = np.float64(row[j]) - mean[j]
            var[j] += apart * apart
    for j in range(columns):
        var[j] /= n


def batch_norm_forward_reference(
    x, weight, bias, momentum, epsilon, running_mean, running_var, first, last
):
    mean, var = x.mean(axis=0), x.var(axis=0)
    out = (x - mean) / np.sqrt(var + epsilon) * weight + bias
    return (
        momentum * running_mean + (1 - momentum) * mean,
        momentum * running_var + (1 - momentum) * var,
        out,
    )


@kernel(
    "x(batch,fan_in) weight(fan_in) bias(fan_in) momentum() epsilon() first() last()"
    " running_mean(fan_in) running_var(fan_in) out(batch,fan_in)"
    " -> running_mean running_var out",
    reference=batch_norm_forward_reference,
    sample=all_columns,
)
def batch_norm_forward(
    x, weight, bias, momentum, epsilon, first, last, running_mean, running_var, out
):
    """``out = (x - mean) / sqrt(var + epsilon) * weight + bias``, of the columns first..last.

    Mean and variance are the batch's; what runs along keeps a share ``momentum`` of the old.
    """
    kind, n, width = x.dtype.type, x.shape[0], x.shape[1]
    keep, new, zero = kind(momentum), kind(1 - momentum), kind(0)
    source, target = pointer(x), pointer(out)
    mean, var, middle, factor = room_like(0.0), room_like(0.0), room_like(zero), room_like(zero)
    for c in range(int(first), int(last), ROOM):
        columns = min(ROOM, int(last) - c)
        column_moments(x, c, columns, mean, var)
        for j in range(columns):
            middle[j] = kind(mean[j])
            factor[j] = kind(1 / np.sqrt(var[j] + epsilon)) * weight[c + j]
            running_mean[c + j] = keep * running_mean[c + j] + new * middle[j]
            running_var[c + j] = keep * running_var[c + j] + new * kind(var[j])
        shift = vector(pointer(bias), c, columns)
        for b in range(n):
            row, normal = (
                vector(source, b * width + c, columns), vector(target, b * width + c, columns)
            )  # fmt: skip
            for j in range(columns):
                normal[j] = (row[j] - middle[j]) * factor[j] + shift[j]


def normal_columns(x, epsilon):
    inverse = 1 / np.sqrt(x.var(axis=0) + epsilon)
    return (x - x.mean(axis=0)) * inverse, inverse


def batch_norm_backward_reference(grad_out, x, weight, epsilon):
    normal, inverse = normal_columns(x, epsilon)
    along = (grad_out * normal).mean(axis=0)
    return weight * inverse * (grad_out - grad_out.mean(axis=0) - normal * along)


@kernel(
    "grad_out(batch,fan_in) x(batch,fan_in) weight(fan_in) epsilon() first() last()"
    " grad_x(batch,fan_in) -> grad_x",
    reference=batch_norm_backward_reference,
    sample=all_columns,
)
def batch_norm_backward(grad_out, x, weight, epsilon, first, last, grad_x):
    """``grad_x = weight / sqrt(var + epsilon) * (g - mean of g - normal * mean of g * normal)``.

    ``g`` is ``grad_out``, ``normal`` the input at mean 0 and variance 1: mean and variance depend
    on every row, so every row's gradient reaches every other.
    """
    kind, n, width = x.dtype.type, x.shape[0], x.shape[1]
    zero, source, above, below = kind(0), pointer(x), pointer(grad_out), pointer(grad_x)
    mean, inverse, total, along = room_like(0.0), room_like(0.0), room_like(0.0), room_like(0.0)
    middles, scales, factors = room_like(zero), room_like(zero), room_like(zero)
    levels, slopes = room_like(zero), room_like(zero)
    for c in range(int(first), int(last), ROOM):
        columns = min(ROOM, int(last) - c)
        column_sums(grad_out, x, epsilon, c, columns, mean, inverse, total, along)
        for j in range(columns):
            middles[j], scales[j] = kind(mean[j]), kind(inverse[j])
            factors[j] = scales[j] * weight[c + j]
            levels[j], slopes[j] = kind(total[j] / n), kind(along[j] / n)
        for b in range(n):
            row, g, result = (
                vector(source, b * width + c, columns),
                vector(above, b * width + c, columns),
                vector(below, b * width + c, columns),
            )
            for j in range(columns):
                normal = (row[j] - middles[j]) * scales[j]
                result[j] = factors[j] * (g[j] - levels[j] - normal * slopes[j])


@part
def column_sums(grad_out, x, epsilon, first, columns, mean, inverse, total, along):
    """Sums of the gradient in columns side by side, and of that times the normal input.

    All in float64, with the columns' means and 1 over the roots of their variances.
    """
    source, above, width = pointer(x), pointer(grad_out), x.shape[1]
    column_moments(x, first, columns, mean, inverse)
    for j in range(columns):
        inverse[j] = 1 / np.sqrt(inverse[j] + epsilon)
        total[j], along[j] = 0.0, 0.0
    for b in range(x.shape[0]):
        row, gradient = (
            vector(source, b * width + first, columns), vector(above, b * width + first, columns)
        )  # fmt: skip
        for j in range(columns):
            g = np.float64(gradient[j])
            total[j] += g
            along[j] += g * ((np.float64(row[j]) - mean[j]) * inverse[j])


def batch_norm_gradient_reference(grad_out, x, epsilon):
    return (grad_out * normal_columns(x, epsilon)[0]).sum(axis=0), grad_out.sum(axis=0)


@kernel(
    "grad_out(batch,fan_in) x(batch,fan_in) epsilon() first() last()"
    " grad_weight(fan_in) grad_bias(fan_in) -> grad_weight grad_bias",
    reference=batch_norm_gradient_reference,
    sample=all_columns,
)
def batch_norm_gradient(grad_out, x, epsilon, first, last, grad_weight, grad_bias):
    """``grad_weight = sum of grad_out * normal`` in the columns first..last.

    ``grad_bias = sum of grad_out``, in all columns, with the last of them.
    """
    kind, n = x.dtype.type, x.shape[1]
    mean, inverse, total, along = room_like(0.0), room_like(0.0), room_like(0.0), room_like(0.0)
    whole = int(last) == n
    for c in range(0 if whole else int(first), int(last), ROOM):
        columns = min(ROOM, int(last) - c)
        column_sums(grad_out, x, epsilon, c, columns, mean, inverse, total, along)
        for j in range(columns):
            if c + j >= int(first):
                grad_weight[c + j] = kind(along[j])
            if whole:
                grad_bias[c + j] = kind(total[j])


def batch_norm(op, net, lo, hi):
    """Forward, of the columns ``lo..hi``; running means move where the network learns."""
    batch_norm_forward(
        rows(net, net.work, op.x, op.fan_in, 0, net.batch),
        vector(net.params, op.weight, op.fan_in),
        vector(net.params, op.bias, op.fan_in),
        op.momentum if net.learning else 1.0,
        op.epsilon,
        lo,
        hi,
        vector(net.params, op.running_mean, op.fan_in),
        vector(net.params, op.running_var, op.fan_in),
        rows(net, net.work, op.out, op.fan_in, 0, net.batch),
    )


def batch_norm_back(op, net, lo, hi):
    """Backward, of the columns ``lo..hi``."""
    batch_norm_backward(
        rows(net, net.grad_work, op.out, op.fan_in, 0, net.batch),
        rows(net, net.work, op.x, op.fan_in, 0, net.batch),
        vector(net.params, op.weight, op.fan_in),
        op.epsilon,
        lo,
        hi,
        rows(net, net.grad_work, op.x, op.fan_in, 0, net.batch),
    )


def batch_norm_weights(op, net, lo, hi):
    """Gradient of the weights ``lo..hi``, and of the bias with the last of them."""
    batch_norm_gradient(
        rows(net, net.grad_work, op.out, op.fan_in, net.first, net.last),
        rows(net, net.work, op.x, op.fan_in, net.first, net.last),
        op.epsilon,
        lo,
        hi,
        vector(net.grads, op.weight, op.fan_in),
        vector(net.grads, op.bias, op.fan_in),
    )


op(
    "batch_norm",
    "layer",
    forward=batch_norm,
    backward=batch_norm_back,
    gradient=batch_norm_weights,
)


# running_norm: what batch_norm is once training is over


@kernel(
    "x(batch,fan_in) weight(fan_in) bias(fan_in) epsilon() running_mean(fan_in)"
    " running_var(fan_in) out(batch,fan_in) -> out",
    reference=lambda x, weight, bias, epsilon, running_mean, running_var: (
        (x - running_mean) / np.sqrt(running_var + epsilon) * weight + bias
    ),
    sample=all_columns,
)
def running_norm_forward(x, weight, bias, epsilon, running_mean, running_var, out):
    """``out = (x - running_mean) / sqrt(running_var + epsilon) * weight + bias``."""
    one, small = x.dtype.type(1), x.dtype.type(epsilon)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            factor = weight[c] * (one / np.sqrt(running_var[c] + small))
            out[b, c] = (x[b, c] - running_mean[c]) * factor + bias[c]


def running_norm(op, net, lo, hi):
    """Forward."""
    running_norm_forward(
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        vector(net.params, op.weight, op.fan_in),
        vector(net.params, op.bias, op.fan_in),
        op.epsilon,
        vector(net.params, op.running_mean, op.fan_in),
        vector(net.params, op.running_var, op.fan_in),
        rows(net, net.work, op.out, op.fan_in, lo, hi),
    )


@kernel(
    "grad_out(batch,fan_in) weight(fan_in) epsilon() running_var(fan_in) grad_x(batch,fan_in)"
    " -> grad_x",
    reference=lambda grad_out, weight, epsilon, running_var: (
        grad_out / np.sqrt(running_var + epsilon) * weight
    ),
    sample=all_columns,
)
def running_norm_backward(grad_out, weight, epsilon, running_var, grad_x):
    """``grad_x = grad_out * weight / sqrt(running_var + epsilon)``."""
    one, small = grad_out.dtype.type(1), grad_out.dtype.type(epsilon)
    for b in range(grad_x.shape[0]):
        for c in range(grad_x.shape[1]):
            grad_x[b, c] = grad_out[b, c] * (weight[c] * (one / np.sqrt(running_var[c] + small)))


def running_norm_back(op, net, lo, hi):
    """Backward."""
    running_norm_backward(
        rows(net, net.grad_work, op.out, op.fan_out, lo, hi),
        vector(net.params, op.weight, op.fan_in),
        op.epsilon,
        vector(net.params, op.running_var, op.fan_in),
        rows(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


op("running_norm", "layer", forward=running_norm, backward=running_norm_back)


# layer_norm: each row for itself


def normal_rows(x, epsilon):
    inverse = 1 / np.sqrt(x.var(axis=1, keepdims=True) + epsilon)
    return (x - x.mean(axis=1, keepdims=True)) * inverse, inverse


def layer_norm_forward_reference(x, weight, bias, epsilon):
    normal, _ = normal_rows(x, epsilon)
    return normal, normal * weight + bias


@kernel(
    "x(batch,fan_in) weight(fan_in) bias(fan_in) epsilon() kept(batch,fan_in) out(batch,fan_in)"
    " -> kept out",
    reference=layer_norm_forward_reference,
    fastmath=SUMS,
)
def layer_norm_forward(x, weight, bias, epsilon, kept, out):
    """``kept = (x - mean) / sqrt(var + epsilon)`` in each row; ``out = kept * weight + bias``."""
    for b in range(x.shape[0]):
        if x.itemsize == 8:
            mean, inverse = double_moments(x[b], epsilon)
        else:
            mean, inverse = single_moments(x[b], epsilon)
        for c in range(x.shape[1]):
            kept[b, c] = (x[b, c] - mean) * inverse
            out[b, c] = kept[b, c] * weight[c] + bias[c]


@part(fastmath=SUMS)
def row_moments(row, epsilon):
    """Mean of a row, and 1 over the root of its variance."""
    kind = row.dtype.type
    total = kind(0)
    for c in range(row.size):
        total += row[c]
    mean, squares = total / kind(row.size), kind(0)
    for c in range(row.size):
        squares += (row[c] - mean) * (row[c] - mean)
    return mean, kind(1) / np.sqrt(squares / kind(row.size) + kind(epsilon))


@part(inline=True, fastmath=SUMS)
def single_moments(row, epsilon):
    """The same of float32, with digits that do not depend on what cancels.

    Both are summed in float64, less the row's first number: the squares of what is left lose at
    most as many digits as the length of a row has.
    """
    kind, share = row.dtype.type, 1.0 / row.size
    first, total, squares = np.float64(row[0]), 0.0, 0.0
    for c in range(row.size):
        value = np.float64(row[c]) - first
        total += value
        squares += value * value
    mean = total * share
    var = (squares - total * mean) * share
    return kind(first + mean), kind(1) / np.sqrt(kind(var + epsilon))


@part(inline=True, fastmath=SUMS)
def double_moments(row, epsilon):
    """The same of float64, whose sums are of multiples and of small rests."""
    kind = row.dtype.type
    size, total, squares, small = 0.0, 0.0, 0.0, 0.0
    for c in range(row.size):
        size += abs(row[c])
    for c in range(row.size):
        multiple, rest = rounded(row[c], 4 * size)
        total += multiple
        small += rest
    mean, small = (total + small) / row.size, 0.0
    for c in range(row.size):
        multiple, rest = rounded((row[c] - mean) ** 2, 16 * size * size)
        squares += multiple
        small += rest
    return kind(mean), kind(1 / np.sqrt((squares + small) / row.size + epsilon))


def layer_norm_backward_reference(grad_out, x, weight, kept, epsilon):
    g = grad_out * weight
    along = (g * kept).mean(axis=1, keepdims=True)
    return normal_rows(x, epsilon)[1] * (g - g.mean(axis=1, keepdims=True) - kept * along)


@kernel(
    "grad_out(batch,fan_in) x(batch,fan_in) weight(fan_in) kept(batch,fan_in) epsilon()"
    " grad_x(batch,fan_in) -> grad_x",
    reference=layer_norm_backward_reference,
    fastmath=SUMS,
)
def layer_norm_backward(grad_out, x, weight, kept, epsilon, grad_x):
    """``grad_x = (g - mean of g - kept * mean of g * kept) / sqrt(var + epsilon)`` in each row.

    ``g = grad_out * weight``.
    """
    kind, n = x.dtype.type, x.shape[1]
    for b in range(x.shape[0]):
        _, inverse = row_moments(x[b], epsilon)
        total, along = kind(0), kind(0)
        for c in range(n):
            g = grad_out[b, c] * weight[c]
            total += g
            along += g * kept[b, c]
        level, slope = total / kind(n), along / kind(n)
        for c in range(n):
            grad_x[b, c] = (grad_out[b, c] * weight[c] - level - kept[b, c] * slope) * inverse


@kernel(
    "grad_out(batch,fan_in) kept(batch,fan_in) first() last()"
    " grad_weight(fan_in) grad_bias(fan_in) -> grad_weight grad_bias",
    reference=lambda grad_out, kept: ((grad_out * kept).sum(axis=0), grad_out.sum(axis=0)),
    sample=all_columns,
)
def layer_norm_gradient(grad_out, kept, first, last, grad_weight, grad_bias):
    """``grad_weight = sum of grad_out * kept`` in the columns first..last.

    ``grad_bias = sum of grad_out``, in all columns, with the last of them.
    """
    zero, n = kept.dtype.type(0), kept.shape[1]
    above, source, totals, alongs = (
        pointer(grad_out),
        pointer(kept),
        room_like(zero),
        room_like(zero),
    )
    whole = int(last) == n
    for c in range(0 if whole else int(first), int(last), ROOM):
        columns = min(ROOM, int(last) - c)
        for j in range(columns):
            totals[j], alongs[j] = zero, zero
        for b in range(kept.shape[0]):
            g, normal = vector(above, b * n + c, columns), vector(source, b * n + c, columns)
            for j in range(columns):
                totals[j] += g[j]
                alongs[j] += g[j] * normal[j]
        for j in range(columns):
            if c + j >= int(first):
                grad_weight[c + j] = alongs[j]
            if whole:
                grad_bias[c + j] = totals[j]


def layer_norm(op, net, lo, hi):
    """Forward."""
    layer_norm_forward(
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        vector(net.params, op.weight, op.fan_in),
        vector(net.params, op.bias, op.fan_in),
        op.epsilon,
        rows(net, net.work, op.kept, op.fan_in, lo, hi),
        rows(net, net.work, op.out, op.fan_in, lo, hi),
    )


def layer_norm_back(op, net, lo, hi):
    """Backward."""
    layer_norm_backward(
        rows(net, net.grad_work, op.out, op.fan_in, lo, hi),
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        vector(net.params, op.weight, op.fan_in),
        rows(net, net.work, op.kept, op.fan_in, lo, hi),
        op.epsilon,
        rows(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


def layer_norm_weights(op, net, lo, hi):
    """Gradient of the weights ``lo..hi``, and of the bias with the last of them."""
    layer_norm_gradient(
        rows(net, net.grad_work, op.out, op.fan_in, net.first, net.last),
        rows(net, net.work, op.kept, op.fan_in, net.first, net.last),
        lo,
        hi,
        vector(net.grads, op.weight, op.fan_in),
        vector(net.grads, op.bias, op.fan_in),
    )


op(
    "layer_norm",
    "layer",
    forward=layer_norm,
    backward=layer_norm_back,
    gradient=layer_norm_weights,
)


# standardize: by mean and deviation of the data, which no training moves


@kernel(
    "x(batch,fan_in) weight(fan_in) bias(fan_in) out(batch,fan_in) -> out",
    reference=lambda x, weight, bias: (x - bias) * weight,
)
def standardize_forward(x, weight, bias, out):
    """``out = (x - bias) * weight``: ``bias`` is a mean, ``weight`` 1 over a deviation."""
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[b, c] = (x[b, c] - bias[c]) * weight[c]


@kernel(
    "grad_out(batch,fan_in) weight(fan_in) grad_x(batch,fan_in) -> grad_x",
    reference=lambda grad_out, weight: grad_out * weight,
)
def standardize_backward(grad_out, weight, grad_x):
    """``grad_x = grad_out * weight``."""
    for b in range(grad_x.shape[0]):
        for c in range(grad_x.shape[1]):
            grad_x[b, c] = grad_out[b, c] * weight[c]


def standardize(op, net, lo, hi):
    """Forward."""
    standardize_forward(
        rows(net, net.work, op.x, op.fan_in, lo, hi),
        vector(net.params, op.weight, op.fan_in),
        vector(net.params, op.bias, op.fan_in),
        rows(net, net.work, op.out, op.fan_in, lo, hi),
    )


def standardize_grad(op, net, lo, hi):
    """Backward."""
    standardize_backward(
        rows(net, net.grad_work, op.out, op.fan_in, lo, hi),
        vector(net.params, op.weight, op.fan_in),
        rows(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


op("standardize", "layer", forward=standardize, backward=standardize_grad)


# rescaling: two numbers for all


@kernel(
    "x(n) scale() offset() out(n) -> out", reference=lambda x, scale, offset: x * scale + offset
)
def rescaling_forward(x, scale, offset, out):
    """``out = x * scale + offset``."""
    factor, shift = x.dtype.type(scale), x.dtype.type(offset)
    for i in range(x.size):
        out[i] = x[i] * factor + shift


@kernel(
    "grad_out(n) scale() grad_x(n) -> grad_x", reference=lambda grad_out, scale: grad_out * scale
)
def rescaling_backward(grad_out, scale, grad_x):
    """``grad_x = grad_out * scale``."""
    factor = grad_out.dtype.type(scale)
    for i in range(grad_x.size):
        grad_x[i] = grad_out[i] * factor


def rescaling(op, net, lo, hi):
    """Forward."""
    rescaling_forward(
        row_values(net, net.work, op.x, op.fan_in, lo, hi),
        op.scale,
        op.offset,
        row_values(net, net.work, op.out, op.fan_in, lo, hi),
    )


def rescaling_grad(op, net, lo, hi):
    """Backward."""
    rescaling_backward(
        row_values(net, net.grad_work, op.out, op.fan_in, lo, hi),
        op.scale,
        row_values(net, net.grad_work, op.x, op.fan_in, lo, hi),
    )


op("rescaling", "layer", forward=rescaling, backward=rescaling_grad)
