"""Matrix product ``out = start + a @ b`` by hand: a register tile, panels, blocks.

The tile (``_tile.py``) computes a few rows of two vectors' width in registers.
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

from ._kernel import kernel, part
from ._memory import matrix, pointer, shifted, vector
from ._tile import ROWS, VECTORS, lanes, panel, transpose, width_of

BLOCK_K = 256  # a packed panel of 256 x 32 float32 is 32 KiB
BLOCK_N = 1024
BLOCK_M = 8 * ROWS
STRIDE_A = BLOCK_K + 16  # no power of two, so that rows do not meet in one set of the cache
ZEROS = VECTORS * lanes(4)  # as many as the widest tile has columns
SCRATCH = BLOCK_K * BLOCK_N + STRIDE_A * BLOCK_M + ZEROS  # numbers that one product may pack
# Strides. Not literals, for each of which numba would compile the function that takes them anew.
NONE, UNIT, FAR, WIDE = (np.int64(stride) for stride in (0, 1, STRIDE_A, BLOCK_M))


@part
def _panel(m, k, a, a_row, a_k, b, b_k, start, start_row, out, out_row, columns):
    """All rows of ``a`` with one panel of ``b``."""
    panel(m, k, a, a_row, a_k, b, b_k, start, start_row, out, out_row, columns)


@part(inline=True)
def _copy(rows, columns, source, stride, target, target_stride, fill):
    """Copy rows to lie ``target_stride`` apart, zeros in the columns up to ``fill``."""
    for i in range(rows):
        row, copy = vector(source, i * stride, columns), vector(target, i * target_stride, fill)
        if columns == fill:  # of a known length where the caller's is
            for j in range(fill):
                copy[j] = row[j]
        else:
            for j in range(columns):
                copy[j] = row[j]
            for j in range(columns, fill):
                copy[j] = 0


@part
def _transpose(rows, columns, source, stride, target, target_stride, fill):
    """The same for the transposed of ``source`` (columns, rows), in square blocks."""
    copy = matrix(target, 0, rows, target_stride)
    side = width_of(source)
    whole_rows, whole_columns = rows - rows % side, columns - columns % side
    for j in range(0, whole_columns, side):
        for i in range(0, whole_rows, side):
            block = shifted(target, i * target_stride + j)
            transpose(shifted(source, j * stride + i), stride, block, target_stride)
    for j in range(columns):
        row = vector(source, j * stride, rows)
        for i in range(whole_rows if j < whole_columns else 0, rows):
            copy[i, j] = row[i]
    for i in range(rows):
        for j in range(columns, fill):
            copy[i, j] = 0


@part
def gemm(
    m, n, k, a, a_row, a_k, b, b_k, b_column, start, start_row, start_column, out, out_row, scratch
):
    """``out = start + a @ b`` on typed pointers, with strides in elements.

    ``a`` is (m, k), ``b`` (k, n), ``out`` (m, n). ``start`` may be ``out`` itself, a bias
    (``start_row`` 0) or a vector of zeros (both strides 0). ``scratch`` has room for
    ``SCRATCH`` numbers.
    """
    full = VECTORS * width_of(a)
    # A copy pays where it is read again: b by many rows, a by many panels.
    pack_b = b_column != 1 or (m >= 4 * ROWS and k * n > 16384)
    pack_a = n > 2 * full and k > 64 and m >= ROWS
    packed_a = shifted(scratch, BLOCK_K * BLOCK_N)
    for k0 in range(0, k, BLOCK_K):
        steps = min(BLOCK_K, k - k0)
        if k0 > 0:  # go on from the sums of the blocks before
            start, start_row, start_column = out, out_row, 1
        for n0 in range(0, n, BLOCK_N):
            columns = min(BLOCK_N, n - n0)
            block_b, b_step, b_panel = shifted(b, k0 * b_k + n0), b_k, 1
            if pack_b:
                block_b, b_step, b_panel = scratch, full, steps
                for j in range(0, columns, full):
                    source = shifted(b, k0 * b_k + (n0 + j) * b_column)
                    pack = shifted(scratch, j * steps)
                    if b_column == 1:
                        _copy(steps, min(full, columns - j), source, b_k, pack, full, full)
                    else:
                        _transpose(
                            steps, min(full, columns - j), source, b_column, pack, full, full
                        )
            for m0 in range(0, m, BLOCK_M):
                rows = min(BLOCK_M, m - m0)
                block_a, row_step, k_step = shifted(a, m0 * a_row + k0 * a_k), a_row, a_k
                if pack_a and a_k == 1:
                    row_step, k_step = FAR, UNIT
                    _copy(rows, steps, block_a, a_row, packed_a, row_step, steps)
                    block_a = packed_a
                elif pack_a:
                    row_step, k_step = UNIT, WIDE
                    _copy(steps, rows, block_a, a_k, packed_a, k_step, rows)
                    block_a = packed_a
                for j in range(0, columns, full):
                    _panel(
                        rows, steps, block_a, row_step, k_step,
                        shifted(block_b, j * b_panel), b_step,
                        shifted(start, m0 * start_row + (n0 + j) * start_column), start_row,
                        shifted(out, m0 * out_row + n0 + j), out_row, min(full, columns - j),
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
