"""Products with a matrix that has few rows or few columns, written in LLVM's own terms.

The tiles of ``_tile.py`` take vectors of columns and some steps of ``k``: where a layer has at
most ``NARROW`` inputs or outputs they would be mostly empty, or done before they have begun. With
``b`` (n, width) and ``n <= NARROW``, as it lies or ``turned``, as the weight (width, n) of a layer
of few outputs, there are three ways such a layer meets it:

``dots``    ``out[r, o] = start[o] + sum over i of x[r, i] * b[o, i]``
``spread``  ``out[r, i] = start[i] + sum over o of x[r, o] * b[o, i]``
``sums``    ``out[o, i] = sum over r of b[r, o] * x[r, i]``, or turned ``out[i, o]``

Vectors lie along ``width`` everywhere. A turned ``b`` is read by whole vectors, whose lanes are
then dealt out to those of ``n`` rows. ``spread`` and ``sums`` are chains of multiply-adds in order,
as in a tile. ``dots`` has a sum in each lane; they are added up in halves, 8 and 8, 4 and 4, those
of several rows and outputs in one vector, as many shuffles as for a single one. That order depends
on the width alone, so a row gives the same bits in any company.
"""

import itertools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._kernel import JIT, called, on_its_own
from ._memory import matrix
from ._vectors import REGISTERS, Vectors, lanes

NARROW = 4
DOTS, SPREAD, SUMS = map(np.int64, range(3))
ROWS = 4 if REGISTERS == 32 else 2  # of x that ``dots`` takes at a time
WIDTH = 4 if REGISTERS == 32 else 2  # vectors of sums for each row of b


class _Narrow(Vectors):
    """What the three have in common."""

    def each(self, start, stop, step):
        """Loop over ``start``, ``start + step``, ... below ``stop``."""
        return cgutils.for_range_slice(self.builder, start, stop, self.number(step), self.index)

    def in_blocks(self, columns, block):
        """Call ``block(first, vectors, left)`` for ``WIDTH`` vectors at a time, then for one.

        ``left`` lanes of a single vector exist, or all; of ``WIDTH`` vectors all do: None.
        """
        builder, size = self.builder, self.number(WIDTH * self.count)
        many = builder.mul(builder.sdiv(columns, size), size)
        with self.each(self.number(0), many, WIDTH * self.count) as (first, _):
            block(first, WIDTH, None)
        with self.each(many, columns, self.count) as (first, _):
            block(first, 1, builder.sub(columns, first))

    def row(self, base, stride, r):
        """Where a row begins."""
        return self.builder.gep(base, [self.builder.mul(stride, r)])

    def cells(self, number):
        """Memory for so many vectors, which LLVM makes registers of."""
        return [cgutils.alloca_once(self.builder, self.kind) for _ in range(number)]

    def some(self, number, n):
        """For each of ``n`` vectors one behind another, the lanes that exist of so many in all."""
        return [self.first(self.builder.sub(number, self.number(v * self.count))) for v in range(n)]

    def joined_few(self, vectors):
        """One long vector of up to four."""
        return self.joined(vectors + [ir.Constant(self.kind, ir.Undefined)] * (len(vectors) == 3))

    def dealt(self, pointer, offset, n, left):
        """``n`` vectors whose lanes lie among each other in memory, ``left`` of each."""
        exist = [None] * n
        if left is not None:
            exist = self.some(self.builder.mul(left, self.number(n)), n)
        places = [self.builder.add(offset, self.number(v * self.count)) for v in range(n)]
        whole = self.joined_few([*map(self.load, [pointer] * n, places, exist)])
        return [self.shuffled(whole, None, [*range(o, n * self.count, n)]) for o in range(n)]

    def mingle(self, vectors, pointer, left):
        """The way back: the lanes among each other to memory, first ones first."""
        n, exist = len(vectors), [None] * len(vectors)
        if left is not None:
            exist = self.some(self.builder.mul(left, self.number(n)), n)
        whole = self.joined_few(vectors)
        picked = [o * self.count + i for i in range(self.count) for o in range(n)]
        for v in range(n):
            part = self.shuffled(whole, None, picked[v * self.count : (v + 1) * self.count])
            self.store(part, pointer, self.number(v * self.count), exist[v])

    def rows_of_b(self, b, width, n, turned, i, left=None):
        """The vectors ``b[:, i:]``, ``left`` lanes of each where it is no whole vector."""
        if turned:
            return self.dealt(b, self.builder.mul(i, self.number(n)), n, left)
        exist = None if left is None else self.first(left)
        return [self.load(self.row(b, width, self.number(o)), i, exist) for o in range(n)]

    def added_up(self, vectors):
        """The sum of the lanes of each vector: the lanes of as few vectors as hold them."""
        vectors, width = [*vectors, *[None] * (-len(vectors) % self.count)], self.count
        while width > 1:
            half = width // 2
            upper = [s + i for s in range(0, 2 * self.count, width) for i in range(half)]
            lower = [i + half for i in upper]
            pairs, vectors = zip(vectors[::2], vectors[1::2], strict=True), []
            for first, second in pairs:
                if first is not None:
                    one, other = (self.shuffled(first, second, half) for half in (upper, lower))
                    first = self.builder.fadd(one, other)
                vectors.append(first)
            width = half
        return [vector for vector in vectors if vector is not None]


def _emit_dots(w, n, turned, m, width, x, b, start, start_step, out, slope):
    """``dots`` for some rows at a time; where there are fewer left, the last one several times."""
    builder, count = w.builder, w.count
    left = builder.srem(width, w.number(count))
    whole = builder.sub(width, left)
    some = builder.icmp_signed(">", left, w.number(0))
    places = [(r, o) for r in range(ROWS) for o in range(n)]
    biases = [ir.Constant(w.kind, ir.Undefined) for _ in range(0, len(places), count)]
    each = [builder.load(w.row(start, start_step, w.number(o))) for o in range(n)]
    for place, (_, o) in enumerate(places):
        lane = ir.Constant(w.lane, place % count)
        vector = place // count
        biases[vector] = builder.insert_element(biases[vector], each[o], lane)
    slopes, sums, rest_of_b = w.splat(slope), w.cells(len(places)), w.cells(n)
    with builder.if_then(some):
        for o, value in enumerate(w.rows_of_b(b, width, n, turned, whole, left)):
            builder.store(value, rest_of_b[o])
    with w.each(w.number(0), m, ROWS) as (first, _):
        last = builder.sub(m, w.number(1))
        rows = []
        for r in range(ROWS):
            row = builder.add(first, w.number(r))
            row = builder.select(builder.icmp_signed("<", row, m), row, last)
            rows.append(w.row(x, width, row))
        for cell in sums:
            builder.store(w.zero, cell)

        def step(i, b_now, exist=None):
            x_now = [w.load(row, i, exist) for row in rows]
            for (r, o), cell in zip(places, sums, strict=True):
                builder.store(w.multiply_add(x_now[r], b_now[o], builder.load(cell)), cell)

        with w.each(w.number(0), whole, count) as (i, _):
            step(i, w.rows_of_b(b, width, n, turned, i))
        with builder.if_then(some):
            step(whole, [*map(builder.load, rest_of_b)], w.first(left))
        results = []
        for bias, total in zip(biases, w.added_up([*map(builder.load, sums)]), strict=True):
            value = builder.fadd(bias, total)
            results.append(w.bent(value, value, slopes))
        target = w.row(out, w.number(n), first)
        there = builder.mul(builder.sub(m, first), w.number(n))
        full = w.number(len(places))
        there = builder.select(builder.icmp_signed("<", there, full), there, full)
        for v, (value, exist) in enumerate(zip(results, w.some(there, len(results)), strict=True)):
            w.store(value, target, w.number(v * count), exist)


def _emit_spread(w, n, turned, m, width, x, b, start, start_step, out, slope, mask):
    """``spread``, then ``out *= slope`` where ``out <= 0``, or ``mask <= 0`` if turned."""
    builder, slopes = w.builder, w.splat(slope)

    def block(i, vectors, left):
        places = [builder.add(i, w.number(v * w.count)) for v in range(vectors)]
        exist = None if left is None else w.first(left)
        b_now = [w.rows_of_b(b, width, n, turned, place, left) for place in places]
        before = [w.load(start, builder.mul(place, start_step), exist) for place in places]
        with w.each(w.number(0), m, 1) as (r, _):
            row, below = w.row(x, w.number(n), r), builder.mul(r, width)
            factors = [w.splat(builder.load(builder.gep(row, [w.number(o)]))) for o in range(n)]
            for place, rows, value in zip(places, b_now, before, strict=True):
                for factor, vector in zip(factors, rows, strict=True):
                    value = w.multiply_add(factor, vector, value)
                at = builder.add(below, place)
                side = w.load(mask, at, exist) if turned else value
                w.store(w.bent(value, side, slopes), out, at, exist)

    w.in_blocks(width, block)


def _emit_sums(w, n, turned, m, columns, x, x_row, b, b_row, out):
    """``sums`` for some vectors of columns at a time, then for one."""
    builder, count = w.builder, w.count

    def block(i, vectors, left):
        exist = None if left is None else w.first(left)
        totals = w.cells(n * vectors)
        for cell in totals:
            builder.store(w.zero, cell)
        with w.each(w.number(0), m, 1) as (r, _):
            row = builder.gep(w.row(x, x_row, r), [i])
            x_now = [w.load(row, w.number(v * count), exist) for v in range(vectors)]
            of_b = w.row(b, b_row, r)
            for o in range(n):
                factor = w.splat(builder.load(builder.gep(of_b, [w.number(o)])))
                for v in range(vectors):
                    cell = totals[o * vectors + v]
                    builder.store(w.multiply_add(factor, x_now[v], builder.load(cell)), cell)
        for v in range(vectors):
            at = builder.add(i, w.number(v * count))
            found = [builder.load(totals[o * vectors + v]) for o in range(n)]
            if not turned:
                for o, value in enumerate(found):
                    w.store(value, w.row(out, columns, w.number(o)), at, exist)
            else:
                w.mingle(found, w.row(out, w.number(n), at), left)

    w.in_blocks(columns, block)


def _emit_product(w, which, n, turned, arguments):
    """Code for each of the three products, and for each ``n``, ``b`` turned or not.

    Nobody needs ``DOTS`` but turned.
    """
    m, width, x, x_row, b, b_row, start, start_step, out, slope, mask = arguments
    both = (False, True)
    emit = {
        DOTS: (_emit_dots, (True,), (m, width, x, b, start, start_step, out, slope)),
        SPREAD: (_emit_spread, both, (m, width, x, b, start, start_step, out, slope, mask)),
        SUMS: (_emit_sums, both, (m, width, x, x_row, b, b_row, out)),
    }

    def is_(value, number):
        return w.builder.icmp_signed("==", value, w.number(number))

    for product, (write, ways, given) in emit.items():
        for number, way in itertools.product(range(1, NARROW + 1), ways):
            this = w.builder.and_(is_(which, product), is_(n, number))
            with w.builder.if_then(w.builder.and_(this, is_(turned, int(way)))):
                write(w, number, way, *given)


if JIT:

    @intrinsic
    def _product(
        typing, which, n, turned, m, width, x, x_row, b, b_row, start, start_step, out, slope, mask
    ):
        element = x.dtype

        def generate(context, builder, signature, args):
            kind = context.get_data_type(element)
            w = _Narrow(builder, kind, lanes(element.bitwidth // 8))
            _emit_product(w, *args[:3], args[3:])
            return context.get_dummy_value()

        return _signature(element), generate

    def _signature(number):
        pointer_to, whole = types.CPointer(number), types.intp
        strided = [pointer_to, whole] * 3  # x, b and start
        return types.void(*[whole] * 5, *strided, pointer_to, number, pointer_to)

    def product(
        which, n, turned, m, width, x, x_row, b, b_row, start, start_step, out, slope, mask
    ):
        """Any of the three."""
        _product(
            which, n, turned, m, width, x, x_row, b, b_row, start, start_step, out, slope, mask
        )

    for _number in (types.float32, types.float64):
        on_its_own(f"fastnn_narrow_{_number}", product, _signature(_number))

    @intrinsic
    def narrow_product(
        typing, which, n, turned, m, width, x, x_row, b, b_row, start, start_step, out, slope, mask
    ):
        """``DOTS``, ``SPREAD`` or ``SUMS`` on typed pointers, as at the top of this file.

        ``x`` is (m, width) or, for ``SPREAD``, (m, n). For ``SUMS`` rows lie ``x_row`` and
        ``b_row`` apart, else one behind another. ``start_step`` is 1, or 0 for one start for all.
        Then ``out *= slope`` where ``out <= 0``, or, of a ``SPREAD`` that is turned, where
        ``mask <= 0``, which has the shape of ``out``: on the way back through a layer.
        """
        return called(f"fastnn_narrow_{x.dtype}", _signature(x.dtype))

else:

    def narrow_product(
        which, n, turned, m, width, x, x_row, b, b_row, start, start_step, out, slope, mask
    ):
        """``DOTS``, ``SPREAD`` or ``SUMS`` by numpy, in the order of the compiled sums."""

        def of_n(base):
            return matrix(base, 0, width, n).T if turned else matrix(base, 0, n, width)

        if which == DOTS:
            rows, result = matrix(x, 0, m, width), matrix(out, 0, m, n)
            begin = start.view(0, n if start_step else 1)
            for r in range(m):  # each for itself: the same bits in any company
                result[r] = begin + (rows[r] * of_n(b)).sum(axis=1)
            result[...] = np.where(result <= 0, slope * result, result)
        elif which == SPREAD:
            factors, result = matrix(x, 0, m, n), matrix(out, 0, m, width)
            total = np.zeros((m, width), result.dtype) + start.view(0, width if start_step else 1)
            for o in range(n):
                total += np.outer(factors[:, o], of_n(b)[o])
            side = matrix(mask, 0, m, width) if turned else total
            result[...] = np.where(side <= 0, slope * total, total)
        else:
            total = np.zeros((n, width), out.array.dtype)
            for r in range(m):
                total += np.outer(b.view(r * b_row, n), x.view(r * x_row, width))
            of_n(out)[...] = total
