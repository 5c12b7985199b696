"""Learning inside compiled code: the gradients and steps of `fit`, and what is refused."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit

import fastnn as fnn
from fastnn.kernels._kernel import JIT
from tests.test_plan import NETWORKS, OPTIMIZERS, build


@njit
def graded(net, x, y):
    return net.loss_and_gradient(x, y)


@njit
def step(net, x, y):
    return net.train_step(x, y)


@njit
def train(net, x, y, size, losses):
    for i in range(losses.size):
        start = i * size % x.shape[0]
        losses[i] = net.train_step(x[start : start + size], y[start : start + size])


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradient_are_those_of_gradients(name):
    net, x, y = build(name)
    net.fit(x, y, epochs=1, batch_size=25, verbose=0)
    want = net.gradients(x, y)
    loss, gradient = graded(net, x, y)
    flat = np.concatenate([want[p.title].ravel() for p in net.plan.parameters])
    assert np.array_equal(gradient, flat)
    assert loss == pytest.approx(net._differentiate(x, y)[0], rel=1e-14)
    # one row, its target a row, a number or a label
    loss, gradient = graded(net, x[2], y[2])
    want, gradients = net.loss_and_gradient(x[2:3], y[2:3])
    assert loss == pytest.approx(want, rel=1e-14) and np.array_equal(gradient, gradients)


@pytest.mark.parametrize(
    ("name", "optimizer", "size"),
    [
        *((name, "adam", 25) for name in NETWORKS),
        *(("classes", optimizer, 10) for optimizer in OPTIMIZERS),
        ("regression", "momentum", 50),  # a batch in parts
    ],
)
def test_steps_have_the_bits_of_fit(name, optimizer, size):
    net, x, y = build(name, optimizer)
    twin, _, _ = build(name, optimizer)
    losses = np.zeros(3 * (50 // size))
    train(net, x, y, size, losses)
    history = twin.fit(x, y, epochs=3, batch_size=size, shuffle=False, verbose=0)
    assert net.params.tobytes() == twin.params.tobytes()
    assert net._state.tobytes() == twin._state.tobytes()
    means = losses.reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(means, history.history["loss"], rtol=1e-12)
    for n in (net, twin):  # each goes on where compiled steps have ended
        n.fit(x, y, epochs=1, batch_size=size, shuffle=False, verbose=0)
        n._rule["terms"] = 0  # of the fit, and gone with it
    train(net, x, y, size, losses[:2])
    train(twin, x, y, size, losses[:2])
    assert net.params.tobytes() == twin.params.tobytes()


def small(loss="mse", outputs=3, **options):
    layers = [fnn.Dense(5, "tanh"), fnn.Dense(outputs)]
    return fnn.Network(layers, loss=loss, input_shape=(4,), seed=0, dtype="float64", **options)


X = np.random.default_rng(0).standard_normal((20, 4))
Y = np.random.default_rng(1).standard_normal((20, 3))


def test_what_was_changed_from_outside_is_seen():
    net, twin = small(), small()

    def both():
        step(net, X, Y)
        twin.fit(X, Y, batch_size=20, shuffle=False, verbose=0)
        assert net.params.tobytes() == twin.params.tobytes()

    both()
    for n in (net, twin):
        n.optimizer.learning_rate = 0.1
    both()
    for n in (net, twin):
        n.layers[0].trainable = False
    both()
    for n in (net, twin):
        n.optimizer = fnn.SGD(0.1, momentum=0.9, clip_norm=0.1)
    both()
    for n in (net, twin):
        n.optimizer.momentum = 0.0
        n.layers[1].weight_l2 = 0.1
    both()


def test_a_schedule_goes_on_with_the_steps():
    rate = fnn.schedules.Cosine(0.1, 30, warmup=5)
    net, twin = small(optimizer=fnn.SGD(rate)), small(optimizer=fnn.SGD(rate))
    losses = np.zeros(12)
    for _ in range(3):
        train(net, X, Y, 20, losses)
        twin.fit(X, Y, epochs=12, batch_size=20, shuffle=False, verbose=0)
    assert net.params.tobytes() == twin.params.tobytes()


def test_a_schedule_that_runs_out_says_so(monkeypatch):
    if not JIT:
        pytest.skip("Python asks the schedule itself")
    monkeypatch.setattr("fastnn.desk.RATES", 10)
    net = small(optimizer=fnn.SGD(0.1, decay=0.01))
    train(net, X, Y, 20, np.zeros(10))
    train(net, X, Y, 20, np.zeros(10))
    with pytest.raises(RuntimeError, match="schedule"):
        train(net, X, Y, 20, np.zeros(11))


@pytest.mark.parametrize("given", [np.array([0, 1.0]), np.array([-1, 1]), np.array([False, True])])
def test_hinge_takes_zeros_or_signs(given):
    net = small("hinge", 1)
    y = given[np.random.default_rng(2).integers(0, 2, 20)]
    got, want = graded(net, X, y), net.loss_and_gradient(X, y)
    assert got[0] == pytest.approx(want[0]) and np.array_equal(got[1], want[1])


def test_float32_and_other_dtypes_of_data():
    net = fnn.Network([fnn.Dense(2, "softmax")], input_shape=(4,), loss="cross_entropy", seed=0)
    y = np.arange(20) % 2
    want = net.loss_and_gradient(X.astype("f4"), y)
    for labels in (y.astype("u1"), y.astype("f8"), y.astype(bool), y):
        got = graded(net, X, labels)
        assert got[1].dtype == np.float32 and got[0] == want[0]
        assert np.array_equal(got[1], want[1])


@pytest.mark.parametrize("function", [graded, step])
def test_targets_that_do_not_fit_are_refused(function):
    net = small("quadratic")
    before = net.params.copy()
    wrong = [np.ones((20, 2)), np.ones((19, 3)), np.ones(19), np.full(20, 3), np.full(20, -1)]
    wrong += [np.full(20, 0.5)]
    for y in wrong:
        with pytest.raises(ValueError, match=r"y must|as many rows"):
            function(net, X, y)
    for y in (np.ones(2), np.ones(4)):
        with pytest.raises(ValueError, match=r"y must|labels"):
            function(net, X[0], y)
    with pytest.raises(ValueError, match="labels"):
        function(net, X[0], 3)
    with pytest.raises(ValueError, match="x must"):
        function(net, X[:, :3], Y)
    with pytest.raises(ValueError, match="x must"):
        function(net, X[:0], Y[:0])
    counts = small("poisson")
    with pytest.raises(ValueError, match="y must"):
        function(counts, X, np.zeros(20, int))
    assert np.array_equal(net.params, before)


def test_what_cannot_be_trained_says_so():
    perceptron = fnn.Network([fnn.Dense(3, "step")], input_shape=(4,), seed=0)
    with pytest.raises(ValueError, match=r"trained|no gradient"):
        step(perceptron, X, Y)
    with pytest.raises(ValueError, match="LBFGS cannot take single steps"):
        step(small(optimizer="lbfgs"), X, Y)
    graded(small(optimizer="lbfgs"), X, Y)


@pytest.mark.skipif(not JIT, reason="Python raises DivergenceError")
def test_a_loss_that_is_not_finite_moves_nothing():
    net = small()
    before = net.params.copy()
    assert not np.isfinite(step(net, np.full((2, 4), np.inf), Y[:2]))
    assert np.array_equal(net.params, before) and net._rule["step"][0] == 0
    step(net, X, Y)
    assert not np.array_equal(net.params, before)


@njit(nogil=True)
def many_steps(net, x, y, count):
    for _ in range(count):
        net.train_step(x, y)


@pytest.mark.skipif(not JIT, reason="of Python see test_while_fitting.py")
def test_one_thread_at_a_time_trains_a_network():
    """In compiled code or in Python; whoever comes second is told, and nothing has moved."""
    net, x, y = build("regression")
    step(net, x, y)
    before = net.params.copy()
    told = []

    def during(epoch, logs):
        with pytest.raises(RuntimeError, match="is being trained: one thread at a time"):
            step(net, x, y)
        told.append(epoch)

    net.fit(x, y, epochs=2, callbacks=[during], verbose=0)
    assert told == [0, 1] and not np.array_equal(net.params, before)
    step(net, x, y)
    net._turns.taken[0] = 1  # as while compiled code takes a step
    before = net.params.copy()
    with pytest.raises(RuntimeError, match="one thread at a time"):
        step(net, x, y)
    with pytest.raises(RuntimeError, match="compiled code in another thread"):
        net.train_on_batch(x, y)
    assert np.array_equal(net.params, before)
    net._turns.taken[0] = 0
    net.train_on_batch(x, y)


@pytest.mark.skipif(not JIT, reason="nothing runs at the same time")
def test_threads_that_train_one_network_are_told():
    net, x, y = build("regression")
    many_steps(net, x, y, 1)
    taken = net._rule["step"][0]
    count = 20_000

    def run(_):
        try:
            many_steps(net, x, y, count)
        except RuntimeError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(run, range(4)))
    assert any("one thread at a time" in end for end in ends)
    assert "" in ends, "somebody always has it"
    assert not net._turns.taken[0] and np.isfinite(net.params).all()
    assert count <= net._rule["step"][0] - taken <= 4 * count
