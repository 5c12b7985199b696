"""Parameter updates: one pass over the flat buffers, in place.

``param`` and ``grad`` are any stretch of the flat buffers; the optimizer's
memory (velocities, moments) lies in stretches of the same size.

Where gradients stay 0 that memory fades by a constant factor at each step, into
the denormal numbers, which change nothing and take processors tens of times
as long: there it is set to 0.

Adam and its relatives are in ``adam``; all of them are listed in ``RULES`` at the end.
Where an optimizer divides by a root, epsilon keeps the division from exploding; libraries
put it in different places, so each kernel says where it stands and can do either.
"""

import numpy as np

from ._kernel import SUMS, compiled, kernel, part
from ._memory import tiny_of, vector
from .adam import adam, adamw, amsgrad, nadam


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
    zero, tiny = param.dtype.type(0), tiny_of(param)
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


def adagrad_step_reference(
    param, grad, total, learning_rate, initial_total, epsilon, inside_epsilon
):
    total = total + grad**2
    inside, outside = (epsilon, 0) if inside_epsilon else (0, epsilon)
    root = np.sqrt(total + initial_total + inside)
    return param - learning_rate * grad / (root + outside), total


def sample_adagrad(arguments, rng):
    """Hyper-parameters in their ranges, sums of squares that are not negative."""
    arguments["total"][...] **= 2
    arguments.update(
        learning_rate=0.1,
        initial_total=float(rng.choice([0, 0.1])),
        epsilon=1e-7,
        inside_epsilon=int(rng.integers(2)),
    )
    return arguments


@kernel(
    "param(n) grad(n) total(n) learning_rate() initial_total() epsilon() inside_epsilon()"
    " -> param total",
    reference=adagrad_step_reference,
    sample=sample_adagrad,
)
def adagrad_step(param, grad, total, learning_rate, initial_total, epsilon, inside_epsilon):
    """``total += grad**2; param -= learning_rate * grad / (sqrt(initial + total) + epsilon)``.

    ``initial`` is ``initial_total``, which Keras has at 0.1 and others at 0. With
    ``inside_epsilon`` epsilon stands under the root. Source: Duchi, Hazan and Singer (2011),
    "Adaptive Subgradient Methods", JMLR 12; *Neural Networks from Scratch*, chapter 10.
    """
    kind = param.dtype.type
    rate = kind(learning_rate)
    inside = kind(initial_total + (epsilon if inside_epsilon else 0.0))
    outside = kind(0.0 if inside_epsilon else epsilon)
    zero, tiny = kind(0), tiny_of(param)
    for i in range(param.size):
        t = total[i] + grad[i] * grad[i]
        total[i] = zero if t < tiny else t
        param[i] -= rate * grad[i] / (np.sqrt(t + inside) + outside)


def adagrad(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    adagrad_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        rule.learning_rate,
        rule.initial_total,
        rule.epsilon,
        rule.inside_epsilon,
    )


def rmsprop_step_reference(param, grad, v, learning_rate, rho, epsilon, inside_epsilon):
    v = rho * v + (1 - rho) * grad**2
    inside, outside = (epsilon, 0) if inside_epsilon else (0, epsilon)
    return param - learning_rate * grad / (np.sqrt(v + inside) + outside), v


def sample_rmsprop(arguments, rng):
    """Hyper-parameters in their ranges, mean squares not below the squares of the means."""
    arguments["v"][...] **= 2
    if "m" in arguments:
        arguments["v"][...] += 1 + arguments["m"] ** 2
    arguments.update(
        learning_rate=0.01,
        rho=0.9,
        momentum=0.9,
        epsilon=1e-7,
        inside_epsilon=int(rng.integers(2)),
    )
    return arguments


@kernel(
    "param(n) grad(n) v(n) learning_rate() rho() epsilon() inside_epsilon() -> param v",
    reference=rmsprop_step_reference,
    sample=sample_rmsprop,
)
def rmsprop_step(param, grad, v, learning_rate, rho, epsilon, inside_epsilon):
    """``v``: running mean of ``grad**2``; step along ``grad / sqrt(v)``.

    ``v = rho v + (1 - rho) grad**2``, ``param -= learning_rate * grad / (sqrt(v) + epsilon)``;
    with ``inside_epsilon`` epsilon stands under the root. Source: Tieleman and Hinton (2012),
    lecture 6.5 of *Neural Networks for Machine Learning*; *Neural Networks from Scratch*,
    chapter 10.
    """
    kind = param.dtype.type
    rate, keep, new = kind(learning_rate), kind(rho), kind(1.0 - rho)
    inside = kind(epsilon if inside_epsilon else 0.0)
    outside = kind(0.0 if inside_epsilon else epsilon)
    zero, tiny = kind(0), tiny_of(param)
    for i in range(param.size):
        second = keep * v[i] + new * grad[i] * grad[i]
        v[i] = zero if second < tiny else second
        param[i] -= rate * grad[i] / (np.sqrt(second + inside) + outside)


def rmsprop(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    rmsprop_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        rule.learning_rate,
        rule.rho,
        rule.epsilon,
        rule.inside_epsilon,
    )


def rmsprop_momentum_step_reference(
    param, grad, v, velocity, learning_rate, rho, momentum, epsilon, inside_epsilon
):
    v = rho * v + (1 - rho) * grad**2
    inside, outside = (epsilon, 0) if inside_epsilon else (0, epsilon)
    velocity = momentum * velocity - learning_rate * grad / (np.sqrt(v + inside) + outside)
    return param + velocity, v, velocity


@kernel(
    "param(n) grad(n) v(n) velocity(n)"
    " learning_rate() rho() momentum() epsilon() inside_epsilon() -> param v velocity",
    reference=rmsprop_momentum_step_reference,
    sample=sample_rmsprop,
)
def rmsprop_momentum_step(
    param, grad, v, velocity, learning_rate, rho, momentum, epsilon, inside_epsilon
):
    """As `rmsprop_step`, the step going into a velocity as in `momentum_step`.

    ``velocity = momentum * velocity - learning_rate * grad / (sqrt(v) + epsilon)``,
    ``param += velocity``. A learning rate that changes counts from its step on, as in Keras.
    """
    kind = param.dtype.type
    rate, keep, new = kind(learning_rate), kind(rho), kind(1.0 - rho)
    still = kind(momentum)
    inside = kind(epsilon if inside_epsilon else 0.0)
    outside = kind(0.0 if inside_epsilon else epsilon)
    zero, tiny = kind(0), tiny_of(param)
    for i in range(param.size):
        second = keep * v[i] + new * grad[i] * grad[i]
        v[i] = zero if second < tiny else second
        speed = still * velocity[i] - rate * grad[i] / (np.sqrt(second + inside) + outside)
        velocity[i] = zero if abs(speed) < tiny else speed
        param[i] += speed


def rmsprop_momentum(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    rmsprop_momentum_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        vector(net.state, rule.parameters + lo, size),
        rule.learning_rate,
        rule.rho,
        rule.momentum,
        rule.epsilon,
        rule.inside_epsilon,
    )


def rmsprop_centered_step_reference(
    param, grad, v, m, velocity, learning_rate, rho, momentum, epsilon, inside_epsilon
):
    v = rho * v + (1 - rho) * grad**2
    m = rho * m + (1 - rho) * grad
    inside, outside = (epsilon, 0) if inside_epsilon else (0, epsilon)
    root = np.sqrt(np.maximum(v - m**2, 0) + inside)
    velocity = momentum * velocity - learning_rate * grad / (root + outside)
    return param + velocity, v, m, velocity


@kernel(
    "param(n) grad(n) v(n) m(n) velocity(n)"
    " learning_rate() rho() momentum() epsilon() inside_epsilon() -> param v m velocity",
    reference=rmsprop_centered_step_reference,
    sample=sample_rmsprop,
)
def rmsprop_centered_step(
    param, grad, v, m, velocity, learning_rate, rho, momentum, epsilon, inside_epsilon
):
    """As `rmsprop_momentum_step`, over the root of the variance ``v - m**2``, not of ``v``.

    ``m = rho m + (1 - rho) grad``. A variance that rounding has made negative counts as 0, where
    its root would be NaN. Source: Graves (2013), arXiv:1308.0850, eq. 38-45.
    """
    kind = param.dtype.type
    rate, keep, new = kind(learning_rate), kind(rho), kind(1.0 - rho)
    still = kind(momentum)
    inside = kind(epsilon if inside_epsilon else 0.0)
    outside = kind(0.0 if inside_epsilon else epsilon)
    zero, tiny = kind(0), tiny_of(param)
    for i in range(param.size):
        second = keep * v[i] + new * grad[i] * grad[i]
        first = keep * m[i] + new * grad[i]
        v[i] = zero if second < tiny else second
        m[i] = zero if abs(first) < tiny else first
        spread = second - first * first
        spread = zero if spread < zero else spread
        speed = still * velocity[i] - rate * grad[i] / (np.sqrt(spread + inside) + outside)
        velocity[i] = zero if abs(speed) < tiny else speed
        param[i] += speed


def rmsprop_centered(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    rmsprop_centered_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        vector(net.state, rule.parameters + lo, size),
        vector(net.state, 2 * rule.parameters + lo, size),
        rule.learning_rate,
        rule.rho,
        rule.momentum,
        rule.epsilon,
        rule.inside_epsilon,
    )


def lion_step_reference(param, grad, m, learning_rate, beta1, beta2, weight_decay):
    step = np.sign(beta1 * m + (1 - beta1) * grad)
    shrunk = (1 - learning_rate * weight_decay) * param
    return shrunk - learning_rate * step, beta2 * m + (1 - beta2) * grad


def sample_lion(arguments, rng):
    """Hyper-parameters in their ranges."""
    arguments.update(learning_rate=0.01, beta1=0.9, beta2=0.99, weight_decay=0.1)
    return arguments


@kernel(
    "param(n) grad(n) m(n) learning_rate() beta1() beta2() weight_decay() -> param m",
    reference=lion_step_reference,
    sample=sample_lion,
)
def lion_step(param, grad, m, learning_rate, beta1, beta2, weight_decay):
    """``param -= learning_rate * (sign(beta1 m + (1 - beta1) grad) + weight_decay * param)``.

    Then ``m = beta2 m + (1 - beta2) grad``: the mean that is kept is slower than the one whose
    sign is taken. The sign of 0 is 0. Source: Chen et al. (2023), "Symbolic Discovery of
    Optimization Algorithms", arXiv:2302.06675, algorithm 2.
    """
    kind = param.dtype.type
    rate, shrink = kind(learning_rate), kind(1.0 - learning_rate * weight_decay)
    keep1, keep2 = kind(beta1), kind(beta2)
    new1, new2 = kind(1.0 - beta1), kind(1.0 - beta2)
    zero, tiny = kind(0), tiny_of(param)
    for i in range(param.size):
        look = keep1 * m[i] + new1 * grad[i]
        first = keep2 * m[i] + new2 * grad[i]
        m[i] = zero if abs(first) < tiny else first
        # Where neither holds it is 0, or NaN, which must go through.
        step = rate if look > zero else (-rate if look < zero else look)
        param[i] = shrink * param[i] - step


def lion(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    lion_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        rule.learning_rate,
        rule.beta1,
        rule.beta2,
        rule.weight_decay,
    )


# name: (its update, vectors of memory for each parameter)
RULES = {
    "sgd": (sgd, 0),
    "momentum": (momentum, 1),
    "adam": (adam, 2),
    "adamw": (adamw, 2),
    "amsgrad": (amsgrad, 3),
    "nadam": (nadam, 2),
    "adagrad": (adagrad, 1),
    "rmsprop": (rmsprop, 1),
    "rmsprop_momentum": (rmsprop_momentum, 2),
    "rmsprop_centered": (rmsprop_centered, 3),
    "lion": (lion, 1),
}


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
