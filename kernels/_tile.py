"""The inner part of the matrix product, written in LLVM's own terms.

``panel`` multiplies any number of rows of ``a`` with a panel of ``b`` no wider than four vector
registers (two where there are 16),

    out[r, :] = start[r, :] + sum over k of a[r, k] * b[k, :]
    out[r, :] *= slope where mask[r, :] <= 0

in *tiles* of a few rows whose sums all stay in registers: a step over ``k`` loads the vectors of
``b``, broadcasts a number of ``a`` for each row and makes a fused multiply-add for each row and
vector. Plain loops do not get there: the compiler spills the sums or vectorises along ``k``.
Vectors that a panel does not fill are masked where memory may end. The second line rides along
while the sums are at hand: with ``mask`` the output itself it is relu or leaky_relu, with the
output of such a layer it is the way back through one. A slope of 1 leaves it out.

Source: the shape of the tile follows Goto and van de Geijn (2008), "Anatomy of
High-Performance Matrix Multiplication", ACM TOMS 34(3), section 6.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._kernel import JIT
from ._vectors import MASKS_ARE_CHEAP, REGISTERS, Vectors, lanes

LONG, LONGER = 4, 8  # widths of the tiles of a single row
# Heights of the tiles, by their width in vectors. Sums fill the registers but for the vectors of b
# and a broadcast number. Of 24 sums, 6 x 4 take 10 loads for a step of ``k`` and 12 x 2 take
# 14: what shares a core with another program, as a rented one does, is bound by how many
# instructions it may start.
HEIGHTS = (
    {4: (6, 4, 2, 1), 2: (12, 8, 4, 2, 1), 1: (12, 8, 4, 2, 1)}
    if REGISTERS == 32
    else {2: (6, 4, 3, 2, 1), 1: (6, 4, 3, 2, 1)}
)
SHORT = 16  # steps that are not worth a loop of their own
VECTORS = max(HEIGHTS)  # width of a full tile
ROWS = HEIGHTS[1][0]  # the highest tile


def _emit_tile(builder, element, count, rows, vectors, partial, arguments):
    """Write the instructions of one tile at the builder's position.

    Of a panel that is not full, all steps but the last ``careful`` load what is behind its columns,
    too, as the next rows of ``b`` lie there: a masked load costs as much as a multiplication.
    """
    a, a_row, a_k, b, b_k, start, start_row, out, out_row, slope, mask, k, careful, columns = (
        arguments
    )
    vectors_of = Vectors(builder, element, count)
    index, number, splat = vectors_of.index, vectors_of.number, vectors_of.splat
    exist = [None] * vectors
    if partial:  # more columns than the next narrower tile has
        for v in range(vectors // 2, vectors):
            exist[v] = vectors_of.first(builder.sub(columns, number(v * count)))

    def load(pointer, v):
        return vectors_of.load(pointer, number(v * count), exist[v])

    def store(value, pointer, v):
        vectors_of.store(value, pointer, number(v * count), exist[v])

    cells = [(r, v) for r in range(rows) for v in range(vectors)]
    before = [load(builder.gep(start, [builder.mul(start_row, number(r))]), v) for r, v in cells]
    # Three rows share a pointer, to which x86 adds one or two strides for nothing: twelve pointers
    # would not fit its registers. LLVM makes one pointer of them, moved along by eleven additions
    # in a chain. A tile of one vector is done before the chain is; there the pointers pass through
    # an empty instruction, which hides that their distance is known.
    stride = builder.mul(a_row, number(vectors_of.itemsize))
    a_first = [builder.gep(a, [builder.mul(a_row, number(r))]) for r in range(0, rows, 3)]
    if vectors == 1:
        hide = ir.FunctionType(a.type, [a.type])
        a_first = [builder.asm(hide, "", "=r,0", [pointer], False) for pointer in a_first]

    def a_value(at, r):
        byte = builder.bitcast(at[r // 3], ir.IntType(8).as_pointer())
        at = builder.gep(byte, [builder.mul(stride, number(r % 3))])
        return splat(builder.load(builder.bitcast(at, a.type)))

    def steps(number_of, exist, state):
        """So many steps over ``k``; the pointers into a and b and the sums, before and after."""
        entry = builder.block
        loop, done = builder.append_basic_block("k"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", number_of, number(0)), loop, done)
        builder.position_at_end(loop)
        step, now = builder.phi(index), [builder.phi(value.type) for value in state]
        a_at, b_at, sums = now[: len(a_first)], now[len(a_first)], now[len(a_first) + 1 :]
        b_now = [vectors_of.load(b_at, number(v * count), exist[v]) for v in range(vectors)]
        a_now = [a_value(a_at, r) for r in range(rows)]
        following = [
            *[builder.gep(at, [a_k]) for at in a_at],
            builder.gep(b_at, [b_k]),
            *[
                vectors_of.multiply_add(a_now[r], b_now[v], total)
                for (r, v), total in zip(cells, sums, strict=True)
            ],
        ]
        next_step = builder.add(step, number(1))
        for phi, first, then in zip(
            [step, *now], [number(0), *state], [next_step, *following], strict=True
        ):
            phi.add_incoming(first, entry)
            phi.add_incoming(then, loop)
        builder.cbranch(builder.icmp_signed("<", next_step, number_of), loop, done)
        builder.position_at_end(done)
        results = [builder.phi(value.type) for value in state]
        for phi, first, then in zip(results, state, following, strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(then, loop)
        return results

    state = steps(builder.sub(k, careful), [None] * vectors, [*a_first, b, *before])
    if partial:
        state = steps(careful, exist, state)
    results = state[len(a_first) + 1 :]

    def row_of(base, r):
        return builder.gep(base, [builder.mul(out_row, number(r))])

    bends = builder.fcmp_unordered("!=", slope, ir.Constant(element, 1.0))
    with builder.if_else(bends) as (bent, straight):
        with bent:  # everything is stored once, also where the output is its own mask
            slopes, own = splat(slope), builder.icmp_unsigned("==", mask, out)
            for (r, v), value in zip(cells, results, strict=True):
                side = builder.select(own, value, load(row_of(mask, r), v))
                store(vectors_of.bent(value, side, slopes), row_of(out, r), v)
        with straight:
            for (r, v), value in zip(cells, results, strict=True):
                store(value, row_of(out, r), v)


def _emit_rows(builder, element, count, vectors, partial, arguments):
    """Tiles one below another until all rows are done, high ones first."""
    m, k, a, a_row, a_k, b, b_k, start, start_row, out, out_row, slope, mask, columns = arguments
    careful = ir.Constant(k.type, 0)
    if partial:  # behind the last row of b, or behind the last few of narrow ones, there is nothing
        behind = builder.sub(ir.Constant(k.type, vectors * count), columns)
        several = builder.icmp_signed(">", behind, b_k)
        careful = builder.select(several, behind, ir.Constant(k.type, 1))
        full = builder.icmp_signed("==", behind, ir.Constant(k.type, 0))
        careful = builder.select(full, behind, careful)
        short = builder.icmp_signed("<", k, builder.add(careful, ir.Constant(k.type, SHORT)))
        careful = builder.select(short, k, careful)
    done = cgutils.alloca_once_value(builder, ir.Constant(m.type, 0))
    for height in HEIGHTS[vectors]:
        head, body, after = (builder.append_basic_block(name) for name in ("rows", "tile", "less"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.load(done)
        rows = ir.Constant(m.type, height)
        builder.cbranch(builder.icmp_signed(">=", builder.sub(m, i), rows), body, after)
        builder.position_at_end(body)
        below = [
            builder.gep(base, [builder.mul(i, stride)])
            for base, stride in ((a, a_row), (start, start_row), (out, out_row), (mask, out_row))
        ]
        tile = (
            below[0], a_row, a_k, b, b_k, below[1], start_row, below[2], out_row, slope, below[3],
            k, careful, columns,
        )  # fmt: skip
        _emit_tile(builder, element, count, height, vectors, partial, tile)
        builder.store(builder.add(i, rows), done)
        builder.branch(head)
        builder.position_at_end(after)


def _emit_transpose(builder, element, count, source, stride, target, target_stride):
    """A square block of one vector a side: rows come in, columns go out.

    Rows are loaded in pieces of 16 bytes, and pieces from the same columns of rows that far apart
    put into one vector. Within the pieces, numbers change places across the diagonal, by 1 and
    by 2: shuffles that do not leave their piece, and half as many as from whole rows.
    """
    vectors_of = Vectors(builder, element, count)
    piece, narrow = 16 // vectors_of.itemsize, Vectors(builder, element, 16 // vectors_of.itemsize)

    def at(step, i, j):
        row = builder.mul(step, ir.Constant(step.type, i))
        return builder.add(row, ir.Constant(step.type, j))

    rows = []
    for j in range(0, count, piece):
        for i in range(piece):
            parts = [narrow.load(source, at(stride, k, j)) for k in range(i, count, piece)]
            rows.append(vectors_of.joined(parts))
    size = 1
    while size < piece:
        for i in (i for i in range(count) if not i & size):
            upper, lower = rows[i], rows[i + size]
            for row, first in ((i, 0), (i + size, size)):
                # From the upper row its lanes ``first``, from the lower one those to their right.
                picked = [
                    (c & ~size) + first if not c & size else count + (c & ~size) + first
                    for c in range(count)
                ]
                rows[row] = vectors_of.shuffled(upper, lower, picked)
        size *= 2
    for i, row in enumerate(rows):
        vectors_of.store(row, target, at(target_stride, i, 0))


if JIT:

    @intrinsic
    def transpose(typing, source, stride, target, target_stride):
        """Transpose a square block, as many rows and columns as a vector has numbers."""
        element = source.dtype

        def generate(context, builder, signature, args):
            kind = context.get_data_type(element)
            _emit_transpose(builder, kind, lanes(element.bitwidth // 8), *args)
            return context.get_dummy_value()

        return types.void(source, types.intp, target, types.intp), generate

    @intrinsic
    def copy_panel_row(typing, source, target):
        """Copy the numbers of one row of a panel, ``VECTORS`` vectors.

        A loop would do it vector by vector only after it has made sure, for each row, that the
        two do not overlap.
        """

        def generate(context, builder, signature, args):
            element = context.get_data_type(source.dtype)
            kind = ir.VectorType(element, VECTORS * lanes(source.dtype.bitwidth // 8))
            at, to = (builder.bitcast(base, kind.as_pointer()) for base in args)
            row = builder.load(at)
            row.align = source.dtype.bitwidth // 8
            builder.store(row, to).align = row.align
            return context.get_dummy_value()

        return types.void(source, source), generate

    @intrinsic
    def width_of(typing, base):
        """Numbers in one vector of what a pointer points to."""

        def generate(context, builder, signature, args):
            return context.get_constant(types.intp, lanes(base.dtype.bitwidth // 8))

        return types.intp(base), generate

    def _row_tile(vectors):
        @intrinsic
        def row_tile(typing, k, a, a_k, b, b_k, start, out, slope, mask):
            """``out = start + a @ b`` for a single row and so many full vectors of columns.

            Where a step waits for the one before it, a row of two vectors is all waiting.
            """
            element = a.dtype

            def generate(context, builder, signature, args):
                k, a, a_k, b, b_k, start, out, slope, mask = args
                kind, none = context.get_data_type(element), ir.Constant(k.type, 0)
                tile = a, none, a_k, b, b_k, start, none, out, none, slope, mask, k, none, none
                count = lanes(element.bitwidth // 8)
                _emit_tile(builder, kind, count, 1, vectors, False, tile)
                return context.get_dummy_value()

            sizes = (types.intp, a, types.intp, b, types.intp, start, out, element, mask)
            return types.void(*sizes), generate

        return row_tile

    long_tile, longer_tile = _row_tile(LONG), _row_tile(LONGER)

    @intrinsic
    def panel(
        typing, m, k, a, a_row, a_k, b, b_k, start, start_row, out, out_row, slope, mask, columns
    ):
        """``out = start + a @ b`` for at most ``VECTORS`` vectors of columns.

        ``a``, ``b``, ``start``, ``out`` and ``mask`` are typed pointers. Strides count elements,
        between rows or between steps of ``k``; a ``start_row`` of 0 starts every row alike, as a
        bias does. ``mask`` has the stride of ``out``.
        """
        element = a.dtype

        def generate(context, builder, signature, args):
            # One copy, however many callers: the code is long.
            builder.function.attributes.add("noinline")
            count = lanes(element.bitwidth // 8)
            kind, columns = context.get_data_type(element), args[-1]
            number = functools.partial(ir.Constant, columns.type)

            def narrower(widths):
                """Tiles as narrow as the columns allow."""
                vectors, *rest = widths
                full = builder.icmp_signed("==", columns, number(vectors * count))
                fewer = builder.icmp_signed("<=", columns, number((rest or [0])[0] * count))
                with builder.if_else(fewer) as (less, this):
                    with less:
                        if rest:
                            narrower(rest)
                    with this:
                        if MASKS_ARE_CHEAP or vectors == 1:
                            _emit_rows(builder, kind, count, vectors, True, args)
                        else:
                            with builder.if_else(full) as (all_columns, some):
                                with all_columns:
                                    _emit_rows(builder, kind, count, vectors, False, args)
                                with some:
                                    _emit_rows(builder, kind, count, vectors, True, args)

            narrower(list(HEIGHTS))
            return context.get_dummy_value()

        whole = types.intp
        sizes = (whole, whole, a, whole, whole, b, whole, start, whole, out, whole)
        sizes = (*sizes, element, mask, whole)
        return types.void(*sizes), generate

else:

    def transpose(source, stride, target, target_stride):
        """Transpose a square block, as many rows and columns as a vector has numbers."""
        count = lanes(source.array.itemsize)
        for i in range(count):
            for j in range(count):
                value = source.array[source.position + j * stride + i]
                target.array[target.position + i * target_stride + j] = value

    def copy_panel_row(source, target):
        """Copy the numbers of one row of a panel."""
        count = VECTORS * lanes(source.array.itemsize)
        target.view(0, count)[...] = source.view(0, count)

    def width_of(base):
        """Numbers in one vector of what a pointer points to."""
        return lanes(base.array.itemsize)

    def panel(m, k, a, a_row, a_k, b, b_k, start, start_row, out, out_row, slope, mask, columns):
        """``out = start + a @ b``, then ``out *= slope where mask <= 0``, by numpy."""
        itemsize = a.array.itemsize

        def view(base, shape, strides):
            source = base.array[base.position :]
            return np.lib.stride_tricks.as_strided(source, shape, [s * itemsize for s in strides])

        left, right = view(a, (m, k), (a_row, a_k)), view(b, (k, columns), (b_k, 1))
        result = view(start, (m, columns), (start_row, 1)).copy()
        for i in range(k):  # in the order of the compiled sums
            result += np.outer(left[:, i], right[i])
        target = view(out, (m, columns), (out_row, 1))
        target[...] = result
        if slope != 1:
            below = view(mask, (m, columns), (out_row, 1)) <= 0
            target[...] = np.where(below, slope * target, target)

    def _row_tile(vectors):
        def row_tile(k, a, a_k, b, b_k, start, out, slope, mask):
            columns = vectors * width_of(a)
            panel(1, k, a, 0, a_k, b, b_k, start, 0, out, 0, slope, mask, columns)

        return row_tile

    long_tile, longer_tile = _row_tile(LONG), _row_tile(LONGER)
