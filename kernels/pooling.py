"""Pooling: of each window of an image its largest value, or its mean, channel by channel.

``x`` (batch, channels, height, width), ``out`` (batch, channels, out_height, out_width). The window
of ``out[b, c, y, x]`` begins at ``y * stride_height, x * stride_width`` and lies in the image.

Source: LeCun et al. (1998), Proc. IEEE 86, section II, on subsampling; Nielsen, *Neural Networks
and Deep Learning*, chapter 6, on max-pooling.
"""

import numpy as np

from ._halves import halve, lead_halves_back
from ._kernel import TWO, kernel, part
from ._memory import pointer
from ._op import op
from .convolution import images


def taps_of(kernel_height, kernel_width, stride_height, stride_width, out_size):
    """For each tap of a window, where it lies in the images: something to index them with."""
    for i, j in np.ndindex(int(kernel_height), int(kernel_width)):
        down = np.arange(out_size[0]) * int(stride_height) + i
        across = np.arange(out_size[1]) * int(stride_width) + j
        yield slice(None), slice(None), down[:, None], across


def max_pool2d_forward_reference(x, kernel_height, kernel_width, stride_height, stride_width, out):
    first, *others = taps_of(
        kernel_height, kernel_width, stride_height, stride_width, out.shape[2:]
    )
    best = x[first]
    for place in others:
        best = np.where((x[place] <= best) | (best != best), best, x[place])  # NaN wins
    return best


def max_pool2d_backward_reference(
    grad_out, x, out, kernel_height, kernel_width, stride_height, stride_width, alpha_x
):
    grad_x, left = np.zeros_like(x), np.ones(out.shape, bool)
    bent = np.where(out <= 0, alpha_x * grad_out, grad_out)
    for place in taps_of(kernel_height, kernel_width, stride_height, stride_width, out.shape[2:]):
        first = left & (x[place] == out)
        left = left & ~first
        np.add.at(grad_x, place, np.where(first, bent, 0.0))
    return grad_x


def average_pool2d_forward_reference(
    x, kernel_height, kernel_width, stride_height, stride_width, out
):
    places = taps_of(kernel_height, kernel_width, stride_height, stride_width, out.shape[2:])
    return sum(x[place] for place in places) / (kernel_height * kernel_width)


def average_pool2d_backward_reference(
    grad_out, kernel_height, kernel_width, stride_height, stride_width, grad_x
):
    result, each = np.zeros_like(grad_x), grad_out / (kernel_height * kernel_width)
    for place in taps_of(
        kernel_height, kernel_width, stride_height, stride_width, grad_out.shape[2:]
    ):
        np.add.at(result, place, each)
    return result


def layout(arguments, rng):
    """Windows that lie in the image, and an output with one place for each of them."""
    x = arguments.get("x", arguments.get("grad_x"))
    least = 1 if rng.random() < 0.5 else 2  # the latter, where it fits, is a way of its own
    for place, name in ((2, "height"), (3, "width")):
        taps = min(x.shape[place], int(rng.integers(least, 4 if least == 1 else 3)))
        stride = int(rng.integers(1, 4)) if least == 1 else 2
        arguments |= {f"kernel_{name}": taps, f"stride_{name}": stride}
        for other in ("out", "grad_out"):
            if other in arguments:
                array = arguments[other]
                sizes = list(array.shape)
                sizes[place] = min(sizes[place], (x.shape[place] - taps) // stride + 1)
                arguments[other] = array.reshape(-1)[: np.prod(sizes)].reshape(sizes)
    if "alpha_x" in arguments:
        names = ("kernel_height", "kernel_width", "stride_height", "stride_width")
        sizes = [arguments[name] for name in names]
        arguments["out"][...] = max_pool2d_forward_reference(x, *sizes, arguments["out"])
    return arguments


@part(inline=True)
def by_halves(taps_down, taps_across, stride_down, stride_across):
    """Whether windows of two by two lie side by side, which has a faster way."""
    return taps_down == taps_across == stride_down == stride_across == 2


@part(inline=True)
def pool_largest(x, taps_down, taps_across, stride_down, stride_across, out):
    """Of one image."""
    zero = out.dtype.type(0)
    for y in range(out.shape[0]):
        row = out[y]
        for i in range(taps_down):
            line = x[y * stride_down + i]
            for k in range(row.size):
                best = line[k * stride_across] if i == 0 else row[k]
                for j in range(taps_across):
                    value = line[k * stride_across + j]
                    best = best if value <= best or best != best else value
                row[k] = best + zero


@kernel(
    "x(batch,channels,height,width) kernel_height() kernel_width() stride_height() stride_width()"
    " out(batch,channels,out_height,out_width) -> out",
    reference=max_pool2d_forward_reference,
    sample=layout,
)
def max_pool2d_forward(x, kernel_height, kernel_width, stride_height, stride_width, out):
    """``out = the largest x`` under the window; NaN where there is one."""
    _, _, rows, columns = out.shape
    halves = by_halves(kernel_height, kernel_width, stride_height, stride_width)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            if halves:
                halve(rows, columns, x.shape[3], pointer(x[b, c]), pointer(out[b, c]))
            else:
                pool_largest(
                    x[b, c], kernel_height, kernel_width, stride_height, stride_width, out[b, c]
                )


@part(inline=True)
def clear(image):
    """Zeros."""
    zero = image.dtype.type(0)
    for y in range(image.shape[0]):
        for k in range(image.shape[1]):
            image[y, k] = zero


@part(inline=True)
def lead_back(grad_out, x, out, taps_down, taps_across, stride_down, stride_across, slope, grad_x):
    """Of one image: the first of the largest takes the gradient of its window."""
    zero = out.dtype.type(0)
    clear(grad_x)
    for y in range(out.shape[0]):
        for k in range(out.shape[1]):
            best, grad, left = out[y, k], grad_out[y, k], True
            grad = slope * grad if best <= 0 else grad
            for i in range(taps_down):
                for j in range(taps_across):
                    m, n = y * stride_down + i, k * stride_across + j
                    first = left & (x[m, n] == best)  # no branch, to go by vectors
                    left = left & (not first)
                    grad_x[m, n] += grad if first else zero


@kernel(
    "grad_out(batch,channels,out_height,out_width) x(batch,channels,height,width)"
    " out(batch,channels,out_height,out_width) kernel_height() kernel_width() stride_height()"
    " stride_width() alpha_x() grad_x(batch,channels,height,width) -> grad_x",
    reference=max_pool2d_backward_reference,
    sample=layout,
)
def max_pool2d_backward(
    grad_out, x, out, kernel_height, kernel_width, stride_height, stride_width, alpha_x, grad_x
):
    """``grad_x = grad_out`` at the first largest of a window, times ``alpha_x`` where not above 0.

    A value that is the largest of several windows takes the sum.
    """
    _, _, rows, columns = out.shape
    halves = by_halves(kernel_height, kernel_width, stride_height, stride_width)
    slope = x.dtype.type(alpha_x)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            if halves:
                lead_halves_back(
                    rows, columns, x.shape[3], pointer(grad_out[b, c]), pointer(x[b, c]),
                    pointer(out[b, c]), slope, pointer(grad_x[b, c]),
                )  # fmt: skip
                clear(grad_x[b, c, 2 * rows :])
                clear(grad_x[b, c, :, 2 * columns :])
            else:
                lead_back(
                    grad_out[b, c], x[b, c], out[b, c], kernel_height, kernel_width,
                    stride_height, stride_width, slope, grad_x[b, c],
                )  # fmt: skip


@part(inline=True)
def mean(x, taps_down, taps_across, stride_down, stride_across, out):
    """Of one image."""
    share = x.dtype.type(1) / x.dtype.type(taps_down * taps_across)
    for y in range(out.shape[0]):
        for k in range(out.shape[1]):
            total = x.dtype.type(0)
            for i in range(taps_down):
                for j in range(taps_across):
                    total += x[y * stride_down + i, k * stride_across + j]
            out[y, k] = total * share


@kernel(
    "x(batch,channels,height,width) kernel_height() kernel_width() stride_height() stride_width()"
    " out(batch,channels,out_height,out_width) -> out",
    reference=average_pool2d_forward_reference,
    sample=layout,
)
def average_pool2d_forward(x, kernel_height, kernel_width, stride_height, stride_width, out):
    """``out = the mean of x`` under the window."""
    halves = by_halves(kernel_height, kernel_width, stride_height, stride_width)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            if halves:
                mean(x[b, c], TWO, TWO, TWO, TWO, out[b, c])
            else:
                mean(x[b, c], kernel_height, kernel_width, stride_height, stride_width, out[b, c])


@part(inline=True)
def share_out(grad_out, taps_down, taps_across, stride_down, stride_across, grad_x):
    """Of one image: every value of a window takes its share of the gradient."""
    share = grad_out.dtype.type(1) / grad_out.dtype.type(taps_down * taps_across)
    clear(grad_x)
    for y in range(grad_out.shape[0]):
        for k in range(grad_out.shape[1]):
            more = grad_out[y, k] * share
            for i in range(taps_down):
                for j in range(taps_across):
                    grad_x[y * stride_down + i, k * stride_across + j] += more


@kernel(
    "grad_out(batch,channels,out_height,out_width) kernel_height() kernel_width() stride_height()"
    " stride_width() grad_x(batch,channels,height,width) -> grad_x",
    reference=average_pool2d_backward_reference,
    sample=layout,
)
def average_pool2d_backward(
    grad_out, kernel_height, kernel_width, stride_height, stride_width, grad_x
):
    """``grad_x = sum of grad_out / taps`` over the windows that a value is in."""
    halves = by_halves(kernel_height, kernel_width, stride_height, stride_width)
    for b in range(grad_x.shape[0]):
        for c in range(grad_x.shape[1]):
            if halves:
                share_out(grad_out[b, c], TWO, TWO, TWO, TWO, grad_x[b, c])
            else:
                share_out(
                    grad_out[b, c], kernel_height, kernel_width, stride_height, stride_width,
                    grad_x[b, c],
                )  # fmt: skip


def max_forward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    max_pool2d_forward(
        images(net, net.work, op.x, op.channels, op.height, op.width, lo, hi),
        op.kernel_height, op.kernel_width, op.stride_height, op.stride_width,
        images(net, net.work, op.out, op.channels, op.out_height, op.out_width, lo, hi),
    )  # fmt: skip


def max_backward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    max_pool2d_backward(
        images(net, net.grad_work, op.out, op.channels, op.out_height, op.out_width, lo, hi),
        images(net, net.work, op.x, op.channels, op.height, op.width, lo, hi),
        images(net, net.work, op.out, op.channels, op.out_height, op.out_width, lo, hi),
        op.kernel_height, op.kernel_width, op.stride_height, op.stride_width, op.alpha_x,
        images(net, net.grad_work, op.x, op.channels, op.height, op.width, lo, hi),
    )  # fmt: skip


def average_forward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    average_pool2d_forward(
        images(net, net.work, op.x, op.channels, op.height, op.width, lo, hi),
        op.kernel_height, op.kernel_width, op.stride_height, op.stride_width,
        images(net, net.work, op.out, op.channels, op.out_height, op.out_width, lo, hi),
    )  # fmt: skip


def average_backward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    average_pool2d_backward(
        images(net, net.grad_work, op.out, op.channels, op.out_height, op.out_width, lo, hi),
        op.kernel_height, op.kernel_width, op.stride_height, op.stride_width,
        images(net, net.grad_work, op.x, op.channels, op.height, op.width, lo, hi),
    )  # fmt: skip


op("max_pool2d", "layer", forward=max_forward, backward=max_backward)
op("average_pool2d", "layer", forward=average_forward, backward=average_backward)
