"""One step after another from Python: the prepared road and the general one take the same."""

import threading

import numpy as np
import pytest

import fastnn as fnn
from fastnn import _threads, compiled
from fastnn.kernels import _team
from fastnn.kernels._kernel import JIT
from fastnn.steps import Steps

D = fnn.Dense
RNG = np.random.default_rng(4)
X = RNG.standard_normal((40, 6)).astype(np.float32)
LABELS = RNG.integers(0, 3, 40)
BYTES = RNG.integers(0, 256, (40, 6), np.uint8)
IMAGES = RNG.standard_normal((40, 8, 8)).astype(np.float32)
only_compiled = pytest.mark.skipif(not JIT, reason="nothing is compiled: the general road")


def regression(**options):
    layers = [D(9, "tanh", weight_l2=0.01), fnn.Dropout(0.2), D(2)]
    return fnn.Network(layers, seed=3, threads=1, **options)


def single(**options):
    return fnn.Network([D(5, "relu"), D(1)], seed=3, threads=1, metric="mae", **options)


def classifier(**options):
    layers, loss = [D(9, "relu"), fnn.BatchNorm(), D(3, "softmax")], fnn.losses.CrossEntropy(0.1)
    return fnn.Network(layers, loss=loss, seed=3, threads=1, **options)


def scaled(**options):
    layers = [fnn.Input((6,), scale=1 / 255, offset=-0.5), D(4, "relu"), D(3, "softmax")]
    return fnn.Network(layers, loss="cross_entropy", seed=3, threads=1, **options)


def words(**options):
    layers = [fnn.Embedding(256, 3), fnn.Flatten(), D(2)]
    return fnn.Network(layers, seed=3, threads=1, **options)


def images(**options):
    layers = [fnn.Conv2D(3, 3, "relu"), fnn.MaxPool2D(), fnn.Flatten(), D(3, "softmax")]
    return fnn.Network(layers, loss="cross_entropy", seed=3, threads=1, **options)


CASES = {
    "numbers": (regression, X, X[:, :2]),
    "whole numbers": (regression, BYTES.astype(np.int64), BYTES[:, :2]),
    "columns": (regression, np.asfortranarray(X), X[::-1, ::3]),
    "one number": (single, X, X[:, 0]),
    "one column": (single, X.astype(float), X[:, :1].astype(float)),
    "labels": (classifier, X, LABELS),
    "a column of labels": (classifier, X, LABELS[:, None].astype(np.uint8)),
    "bytes": (scaled, BYTES, LABELS),
    "words": (words, BYTES, X[:, :2]),
    "images": (images, IMAGES, LABELS),
}


def state(net):
    return net.params.tobytes(), net._state.tobytes(), net._rule["step"][0]


def never(monkeypatch):
    """From now on every step takes the general road."""
    monkeypatch.setattr(Steps, "remember", lambda steps, pair: None)


@only_compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_both_roads_take_the_same_steps(name, dtype, monkeypatch):
    make, x, y = CASES[name]
    results = []
    for prepared in (True, False):
        if not prepared:
            never(monkeypatch)
        net, taken, train = make(dtype=dtype), [], compiled.Ready.__call__
        with monkeypatch.context() as patch:
            patch.setattr(
                compiled.Ready,
                "__call__",
                lambda own, *rest, train=train, taken=taken: taken.append(1) or train(own, *rest),
            )
            cuts = [(0, 16), (0, 16), (16, 30), (30, 31), (31, 40), (0, 40), (3, 40)]
            figures = [net.train_on_batch(x[lo:hi], y[lo:hi]) for lo, hi in cuts]
        # All but the first, and the one that needed more room than there was.
        assert len(taken) == (5 if prepared else 0)
        results.append((figures, *state(net)))
    assert results[0] == results[1]


@only_compiled
def test_what_is_changed_between_two_steps_counts(monkeypatch):
    results = []
    for prepared in (True, False):
        if not prepared:
            never(monkeypatch)
        net = regression(optimizer=fnn.SGD(0.1, momentum=0.5))
        step = lambda net=net: net.train_on_batch(X, X[:, :2])["loss"]  # noqa: E731
        losses = [step(), step()]
        net.optimizer.learning_rate = 0.01
        losses += [step(), step()]
        net.layers[0].trainable = False
        losses += [step(), step()]
        net.layers[0].trainable, net.layers[0].weight_l2 = True, 0.5
        losses += [step(), step()]
        losses.append(net.train_step(X, X[:, :2]))
        net.optimizer.ema = 0.9
        losses += [step(), step(), net.averaged().evaluate(X, X[:, :2])["loss"]]
        net.optimizer = fnn.Adam(fnn.schedules.Exponential(0.1, 0.9))
        losses += [step(), step()]
        net.fit(X, X[:, :2], epochs=2, verbose=0)
        net.params[:] *= 0.5
        losses += [step(), step()]
        results.append((losses, *state(net)))
    assert results[0] == results[1]


@only_compiled
def test_compiled_code_trains_between_two_steps(monkeypatch):
    """Which brings terms of its own for the same rule."""
    from numba import njit

    @njit
    def teach(net, x, y):
        return net.train_step(x, y)

    x, y, results = X.astype(np.float32), X[:, :2].copy(), []
    for prepared in (True, False):
        if not prepared:
            never(monkeypatch)
        net = regression(input_shape=(6,))
        losses = []
        for _ in range(3):
            losses += [net.train_on_batch(x, y)["loss"], teach(net, x, y)]
        results.append((losses, *state(net)))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["numbers", "labels", "words"])
def test_what_does_not_fit_is_explained_and_changes_nothing(name):
    make, x, y = CASES[name]
    net = make()
    for _ in range(2):
        net.train_on_batch(x, y)
    before, bad = state(net), x.astype(np.float64)
    bad[7, 1] = np.nan
    other = np.where(np.arange(40) == 3, 7, y) if y.ndim == 1 else np.full_like(y, np.inf)
    for wrong in ((bad, y), (x[:, :5], y), (x[:0], y[:0]), (x, y[:9]), (x[0], y), (x, other)):
        with pytest.raises(ValueError, match="must"):
            net.train_on_batch(*wrong)
        assert state(net) == before
    with pytest.raises(TypeError, match="real numbers"):
        net.train_on_batch(x.astype(complex), y)
    if name == "words":
        with pytest.raises(ValueError, match="256"):
            net.train_on_batch(x.astype(np.int64) + 200, y)
    net.train_on_batch(x.tolist(), y.tolist())
    net.train_on_batch(x, y, sample_weight=np.ones(40))
    assert net._rule["step"][0] == before[2] + 2


@pytest.mark.parametrize("rate", [1e8, 1e4])
def test_a_divergence_is_told_as_by_the_general_road(rate, monkeypatch):
    ends = []
    for prepared in (True, False):
        if not prepared:
            never(monkeypatch)
        net = regression(optimizer=fnn.SGD(rate))
        with pytest.raises(fnn.DivergenceError) as error:
            for _ in range(99):
                net.train_on_batch(X, X[:, :2])
        ends.append((str(error.value), *state(net)))
    assert ends[0] == ends[1] and ends[0][-1] > 1


def test_several_threads_take_turns():
    """Rows of one never become those of another; whoever comes at the wrong time is refused."""
    net = single(optimizer=fnn.SGD(1e-30))
    want = {}
    for i in range(8):
        x = np.full((4, 6), i, np.float32)
        want[i] = net.train_on_batch(x, np.zeros(4, np.float32))["loss"]
    wrong, refused = [], []

    def steps(i):
        x = np.full((4, 6), i, np.float32)
        for _ in range(300 if JIT else 3):
            try:
                if net.train_on_batch(x, np.zeros(4, np.float32))["loss"] != want[i]:
                    wrong.append(i)
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=steps, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and all("is being fitted" in text for text in refused)
    assert net._rule["step"][0] == 8 + 8 * (300 if JIT else 3) - len(refused)


@pytest.mark.parametrize(("threads", "width", "one"), [(None, 64, True), (2, 64, False),
                                                       (None, 2000, False)])  # fmt: skip
def test_only_what_one_thread_does_is_prepared(threads, width, one, monkeypatch):
    """By default as many as a step is worth; two where they are asked for."""
    monkeypatch.setattr(_threads, "processors", lambda: 3)
    net = fnn.Network([D(width), D(width), D(1)], seed=0, threads=threads)
    for _ in range(2):
        net.train_on_batch(X, X[:, 0])
    assert (net._steps.again is not None) == (JIT and (one or not _team.AVAILABLE))
