"""Mistakes that other libraries and books make, each avoided here: those with no better place.

The others stand where their subject is tested; ``grep -ri trap_ tests`` finds all of them.
"""

import subprocess
import sys

import numpy as np
import pytest

import fastnn as fnn
from fastnn.kernels._kernel import FASTMATH, JIT, SUMS


def build(layers, loss="mse", **options):
    options = {"dtype": "float64", "seed": 0, **options}
    return fnn.Network(layers, loss=loss, **options)


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_trap_3_a_sigmoid_does_not_overflow(backend):
    """1 / (1 + exp(-x)) as it is written overflows, and warns, from -710 on."""
    net = build([fnn.Activation("sigmoid")], input_shape=(1,), backend=backend)
    with np.errstate(all="raise"):
        got = net.predict([[-1000.0], [-30.0], [0.0], [30.0], [1000.0]]).ravel()
    assert got[[0, 2, 4]].tolist() == [0.0, 0.5, 1.0]
    assert got[1] == pytest.approx(np.exp(-30.0), rel=1e-12)


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize("fused", [False, True])
def test_trap_10_relu_at_zero(fused, backend):
    """0 at 0 and at -0.0, forward and backward, in a layer of its own and inside a product."""
    layers = [fnn.Dense(3, "relu"), fnn.Dense(1)] if fused else [fnn.Activation("relu")]
    net = build(layers, input_shape=(3,), backend=backend)
    if fused:
        net.params[...] = 0
        net.layers[0].weight[...] = np.eye(3)
        net.layers[1].weight[...] = 1
    y = np.ones((1, 1 if fused else 3))
    slope = net.gradients([[0.0, -0.0, 2.0]], y)["x"][0]
    assert slope[:2].tolist() == [0.0, 0.0] and slope[2] != 0


def test_trap_15_every_epoch_has_an_order_of_its_own_and_the_data_stay(monkeypatch):
    """A fresh permutation each epoch, the first included; the caller's arrays are not shuffled."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 2)), rng.standard_normal((40, 1))
    before = x.copy(), y.copy()
    net = build([fnn.Dense(1)])
    orders, engine = [], net._engine()
    train = engine.train

    def recorded(*arguments):
        order, starts, stops = arguments[7:10]
        orders.extend(order[low:high] for low, high in zip(starts, stops, strict=True))
        return train(*arguments)

    monkeypatch.setattr(engine, "train", recorded)
    net.fit(x, y, epochs=3, batch_size=40 // 4, verbose=0)
    epochs = np.concatenate(orders).reshape(3, 40)
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert len({epoch.tobytes() for epoch in [*epochs, np.arange(40)]}) == 4
    assert np.array_equal(x, before[0]) and np.array_equal(y, before[1])


def test_trap_16_a_short_last_batch_leaves_no_old_gradients_behind():
    """Fewer rows than threads: what a thread with nothing to do had before must not count."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((34, 6)), rng.standard_normal((34, 5))
    results = set()
    for threads in (1, 2, 8):
        net = build([fnn.Dense(70, "tanh"), fnn.Dense(5)], threads=threads)
        net.fit(x, y, epochs=3, batch_size=33, verbose=0)  # 33 rows, then one
        results.add(net.params.tobytes())
    assert len(results) == 1


def test_trap_17_importing_and_training_change_nothing_outside():
    code = """
import numpy as np
names = ("dot", "zeros", "eye")
before = [getattr(np, n) for n in names], np.random.randn, np.random.get_state()[1].tobytes()
errors, options = np.geterr(), np.get_printoptions()
import fastnn as fnn
x, y = fnn.datasets.xor()
fnn.Network([fnn.Dense(1)], seed=0, backend="numpy").fit(x, y, verbose=0)
after = [getattr(np, n) for n in names], np.random.randn, np.random.get_state()[1].tobytes()
assert before == after and errors == np.geterr() and options == np.get_printoptions()
assert np.zeros(1).dtype == np.dot(np.ones(1), np.ones(1)).dtype == np.float64
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_trap_19_no_shortcut_assumes_that_numbers_are_finite():
    assert not (FASTMATH | SUMS) & {"fast", "nnan", "ninf", "arcp"}


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_trap_19_a_training_that_diverges_says_so(backend):
    x, y = np.array([[1e30]], "f4"), np.array([[1.0]], "f4")
    net = build([fnn.Dense(1)], dtype="float32", optimizer=fnn.SGD(1.0), backend=backend)
    with pytest.raises(fnn.DivergenceError, match="epoch 1, batch 1"):
        net.fit(x, y, epochs=3, verbose=0)


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: numpy's own comparison")
def test_trap_10_relu_keeps_nan():
    net = build([fnn.Dense(1, "relu"), fnn.Dense(1)], input_shape=(1,))
    net.params[...] = [np.nan, 0, 1, 0]
    assert np.isnan(net.predict([[1.0]])[0, 0])
