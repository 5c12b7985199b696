"""A network inside other compiled code: numba's type of it, and what can be done with it there.

A function that numba compiles takes a ``fastnn.Network`` as it takes an array::

    @njit
    def rollout(policy, state):
        for _ in range(1000):
            state = step(state, policy(state))
        return state

What crosses the border is one number, the address of the network's desk (`desk.DESK`). The type
knows the dtype and nothing else, so a function is compiled once for all networks, and the methods
here are thin: they check shapes, find room, bring the rows in, and call what the desk says. Nothing
of a kernel becomes part of the user's function, which can therefore be kept on disk by numba's own
cache.

Calls may run at the same time: each has its own room. Only `train_step` writes to what belongs to
the network, and raises where somebody trains it already.
"""

import numpy as np
from numba import from_dtype, types
from numba.core import cgutils, errors
from numba.extending import (
    NativeValue,
    box,
    intrinsic,
    lower_builtin,
    models,
    overload_method,
    register_model,
    unbox,
)

from ._cache import source_key
from ._kernel import part
from ._memory import borrowed, lent, pointer, pointer_at, vector
from .desk import (
    A_RULE,
    DESK,
    NO_GRADIENT,
    NO_RATES,
    NO_STEPS,
    STACK,
    TAKEN,
    WRONG_GRAD,
    WRONG_OUT,
    WRONG_ROOM,
    WRONG_Y,
    check_targets,
    count_rows,
    fill,
    grad_room_for,
    jacobians,
    learn_room_for,
    pull,
    room_for,
    take,
    teach,
)  # fmt: skip


class NetworkType(types.Type):
    """Numba's type of a network: its dtype, whatever its layers.

    Code that was compiled for another version of the kernels is of another type, and never found.
    """

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"fastnn.Network({dtype}, {source_key()})")


TYPES = {np.dtype(name): NetworkType(getattr(types, name)) for name in ("float32", "float64")}


@register_model(NetworkType)
class NetworkModel(models.StructModel):
    """The desk's address, and the Python object to give back."""

    def __init__(self, manager, network):
        super().__init__(manager, network, [("desk", types.intp), ("python", types.voidptr)])


@unbox(NetworkType)
def _to_compiled(network, value, c):
    """Ask the network for the address of its desk."""
    result = cgutils.create_struct_proxy(network)(c.context, c.builder)
    number = c.pyapi.object_getattr_string(value, "_numba_desk_")
    failed = cgutils.is_null(c.builder, number)
    with c.builder.if_then(c.builder.not_(failed), likely=True):
        result.desk = c.pyapi.number_as_ssize_t(number)
        c.pyapi.decref(number)
    result.python = c.builder.bitcast(value, cgutils.voidptr_t)
    return NativeValue(result._getvalue(), is_error=failed)


@box(NetworkType)
def _to_python(network, value, c):
    """The object that came in, which whoever called still holds."""
    python = cgutils.create_struct_proxy(network)(c.context, c.builder, value).python
    result = c.builder.bitcast(python, c.pyapi.pyobj)
    c.pyapi.incref(result)
    return result


@intrinsic
def desk_of(typing, network):
    """The desk of a network."""

    def generate(context, builder, signature, args):
        desk = cgutils.create_struct_proxy(network)(context, builder, args[0]).desk
        return builder.inttoptr(desk, context.get_value_type(signature.return_type))

    return from_dtype(DESK)(network), generate


@intrinsic
def on_stack(typing, network):
    """``STACK`` numbers of the network's dtype that are there until the function returns."""
    array = types.Array(network.dtype, 1, "C")

    def generate(context, builder, signature, args):
        size = context.get_constant(types.intp, STACK)
        data = cgutils.alloca_once(builder, context.get_data_type(network.dtype), STACK)
        return borrowed(context, builder, array, data, [size], None)

    return array(network), generate


# What compiled code needs of a desk beside predictions: its compilation adds to the set, and so
# does numba when it loads such code from its cache.
WANTED = set()


def want_gradients():
    """From now on desks know the way back to the input."""
    WANTED.add("gradients")


def want_learning():
    """From now on desks know how to learn."""
    WANTED.add("learning")


def _wanting(want):
    @intrinsic
    def note(typing):
        def generate(context, builder, signature, args):
            want()
            context.active_code_library._reload_init.add(want)
            return context.get_dummy_value()

        return types.void(), generate

    return note


gradients_wanted, learning_wanted = _wanting(want_gradients), _wanting(want_learning)


# ---------------------------------------------------------------------------
# The methods.


def check_rows(method, name, x):
    """Refuse, while the caller is compiled, what is no array of rows."""
    fits = isinstance(x, types.Array) and x.ndim in (1, 2)
    if not fits or not isinstance(x.dtype, types.Integer | types.Float | types.Boolean):
        raise errors.TypingError(
            f"{method}: {name} must be an array of real numbers, a row or rows (n, width), got {x}"
        )


def check_own(method, name, array, network, dims):
    """Refuse, while the caller is compiled, what is no contiguous array of the network's dtype."""
    fits = isinstance(array, types.Array) and array.ndim in dims
    if not fits or array.layout != "C" or not array.mutable or array.dtype != network.dtype:
        raise errors.TypingError(
            f"{method}: {name} must be a C-contiguous array of {network.dtype} "
            f"that may be written, got {array}"
        )


@overload_method(NetworkType, "scratch_size")
def _scratch_size(self, rows=1):
    return scratch_size


def scratch_size(self, rows=1):
    """Numbers that `predict_into` needs."""
    return room_for(desk_of(self).row_size, desk_of(self).packs, np.int64(rows))


@overload_method(NetworkType, "predict_into")
def _predict_into(self, x, out, scratch):
    check_rows("predict_into", "x", x)
    check_own("predict_into", "out", out, self, (x.ndim,))
    check_own("predict_into", "scratch", scratch, self, (1,))
    return lambda self, x, out, scratch: predict_into(self, lent(x), lent(out), lent(scratch))


@part
def predict_into(self, x, out, scratch):
    """Write the outputs of a row or of rows to ``out``; nothing is allocated."""
    desk = desk_of(self)
    rows = count_rows(desk, x)
    if out.shape[0] != (desk.fan_out if x.ndim == 1 else rows) or out.size != rows * desk.fan_out:
        raise ValueError(WRONG_OUT)
    if scratch.size < room_for(desk.row_size, desk.packs, rows):
        raise ValueError(WRONG_ROOM)
    fill(desk, x, rows, scratch, vector(pointer(out), 0, out.size))


@overload_method(NetworkType, "__call__")
def _call(self, x):
    check_rows("network(x)", "x", x)
    return predict_lent


@overload_method(NetworkType, "predict")
def _predict(self, x):
    check_rows("predict", "x", x)
    return predict_lent


def predict_lent(self, x):
    """`predict` of an array that the caller keeps."""
    return predict(self, lent(x))


@part(allocates=True)
def predict(self, x):
    """Output for a row, or outputs for rows."""
    desk = desk_of(self)
    rows = count_rows(desk, x)
    room = on_stack(self)
    if x.ndim == 1:
        out = np.empty(desk.fan_out, room.dtype)
    else:
        out = np.empty((rows, desk.fan_out), room.dtype)
    need = room_for(desk.row_size, desk.packs, rows)
    if need > STACK:
        room = np.empty(need, room.dtype)
    fill(desk, x, rows, room, vector(pointer(out), 0, out.size))
    return out


@lower_builtin(NetworkType, types.VarArg(types.Any))
def _lower_call(context, builder, signature, args):
    return context.compile_internal(builder, predict_lent, signature, args)


@overload_method(NetworkType, "vjp")
def _vjp(self, x, grad_out):
    check_rows("vjp", "x", x)
    check_rows("vjp", "grad_out", grad_out)
    if x.ndim != grad_out.ndim:
        raise errors.TypingError(f"vjp: {WRONG_GRAD}, got {x} and {grad_out}")
    return lambda self, x, grad_out: vjp(self, lent(x), lent(grad_out))


@part(allocates=True)
def vjp(self, x, grad_out):
    """Gradient of ``sum(out * grad_out)`` with respect to a row or to rows."""
    gradients_wanted()
    desk = desk_of(self)
    rows = count_rows(desk, x)
    if desk.differentiable == 0:
        raise ValueError(NO_GRADIENT)
    if grad_out.shape[0] != (desk.fan_out if x.ndim == 1 else rows):
        raise ValueError(WRONG_GRAD)
    if grad_out.size != rows * desk.fan_out:
        raise ValueError(WRONG_GRAD)
    room = np.empty(grad_room_for(desk.row_size, rows), on_stack(self).dtype)
    if x.ndim == 1:
        grad_x = np.empty(desk.fan_in, room.dtype)
    else:
        grad_x = np.empty((rows, desk.fan_in), room.dtype)
    pull(desk, x, grad_out, rows, room, vector(pointer(grad_x), 0, grad_x.size))
    return grad_x


@overload_method(NetworkType, "jacobian")
def _jacobian(self, x):
    check_rows("jacobian", "x", x)
    return lambda self, x: jacobian(self, lent(x))


@part(allocates=True)
def jacobian(self, x):
    """D out / d x: (fan_out, fan_in) for a row, (n, fan_out, fan_in) for rows."""
    gradients_wanted()
    desk = desk_of(self)
    rows = count_rows(desk, x)
    if desk.differentiable == 0:
        raise ValueError(NO_GRADIENT)
    room = np.empty(grad_room_for(desk.row_size, desk.fan_out), on_stack(self).dtype)
    if x.ndim == 1:
        result = np.empty((desk.fan_out, desk.fan_in), room.dtype)
    else:
        result = np.empty((rows, desk.fan_out, desk.fan_in), room.dtype)
    jacobians(desk, x, rows, room, vector(pointer(result), 0, result.size))
    return result


def check_learning(method, x, y):
    """Refuse, while the caller is compiled, what cannot be rows with their targets."""
    check_rows(method, "x", x)
    single = isinstance(y, types.Integer | types.Float | types.Boolean) and x.ndim == 1
    if not single:
        check_rows(method, "y", y)
        if y.ndim > x.ndim:
            raise errors.TypingError(f"{method}: {WRONG_Y}, got {x} and {y}")
    return single


@overload_method(NetworkType, "loss_and_gradient")
def _loss_and_gradient(self, x, y):
    if check_learning("loss_and_gradient", x, y):
        return lambda self, x, y: loss_and_gradient_of(self, lent(x), np.full(1, y), True)
    column = x.ndim > y.ndim
    return lambda self, x, y: loss_and_gradient_of(self, lent(x), lent(y), column)


@part(allocates=True)
def loss_and_gradient_of(self, x, y, column):
    """Mean loss of the rows, and its gradient in the map of the parameters."""
    learning_wanted()
    desk = desk_of(self)
    rows = count_rows(desk, x)
    check_targets(desk, y, column, rows)
    room = np.empty(learn_room_for(desk.row_size, rows), on_stack(self).dtype)
    grads = np.zeros(desk.size, room.dtype)
    loss = teach(desk, x, y, column, rows, room, pointer(grads), 0)
    return loss, grads


@overload_method(NetworkType, "train_step")
def _train_step(self, x, y):
    if check_learning("train_step", x, y):
        return lambda self, x, y: train_step_of(self, lent(x), np.full(1, y), True)
    column = x.ndim > y.ndim
    return lambda self, x, y: train_step_of(self, lent(x), lent(y), column)


@part(allocates=True)
def train_step_of(self, x, y, column):
    """One step of the optimizer; the mean loss before it."""
    learning_wanted()
    desk = desk_of(self)
    rows = count_rows(desk, x)
    check_targets(desk, y, column, rows)
    if desk.steps == 0:
        raise ValueError(NO_STEPS)
    if desk.rates_count > 1:
        rule = vector(pointer_at(desk.rule, A_RULE), 0, 1)[0]
        if not 0 <= rule.step - desk.first_rate < desk.rates_count:
            raise RuntimeError(NO_RATES)
    room = np.empty(learn_room_for(desk.row_size, rows), on_stack(self).dtype)
    if not take(desk, np.int64(0), np.int64(1)):
        raise RuntimeError(TAKEN)
    loss = teach(desk, x, y, column, rows, room, pointer_at(desk.grads, room), 1)
    take(desk, np.int64(1), np.int64(0))
    return loss
