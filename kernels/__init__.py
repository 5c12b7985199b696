"""Numba kernels of fastnn, each beside its numpy reference. Import as ``fastnn.kernels``.

Read in this order: ``dense``, ``activations``, ``rectifiers``, ``losses``, ``cross_entropies``,
``likelihoods``, ``metrics``, ``convolution``,
``pooling``, ``optimizers``, ``adam`` (what is computed), ``run`` (in what
order), ``_op`` and ``_kernel`` (how an op finds its arrays and a kernel its reference), ``gemm``,
``_tile``, ``_narrow``, ``_lanes`` and ``_halves`` (why it is fast).

The contract of every kernel: outputs come last, are given, C-contiguous, and
are overwritten; inputs are never touched; only optimizers write in place, and
their signature shows it. Nothing is allocated in a loop and nothing is raised:
shapes are checked once, in Python. One floating dtype per call.
"""

if __name__ != "fastnn.kernels":
    raise ImportError(
        f"import fastnn.kernels, not {__name__}: a second copy would register every kernel twice"
    )

# Where nobody has imported numba yet, it is imported from here, not from the end of a longer chain:
# CPython 3.11 keeps frames in pieces of 16 KB, and a loop that runs at the border of two asks the
# system for the next piece at every call. numba fills its table of casts 0.1 s slower there.
import numba  # noqa: F401

from . import (
    activations,
    adam,
    convolution,
    cross_entropies,
    dense,
    elementary,
    embedding,
    gather,
    gemm,
    likelihoods,
    losses,
    metrics,
    noise,
    normalization,
    optimizers,
    penalties,
    pooling,
    rectifiers,
    run,
)

__all__ = [
    "activations",
    "adam",
    "convolution",
    "cross_entropies",
    "dense",
    "elementary",
    "embedding",
    "gather",
    "gemm",
    "likelihoods",
    "losses",
    "metrics",
    "noise",
    "normalization",
    "optimizers",
    "penalties",
    "pooling",
    "rectifiers",
    "run",
]
