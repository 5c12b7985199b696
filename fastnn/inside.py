"""Looking inside: what every layer says, one step of training in slow motion, how layers fare.

`Network.activations` and `Network.step_through` are the first two; the third is
`fastnn.callbacks.Inspect`. All of them look at the network as its layers were written: a relu that
a dense layer applies itself (`fastnn.plan.rectified`) is an op of its own here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastnn import fitting, reference
from fastnn._callback import Callback, Logs
from fastnn._check import whole
from fastnn.explain import public, summary, wrapped
from fastnn.kernels._kernel import Kernel
from fastnn.kernels._op import LOSS, PREDICT, op_of
from fastnn.layers import RECTIFIERS
from fastnn.optimizers import LBFGS

__all__ = ["Inspect", "Moment", "activations", "step_through"]

LIMITS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # what saturates, and between what it lies
NEAR = 0.01  # a share of the way from one limit to the other: a sigmoid below 0.01 or above 0.99
# What is not shown: arguments that say where, not what; and what a dense layer takes for a
# rectifier that it applies itself, of which there is none here.
HIDDEN = {"key", "stream", "first", "last"}
AT_REST = {"dense_forward": {"alpha"}, "dense_backward": {"alpha_x", "x"}}
APPLIED = ", times alpha"


def activations(net: Any, x: Any) -> dict[str, np.ndarray]:
    """As `Network.activations`."""
    source = net._inputs(x)
    plan, samples = net.plan.unfused(), len(source.array)
    work = np.zeros(samples * plan.row_size, net.dtype)  # all rows in one block, which stays
    out, order = np.empty((samples, plan.fan_out), net.dtype), np.arange(samples)

    def look(params: np.ndarray) -> None:
        buffers = net._looking_buffers(params, samples, 1)._replace(work=work)
        net._engine().predict(plan, [source], buffers, samples, order, out, 1)

    net._turns.steadily(look, net._params)

    def region(offset: int, shape: tuple[int, ...]) -> np.ndarray:
        flat = work[offset * samples :][: samples * math.prod(shape)]
        return flat.reshape(samples, *shape).copy()

    shape = plan.in_shape
    result, at = {"x": region(0, shape)}, 0
    names: dict[int, str] = {}  # of a layer that is another one at rest: dropout, not linear
    for row in plan.rows:
        names.setdefault(row.out, op_of(row).name)
    for number, layer in enumerate(net.layers):
        shape = layer.out_shape(shape)
        rows = [row for row in plan.rows if row.layer == number and row.when & PREDICT]
        for row in rows:
            at = row.out
            result[f"{number}.{names[at]}"] = region(at, shape)
        if not rows:
            (name,) = public({type(layer).__name__: type(layer)})
            result[f"{number}.{name}"] = region(at, shape)
    return result


class Moment(NamedTuple):
    """One operation of a training step, just done; ``print`` it.

    Attributes
    ----------
    phase : {"forward", "backward", "gradient", "update"}
        The way to the loss; back to the input; the gradients of the parameters, penalties
        included; the optimizer's step, limits and constraints included.
    layer : str
        Number of the layer, ``"0"``; its array, ``"0.weight"``, where one array of parameters is
        worked on; or ``"loss"``.
    name : str
        Of the operation: ``"dense"``, ``"softmax_cross_entropy"``, ``"adam"``.
    formula : str
        What is computed, in terms of the names below.
    reads, writes : dict of str to array or number
        Copies of what went in and of what came out. What is worked on in place is in both.
    """

    phase: str
    layer: str
    name: str
    formula: str
    reads: dict[str, Any]
    writes: dict[str, Any]

    def __str__(self) -> str:
        lines = [wrapped(f"{self.phase}, {self.layer} {self.name}: {self.formula}", 4)]
        names = [*self.reads, *self.writes]
        for verb, arrays in (("reads", self.reads), ("writes", self.writes)):
            for name, value in arrays.items():
                shape = "x".join(map(str, np.shape(value)))
                wide = max(map(len, names))
                lines.append(f"    {verb:<6}  {name:<{wide}}  {shape:>8}  {_short(value)}")
                verb = ""
        return "\n".join(lines)


def _short(value: Any) -> str:
    """Numbers on one line, only the outer ones where there are many."""
    text = np.array2string(
        np.asarray(value),
        threshold=8,
        edgeitems=2 if np.ndim(value) == 1 else 1,
        formatter={"float_kind": lambda number: f"{number:.3g}"},
    )
    return " ".join(text.split())


def step_through(net: Any, x: Any, y: Any, sample_weight: Any = None) -> Iterator[Moment]:
    """As `Network.step_through`."""
    twin = copy.deepcopy(net)  # its parameters and its optimizer's memory may move
    twin._follow_optimizer()
    pair, plan = twin._pair(x, y, sample_weight)
    fitting.check_trainable(twin, plan)
    return _moments(twin, pair)


def _moments(net: Any, pair: list[Any]) -> Iterator[Moment]:
    """One step of training on all rows, by a network that nobody else has."""
    plan, samples = net.plan.unfused(), len(pair[0].array)
    work = np.zeros(samples * plan.row_size, net.dtype)
    buffers = net._training_buffers(samples, 1)
    buffers = buffers._replace(work=work, grad_work=work.copy(), grads=net._grads)
    rule, terms = net._rule, net._terms(net._rule)
    key = reference.key_of(*rule[["seed", "step"]][0])
    batch = reference.Batch(buffers, samples, samples, key, learning=True)
    rule["learning_rate"] = net.optimizer.rates(int(rule["step"][0]), 1)
    rule["step"] += 1
    free, bare = rule.copy(), terms.copy()
    free[["clip_value", "clip_norm", "global_clip_norm"]] = 0
    bare[["l1", "l2"]] = 0
    calls = [
        ("", reference.passes(plan.for_metric("", len(pair) > 2), batch, 0)),
        ("gradient", reference.adjust(terms, free, buffers)),
    ]
    if not isinstance(net.optimizer, LBFGS):  # whose step is a search, not a formula
        calls += [
            ("update", reference.adjust(bare, rule, buffers)),
            ("update", reference.update(rule, plan, buffers)),
            ("update", reference.constrain(bare, buffers)),
            ("update", reference.average(rule, plan, buffers)),
        ]
    parameters = {p.offset: p for p in plan.parameters}
    following = reference.quiet(next)
    reference.gather(pair, batch, np.arange(samples))
    for phase, several in calls:
        for place, kernel, arrays in iter(partial(following, several, None), None):
            name, _, part = kernel.run.__name__.rpartition("_")
            if phase:
                layer, shape = parameters[int(place)].title, parameters[int(place)].shape
                shown = {n: a.reshape(shape) if np.ndim(a) else a for n, a in arrays.items()}
            else:
                layer = "loss" if place.layer == LOSS else str(place.layer)
                shown = _shown(place, kernel, arrays, samples)
            reads = {n: _copied(shown[n]) for n in kernel.inputs if n in shown}
            reference.quiet(reference.call)(kernel, arrays)
            writes = {n: _copied(shown[n]) for n in kernel.writes if n in shown}
            formula = summary(kernel).partition(" Source:")[0].partition(APPLIED)[0].rstrip(".")
            yield Moment(phase or part, layer, name, formula, reads, writes)


def _shown(row: Any, kernel: Kernel, arrays: dict[str, Any], samples: int) -> dict[str, Any]:
    """What a reader wants to see of an op's arrays; flat ones with a row for each sample."""
    hidden = HIDDEN | AT_REST.get(kernel.run.__name__, set())
    hidden |= set() if row.tail else {"bias", "grad_bias"}  # the layer has none
    shown = {name: array for name, array in arrays.items() if name not in hidden}
    flat = [name for name in shown if kernel.shapes[name] == ("n",)]
    return shown | {name: shown[name].reshape(samples, -1) for name in flat}


def _copied(value: Any) -> Any:
    """A copy of an array; a number as Python's own."""
    return value.copy() if np.ndim(value) else np.asarray(value).item()


class Inspect(Callback):
    """Watches how the layers fare while the network trains: gradients, dead and saturated units.

    At the end of epochs the network looks at the same rows each time, and what is found is kept.
    Training is not changed by a bit.

    Parameters
    ----------
    x, y : array
        Some rows of data, as for `Network.fit`; a few hundred are enough. Kept as they are.
    every : int, default 1
        Epochs from one look to the next; the first is at the end of epoch 0.

    Attributes
    ----------
    history : dict of str to list
        ``"epoch"``, and for each layer, by its number, one number for each of those epochs:

        ``"0.gradient"``
            Length of the gradient of all its parameters together, as `Network.gradients` has
            it. Where it shrinks from layer to layer, the first ones hardly learn.
        ``"0.dead"``
            Share of the units that are 0 for every row, behind relu and leaky_relu: nothing
            flows back through a relu that is.
        ``"0.saturated"``
            Share of the outputs, of all units and rows, within a hundredth of the range from
            one of its limits: below 0.01 or above 0.99 for a sigmoid, beyond -0.98 and 0.98 for
            tanh. Hardly anything flows back there.
        ``"0.size"``
            Root of the mean square of its outputs.

        Outputs are those of `Network.activations`: dropout is at rest.

    Raises
    ------
    TypeError, ValueError
        Where ``every`` is no whole number above 0; at the beginning of `Network.fit`, where the
        rows do not fit the network.

    Notes
    -----
    Nielsen, chapter 5, draws such lengths for networks of two to five layers of sigmoids, of the
    biases' gradients alone; Glorot and Bengio (2010), AISTATS, look at saturation.

    Examples
    --------
    >>> import fastnn as fnn
    >>> x, y = fnn.datasets.spiral()
    >>> watch = fnn.callbacks.Inspect(x, y, every=5)
    >>> layers = [*(fnn.Dense(8, "sigmoid") for _ in range(3)), fnn.Dense(3, "softmax")]
    >>> net = fnn.Network(layers, loss="cross_entropy", seed=0)
    >>> fitted = net.fit(x, y, epochs=10, callbacks=[watch], verbose=0)
    >>> watch.history["epoch"]
    [0, 5]
    >>> watch.history["0.gradient"][0] < watch.history["3.gradient"][0] / 10
    True
    """

    brief = True

    def __init__(self, x: Any, y: Any, *, every: int = 1) -> None:
        self.x, self.y, self.every = x, y, whole("every", every)
        self.history: dict[str, list[Any]] = {}

    def on_train_begin(self, logs: Logs) -> None:
        """Forget an earlier training."""
        self.resume({"history": {}})

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Look, if it is time to."""
        if epoch % self.every == 0:
            for name, value in {"epoch": epoch, **figures(self.network, self.x, self.y)}.items():
                self.history.setdefault(name, []).append(value)

    def state(self) -> dict[str, Any]:
        """What `resume` needs, of plain lists and numbers."""
        return {"history": {name: [*values] for name, values in self.history.items()}}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where another one was, in place of ``on_train_begin``."""
        self.network._pair(self.x, self.y)  # better now than after an epoch
        self.history = {name: [*values] for name, values in state["history"].items()}

    def table(self) -> str:
        """A line for each layer, each figure from the first look to the last."""
        if not self.history:
            return "nothing recorded yet"
        heads = ["gradient", "dead", "saturated", "size"]
        text = {"gradient": "{:.2g}", "dead": "{:.0%}", "saturated": "{:.0%}", "size": "{:.2g}"}
        epochs = [str(epoch) for epoch in self.history["epoch"]]
        table = [[f"epoch {_from_to(epochs)}", *heads]]
        for number, layer in enumerate(self.network.layers):
            lists = [self.history.get(f"{number}.{head}", []) for head in heads]
            cells = [
                _from_to([text[head].format(value) for value in values])
                for head, values in zip(heads, lists, strict=True)
            ]
            table.append([f"{number} {layer!r}", *cells])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in table
        )


def _from_to(values: list[str]) -> str:
    """``first -> last``, one of them where there is but one, a dot where there is none."""
    return " -> ".join([*values[:1], *values[1:][-1:]]) or "."


def figures(net: Any, x: Any, y: Any) -> dict[str, float]:
    """What `Inspect` keeps of an epoch, but for its number."""
    outputs, gradients = net.activations(x), net.gradients(x, y)
    found = {}
    for number, layer in enumerate(net.layers):
        own = [gradients[f"{number}.{name}"] for name in layer._views if name not in layer.fixed]
        if own:
            found[f"{number}.gradient"] = _length(np.concatenate([g.ravel() for g in own]))
        for name, out in outputs.items():
            if name.startswith(f"{number}."):
                op, last = name.split(".")[1], out
                if op in RECTIFIERS:
                    found[f"{number}.dead"] = float((out == 0).all(axis=0).mean())
                if op in LIMITS:
                    low, high = LIMITS[op]
                    edge = NEAR * (high - low)
                    near = (out < low + edge) | (out > high - edge)
                    found[f"{number}.saturated"] = float(near.mean())
        found[f"{number}.size"] = _length(last) / last.size**0.5
    return found


def _length(values: np.ndarray) -> float:
    """Root of the sum of squares, in float64."""
    return float(np.linalg.norm(values.astype(np.float64).ravel()))
