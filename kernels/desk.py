"""A network inside other compiled code: numba's type of it, and what can be done with it there.

A function that numba compiles takes a ``fastnn.Network`` as it takes an array::

    @njit
    def rollout(policy, state):
        for _ in range(1000):
            state = step(state, policy(state))
        return state

What crosses the border is one number, the address of the network's *desk* (``DESK``): a record
that says where parameters, ops and compiled functions lie. The type knows the dtype and nothing
else, so a function is compiled once for all networks, and the methods here are thin: they check
shapes, find room, bring the rows in, and call what the desk says. Nothing of a kernel becomes part
of the user's function, which can therefore be kept on disk by numba's own cache.

Calls may run at the same time: each has its own room. Only `train_step` writes to what belongs to
the network.
"""

from functools import cache

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
    register_jitable,
    register_model,
    unbox,
)

from ._cache import source_key
from ._kernel import c_code, compiled, part
from ._memory import borrowed, call, pointer, pointer_at, shifted, vector
from ._op import OP, RULE, SOURCE, TERM, Net, row_values
from .gather import copy_scaled
from .gemm import FEW_ROWS, SCRATCH, ZEROS
from .noise import mixed
from .penalties import penalty, penalty_step
from .run import NO_KEY, copy, first_phase, scores, second_phase, weights_pass

DESK = np.dtype(
    [
        ("look", np.int64),  # addresses of the compiled functions (desk, net, lo, hi)
        ("back", np.int64),
        ("differentiable", np.int64),  # whether the output has a gradient with respect to x
        ("ops", np.int64),  # address of what a prediction runs, and how many they are
        ("ops_count", np.int64),
        ("params", np.int64),  # address, and how many there are
        ("size", np.int64),
        ("fan_in", np.int64),
        ("fan_out", np.int64),
        ("row_size", np.int64),  # numbers in work for each row of a batch
        ("out", np.int64),  # where the output lies there, as in OP
        ("scale", np.float64),  # the network sees x * scale + offset
        ("offset", np.float64),
        # What follows is there once code that needs it has been compiled or loaded.
        ("learn", np.int64),  # address of the compiled function (desk, net, score, moves)
        ("trainable", np.int64),  # whether there is a gradient with respect to the parameters
        ("steps", np.int64),  # whether the optimizer takes single steps
        ("learn_ops", np.int64),  # address of what training runs, and how many they are
        ("learn_count", np.int64),
        ("first", np.int64),  # as in Plan
        ("parts", np.int64),  # that a batch is cut into at the most
        ("rule", np.int64),  # addresses: of a RULE,
        ("terms", np.int64),  # of TERMs, and how many they are,
        ("terms_count", np.int64),
        ("grads", np.int64),  # of what a step sums up,
        ("state", np.int64),  # of the optimizer's memory,
        ("rates", np.int64),  # of the learning rates from step first_rate on
        ("first_rate", np.int64),
        ("rates_count", np.int64),  # 1 for a rate that never changes
        ("target", np.int64),  # where the targets lie in work, as in OP, and how many they are
        ("targets", np.int64),
        ("labels", np.int64),  # whether they may be given as labels
        ("signs", np.int64),  # whether they are -1 and 1, given as these or as 0 and 1
        ("target_scale", np.float64),  # the loss sees y * scale + offset
        ("target_offset", np.float64),
        ("no", np.float64),  # or these for a label
        ("yes", np.float64),
    ],
    align=True,
)
BLOCK = np.int64(256)  # rows that go through a network together
SMALL = np.int64(16)  # rows from which on regions begin on a line of the cache
STACK = 1024  # numbers that a call keeps on the stack, where they cost nothing
AN_OP, A_DESK, A_RULE, A_TERM, A_SOURCE = (
    np.zeros(1, kind)[0] for kind in (OP, DESK, RULE, TERM, SOURCE)
)
WRONG_X = "x must be a row (fan_in,) or rows (n, fan_in) for this network"
WRONG_OUT = "out must be (fan_out,) for a row x, (n, fan_out) for rows (n, fan_in)"
WRONG_GRAD = "grad_out must be (fan_out,) for a row x, (n, fan_out) for rows (n, fan_in)"
WRONG_Y = "y must be (n, targets), or (n,) labels or single targets; for a row x one of these"
WRONG_LABEL = "y must hold class labels from 0, below the number of outputs"
NOT_TRAINABLE = "this network cannot be trained: see what fit says of it"
NO_STEPS = "LBFGS cannot take single steps: call fit with all rows"
NO_RATES = "the schedule was asked for 65,536 learning rates at the start of the compiled call"
NO_GRADIENT = "step and Embedding have no gradient with respect to their input"
WRONG_ROOM = "scratch is too small: it must hold at least scratch_size(rows) numbers"


# ---------------------------------------------------------------------------
# What the desk's functions do.


@part(inline=True)
def predict_ops(desk):
    """The ops that a prediction runs."""
    return vector(pointer_at(desk.ops, AN_OP), 0, desk.ops_count)


def look(desk, net, lo, hi):
    """Outputs of the batch rows ``lo..hi``."""
    ops = predict_ops(desk)
    for i in range(ops.size):
        call(ops[i].forward, ops[i], net, lo, hi)


def back(desk, net, lo, hi):
    """From the gradient of the output to that of the input, for the batch rows ``lo..hi``."""
    ops = predict_ops(desk)
    for i in range(ops.size - 1, -1, -1):
        call(ops[i].backward, ops[i], net, lo, hi)


def learn(desk, net, score, moves):
    """Loss and gradient of a batch; with ``moves`` a step of the optimizer as well.

    The loss, penalties included, goes to the address ``score``. As in `run.train`, where it is
    not finite nothing moves.
    """
    ops = vector(pointer_at(desk.learn_ops, AN_OP), 0, desk.learn_count)
    rule = vector(pointer_at(desk.rule, A_RULE), 0, 1)[0]
    terms = vector(pointer_at(desk.terms, A_TERM), 0, desk.terms_count)
    sources = vector(pointer_at(np.int64(0), A_SOURCE), 0, 0)  # the rows are there already
    batch = Net(
        net.params, net.grads, net.work, net.grad_work, net.state, net.scratch, net.order,
        net.batch, net.capacity, 0, net.batch, mixed(rule.seed, rule.step), moves,
    )  # fmt: skip
    weight = penalty(terms, batch)
    meeting, size, parts = net.order, desk.size, desk.parts if moves else 1  # nobody to meet
    cut = first_phase(ops, sources, batch, desk.first, size, parts, meeting, 0, 1)
    loss, _ = scores(ops, batch)
    vector(pointer_at(score, 0.0), 0, 1)[0] = loss / net.batch + weight
    if moves == 0:
        weights_pass(ops, batch, 0, 1)
        for t in range(terms.size):
            count = terms[t].rows * terms[t].columns
            penalty_step(
                vector(net.params, terms[t].start, count), terms[t].l1, terms[t].l2, 0.0,
                vector(net.grads, terms[t].start, count),
            )  # fmt: skip
    elif np.isfinite(loss):
        rates = vector(pointer_at(desk.rates, 0.0), 0, desk.rates_count)
        rule.learning_rate = rates[0 if rates.size == 1 else rule.step - desk.first_rate]
        rule.step += 1
        factors = np.ones(terms.size)
        second_phase(ops, terms, factors, rule, batch, size, cut, meeting, 0, 1)


# ---------------------------------------------------------------------------
# The type.


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


@intrinsic
def place_of(typing, array):
    """The address of an array's first element."""

    def generate(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(array), generate


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
# What all methods share.


@part
def count_rows(desk, x):
    """How many rows ``x`` holds; raises where they are not this network's."""
    if x.ndim == 1:
        if x.shape[0] != desk.fan_in:
            raise ValueError(WRONG_X)
        return 1
    if x.shape[1] != desk.fan_in:
        raise ValueError(WRONG_X)
    return x.shape[0]


@register_jitable
def capacity_for(rows):
    """Rows that regions have room for, where so many go through the network together."""
    rows = min(rows, BLOCK)
    return rows if rows < SMALL else (rows + SMALL - 1) // SMALL * SMALL


@register_jitable
def room_for(row_size, rows):
    """Numbers that a prediction of so many rows needs: a product of few packs nothing."""
    return capacity_for(rows) * row_size + (ZEROS if rows < FEW_ROWS else SCRATCH)


@register_jitable
def grad_room_for(row_size, rows):
    """Numbers that a way there and back of so many rows needs."""
    return 2 * capacity_for(rows) * row_size + SCRATCH


@part
def bring_in(desk, x, start, count, room):
    """Copy rows of ``x`` to where the network reads them, in its dtype and scale."""
    width = desk.fan_in
    scale, offset = room.dtype.type(desk.scale), room.dtype.type(desk.offset)
    if x.ndim == 1:
        copy_scaled(x, scale, offset, room[:width])
    else:
        for b in range(count):
            copy_scaled(x[start + b], scale, offset, room[b * width : (b + 1) * width])


@part
def batch_of(desk, room, work, grad_work, scratch, count, capacity):
    """A batch as the ops see it; of ``room`` each part begins at an offset."""
    base = pointer(room)
    return Net(
        pointer_at(desk.params, room), base, shifted(base, work), shifted(base, grad_work), base,
        shifted(base, scratch), pointer_at(np.int64(0), np.int64(0)), count, capacity, 0, count,
        NO_KEY, 0,
    )  # fmt: skip


@part
def fill(desk, x, rows, room, out):
    """Write the outputs of all rows to ``out``, flat, in ``room_for(...)`` numbers."""
    capacity = capacity_for(rows)
    scratch = capacity * desk.row_size
    if rows < FEW_ROWS:  # such products touch the end of theirs alone
        scratch -= SCRATCH - ZEROS
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        bring_in(desk, x, start, count, room)
        net = batch_of(desk, room, 0, 0, scratch, count, capacity)
        call(desk.look, desk, net, 0, count)
        copy(
            row_values(net, net.work, desk.out, desk.fan_out, 0, count),
            out[start * desk.fan_out : (start + count) * desk.fan_out],
        )


@part
def pull(desk, x, grad_out, rows, room, grad_x):
    """Write the gradient of ``sum(out * grad_out)`` to ``grad_x``, flat, in ``grad_room_for``."""
    capacity = capacity_for(rows)
    size = capacity * desk.row_size
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        bring_in(desk, x, start, count, room)
        net = batch_of(desk, room, 0, size, 2 * size, count, capacity)
        call(desk.look, desk, net, 0, count)
        grads = room[size + desk.out * capacity :]
        kind, width = room.dtype.type, desk.fan_out
        if x.ndim == 1:
            copy_scaled(grad_out, kind(1), kind(0), grads[:width])
        else:
            for b in range(count):
                copy_scaled(grad_out[start + b], kind(1), kind(0), grads[b * width :][:width])
        call(desk.back, desk, net, 0, count)
        values = count * desk.fan_in
        copy_scaled(
            room[size : size + values], kind(desk.scale), kind(0),
            grad_x[start * desk.fan_in :][:values],
        )  # fmt: skip


@part
def jacobians(desk, x, rows, room, result):
    """Write d out / d x, (fan_out, fan_in) for each row, to ``result``, flat.

    The batch is as many copies of a row as there are outputs, and pulls the unit vectors back.
    """
    capacity = capacity_for(desk.fan_out)
    size, width = capacity * desk.row_size, desk.fan_in
    kind, done = room.dtype.type, 0
    scale, offset, zero = kind(desk.scale), kind(desk.offset), kind(0)
    for b in range(rows):
        for start in range(0, desk.fan_out, BLOCK):
            count = min(BLOCK, desk.fan_out - start)
            for o in range(count):
                if x.ndim == 1:
                    copy_scaled(x, scale, offset, room[o * width :][:width])
                else:
                    copy_scaled(x[b], scale, offset, room[o * width :][:width])
            net = batch_of(desk, room, 0, size, 2 * size, count, capacity)
            call(desk.look, desk, net, 0, count)
            grads = room[size + desk.out * capacity :][: count * desk.fan_out]
            grads[:] = zero
            for o in range(count):
                grads[o * desk.fan_out + start + o] = kind(1)
            call(desk.back, desk, net, 0, count)
            copy_scaled(room[size:][: count * width], scale, zero, result[done:][: count * width])
            done += count * width


@register_jitable
def learn_room_for(row_size, rows):
    """Numbers that learning from so many rows at once needs."""
    return 2 * ((rows + SMALL - 1) // SMALL * SMALL) * row_size + SCRATCH


@part
def check_targets(desk, y, column, rows):
    """Raise where ``y`` does not fit; a ``column`` has one number or label for each row."""
    if desk.trainable == 0:
        raise ValueError(NOT_TRAINABLE)
    if rows == 0:
        raise ValueError(WRONG_X)
    if y.ndim == 2:
        if y.shape[0] != rows or y.shape[1] != desk.targets:
            raise ValueError(WRONG_Y)
    elif not column:
        if y.shape[0] != desk.targets:
            raise ValueError(WRONG_Y)
    else:
        if y.shape[0] != rows or (desk.targets > 1 and desk.labels == 0):
            raise ValueError(WRONG_Y)
        if desk.targets > 1:
            for b in range(rows):
                label = np.int64(y[b])
                if label != y[b] or not 0 <= label < desk.targets:
                    raise ValueError(WRONG_LABEL)


@part
def bring_targets(desk, y, column, rows, target):
    """Copy what `check_targets` has seen to where the loss reads it."""
    kind, width = target.dtype.type, desk.targets
    scale, offset = kind(desk.target_scale), kind(desk.target_offset)
    if y.ndim == 2:
        for b in range(rows):
            copy_scaled(y[b], scale, offset, target[b * width :][:width])
    elif column and width > 1:
        target[:] = kind(desk.no)
        for b in range(rows):
            target[b * width + np.int64(y[b])] = kind(desk.yes)
        return
    else:
        copy_scaled(y, scale, offset, target)
    if desk.signs:
        for i in range(target.size):
            target[i] = kind(-1) if target[i] <= kind(0) else kind(1)


@part
def teach(desk, x, y, column, rows, room, grads, moves):
    """Loss of a batch, penalties included; its gradient or a step."""
    capacity = (rows + SMALL - 1) // SMALL * SMALL
    size = capacity * desk.row_size
    bring_in(desk, x, 0, rows, room)
    values = rows * desk.targets
    bring_targets(desk, y, column, rows, room[desk.target * capacity :][:values])
    work = pointer(room)
    net = Net(
        pointer_at(desk.params, room), grads, work, shifted(work, size),
        pointer_at(desk.state, room), shifted(work, 2 * size), pointer_at(np.int64(0), np.int64(0)),
        rows, capacity, 0, rows, NO_KEY, 0,
    )  # fmt: skip
    score = np.zeros(1)
    call(desk.learn, desk, net, place_of(score), moves)
    return score[0]


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
    return room_for(desk_of(self).row_size, np.int64(rows))


@overload_method(NetworkType, "predict_into")
def _predict_into(self, x, out, scratch):
    check_rows("predict_into", "x", x)
    check_own("predict_into", "out", out, self, (x.ndim,))
    check_own("predict_into", "scratch", scratch, self, (1,))
    return predict_into


def predict_into(self, x, out, scratch):
    """Write the outputs of a row or of rows to ``out``; nothing is allocated."""
    desk = desk_of(self)
    rows = count_rows(desk, x)
    if out.shape[0] != (desk.fan_out if x.ndim == 1 else rows) or out.size != rows * desk.fan_out:
        raise ValueError(WRONG_OUT)
    if scratch.size < room_for(desk.row_size, rows):
        raise ValueError(WRONG_ROOM)
    fill(desk, x, rows, scratch, out.reshape(out.size))


@overload_method(NetworkType, "__call__")
def _call(self, x):
    check_rows("network(x)", "x", x)
    return predict


@overload_method(NetworkType, "predict")
def _predict(self, x):
    check_rows("predict", "x", x)
    return predict


def predict(self, x):
    """Output for a row, or outputs for rows."""
    desk = desk_of(self)
    rows = count_rows(desk, x)
    room = on_stack(self)
    if x.ndim == 1:
        out = np.empty(desk.fan_out, room.dtype)
    else:
        out = np.empty((rows, desk.fan_out), room.dtype)
    need = room_for(desk.row_size, rows)
    if need > STACK:
        room = np.empty(need, room.dtype)
    fill(desk, x, rows, room, out.reshape(out.size))
    return out


@lower_builtin(NetworkType, types.VarArg(types.Any))
def _lower_call(context, builder, signature, args):
    return context.compile_internal(builder, predict, signature, args)


@overload_method(NetworkType, "vjp")
def _vjp(self, x, grad_out):
    check_rows("vjp", "x", x)
    check_rows("vjp", "grad_out", grad_out)
    if x.ndim != grad_out.ndim:
        raise errors.TypingError(f"vjp: {WRONG_GRAD}, got {x} and {grad_out}")
    return vjp


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
    pull(desk, x, grad_out, rows, room, grad_x.reshape(grad_x.size))
    return grad_x


@overload_method(NetworkType, "jacobian")
def _jacobian(self, x):
    check_rows("jacobian", "x", x)
    return jacobian


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
    jacobians(desk, x, rows, room, result.reshape(result.size))
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
        return lambda self, x, y: loss_and_gradient_of(self, x, np.full(1, y), True)
    column = x.ndim > y.ndim
    return lambda self, x, y: loss_and_gradient_of(self, x, y, column)


@part
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
        return lambda self, x, y: train_step_of(self, x, np.full(1, y), True)
    column = x.ndim > y.ndim
    return lambda self, x, y: train_step_of(self, x, y, column)


@part
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
    return teach(desk, x, y, column, rows, room, pointer_at(desk.grads, room), 1)


# ---------------------------------------------------------------------------
# The same for Python.


@part(inline=True)
def desk_at(address):
    """The desk that lies at an address."""
    return vector(pointer_at(address, A_DESK), 0, 1)[0]


@compiled
def pull_rows(address, x, grad_out, room, grad_x):
    """`vjp` of rows (n, fan_in), all of the network's dtype."""
    pull(desk_at(address), x, grad_out, x.shape[0], room, grad_x)


@compiled
def jacobian_rows(address, x, room, result):
    """`jacobian` of rows (n, fan_in), all of the network's dtype."""
    jacobians(desk_at(address), x, x.shape[0], room, result)


# ---------------------------------------------------------------------------
# The same for C.


@part
def answer(desk, x, count, out, room):
    """Write the output for ``count`` numbers to ``out``; whether they were as many as go in."""
    if count != desk.fan_in:
        return np.intc(0)
    result = room[room.size - desk.fan_out :]
    fill(desk, vector(x, 0, count), 1, room, result)
    target = vector(out, 0, desk.fan_out)
    for o in range(desk.fan_out):
        target[o] = result[o]
    return np.intc(1)


@part(inline=True)
def numbers_for(desk):
    """Room for a prediction of one row, and for its output."""
    return room_for(desk.row_size, 1) + desk.fan_out


def write_float32(x, count, out, desk):
    """``int f(double *x, intptr_t count, double *out, void *desk)``."""
    where = desk_at(desk)
    return answer(where, x, count, out, np.empty(numbers_for(where), np.float32))


def write_float64(x, count, out, desk):
    """Likewise, of a network of float64."""
    where = desk_at(desk)
    return answer(where, x, count, out, np.empty(numbers_for(where), np.float64))


def value_float32(count, x, desk):
    """``double f(int count, double *x, void *desk)``, of one output; NaN for another count."""
    result = np.full(1, np.nan)
    write_float32_part(x, np.intp(count), pointer(result), desk)
    return result[0]


def value_float64(count, x, desk):
    """Likewise, of a network of float64."""
    result = np.full(1, np.nan)
    write_float64_part(x, np.intp(count), pointer(result), desk)
    return result[0]


write_float32_part, write_float64_part = part(write_float32), part(write_float64)
_DOUBLES = types.CPointer(types.float64)
# What C programs and scipy know such functions by: how numba has them, and the Python functions.
SIGNATURES = {
    "int (double *, intptr_t, double *, void *)": (
        types.intc(_DOUBLES, types.intp, _DOUBLES, types.intp),
        {"float32": write_float32, "float64": write_float64},
    ),
    "double (int, double *, void *)": (
        types.float64(types.intc, _DOUBLES, types.intp),
        {"float32": value_float32, "float64": value_float64},
    ),
}


@cache
def c_function(signature, dtype):
    """A compiled C function; it must stay alive as long as anybody has its address."""
    numba_signature, functions = SIGNATURES[signature]
    return c_code(functions[dtype], numba_signature)
