"""Matrix product ``out = start + a @ b`` by hand: a register tile, panels, blocks.

The tile (``_tile.py``) computes a few rows of a few vectors in registers.
What is here brings the operands to it:

* ``a`` is read through two strides, so ``x`` and ``x.T`` need no copy;
* a *panel* of ``b`` (some steps of ``k``, the width of a tile) is *packed*,
  copied to lie row after row, where ``b`` is large or transposed;
* *blocks* of ``k`` keep a panel in the L1 cache; of ``a``, packed as well
  where its rows lie far apart, as much as fits L2.

**Every element is one chain of multiply-adds over k, in order**, whatever the
tile and however the matrix is cut: a row gives the same bits alone or in any
batch, and any number of threads the same bits as one.

Source: Goto and van de Geijn (2008), "Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34(3).
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from ._kernel import JIT, called, kernel, on_its_own, part
from ._memory import matrix, pointer, shifted, vector
from ._tile import (
    LONG,
    LONGER,
    ROWS,
    VECTORS,
    copy_panel_row,
    long_tile,
    longer_tile,
    panel,
    transpose,
    width_of,
)
from ._vectors import VECTOR_BITS, lanes

VECTOR_BYTES = VECTOR_BITS // 8
BLOCK_K = 128  # a packed panel of 128 x 64 float32 is 32 KiB
BLOCK_N = 1024
BLOCK_M = 4 * ROWS
STRIDE_A = BLOCK_K + 16  # no power of two, so that rows do not meet in one set of the cache
ZEROS = LONGER * lanes(4)  # as many as the widest tile has columns
PACKED_B, PACKED_A = (BLOCK_K + 1) * BLOCK_N, STRIDE_A * BLOCK_M
SCRATCH = PACKED_B + PACKED_A + ZEROS  # numbers that one product may need
FEW_ROWS = ROWS  # products ``x @ weight`` of fewer rows pack nothing and touch only its zeros
# Strides. Not literals, for each of which numba would compile the function that takes them anew.
NONE, UNIT, FAR, WIDE = (np.int64(stride) for stride in (0, 1, STRIDE_A, BLOCK_M))
STRAIGHT = np.float32(1)  # the slope that leaves every number as it is


@part
def _panel(m, k, a, a_row, a_k, b, b_k, start, start_row, out, out_row, slope, mask, columns):
    """All rows of ``a`` with one panel of ``b``; three vectors are two and one."""
    width = width_of(a)
    if 2 * width < columns <= 3 * width < VECTORS * width:
        some = 2 * width
        panel(m, k, a, a_row, a_k, b, b_k, start, start_row, out, out_row, slope, mask, some)
        b, start, out, mask = (
            shifted(b, some), shifted(start, some), shifted(out, some), shifted(mask, some)
        )  # fmt: skip
        columns -= some
    panel(m, k, a, a_row, a_k, b, b_k, start, start_row, out, out_row, slope, mask, columns)


@part(inline=True)
def _pack_a(rows, columns, source, stride, packed, packed_stride):
    """Copy rows to lie ``packed_stride`` apart."""
    for i in range(rows):
        row, copy = vector(source, i * stride, columns), vector(packed, i * packed_stride, columns)
        for j in range(columns):
            copy[j] = row[j]


@part(inline=True)
def _pack_b(rows, columns, source, stride, packed, width, panel_rows):
    """Deal out the columns to panels of ``width``, zeros behind the last."""
    whole = columns - columns % width
    for i in range(rows):  # whole rows: memory behind the caches is best read in one stream
        for j in range(0, whole, width):
            row = shifted(source, i * stride + j)
            copy_panel_row(row, shifted(packed, j * panel_rows + i * width))
        if whole < columns:
            row = vector(source, i * stride + whole, columns - whole)
            copy = vector(packed, whole * panel_rows + i * width, width)
            for c in range(row.size):
                copy[c] = row[c]
            for c in range(row.size, width):
                copy[c] = 0


@part
def _pack_transposed(rows, columns, source, stride, packed, width, spare):
    """One panel of the transposed of ``source`` (columns, rows), in square blocks.

    Columns that fill no block are first copied to ``spare``, which has room for a block's.
    """
    side = width_of(source)
    whole_rows, whole_columns = rows - rows % side, columns - columns % side
    for j in range(0, columns, side):
        block, apart = shifted(source, j * stride), stride
        if j == whole_columns:
            _pack_a(columns - j, whole_rows, block, stride, spare, FAR)
            block, apart = spare, FAR
        for i in range(0, whole_rows, side):
            transpose(shifted(block, i), apart, shifted(packed, i * width + j), width)
    copy = matrix(packed, 0, rows, width)
    for j in range(columns):
        row = vector(source, j * stride, rows)
        for i in range(whole_rows, rows):
            copy[i, j] = row[i]
    for i in range(rows):
        for j in range(columns if i >= whole_rows else columns + (-columns) % side, width):
            copy[i, j] = 0


@part
def _row(n, k, a, a_k, b, b_k, start, start_column, out, slope, mask):
    """A single row: nothing is copied, and tiles are as wide as registers allow."""
    width, done = width_of(a), 0
    while n - done >= LONG * width:
        if n - done >= LONGER * width:
            longer_tile(
                k, a, a_k, shifted(b, done), b_k, shifted(start, done * start_column),
                shifted(out, done), slope, shifted(mask, done),
            )  # fmt: skip
            done += LONGER * width
        else:
            long_tile(
                k, a, a_k, shifted(b, done), b_k, shifted(start, done * start_column),
                shifted(out, done), slope, shifted(mask, done),
            )  # fmt: skip
            done += LONG * width
    for j in range(done, n, VECTORS * width):
        _panel(
            UNIT, k, a, NONE, a_k, shifted(b, j), b_k, shifted(start, j * start_column), NONE,
            shifted(out, j), NONE, slope, shifted(mask, j), min(VECTORS * width, n - j),
        )  # fmt: skip


def product(
    m, n, k, a, a_row, a_k, b, b_k, b_column, start, start_row, start_column, out, out_row,
    slope, mask, scratch,
):  # fmt: skip
    """``out = start + a @ b`` on typed pointers, then ``out *= slope where mask <= 0``.

    ``a`` is (m, k), ``b`` (k, n), ``out`` (m, n); strides count elements. ``start`` may be
    ``out`` itself, a bias (``start_row`` 0) or a vector of zeros (both strides 0). ``mask`` lies
    as ``out`` does and may be ``out``. ``scratch`` has room for ``SCRATCH`` numbers.
    """
    full, itemsize = VECTORS * width_of(a), VECTOR_BYTES // width_of(a)
    # A copy pays where it is read again, b by many rows and a by many panels, and where what is
    # copied would not stay in the L2 cache by itself or its rows would meet in one set of L1, or
    # in a few if it is read very often.
    meet = b_k % (4096 // itemsize) == 0 or (b_k % (512 // itemsize) == 0 and m >= 24 * ROWS)
    large = k * n > (1 << 20) // itemsize or (meet and k > 64)
    pack_b = b_column != 1 or (m >= 4 * ROWS and large)
    pack_a = k > 64 and m >= ROWS and n > width_of(a) * (32 if a_k == 1 else 4)
    packed_a = shifted(scratch, PACKED_B)
    if m == 1 and b_column == 1:
        _row(n, k, a, a_k, b, b_k, start, start_column, out, slope, mask)
        return
    for k0 in range(0, k, BLOCK_K):
        steps = min(BLOCK_K, k - k0)
        slope_now = slope if k0 + steps >= k else STRAIGHT
        if k0 > 0:  # go on from the sums of the blocks before
            start, start_row, start_column = out, out_row, 1
        for n0 in range(0, n, BLOCK_N):
            columns = min(BLOCK_N, n - n0)
            block_b, b_step, b_panel = shifted(b, k0 * b_k + n0), b_k, 1
            if pack_b:
                block_b, b_step, b_panel = scratch, full, steps + 1
                source = shifted(b, k0 * b_k + n0 * b_column)
                if b_column == 1:
                    _pack_b(steps, columns, source, b_k, scratch, full, b_panel)
                else:
                    for j in range(0, columns, full):
                        _pack_transposed(
                            steps, min(full, columns - j), shifted(source, j * b_column), b_column,
                            shifted(scratch, j * b_panel), full, packed_a,
                        )  # fmt: skip
            for m0 in range(0, m, BLOCK_M):
                rows = min(BLOCK_M, m - m0)
                block_a, row_step, k_step = shifted(a, m0 * a_row + k0 * a_k), a_row, a_k
                if pack_a and a_k == 1:
                    row_step, k_step = FAR, UNIT
                    _pack_a(rows, steps, block_a, a_row, packed_a, row_step)
                    block_a = packed_a
                elif pack_a:
                    row_step, k_step = UNIT, WIDE
                    _pack_a(steps, rows, block_a, a_k, packed_a, k_step)
                    block_a = packed_a
                for j in range(0, columns, full):
                    _panel(
                        rows, steps, block_a, row_step, k_step,
                        shifted(block_b, j * b_panel), b_step,
                        shifted(start, m0 * start_row + (n0 + j) * start_column), start_row,
                        shifted(out, m0 * out_row + n0 + j), out_row,
                        slope_now, shifted(mask, m0 * out_row + n0 + j), min(full, columns - j),
                    )  # fmt: skip


if JIT:
    _NUMBERS = (types.float32, types.float64)

    def _signature(number):
        pointer_to, whole = types.CPointer(number), types.intp
        a, b, start = ([pointer_to, whole, whole] for _ in range(3))
        out = [pointer_to, whole, number, pointer_to]
        return types.void(*[whole] * 3, *a, *b, *start, *out, pointer_to)

    for _number in _NUMBERS:
        on_its_own(f"fastnn_gemm_{_number}", product, _signature(_number))

    @intrinsic
    def bent_gemm(
        typing, m, n, k, a, a_row, a_k, b, b_k, b_column, start, start_row, start_column,
        out, out_row, slope, mask, scratch,
    ):  # fmt: skip
        """`product`, which is compiled once for all callers: its tiles are long."""
        return called(f"fastnn_gemm_{a.dtype}", _signature(a.dtype))

else:
    bent_gemm = product


@part(inline=True)
def gemm(
    m, n, k, a, a_row, a_k, b, b_k, b_column, start, start_row, start_column, out, out_row, scratch
):
    """`product` and nothing after it."""
    bent_gemm(
        m, n, k, a, a_row, a_k, b, b_k, b_column, start, start_row, start_column, out, out_row,
        STRAIGHT, out, scratch,
    )  # fmt: skip


@part
def zeros(scratch):
    """Make the end of the scratch a row of zeros for a product to start from."""
    vector(scratch, SCRATCH - ZEROS, ZEROS)[:] = 0
    return shifted(scratch, SCRATCH - ZEROS)


@kernel(
    f"a(m,k) b(k,n) scratch({SCRATCH}) out(m,n) -> out",
    reference=lambda a, b: a @ b,
)
def matmul(a, b, scratch, out):
    """``out = a @ b``."""
    m, k = a.shape
    n = b.shape[1]
    packed = pointer(scratch)
    gemm(
        m, n, k, pointer(a), k, UNIT, pointer(b), n, UNIT,
        zeros(packed), NONE, NONE, pointer(out), n, packed,
    )  # fmt: skip


@kernel(
    f"a(k,m) b(k,n) scratch({SCRATCH}) out(m,n) -> out",
    reference=lambda a, b: a.T @ b,
)
def matmul_tn(a, b, scratch, out):
    """``out = a.T @ b``: the sum over the batch of a weight's gradient."""
    k, m = a.shape
    n = b.shape[1]
    packed = pointer(scratch)
    gemm(
        m, n, k, pointer(a), UNIT, m, pointer(b), n, UNIT,
        zeros(packed), NONE, NONE, pointer(out), n, packed,
    )  # fmt: skip


@kernel(
    f"a(m,k) b(n,k) scratch({SCRATCH}) out(m,n) -> out",
    reference=lambda a, b: a @ b.T,
)
def matmul_nt(a, b, scratch, out):
    """``out = a @ b.T``: the way of a gradient back through a weight."""
    m, k = a.shape
    n = b.shape[0]
    packed = pointer(scratch)
    gemm(
        m, n, k, pointer(a), k, UNIT, pointer(b), UNIT, k,
        zeros(packed), NONE, NONE, pointer(out), n, packed,
    )  # fmt: skip
