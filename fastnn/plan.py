"""The plan: a network as a list of ops over flat buffers.

Every number a network holds lies in one of four flat arrays::

    params     | 0.weight | 0.bias | 1.weight | 1.bias | ...          grads: same map
    work       | x | out of op 0 | out of op 1 | ... | target | loss | metric
                                                                 grad_work: same map

The parameters lie one after another without gaps. In ``work`` every region
holds one batch, row after row; an offset counts values per batch row, so that
the place of a region is ``offset * capacity`` and one plan serves batches of
any size. An op is a record with named fields (`fastnn.kernels._op.OP`) that
says where its arrays begin and how wide they are.

>>> import fastnn as fnn
>>> layers = [fnn.Dense(3, "relu"), fnn.Dense(2, "softmax")]
>>> net = fnn.Network(layers, input_shape=(4,), loss="cross_entropy", seed=0)
>>> print(net.plan)
#  op                     layer   when     x  out  prob  target  weight  bias  fan_in  fan_out
0  dense relu             0       always   0    4     .       .       0    12       4        3
1  dense                  1       always   4    7     .       .      15    21       3        2
2  softmax                1       predict  7    9     .       .       .     .       2        2
3  softmax_cross_entropy  loss    train    7   13     9      11       .     .       2        1
4  categorical_accuracy   metric  train    9   14     .      11       .     .       2        1
params: 23 values; work: 17 values per batch row

The relu has no op of its own: between two dense layers they apply it themselves, see
`fastnn.kernels.dense`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnn import losses, metrics
from fastnn.kernels import _op
from fastnn.kernels._kernel import KERNELS
from fastnn.kernels._op import (
    ALWAYS,
    EVALUATE,
    LOSS,
    METRIC,
    OP,
    OPS,
    PREDICT,
    TERM,
    TRAIN,
    op_of,
)
from fastnn.layers import RECTIFIERS, Layer, Step

__all__ = ["Parameter", "Plan"]

_COLUMNS = ("x", "out", "kept", "prob", "target", "weight", "bias")
_WHEN = {
    ALWAYS: "always",
    PREDICT: "predict",
    TRAIN | EVALUATE: "train",
    TRAIN: "fit",
    PREDICT | EVALUATE: "not fit",
}


class Parameter(NamedTuple):
    """Where one array of parameters lies."""

    layer: int
    name: str
    offset: int
    shape: tuple[int, ...]
    trainable: bool = True

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    def of(self, params: np.ndarray) -> np.ndarray:
        """View of it in a buffer with the map of ``params``."""
        return params[self.offset : self.offset + self.size].reshape(self.shape)

    @property
    def title(self) -> str:
        """``0.weight``."""
        return f"{self.layer}.{self.name}"


class Plan:
    """Layers laid out as ops; ``print(plan)`` shows them.

    Attributes
    ----------
    rows : record array of `fastnn.kernels._op.OP`
        The ops, in the order of the forward pass.
    parameters : list of Parameter
        Where each weight and bias lies in ``params``.
    size : int
        Numbers in ``params``.
    widths : list of int
        Values per sample that each layer takes.
    row_size : int
        Numbers in ``work`` for each row of a batch.
    fan_in, fan_out : int
        Values per sample going in and coming out.
    in_shape, out_shape : tuple of int
        Shapes of a sample going in and coming out.
    out, target : int
        Where output and target lie in ``work``.
    sample_weight, weighted_loss : int
        Likewise what each row counts, and its loss times that, where rows have weights.
    loss : Op
        What the loss has become: it may have taken the last activation's place.
    applied : dict of int to (int, str)
        Rectifiers that dense layers apply themselves: by number of the dense op, the layer
        that has it and its name.
    addressed : dict
        Copies of ``rows`` that know their compiled functions, kept by `fastnn.compiled`.
    first : int
        The first op whose backward pass training needs: what lies before it has no
        parameters.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: tuple[int, ...],
        loss: str | losses.Loss,
        metric: str | metrics.Metric = "accuracy",
    ) -> None:
        self.in_shape, self.fan_in = shape, math.prod(shape)
        self.addressed: dict[tuple[str, bool, np.dtype, int], np.recarray] = {}
        self.applied: dict[int, tuple[int, str]] = {}
        self.parameters: list[Parameter] = []
        self.size = 0
        self.row_size = self.fan_in
        records: list[dict[str, float]] = []
        self.widths: list[int] = []
        width, at = self.fan_in, 0  # of the values that the next op takes
        steps: list[tuple[int, Step]] = []
        for number, layer in enumerate(layers):
            self.widths.append(width)
            for name, sizes in layer.shapes(width).items():
                moves = layer.trainable and name not in layer.fixed
                self.parameters.append(Parameter(number, name, self.size, sizes, moves))
                self.size += self.parameters[-1].size
            steps += [(number, step) for step in layer.steps(width)]
            shape = layer.out_shape(shape)
            width = math.prod(shape)
        self.out_shape = shape
        owned: dict[int, list[Parameter]] = {}
        for parameter in self.parameters:
            owned.setdefault(parameter.layer, []).append(parameter)
        for number, step in rectified(steps):
            if step.rectifier:
                self.applied[len(records)] = step.rectifier
            if step.twin:  # same input, same output, other passes
                same = {k: records[-1][k] for k in ("layer", "x", "out", "fan_in", "fan_out")}
                record = same | {"kind": OPS[step.op].kind, "when": step.when}
            else:
                record = self._record(step.op, number, at, step.fan_in, step.fan_out, step.when)
            record.update(alpha=step.alpha, alpha_x=step.alpha_x, **dict(step.options))
            if "kept" in fields_of(OPS[step.op]):
                record["kept"] = self._region(step.fan_in)
            arrays = {}
            for parameter in owned.get(number, ()):
                if parameter.name in step.parameters:
                    record[parameter.name] = parameter.offset
                    arrays[parameter.name] = parameter.shape
            if arrays:
                rows, *columns = arrays["weight"]
                record.update(weight_rows=rows, row_size=math.prod(columns))
                record["tail"] = math.prod(arrays.get("bias", (0,)))
            if OPS[step.op].gradient:
                record["trainable"] = layers[number].trainable
            records.append(record)
            at = int(record["out"])
        self.fan_out, self.out = width, at
        records += self._ending(records, losses.get(loss), metrics.get(metric))
        self.sample_weight, self.weighted_loss = self._region(1), self._region(1)
        self.rows = _table(records)
        self._look_for_first()

    def _look_for_first(self) -> None:
        trained = [i for i, row in enumerate(self.rows) if row.trainable]
        self.first = trained[0] + 1 if trained else len(self.rows)

    def unfused(self) -> Plan:
        """The same plan with an op for each rectifier that a dense layer applies itself.

        For looking at the sums. They lie behind everything else: no region moves, and what is
        random depends on where it lies.
        """
        plan = copy.copy(self)
        plan.addressed, plan.applied, rows = {}, {}, []
        for i, row in enumerate(self.rows.copy()):
            rows.append(row)
            row.alpha_x = 1
            if i in self.applied:
                layer, name = self.applied[i]
                sums, width = plan._region(int(row.fan_out)), int(row.fan_out)
                record = {"kind": OPS[name].kind, "layer": layer, "when": row.when, "x": sums}
                record |= {"out": row.out, "fan_in": width, "fan_out": width, "alpha": row.alpha}
                rows.append(_table([record])[0])
                row.out, row.alpha = sums, 1
        plan.rows = np.array(rows, OP).view(np.recarray)
        plan._look_for_first()
        return plan

    def noisy(self) -> Plan:
        """The same plan with what is random in training at work in predictions, too.

        Raises
        ------
        ValueError
            Where nothing is.
        """
        plan = copy.copy(self)
        plan.addressed, plan.rows = {}, self.rows.copy()
        random = ["key" in KERNELS[f"{op_of(row).name}_forward"].shapes for row in plan.rows]
        if not any(random):
            raise ValueError(
                "samples needs a layer that is random in training, Dropout or GaussianNoise: "
                "this network has none, and all samples would be the same"
            )
        for i in np.flatnonzero(random):
            plan.rows[i].when, plan.rows[i + 1].when = ALWAYS, 0  # behind it lies its twin
        return plan

    def follow(self, layers: Sequence[Layer]) -> None:
        """Take over which layers are trainable."""
        moves = [
            layers[p.layer].trainable and p.name not in layers[p.layer].fixed
            for p in self.parameters
        ]
        if moves == [p.trainable for p in self.parameters]:
            return
        self.parameters = [
            p._replace(trainable=m) for p, m in zip(self.parameters, moves, strict=True)
        ]
        for row in self.rows:
            if op_of(row).gradient:
                row.trainable = layers[row.layer].trainable
        self._look_for_first()
        self.addressed.clear()

    def terms(self, layers: Sequence[Layer]) -> np.recarray:
        """Penalties and constraints of all arrays that are trained."""
        terms = [
            (p.offset, *(1, *p.shape)[-2:], *layers[p.layer].term(p.name), 1)
            for p in self.parameters
            if p.trainable
        ]
        return np.array(terms, TERM).view(np.recarray)

    @property
    def divisible(self) -> bool:
        """Whether the parameters can be cut anywhere: all move, and no row waits for another."""
        return all(p.trainable for p in self.parameters) and not self.rows.columns.any()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: addresses are those of one process."""
        return self.__dict__ | {"addressed": {}}

    def _region(self, width: int) -> int:
        """Room in ``work`` for so many values per batch row."""
        start, self.row_size = self.row_size, self.row_size + width
        return start

    def _record(
        self, op: str, layer: int, x: int, fan_in: int, fan_out: int, when: int
    ) -> dict[str, float]:
        return {
            "kind": OPS[op].kind,
            "layer": layer,
            "when": when,
            "x": x,
            "out": self._region(fan_out),
            "fan_in": fan_in,
            "fan_out": fan_out,
        }

    def _ending(
        self, records: list[dict[str, float]], loss: losses.Loss, metric: metrics.Metric
    ) -> list[dict[str, float]]:
        """Loss and metric; a loss that fuses with the last activation takes its place."""
        name, x, last = loss.name, self.out, records[-1] if records else None
        targets, rest = divmod(self.fan_out, loss.op.per_target)
        if rest:
            raise ValueError(
                f"{name} needs {loss.op.per_target} outputs for each target, "
                f"got {self.fan_out}; let the last layer have twice as many as there are targets"
            )
        self.target = self._region(targets)
        if last is not None:
            fused = f"{list(OPS)[int(last['kind'])]}_{name}"
            if fused in OPS:
                name, x, last["when"] = fused, int(last["x"]), PREDICT
        scored = TRAIN | EVALUATE
        ending = [self._record(name, LOSS, x, self.fan_out, 1, scored)]
        ending[0].update(prob=self.out, target=self.target, **loss.fields())
        self.loss = OPS[name]
        metric.check(self.loss, self.fan_out)
        op = metric.op or self.loss.metric
        if not op and targets == self.fan_out > 1 and self.loss.targets == "numbers":
            op = "categorical_accuracy"  # of labels, which such a loss takes too
        if op:
            ending.append(self._record(op, METRIC, self.out, self.fan_out, 1, scored))
            threshold = 0.0 if self.loss.targets == "signs" else 0.5
            ending[1].update(target=self.target, threshold=threshold, **metric.fields)
        return ending

    def for_metric(self, metric: str, weighted: bool) -> np.recarray:
        """The rows with this metric at their end, or with none where it is empty.

        ``weighted`` adds the op that multiplies a row's loss by its weight.
        """
        rows = self.rows[self.rows.layer != METRIC]
        if weighted:
            weights = rows[-1:].copy()
            weights.kind, weights.fan_in = OPS["weighted"].kind, 1
            weights.x, weights.out = rows[-1].out, self.weighted_loss
            weights.sample_weight = self.sample_weight
            rows = np.concatenate([rows, weights]).view(np.recarray)
        if metric:
            rows = np.concatenate([rows, self.rows[-1:]]).view(np.recarray)
            rows[-1].kind = OPS[metric].kind
        return rows

    def __str__(self) -> str:
        columns = [c for c in _COLUMNS if c != "kept" or self.rows.kept.any()]
        heads = ["#", "op", "layer", "when", *columns, "fan_in", "fan_out"]
        table = [heads]
        for i, row in enumerate(self.rows):
            op = op_of(row)
            takes = fields_of(op)
            layer = {LOSS: "loss", METRIC: "metric"}.get(int(row.layer), str(row.layer))
            places = [str(row[c]) if c in takes else "." for c in columns]
            rectifier = {0: " relu", 1: ""}.get(row.alpha, " leaky_relu")
            name = op.name + (rectifier if op.name == "dense" else "")
            table.append(
                [str(i), name, layer, _WHEN[int(row.when)], *places, *map(str, widths_of(row))]
            )
        widths = [max(len(line[c]) for line in table) for c in range(len(heads))]
        lines = [
            "  ".join(
                cell.ljust(width) if c < 4 else cell.rjust(width)
                for c, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        lines.append(f"params: {self.size:,} values; work: {self.row_size:,} values per batch row")
        return "\n".join(lines)


def _table(records: list[dict[str, float]]) -> np.recarray:
    """Rows of a plan; fields that a record leaves out are 0."""
    rows = np.zeros(len(records), OP).view(np.recarray)
    for row, record in zip(rows, records, strict=True):
        for field, value in record.items():
            row[field] = value
    return rows


def rectified(steps: list[tuple[int, Step]]) -> list[tuple[int, Step]]:
    """Each rectifier between two dense layers becomes part of both.

    What the second one sees must tell on which side of 0 the sum was: a slope below 0 would
    turn the sign.
    """
    result: list[tuple[int, Step]] = []
    ops = [step.op for _, step in steps]
    for i, (layer, step) in enumerate(steps):
        between = step.op in RECTIFIERS and ops[i - 1 : i] == ops[i + 1 : i + 2] == ["dense"]
        if between and step.alpha >= 0:
            before = result.pop()
            bent = before[1]._replace(alpha=step.alpha, rectifier=(layer, step.op))
            result.append((before[0], bent))
            after = steps[i + 1]
            steps[i + 1] = (after[0], after[1]._replace(alpha_x=step.alpha))
        else:
            result.append((layer, step))
    return result


def widths_of(row: np.record) -> tuple[int, int]:
    """Values per batch row going in and coming out of an op."""
    return int(row.fan_in), int(row.fan_out)


def fields_of(op: _op.Op) -> set[str]:
    """Names of what an op's kernels take."""
    return {name for kernel in kernels_of(op) for name in KERNELS[kernel].shapes}


def kernels_of(op: _op.Op) -> list[str]:
    """Names of the kernels that an op runs."""
    names = [f"{op.name}_{part}" for part in ("forward", "backward", "gradient")]
    return [name for name in names if name in KERNELS]
