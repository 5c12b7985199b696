"""Parameter updates: one pass over the flat buffers, in place.

``param`` and ``grad`` are any stretch of the flat buffers; the optimizer's
memory (velocities, moments) lies in stretches of the same size.

Where gradients stay 0 that memory fades by a constant factor at each step, into
the denormal numbers, which change nothing and take processors tens of times
as long: there it is set to 0.
"""

import numpy as np

from ._kernel import SUMS, compiled, kernel, part
from ._memory import vector


def sgd_step_reference(param, grad, learning_rate):
    return param - learning_rate * grad


@kernel("param(n) grad(n) learning_rate() -> param", reference=sgd_step_reference)
def sgd_step(param, grad, learning_rate):
    """``param -= learning_rate * grad``. Source: Nielsen, chapter 1, eq. 20-21."""
    rate = param.dtype.type(learning_rate)
    for i in range(param.size):
        param[i] -= rate * grad[i]


def sgd(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    sgd_step(vector(net.params, lo, size), vector(net.grads, lo, size), rule.learning_rate)


def momentum_step_reference(param, grad, velocity, learning_rate, momentum, nesterov):
    velocity = momentum * velocity - learning_rate * grad
    ahead = momentum * velocity - learning_rate * grad
    return param + (ahead if nesterov else velocity), velocity


def sample_momentum(arguments, rng):
    """A momentum and a switch in their ranges."""
    arguments["momentum"] = 0.9
    arguments["nesterov"] = int(rng.integers(2))
    return arguments


@kernel(
    "param(n) grad(n) velocity(n) learning_rate() momentum() nesterov() -> param velocity",
    reference=momentum_step_reference,
    sample=sample_momentum,
)
def momentum_step(param, grad, velocity, learning_rate, momentum, nesterov):
    """``velocity = momentum * velocity - learning_rate * grad; param += velocity``.

    With ``nesterov`` the parameters go one step further along the new velocity:
    ``param += momentum * velocity - learning_rate * grad``. Source: Sutskever, Martens,
    Dahl and Hinton (2013), ICML, in the form that Keras and scikit-learn use.
    """
    rate = param.dtype.type(learning_rate)
    keep = param.dtype.type(momentum)
    zero, tiny = param.dtype.type(0), np.finfo(param.dtype).tiny
    for i in range(param.size):
        push = rate * grad[i]
        v = keep * velocity[i] - push
        velocity[i] = zero if abs(v) < tiny else v
        param[i] += keep * v - push if nesterov else v


def momentum(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    momentum_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        rule.learning_rate,
        rule.momentum,
        rule.nesterov,
    )


def adam_step_reference(param, grad, m, v, learning_rate, beta1, beta2, epsilon, raw_epsilon, step):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    if raw_epsilon:
        epsilon = epsilon / np.sqrt(1 - beta2**step)
    return param - learning_rate * m_hat / (np.sqrt(v_hat) + epsilon), m, v


def sample_adam(arguments, rng):
    """Hyper-parameters in their ranges, second moments that are not negative."""
    arguments["v"][...] **= 2
    arguments.update(
        learning_rate=0.01,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-7,
        raw_epsilon=int(rng.integers(2)),
        step=int(rng.integers(1, 2000)),
    )
    return arguments


@kernel(
    "param(n) grad(n) m(n) v(n) learning_rate() beta1() beta2() epsilon() raw_epsilon() step()"
    " -> param m v",
    reference=adam_step_reference,
    sample=sample_adam,
)
def adam_step(param, grad, m, v, learning_rate, beta1, beta2, epsilon, raw_epsilon, step):
    """``m, v``: running means of ``grad`` and ``grad**2``; step along ``m / sqrt(v)``.

    ``m = beta1 m + (1 - beta1) grad``, ``v = beta2 v + (1 - beta2) grad**2``,
    ``param -= learning_rate * m_hat / (sqrt(v_hat) + epsilon)`` with
    ``m_hat = m / (1 - beta1**step)`` and ``v_hat = v / (1 - beta2**step)``; ``step`` starts
    at 1. With ``raw_epsilon``, epsilon is added to the root of ``v`` before that
    correction, which makes it larger by ``1 / sqrt(1 - beta2**step)``.

    Source: Kingma and Ba (2015), "Adam", arXiv:1412.6980, algorithm 1 and the end of
    section 2.
    """
    kind = param.dtype.type
    correction = 1.0 / np.sqrt(1.0 - beta2**step)
    rate = kind(learning_rate / (1.0 - beta1**step))
    root = kind(correction)
    small = kind(epsilon * correction if raw_epsilon else epsilon)
    keep1, keep2 = kind(beta1), kind(beta2)
    new1, new2 = kind(1.0 - beta1), kind(1.0 - beta2)
    zero, tiny = kind(0), np.finfo(param.dtype).tiny
    for i in range(param.size):
        first = keep1 * m[i] + new1 * grad[i]
        second = keep2 * v[i] + new2 * grad[i] * grad[i]
        m[i] = zero if abs(first) < tiny else first
        v[i] = zero if second < tiny else second
        param[i] -= rate * first / (np.sqrt(second) * root + small)


def adam(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    adam_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        vector(net.state, rule.parameters + lo, size),
        rule.learning_rate,
        rule.beta1,
        rule.beta2,
        rule.epsilon,
        rule.raw_epsilon,
        rule.step,
    )


# name: (its update, vectors of memory for each parameter)
RULES = {"sgd": (sgd, 0), "momentum": (momentum, 1), "adam": (adam, 2)}


@part(fastmath=SUMS)
def finite(values):
    """Whether no value is NaN or infinite: any of those times zero is NaN."""
    zero = values.dtype.type(0)
    total = zero
    for i in range(values.size):
        total += values[i] * zero
    return total == zero


@compiled
def all_finite(values):
    """As `finite`, for Python."""
    return finite(values)
