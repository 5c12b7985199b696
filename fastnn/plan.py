"""The plan: a network as a list of ops over flat buffers.

Every number a network holds lies in one of four flat arrays::

    params     | 0.weight | 0.bias | 1.weight | 1.bias | ...          grads: same map
    work       | x | out of op 0 | out of op 1 | ... | target | loss | metric
                                                                 grad_work: same map

The parameters lie one after another without gaps. In ``work`` every region
holds one batch, row after row; an offset counts values per batch row, so that
the place of a region is ``offset * capacity`` and one plan serves batches of
any size. An op is a record with named fields (`fastnn.kernels._op.Row`) that
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
    OPS,
    PREDICT,
    TERM,
    TRAIN,
    Row,
    op_of,
)
from fastnn.layers import BENDING, LEADING_BACK, RECTIFIERS, Layer, Step

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

    It stays as it is once it is made: networks that differ in their weights alone share one.

    Attributes
    ----------
    rows : list of `fastnn.kernels._op.Row`
        The ops, in the order of the forward pass.
    parameters : list of Parameter
        Where each weight and bias lies in ``params``.
    size : int
        Numbers in ``params``.
    products : int
        Multiplications that a sample takes: as many as parameters, more where windows move over
        images.
    packs : bool
        Whether a few rows need as much scratch as many.
    shapes : list of tuple of int
        Shapes of the samples that each layer takes.
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
        self.addressed: dict[tuple[str, bool, np.dtype, int], np.ndarray] = {}
        self.applied: dict[int, tuple[int, str]] = {}
        self.parameters: list[Parameter] = []
        self.size = 0
        self.row_size = self.fan_in
        records: list[dict[str, Any]] = []
        self.shapes: list[tuple[int, ...]] = []
        at = 0  # of the values that the next op takes
        steps: list[tuple[int, Step]] = []
        for number, layer in enumerate(layers):
            self.shapes.append(shape)
            out = layer.out_shape(shape)
            for name, sizes in layer.shapes(shape).items():
                moves = layer.trainable and name not in layer.fixed
                self.parameters.append(Parameter(number, name, self.size, sizes, moves))
                self.size += self.parameters[-1].size
            steps += [(number, step) for step in layer.steps(shape)]
            shape = out
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
                size = math.prod(arrays["weight"])
                *rows, columns = arrays["weight"] if len(arrays["weight"]) > 1 else (size, 1)
                record.update(weight_rows=math.prod(rows), row_size=columns)
                record["tail"] = math.prod(arrays.get("bias", (0,)))
            if OPS[step.op].gradient:
                record["trainable"] = layers[number].trainable
            records.append(record)
            at = record["out"]
        self.fan_out, self.out = math.prod(shape), at
        records += self._ending(records, losses.get(loss), metrics.get(metric))
        self.sample_weight, self.weighted_loss = self._region(1), self._region(1)
        self.rows = [Row(**record) for record in records]
        places = [(row, row.out_height * row.out_width) for row in self.rows if row.filters]
        self.products = self.size + sum(
            row.weight_rows * row.row_size * (number - 1) for row, number in places
        )
        self.packs = bool(places)
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
        plan.addressed, plan.applied, plan.rows = {}, {}, []
        for i, whole in enumerate(self.rows):
            row = whole._replace(alpha_x=1)
            if i not in self.applied:
                plan.rows.append(row)
                continue
            (layer, name), width = self.applied[i], row.fan_out
            sums = plan._region(width)
            bend = Row(
                kind=OPS[name].kind, layer=layer, when=row.when, x=sums, out=row.out,
                fan_in=width, fan_out=width, alpha=row.alpha,
            )  # fmt: skip
            plan.rows += [row._replace(out=sums, alpha=1), bend]
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
        plan.addressed, plan.rows = {}, [*self.rows]
        random = ["key" in KERNELS[f"{op_of(row).name}_forward"].shapes for row in plan.rows]
        if not any(random):
            raise ValueError(
                "samples needs a layer that is random in training, Dropout or GaussianNoise: "
                "this network has none, and all samples would be the same"
            )
        for i in np.flatnonzero(random):
            plan.rows[i] = plan.rows[i]._replace(when=ALWAYS)
            plan.rows[i + 1] = plan.rows[i + 1]._replace(when=0)  # behind it lies its twin
        return plan

    def following(self, layers: Sequence[Layer]) -> Plan:
        """The plan for what is trainable of these layers now: this one, where nothing changed."""
        moves = [
            layers[p.layer].trainable and p.name not in layers[p.layer].fixed
            for p in self.parameters
        ]
        if moves == [p.trainable for p in self.parameters]:
            return self
        plan = copy.copy(self)
        plan.addressed = {}
        plan.parameters = [
            p._replace(trainable=m) for p, m in zip(self.parameters, moves, strict=True)
        ]
        plan.rows = [
            row._replace(trainable=layers[row.layer].trainable) if op_of(row).gradient else row
            for row in self.rows
        ]
        plan._look_for_first()
        return plan

    def terms(self, layers: Sequence[Layer]) -> np.ndarray:
        """Penalties and constraints of all arrays that are trained."""
        terms = [
            (p.offset, p.size // p.shape[-1], p.shape[-1], *layers[p.layer].term(p.name), 1)
            for p in self.parameters
            if p.trainable
        ]
        return np.array(terms, TERM)

    @property
    def divisible(self) -> bool:
        """Whether the parameters can be cut anywhere: all move, and no row waits for another."""
        columns = any(row.columns for row in self.rows)
        return all(p.trainable for p in self.parameters) and not columns

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: addresses are those of one process."""
        return self.__dict__ | {"addressed": {}}

    def _region(self, width: int) -> int:
        """Room in ``work`` for so many values per batch row."""
        start, self.row_size = self.row_size, self.row_size + width
        return start

    def _record(
        self, op: str, layer: int, x: int, fan_in: int, fan_out: int, when: int
    ) -> dict[str, Any]:
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
        self, records: list[dict[str, Any]], loss: losses.Loss, metric: metrics.Metric
    ) -> list[dict[str, Any]]:
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
            fused = f"{list(OPS)[last['kind']]}_{name}"
            if fused in OPS:
                name, x, last["when"] = fused, last["x"], PREDICT
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

    def for_metric(self, metric: str, weighted: bool) -> list[Row]:
        """The rows with this metric at their end, or with none where it is empty.

        ``weighted`` adds the op that multiplies a row's loss by its weight.
        """
        rows = [row for row in self.rows if row.layer != METRIC]
        if weighted:
            weights = rows[-1]._replace(
                kind=OPS["weighted"].kind, fan_in=1, x=rows[-1].out, out=self.weighted_loss,
                sample_weight=self.sample_weight,
            )  # fmt: skip
            rows.append(weights)
        if metric:
            rows.append(self.rows[-1]._replace(kind=OPS[metric].kind))
        return rows

    def __str__(self) -> str:
        columns = [c for c in _COLUMNS if c != "kept" or any(row.kept for row in self.rows)]
        heads = ["#", "op", "layer", "when", *columns, "fan_in", "fan_out"]
        table = [heads]
        for i, row in enumerate(self.rows):
            op = op_of(row)
            takes = fields_of(op)
            layer = {LOSS: "loss", METRIC: "metric"}.get(row.layer, str(row.layer))
            places = [str(getattr(row, c)) if c in takes else "." for c in columns]
            rectifier = {0.0: " relu", 1.0: ""}.get(row.alpha, " leaky_relu")
            name = op.name + (rectifier if op.name in BENDING else "")
            table.append(
                [str(i), name, layer, _WHEN[row.when], *places, str(row.fan_in), str(row.fan_out)]
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


def rectified(steps: list[tuple[int, Step]]) -> list[tuple[int, Step]]:
    """Each rectifier between two layers that can apply it becomes part of both.

    What the second one sees must tell on which side of 0 the sum was: a slope below 0 would
    turn the sign.
    """
    result: list[tuple[int, Step]] = []
    ops = [step.op for _, step in steps]
    for i, (layer, step) in enumerate(steps):
        before, behind = ops[i - 1 : i], ops[i + 1 : i + 2]
        between = before and behind and before[0] in BENDING and behind[0] in LEADING_BACK
        if step.op in RECTIFIERS and between and step.alpha >= 0:
            owner, sums = result.pop()
            bent = sums._replace(alpha=step.alpha, rectifier=(layer, step.op))
            result.append((owner, bent))
            owner, after = steps[i + 1]
            steps[i + 1] = (owner, after._replace(alpha_x=step.alpha))
        else:
            result.append((layer, step))
    return result


def fields_of(op: _op.Op) -> set[str]:
    """Names of what an op's kernels take."""
    return {name for kernel in kernels_of(op) for name in KERNELS[kernel].shapes}


def kernels_of(op: _op.Op) -> list[str]:
    """Names of the kernels that an op runs."""
    names = [f"{op.name}_{part}" for part in ("forward", "backward", "gradient")]
    return [name for name in names if name in KERNELS]
