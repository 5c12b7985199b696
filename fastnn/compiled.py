"""The compiled backend: hands a plan and the user's arrays to `fastnn.kernels.run`.

Its functions take what those of `fastnn.reference` take. An op is compiled, or
loaded from the cache, when a plan that has it first runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.kernels import gather, run
from fastnn.kernels._op import EVALUATE, PREDICT, SOURCE, TRAIN, address
from fastnn.kernels.optimizers import RULES
from fastnn.plan import OPS_BY_KIND
from fastnn.sources import Source

_GATHER = {"gather_rows": gather.numbers, "gather_labels": gather.labels}
_UPDATES = [update for update, _ in RULES.values()]


def addressed(plan: np.recarray, dtype: np.dtype, mode: int) -> np.recarray:
    """The plan with the addresses of the functions that this mode needs, compiled if need be."""
    plan = plan.copy()
    for row in plan:
        if not row.when & mode:
            continue
        op = OPS_BY_KIND[row.kind]
        row.forward = address(op.forward, dtype)
        if mode == TRAIN:
            row.backward = address(op.backward, dtype) if op.backward else 0
            row.gradient = address(op.gradient, dtype) if op.gradient else 0
    return plan


def records(sources: list[Source], dtype: np.dtype) -> np.recarray:
    """The sources as the interpreter reads them."""
    table = np.zeros(len(sources), SOURCE).view(np.recarray)
    for row, source in zip(table, sources, strict=True):
        array = source.array
        # The type of the record carries the dtype of the array to the compiler.
        typed = np.dtype([*SOURCE.descr, ("item", array.dtype)], align=True)
        row.gather = address(_GATHER[source.kernel], dtype, typed)
        row.data = array.__array_interface__["data"][0]
        row.rows, row.columns = array.shape
        row.row_stride, row.column_stride = array.strides
        row.out, row.width = source.out, source.width
        row.scale, row.offset = source.scale, source.offset
    return table


def readable(
    sources: list[Source], order: np.ndarray, dtype: np.dtype
) -> tuple[list[Source], np.ndarray]:
    """Sources that compiled code can read, and the row numbers to read them by."""
    if all(source.readable for source in sources):
        return sources, order
    return [source.taken(order, dtype) for source in sources], np.arange(order.size)


def gradients(
    plan: np.recarray, sources: list[Source], buffers: Any, capacity: int, order: np.ndarray
) -> tuple[float, float]:
    """As `fastnn.kernels.run.gradients`."""
    dtype = buffers.params.dtype
    sources, order = readable(sources, order, dtype)
    rows = addressed(plan, dtype, TRAIN)
    return run.gradients(rows, records(sources, dtype), buffers, capacity, order)


def train(
    plan: np.recarray,
    rule: np.recarray,
    sources: list[Source],
    buffers: Any,
    capacity: int,
    first: int,
    order: np.ndarray,
    *batches: np.ndarray,
) -> int:
    """As `fastnn.kernels.run.train`."""
    dtype = buffers.params.dtype
    sources, order = readable(sources, order, dtype)
    rows = addressed(plan, dtype, TRAIN)
    rule.update = address(_UPDATES[rule.kind[0]], dtype, rule.dtype)
    table = records(sources, dtype)
    return run.train(rows, rule, table, buffers, capacity, first, order, *batches)


def evaluate(
    plan: np.recarray, sources: list[Source], buffers: Any, capacity: int, order: np.ndarray
) -> tuple[float, float]:
    """As `fastnn.kernels.run.evaluate`."""
    dtype = buffers.params.dtype
    sources, order = readable(sources, order, dtype)
    rows = addressed(plan, dtype, EVALUATE)
    return run.evaluate(rows, records(sources, dtype), buffers, capacity, order)


def predict(
    plan: np.recarray,
    sources: list[Source],
    buffers: Any,
    capacity: int,
    order: np.ndarray,
    offset: int,
    out: np.ndarray,
) -> None:
    """As `fastnn.kernels.run.predict`."""
    dtype = buffers.params.dtype
    sources, order = readable(sources, order, dtype)
    rows = addressed(plan, dtype, PREDICT)
    run.predict(rows, records(sources, dtype), buffers, capacity, order, offset, out)
