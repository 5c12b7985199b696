"""The compiled backend: hands a plan and the user's arrays to `fastnn.kernels.run`.

Its functions take what those of `fastnn.reference` take. An op is compiled, or
loaded from the cache, when a plan that has it first runs.
"""

from __future__ import annotations

import math
import sys
from typing import Any, ClassVar

import numpy as np

from fastnn._threads import together
from fastnn.kernels import _shares, _team, gather, run
from fastnn.kernels._kernel import JIT
from fastnn.kernels._op import (
    EVALUATE,
    METRIC,
    OP,
    PREDICT,
    RECORDS,
    RULE,
    SOURCE,
    TRAIN,
    Buffers,
    Row,
    address,
    op_of,
    source_dtype,
)
from fastnn.kernels.gemm import SCRATCH
from fastnn.kernels.optimizers import RULES
from fastnn.kernels.penalties import BESIDE
from fastnn.plan import Plan
from fastnn.sources import Source

FEW, HELD = 256, 4e6  # rows on the fast road, and operations: it keeps the interpreter lock
PARTS, SMALL = 4, 1 << 12  # parts of a batch; gradients that all of them together may have
# Whether the interpreter lets one thread in at a time, as the fast road needs.
LOCKED = JIT and getattr(sys, "_is_gil_enabled", lambda: True)()

_GATHER = {"gather_rows": gather.numbers, "gather_labels": gather.labels}
# Compiled code never warns; without the compiler the same code would.
quiet = np.errstate(all="ignore")
UPDATES = [update for update, _ in RULES.values()]


def addressed(plan: Plan, metric: str, weighted: bool, dtype: np.dtype, mode: int) -> np.ndarray:
    """The plan with the addresses of the functions that a mode needs, compiled if need be."""
    key = (metric, weighted, dtype, mode)
    if key not in plan.addressed:
        rows = plan.for_metric(metric, weighted)
        plan.addressed[key] = table([_placed(row, dtype, mode) for row in rows])
    return plan.addressed[key]


def _placed(row: Row, dtype: np.dtype, mode: int) -> Row:
    """The row with the addresses that a mode needs."""
    if not row.when & mode:
        return row
    op, learns = op_of(row), mode == TRAIN and row.layer != METRIC  # a loss may be a metric
    return row._replace(
        forward=address(op.forward, dtype),
        backward=address(op.backward, dtype) if learns and op.backward else 0,
        gradient=address(op.gradient, dtype) if learns and row.trainable else 0,
    )


def table(rows: list[Row]) -> np.ndarray:
    """Rows of a plan as the interpreter reads them."""
    return np.array(rows, OP).view(RECORDS)


def predicting(plan: Plan, dtype: np.dtype) -> np.ndarray:
    """The ops that a prediction runs: a table of its own."""
    rows = addressed(plan, "", False, dtype, PREDICT)
    return rows[rows["when"] & PREDICT != 0]


def place(array: np.ndarray) -> int:
    """Where an array lies in memory."""
    return array.ctypes.data  # __array_interface__ would spell out every field of a record


def records(sources: list[Source], dtype: np.dtype) -> np.ndarray:
    """The sources as the interpreter reads them."""
    # Without the compiler a record must have its own dtype, as no compiled function knows it.
    result = np.empty(len(sources), SOURCE if JIT else object)
    for i, source in enumerate(sources):
        array = source.array
        kind = source_dtype(array.dtype)
        record = (
            address(_GATHER[source.kernel], dtype, kind),
            place(array),
            *array.shape,
            *array.strides,
            source.out,
            source.width,
            source.scale,
            source.offset,
            0,
        )
        result[i] = record if JIT else np.array([record], kind).view(np.recarray)[0]
    return result


def readable(
    sources: list[Source], order: np.ndarray, dtype: np.dtype
) -> tuple[list[Source], np.ndarray]:
    """Sources that compiled code can read, and the row numbers to read them by."""
    if all(source.readable for source in sources):
        return sources, order
    return [source.taken(order, dtype) for source in sources], np.arange(order.size)


def prepared(
    plan: Plan, metric: str, sources: list[Source], buffers: Buffers, order: np.ndarray, mode: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Source]]:
    """Ops, sources and row numbers as the interpreter reads them.

    Whoever calls must keep what comes last until the interpreter is done: the sources have the
    addresses of its arrays.
    """
    dtype = buffers.params.dtype
    sources, order = readable(sources, order, dtype)
    rows = addressed(plan, metric, len(sources) > 2, dtype, mode)
    return rows, records(sources, dtype), order, sources


def parts_of(plan: Plan) -> int:
    """Parts that a batch may be cut into: few weights are cheaper to add up than to share.

    So are those of windows, which meet many values for each of them.
    """
    few = PARTS * plan.size <= max(SMALL, plan.products if plan.packs else 0)
    return PARTS if few and plan.divisible else 1


def equip(rule: np.ndarray, terms: np.ndarray, dtype: np.dtype, *, moves: bool = True) -> None:
    """Tell a rule where its terms lie, and the functions that a step has a use for.

    Those are compiled if need be; where nothing moves, only what changes gradients. Whoever calls
    must keep the terms.
    """
    rule["terms"], rule["terms_count"] = place(terms), len(terms)
    uses = dict.fromkeys(BESIDE, False)
    if len(terms):
        uses["weigh"] = uses["penalize"] = some(terms, "l1", "l2")
        uses["penalize"] |= some(rule, "clip_value")
        uses["limit"] = uses["rescale"] = some(rule, "clip_norm", "global_clip_norm")
        uses["constrain"] = some(terms, "max_norm", "non_negative")
    uses["average"] = rule["ema"][0] >= 0
    for name, used in uses.items():
        used &= moves or name == "penalize"
        rule[name] = address(BESIDE[name], dtype, RULE) if used else 0
    if moves:
        rule["update"] = address(UPDATES[rule["kind"][0]], dtype, RULE)


def some(records: np.ndarray, *names: str) -> bool:
    """Whether any record has anything but 0 in any of these fields."""
    return any(records[name].any() for name in names)


@quiet
def gradients(
    plan: Plan,
    metric: str,
    rule: np.ndarray,
    terms: np.ndarray,
    sources: list[Source],
    buffers: Buffers,
    capacity: int,
    order: np.ndarray,
    threads: int,
) -> None:
    """As `fastnn.kernels.run.gradients`."""
    rows, sources_at, order, _arrays = prepared(plan, metric, sources, buffers, order, TRAIN)
    equip(rule, terms, buffers.params.dtype, moves=False)
    rule = rule.view(RECORDS)
    together(threads, run.gradients, rows, rule, sources_at, buffers, capacity, order)


@quiet
def train(
    plan: Plan,
    metric: str,
    rule: np.ndarray,
    terms: np.ndarray,
    sources: list[Source],
    buffers: Buffers,
    capacity: int,
    order: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    rates: np.ndarray,
    losses: np.ndarray,
    metrics: np.ndarray,
    penalties: np.ndarray,
    shares: np.ndarray,
) -> int:
    """As `fastnn.kernels.run.train`, by as many threads as have shares.

    Parameters that are not finite are found here, once for all batches of a call.
    """
    rows, sources_at, order, _arrays = prepared(plan, metric, sources, buffers, order, TRAIN)
    equip(rule, terms, buffers.params.dtype)
    rule, threads = rule.view(RECORDS), shares.shape[1] - 1
    good = np.ones(threads, np.int64)
    done = together(
        threads, run.train, rows, rule, rule.repeat(threads), sources_at, buffers, capacity,
        plan.first, parts_of(plan), order, starts, stops, rates, losses, metrics, penalties,
        shares, good,
    )  # fmt: skip
    # A loss that is not finite may come of parameters that were not, after the batch before.
    return done if good.all() else max(done - 1, 0)


class Ready:
    """`train` for the first rows of the same arrays again and again, a batch a call, one thread.

    Everything is prepared once. ``rates`` is an array of one learning rate.
    """

    def __init__(
        self,
        plan: Plan,
        metric: str,
        rule: np.ndarray,
        terms: np.ndarray,
        sources: list[Source],
        buffers: Buffers,
        capacity: int,
        rates: np.ndarray,
    ) -> None:
        dtype = buffers.params.dtype
        self.rule, self.terms, self.good = rule, terms, np.ones(1, np.int64)
        equip(rule, terms, dtype)
        self.stops, self.scores = np.zeros(1, np.int64), np.zeros((3, 1))
        team = np.zeros(_team.TEAM, np.int64)
        team[_team.WANTED] = 1
        own: Any = rule.view(RECORDS)
        self.arguments = (
            addressed(plan, metric, False, dtype, TRAIN), own, own, records(sources, dtype),
            buffers, capacity, plan.first, parts_of(plan),
            np.arange(capacity), np.zeros(1, np.int64), self.stops, rates, *self.scores,
            _shares.even(1), self.good, team, 0,
        )  # fmt: skip

    def __call__(self, rows: int, scores: np.ndarray) -> int:
        """Whether the step went well; ``scores`` as in `train`, (3, 1)."""
        # Compiled code that trains the network brings terms of its own.
        self.rule["terms"], self.rule["terms_count"] = place(self.terms), len(self.terms)
        self.stops[0] = rows
        done = run.train(*self.arguments)
        scores[...] = self.scores
        return done if self.good[0] else 0


@quiet
def evaluate(
    plan: Plan,
    metric: str,
    sources: list[Source],
    buffers: Buffers,
    capacity: int,
    order: np.ndarray,
    threads: int,
) -> tuple[float, float]:
    """As `fastnn.kernels.run.evaluate`, with the sums of all blocks added up."""
    rows, sources_at, order, _arrays = prepared(plan, metric, sources, buffers, order, EVALUATE)
    sums = np.zeros((2, -(-order.size // capacity)))
    room = capacity * plan.row_size
    together(threads, run.evaluate, rows, sources_at, buffers, capacity, room, order, *sums)
    return math.fsum(sums[0]), math.fsum(sums[1])


@quiet
def predict(
    plan: Plan,
    sources: list[Source],
    buffers: Buffers,
    capacity: int,
    order: np.ndarray,
    out: np.ndarray,
    threads: int,
    key: int = 0,
) -> bool:
    """As `fastnn.kernels.run.predict`; whether all that went in was finite."""
    rows, sources_at, order, _arrays = prepared(plan, "", sources, buffers, order, PREDICT)
    room, good = capacity * plan.row_size, np.zeros(threads, np.int64)
    call = rows, sources_at, buffers, capacity, room, order, plan.out, key, out, good
    return bool(good[: together(threads, run.predict, *call)].all())


class Few:
    """The fast road for few rows; ``Few(...)(x)`` gives what the network says, or None.

    None where the rows are too many or no array of float32 or float64, or hold what is no finite
    number: the general road takes them, or explains.
    """

    # One for all networks: they belong to whoever has the interpreter lock.
    work: ClassVar[dict[np.dtype, np.ndarray]] = {}
    scratch: ClassVar[dict[np.dtype, np.ndarray]] = {}

    def __init__(self, plan: Plan, params: np.ndarray) -> None:
        fitting = int(HELD / (2 * plan.products + 8 * plan.row_size))  # an activation is some eight
        self.most = max(16, min(FEW, fitting // 16 * 16))
        self.dtype, self.fan_in, self.fan_out = params.dtype, (plan.fan_in,), plan.fan_out
        rows = predicting(plan, self.dtype)
        work = self.work.get(self.dtype)
        if work is None or work.size < self.most * plan.row_size:
            work = self.work[self.dtype] = np.zeros(self.most * plan.row_size, self.dtype)
        # Two threads may come at once; only one's array is kept, and both must take its address.
        scratch = self.scratch.setdefault(self.dtype, np.zeros(SCRATCH, self.dtype))
        desk = np.zeros(run.DESK, np.int64)
        for slot, array in (
            (run.OPS_AT, rows),
            (run.PARAMS_AT, params),
            (run.WORK_AT, work),
            (run.SCRATCH_AT, scratch),
        ):
            desk[slot] = place(array)
        desk[run.OPS_COUNT], desk[run.CAPACITY], desk[run.RESULT] = len(rows), self.most, plan.out
        self.desk = place(desk)
        self.alive = (desk, rows, params, work, scratch)

    def __call__(self, x: np.ndarray) -> np.ndarray | None:
        """Outputs (n, fan_out), or None."""
        rows = len(x) if x.ndim else 0
        if not 0 < rows <= self.most or x.shape[1:] != self.fan_in:
            return None
        if x.dtype is not self.dtype or not x.flags.carray:
            x = self._rounded(x)
            if x is None:
                return None
        out = np.empty((rows, self.fan_out), self.dtype)
        return out if run.predict_few(self.desk, x, out) else None

    def row(self, x: np.ndarray) -> np.ndarray | None:
        """Outputs (fan_out,) for a single row, or None."""
        if x.shape != self.fan_in:
            return None
        if x.dtype is not self.dtype or not x.flags.carray:
            x = self._rounded(x)
            if x is None:
                return None
        out = np.empty(self.fan_out, self.dtype)
        return out if run.predict_few(self.desk, x[None], out[None]) else None

    @quiet
    def _rounded(self, x: np.ndarray) -> Any:
        """Numbers of the network's dtype, as the general road reads them; None of other kinds."""
        return np.array(x, self.dtype, order="C") if x.dtype.char in "fd" else None
