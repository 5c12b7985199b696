"""Arguments of a kernel, made from its signature."""

import numpy as np

from fastnn.kernels._kernel import Kernel


def aligned(shape, dtype):
    """Memory that begins on a cache line, as the buffers of a network do."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def sizes_of(entry: Kernel, values: int) -> dict[str, int]:
    """One size for all dimensions, such that the largest array holds about so many values."""
    dims = [tuple(d for d in shape if not d.isdigit()) for shape in entry.shapes.values()]
    side = round(values ** (1 / max(map(len, dims))))
    return {name: side for shape in dims for name in shape}


def arguments_of(entry: Kernel, sizes: dict[str, int], dtype) -> dict:
    """Arguments by name: normal random numbers, or what the kernel's domain makes of them."""
    rng = np.random.default_rng(0)
    arguments = {}
    for name, dims in entry.shapes.items():
        if dims:
            shape = [int(d) if d.isdigit() else sizes[d] for d in dims]
            arguments[name] = aligned(shape, dtype)
            arguments[name][...] = rng.standard_normal(shape)
        else:
            arguments[name] = 0.1
    return arguments if entry.sample is None else entry.sample(arguments, rng)
