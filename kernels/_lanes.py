"""Products whose vectors lie along the samples, written in LLVM's own terms.

A convolution meets few filters, few columns, strides, borders: whatever its vectors lie along is
rarely as many numbers as a register has. So they lie along the batch. Some samples, as many as a
vector has numbers (*lanes*), are turned to lie side by side, number by number, and what was a
number of one sample is a vector of all of them: no shape of an image is too small for it, no
stride and no border is more than another offset.

For rows ``r`` and vectors ``v``,

    out[r, v] = start[r] + sum over i, j, k of a[r, i, j, k] * b[v, i, j, k]

``number_tiles`` has a number in ``a`` (a weight, for all lanes) and a vector in ``out``;
``vector_tiles`` a vector in ``a`` (what a weight met), a number in ``out``, the sum of all lanes.
All are read through strides, the rows of ``a`` begin at ``places``. As in ``_tile.py`` the sums
of some rows and vectors stay in registers, and every lane is a chain of multiply-adds in order,
whatever the tile.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._kernel import JIT, called, on_its_own, part
from ._memory import matrix, shifted, vector
from ._tile import HEIGHTS, VECTORS, transpose, width_of
from ._vectors import Vectors, lanes

WIDTHS = [width for width in (4, 2, 1) if width <= VECTORS]  # of tiles, in vectors
TALLEST = HEIGHTS[VECTORS][0]
BEGIN = np.int64(0)  # sums begin with start; with another number they go on from out


def _emit_tile(w, paired, rows, width, arguments):
    """One tile, at the builder's position."""
    (
        counts,
        a,
        places,
        a_steps,
        b,
        b_steps,
        b_next,
        start,
        start_row,
        out,
        out_row,
        out_next,
        on,
        slope,
    ) = arguments
    builder = w.builder

    def place(base, *pairs):
        for stride, number in pairs:
            base = builder.gep(base, [builder.mul(stride, w.number(number))])
        return base

    cells = [(r, v) for r in range(rows) for v in range(width)]
    sums = {cell: cgutils.alloca_once(builder, w.kind) for cell in cells}
    targets = {(r, v): place(out, (out_row, r), (out_next, v)) for r, v in cells}
    if paired:
        for cell in cells:
            builder.store(w.zero, sums[cell])
    else:
        resumed = builder.icmp_signed("!=", on, w.number(0))
        with builder.if_else(resumed) as (resumes, begins):
            with resumes:
                for cell in cells:
                    builder.store(w.load(targets[cell], w.number(0)), sums[cell])
            with begins:
                for r in range(rows):
                    first = w.splat(builder.load(place(start, (start_row, r))))
                    for v in range(width):
                        builder.store(first, sums[r, v])
    a_rows = [builder.gep(a, [builder.load(place(places, (w.number(1), r)))]) for r in range(rows)]
    b_vectors = [place(b, (b_next, v)) for v in range(width)]

    def loops(depth, a_offset, b_offset):
        if depth < len(counts):
            with cgutils.for_range(builder, counts[depth], intp=w.index) as loop:
                loops(
                    depth + 1,
                    builder.add(a_offset, builder.mul(loop.index, a_steps[depth])),
                    builder.add(b_offset, builder.mul(loop.index, b_steps[depth])),
                )
            return
        b_now = [w.load(base, b_offset) for base in b_vectors]
        for r, base in enumerate(a_rows):
            if paired:
                a_now = w.load(base, a_offset)
            else:
                a_now = w.splat(builder.load(builder.gep(base, [a_offset])))
            for v in range(width):
                total = builder.load(sums[r, v])
                builder.store(w.multiply_add(a_now, b_now[v], total), sums[r, v])

    loops(0, w.number(0), w.number(0))
    if paired:
        for cell in cells:
            total = w.added_up(builder.load(sums[cell]))
            before = builder.select(
                builder.icmp_signed("!=", on, w.number(0)),
                builder.load(targets[cell]), ir.Constant(w.element, 0.0),
            )  # fmt: skip
            builder.store(builder.fadd(before, total), targets[cell])
        return
    bends = builder.fcmp_unordered("!=", slope, ir.Constant(w.element, 1.0))
    with builder.if_then(bends):
        slopes = w.splat(slope)
        for cell in cells:
            value = builder.load(sums[cell])
            builder.store(w.bent(value, value, slopes), sums[cell])
    for cell in cells:
        w.store(builder.load(sums[cell]), targets[cell], w.number(0))


def _emit_tiles(w, paired, arguments):
    """Tiles side by side until all vectors are done, one below another until all rows are."""
    m, n, *counts, a, places, a0, a1, a2, b, b0, b1, b2 = arguments[:14]
    b_next, start, start_row, out, out_row, out_next, on, slope = arguments[14:]
    builder = w.builder

    def pieces(number, sizes, emit):
        done = w.number(0)
        for size in sizes:
            whole = builder.sdiv(builder.sub(number, done), w.number(size))
            stop = builder.add(done, builder.mul(whole, w.number(size)))
            with cgutils.for_range_slice(builder, done, stop, w.number(size), w.index) as (at, _):
                emit(at, size)
            done = stop

    def at_vectors(v, width):
        def at_rows(r, rows):
            tile = (
                counts, a, builder.gep(places, [r]), (a0, a1, a2),
                builder.gep(b, [builder.mul(v, b_next)]), (b0, b1, b2), b_next,
                builder.gep(start, [builder.mul(r, start_row)]), start_row,
                builder.gep(out, [builder.add(builder.mul(v, out_next), builder.mul(r, out_row))]),
                out_row, out_next, on, slope,
            )  # fmt: skip
            _emit_tile(w, paired, rows, width, tile)

        pieces(m, HEIGHTS[VECTORS], at_rows)

    pieces(n, WIDTHS, at_vectors)


if JIT:
    _NUMBERS = (types.float32, types.float64)

    def _signature(number):
        whole, pointer_to = types.intp, types.CPointer(number)
        a = [pointer_to, types.CPointer(types.int64), *[whole] * 3]
        rest = [pointer_to, *[whole] * 4, pointer_to, whole, pointer_to, *[whole] * 3, number]
        return types.void(*[whole] * 5, *a, *rest)

    def _written(paired):
        @intrinsic
        def write(
            typing, m, n, n0, n1, n2, a, places, a0, a1, a2, b, b0, b1, b2, b_next, start,
            start_row, out, out_row, out_next, on, slope,
        ):  # fmt: skip
            element = a.dtype

            def generate(context, builder, signature, args):
                kind = context.get_data_type(element)
                _emit_tiles(Vectors(builder, kind, lanes(element.bitwidth // 8)), paired, args)
                return context.get_dummy_value()

            return _signature(element), generate

        return write

    _write_numbers, _write_vectors = _written(False), _written(True)

    def number_product(
        m, n, n0, n1, n2, a, places, a0, a1, a2, b, b0, b1, b2, b_next, start, start_row, out,
        out_row, out_next, on, slope,
    ):  # fmt: skip
        """Compiled once for all callers."""
        _write_numbers(
            m, n, n0, n1, n2, a, places, a0, a1, a2, b, b0, b1, b2, b_next, start, start_row, out,
            out_row, out_next, on, slope,
        )  # fmt: skip

    def vector_product(
        m, n, n0, n1, n2, a, places, a0, a1, a2, b, b0, b1, b2, b_next, start, start_row, out,
        out_row, out_next, on, slope,
    ):  # fmt: skip
        """Likewise."""
        _write_vectors(
            m, n, n0, n1, n2, a, places, a0, a1, a2, b, b0, b1, b2, b_next, start, start_row, out,
            out_row, out_next, on, slope,
        )  # fmt: skip

    for _number in _NUMBERS:
        on_its_own(f"fastnn_lanes_numbers_{_number}", number_product, _signature(_number))
        on_its_own(f"fastnn_lanes_vectors_{_number}", vector_product, _signature(_number))

    @intrinsic
    def number_tiles(
        typing, m, n, n0, n1, n2, a, places, a0, a1, a2, b, b0, b1, b2, b_next, start, start_row,
        out, out_row, out_next, on, slope,
    ):  # fmt: skip
        """The sums of ``m`` rows and ``n`` vectors over ``n0 * n1 * n2`` numbers of ``a``.

        ``a0, a1, a2`` and ``b0, b1, b2`` are the steps of the three sums; ``places`` says where
        each row of ``a`` begins, ``b_next`` how far it is to the next vector. Sums begin with
        ``start``, ``start_row`` from one row to the next, or go on from ``out`` where ``on``. Then
        ``out *= slope`` where it is not above 0.
        """
        return called(f"fastnn_lanes_numbers_{a.dtype}", _signature(a.dtype))

    @intrinsic
    def vector_tiles(
        typing, m, n, n0, n1, n2, a, places, a0, a1, a2, b, b0, b1, b2, b_next, start, start_row,
        out, out_row, out_next, on, slope,
    ):  # fmt: skip
        """The same with vectors of ``a``: sums of all lanes, on top of ``out`` where ``on``."""
        return called(f"fastnn_lanes_vectors_{a.dtype}", _signature(a.dtype))

else:

    def _tiles(paired):
        def tiles(
            m, n, n0, n1, n2, a, places, a0, a1, a2, b, b0, b1, b2, b_next, start, start_row, out,
            out_row, out_next, on, slope,
        ):  # fmt: skip
            """By numpy, in the order of the compiled sums."""
            count, item = width_of(a), a.array.itemsize

            def view(base, shape, *strides):
                apart = [s * item for s in strides[: len(shape)]]
                return np.lib.stride_tricks.as_strided(base.array[base.position :], shape, apart)

            shape = (m, n) if paired else (m, n, count)
            target = view(out, shape, out_row, out_next, 1)
            total = np.zeros((m, n, count), out.array.dtype)
            if not paired:
                firsts = start.array[start.position + start_row * np.arange(m)]
                total += target if on else firsts[:, None, None]
            own = places.array[places.position : places.position + m]
            lane = np.arange(count) if paired else np.zeros(1, int)
            for i, j, k in np.ndindex(int(n0), int(n1), int(n2)):
                at = own + (a.position + i * a0 + j * a1 + k * a2)
                factors = a.array[at[:, None] + lane][:, None]
                step = shifted(b, i * b0 + j * b1 + k * b2)
                total = total + factors * view(step, (m, n, count), 0, b_next, 1)
            if paired:
                total = total.sum(axis=2) + (target if on else 0)
            target[...] = np.where(total <= 0, slope * total, total) if slope != 1 else total

        return tiles

    number_tiles, vector_tiles = _tiles(False), _tiles(True)


@part
def turn_in(rows, columns, source, stride, target, spare):
    """Samples side by side: ``target[j, r] = source[r, j]``, 0 in lanes that have no sample.

    ``spare`` has room for two square blocks.
    """
    side = width_of(source)
    for j in range(0, columns, side):
        some = min(side, columns - j)
        if rows == side and some == side:
            transpose(shifted(source, j), stride, shifted(target, j * side), side)
        else:
            vector(spare, 0, side * side)[:] = 0
            for r in range(rows):
                row, copy = vector(source, r * stride + j, some), vector(spare, r * side, some)
                for c in range(some):
                    copy[c] = row[c]
            back = shifted(spare, side * side)
            transpose(spare, side, back, side)
            whole, copy = vector(back, 0, some * side), vector(target, j * side, some * side)
            for c in range(some * side):
                copy[c] = whole[c]


@part
def turn_out(rows, columns, source, target, stride, spare):
    """One sample behind another again: ``target[r, j] = source[j, r]`` for as many as there are."""
    side = width_of(source)
    for j in range(0, columns, side):
        some = min(side, columns - j)
        if rows == side and some == side:
            transpose(shifted(source, j * side), side, shifted(target, j), stride)
        else:
            block = matrix(source, j * side, some, side)
            for r in range(rows):
                row = vector(target, r * stride + j, some)
                for c in range(some):
                    row[c] = block[c, r]
