"""A network inside the user's own compiled code: what `fastnn.kernels.in_njit` finds there."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from fastnn import compiled, fitting, sources
from fastnn._check import one_of, whole
from fastnn.compiled import place
from fastnn.kernels import desk as kernels
from fastnn.kernels import in_c, in_njit
from fastnn.kernels._kernel import JIT
from fastnn.kernels._op import PREDICT, TRAIN, address, op_of
from fastnn.optimizers import LBFGS
from fastnn.plan import Plan
from fastnn.schedules import Schedule

__all__ = [
    "CFunction",
    "Desk",
    "call",
    "desk_of",
    "loss_and_gradient",
    "predict_into",
    "scratch_size",
    "train_step",
    "type_of",
]


RATES = 1 << 16  # learning rates of a schedule that compiled code is told at once


class Desk:
    """What compiled code finds at the address that stands for a network.

    It lies where it lies as long as the network lives: code that runs in another thread may
    hold the address. What only training needs is replaced where the optimizer is, which nobody
    may do while another trains.
    """

    def __init__(self, net: Any) -> None:
        plan, self.params = net.plan, net.params
        self.ops = compiled.predicting(plan, net.dtype)
        self.record: Any = np.zeros(1, kernels.DESK).view(np.recarray)
        desk: Any = self.record
        desk.look = address(kernels.look, net.dtype, kernels.DESK)
        desk.differentiable = differentiable(plan)
        desk.ops, desk.ops_count = place(self.ops), len(self.ops)
        desk.params, desk.size = place(self.params), self.params.size
        for name in ("fan_in", "fan_out", "row_size", "out", "packs"):
            desk[name] = getattr(plan, name)
        desk.scale, desk.offset = scaling(net)
        self.taken = net._turns.taken
        desk.taken = place(self.taken)
        self.address = place(desk)
        self.seen: Any = None  # what the learning was prepared for
        self.rates = np.empty(0)

    def prepare(self, net: Any) -> None:
        """Bring what has been wanted since, and what has been changed."""
        if "gradients" in in_njit.WANTED and not self.record.back[0]:
            ops = [op_of(row) for row in net.plan.rows if row.when & PREDICT]
            self.ops["backward"] = [
                address(op.backward, net.dtype) if op.backward else 0 for op in ops
            ]
            self.record.back = address(kernels.back, net.dtype, kernels.DESK)
        if "learning" in in_njit.WANTED and not net._turns.busy[0]:
            if self.seen is None:
                self._targets(net)
            seen = id(net._rule), id(net._state), *net._settings()
            if seen != self.seen:
                self._learning(net)
                self.seen = seen
            self._rates(net)

    def _targets(self, net: Any) -> None:
        """How targets become what the loss sees."""
        plan, desk = net.plan, self.record
        width = plan.fan_out // plan.loss.per_target
        desk.target, desk.targets = plan.target, width
        about = net.dtype, 1, plan.fan_out, plan.target, net._loss
        try:
            fitting.check_trainable(net, plan)
            share = 1 / width if plan.loss.targets == "classes" else 0
            numbers = sources.targets(np.full((1, width), share), *about)
        except ValueError:  # which `fit` explains
            return
        desk.trainable, desk.signs = True, plan.loss.targets == "signs"
        if not desk.signs[0]:
            desk.target_scale, desk.target_offset = numbers.scale, numbers.offset
        else:
            desk.target_scale = 1
        try:
            labels = sources.targets(np.zeros(1, np.int64), *about)
        except ValueError:
            return
        if labels.kernel == "gather_labels":
            desk.labels, desk.no, desk.yes = True, labels.offset, labels.scale + labels.offset

    def _learning(self, net: Any) -> None:
        """What a step of training needs, as `fit` would have it now."""
        desk, dtype = self.record, net.dtype
        if not desk.trainable[0]:
            return
        desk.steps = not isinstance(net._optimizer, LBFGS)
        net._optimizer.check()
        net._follow_optimizer()
        plan = net.plan  # now that it knows which layers are trainable
        desk.learn = address(kernels.learn, dtype, kernels.DESK)
        rows, terms = compiled.addressed(plan, "", False, dtype, TRAIN), net._terms(net._rule)
        parts = compiled.parts_of(plan)
        grads = np.zeros(parts * plan.size, dtype)
        compiled.equip(net._rule, terms, dtype)
        desk.learn_ops, desk.learn_count = place(rows), len(rows)
        desk.first, desk.parts = plan.first, parts
        desk.terms, desk.terms_count = place(terms), len(terms)
        desk.rule, desk.state, desk.grads = place(net._rule), place(net._state), place(grads)
        self.alive = rows, terms, grads, net._rule, net._state

    def _rates(self, net: Any) -> None:
        """Learning rates of the next steps; one where it never changes."""
        optimizer, step = net._optimizer, int(net._rule["step"][0])
        plain = not isinstance(optimizer.learning_rate, Schedule) and optimizer.decay == 0
        first = int(self.record.first_rate[0])
        rate, at = optimizer.rates(step, 1)[0], 0 if len(self.rates) == 1 else step - first
        known = len(self.rates) == (1 if plain else RATES) and 0 <= at <= RATES // 2
        if not known or self.rates[at] != rate:
            self.rates = optimizer.rates(step, 1 if plain else RATES)
            self.record.rates, self.record.rates_count = place(self.rates), len(self.rates)
            self.record.first_rate = step


def desk_of(net: Any) -> Desk:
    """The network's desk, made where there is none, with all that compiled code wants of it."""
    if net._desk is None or net._desk.params is not net.params:
        net._desk = Desk(net)
    if in_njit.WANTED:
        net._desk.prepare(net)
    return net._desk


def call(net: Any, x: Any) -> np.ndarray:
    """As `Network.__call__`, for whatever is not on the fast road."""
    x, plan = np.asarray(x), net.plan
    if x.shape == plan.in_shape:
        return net.predict(x[None])[0]
    if x.shape == (plan.fan_in,):
        return net.predict(x.reshape(1, *plan.in_shape)).ravel()
    if x.ndim == 2 and x.shape[1] == plan.fan_in:
        return net.predict(x.reshape(-1, *plan.in_shape)).reshape(-1, plan.fan_out)
    return net.predict(x)


def scratch_size(net: Any, rows: Any) -> int:
    """As `Network.scratch_size`."""
    return int(kernels.room_for(net.plan.row_size, net.plan.packs, whole("rows", rows)))


def predict_into(net: Any, x: Any, out: np.ndarray, scratch: np.ndarray) -> None:
    """As `Network.predict_into`."""
    result = net(x)
    for name, array in (("out", out), ("scratch", scratch)):
        if not (isinstance(array, np.ndarray) and array.flags.carray and array.dtype == net.dtype):
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(
                f"{name} must be a C-contiguous array of {net.dtype} that may be written, "
                f"got {kind}"
            )
    if out.shape != result.shape:
        raise ValueError(f"out must have shape {result.shape}, got {out.shape}")
    need = scratch_size(net, len(result) if result.ndim > 1 else 1)
    if scratch.ndim != 1 or scratch.size < need:
        raise ValueError(f"scratch must have shape ({need},) or more, got {scratch.shape}")
    out[...] = result


class CFunction:
    """A network as a C function: what `Network.cfunc` returns.

    Attributes
    ----------
    signature : str
        In C, the last argument being ``user_data``.
    address : int
        Of the function.
    user_data : int
        What must be handed to it, as ``void *``: it says which network. Valid as long as this
        object lives.
    ctypes : ctypes function
        The function, for ctypes and what understands its types.
    """

    def __init__(self, net: Any, signature: str) -> None:
        self.signature = one_of("signature", signature, in_c.SIGNATURES)
        if not JIT:
            raise RuntimeError("cfunc needs compiled code: unset NUMBA_DISABLE_JIT")
        if signature.startswith("double") and net.plan.fan_out != 1:
            raise ValueError(f"{signature} returns one output, got a network of {net.plan.fan_out}")
        code = in_c.c_function(signature, net.dtype.name)
        self.network, self.user_data = net, desk_of(net).address
        self.address, self.ctypes = code.address, code.ctypes

    def low_level_callable(self) -> Any:
        """The ``LowLevelCallable`` for `scipy.integrate`, `scipy.ndimage` and others.

        Raises
        ------
        ImportError
            Where there is no scipy.
        """
        try:
            from scipy import LowLevelCallable
        except ImportError:
            raise ImportError(
                "low_level_callable needs scipy: pip install 'fastnn-numba[scipy]'"
            ) from None
        data = ctypes.c_void_p(self.user_data)
        return LowLevelCallable(self.ctypes, data, self.signature)

    def __repr__(self) -> str:
        return f"CFunction({self.signature!r}, address={self.address:#x})"


def rows_of(net: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Data as `fit` takes them, of a single row as well."""
    x, plan = np.asarray(x), net.plan
    if x.ndim == 1:
        x, y = x[None], np.asarray(y)[None]
    return x.reshape(-1, *plan.in_shape) if x.ndim == 2 and x.shape[1] == plan.fan_in else x, y


def loss_and_gradient(net: Any, x: Any, y: Any) -> tuple[float, np.ndarray]:
    """As `Network.loss_and_gradient`."""
    loss, grads = net._differentiate(*rows_of(net, x, y))
    arrays = [grads[p.title].ravel() for p in net.plan.parameters]
    return loss, np.concatenate([*arrays, np.empty(0, net.dtype)])


def train_step(net: Any, x: Any, y: Any) -> float:
    """As `Network.train_step`."""
    return net.train_on_batch(*rows_of(net, x, y))["loss"]


def scaling(net: Any) -> tuple[float, float]:
    """Scale and offset of what the network sees."""
    return (net._input.scale, net._input.offset) if net._input else (1.0, 0.0)


def type_of(dtype: np.dtype) -> Any:
    """Numba's type of a network."""
    return in_njit.TYPES[dtype]


def differentiable(plan: Plan) -> bool:
    """Whether the output has a gradient with respect to the input."""
    return all(op_of(row).backward for row in plan.rows if row.when & PREDICT)
