"""Gathering a batch: rows picked from the user's arrays, converted on the way.

The user's array is read where it lies, in its own dtype and with its own
strides, so data larger than memory can be a memmap and images stay bytes.
"""

import numpy as np

from ._kernel import kernel, part
from ._memory import pointer, strided, vector
from ._op import rows


def sample_rows(arguments, rng):
    """Row numbers, in any order."""
    source = next(iter(arguments.values()))
    arguments["order"] = rng.integers(0, len(source), arguments["order"].size)
    return arguments


@kernel(
    "source(n,width) order(batch) scale() offset() out(batch,width) -> out",
    reference=lambda source, order, scale, offset: source[order] * scale + offset,
    sample=sample_rows,
)
def gather_rows(source, order, scale, offset, out):
    """``out[b] = source[order[b]] * scale + offset``, in the dtype of ``out``."""
    batch, width = out.shape
    factor, shift = out.dtype.type(scale), out.dtype.type(offset)
    data, to = pointer(source), pointer(out)
    apart, rest = divmod(source.strides[0], source.itemsize)
    if source.strides[1] != source.itemsize or rest:
        for b in range(batch):
            for c in range(width):
                out[b, c] = out.dtype.type(source[order[b], c]) * factor + shift
        return
    # Rows that follow one another, as in a batch that holds all of them, are one long row.
    several = batch if apart == width and consecutive(order) else 1
    for b in range(0, batch, several):
        row = vector(data, order[b] * apart, several * width)
        copy_scaled(row, factor, shift, vector(to, b * width, several * width))


@part(inline=True)
def consecutive(order):
    """Whether rows follow one another."""
    steps = 0
    for b in range(order.size):
        steps += order[b] == order[0] + b
    return steps == order.size


@part
def copy_scaled(row, factor, shift, out):
    """``out = row * factor + shift``; without arithmetic where that would change nothing."""
    kind = out.dtype.type
    if factor == kind(1) and shift == kind(0):
        for c in range(out.size):
            out[c] = kind(row[c])
    else:
        for c in range(out.size):
            out[c] = kind(row[c]) * factor + shift


def sample_labels(arguments, rng):
    """Class labels that fit the number of classes."""
    labels = arguments["labels"]
    labels[...] = rng.integers(0, arguments["out"].shape[1], labels.shape)
    return sample_rows(arguments, rng)


@kernel(
    "labels(n,1) order(batch) scale() offset() out(batch,classes) -> out",
    reference=lambda labels, order, scale, offset, out: (
        np.eye(out.shape[1])[labels[order, 0].astype(int)] * scale + offset
    ),
    sample=sample_labels,
)
def gather_labels(labels, order, scale, offset, out):
    """``out[b]`` is all ``offset``, but ``scale + offset`` in the column ``labels[order[b]]``.

    One-hot rows are those of scale 1 and offset 0; others smooth the labels.
    """
    no, yes = out.dtype.type(offset), out.dtype.type(scale + offset)
    flat = vector(pointer(out), 0, out.size)
    for i in range(flat.size):
        flat[i] = no
    for b in range(order.size):
        out[b, np.intp(labels[order[b], 0])] = yes


@part(inline=True)
def source_view(source):
    """The user's array, where it lies."""
    return strided(
        source.array,
        source.sample,
        source.rows,
        source.columns,
        source.row_stride,
        source.column_stride,
    )


def numbers(source, net, lo, hi):
    """Gather the batch rows ``lo..hi`` of an array of numbers."""
    gather_rows(
        source_view(source),
        vector(net.order, lo, hi - lo),
        source.scale,
        source.offset,
        rows(net, net.work, source.out, source.width, lo, hi),
    )


def labels(source, net, lo, hi):
    """Gather the batch rows ``lo..hi`` of an array of class labels, as rows."""
    gather_labels(
        source_view(source),
        vector(net.order, lo, hi - lo),
        source.scale,
        source.offset,
        rows(net, net.work, source.out, source.width, lo, hi),
    )
