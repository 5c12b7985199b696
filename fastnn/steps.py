"""Steps of training: many in one call, or one at a time."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import compiled
from fastnn.kernels._kernel import JIT
from fastnn.kernels._op import TRAIN, op_of
from fastnn.kernels._shares import balance
from fastnn.kernels.optimizers import all_finite
from fastnn.sources import Source
from fastnn.training import Slice

if TYPE_CHECKING:
    from fastnn.network import Network

__all__ = ["Pair", "Steps", "capacity_of"]

Pair = list[Source]  # inputs, targets and, where there are some, weights
_LOOKED_AT = 1e8  # bytes a second: a hundredth of what memory gives


def capacity_of(rows: int) -> int:
    """Rows of room, a multiple of 16, so that every region begins on a cache line."""
    return -(-rows // 16) * 16


class Steps:
    """Takes steps for a network: its plan, its buffers and who works on them.

    Parameters
    ----------
    network : Network
    rows : int
        Of a batch, at most; more room is made where it is needed.
    """

    def __init__(self, network: Network, rows: int) -> None:
        self.network: Any = weakref.proxy(network)  # which may keep these steps
        self.terms = network._terms(network._rule)
        self.settings: tuple[Any, ...] = ()  # that the steps of `train_on_batch` follow
        self.unseen = 0.0  # seconds of steps since the optimizer's memory was looked at
        self._make_room(rows)

    def _make_room(self, rows: int) -> None:
        self.again: Again | None = None
        self.capacity = capacity_of(rows)
        self.crew = self.network._crew_for(self.capacity)
        self.buffers = self.network._training_buffers(self.capacity, self.crew.most)

    def take(self, pair: Pair, piece: Slice, rates: np.ndarray, scores: np.ndarray) -> int:
        """Train on the batches of a slice; how many went well."""
        network = self.network
        most = int((piece.stops - piece.starts).max(initial=1))
        if most > self.capacity:
            self._make_room(most)
        batches = (piece.order, piece.starts, piece.stops, rates, *scores)
        shares, began = self.crew.shares, time.perf_counter()
        done = network._engine().train(
            network.plan, network._metric_op(pair), network._rule, self.terms, pair,
            self.buffers, self.capacity, *batches, shares,
        )  # fmt: skip
        if len(piece.starts):
            self.crew.learn(len(piece.starts), time.perf_counter() - began)
            balance(shares)
        return done

    def step(self, pair: Pair, piece: Slice, scores: np.ndarray) -> int:
        """As `take`, at the optimizer's learning rates; an overflow of its memory is found, too.

        A squared gradient that is infinite would make a parameter stand still, no more. The
        memory is looked at as often as costs some hundredth of the time: where it is not large,
        always.
        """
        network, count, began = self.network, len(piece.starts), time.perf_counter()
        rates = network.optimizer.rates(int(network._rule["step"][0]), count)
        done = self.take(pair, piece, rates, scores)
        return done if done < count or self._bearable(began) else done - 1

    def step_again(self, rows: int, scores: np.ndarray) -> int:
        """As `step`, with the rows that `again` has taken over."""
        network, began = self.network, time.perf_counter()
        assert self.again is not None
        self.again.rates[:] = network.optimizer.rates(int(network._rule["step"][0]), 1)
        done = self.again.train(rows, scores)
        return 1 if done and self._bearable(began) else 0

    def _bearable(self, began: float) -> bool:
        """Whether the optimizer's memory is finite after a step, as far as it is looked at."""
        state = self.network._state
        self.unseen += time.perf_counter() - began
        if state.nbytes >= self.unseen * _LOOKED_AT:
            return True
        self.unseen = 0.0
        with np.errstate(invalid="ignore"):  # without the compiler there would be a warning
            return bool(all_finite(state))

    def remember(self, pair: Pair) -> None:
        """Be ready for more batches of this kind, if one thread is to take their steps."""
        labels, network = pair[1].kernel == "gather_labels", self.network
        if self.again is not None and self.again.labels == labels:
            return
        known = labels or network._loss.op.targets == "numbers"  # all that must be looked at
        one = network.backend == "compiled" and JIT and self.crew.first == 1
        self.again = Again(self, pair) if one and known and len(pair) == 2 else None

    def compile(self, pair: Pair) -> None:
        """Compile, or load, what a step needs, by taking none."""
        key = (self.network._metric_op(pair), len(pair) > 2, self.network.dtype, TRAIN)
        if key not in self.network.plan.addressed:
            none = np.empty(0, np.int64)
            self.take(pair, Slice(none, none, none, False), np.empty(0), np.empty((3, 0)))

    def first_bad(self, finite_loss: bool) -> str:
        """Where the first number lies that is not finite, in the order of the computation."""
        network, plan = self.network, self.network.plan
        if not finite_loss:
            for row in plan.rows:
                start = row.out * self.capacity
                values = self.buffers.work[start : start + row.fan_out * self.capacity]
                if row.layer >= 0 and not np.isfinite(values).all():  # else it is the loss itself
                    name, layer = op_of(row).name, network.layers[row.layer]
                    return f"the output of {name} in layer {row.layer}, {layer!r}, is not finite"
            return "the loss is not finite"
        params, memory = network._params[None], network._state.reshape(-1, plan.size)
        for what, rows in (("", params), ("the optimizer's memory of ", memory)):
            for p in plan.parameters:
                if not np.isfinite(rows[:, p.offset : p.offset + p.size]).all():
                    layer = network.layers[p.layer]
                    return f"{what}{p.name} of layer {p.layer}, {layer!r}, is not finite"
        raise AssertionError("everything is finite")


class Again:
    """One step after another on few rows, with everything prepared but the rows.

    For loops that take small steps from Python, where the call costs more than the network. Rows
    are copied to where compiled code expects them.

    Parameters
    ----------
    steps : Steps
        That have taken one.
    pair : list of Source
        With which they have.
    """

    def __init__(self, steps: Steps, pair: Pair) -> None:
        network, plan, (x, y) = steps.network, steps.network.plan, pair
        self.in_shape, self.check = plan.in_shape, network.layers[0].check
        self.labels, self.classes = y.kernel == "gather_labels", y.width
        columns, kind = (1, np.dtype(np.int64)) if self.labels else (y.width, network.dtype)
        self.x = np.zeros((steps.capacity, plan.fan_in), network.dtype)
        self.y = np.zeros((steps.capacity, columns), kind)
        self.pair = [x._replace(array=self.x), y._replace(array=self.y)]
        self.rates, metric = np.zeros(1), network._metric_op(pair)
        self.train = compiled.Ready(
            plan, metric, network._rule, steps.terms, self.pair, steps.buffers, steps.capacity,
            self.rates,
        )  # fmt: skip

    @compiled.quiet
    def bring(self, x: Any, y: Any) -> int:
        """Take over the rows; how many, 0 where these need a closer look, or an explanation."""
        if type(x) is not np.ndarray or type(y) is not np.ndarray or x.shape[1:] != self.in_shape:
            return 0
        rows = len(x)
        if not 0 < rows <= len(self.x) or y.shape not in ((rows, self.y.shape[1]), (rows,)):
            return 0
        if y.ndim == 1 and self.y.shape[1] > 1:
            return 0
        if x.dtype.kind not in "fiub" or y.dtype.kind not in ("iu" if self.labels else "fiub"):
            return 0
        mine, own = self.x[:rows], self.y[:rows]
        mine[...], own[...] = x.reshape(rows, -1), y.reshape(rows, -1)
        if self.labels:
            good = own.min() >= 0 and own.max() < self.classes
        else:
            good = all_finite(own.ravel())
        if not good or not all_finite(mine.ravel()):
            return 0
        self.check(mine)
        return rows
