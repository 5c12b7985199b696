"""What is done to gradients and weights beside the optimizer's step.

Penalties on large weights, limits for gradients, constraints on weights: all of them are lists
of *terms* (`_op.TERM`), one for each array of parameters that is trained, and change the flat
buffers in place, as the optimizers do. Last of all a moving average of the weights.

Most networks have none of these. A step calls each by its address in the ``RULE``, where there is
one, as it does the update, and what is not in use is not compiled.

Sources: Nielsen, chapter 3 (L2 and L1 regularization, eq. 85-97); *Neural Networks from
Scratch*, chapter 14; Pascanu, Mikolov and Bengio (2013), ICML (clipping by norm); Srebro and
Shraibman (2005), COLT (max-norm); Polyak and Juditsky (1992), SIAM J. Control Optim. 30
(averages of weights).
"""

import numpy as np

from ._kernel import SUMS, kernel, part
from ._memory import matrix, pointer_at, tiny_of, vector
from ._op import TERM
from ._shares import evenly, share

GRAIN = np.int64(4)  # columns that are not parted
A_TERM = np.zeros(1, TERM).view(np.recarray)[0]


def penalty_step_reference(param, grad, l1, l2, limit):
    grad = grad + 2 * l2 * param + l1 * np.sign(param)
    return np.clip(grad, -limit, limit) if limit > 0 else grad


@kernel("param(n) l1() l2() limit() grad(n) -> grad", reference=penalty_step_reference)
def penalty_step(param, l1, l2, limit, grad):
    """``grad += 2 l2 param + l1 sign(param)``, then cut to ``-limit..limit``; 0 is no limit.

    The derivative of ``l1 |param| + l2 param**2``; that of the first is 0 at 0.
    """
    kind = param.dtype.type
    zero, pull, shrink, most = kind(0), kind(l1), kind(2 * l2), kind(limit)
    for i in range(param.size):
        value = param[i]
        sign = pull if value > zero else -pull if value < zero else zero
        grad[i] += shrink * value + sign
    if limit > 0:
        for i in range(param.size):
            value = grad[i]
            grad[i] = most if value > most else -most if value < -most else value


@kernel("factor() grad(n) -> grad", reference=lambda grad, factor: grad * factor)
def rescale_step(factor, grad):
    """``grad *= factor``."""
    by = grad.dtype.type(factor)
    for i in range(grad.size):
        grad[i] *= by


def constraint_step_reference(param, max_norm, non_negative):
    if non_negative:  # minus infinity stays, so that it is found
        param = np.where(np.isinf(param), param, np.maximum(param, 0))
    if max_norm <= 0:
        return param
    norms = np.sqrt((param**2).sum(axis=0))
    return param * np.where(norms > max_norm, max_norm / np.maximum(norms, 1e-300), 1)


def sample_constraint(arguments, rng):
    """All columns, and each constraint with and without the other."""
    arguments.update(
        max_norm=float(rng.choice([0.0, 0.7])),
        non_negative=int(rng.integers(2)),
        first=0,
        last=arguments["param"].shape[1],
    )
    return arguments


@kernel(
    "max_norm() non_negative() first() last() param(rows,n) -> param",
    reference=constraint_step_reference,
    sample=sample_constraint,
)
def constraint_step(max_norm, non_negative, first, last, param):
    """Cut the columns ``first..last`` to what is allowed.

    No number below 0 with ``non_negative``; no column, the weights that come into one neuron,
    longer than ``max_norm``, where that is not 0.
    """
    zero, lowest = param.dtype.type(0), param.dtype.type(-np.inf)  # what is infinite must be found
    for c in range(int(first), int(last)):
        total = 0.0
        for r in range(param.shape[0]):
            if non_negative and lowest < param[r, c] < zero:
                param[r, c] = zero
            total += np.float64(param[r, c]) ** 2
        if max_norm > 0 and total > max_norm * max_norm:
            factor = param.dtype.type(max_norm / np.sqrt(total))
            for r in range(param.shape[0]):
                param[r, c] *= factor


@kernel(
    "param(n) keep() average(n) -> average",
    reference=lambda param, keep, average: average + (1 - keep) * (param - average),
)
def average_step(param, keep, average):
    """``average += (1 - keep) * (param - average)``; what has faded to nearly 0 becomes 0."""
    new = param.dtype.type(1.0 - keep)
    zero, tiny = param.dtype.type(0), tiny_of(param)
    for i in range(param.size):
        a = average[i] + new * (param[i] - average[i])
        average[i] = zero if abs(a) < tiny else a


@part(inline=True)
def terms_of(rule):
    """The terms that a rule knows."""
    return vector(pointer_at(rule.terms, A_TERM), 0, rule.terms_count)


@part
def overlap(term, start, stop):
    """The part of a term's array that lies in ``start..stop``."""
    return max(start, term.start), min(stop, term.start + term.rows * term.columns)


def penalize(rule, net, start, stop):
    """Add the derivatives of the penalties to the gradients ``start..stop``, and cut them.

    Only a step that moves weights cuts gradients.
    """
    most = rule.clip_value if net.learning else 0.0
    for term in terms_of(rule):
        lo, hi = overlap(term, start, stop)
        if lo < hi and (term.l1 != 0 or term.l2 != 0 or most > 0):
            penalty_step(
                vector(net.params, lo, hi - lo), term.l1, term.l2, most,
                vector(net.grads, lo, hi - lo),
            )  # fmt: skip


@part(fastmath=SUMS)
def squares(values):
    """Sum of squares, in float64."""
    total = 0.0
    for i in range(values.size):
        total += np.float64(values[i]) * np.float64(values[i])
    return total


@part(fastmath=SUMS)
def magnitudes(values):
    """Sum of absolute values, in float64."""
    total = 0.0
    for i in range(values.size):
        total += np.float64(abs(values[i]))
    return total


def limit(rule, net, start, stop):
    """What the gradient of each term is to be multiplied by to be no longer than allowed."""
    terms, whole = terms_of(rule), 0.0
    for term in terms:
        total = squares(vector(net.grads, term.start, term.rows * term.columns))
        whole += total
        term.factor = shortening(total, rule.clip_norm)
    if rule.global_clip_norm > 0:
        for term in terms:
            term.factor = shortening(whole, rule.global_clip_norm)


@part
def shortening(square, most):
    """The factor that brings a length down to ``most``; 1 where it is shorter, or 0 is given."""
    return most / np.sqrt(square) if most > 0 and square > most * most else 1.0


def rescale(rule, net, start, stop):
    """Multiply the gradients ``start..stop`` by the factor of their term."""
    for term in terms_of(rule):
        lo, hi = overlap(term, start, stop)
        if lo < hi and term.factor != 1:
            rescale_step(term.factor, vector(net.grads, lo, hi - lo))


def weigh(rule, net, start, stop):
    """Sum of all penalties, in float64, to ``rule.penalties``."""
    total = 0.0
    for term in terms_of(rule):
        size = term.rows * term.columns
        if term.l2 != 0:
            total += term.l2 * squares(vector(net.params, term.start, size))
        if term.l1 != 0:
            total += term.l1 * magnitudes(vector(net.params, term.start, size))
    rule.penalties = total


def constrain(rule, net, seat, members):
    """Cut this seat's columns of every array to what is allowed."""
    for term in terms_of(rule):
        if term.max_norm > 0 or term.non_negative != 0:
            lo, hi = share(term.columns, GRAIN, evenly(seat, members))
            constraint_step(
                term.max_norm, term.non_negative, lo, hi,
                matrix(net.params, term.start, term.rows, term.columns),
            )  # fmt: skip


def average(rule, net, start, stop):
    """Move the average of the weights ``start..stop`` towards them.

    While steps are few the average keeps less than ``ema``, or it would be about where the
    training began: as in TensorFlow's ``ExponentialMovingAverage(decay, num_updates)``.
    """
    keep = min(rule.ema, (1.0 + rule.step) / (10.0 + rule.step))
    size = stop - start
    average_step(
        vector(net.params, start, size), keep, vector(net.state, rule.average_at + start, size)
    )


# What a step does beside the update, by the field of RULE that says where.
BESIDE = {each.__name__: each for each in (weigh, penalize, limit, rescale, constrain, average)}
