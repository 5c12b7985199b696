"""Fill the cache of compiled code ahead of time: in an image, on a server, before a lesson."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import fastnn as fnn
from fastnn.kernels import _cache, desk, gather
from fastnn.kernels._op import OPS, RULE, address, source_dtype
from fastnn.kernels.optimizers import RULES
from fastnn.kernels.penalties import BESIDE

__all__ = ["kept", "steps"]

_INPUTS = ("float32", "float64", "uint8", "int64")  # dtypes of data that people have
_LABELS = ("int64", "int32", "uint8")


def steps(dtypes: Iterable[str]) -> Iterator[tuple[str, Callable[[], object]]]:
    """What there is to compile: pairs of a name and a function that does it.

    Parameters
    ----------
    dtypes : iterable of str
        Of the networks: ``float32``, ``float64``.

    Examples
    --------
    >>> from fastnn.warmup import steps
    >>> names = [name for name, compile_it in steps(["float32"])]
    >>> "float32 dense" in names, "float64 dense" in names
    (True, False)
    """
    for name in dtypes:
        dtype = np.dtype(name)
        for op in OPS.values():
            for function in filter(None, (op.forward, op.backward, op.gradient)):
                yield f"{name} {op.name}", partial(address, function, dtype)
        for rule, (update, _) in RULES.items():
            yield f"{name} {rule}", partial(address, update, dtype, RULE)
        for beside, function in BESIDE.items():
            yield f"{name} {beside}", partial(address, function, dtype, RULE)
        for function, kinds in ((gather.numbers, _INPUTS), (gather.labels, _LABELS)):
            for kind in kinds:
                record = source_dtype(np.dtype(kind))
                yield f"{name} data of {kind}", partial(address, function, dtype, record)
        for function in (desk.look, desk.back, desk.learn):
            yield f"{name} in compiled code", partial(address, function, dtype, desk.DESK)
        yield f"{name} the rest", partial(_use, name)


def _use(dtype: str) -> None:
    """Whatever else a network runs, by running it."""
    x, y = fnn.datasets.xor()
    net = fnn.Network([fnn.Dense(1)], input_shape=(2,), loss="mse", dtype=dtype, seed=0)
    x = x.astype(dtype)
    net.fit(x, y, verbose=0)
    net.evaluate(x, y), net.gradients(x, y)
    net.predict(x), net.predict(x)  # the second takes the fast road


def kept() -> tuple[Path | None, int]:
    """Folder of the cache, and how many functions it holds."""
    place = _cache.folder()
    return place, 0 if place is None else len(list(place.glob(f"*{_cache.SUFFIX}")))
