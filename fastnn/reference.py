"""The same plan in plain numpy: every kernel replaced by its reference formula.

Slow, short, and the judge of the compiled path in every test. It takes what
the compiled backend (`fastnn.compiled`) takes and does the same, one op
at a time and in one thread. A formula finds its arrays by name: ``weight`` lies in ``params``,
``grad_weight`` at the same place in ``grads``; ``x`` in ``work``, ``grad_x``
at the same place in ``grad_work``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastnn.kernels._kernel import KERNELS, Kernel
from fastnn.kernels._op import EVALUATE, LOSS, METRIC, PREDICT, TRAIN, Row, op_of
from fastnn.kernels.noise import key_of
from fastnn.kernels.optimizers import RULES
from fastnn.plan import Plan

RULE_NAMES = list(RULES)
_PARAMS = ("weight", "bias", "running_mean", "running_var")
_ROWS = ("x", "out", "prob", "target", "kept", "sample_weight")
# Formulas may meet log(0) or exp(1000): the result is inf or NaN, in both paths, and is found
# by the check for it, so numpy need not warn as well.
quiet = np.errstate(all="ignore")


class Batch(NamedTuple):
    """What the formulas of one batch read and write."""

    buffers: Any
    size: int
    capacity: int
    key: int = 0
    learning: bool = False

    def array(self, row: Any, name: str, dims: tuple[str, ...]) -> Any:
        """The array or number that a kernel of this plan row knows by this name."""
        if not dims:
            if name == "momentum" and not self.learning:
                return 1.0
            own = {"key": self.key, "stream": row.out, "first": 0, "last": row.fan_in}
            return own[name] if name in own else getattr(row, name)
        field = name.removeprefix("grad_")
        width = row.fan_out if field == "out" else row.fan_in
        each = width if field == "out" else width // op_of(row).per_target
        sizes = {"batch": self.size, "n": each}
        shape = [int(d) if d.isdigit() else sizes.get(d) or getattr(row, d) for d in dims]
        if dims == ("n",):
            shape = [self.size * width]
        if field in _PARAMS:
            start = getattr(row, field)
            if field == "bias" and row.tail == 0:
                return np.zeros(shape)  # the layer has none
            buffer = self.buffers.params if name == field else self.buffers.grads
        elif field in _ROWS:
            start = getattr(row, field) * self.capacity
            buffer = self.buffers.work if name == field else self.buffers.grad_work
        else:
            raise KeyError(f"no array of the plan is called {name}")
        return buffer[start : start + math.prod(shape)].reshape(shape)


class Call(NamedTuple):
    """A kernel that is to be called now: for which row of the plan or place in ``params``."""

    place: Any
    kernel: Kernel
    arrays: dict[str, Any]  # and numbers, by the names of the kernel's arguments


def call(kernel: Kernel, arrays: dict[str, Any]) -> None:
    """Read a kernel's inputs, call its reference, write its outputs."""
    results = kernel.reference(**{name: arrays[name] for name in kernel.inputs})
    for name, result in zip(
        kernel.writes, results if isinstance(results, tuple) else (results,), strict=True
    ):
        arrays[name][...] = result


def make(calls: Iterator[Call]) -> None:
    """Make calls one after another; some are only known when those before them are made."""
    for each in calls:
        call(each.kernel, each.arrays)


def parts(part: str, rows: Iterable[Any], batch: Batch) -> Iterator[Call]:
    """The ``forward``, ``backward`` or ``gradient`` of those ops that have one."""
    for row in rows:
        kernel = KERNELS.get(f"{op_of(row).name}_{part}")
        if kernel is not None and (part != "gradient" or row.trainable):
            names = [*kernel.inputs, *kernel.writes]
            arrays = {name: batch.array(row, name, kernel.shapes[name]) for name in names}
            yield Call(row, kernel, arrays)


def gather(sources: Any, batch: Batch, order: np.ndarray) -> None:
    """Bring a batch of every source into the work buffer."""
    for source in sources:
        start = source.out * batch.capacity
        out = batch.buffers.work[start : start + batch.size * source.width]
        arrays = source.arrays(order) | {"out": out.reshape(batch.size, source.width)}
        call(KERNELS[source.kernel], arrays)


def forward(plan: list[Row], batch: Batch, mode: int) -> None:
    """Every op in turn."""
    make(parts("forward", [row for row in plan if row.when & mode], batch))


def scores(plan: list[Row], batch: Batch) -> tuple[float, float]:
    """Sum over the batch of the loss and of the metric, in float64."""
    sums = [0.0, 0.0]
    for row in plan:
        if row.layer < 0:
            values = batch.array(row, "out", ("batch",))
            sums[0 if row.layer == LOSS else 1] = float(values.sum(dtype=np.float64))
    return sums[0], sums[1]


def differentiate(
    plan: list[Row], sources: Any, batch: Batch, order: np.ndarray, first: int
) -> tuple[float, float]:
    """Loss, metric and all gradients of one batch; gradients of ``work`` down to op ``first``."""
    gather(sources, batch, order)
    make(passes(plan, batch, first))
    return scores(plan, batch)


def passes(plan: list[Row], batch: Batch, first: int) -> Iterator[Call]:
    """Every op forward, then backward down to op ``first``, then the gradients of parameters."""
    yield from parts("forward", [row for row in plan if row.when & TRAIN], batch)
    for row in plan:
        if row.layer == LOSS:
            batch.array(row, "grad_out", ("batch",))[...] = 1 / batch.size
    # A loss may be the metric, too.
    learnt = [row for row in plan[first:] if row.when & TRAIN and row.layer != METRIC]
    yield from parts("backward", learnt[::-1], batch)
    yield from parts("gradient", plan, batch)


@quiet
def gradients(
    plan: Plan,
    metric: str,
    rule: np.ndarray,
    terms: np.ndarray,
    sources: Any,
    buffers: Any,
    capacity: int,
    order: np.ndarray,
    threads: int = 1,
) -> None:
    """As `fastnn.compiled.gradients`."""
    batch = Batch(buffers, order.size, capacity, key_of(*rule[["seed", "step"]][0]))
    differentiate(plan.for_metric(metric, len(sources) > 2), sources, batch, order, 0)
    make(adjust(terms, rule, buffers))


@quiet
def train(
    plan: Plan,
    metric: str,
    rule: np.ndarray,
    terms: np.ndarray,
    sources: Any,
    buffers: Any,
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
    """As `fastnn.compiled.train`."""
    ops = plan.for_metric(metric, len(sources) > 2)
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        key = key_of(*rule[["seed", "step"]][0])
        batch = Batch(buffers, int(stop - start), capacity, key, learning=True)
        rows = order[start:stop]
        penalties[i] = penalty(terms, buffers) * batch.size
        losses[i], metrics[i] = differentiate(ops, sources, batch, rows, plan.first)
        if not np.isfinite(losses[i]):
            return i
        rule["step"] += 1
        rule["learning_rate"] = rates[i]
        make(adjust(terms, rule, buffers))
        make(update(rule, plan, buffers))
        make(constrain(terms, buffers))
        make(average(rule, plan, buffers))
        if not np.isfinite(buffers.params).all():
            return i
    return len(starts)


def views(terms: np.ndarray, buffers: Any) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Each term with its parameters and gradients, (rows, columns)."""
    for term in terms.view(np.recarray):
        place = slice(int(term.start), int(term.start + term.rows * term.columns))
        shape = int(term.rows), int(term.columns)
        yield term, buffers.params[place].reshape(shape), buffers.grads[place].reshape(shape)


def penalty(terms: np.ndarray, buffers: Any) -> float:
    """Sum of all penalties, in float64."""
    total = 0.0
    for term, param, _ in views(terms, buffers):
        wide = param.astype(np.float64)
        total += term.l1 * np.abs(wide).sum() + term.l2 * (wide**2).sum()
    return float(total)


def adjust(terms: np.ndarray, rules: np.ndarray, buffers: Any) -> Iterator[Call]:
    """Penalties and limits: what comes to the gradients before the update."""
    rule, lengths = rules.view(np.recarray)[0], []
    for term, param, grad in views(terms, buffers):
        amounts = {"l1": term.l1, "l2": term.l2, "limit": rule.clip_value}
        if any(amounts.values()):
            arrays = {"param": param, "grad": grad} | amounts
            yield Call(term.start, KERNELS["penalty_step"], arrays)
        lengths.append(np.sqrt((grad.astype(np.float64) ** 2).sum()))
    whole = np.sqrt(np.square(lengths).sum())
    for length, (term, _, grad) in zip(lengths, views(terms, buffers), strict=True):
        for size, most in ((length, rule.clip_norm), (whole, rule.global_clip_norm)):
            if 0 < most < size:
                arrays = {"grad": grad, "factor": most / size}
                yield Call(term.start, KERNELS["rescale_step"], arrays)


def constrain(terms: np.ndarray, buffers: Any) -> Iterator[Call]:
    """Cut the weights to what is allowed."""
    for term, param, _ in views(terms, buffers):
        limits = {"max_norm": term.max_norm, "non_negative": term.non_negative}
        if any(limits.values()):
            yield Call(term.start, KERNELS["constraint_step"], {"param": param} | limits)


def update(rules: np.ndarray, plan: Plan, buffers: Any) -> Iterator[Call]:
    """One step of the optimizer, for every array that is trained."""
    rule = rules.view(np.recarray)[0]
    name = RULE_NAMES[rule.kind]
    kernel, vectors = KERNELS[f"{name}_step"], RULES[name][1]
    size = buffers.params.size
    memory = buffers.state[: vectors * size].reshape(vectors, size)
    for parameter in plan.parameters:
        if parameter.trainable:
            arrays: dict[str, Any] = {
                "param": parameter.of(buffers.params),
                "grad": parameter.of(buffers.grads),
            }
            rest = iter(memory)
            for name, dims in kernel.shapes.items():
                if name not in arrays:
                    arrays[name] = parameter.of(next(rest)) if dims else rule[name]
            yield Call(parameter.offset, kernel, arrays)


def average(rules: np.ndarray, plan: Plan, buffers: Any) -> Iterator[Call]:
    """Move the average of the weights towards them, where there is one."""
    rule = rules.view(np.recarray)[0]
    if rule.ema < 0:
        return
    keep = min(rule.ema, (1 + rule.step) / (10 + rule.step))
    averages = buffers.state[rule.average_at :]
    for parameter in plan.parameters:
        if parameter.trainable:
            arrays = {"param": parameter.of(buffers.params), "average": parameter.of(averages)}
            yield Call(parameter.offset, KERNELS["average_step"], arrays | {"keep": keep})


def blocks(order: np.ndarray, buffers: Any, capacity: int, key: int = 0) -> Any:
    """Batches of at most ``capacity`` rows, with their row numbers."""
    for start in range(0, order.size, capacity):
        rows = order[start : start + capacity]
        yield start, rows, Batch(buffers, rows.size, capacity, key_of(key, start))


@quiet
def evaluate(
    plan: Plan,
    metric: str,
    sources: Any,
    buffers: Any,
    capacity: int,
    order: np.ndarray,
    threads: int = 1,
) -> tuple[float, float]:
    """As `fastnn.compiled.evaluate`."""
    ops = plan.for_metric(metric, len(sources) > 2)
    sums = np.zeros(2)
    for _, rows, batch in blocks(order, buffers, capacity):
        gather(sources, batch, rows)
        forward(ops, batch, EVALUATE)
        sums += scores(ops, batch)
    return float(sums[0]), float(sums[1])


@quiet
def predict(
    plan: Plan,
    sources: Any,
    buffers: Any,
    capacity: int,
    order: np.ndarray,
    out: np.ndarray,
    threads: int = 1,
    key: int = 0,
) -> bool:
    """As `fastnn.compiled.predict`."""
    width, good = out.shape[1], True
    for start, rows, batch in blocks(order, buffers, capacity, key):
        gather(sources, batch, rows)
        good &= bool(np.isfinite(batch.buffers.work[: rows.size * plan.fan_in]).all())
        forward(plan.rows, batch, PREDICT)
        result = buffers.work[plan.out * capacity :][: rows.size * width]
        out[start : start + rows.size] = result.reshape(rows.size, width)
    return good
