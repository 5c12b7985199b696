"""Convolution of images: every filter looks at each place of an image through the same window.

``x`` (batch, channels, height, width), ``weight`` (channels, kernel_height, kernel_width, filters),
``bias`` (filters,), ``out`` (batch, filters, out_height, out_width):

    out[b, f, y, x] = bias[f] + sum over c, i, j of
        x[b, c, y * stride_height - padding_top + i, x * stride_width - padding_left + j]
        * weight[c, i, j, f]

What lies outside of the image is 0. As in most libraries the window is not turned round, which
mathematicians would call a cross-correlation. ``alpha`` and ``alpha_x`` are those of a rectifier
behind and before the layer, as in ``dense.py``.

The kernels take as many samples at a time as a vector has numbers and turn a *window* of them, all
that some rows of the output depend on, to lie side by side: see ``_lanes.py``.

Source: LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document
recognition", Proc. IEEE 86, section II; Nielsen, *Neural Networks and Deep Learning*, chapter 6.
"""

from typing import NamedTuple

import numpy as np

from ._kernel import SUMS, kernel, part
from ._lanes import BEGIN, TALLEST, WIDTHS, number_tiles, turn_in, turn_out, vector_tiles
from ._memory import pointer, room_like, shifted, vector
from ._op import op, rows
from ._tile import width_of
from .gemm import NONE, SCRATCH, STRAIGHT, UNIT, ZEROS, zeros

WIDEST = WIDTHS[0]
TOGETHER = 64  # places of the output whose sums stay in the L1 cache, at the least
AN_INDEX = np.int64(0)


def looked_at(size, taps, places, stride, padding):
    """Where each tap lies for each place, cut to the image, and whether it lies within."""
    at = np.arange(places) * int(stride) - int(padding) + np.arange(taps)[:, None]
    return np.clip(at, 0, size - 1), (at >= 0) & (at < size)


def windows(x, kernel_size, out_size, stride_height, stride_width, padding_top, padding_left):
    """What each filter sees, (batch, channels * taps, places), and where it comes from."""
    down, inside_down = looked_at(
        x.shape[2], kernel_size[0], out_size[0], stride_height, padding_top
    )
    across, inside_across = looked_at(
        x.shape[3], kernel_size[1], out_size[1], stride_width, padding_left
    )
    place = (slice(None), slice(None), down[:, None, :, None], across[:, None])
    inside = inside_down[:, None, :, None] & inside_across[:, None]
    seen = np.where(inside, x[place], 0.0)
    return seen.reshape(x.shape[0], -1, out_size[0] * out_size[1]), place, inside


def conv2d_forward_reference(
    x, weight, bias, stride_height, stride_width, padding_top, padding_left, alpha, out
):
    where = stride_height, stride_width, padding_top, padding_left
    seen = windows(x, weight.shape[1:3], out.shape[2:], *where)[0]
    sums = weight.reshape(-1, weight.shape[3]).T @ seen
    sums = sums.reshape(out.shape) + bias.reshape(-1, 1, 1)
    return np.where(sums <= 0, alpha * sums, sums)


def conv2d_backward_reference(
    grad_out, x, weight, stride_height, stride_width, padding_top, padding_left, alpha_x
):
    where = stride_height, stride_width, padding_top, padding_left
    _, place, inside = windows(x, weight.shape[1:3], grad_out.shape[2:], *where)
    flat = grad_out.reshape(grad_out.shape[0], grad_out.shape[1], -1)
    grads = (weight.reshape(-1, weight.shape[3]) @ flat).reshape(
        x.shape[0], x.shape[1], *inside.shape
    )
    grad_x = np.zeros_like(x)
    np.add.at(grad_x, place, np.where(inside, grads, 0.0))
    return np.where(x <= 0, alpha_x * grad_x, grad_x)


def conv2d_gradient_reference(
    grad_out, x, stride_height, stride_width, padding_top, padding_left, grad_weight
):
    where = stride_height, stride_width, padding_top, padding_left
    seen, _, _ = windows(x, grad_weight.shape[1:3], grad_out.shape[2:], *where)
    flat = grad_out.reshape(grad_out.shape[0], grad_out.shape[1], -1)
    total = (seen @ flat.swapaxes(1, 2)).sum(axis=0)
    return total.reshape(grad_weight.shape), flat.sum(axis=2).sum(axis=0)


def geometry(arguments, rng):
    """Whole numbers for strides and paddings; what a window misses of the image is zeros."""
    for name in ("stride_height", "stride_width"):
        arguments[name] = int(rng.integers(1, 4))
    for name in ("padding_top", "padding_left"):
        arguments[name] = int(rng.integers(0, 3))
    return arguments


class Shape(NamedTuple):
    """Sizes of a layer, as its kernels hand them on."""

    channels: int
    height: int
    width: int
    filters: int
    taps_down: int
    taps_across: int
    out_height: int
    out_width: int
    stride_down: int
    stride_across: int
    padding_top: int
    padding_left: int


@part(inline=True)
def shape_of(x, weight, out, stride_down, stride_across, padding_top, padding_left):
    """The sizes, from arrays of their shapes."""
    _, channels, height, width = x.shape
    _, taps_down, taps_across, filters = weight.shape
    return Shape(
        channels, height, width, filters, taps_down, taps_across, out.shape[2], out.shape[3],
        stride_down, stride_across, padding_top, padding_left,
    )  # fmt: skip


class Block(NamedTuple):
    """Some rows and columns of what a kernel writes, of some samples."""

    sample: int
    samples: int
    y: int
    high: int
    x: int
    wide: int


@part
def fitting(channels, high, wide, rows, columns, each, room):
    """Channels, rows and columns that are done at a time, as many as fit the room.

    For ``high`` and ``wide`` places the window of a channel has ``high * rows[0] + rows[1]`` rows
    and ``wide * columns[0] + columns[1]`` columns. ``each`` is what a place needs for itself.
    """
    while True:
        window = (high * rows[0] + rows[1]) * (wide * columns[0] + columns[1])
        if channels * window + each * high * wide <= room:
            break
        if high > 1:
            high = (high + 1) // 2
        elif channels > 1 and channels >= each:
            channels = (channels + 1) // 2
        elif wide > 1:
            wide = (wide + 1) // 2
        elif channels > 1:
            channels = (channels + 1) // 2
        else:
            break
    return channels, high, wide


@part
def lay_window(samples, x, sample, size, first, window, channels, target, spare):
    """Turn a window of some samples to lie side by side, zeros where it leaves the image.

    ``x`` points to the first channel of the first sample, ``sample`` numbers before the next one;
    ``size`` are height and width of the image, ``first`` and ``window`` place and size of the
    window.
    """
    height, width = size
    high, wide = window
    side = width_of(x)
    if first[0] == 0 and first[1] == 0 and high == height and wide == width:
        turn_in(samples, channels * height * width, x, sample, target, spare)
        return
    begin, end = max(0, -first[1]), min(wide, width - first[1])
    for c in range(channels):
        for i in range(high):
            row, y = shifted(target, (c * high + i) * wide * side), first[0] + i
            if y < 0 or y >= height or begin >= end:
                vector(row, 0, wide * side)[:] = 0
                continue
            vector(row, 0, begin * side)[:] = 0
            source = shifted(x, (c * height + y) * width + first[1] + begin)
            turn_in(samples, end - begin, source, sample, shifted(row, begin * side), spare)
            vector(row, end * side, (wide - end) * side)[:] = 0


@part
def lines_together(block, side):
    """Rows of a block whose sums are computed one after another, to stay in the L1 cache.

    Together they have a whole number of vectors, if rows are many enough.
    """
    lines = (TOGETHER + block.wide - 1) // block.wide
    while lines < block.high and lines * block.wide % side != 0:
        lines += 1
    return min(lines, block.high)


@part(inline=True)
def lines_of(block, first, lines):
    """Some rows of a block."""
    high = min(lines, block.high - first)
    return Block(block.sample, block.samples, block.y + first, high, block.x, block.wide)


@part
def lay_rows(block, some, images, channels, height, width, lane, spare, back):
    """Turn a block of some channels to lie side by side, or ``back``.

    ``images`` points to the first of these channels, of the first sample.
    """
    side, whole = width_of(lane), block.wide == width
    lines, numbers = (1, block.high * width) if whole else (block.high, block.wide)
    for r in range(some):
        for i in range(lines):
            own = shifted(images, (r * height + block.y + i) * width + block.x)
            if back:
                turn_out(block.samples, numbers, lane, own, channels * height * width, spare)
            else:
                turn_in(block.samples, numbers, own, channels * height * width, lane, spare)
            lane = shifted(lane, numbers * side)


@part
def bend(numbers, mask, slope):
    """``numbers *= slope`` where ``mask`` is not above 0."""
    for i in range(numbers.size):
        numbers[i] = slope * numbers[i] if mask[i] <= 0 else numbers[i]


@kernel(
    "x(batch,channels,height,width) weight(channels,kernel_height,kernel_width,filters)"
    " bias(filters) stride_height() stride_width() padding_top() padding_left() alpha()"
    f" scratch({SCRATCH}) out(batch,filters,out_height,out_width) -> out",
    reference=conv2d_forward_reference,
    sample=geometry,
)
def conv2d_forward(
    x, weight, bias, stride_height, stride_width, padding_top, padding_left, alpha, scratch, out
):
    """``out = bias + sum of weight * x`` under the window, times ``alpha`` where not above 0."""
    batch, channels = x.shape[:2]
    shape = shape_of(x, weight, out, stride_height, stride_width, padding_top, padding_left)
    side, slope = width_of(pointer(x)), x.dtype.type(alpha)
    begin, begin_row = pointer(bias), UNIT
    if bias.size == 0:  # the layer has none
        begin, begin_row = zeros(pointer(scratch)), NONE
    some, high, wide = fitting(
        channels, shape.out_height, shape.out_width,
        (stride_height, shape.taps_down - stride_height),
        (stride_width, shape.taps_across - stride_width), TALLEST, room(side),
    )  # fmt: skip
    for b in range(0, batch, side):
        for y in range(0, shape.out_height, high):
            for x0 in range(0, shape.out_width, wide):
                block = Block(
                    b, min(side, batch - b), y, min(high, shape.out_height - y),
                    x0, min(wide, shape.out_width - x0),
                )  # fmt: skip
                for c in range(0, channels, some):
                    forward_block(
                        shape, block, pointer(x), pointer(weight), begin, begin_row, c,
                        min(some, channels - c), slope, pointer(scratch), pointer(out),
                    )  # fmt: skip


@part
def forward_block(s, block, x, weight, start, start_row, channel, channels, slope, scratch, out):
    """A block of the output, from some channels on top of what those before have given."""
    side, places = width_of(x), room_like(AN_INDEX)
    image, result = s.channels * s.height * s.width, s.out_height * s.out_width
    lines = lines_together(block, side)
    spare, sums = scratch, shifted(scratch, 2 * side * side)
    window = shifted(sums, TALLEST * lines * block.wide * side)
    high = (block.high - 1) * s.stride_down + s.taps_down
    wide = (block.wide - 1) * s.stride_across + s.taps_across
    lay_window(
        block.samples, shifted(x, block.sample * image + channel * s.height * s.width), image,
        (s.height, s.width),
        (block.y * s.stride_down - s.padding_top, block.x * s.stride_across - s.padding_left),
        (high, wide), channels, window, spare,
    )  # fmt: skip
    for r in range(TALLEST):
        places[r] = r
    taps, last = s.taps_down * s.taps_across, channel + channels == s.channels
    for f in range(0, s.filters, TALLEST):
        some = min(TALLEST, s.filters - f)
        own = shifted(out, (block.sample * s.filters + f) * result)
        for y in range(0, block.high, lines):
            piece = lines_of(block, y, lines)
            if channel > 0:
                lay_rows(piece, some, own, s.filters, s.out_height, s.out_width, sums, spare, False)
            for i in range(piece.high):
                number_tiles(
                    some, piece.wide, channels, s.taps_down, s.taps_across,
                    shifted(weight, channel * taps * s.filters + f), pointer(places),
                    taps * s.filters, s.taps_across * s.filters, s.filters,
                    shifted(window, (y + i) * s.stride_down * wide * side),
                    high * wide * side, wide * side, side, s.stride_across * side,
                    shifted(start, f * start_row), start_row, shifted(sums, i * piece.wide * side),
                    piece.high * piece.wide * side, side, np.int64(channel),
                    slope if last else STRAIGHT,
                )  # fmt: skip
            lay_rows(piece, some, own, s.filters, s.out_height, s.out_width, sums, spare, True)


@kernel(
    "grad_out(batch,filters,out_height,out_width) x(batch,channels,height,width)"
    " weight(channels,kernel_height,kernel_width,filters) stride_height() stride_width()"
    f" padding_top() padding_left() alpha_x() scratch({SCRATCH})"
    " grad_x(batch,channels,height,width) -> grad_x",
    reference=conv2d_backward_reference,
    sample=geometry,
)
def conv2d_backward(
    grad_out, x, weight, stride_height, stride_width, padding_top, padding_left, alpha_x, scratch,
    grad_x,
):  # fmt: skip
    """``grad_x = sum of weight * grad_out`` over all that looked, times ``alpha_x`` below 0."""
    batch, channels, height, width = x.shape
    shape = shape_of(x, weight, grad_out, stride_height, stride_width, padding_top, padding_left)
    side, slope = width_of(pointer(x)), x.dtype.type(alpha_x)
    some, high, wide = fitting(
        shape.filters, height, width, (1, shape.taps_down + 1),
        (1, shape.taps_across + 2 * WIDEST), TALLEST, room(side),
    )  # fmt: skip
    for b in range(0, batch, side):
        for y in range(0, height, high):
            for x0 in range(0, width, wide):
                block = Block(
                    b, min(side, batch - b), y, min(high, height - y), x0, min(wide, width - x0)
                )
                for f in range(0, shape.filters, some):
                    backward_block(
                        shape, block, pointer(grad_out), pointer(weight), f,
                        min(some, shape.filters - f), pointer(scratch), pointer(grad_x),
                    )  # fmt: skip
    if slope != 1:
        size = batch * channels * height * width
        bend(vector(pointer(grad_x), 0, size), vector(pointer(x), 0, size), slope)


@part
def meets(place, vectors, stride, taps, places):
    """What some places of an image, ``stride`` apart, meet along one side of it.

    The first tap that any of them meets, how many (each ``stride`` further on), and to which place
    of the output the first tap leads from the first of them; the next ones lead to those before.
    """
    tap = place % stride
    out = (place - tap) // stride
    count = (taps - tap + stride - 1) // stride if tap < taps else 0
    skipped = max(0, out - (places - 1))
    return tap + skipped * stride, max(0, min(count, out + vectors) - skipped), out - skipped


@part
def backward_block(s, block, grad_out, weight, filter_, filters, scratch, grad_x):
    """A block of the gradient, from some filters on top of what those before have given."""
    side, places = width_of(grad_out), room_like(AN_INDEX)
    image, result = s.height * s.width, s.out_height * s.out_width
    lines, taps = lines_together(block, side), s.taps_down * s.taps_across
    spare, begin = scratch, zeros(scratch)
    sums = shifted(scratch, 2 * side * side)
    window = shifted(sums, TALLEST * lines * block.wide * side)
    first_y = max(0, (block.y + s.padding_top - s.taps_down + 1) // s.stride_down)
    last_y = min(s.out_height - 1, (block.y + block.high - 1 + s.padding_top) // s.stride_down)
    first_x = max(
        1 - WIDEST, (block.x + s.padding_left - s.taps_across + 1) // s.stride_across - WIDEST
    )
    last_x = min(
        s.out_width + WIDEST - 2,
        (block.x + block.wide - 1 + s.padding_left) // s.stride_across + WIDEST,
    )
    high, wide = max(0, last_y - first_y + 1), max(0, last_x - first_x + 1)
    lay_window(
        block.samples, shifted(grad_out, (block.sample * s.filters + filter_) * result),
        s.filters * result, (s.out_height, s.out_width), (first_y, first_x), (high, wide), filters,
        window, spare,
    )  # fmt: skip
    for r in range(TALLEST):
        places[r] = r * taps * s.filters
    for c in range(0, s.channels, TALLEST):
        some = min(TALLEST, s.channels - c)
        own = shifted(grad_x, (block.sample * s.channels + c) * image)
        for row in range(0, block.high, lines):
            piece = lines_of(block, row, lines)
            if filter_ > 0:
                lay_rows(piece, some, own, s.channels, s.height, s.width, sums, spare, False)
            for i in range(piece.high):
                down, count_down, y = meets(
                    piece.y + i + s.padding_top, 1, s.stride_down, s.taps_down, s.out_height
                )
                for phase in range(min(s.stride_across, piece.wide)):
                    alike = (piece.wide - phase + s.stride_across - 1) // s.stride_across
                    for j in range(0, alike, WIDEST):
                        vectors, x = min(WIDEST, alike - j), phase + j * s.stride_across
                        across, count_across, k = meets(
                            piece.x + x + s.padding_left, vectors, s.stride_across, s.taps_across,
                            s.out_width,
                        )  # fmt: skip
                        tap = (c * s.taps_down + down) * s.taps_across + across
                        number_tiles(
                            some, vectors, filters, count_down, count_across,
                            shifted(weight, tap * s.filters + filter_), pointer(places), UNIT,
                            s.stride_down * s.taps_across * s.filters, s.stride_across * s.filters,
                            shifted(window, ((y - first_y) * wide + k - first_x) * side),
                            high * wide * side, -wide * side, -side, side, begin, NONE,
                            shifted(sums, (i * piece.wide + x) * side),
                            piece.high * piece.wide * side, s.stride_across * side,
                            np.int64(filter_), STRAIGHT,
                        )  # fmt: skip
            lay_rows(piece, some, own, s.channels, s.height, s.width, sums, spare, True)


@kernel(
    "grad_out(batch,filters,out_height,out_width) x(batch,channels,height,width) stride_height()"
    f" stride_width() padding_top() padding_left() scratch({SCRATCH})"
    " grad_weight(channels,kernel_height,kernel_width,filters) grad_bias(filters)"
    " -> grad_weight grad_bias",
    reference=conv2d_gradient_reference,
    sample=geometry,
)
def conv2d_gradient(
    grad_out, x, stride_height, stride_width, padding_top, padding_left, scratch, grad_weight,
    grad_bias,
):  # fmt: skip
    """``grad_weight = sum of x * grad_out`` where they met, ``grad_bias`` that of ``grad_out``."""
    strides = stride_height, stride_width
    shape = shape_of(x, grad_weight, grad_out, *strides, padding_top, padding_left)
    last = shape.channels * shape.taps_down * shape.taps_across
    taps_gradient(shape, grad_out, x, 0, last, scratch, pointer(grad_weight))
    filters_gradient(grad_out, grad_bias)


@part
def taps_gradient(s, grad_out, x, lo, hi, scratch, grad_weight):
    """The gradient's rows ``lo..hi``, of the taps of all channels one after another.

    How samples and places are cut into blocks depends on the layer alone, and not on which of its
    taps are asked for: a sum has the same parts whoever computes it.
    """
    side, taps, batch = width_of(pointer(x)), s.taps_down * s.taps_across, x.shape[0]
    first, last = lo // taps, (hi - 1) // taps + 1
    some, high, wide = fitting(
        s.channels, s.out_height, s.out_width, (s.stride_down, s.taps_down - s.stride_down),
        (s.stride_across, s.taps_across - s.stride_across), s.filters, room(side),
    )  # fmt: skip
    together = side  # samples; more where small images leave room
    if high == s.out_height and wide == s.out_width:
        window = extent(high, s.stride_down, s.taps_down) * extent(
            wide, s.stride_across, s.taps_across
        )
        together *= max(1, room(side) // (some * window + s.filters * high * wide))
    for c in range(first, last, some):
        channels = min(some, last - c)
        from_, to = max(lo, c * taps), min(hi, (c + channels) * taps)
        more = BEGIN
        for b in range(0, batch, together):
            for y in range(0, s.out_height, high):
                for x0 in range(0, s.out_width, wide):
                    block = Block(
                        b, min(together, batch - b), y, min(high, s.out_height - y),
                        x0, min(wide, s.out_width - x0),
                    )  # fmt: skip
                    gradient_block(
                        s, block, pointer(grad_out), pointer(x), c, channels, from_, to, more,
                        pointer(scratch), shifted(grad_weight, (from_ - lo) * s.filters),
                    )  # fmt: skip
                    more = UNIT


@part
def extent(places, stride, taps):
    """Rows or columns of an image that so many places of the output look at."""
    return (places - 1) * stride + taps


@part
def gradient_block(s, block, grad_out, x, channel, channels, lo, hi, more, scratch, grad_weight):
    """What a block of the output and some channels add to the taps ``lo..hi``, the first anew."""
    side, places = width_of(x), room_like(AN_INDEX)
    image, result = s.channels * s.height * s.width, s.out_height * s.out_width
    numbers, taps = block.high * block.wide, s.taps_down * s.taps_across
    high = extent(block.high, s.stride_down, s.taps_down)
    wide = extent(block.wide, s.stride_across, s.taps_across)
    groups = (block.samples + side - 1) // side
    spare, grads = scratch, shifted(scratch, 2 * side * side)
    window = shifted(grads, groups * s.filters * numbers * side)
    for g in range(groups):
        own = Block(
            block.sample + g * side, min(side, block.samples - g * side),
            block.y, block.high, block.x, block.wide,
        )  # fmt: skip
        lay_window(
            own.samples, shifted(x, own.sample * image + channel * s.height * s.width), image,
            (s.height, s.width),
            (block.y * s.stride_down - s.padding_top, block.x * s.stride_across - s.padding_left),
            (high, wide), channels, shifted(window, g * channels * high * wide * side), spare,
        )  # fmt: skip
        lay_window(
            own.samples, shifted(grad_out, own.sample * s.filters * result), s.filters * result,
            (s.out_height, s.out_width), (block.y, block.x), (block.high, block.wide), s.filters,
            shifted(grads, g * s.filters * numbers * side), spare,
        )  # fmt: skip
    for k in range(lo, hi, TALLEST):
        some = min(TALLEST, hi - k)
        for r in range(some):
            c, tap = divmod(k + r, taps)
            i, j = divmod(tap, s.taps_across)
            places[r] = (((c - channel) * high + i) * wide + j) * side
        for f in range(0, s.filters, WIDEST):
            vectors = min(WIDEST, s.filters - f)
            vector_tiles(
                some, vectors, groups, block.high, block.wide, window, pointer(places),
                channels * high * wide * side, s.stride_down * wide * side,
                s.stride_across * side, shifted(grads, f * numbers * side),
                s.filters * numbers * side, block.wide * side, side, numbers * side, window, NONE,
                shifted(grad_weight, (k - lo) * s.filters + f), s.filters, UNIT, more, STRAIGHT,
            )  # fmt: skip


@part(inline=True, fastmath=SUMS)
def added_up(values):
    """Their sum, in vectors."""
    total = values.dtype.type(0)
    for value in values:
        total += value
    return total


@part
def filters_gradient(grad_out, grad_bias):
    """The sum over samples and places, of each filter."""
    batch, filters, height, width = grad_out.shape
    for f in range(filters):
        total = grad_out.dtype.type(0)
        for b in range(batch):
            own = (b * filters + f) * height * width
            total += added_up(vector(pointer(grad_out), own, height * width))
        grad_bias[f] = total


@part
def room(side):
    """Vectors that windows and sums of a block may have, beside what is spare and zero."""
    return (SCRATCH - ZEROS) // side - 2 * side


@part(inline=True)
def images(net, buffer, offset, channels, height, width, lo, hi):
    """View of the batch rows ``lo..hi`` of a region, (hi - lo, channels, height, width)."""
    return rows(net, buffer, offset, channels * height * width, lo, hi).reshape(
        hi - lo, channels, height, width
    )


@part(inline=True)
def weights(op, buffer):
    """View of the weight in ``buffer``."""
    return vector(buffer, op.weight, op.weight_rows * op.row_size).reshape(
        op.channels, op.kernel_height, op.kernel_width, op.filters
    )


def forward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    conv2d_forward(
        images(net, net.work, op.x, op.channels, op.height, op.width, lo, hi),
        weights(op, net.params),
        vector(net.params, op.bias, op.tail),
        op.stride_height, op.stride_width, op.padding_top, op.padding_left, op.alpha,
        vector(net.scratch, 0, SCRATCH),
        images(net, net.work, op.out, op.filters, op.out_height, op.out_width, lo, hi),
    )  # fmt: skip


def backward(op, net, lo, hi):
    """Rows ``lo..hi`` of the batch."""
    conv2d_backward(
        images(net, net.grad_work, op.out, op.filters, op.out_height, op.out_width, lo, hi),
        images(net, net.work, op.x, op.channels, op.height, op.width, lo, hi),
        weights(op, net.params),
        op.stride_height, op.stride_width, op.padding_top, op.padding_left, op.alpha_x,
        vector(net.scratch, 0, SCRATCH),
        images(net, net.grad_work, op.x, op.channels, op.height, op.width, lo, hi),
    )  # fmt: skip


def gradient(op, net, lo, hi):
    """Rows ``lo..hi`` of the weight, its taps, and the bias with the last of them."""
    first, last = net.first, net.last
    x = images(net, net.work, op.x, op.channels, op.height, op.width, first, last)
    grad_out = images(
        net, net.grad_work, op.out, op.filters, op.out_height, op.out_width, first, last
    )
    strides = op.stride_height, op.stride_width
    shape = shape_of(x, weights(op, net.grads), grad_out, *strides, op.padding_top, op.padding_left)
    taps_gradient(
        shape, grad_out, x, lo, hi, vector(net.scratch, 0, SCRATCH),
        shifted(net.grads, op.weight + lo * op.filters),
    )  # fmt: skip
    if hi == op.weight_rows and op.tail > 0:
        filters_gradient(grad_out, vector(net.grads, op.bias, op.tail))


op("conv2d", "layer", forward=forward, backward=backward, gradient=gradient)
