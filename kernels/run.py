"""The interpreter: passes over a plan, and many batches in one call, without Python.

A training step has two phases. In the first, every row of the batch is gathered
and goes forward and backward for itself. In the second, every weight's gradient is
summed over the whole batch and the weight moves. Rows never look at other rows,
weights never at other weights: the threads of a team (``_team.py``) share the rows,
meet, share the weights, meet. How much each does follows how fast it was (``_shares.py``).

Between the phases all that the rows left would travel from one processor's cache to
another's. Where the weights are fewer than that, the batch is cut into parts, each
is summed by the thread that has its rows, and what is added up in the second phase
is one gradient for each part.

The result has the same bits for any number of threads: a batch is cut by its size alone,
and the parts are added in their order.

What Python calls here is called in every thread, with its own ``seat``.
"""

import numpy as np

from ._kernel import SUMS, compiled, part
from ._memory import call, pointer, pointer_at, shifted, vector
from ._op import EVALUATE, LOSS, OP, PREDICT, TRAIN, Net, placed, row_values
from ._shares import ROWS, START, STOP, WEIGHTS, evenly, share, stopwatch, stretch_of
from ._team import ALONE, FIRST, claim, join, meet
from .gemm import SCRATCH
from .noise import mixed
from .optimizers import finite

GRAIN = np.int64(4)  # rows of a batch or of a weight that are not parted: tiles of one row are slow
UNPARTED = np.int64(1)
LINE = np.int64(16)  # numbers that are not parted: a line of the cache belongs to one thread
NO_KEY = np.uint64(0)
PART = 16  # rows that a part of a batch has at the least


@part
def forward(plan, net, mode, lo, hi):
    """Every op in turn, on the batch rows ``lo..hi``."""
    for op in plan:
        if op.when & mode:
            call(op.forward, op, net, lo, hi)


@part
def together(function, op, net, meeting, seat, members):
    """One function of an op that looks at whole columns: all rows must be there before it."""
    meet(meeting, members)
    lo, hi = share(op.fan_in, GRAIN, evenly(seat, members))
    if lo < hi:
        call(function, op, net, lo, hi)
    meet(meeting, members)


@part
def training_forward(plan, net, lo, hi, meeting, seat, members):
    """As `forward`, with ops that the whole batch must meet for."""
    for op in plan:
        if op.when & TRAIN:
            if op.columns:
                together(op.forward, op, net, meeting, seat, members)
            elif lo < hi:
                call(op.forward, op, net, lo, hi)


@part
def backward(plan, net, first, lo, hi, meeting, seat, members):
    """Every op in reverse, down to the op ``first``, on the batch rows ``lo..hi``.

    It begins with what a row's loss counts in the batch's: 1 / batch.
    """
    for op in plan:
        if op.layer == LOSS:
            counts = vector(net.grad_work, op.out * net.capacity + lo, hi - lo)
            for b in range(counts.size):
                counts[b] = 1.0 / net.batch
    for i in range(plan.size - 1, first - 1, -1):
        op = plan[i]
        if op.when & TRAIN and op.backward != 0:
            if op.columns:
                together(op.backward, op, net, meeting, seat, members)
            elif lo < hi:
                call(op.backward, op, net, lo, hi)


@part
def gather(sources, net, lo, hi):
    """Bring the batch rows ``lo..hi`` of every source into the work buffer."""
    for source in sources:
        call(source.gather, source, net, lo, hi)


@part
def bind(buffers, order, start, stop, capacity, seat, room, key, learning):
    """The buffers as an op sees them, for the batch of the rows ``order[start:stop]``.

    ``room`` is what each seat has of ``work`` for itself, 0 where all share it.
    """
    return Net(
        pointer(buffers.params),
        pointer(buffers.grads),
        shifted(pointer(buffers.work), seat * room),
        pointer(buffers.grad_work),
        pointer(buffers.state),
        shifted(pointer(buffers.scratch), seat * SCRATCH),
        shifted(pointer(order), start),
        stop - start,
        capacity,
        0,
        stop - start,
        key,
        learning,
    )


@part(inline=True)
def narrowed(net, first, last, shift):
    """The same batch, gradients summed over some of its rows, ``shift`` numbers further on."""
    return Net(
        net.params, shifted(net.grads, shift), net.work, net.grad_work, net.state, net.scratch,
        net.order, net.batch, net.capacity, first, last, net.key, net.learning,
    )  # fmt: skip


@part
def scores(plan, net):
    """Loss and metric of the batch: the sums of those of its rows."""
    loss, metric = 0.0, 0.0
    for op in plan:
        if op.layer < 0:
            total = added_up(vector(net.work, op.out * net.capacity, net.batch))
            if op.layer == LOSS:
                loss = total
            else:
                metric = total
    return loss, metric


@part(inline=True, fastmath=SUMS)
def added_up(values):
    """Sum in float64, in vectors: in the same order wherever there are as many."""
    total = 0.0
    for i in range(values.size):
        total += float(values[i])  # without the compiler a float32 would take over
    return total


@part
def rows_pass(plan, sources, net, first, lo, hi, meeting, seat, members):
    """First phase: rows are gathered and go forward and backward, down to the op ``first``."""
    if lo < hi:
        gather(sources, net, lo, hi)
    training_forward(plan, net, lo, hi, meeting, seat, members)
    backward(plan, net, first, lo, hi, meeting, seat, members)


@part(inline=True)
def grains(op):
    """How many grains an op's weights have, rows that are not parted, and the work in each."""
    places = max(op.out_height * op.out_width, UNPARTED)  # of images, where each weight is used
    return (op.weight_rows + GRAIN - 1) // GRAIN, GRAIN * op.row_size * places


@part
def limits(plan, stretch):
    """Where a stretch of all weights begins and ends, in work: products for each sample."""
    total = 0
    for op in plan:
        if op.gradient != 0:
            number, work = grains(op)
            total += number * work
    return total * stretch.begin // stretch.whole, total * stretch.end // stretch.whole


@part(inline=True)
def rows_between(op, at, begin, end):
    """Rows of an op's weights between two limits, where its work begins ``at``; where it ends."""
    number, work = grains(op)
    lo, hi = min(max(begin - at, 0) // work, number), min(max(end - at, 0) // work, number)
    return lo * GRAIN, min(hi * GRAIN, op.weight_rows), at + number * work


@part
def weights_pass(plan, net, stretch):
    """Second phase: the gradient of the weights in a stretch.

    It goes from layer to layer, not through each of them: of what lies in another processor's
    cache a thread needs less, and fewer pieces of its memory have a neighbour that is not its own.
    """
    (begin, end), at = limits(plan, stretch), 0
    for op in plan:
        if op.gradient != 0:
            lo, hi, at = rows_between(op, at, begin, end)
            if lo < hi:
                call(op.gradient, op, net, lo, hi)


@part
def parts_pass(plan, sources, net, first, size, parts, meeting, seat, members):
    """First phase of a batch in parts: the rows of this seat's parts, and their gradients."""
    grain = LINE if net.batch >= 4 * parts * LINE else GRAIN  # whole vectors of rows, if many
    rows = (net.batch + parts * grain - 1) // (parts * grain) * grain
    lo, hi = share(parts, UNPARTED, evenly(seat, members))
    for i in range(lo, hi):
        start, stop = min(i * rows, net.batch), min((i + 1) * rows, net.batch)
        rows_pass(plan, sources, net, first, start, stop, meeting, seat, members)
        weights_pass(plan, placed(narrowed(net, start, stop, i * size)), evenly(FIRST, ALONE))


@part
def add_parts(net, size, parts, lo, hi):
    """Second phase of a batch in parts: add their gradients ``lo..hi`` to those of the first."""
    total = vector(net.grads, lo, hi - lo)
    for i in range(1, parts):
        more = vector(net.grads, i * size + lo, hi - lo)
        for k in range(total.size):
            total[k] += more[k]


@part
def over_weights(function, plan, rule, net, parts, stretch):
    """Second phase of training: one function of a rule, if it has that, on a stretch of weights.

    What lies in one piece is done in one go. A layer's bias lies behind its weight and belongs
    to whoever has the last of its rows. Of a batch in parts, weights are cut anywhere.
    """
    if function == 0:
        return
    if parts > 1:
        start, stop = share(rule.parameters, LINE, stretch)
        if start < stop:
            call(function, rule, net, start, stop)
        return
    (begin, end), at = limits(plan, stretch), 0
    start, stop = 0, 0
    for op in plan:
        if op.gradient != 0:
            lo, hi, at = rows_between(op, at, begin, end)
            if lo < hi:
                first = op.weight + lo * op.row_size
                if first != stop:
                    if start < stop:
                        call(function, rule, net, start, stop)
                    start = first
                stop = op.weight + hi * op.row_size
                if hi == op.weight_rows:
                    stop += op.tail
    if start < stop:
        call(function, rule, net, start, stop)


@part
def penalty(rule, net):
    """Sum of all penalties, in float64."""
    if rule.weigh == 0:
        return 0.0
    call(rule.weigh, rule, net, 0, 0)
    return rule.penalties


@part
def first_phase(plan, sources, net, first, size, parts, shares, meeting, seat, members):
    """Rows forward and backward, in parts where there are enough of them; how many parts."""
    cut = min(parts, net.batch // PART)
    if cut > 1:
        parts_pass(plan, sources, net, first, size, cut, meeting, seat, members)
        meet(meeting, members)
    else:
        stopwatch(shares, ROWS, seat, members, START)
        lo, hi = share(net.batch, GRAIN, stretch_of(shares, ROWS, seat, members))
        rows_pass(plan, sources, net, first, lo, hi, meeting, seat, members)
        stopwatch(shares, ROWS, seat, members, STOP)
        meet(meeting, members)
    return cut


@part
def second_phase(plan, rule, net, size, cut, shares, meeting, seat, members):
    """Gradients of the weights, what is done to them, and the update."""
    stopwatch(shares, WEIGHTS, seat, members, START)
    stretch = evenly(seat, members)
    if cut > 1:
        lo, hi = share(size, LINE, stretch)
        add_parts(net, size, cut, lo, hi)
    else:
        stretch = stretch_of(shares, WEIGHTS, seat, members)
        weights_pass(plan, net, stretch)
    over_weights(rule.penalize, plan, rule, net, cut, stretch)
    if rule.limit != 0:
        meet(meeting, members)
        if seat == 0:
            call(rule.limit, rule, net, 0, 0)
        meet(meeting, members)
        over_weights(rule.rescale, plan, rule, net, cut, stretch)
    over_weights(rule.update, plan, rule, net, cut, stretch)
    stopwatch(shares, WEIGHTS, seat, members, STOP)
    meet(meeting, members)
    if rule.constrain != 0:
        call(rule.constrain, rule, net, seat, members)
        meet(meeting, members)
    # Nobody moves a weight before the next meeting.
    over_weights(rule.average, plan, rule, net, cut, stretch)


@compiled
def gradients(plan, rule, sources, buffers, capacity, order, team, seat):
    """Gradients of one batch of the rows ``order``, down to the input."""
    meeting = pointer(team)
    members = join(meeting, seat)
    if members > 0:
        key = mixed(rule[0].seed, rule[0].step)
        net = placed(bind(buffers, order, 0, order.size, capacity, seat, 0, key, 0))
        stretch = evenly(seat, members)
        lo, hi = share(net.batch, GRAIN, stretch)
        rows_pass(plan, sources, net, 0, lo, hi, meeting, seat, members)
        meet(meeting, members)
        weights_pass(plan, net, stretch)
        over_weights(rule[0].penalize, plan, rule[0], net, 1, stretch)


@compiled
def train(
    plan, rule, copies, sources, buffers, capacity, first, parts,
    order, starts, stops, rates, losses, metrics, penalties, shares, good, team, seat,
):  # fmt: skip
    """Train on whole batches, one after another; returns how many went well.

    Batch ``i`` holds the rows ``order[starts[i]:stops[i]]`` and is taken at the learning
    rate ``rates[i]``; the sum of its rows' losses and metrics goes to ``losses[i]`` and
    ``metrics[i]``, the penalty times its rows to ``penalties[i]``. Stops at a batch whose loss
    is not finite, before its update.

    A batch is cut into at most ``parts``, of not too few rows; ``shares`` says who does how much
    of what is not, and is told how long that took. Each seat but the first has a
    row of ``copies`` in place of ``rule``, and all of them see the same numbers, so that all
    stop at the same batch. ``good[seat]`` becomes 1 where a seat's part of the parameters is
    finite in the end.
    """
    mine = rule[0]
    if seat > 0:
        mine = copies[seat]
    meeting = pointer(team)
    members = join(meeting, seat)
    size, done = buffers.params.size, starts.size
    for i in range(starts.size if members > 0 else 0):
        key = mixed(mine.seed, mine.step)
        net = placed(bind(buffers, order, starts[i], stops[i], capacity, seat, 0, key, 1))
        if seat == 0:
            penalties[i] = penalty(mine, net) * net.batch
        cut = first_phase(plan, sources, net, first, size, parts, shares, meeting, seat, members)
        loss, metric = scores(plan, net)
        if seat == 0:
            losses[i], metrics[i] = loss, metric
        if not np.isfinite(loss):
            done = i
            break
        mine.step += 1
        mine.learning_rate = rates[i]
        second_phase(plan, mine, net, size, cut, shares, meeting, seat, members)
    if members > 0:
        lo, hi = share(size, LINE, evenly(seat, members))
        good[seat] = finite(vector(pointer(buffers.params), lo, hi - lo))
    return done


@compiled
def evaluate(plan, sources, buffers, capacity, room, order, losses, metrics, team, seat):
    """Sums of loss and metric over blocks of ``capacity`` rows, one of each for a block.

    Each seat takes the next block that nobody has, and has ``room`` numbers of the work buffer
    for itself.
    """
    meeting = pointer(team)
    blocks = losses.size if join(meeting, seat) > 0 else 0
    i = claim(meeting)
    while i < blocks:
        start = i * capacity
        stop = min(start + capacity, order.size)
        net = placed(bind(buffers, order, start, stop, capacity, seat, room, NO_KEY, 0))
        gather(sources, net, 0, net.batch)
        forward(plan, net, EVALUATE, 0, net.batch)
        losses[i], metrics[i] = scores(plan, net)
        i = claim(meeting)


@compiled
def predict(plan, sources, buffers, capacity, room, order, offset, key, out, good, team, seat):
    """Outputs for the rows ``order``, in blocks of ``capacity`` rows, as in `evaluate`.

    ``offset`` says where the last op leaves its output in the work buffer. ``good[seat]``
    becomes 1 where all the input of a seat was finite; returns the number of seats. What is
    random, where a plan has it, depends on ``key`` and the place of a block.
    """
    meeting, width = pointer(team), out.shape[1]
    members = join(meeting, seat)
    rows = order.size if members > 0 else 0
    all_good = True
    start = claim(meeting) * capacity
    while start < rows:
        stop = min(start + capacity, rows)
        own = mixed(np.uint64(key), start)
        net = placed(bind(buffers, order, start, stop, capacity, seat, room, own, 0))
        gather(sources, net, 0, net.batch)
        x = row_values(net, net.work, sources[0].out, sources[0].width, 0, net.batch)
        all_good = finite(x) and all_good
        forward(plan, net, PREDICT, 0, net.batch)
        copy(
            row_values(net, net.work, offset, width, 0, net.batch),
            vector(pointer(out), start * width, net.batch * width),
        )
        start = claim(meeting) * capacity
    good[seat] = all_good
    return members


@part(inline=True)
def copy(source, target):
    """``target = source``."""
    for i in range(target.size):
        target[i] = source[i]


# What `predict_few` finds at its desk, an array of int64.
OPS_AT, OPS_COUNT, PARAMS_AT, WORK_AT, CAPACITY, SCRATCH_AT, RESULT, DESK = range(8)
AN_OP, AN_ADDRESS = np.zeros(1, OP)[0], np.int64(0)


@compiled(nogil=False)
def predict_few(address, x, out):
    """Outputs for as many rows as a desk has room for; whether they were finite numbers.

    The road for few rows at a time, where the call costs more than the network: what does not
    change between calls was put on a desk, whose address is all that is handed over. Its
    buffers belong to whoever has the interpreter lock, which is therefore kept.
    """
    batch, fan_in = x.shape
    desk = vector(pointer_at(address, AN_ADDRESS), 0, DESK)
    plan = vector(pointer_at(desk[OPS_AT], AN_OP), 0, desk[OPS_COUNT])
    work = pointer_at(desk[WORK_AT], x)
    unused = pointer_at(0, x)
    net = placed(Net(
        pointer_at(desk[PARAMS_AT], x), unused, work, unused, unused,
        pointer_at(desk[SCRATCH_AT], x), pointer_at(0, AN_ADDRESS), batch, desk[CAPACITY],
        0, 0, NO_KEY, 0,
    ))  # fmt: skip
    given = vector(pointer(x), 0, batch * fan_in)
    copy(given, vector(work, 0, batch * fan_in))
    forward(plan, net, PREDICT, 0, batch)
    copy(
        row_values(net, work, desk[RESULT], out.shape[1], 0, batch),
        vector(pointer(out), 0, out.size),
    )
    return finite(given)
