"""The matrix product against numpy's BLAS: one thread each, in turns, on the same arrays.

Both are called from Python and write into an array that exists, so each pays for its call.
``python -m benches.bench_gemm`` prints a table; in it a speedup above 1 means that fastnn
is faster.
"""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benches.sample import arguments_of
from benches.timing import interleaved, machine, repeated, speedup
from fastnn.kernels._kernel import KERNELS

# kernel: the form as it is written, and how numpy computes it
FORMS = {
    "matmul": ("a @ b", lambda a, b, out: np.matmul(a, b, out)),
    "matmul_tn": ("a.T @ b", lambda a, b, out: np.matmul(a.T, b, out)),
    "matmul_nt": ("a @ b.T", lambda a, b, out: np.matmul(a, b.T, out)),
}
# (m, k, n): the product is (m, k) times (k, n).
LARGE = [(128, 784, 128), (120, 512, 512), (504, 1024, 1024)]
ODD = [
    *[(300, 2, 64), (300, 64, 3), (10, 784, 30), (128, 128, 10)],
    *[(64, 64, 64), (512, 1024, 1023), (1, 64, 64)],
]
CASES = [
    *[(form, shape, "float32") for shape in LARGE for form in FORMS],
    *[(form, shape, "float64") for shape in LARGE for form in FORMS],
    *[(form, shape, "float32") for shape in ODD for form in FORMS],
]


def calls_of(form, shape, dtype):
    """The two ways to compute a product, after a check that they agree."""
    entry = KERNELS[form]
    arguments = arguments_of(entry, dict(zip("mkn", shape, strict=True)), dtype)
    a, b, scratch, out = arguments.values()
    blas, expected = FORMS[form][1], np.empty_like(out)
    entry.run(a, b, scratch, out)
    blas(a, b, expected)
    allowed = 4 * (shape[1] + 8) * np.finfo(dtype).eps
    np.testing.assert_allclose(out, expected, rtol=0, atol=allowed)
    return {
        "fastnn": lambda: entry.run(a, b, scratch, out),
        "numpy": lambda: blas(a, b, out),
    }


def name_of(case):
    """``matmul-128x784x128-float32``."""
    form, shape, dtype = case
    return f"{form}-{'x'.join(map(str, shape))}-{dtype}"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.benchmark(max_time=0.3)
@pytest.mark.parametrize("path", ["fastnn", "numpy"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_gemm(benchmark, case, path):
    benchmark.group = name_of(case)
    benchmark(calls_of(*case)[path])


def main():
    print(f"{machine()}; one thread")
    print(f"{'':34}{'fastnn':>18}{'numpy':>18}{'speedup':>16}")
    print(
        f"{'m x k x n':18}{'form':9}{'dtype':7}"
        f"{'us':>9}{'GFLOP/s':>9}{'us':>9}{'GFLOP/s':>9}{'best':>8}{'median':>8}"
    )
    for form, shape, dtype in CASES:
        calls = calls_of(form, shape, dtype)
        times = interleaved({name: repeated(call) for name, call in calls.items()}, turn=0.01)
        mine, other = times["fastnn"], times["numpy"]
        flop = 2 * np.prod(shape)
        best, median = speedup(mine, other)
        print(
            f"{' x '.join(map(str, shape)):18}{FORMS[form][0]:9}{dtype:7}"
            f"{mine.min() * 1e6:9.2f}{flop / mine.min() / 1e9:9.1f}"
            f"{other.min() * 1e6:9.2f}{flop / other.min() / 1e9:9.1f}{best:8.2f}{median:8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
