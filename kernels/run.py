"""The interpreter: passes over a plan, and many batches in one call, without Python.

A training step has two phases. In the first, every row of the batch is gathered
and goes forward and backward for itself. In the second, every weight's gradient is
summed over the whole batch and the weights move. Rows never look at other
rows, weights never at other weights: threads can share either phase freely and
the result keeps its bits.
"""

import numpy as np

from ._kernel import compiled, part
from ._memory import call, pointer, shifted, vector
from ._op import EVALUATE, LOSS, PREDICT, TRAIN, Net, rows
from .optimizers import all_finite


@part
def forward(plan, net, mode, lo, hi):
    """Every op in turn, on the batch rows ``lo..hi``."""
    for i in range(plan.size):
        if plan[i].when & mode:
            call(plan[i].forward, plan[i], net, lo, hi)


@part
def backward(plan, net, first, lo, hi):
    """Every op in reverse, down to the op ``first``, on the batch rows ``lo..hi``."""
    for i in range(plan.size - 1, first - 1, -1):
        if plan[i].when & TRAIN and plan[i].backward != 0:
            call(plan[i].backward, plan[i], net, lo, hi)


@part
def gradient(plan, net):
    """The gradient of every parameter, summed over the whole batch."""
    for i in range(plan.size):
        if plan[i].gradient != 0:
            call(plan[i].gradient, plan[i], net, 0, plan[i].fan_in)


@part
def gather(sources, net, lo, hi):
    """Bring the batch rows ``lo..hi`` of every source into the work buffer."""
    for i in range(sources.size):
        call(sources[i].gather, sources[i], net, lo, hi)


@part
def bind(buffers, order, start, stop, capacity):
    """The buffers as an op sees them, for the batch of the rows ``order[start:stop]``."""
    return Net(
        pointer(buffers.params),
        pointer(buffers.grads),
        pointer(buffers.work),
        pointer(buffers.grad_work),
        pointer(buffers.state),
        pointer(buffers.scratch),
        shifted(pointer(order), start),
        stop - start,
        capacity,
    )


@part
def scores(plan, net, loss, metric):
    """Loss and metric with those of every row added, in float64 and in the order of the rows."""
    for i in range(plan.size):
        if plan[i].layer < 0:
            values = vector(net.work, plan[i].out * net.capacity, net.batch)
            total = loss if plan[i].layer == LOSS else metric
            for b in range(net.batch):
                total += values[b]
            if plan[i].layer == LOSS:
                loss = total
            else:
                metric = total
    return loss, metric


@part
def differentiate(plan, sources, net, first):
    """Loss, metric and all gradients of one batch; gradients of ``work`` down to op ``first``."""
    gather(sources, net, 0, net.batch)
    forward(plan, net, TRAIN, 0, net.batch)
    backward(plan, net, first, 0, net.batch)
    gradient(plan, net)
    return scores(plan, net, 0.0, 0.0)


@compiled
def gradients(plan, sources, buffers, capacity, order):
    """``differentiate`` for one batch of the rows ``order``, down to the input."""
    return differentiate(plan, sources, bind(buffers, order, 0, order.size, capacity), 0)


@compiled
def train(
    plan, rule, sources, buffers, capacity, first, order, starts, stops, rates, losses, metrics
):
    """Train on whole batches, one after another; returns how many went well.

    Batch ``i`` holds the rows ``order[starts[i]:stops[i]]`` and is taken at the learning
    rate ``rates[i]``; the sum of its rows' losses and metrics goes to ``losses[i]`` and
    ``metrics[i]``. Stops at a batch whose loss is not finite, before its update, or whose
    update leaves parameters that are not finite.
    """
    for i in range(starts.size):
        net = bind(buffers, order, starts[i], stops[i], capacity)
        losses[i], metrics[i] = differentiate(plan, sources, net, first)
        if not np.isfinite(losses[i]):
            return i
        rule[0].step += 1
        rule[0].learning_rate = rates[i]
        call(rule[0].update, rule[0], net, 0, rule[0].parameters)
        if not all_finite(buffers.params):
            return i
    return starts.size


@compiled
def evaluate(plan, sources, buffers, capacity, order):
    """Sum over the rows ``order`` of loss and metric, in blocks of ``capacity`` rows."""
    loss, metric = 0.0, 0.0
    for start in range(0, order.size, capacity):
        net = bind(buffers, order, start, min(start + capacity, order.size), capacity)
        gather(sources, net, 0, net.batch)
        forward(plan, net, EVALUATE, 0, net.batch)
        loss, metric = scores(plan, net, loss, metric)
    return loss, metric


@compiled
def predict(plan, sources, buffers, capacity, order, offset, out):
    """Outputs for the rows ``order``, in blocks of ``capacity`` rows.

    ``offset`` says where the last op leaves its output in the work buffer.
    """
    width = out.shape[1]
    for start in range(0, order.size, capacity):
        net = bind(buffers, order, start, min(start + capacity, order.size), capacity)
        gather(sources, net, 0, net.batch)
        forward(plan, net, PREDICT, 0, net.batch)
        result = rows(net, net.work, offset, width, 0, net.batch)
        for b in range(net.batch):
            for c in range(width):
                out[start + b, c] = result[b, c]
