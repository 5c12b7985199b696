"""Every registered kernel agrees with its numpy reference: a new one is covered at once.

Outputs begin as noise inside larger arrays of noise, so a kernel that adds
instead of overwriting, forgets an element or writes beside its output fails.
"""

import inspect
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastnn.kernels import _tile
from fastnn.kernels._kernel import JIT, KERNELS, Kernel, kernel
from fastnn.kernels._op import OPS
from fastnn.kernels.gemm import SCRATCH
from fastnn.kernels.optimizers import all_finite

PRIMES = [n for n in range(68, 522) if all(n % d for d in range(2, 23))]
SIZES = [*range(1, 68), *PRIMES] if JIT else [1, 2, 3, 7, 13, 33]
SMALL = [1, 2, 3, 5, 8, 16, 17, 31, 33, 64] if JIT else [1, 2, 5]
ROUNDING = {np.float32: 2.0**-24, np.float64: 2.0**-53}
MANY = 6  # dimensions of images, whose product would be too long at every size
GUARD = 40  # noise on either side of an array


class Guarded:
    """An array with noise around it, at a place that suits no vector register."""

    def __init__(self, shape, dtype, rng):
        size = int(np.prod(shape))
        self.start = GUARD + int(rng.integers(4))
        self.whole = rng.standard_normal(self.start + size + GUARD).astype(dtype)
        self.array = self.whole[self.start : self.start + size].reshape(shape)
        self.before = self.whole.copy()

    def untouched_around(self):
        after = self.start + self.array.size
        return np.array_equal(self.whole[: self.start], self.before[: self.start]) and (
            np.array_equal(self.whole[after:], self.before[after:])
        )


def sizes_of(shapes, size, rng):
    """A size for each dimension: every one of them has its turn at ``size``, the others small."""
    names = list(dict.fromkeys(d for dims in shapes.values() for d in dims if not d.isdigit()))
    small = SMALL if len(names) < MANY else SMALL[:5]
    for turn in names:
        yield {n: size if n == turn else int(rng.choice(small)) for n in names}


def arguments_of(entry, sizes, dtype, rng):
    """Arguments from the signature: guarded arrays and numbers, in the kernel's domain."""
    guarded, arguments = {}, {}
    for name, dims in entry.shapes.items():
        if name == "scratch":
            arguments[name] = np.empty(SCRATCH, dtype)
        elif dims:
            shape = [int(d) if d.isdigit() else sizes[d] for d in dims]
            guarded[name] = Guarded(shape, dtype, rng)
            arguments[name] = guarded[name].array
        else:
            arguments[name] = float(rng.uniform(0.01, 0.5))
    if entry.sample is not None:
        arguments = entry.sample(arguments, rng)
    return guarded, arguments


def reference_of(entry, arguments):
    """What the reference says in float64, and the same for the inputs' absolute values."""
    wide = {
        k: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v
        for k, v in arguments.items()
        if k != "scratch"
    }
    results = entry.reference(**{name: wide[name] for name in entry.inputs})
    return results if isinstance(results, tuple) else (results,)


def tolerance(name, entry, arguments, result, dtype):
    """Error model: so many roundings, each relative to what has been added up.

    A sum of ``k`` products is off by at most ``(k + 4) u (|a| . |b| + |start|)``. Elsewhere
    the magnitude that roundings are relative to is that of the largest value in sight.
    """
    steps = max((s for k, v in arguments.items() if k != "scratch" for s in np.shape(v)), default=1)
    if name == "embedding_gradient":  # any number of rows may meet in one
        steps = arguments["x"].size
    if name.startswith("conv2d"):  # sums over windows, or over all places and samples
        sizes = {
            d: n
            for k, v in entry.shapes.items()
            if k != "scratch"
            for d, n in zip(v, np.shape(arguments[k]), strict=True)
        }
        taps = (
            sizes["kernel_height"]
            * sizes["kernel_width"]
            * max(sizes["channels"], sizes["filters"])
        )
        places = sizes["batch"] * sizes["out_height"] * sizes["out_width"]
        steps = places if name == "conv2d_gradient" else taps
    if name.startswith(("matmul", "dense", "conv2d", "embedding")):
        absolute = {k: np.abs(v) for k, v in arguments.items() if k != "scratch"}
        magnitude = reference_of(entry, absolute)
    else:
        largest = max(
            np.abs(v).max(initial=0) for k, v in arguments.items() if k != "scratch" and np.ndim(v)
        )
        magnitude = tuple(np.abs(r) + max(1, largest) for r in result)
    return tuple((steps + 8) * ROUNDING[dtype] * m for m in magnitude)


def check(name, entry, sizes, dtype, rng):
    guarded, arguments = arguments_of(entry, sizes, dtype, rng)
    result = reference_of(entry, arguments)
    allowed = tolerance(name, entry, arguments, result, dtype)
    inputs = {k: np.copy(v) for k, v in arguments.items() if k not in (*entry.writes, "scratch")}
    entry.run(*(arguments[k] for k in entry.shapes))
    case = f"{name} {sizes} {np.dtype(dtype)}"
    for written, expected, most in zip(entry.writes, result, allowed, strict=True):
        error = np.abs(arguments[written].astype(np.float64) - expected)
        assert (error <= most).all(), f"{case}: {written} is off by {(error - most).max():.3g}"
    for k, before in inputs.items():
        assert np.array_equal(arguments[k], before), f"{case} changed its input {k}"
    for k, array in guarded.items():
        assert array.untouched_around(), f"{case} wrote beside {k}"


@pytest.mark.parametrize("dtype", ROUNDING, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_matches_reference(name, dtype):
    entry = KERNELS[name]
    rng = np.random.default_rng(len(name))
    images = len({d for dims in entry.shapes.values() for d in dims}) >= MANY
    for size in [*SIZES[:35], *SIZES[35::20]] if images else SIZES:
        for sizes in sizes_of(entry.shapes, size, rng):
            check(name, entry, sizes, dtype, rng)


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: blocks of this size take too long")
@pytest.mark.parametrize("dtype", ROUNDING, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", [n for n in KERNELS if n.startswith(("matmul", "dense"))])
def test_products_longer_than_a_block(name, dtype):
    entry = KERNELS[name]
    rng = np.random.default_rng(5)
    dims = list(dict.fromkeys(d for s in entry.shapes.values() for d in s if not d.isdigit()))
    for lengths in [(257, 300, 550), (300, 550, 257), (550, 257, 300), (1023, 40, 97)]:
        check(name, entry, dict(zip(dims, lengths, strict=False)), dtype, rng)


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: numpy's own sums are compared")
@pytest.mark.parametrize("dtype", ROUNDING, ids=lambda t: t.__name__)
def test_a_row_of_a_product_has_the_same_bits_alone(dtype):
    rng = np.random.default_rng(0)
    scratch = np.empty(SCRATCH, dtype)
    for m, k, n in [(13, 5, 3), (67, 300, 33), (130, 513, 70), (25, 64, 1), (9, 40, 300)]:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        whole, alone = np.empty((m, n), dtype), np.empty((1, n), dtype)
        KERNELS["matmul"].run(a, b, scratch, whole)
        for i in range(m):
            KERNELS["matmul"].run(a[i : i + 1], b, scratch, alone)
            assert np.array_equal(whole[i], alone[0])


@pytest.mark.parametrize("dtype", ROUNDING, ids=lambda t: t.__name__)
def test_a_row_of_a_narrow_layer_has_the_same_bits_alone(dtype):
    rng = np.random.default_rng(0)
    forward, scratch = KERNELS["dense_forward"].run, np.empty(SCRATCH, dtype)
    for m, k, n in [(13, 5, 3), (67, 300, 2), (130, 70, 1), (25, 64, 4), (9, 3, 40), (5, 2, 2)]:
        x, weight, bias = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), n))
        whole, alone = np.empty((m, n), dtype), np.empty((1, n), dtype)
        forward(x, weight, bias, 0.5, scratch, whole)
        for i in range(m):
            forward(x[i : i + 1], weight, bias, 0.5, scratch, alone)
            assert np.array_equal(whole[i], alone[0])


EDGE = """
import ctypes, mmap
import numpy as np
from fastnn.kernels._kernel import KERNELS
from tests.test_kernels import ROUNDING, arguments_of, sizes_of
libc = ctypes.CDLL(None, use_errno=True)

def at_the_edge(array):
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    behind = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + size
    assert libc.mprotect(ctypes.c_void_p(behind), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    place = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes)
    place[:] = array.ravel()
    return place.reshape(array.shape)

rng = np.random.default_rng(0)
for name, entry in KERNELS.items():
    for dtype in ROUNDING:
        for size in (1, 2, 3, 5, 6, 9, 13, 16, 17, 30, 33, 47, 64, 67, 150):
            for sizes in sizes_of(entry.shapes, size, rng):
                _, arguments = arguments_of(entry, sizes, dtype, rng)
                given = (arguments[name] for name in entry.shapes)
                entry.run(*(at_the_edge(v) if np.ndim(v) else v for v in given))
print(len(KERNELS))
"""


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: numpy looks after its bounds")
@pytest.mark.skipif(platform.system() != "Linux", reason="memory is protected as Linux does it")
def test_kernels_read_nothing_behind_their_arguments():
    """Every array ends where memory ends: whoever reads further ends the process."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", EDGE],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(KERNELS)


MACHINES = {
    "128 bits": {"FASTNN_VECTOR_BITS": "128"},
    "256 bits": {"FASTNN_VECTOR_BITS": "256"},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"},
    "SSE2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"},
}
PRODUCTS = """
import numpy as np
from fastnn.kernels._kernel import KERNELS
from fastnn.kernels import _tile, _vectors, dense, gemm
from tests.test_kernels import check
print(_vectors.VECTOR_BITS, _tile.ROWS)
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    scratch = np.empty(gemm.SCRATCH, dtype)
    sizes = [*range(1, 20), 31, 33, 67, 131, 521]
    for m, k, n in [*((s, int(rng.choice(sizes)), int(rng.choice(sizes))) for s in 3 * sizes)]:
        a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
        exact, size = a.astype(float) @ b.astype(float), np.abs(a) @ np.abs(b)
        for product, x, y in (
            (gemm.matmul, a, b), (gemm.matmul_tn, a.T.copy(), b), (gemm.matmul_nt, a, b.T.copy())
        ):
            whole = np.full((m + 2, n), 7, dtype)
            product(x, y, scratch, whole[1:-1])
            error = np.abs(whole[1:-1] - exact)
            assert (error <= (k + 4) * np.finfo(dtype).eps * size).all(), (m, k, n, dtype)
            assert (whole[[0, -1]] == 7).all()
    for few, many, m in [(f, s, int(rng.choice(sizes))) for f in range(1, 5) for s in sizes]:
        for fan_in, fan_out in ((few, many), (many, few)):
            x, weight = (rng.standard_normal(s) for s in ((m, fan_in), (fan_in, fan_out)))
            bias, grad_out = rng.standard_normal(fan_out), rng.standard_normal((m, fan_out))
            given = dict(x=x, weight=weight, bias=bias, grad_out=grad_out)
            given = {name: a.astype(dtype) for name, a in given.items()}
            given |= dict(alpha=0.5, alpha_x=0.5, scratch=scratch)
            for kernel in (dense.dense_forward, dense.dense_backward, dense.dense_gradient):
                entry = KERNELS[kernel.__name__]
                exact = entry.reference(*(np.array(given[n], float) for n in entry.inputs))
                exact = exact if isinstance(exact, tuple) else (exact,)
                rooms = [np.full((len(e) + 2, *e.shape[1:]), 7, dtype) for e in exact]
                inputs = [n for n in entry.shapes if n not in entry.writes]
                kernel(*(given[n] for n in inputs), *(room[1:-1] for room in rooms))
                for room, right in zip(rooms, exact):
                    close = dict(rtol=0, atol=1e4 * np.finfo(dtype).eps)
                    np.testing.assert_allclose(room[1:-1], right, **close)
                    assert (room[[0, -1]] == 7).all(), (kernel, fan_in, fan_out, m)
for name in [name for name in KERNELS if "2d" in name]:  # of one dtype: compiled for each machine
    dims = dict.fromkeys(d for s in KERNELS[name].shapes.values() for d in s if not d.isdigit())
    for _ in range(30):
        check(name, KERNELS[name], {d: int(rng.integers(1, 14)) for d in dims}, np.float32, rng)
"""


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: nothing is compiled")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the machines are kinds of x86-64")
@pytest.mark.parametrize("machine", MACHINES)
def test_products_on_other_machines(machine):
    """Every vector width and number of registers, by code for other processors."""
    run = subprocess.run(
        [sys.executable, "-c", PRODUCTS],
        env=os.environ | MACHINES[machine],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    bits, rows = map(int, run.stdout.split())
    assert bits == {"128 bits": 128, "256 bits": 256, "AVX2": 256, "SSE2": 128}[machine]
    assert rows == (6 if machine in ("AVX2", "SSE2") else _tile.ROWS)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("role", ["activation", "loss"])
def test_nan_and_inf_stay_visible(role, bad):
    for op in OPS.values():
        if op.role != role:
            continue
        entry = KERNELS[f"{op.name}_forward"]
        sizes = dict.fromkeys((d for dims in entry.shapes.values() for d in dims), 37)
        _, arguments = arguments_of(entry, sizes, np.float32, np.random.default_rng(1))
        x = arguments["x"].reshape(37, -1)
        x[5, -1] = bad
        with np.errstate(all="ignore"):
            entry.run(*(arguments[k] for k in entry.shapes))
            expected = reference_of(entry, arguments)
        for name, values in zip(entry.writes, expected, strict=True):
            got = arguments[name]
            assert np.array_equal(np.isnan(got), np.isnan(values)), f"{op.name} lost a NaN"
            assert np.array_equal(np.isinf(got), np.isinf(values)), f"{op.name} lost an inf"


@pytest.mark.parametrize("dtype", ROUNDING, ids=lambda t: t.__name__)
def test_all_finite_sees_every_place(dtype):
    for size in (1, 7, 16, 33, 1000):
        values = np.full(size, np.finfo(dtype).max, dtype)
        assert all_finite(values)
        for bad in (np.nan, np.inf, -np.inf):
            for place in {0, size // 2, size - 1}:
                spoiled = values.copy()
                spoiled[place] = bad
                with np.errstate(all="ignore"):
                    assert not all_finite(spoiled)


def test_references_know_only_arguments_of_their_kernels():
    for name, entry in KERNELS.items():
        assert set(entry.inputs) <= set(entry.shapes), name
        assert set(entry.writes) <= set(entry.shapes) and entry.writes, name
        assert inspect.getdoc(entry.run), f"{name} has no docstring"


def test_a_kernel_cannot_be_registered_wrongly():
    def double(x, out):
        out[:] = 2 * x

    with pytest.raises(TypeError, match="reference"):
        kernel("x(n) out(n) -> out")(double)
    with pytest.raises(TypeError, match="needs a numpy reference"):
        kernel("x(n) out(n) -> out", reference=None)(double)
    with pytest.raises(TypeError, match="does not match its parameters"):
        kernel("x(n) y(n) -> y", reference=lambda x: 2 * x)(double)
    double.__name__ = "relu_forward"
    with pytest.raises(TypeError, match="registered already"):
        kernel("x(n) out(n) -> out", reference=lambda x: 2 * x)(double)
    assert isinstance(KERNELS["relu_forward"], Kernel)
