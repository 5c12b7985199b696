"""L-BFGS: against closed forms, its own theory, and where it must stop."""

import pickle

import numpy as np
import pytest

import fastnn as fnn
from fastnn import lbfgs
from fastnn.kernels._kernel import JIT
from fastnn.lbfgs import Point

BACKENDS = ["compiled", "numpy"]


def least_squares(backend="compiled", dtype="float64", **options):
    """A linear network, its data, and the parameters that solve it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6))
    y = x @ rng.standard_normal((6, 2)) + rng.standard_normal((50, 2))
    net = fnn.Network([fnn.Dense(2)], optimizer=fnn.LBFGS(**options), input_shape=(6,), seed=0,
                      dtype=dtype, backend=backend)  # fmt: skip
    solution = np.linalg.lstsq(np.column_stack([x, np.ones(50)]), y, rcond=None)[0]
    return net, x, y, solution.ravel()


def curve(dtype="float64", backend="compiled", **options):
    net = fnn.Network([fnn.Dense(12, "tanh"), fnn.Dense(12, "tanh"), fnn.Dense(1)], seed=1,
                      optimizer=fnn.LBFGS(**options), input_shape=(1,), dtype=dtype,
                      backend=backend)  # fmt: skip
    x = np.linspace(-3, 3, 80)[:, None]
    return net, x, np.sin(2 * x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_linear_least_squares_ends_at_the_closed_form(backend):
    net, x, y, solution = least_squares(backend, tolerance=1e-10)
    history = net.fit(x, y, epochs=500, verbose=0)
    assert np.abs(net.params - solution).max() <= 1e-8
    assert len(history.epoch) < 30  # conjugate gradients would take as many as there are weights
    assert net._rule["step"][0] == len(history.epoch)
    gradient = net.gradients(x, y)
    assert max(np.abs(gradient[name]).max() for name in ("0.weight", "0.bias")) <= 1e-10


def test_float32_comes_as_close_as_it_can_and_stops():
    net, x, y, solution = least_squares(dtype="float32")
    history = net.fit(x, y, epochs=500, verbose=0)
    assert net.params.dtype == np.float32
    assert np.abs(net.params - solution).max() <= 1e-4
    assert len(history.epoch) < 100


def test_both_backends_take_the_same_way():
    nets = [curve(backend=backend)[0] for backend in BACKENDS]
    _, x, y = curve()
    for epochs in (1, 4, 10):
        losses = [net.fit(x, y, epochs=epochs, verbose=0).history["loss"] for net in nets]
        np.testing.assert_allclose(*losses, rtol=1e-7)
        np.testing.assert_allclose(nets[0].params, nets[1].params, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads):
    results = []
    for number in (1, threads):
        net, x, y = curve(dtype="float32")
        net.threads = number
        net.fit(x, y, epochs=20, verbose=0)
        results.append(net.params.tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loss_falls_at_every_iteration(dtype):
    net, x, y = curve(dtype)
    losses = net.fit(x, y, epochs=150, verbose=0).history["loss"]
    noise = np.finfo(dtype).eps
    assert (np.diff(losses) <= noise * np.array(losses[:-1])).all()
    assert losses[-1] < 3e-3 * losses[0]
    assert net.evaluate(x, y)["loss"] <= losses[-1]


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: long trainings")
def test_far_better_than_adam_on_a_small_curve():
    net, x, y = curve()
    net.fit(x, y, epochs=300, verbose=0)
    adam, _, _ = curve()
    adam.optimizer = fnn.Adam(0.01)
    adam.fit(x, y, epochs=300, batch_size=80, verbose=0)
    assert 10 * net.evaluate(x, y)["loss"] < adam.evaluate(x, y)["loss"]


def test_stops_where_it_is_done():
    net, x, y, _ = least_squares()
    first = len(net.fit(x, y, epochs=500, verbose=0).epoch)
    before = net.params.copy()
    again = net.fit(x, y, epochs=500, verbose=0)
    assert first < 500 and len(again.epoch) == 1
    assert np.array_equal(net.params, before)
    near, _, _, _ = least_squares(tolerance=0.1)
    assert len(near.fit(x, y, epochs=500, verbose=0).epoch) < first
    still, _, _, _ = least_squares(tolerance_change=1.0, tolerance=0)
    assert len(still.fit(x, y, epochs=500, verbose=0).epoch) < first


def test_the_last_line_says_where_it_stopped(capsys):
    net, x, y, _ = least_squares()
    epochs = len(net.fit(x, y, epochs=500, verbose=2).epoch)
    assert f"epoch {epochs}/{epochs}" in capsys.readouterr().out.splitlines()[-1]


def test_a_second_fit_goes_on_from_the_first():
    net, x, y = curve()
    net.fit(x, y, epochs=12, verbose=0)
    parts, _, _ = curve()
    for epochs in (3, 4, 5):
        parts.fit(x, y, epochs=epochs, verbose=0)
        parts = pickle.loads(pickle.dumps(parts))
    assert np.array_equal(net.params, parts.params)
    net.optimizer.memory = 2
    net.fit(x, y, verbose=0)
    assert len(net._pairs) == 2
    net.optimizer = "adam"
    assert net._pairs == []


def test_classes_with_validation_and_accuracy():
    x, y = fnn.datasets.moons(60, seed=0)
    net = fnn.Network([fnn.Dense(16, "tanh"), fnn.Dense(2, "softmax")], loss="cross_entropy",
                      optimizer="lbfgs", seed=0, dtype="float64")  # fmt: skip
    history = net.fit(x, y, epochs=60, validation_data=(x, y), batch_size=len(x), verbose=0).history
    # What an epoch began with is what the one before it left.
    np.testing.assert_allclose(history["loss"][1:], history["val_loss"][:-1], rtol=1e-12)
    np.testing.assert_allclose(history["accuracy"][1:], history["val_accuracy"][:-1])
    assert history["accuracy"][-1] > 0.9


def test_needs_all_rows_at_once():
    net, x, y, _ = least_squares()
    before = net.params.copy()
    with pytest.raises(ValueError, match="LBFGS needs all 50 rows at once: leave batch_size out"):
        net.fit(x, y, batch_size=32, verbose=0)
    assert np.array_equal(net.params, before)
    net.fit(x, y, batch_size=50, verbose=0)
    net.fit(x, y, batch_size=64, verbose=0)


def test_without_a_batch_size_others_take_32():
    nets = [least_squares()[0] for _ in range(2)]
    _, x, y, _ = least_squares()
    for net, options in zip(nets, ({}, {"batch_size": 32}), strict=True):
        net.optimizer = "adam"
        net.fit(x, y, epochs=2, verbose=0, **options)
    assert np.array_equal(nets[0].params, nets[1].params)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"memory": 0}, "memory must be at least 1"),
        ({"max_line_search": 0}, "max_line_search must be at least 1"),
        ({"tolerance": -1}, "tolerance must be at least 0"),
        ({"clip_norm": 1.0}, "LBFGS needs gradients as they are: leave clip_norm out"),
    ],
)
def test_what_is_no_option(options, text):
    with pytest.raises(ValueError, match=text):
        fnn.LBFGS(**options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_is_told_as_everywhere(backend):
    net, x, y, _ = least_squares(backend)
    net.params[0] = np.inf
    with pytest.raises(fnn.DivergenceError, match="epoch 1, batch 1 of 1: the output of dense"):
        net.fit(x, y, epochs=3, verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_try_that_goes_too_far_is_taken_back(backend, dtype):
    net, x, y, solution = least_squares(backend, dtype, learning_rate=1e200, max_line_search=2000)
    net.fit(x, y, epochs=2, verbose=0)
    assert np.isfinite(net.params).all()
    net.optimizer.learning_rate = 1.0
    net.fit(x, y, epochs=100, verbose=0)
    assert np.abs(net.params - solution).max() <= 1e-3


def test_nothing_to_learn():
    net = fnn.Network([fnn.Activation("relu")], input_shape=(2,), optimizer="lbfgs")
    assert net.fit([[1.0, 2.0]], [[1.0, 1.0]], epochs=3, verbose=0).history["loss"] == [0.5]


# The parts.


def test_direction_is_newtons_where_the_pairs_say_all():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((5, 5))
    hessian = root @ root.T + np.eye(5)
    pairs, conjugate = [], []
    for s in np.eye(5):  # steps conjugate to each other make the formula exact
        for other in conjugate:
            s = s - (other @ hessian @ s) / (other @ hessian @ other) * other
        conjugate.append(s)
        pairs.append((s, hessian @ s))
    gradient = rng.standard_normal(5)
    want = -np.linalg.solve(hessian, gradient)
    np.testing.assert_allclose(lbfgs.direction_of(gradient, pairs), want, rtol=1e-10)


FUNCTIONS = {
    "parabola": (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
    "far": (lambda t: (t - 300) ** 2, lambda t: 2 * (t - 300)),
    "quartic": (lambda t: (t - 1) ** 4 - 1e-3 * t, lambda t: 4 * (t - 1) ** 3 - 1e-3),
    "wall": (
        lambda t: -np.log(1 - t) - 2 * t if t < 1 else np.inf,
        lambda t: 1 / (1 - t) - 2 if t < 1 else np.nan,
    ),
    "waves": (lambda t: -t + 2 * np.sin(t) ** 2, lambda t: -1 + 2 * np.sin(2 * t)),
}


@pytest.mark.parametrize("length", [1e-3, 0.3, 1.0, 40.0, 1e6])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_line_search_ends_at_strong_wolfe_conditions(name, length):
    value, slope = FUNCTIONS[name]
    calls = []

    def evaluate(x):
        calls.append(x[0])
        return Point(x, float(value(x[0])), np.array([slope(x[0])]))

    start = evaluate(np.zeros(1))
    with np.errstate(all="ignore"):
        end = lbfgs.line_search(evaluate, start, np.ones(1), length, 60, 1e-16)
    t = end.x[0]
    assert value(t) <= value(0) + 1e-4 * t * slope(0)
    assert abs(slope(t)) <= 0.9 * abs(slope(0))
    assert len(calls) <= 40


def test_line_search_that_cannot_go_down():
    def evaluate(x):
        return Point(x, float(x[0] ** 2), 2 * x)

    assert lbfgs.line_search(evaluate, evaluate(np.ones(1)), np.ones(1), 1.0, 25, 0.0) is None
    lying = Point(np.zeros(1), 0.0, np.array([-1.0]))
    assert lbfgs.line_search(evaluate, lying, np.ones(1), 1.0, 25, 0.0) is None
