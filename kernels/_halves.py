"""Max-pooling of two rows and two columns, written in LLVM's own terms.

Rows of images are short: a loop that goes by vectors of 16 has nothing but a rest of a row of 12.
So vectors are masked where a row ends, and even and odd columns are dealt out to two of them.
"""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._kernel import JIT
from ._memory import matrix
from ._vectors import Vectors, lanes


def _emit_halves(w, rows, columns, width, x, body):
    """Call ``body(at, places, masks, taps)`` for each vector of the output, which lies ``at``.

    ``taps`` are the four values under each window, row by row; ``places`` says where the two
    vectors of both rows of ``x`` lie; ``masks`` which of the output exist, and of these two.
    """
    builder, count = w.builder, w.count
    even, odd = list(range(0, 2 * count, 2)), list(range(1, 2 * count, 2))
    with cgutils.for_range(builder, rows, intp=w.index) as row:
        by_vectors = cgutils.for_range_slice(
            builder, w.number(0), columns, w.number(count), w.index
        )
        with by_vectors as (first, _):
            left = builder.sub(columns, first)
            both = builder.mul(left, w.number(2))
            masks = w.first(left), w.first(both), w.first(builder.sub(both, w.number(count)))
            places, taps = [], []
            for i in range(2):
                y = builder.add(builder.mul(row.index, w.number(2)), w.number(i))
                place = builder.add(builder.mul(y, width), builder.mul(first, w.number(2)))
                places += [place, builder.add(place, w.number(count))]
                low, high = (
                    w.load(x, at, mask) for at, mask in zip(places[-2:], masks[1:], strict=True)
                )
                taps += [w.shuffled(low, high, even), w.shuffled(low, high, odd)]
            at = builder.add(builder.mul(row.index, columns), first)
            body(at, places, masks, taps)


def _emit_forward(w, rows, columns, width, x, out):
    builder = w.builder

    def body(at, places, masks, taps):
        best = taps[0]
        for value in taps[1:]:  # NaN wins
            less = builder.fcmp_ordered("<=", value, best)
            lost = builder.fcmp_unordered("uno", best, best)
            best = builder.select(builder.or_(less, lost), best, value)
        w.store(best, out, at, masks[0])

    _emit_halves(w, rows, columns, width, x, body)


def _emit_backward(w, rows, columns, width, grad_out, x, out, slope, grad_x):
    builder, count = w.builder, w.count
    slopes = w.splat(slope)

    def body(at, places, masks, taps):
        best = w.load(out, at, masks[0])
        grad = w.bent(w.load(grad_out, at, masks[0]), best, slopes)
        left, parts = None, []
        for value in taps:
            first = builder.fcmp_ordered("==", value, best)
            if left is not None:
                first = builder.and_(first, left)
            gone = builder.not_(first)
            left = gone if left is None else builder.and_(left, gone)
            parts.append(builder.select(first, grad, w.zero))
        for i in range(2):
            even, odd = parts[2 * i : 2 * i + 2]
            for half in range(2):
                lane = [c // 2 + half * count // 2 + count * (c % 2) for c in range(count)]
                value = w.shuffled(even, odd, lane)
                w.store(value, grad_x, places[2 * i + half], masks[1 + half])

    _emit_halves(w, rows, columns, width, x, body)


if JIT:

    def _written(emit, element, arguments):
        def generate(context, builder, signature, args):
            kind = context.get_data_type(element)
            emit(Vectors(builder, kind, lanes(element.bitwidth // 8)), *args)
            return context.get_dummy_value()

        return types.void(*arguments), generate

    @intrinsic
    def halve(typing, rows, columns, width, x, out):
        """The largest of each two by two values of an image that is ``width`` wide.

        ``out`` has so many rows and columns; what is left over of the image is not looked at.
        """
        return _written(_emit_forward, x.dtype, (*[types.intp] * 3, x, x))

    @intrinsic
    def lead_halves_back(typing, rows, columns, width, grad_out, x, out, slope, grad_x):
        """The first of the largest takes the gradient, times ``slope`` where it is not above 0.

        What is left over of the image is not written.
        """
        return _written(_emit_backward, x.dtype, (*[types.intp] * 3, x, x, x, x.dtype, x))

else:

    def _taps(rows, columns, width, x):
        """What each tap of the windows sees."""
        image = matrix(x, 0, 2 * rows, width)[:, : 2 * columns]
        return [image[i::2, j::2] for i in range(2) for j in range(2)]

    def halve(rows, columns, width, x, out):
        """The largest of each two by two values."""
        best, *others = _taps(rows, columns, width, x)
        for value in others:
            best = np.where((value <= best) | (best != best), best, value)
        matrix(out, 0, rows, columns)[...] = best

    def lead_halves_back(rows, columns, width, grad_out, x, out, slope, grad_x):
        """The first of the largest takes the gradient."""
        best, grad = matrix(out, 0, rows, columns), matrix(grad_out, 0, rows, columns)
        grad, left = np.where(best <= 0, slope * grad, grad), np.ones(best.shape, bool)
        both = _taps(rows, columns, width, x), _taps(rows, columns, width, grad_x)
        for value, target in zip(*both, strict=True):
            first = left & (value == best)
            left &= ~first
            target[...] = np.where(first, grad, 0)
