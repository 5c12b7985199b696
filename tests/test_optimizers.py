"""Optimizers over several steps against their papers' formulas, and where epsilon stands."""

import numpy as np
import pytest

import fastnn as fnn

STEPS = 6


def run(optimizer, backend):
    """Parameters after each step of full-batch training on a fixed problem, and the gradients."""
    net = fnn.Network(
        [fnn.Dense(2)],
        loss="mse",
        optimizer=optimizer,
        input_shape=(3,),
        dtype="float64",
        seed=3,
        backend=backend,
    )
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    params, gradients = [net.params.copy()], []
    for _ in range(STEPS):
        found = net.gradients(x, y)
        gradients.append(np.concatenate([found["0.weight"].ravel(), found["0.bias"]]))
        net.fit(x, y, batch_size=8, verbose=0)
        params.append(net.params.copy())
    return params, gradients


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
class TestRules:
    def test_sgd_with_decay(self, backend):
        params, gradients = run(fnn.SGD(0.1, decay=0.5), backend)
        for t, g in enumerate(gradients):
            np.testing.assert_allclose(params[t + 1], params[t] - 0.1 / (1 + 0.5 * t) * g)

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_momentum(self, backend, nesterov):
        params, gradients = run(fnn.SGD(0.1, momentum=0.9, nesterov=nesterov), backend)
        velocity = np.zeros(8)
        for t, g in enumerate(gradients):
            velocity = 0.9 * velocity - 0.1 * g
            step = 0.9 * velocity - 0.1 * g if nesterov else velocity
            np.testing.assert_allclose(params[t + 1], params[t] + step)

    def test_adam_corrected(self, backend):
        """Algorithm 1 of the paper; PyTorch and nnfs place epsilon likewise."""
        params, gradients = run(fnn.Adam(0.01, epsilon=0.1), backend)
        m, v = np.zeros(8), np.zeros(8)
        for t, g in enumerate(gradients, start=1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
            np.testing.assert_allclose(
                params[t], params[t - 1] - 0.01 * m_hat / (np.sqrt(v_hat) + 0.1)
            )

    def test_adam_raw(self, backend):
        """Keras's and scikit-learn's form, with epsilon on the uncorrected root."""
        params, gradients = run(fnn.Adam(0.01, epsilon=0.1, epsilon_mode="raw"), backend)
        m, v = np.zeros(8), np.zeros(8)
        for t, g in enumerate(gradients, start=1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            np.testing.assert_allclose(params[t], params[t - 1] - rate * m / (np.sqrt(v) + 0.1))

    def test_first_step_of_adam_has_the_size_of_the_learning_rate(self, backend):
        params, gradients = run(fnn.Adam(0.01, epsilon=0), backend)
        np.testing.assert_allclose(params[1] - params[0], -0.01 * np.sign(gradients[0]))

    def test_effective_epsilon(self, backend):
        """At the first step raw epsilon acts as if 1 / sqrt(1 - beta2) = 31.6 times larger."""
        raw, _ = run(fnn.Adam(0.01, epsilon=0.001, epsilon_mode="raw"), backend)
        corrected, _ = run(fnn.Adam(0.01, epsilon=0.001 / np.sqrt(0.001)), backend)
        np.testing.assert_allclose(raw[1], corrected[1])


def test_an_optimizer_may_be_changed_or_replaced():
    x, y = np.ones((4, 1)), np.zeros((4, 1))

    def network(optimizer):
        return fnn.Network([fnn.Dense(1)], input_shape=(1,), optimizer=optimizer, seed=0)

    net = network(fnn.SGD(0.1))
    net.optimizer.learning_rate = 1e-30
    before = net.params.copy()
    net.fit(x, y, verbose=0)
    np.testing.assert_allclose(net.params, before, atol=1e-20)
    net.optimizer.momentum = 0.9  # needs a velocity, which plain descent has none of
    net.optimizer.learning_rate = 0.1
    net.fit(x, y, epochs=3, verbose=0)
    fresh = network(fnn.SGD(0.1, momentum=0.9))
    fresh.fit(x, y, epochs=3, verbose=0)
    np.testing.assert_allclose(net.params, fresh.params, rtol=1e-6)
    net.optimizer = fnn.Adam(0.01, epsilon=0)
    before = net.params.copy()
    net.fit(x, y, verbose=0)
    np.testing.assert_allclose(np.abs(net.params - before), 0.01, rtol=1e-4)
    with pytest.raises(ValueError, match="optimizer must be one of"):
        net.optimizer = "addam"


def test_names_and_defaults():
    assert fnn.Adam().fields() == {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "raw_epsilon": 0}
    assert fnn.SGD().rule == "sgd" and fnn.SGD(momentum=0.5).rule == "momentum"
    assert fnn.Adam(0.5, decay=1.0).rates(0, 3).tolist() == [0.5, 0.25, 0.5 / 3]
