"""The desk of a network: where other compiled code finds what it needs of it.

It is a record (``DESK``) that says where parameters, ops and compiled functions lie; its address
stands for the network. The functions here do a network's work with nothing but that address, some
rows and some room: `in_njit` makes methods of them for numba, `in_c` functions for C, and Python
calls two of them for derivatives.
"""

import numpy as np
from numba import types
from numba.extending import (
    intrinsic,
    register_jitable,
)

from ._kernel import compiled, part
from ._memory import call, exchanged, pointer, pointer_at, room_like, shifted, vector
from ._op import OP, RULE, SOURCE, Net, placed, row_values
from ._shares import evenly, nobodys
from ._team import ALONE, FIRST
from .gather import copy_scaled
from .gemm import FEW_ROWS, SCRATCH, ZEROS
from .noise import mixed
from .run import NO_KEY, copy, first_phase, penalty, scores, second_phase, weights_pass

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
        ("packs", np.int64),  # whether a few rows need as much scratch as many
        ("out", np.int64),  # where the output lies there, as in OP
        ("scale", np.float64),  # the network sees x * scale + offset
        ("offset", np.float64),
        # What follows is there once code that needs it has been compiled or loaded.
        ("learn", np.int64),  # address of the compiled function (desk, net, score, moves)
        ("trainable", np.int64),  # whether there is a gradient with respect to the parameters
        ("steps", np.int64),  # whether the optimizer takes single steps
        ("taken", np.int64),  # address of a number that is not 0 while somebody trains the network
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
AN_OP, A_DESK, A_RULE, A_SOURCE = (np.zeros(1, kind)[0] for kind in (OP, DESK, RULE, SOURCE))
WRONG_X = "x must be a row (fan_in,) or rows (n, fan_in) for this network"
WRONG_OUT = "out must be (fan_out,) for a row x, (n, fan_out) for rows (n, fan_in)"
WRONG_GRAD = "grad_out must be (fan_out,) for a row x, (n, fan_out) for rows (n, fan_in)"
WRONG_Y = "y must be (n, targets), or (n,) labels or single targets; for a row x one of these"
WRONG_LABEL = "y must hold class labels from 0, below the number of outputs"
NOT_TRAINABLE = "this network cannot be trained: see what fit says of it"
NO_STEPS = "LBFGS cannot take single steps: call fit with all rows"
NO_RATES = "the schedule was asked for 65,536 learning rates at the start of the compiled call"
TAKEN = "the network is being trained: one thread at a time; give each a copy of its own"
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
    rule.terms, rule.terms_count = desk.terms, desk.terms_count  # `fit` brings terms of its own
    sources = vector(pointer_at(np.int64(0), A_SOURCE), 0, 0)  # the rows are there already
    batch = placed(Net(
        net.params, net.grads, net.work, net.grad_work, net.state, net.scratch, net.order,
        net.batch, net.capacity, 0, net.batch, mixed(rule.seed, rule.step), moves,
    ))  # fmt: skip
    weight = penalty(rule, batch)
    meeting, size, parts = net.order, desk.size, desk.parts if moves else 1  # nobody to meet
    shares, first = nobodys(), desk.first
    cut = first_phase(ops, sources, batch, first, size, parts, shares, meeting, FIRST, ALONE)
    loss, _ = scores(ops, batch)
    vector(pointer_at(score, 0.0), 0, 1)[0] = loss / net.batch + weight
    if moves == 0:
        weights_pass(ops, batch, evenly(FIRST, ALONE))
        if rule.penalize != 0:
            call(rule.penalize, rule, batch, 0, size)
    elif np.isfinite(loss):
        rates = vector(pointer_at(desk.rates, 0.0), 0, desk.rates_count)
        rule.learning_rate = rates[0 if rates.size == 1 else rule.step - desk.first_rate]
        rule.step += 1
        second_phase(ops, rule, batch, size, cut, shares, meeting, FIRST, ALONE)


# ---------------------------------------------------------------------------
# Rows through the network, forward and back, and steps.


@intrinsic
def place_of(typing, array):
    """The address of an array's first element."""

    def generate(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(array), generate


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
def room_for(row_size, packs, rows):
    """Numbers that a prediction of so many rows needs: a product of few packs nothing."""
    return capacity_for(rows) * row_size + (ZEROS if rows < FEW_ROWS and not packs else SCRATCH)


@register_jitable
def grad_room_for(row_size, rows):
    """Numbers that a way there and back of so many rows needs."""
    return 2 * capacity_for(rows) * row_size + SCRATCH


@part
def bring_in(desk, x, start, count, room):
    """Copy rows of ``x`` to where the network reads them, in its dtype and scale."""
    scale, offset = room.dtype.type(desk.scale), room.dtype.type(desk.offset)
    copy_rows(x, start, count, desk.fan_in, scale, offset, pointer(room))


@part
def copy_rows(x, start, count, width, scale, offset, out):
    """``out = x * scale + offset`` for a row ``x``, or ``count`` rows of it from ``start`` on."""
    if x.ndim == 1:
        copy_scaled(x, scale, offset, vector(out, 0, x.size))
    elif x.strides[x.ndim - 1] == x.itemsize and x.strides[0] == width * x.itemsize:
        whole = vector(shifted(pointer(x), start * width), 0, count * width)
        copy_scaled(whole, scale, offset, vector(out, 0, whole.size))
    else:
        for b in range(count):
            copy_scaled(x[start + b], scale, offset, vector(out, b * width, width))


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
    if rows < FEW_ROWS and not desk.packs:  # such products touch the end of theirs alone
        scratch -= SCRATCH - ZEROS
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        bring_in(desk, x, start, count, room)
        net = placed(batch_of(desk, room, 0, 0, scratch, count, capacity))
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
        net = placed(batch_of(desk, room, 0, size, 2 * size, count, capacity))
        call(desk.look, desk, net, 0, count)
        kind = room.dtype.type
        grads = shifted(pointer(room), size + desk.out * capacity)
        copy_rows(grad_out, start, count, desk.fan_out, kind(1), kind(0), grads)
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
            net = placed(batch_of(desk, room, 0, size, 2 * size, count, capacity))
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
        copy_rows(y, 0, rows, width, scale, offset, pointer(target))
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
def take(desk, free, taken):
    """Have the network for a step, or give it back; whether it was as it had to be."""
    return exchanged(pointer_at(desk.taken, np.int64(0)), free, taken) == free


@part
def teach(desk, x, y, column, rows, room, grads, moves):
    """Loss of a batch, penalties included; its gradient or a step."""
    capacity = (rows + SMALL - 1) // SMALL * SMALL
    size = capacity * desk.row_size
    bring_in(desk, x, 0, rows, room)
    work = pointer(room)
    bring_targets(desk, y, column, rows, vector(work, desk.target * capacity, rows * desk.targets))
    net = placed(Net(
        pointer_at(desk.params, room), grads, work, shifted(work, size),
        pointer_at(desk.state, room), shifted(work, 2 * size), pointer_at(np.int64(0), np.int64(0)),
        rows, capacity, 0, rows, NO_KEY, 0,
    ))  # fmt: skip
    score = room_like(0.0)
    score[0] = 0
    call(desk.learn, desk, net, place_of(score), moves)
    return score[0]


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
