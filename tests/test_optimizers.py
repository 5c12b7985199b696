"""Optimizers over several steps against their papers' formulas, and where epsilon stands."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn.kernels._kernel import KERNELS
from fastnn.kernels.optimizers import RULES, rmsprop_centered_step
from fastnn.optimizers import OPTIMIZERS

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


def adagrad(initial, root):
    def step(p, g, t, memory):
        memory["total"] = memory.get("total", 0) + g * g
        return p - 0.05 * g / root(initial + memory["total"])

    return step


def rmsprop(root, momentum=0.0, centered=False):
    def step(p, g, t, memory):
        v = memory["v"] = 0.8 * memory.get("v", 0) + 0.2 * g * g
        m = memory["m"] = 0.8 * memory.get("m", 0) + 0.2 * g
        push = 0.05 * g / root(v - m * m if centered else v)
        memory["velocity"] = momentum * memory.get("velocity", 0) + push
        return p - memory["velocity"]

    return step


def adam(shrink=1.0, amsgrad=False):
    def step(p, g, t, memory):
        m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
        v = memory["v"] = 0.5 * memory.get("v", 0) + 0.5 * g * g
        if amsgrad:
            v = memory["peak"] = np.maximum(memory.get("peak", 0), v)
        return shrink * p - 0.05 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.5**t)) + 0.01)

    return step


def nadam(p, g, t, memory):
    """Dozat's algorithm 2, with the momentum of his section 3.1 as in PyTorch."""
    m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    v = memory["v"] = 0.5 * memory.get("v", 0) + 0.5 * g * g
    mu, after = (0.9 * (1 - 0.5 * 0.96 ** (k * 0.3)) for k in (t, t + 1))
    product = memory["product"] = memory.get("product", 1) * mu
    along = (1 - mu) * g / (1 - product) + after * m / (1 - product * after)
    return p - 0.05 * along / (np.sqrt(v / (1 - 0.5**t)) + 0.01)


def lion(p, g, t, memory):
    """Algorithm 2 of the paper, line by line."""
    m = memory.get("m", 0)
    c = 0.8 * m + (1 - 0.8) * g
    p = p - 0.05 * (np.sign(c) + 0.3 * p)
    memory["m"] = 0.6 * m + (1 - 0.6) * g
    return p


def outside(total):
    return np.sqrt(total) + 0.01


def inside(total):
    """As Keras does."""
    return np.sqrt(total + 0.01)


A = {"epsilon": 0.01, "beta2": 0.5}
R = {"epsilon": 0.01, "rho": 0.8}
KERAS = {"epsilon_mode": "inside"}
# The formula beside each: parameters, gradient, number of the step from 1, what is remembered.
FORMULAS = {
    "adagrad": (fnn.Adagrad(0.05, epsilon=0.01), adagrad(0, outside)),
    "adagrad as Keras": (
        fnn.Adagrad(0.05, epsilon=0.01, initial_total=0.1, **KERAS),
        adagrad(0.1, inside),
    ),
    "rmsprop": (fnn.RMSprop(0.05, **R), rmsprop(outside)),
    "rmsprop as Keras": (fnn.RMSprop(0.05, **R, **KERAS), rmsprop(inside)),
    "rmsprop momentum": (fnn.RMSprop(0.05, momentum=0.7, **R), rmsprop(outside, 0.7)),
    "rmsprop momentum as Keras": (
        fnn.RMSprop(0.05, momentum=0.7, **R, **KERAS),
        rmsprop(inside, 0.7),
    ),
    "rmsprop centered": (fnn.RMSprop(0.05, centered=True, **R), rmsprop(outside, 0, True)),
    "rmsprop centered as Keras": (
        fnn.RMSprop(0.05, momentum=0.7, centered=True, **R, **KERAS),
        rmsprop(inside, 0.7, True),
    ),
    "amsgrad": (fnn.Adam(0.05, amsgrad=True, **A), adam(amsgrad=True)),
    "adamw": (fnn.AdamW(0.05, weight_decay=0.3, **A), adam(1 - 0.05 * 0.3)),
    "adamw amsgrad": (
        fnn.AdamW(0.05, weight_decay=0.3, amsgrad=True, **A),
        adam(1 - 0.05 * 0.3, amsgrad=True),
    ),
    "nadam": (fnn.Nadam(0.05, momentum_decay=0.3, **A), nadam),
    "lion": (fnn.Lion(0.05, beta1=0.8, beta2=0.6, weight_decay=0.3), lion),
}


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name, backend):
    optimizer, formula = FORMULAS[name]
    params, gradients = run(optimizer, backend)
    memory = {}
    for t, g in enumerate(gradients, start=1):
        np.testing.assert_allclose(params[t], formula(params[t - 1], g, t, memory), rtol=1e-12)


def test_every_rule_is_held_to_its_formula():
    above = {"sgd", "momentum", "adam"}
    assert {optimizer.rule for optimizer, _ in FORMULAS.values()} | above == set(RULES)


PEERS = {
    "sgd": (fnn.SGD(0.05), lambda o, p: o.SGD(p, 0.05)),
    "momentum": (fnn.SGD(0.02, momentum=0.9), lambda o, p: o.SGD(p, 0.02, momentum=0.9)),
    "nesterov": (
        fnn.SGD(0.02, momentum=0.9, nesterov=True),
        lambda o, p: o.SGD(p, 0.02, momentum=0.9, nesterov=True),
    ),
    "adagrad": (
        fnn.Adagrad(0.1, decay=0.01, epsilon=1e-10),
        lambda o, p: o.Adagrad(p, 0.1, lr_decay=0.01),
    ),
    "adagrad with a beginning": (
        fnn.Adagrad(0.1, initial_total=0.1, epsilon=1e-10),
        lambda o, p: o.Adagrad(p, 0.1, initial_accumulator_value=0.1),
    ),
    "rmsprop": (
        fnn.RMSprop(0.01, rho=0.99, epsilon=1e-8),
        lambda o, p: o.RMSprop(p, 0.01),
    ),
    "rmsprop momentum": (
        # A small epsilon would blow rounding up as soon as the gradient has gone.
        fnn.RMSprop(0.003, rho=0.9, momentum=0.5, epsilon=0.01),
        lambda o, p: o.RMSprop(p, 0.003, alpha=0.9, momentum=0.5, eps=0.01),
    ),
    "rmsprop centered": (
        fnn.RMSprop(0.003, rho=0.9, momentum=0.5, centered=True, epsilon=0.01),
        lambda o, p: o.RMSprop(p, 0.003, alpha=0.9, momentum=0.5, centered=True, eps=0.01),
    ),
    "adam": (fnn.Adam(0.01), lambda o, p: o.Adam(p, 0.01)),
    "amsgrad": (fnn.Adam(0.01, amsgrad=True), lambda o, p: o.Adam(p, 0.01, amsgrad=True)),
    "adamw": (
        fnn.AdamW(0.01, weight_decay=0.2),
        lambda o, p: o.AdamW(p, 0.01, weight_decay=0.2),
    ),
    "adamw amsgrad": (
        fnn.AdamW(0.01, amsgrad=True),
        lambda o, p: o.AdamW(p, 0.01, amsgrad=True),
    ),
    "nadam": (fnn.Nadam(0.01), lambda o, p: o.NAdam(p, 0.01)),
    "nadam, another decay": (
        fnn.Nadam(0.01, momentum_decay=0.1),
        lambda o, p: o.NAdam(p, 0.01, momentum_decay=0.1),
    ),
}


@pytest.fixture
def torch():
    """PyTorch in float64, as it keeps the product of Nadam's momenta in its default dtype."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", PEERS)
def test_200_steps_are_those_of_torch(name, torch):
    """A quadratic: linear least squares, in float64."""
    optimizer, theirs = PEERS[name]
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 3))
    options = {"input_shape": (4,), "dtype": "float64", "seed": 0}
    net = fnn.Network([fnn.Dense(3)], optimizer=optimizer, **options)
    weight, bias = (torch.tensor(part.copy(), requires_grad=True)
                    for part in (net.layers[0].weight, net.layers[0].bias))  # fmt: skip
    peer = theirs(torch.optim, [weight, bias])
    x_, y_ = torch.tensor(x), torch.tensor(y)
    for _ in range(200):
        peer.zero_grad()
        ((x_ @ weight + bias - y_) ** 2).mean().backward()
        peer.step()
    net.fit(x, y, epochs=200, batch_size=30, verbose=0)
    for ours, other in ((net.layers[0].weight, weight), (net.layers[0].bias, bias)):
        np.testing.assert_allclose(ours, other.detach().numpy(), rtol=0, atol=1e-10)


def test_trap_4_adam_counts_the_steps_of_the_optimizer():
    """From 1, once for all arrays; on through the next `fit`; anew with a new optimizer.

    So the first step is as long as the learning rate in every array, not in the first one only.
    """
    layers = [fnn.Dense(3, "tanh"), fnn.Dense(3, "tanh"), fnn.Dense(2)]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    net = fnn.Network(layers, optimizer=fnn.Adam(0.01, epsilon=0), input_shape=(4,), seed=0,
                      dtype="float64")  # fmt: skip

    def first_step():
        before = net.params.copy()
        net.fit(x, y, batch_size=20, verbose=0)
        return np.abs(net.params - before)

    np.testing.assert_allclose(first_step(), 0.01)
    assert np.ptp(first_step()) > 1e-6
    net.fit(x, y, epochs=5, batch_size=4, verbose=0)
    assert net._rule["step"][0] == 2 + 25
    net.optimizer = fnn.Adam(0.01, epsilon=0)  # cold moments: they were the old one's
    np.testing.assert_allclose(first_step(), 0.01)


def test_trap_4_one_fit_is_as_good_as_many():
    """Neither moments nor the count begin again, as they do where each call has its own."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    for kind in (k for name, k in OPTIMIZERS.items() if name != "lbfgs"):
        results = []
        for epochs in ([6], [1, 2, 3]):
            net = fnn.Network([fnn.Dense(2)], optimizer=kind(0.01), input_shape=(4,), seed=0)
            for count in epochs:
                net.fit(x, y, epochs=count, batch_size=8, verbose=0)
            results.append(net.params.tobytes())
        assert results[0] == results[1], kind


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
class TestTrap5WhereEpsilonStands:
    def test_first_step_of_adam_has_the_size_of_the_learning_rate(self, backend):
        params, gradients = run(fnn.Adam(0.01, epsilon=0), backend)
        np.testing.assert_allclose(params[1] - params[0], -0.01 * np.sign(gradients[0]))

    def test_effective_epsilon(self, backend):
        """At the first step raw epsilon acts as if 1 / sqrt(1 - beta2) = 31.6 times larger."""
        raw, _ = run(fnn.Adam(0.01, epsilon=0.001, epsilon_mode="raw"), backend)
        corrected, _ = run(fnn.Adam(0.01, epsilon=0.001 / np.sqrt(0.001)), backend)
        np.testing.assert_allclose(raw[1], corrected[1])

    @pytest.mark.parametrize("kind", [fnn.Adagrad, fnn.RMSprop])
    def test_under_the_root_epsilon_acts_as_its_root(self, backend, kind):
        """Where the gradient is small: 1e-8 there is 1e-4 here."""
        rng = np.random.default_rng(0)
        x, y = 1e-9 * rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
        moved = []
        for optimizer in (kind(epsilon=1e-8, epsilon_mode="inside"), kind(epsilon=1e-4)):
            net = fnn.Network([fnn.Dense(2, weight_initializer="zeros")], optimizer=optimizer,
                              input_shape=(3,), dtype="float64", backend=backend)  # fmt: skip
            net.fit(x, y, verbose=0)
            moved.append(net.layers[0].weight.copy())
        np.testing.assert_allclose(moved[0], moved[1], rtol=1e-4)
        assert (moved[0] != 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_variance_below_zero_by_rounding_is_none(dtype):
    """Of equal gradients: mean square less squared mean, whose root must not be NaN."""
    rng = np.random.default_rng(0)
    grad = rng.standard_normal(1000).astype(dtype)
    param, v, m, velocity = (np.zeros(1000, dtype) for _ in range(4))
    negative = False
    for step in range(800):
        scaled = grad * grad.dtype.type(2 if step < 100 else 1)  # the means come from above
        rmsprop_centered_step(param, scaled, v, m, velocity, 0.01, 0.9, 0.0, 1e-3, 0)
        negative |= bool((v < m * m).any())
    assert negative and np.isfinite(param).all()


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lbfgs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_fades_becomes_zero_not_denormal(name, dtype):
    """A weight whose input has gone: its memory shrinks at each step, and processors slow down."""
    net = fnn.Network([fnn.Dense(1)], optimizer=name, input_shape=(2,), dtype=dtype, seed=0)
    if name == "sgd":
        net.optimizer = fnn.SGD(momentum=0.5)
    for field in ("beta1", "beta2", "rho"):
        if hasattr(net.optimizer, field):
            setattr(net.optimizer, field, 0.5)
    x = np.array([[1e-3, 1.0]])
    net.fit(x, [[1.0]], verbose=0)
    faded = net._state.reshape(-1, 3)[:, 0].copy()
    assert (faded != 0).all()
    x[0, 0] = 0
    for _ in range(40):
        net.fit(x, [[1.0]], epochs=50, verbose=0)
        state = net._state[net._state != 0]
        assert (np.abs(state) >= np.finfo(dtype).tiny).all()
    if name != "adagrad":  # whose sums only grow
        assert not net._state.reshape(-1, 3)[:, 0].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("rule", RULES)
def test_nan_and_inf_stay_visible(rule, bad):
    """A gradient that is no number leaves a parameter that is none."""
    entry = KERNELS[f"{rule}_step"]
    numbers = {"step": 1, "nesterov": 1, "raw_epsilon": 0, "inside_epsilon": 0}
    arguments = {
        name: np.full(37, 0.5) if dims else numbers.get(name, 0.5)
        for name, dims in entry.shapes.items()
    }
    arguments["grad"][5] = bad
    with np.errstate(all="ignore"):
        entry.run(*arguments.values())
    lost = rule == "lion" and bad == np.inf  # whose sign is a number
    assert np.isfinite(arguments["param"][5]) == lost
    assert np.isfinite(np.delete(arguments["param"], 5)).all()


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


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_changes_between_two_fits_are_checked(kind):
    x, y = np.ones((4, 1)), np.zeros((4, 1))
    net = fnn.Network([fnn.Dense(1)], input_shape=(1,), optimizer=kind(), seed=0)
    net.fit(x, y, verbose=0)
    before = net.params.copy()
    net.optimizer.learning_rate = -1
    with pytest.raises(ValueError, match="learning_rate must be above 0, got -1"):
        net.fit(x, y, verbose=0)
    assert np.array_equal(net.params, before)
    net.optimizer.learning_rate = fnn.schedules.Constant(0.1)
    net.fit(x, y, verbose=0)
    assert not np.array_equal(net.params, before)


@pytest.mark.parametrize("kind", [kind for name, kind in OPTIMIZERS.items() if name != "lbfgs"])
def test_gradients_are_clipped_in_one_way(kind):
    assert kind().clip_value is kind().clip_norm is kind().global_clip_norm is None
    assert kind(clip_value=1).clip_value == 1.0
    assert "global_clip_norm=2.0" in repr(kind(global_clip_norm=2))
    with pytest.raises(ValueError, match=r"one way to clip.*, got clip_value, clip_norm"):
        kind(clip_value=1, clip_norm=1)
    with pytest.raises(ValueError, match="clip_norm must be above 0, got 0"):
        kind(clip_norm=0)
    with pytest.raises(TypeError, match="clip_value must be a number"):
        kind(clip_value="1")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: fnn.RMSprop(rho=1), "rho must be at least 0 and below 1"),
        (lambda: fnn.Adagrad(epsilon_mode="corrected"), "epsilon_mode must be one of outside"),
        (lambda: fnn.AdamW(weight_decay=-1), "weight_decay must be at least 0"),
        (lambda: fnn.Nadam(momentum_decay=-1), "momentum_decay must be at least 0"),
        (lambda: fnn.Lion(beta2=1), "beta2 must be at least 0 and below 1"),
        (lambda: fnn.Network([fnn.Dense(1)], optimizer="rmsprob"), "must be one of rmsprop, "),
    ],
)
def test_what_is_no_optimizer(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_names_and_defaults():
    assert fnn.Adam().fields() == {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "raw_epsilon": 0}
    assert fnn.SGD().rule == "sgd" and fnn.SGD(momentum=0.5).rule == "momentum"
    assert fnn.Adam(0.5, decay=1.0).rates(0, 3).tolist() == [0.5, 0.25, 0.5 / 3]


CHANGES = {
    "rate": lambda net: setattr(net.optimizer, "learning_rate", 0.02),
    "schedule": lambda net: setattr(
        net.optimizer, "learning_rate", fnn.schedules.InverseTimeDecay(0.1, 0.5)
    ),
    "within the schedule": lambda net: setattr(net.optimizer.learning_rate, "decay", 2.0),
    "means": lambda net: setattr(net.optimizer, "beta1", 0.5),
    "another rule": lambda net: setattr(net.optimizer, "amsgrad", True),
    "limit": lambda net: setattr(net.optimizer, "clip_norm", 0.01),
    "average": lambda net: setattr(net.optimizer, "ema", 0.9),
    "penalty": lambda net: setattr(net.layers[0], "weight_l2", 0.1),
    "frozen": lambda net: setattr(net.layers[0], "trainable", False),
    "thawed": lambda net: setattr(net.layers[0], "trainable", True),
    "new": lambda net: setattr(net, "optimizer", fnn.SGD(0.1, momentum=0.9)),
}


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_a_step_follows_whatever_was_changed_before_it(backend):
    """What was looked at once is not looked at again: a network that always looks is no wiser."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    nets = [
        fnn.Network(
            [fnn.Dense(4, "tanh"), fnn.Dense(2)],
            optimizer=fnn.Adam(0.01),
            dtype="float64",
            seed=0,
            backend=backend,
        )
        for _ in range(2)
    ]
    forgetful, wise = nets
    seen = set()
    for name, change in {"nothing": lambda net: None, **CHANGES}.items():
        for net in nets:
            change(net)
        for _ in range(2):
            wise._steps = None
            assert forgetful.train_on_batch(x, y) == wise.train_on_batch(x, y), name
            assert forgetful.params.tobytes() == wise.params.tobytes(), name
            seen.add(forgetful.params.tobytes())
    assert len(seen) == 2 * (1 + len(CHANGES))
    forgetful.optimizer.momentum = 2
    with pytest.raises(ValueError, match="momentum must be"):
        forgetful.train_on_batch(x, y)
    assert forgetful.params.tobytes() == wise.params.tobytes()
