"""Derivatives of a network's output, and second derivatives of its loss.

Backward, by the compiled kernels: `vjp` pulls a gradient of the output back to the input,
`jacobian` does so for every output. Forward, by dual numbers (`fastnn.dual`) through the numpy
formulas, in float64: `jvp` through those of a prediction, `hessian_vector_product` through those of
a gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import desk, fitting, reference, sources
from fastnn._check import numbers
from fastnn.dual import Dual
from fastnn.kernels import desk as kernels
from fastnn.kernels._kernel import JIT, KERNELS
from fastnn.kernels._op import PREDICT, Buffers
from fastnn.kernels.in_njit import want_gradients
from fastnn.kernels.noise import key_of
from fastnn.reference import Batch

__all__ = ["hessian_vector_product", "jacobian", "jvp", "vjp"]


def vjp(net: Any, x: Any, grad_out: Any) -> np.ndarray:
    """As `Network.vjp`."""
    rows, samples = _rows(net, x)
    wanted = (*samples, net.plan.fan_out)
    grads = numbers("grad_out", grad_out)
    if grads.shape != wanted:
        raise ValueError(f"grad_out must have shape {wanted}, got {grads.shape}")
    grads = np.ascontiguousarray(grads, net.dtype).reshape(len(rows), -1)
    result = np.empty(rows.shape, net.dtype)
    if JIT and net.backend == "compiled":
        want_gradients()
        room = np.empty(kernels.grad_room_for(net.plan.row_size, len(rows)), net.dtype)
        kernels.pull_rows(net._numba_desk_, rows, grads, room, result.reshape(-1))
    else:
        result[...] = _pull(net, rows, grads)
    return result.reshape(np.shape(x))


def jacobian(net: Any, x: Any) -> np.ndarray:
    """As `Network.jacobian`."""
    rows, samples = _rows(net, x)
    outs = net.plan.fan_out
    result = np.empty((len(rows), outs, net.plan.fan_in), net.dtype)
    if JIT and net.backend == "compiled":
        want_gradients()
        room = np.empty(kernels.grad_room_for(net.plan.row_size, outs), net.dtype)
        kernels.jacobian_rows(net._numba_desk_, rows, room, result.reshape(-1))
    else:
        for i, row in enumerate(rows):
            result[i] = _pull(net, np.tile(row, (outs, 1)), np.eye(outs))
    return result.reshape(*samples, outs, net.plan.fan_in)


def jvp(net: Any, x: Any, v: Any) -> np.ndarray:
    """As `Network.jvp`."""
    rows, samples = _rows(net, x)
    along = numbers("v", v)
    if along.shape != np.shape(x):
        raise ValueError(f"v must have the shape of x, {np.shape(x)}, got {along.shape}")
    plan, n = net.plan, len(rows)
    work = _zeros(n * plan.row_size)
    scale, offset = desk.scaling(net)
    work[: rows.size] = Dual(rows.ravel() * scale + offset, along.ravel() * scale)
    with np.errstate(all="ignore"):
        reference.forward(plan.rows, _batch(net.params, None, work, None, n), PREDICT)
    out = work.tangent[plan.out * n :][: n * plan.fan_out]
    return out.reshape(*samples, plan.fan_out).astype(net.dtype)


def hessian_vector_product(net: Any, x: Any, y: Any, v: Any) -> np.ndarray:
    """As `Network.hessian_vector_product`."""
    net._plan = plan = net.plan.following(net.layers)
    along = numbers("v", v)
    if along.shape != net.params.shape:
        raise ValueError(f"v must have the shape of params, {net.params.shape}, got {along.shape}")
    x, y = desk.rows_of(net, x, y)
    pair, _ = net._pair(x, y)
    fitting.check_trainable(net, plan)
    n = len(pair[0].array)
    moves = np.zeros(plan.size)
    for p in plan.parameters:
        if p.trainable:
            p.of(moves)[...] = p.of(along)
    params, grads = Dual(net.params.astype(float), moves), _zeros(plan.size)
    key = key_of(*net._rule[["seed", "step"]][0])
    work, grad_work = _zeros(n * plan.row_size), _zeros(n * plan.row_size)
    batch = _batch(params, grads, work, grad_work, n, key)
    with np.errstate(all="ignore"):
        ops = plan.for_metric("", False)
        reference.differentiate(ops, pair, batch, np.arange(n), plan.first)
        for term, param, grad in reference.views(net._terms(net._rule), batch.buffers):
            weighs = {"l1": term.l1, "l2": term.l2, "limit": 0}
            reference.call(KERNELS["penalty_step"], {"param": param, "grad": grad} | weighs)
    return grads.tangent.astype(net.dtype)


def _zeros(size: int) -> Dual:
    return Dual(np.zeros(size), np.zeros(size))


def _batch(params: Any, grads: Any, work: Any, grad_work: Any, n: int, key: int = 0) -> Batch:
    none: Any = None
    return Batch(Buffers(params, grads, work, grad_work, none, none), n, n, key)


def _rows(net: Any, x: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Rows (n, fan_in) of the network's dtype; and ``(n,)``, or ``()`` for a single sample."""
    plan = net.plan
    if not desk.differentiable(plan):
        raise ValueError(kernels.NO_GRADIENT)
    array = np.asarray(x)
    single = array.shape in ((plan.fan_in,), plan.in_shape)
    if single or array.shape[1:] == plan.in_shape:
        array = array.reshape(-1, plan.fan_in)
    source = sources.inputs(array, net.dtype, (plan.fan_in,))
    rows = np.ascontiguousarray(source.array, net.dtype)
    return rows, () if single else (len(rows),)


@reference.quiet
def _pull(net: Any, x: np.ndarray, grad_out: np.ndarray) -> np.ndarray:
    """The way there and back, by the formulas."""
    plan, n = net.plan, len(x)
    work, grad_work = np.zeros((2, n * plan.row_size), net.dtype)
    batch = _batch(net.params, None, work, grad_work, n)
    scale, offset = desk.scaling(net)
    work[: x.size] = (x * scale + offset).ravel()
    reference.forward(plan.rows, batch, PREDICT)
    grad_work[plan.out * n :][: grad_out.size] = grad_out.ravel()
    ops = [row for row in plan.rows[::-1] if row.when & PREDICT]
    reference.make(reference.parts("backward", ops, batch))
    return grad_work[: x.size].reshape(x.shape) * scale
