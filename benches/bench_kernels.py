"""Every registered kernel and its numpy reference: a new kernel is benched at once.

``pytest benches/bench_kernels.py --benchmark-enable -k "float32 and large"``
"""

import pytest

from benches.sample import arguments_of, sizes_of
from fastnn.kernels._kernel import KERNELS

VALUES = {"small": 32 * 32, "large": 512 * 512}  # in the largest array


@pytest.mark.usefixtures("one_thread")
@pytest.mark.benchmark(max_time=0.1)
@pytest.mark.parametrize("path", ["compiled", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", VALUES)
@pytest.mark.parametrize("name", KERNELS)
def test_kernel(benchmark, name, size, dtype, path):
    entry = KERNELS[name]
    arguments = arguments_of(entry, sizes_of(entry, VALUES[size]), dtype)
    if path == "compiled":
        call, given = entry.run, list(arguments.values())
    else:
        call, given = entry.reference, [arguments[name] for name in entry.inputs]
    benchmark.group = f"{name}-{size}-{dtype}"
    call(*given)  # compiles
    benchmark(call, *given)
