"""Adam and its relatives, in place over the flat buffers as in ``optimizers``."""

import numpy as np

from ._kernel import kernel, part
from ._memory import tiny_of, vector


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
    for name in {"v", "peak"} & set(arguments):
        arguments[name][...] **= 2
    arguments.update(
        learning_rate=0.01,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-7,
        raw_epsilon=int(rng.integers(2)),
        step=int(rng.integers(1, 2000)),
        weight_decay=0.1,
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
    zero, tiny = kind(0), tiny_of(param)
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


def adamw_step_reference(
    param, grad, m, v, learning_rate, beta1, beta2, epsilon, raw_epsilon, weight_decay, step
):
    shrunk = (1 - learning_rate * weight_decay) * param
    return adam_step_reference(
        shrunk, grad, m, v, learning_rate, beta1, beta2, epsilon, raw_epsilon, step
    )


@kernel(
    "param(n) grad(n) m(n) v(n)"
    " learning_rate() beta1() beta2() epsilon() raw_epsilon() weight_decay() step()"
    " -> param m v",
    reference=adamw_step_reference,
    sample=sample_adam,
)
def adamw_step(
    param, grad, m, v, learning_rate, beta1, beta2, epsilon, raw_epsilon, weight_decay, step
):
    """As `adam_step`, after ``param *= 1 - learning_rate * weight_decay``.

    The decay does not go through ``m`` and ``v`` as the gradient of an L2 penalty would.
    Source: Loshchilov and Hutter (2019), "Decoupled Weight Decay Regularization",
    arXiv:1711.05101, algorithm 2, with the learning rate as a factor as in PyTorch and Keras.
    """
    kind = param.dtype.type
    correction = 1.0 / np.sqrt(1.0 - beta2**step)
    rate = kind(learning_rate / (1.0 - beta1**step))
    root = kind(correction)
    small = kind(epsilon * correction if raw_epsilon else epsilon)
    shrink = kind(1.0 - learning_rate * weight_decay)
    keep1, keep2 = kind(beta1), kind(beta2)
    new1, new2 = kind(1.0 - beta1), kind(1.0 - beta2)
    zero, tiny = kind(0), tiny_of(param)
    for i in range(param.size):
        first = keep1 * m[i] + new1 * grad[i]
        second = keep2 * v[i] + new2 * grad[i] * grad[i]
        m[i] = zero if abs(first) < tiny else first
        v[i] = zero if second < tiny else second
        param[i] = shrink * param[i] - rate * first / (np.sqrt(second) * root + small)


def adamw(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    adamw_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        vector(net.state, rule.parameters + lo, size),
        rule.learning_rate,
        rule.beta1,
        rule.beta2,
        rule.epsilon,
        rule.raw_epsilon,
        rule.weight_decay,
        rule.step,
    )


def amsgrad_step_reference(
    param, grad, m, v, peak, learning_rate, beta1, beta2, epsilon, raw_epsilon, weight_decay, step
):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    peak = np.maximum(peak, v)
    m_hat = m / (1 - beta1**step)
    if raw_epsilon:
        epsilon = epsilon / np.sqrt(1 - beta2**step)
    root = np.sqrt(peak / (1 - beta2**step))
    shrunk = (1 - learning_rate * weight_decay) * param
    return shrunk - learning_rate * m_hat / (root + epsilon), m, v, peak


@kernel(
    "param(n) grad(n) m(n) v(n) peak(n)"
    " learning_rate() beta1() beta2() epsilon() raw_epsilon() weight_decay() step()"
    " -> param m v peak",
    reference=amsgrad_step_reference,
    sample=sample_adam,
)
def amsgrad_step(
    param, grad, m, v, peak, learning_rate, beta1, beta2, epsilon, raw_epsilon, weight_decay, step
):
    """As `adamw_step`, over the root of the largest ``v`` so far: steps that do not grow again.

    ``peak = max(peak, v)`` before the correction for ``step``, as in PyTorch and Keras.
    ``weight_decay`` is 0 for plain Adam. Source: Reddi, Kale and Kumar (2018), "On the
    Convergence of Adam and Beyond", algorithm 2.
    """
    kind = param.dtype.type
    correction = 1.0 / np.sqrt(1.0 - beta2**step)
    rate = kind(learning_rate / (1.0 - beta1**step))
    root = kind(correction)
    small = kind(epsilon * correction if raw_epsilon else epsilon)
    shrink = kind(1.0 - learning_rate * weight_decay)
    keep1, keep2 = kind(beta1), kind(beta2)
    new1, new2 = kind(1.0 - beta1), kind(1.0 - beta2)
    zero, tiny = kind(0), tiny_of(param)
    for i in range(param.size):
        first = keep1 * m[i] + new1 * grad[i]
        second = keep2 * v[i] + new2 * grad[i] * grad[i]
        m[i] = zero if abs(first) < tiny else first
        v[i] = zero if second < tiny else second
        most = peak[i] if second < peak[i] else second
        peak[i] = zero if most < tiny else most
        param[i] = shrink * param[i] - rate * first / (np.sqrt(most) * root + small)


def amsgrad(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    amsgrad_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        vector(net.state, rule.parameters + lo, size),
        vector(net.state, 2 * rule.parameters + lo, size),
        rule.learning_rate,
        rule.beta1,
        rule.beta2,
        rule.epsilon,
        rule.raw_epsilon,
        rule.weight_decay,
        rule.step,
    )


def nadam_step_reference(
    param, grad, m, v, learning_rate, beta1, beta2, epsilon, momentum_decay, step
):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    mu = beta1 * (1 - 0.5 * 0.96 ** (momentum_decay * np.arange(1.0, step + 2)))
    product, following = np.prod(mu[:-1]), np.prod(mu)
    along = (1 - mu[-2]) / (1 - product) * grad + mu[-1] / (1 - following) * m
    root = np.sqrt(v / (1 - beta2**step))
    return param - learning_rate * along / (root + epsilon), m, v


def sample_nadam(arguments, rng):
    """As for Adam, with the paper's decay of the momentum."""
    return sample_adam(arguments, rng) | {"momentum_decay": 0.004}


@part
def momenta(beta1, momentum_decay, step):
    """Momentum ``mu`` of this step and of the next, and the product of all up to this one.

    A function of the step alone, so that every thread has the same: ``mu`` of step ``t`` is
    ``beta1 * (1 - 0.96**(t * momentum_decay) / 2)``. What is left of a product below 1e-20
    cannot be seen beside the 1 it is taken from, so there the rest is not multiplied.
    """
    fade = 0.96**momentum_decay
    power, product = 1.0, 1.0
    for _ in range(step):
        power *= fade
        product *= beta1 * (1.0 - 0.5 * power)
        if product < 1e-20:
            break
    power = fade**step
    return beta1 * (1.0 - 0.5 * power), beta1 * (1.0 - 0.5 * power * fade), product


@kernel(
    "param(n) grad(n) m(n) v(n)"
    " learning_rate() beta1() beta2() epsilon() momentum_decay() step() -> param m v",
    reference=nadam_step_reference,
    sample=sample_nadam,
)
def nadam_step(param, grad, m, v, learning_rate, beta1, beta2, epsilon, momentum_decay, step):
    """As `adam_step`, one step ahead along ``m``: Adam with Nesterov's momentum.

    ``param -= learning_rate * ((1 - mu) / (1 - product) * grad + next_mu / (1 - product *
    next_mu) * m) / (sqrt(v_hat) + epsilon)``, with the momentum ``mu`` of this step, ``next_mu``
    of the next and the ``product`` of all so far, see `momenta`. Source: Dozat (2016),
    "Incorporating Nesterov Momentum into Adam", algorithm 2 and its section 3.1, as in PyTorch.
    """
    kind = param.dtype.type
    mu, next_mu, product = momenta(beta1, momentum_decay, step)
    rate_grad = kind(learning_rate * (1.0 - mu) / (1.0 - product))
    rate_m = kind(learning_rate * next_mu / (1.0 - product * next_mu))
    root, small = kind(1.0 / np.sqrt(1.0 - beta2**step)), kind(epsilon)
    keep1, keep2 = kind(beta1), kind(beta2)
    new1, new2 = kind(1.0 - beta1), kind(1.0 - beta2)
    zero, tiny = kind(0), tiny_of(param)
    for i in range(param.size):
        first = keep1 * m[i] + new1 * grad[i]
        second = keep2 * v[i] + new2 * grad[i] * grad[i]
        m[i] = zero if abs(first) < tiny else first
        v[i] = zero if second < tiny else second
        along = rate_grad * grad[i] + rate_m * first
        param[i] -= along / (np.sqrt(second) * root + small)


def nadam(rule, net, lo, hi):
    """Update the parameters ``lo..hi``."""
    size = hi - lo
    nadam_step(
        vector(net.params, lo, size),
        vector(net.grads, lo, size),
        vector(net.state, lo, size),
        vector(net.state, rule.parameters + lo, size),
        rule.learning_rate,
        rule.beta1,
        rule.beta2,
        rule.epsilon,
        rule.momentum_decay,
        rule.step,
    )
