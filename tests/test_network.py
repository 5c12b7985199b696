"""The network as its users meet it: training, continuing, stopping, looking inside."""

import copy
import gc
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import fastnn as fnn
from fastnn import compiled, training
from fastnn.kernels._kernel import JIT

BACKENDS = ["compiled", "numpy"]


def classifier(**options):
    layers = [fnn.Dense(8, "relu"), fnn.Dense(3, "softmax")]
    options = {"loss": "cross_entropy", "optimizer": fnn.Adam(0.01), "seed": 0, **options}
    return fnn.Network(layers, **options)


@pytest.fixture
def data():
    return fnn.datasets.spiral(samples=37)


def test_same_seed_same_bits(data):
    histories, params = [], []
    np.random.seed(5)  # noqa: NPY002 (the global state, which must not matter)
    for _ in range(2):
        net = classifier()
        histories.append(net.fit(*data, epochs=3, batch_size=10, verbose=0).history)
        params.append(net.params.copy())
        np.random.random()  # noqa: NPY002
    assert histories[0] == histories[1] and np.array_equal(*params)
    other = classifier(seed=1)
    other.fit(*data, epochs=3, batch_size=10, verbose=0)
    assert not np.array_equal(other.params, params[0])
    first, second = (classifier(seed=None, input_shape=(2,)) for _ in range(2))
    assert not np.array_equal(first.params, second.params)


def test_global_random_state_is_left_alone(data):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    net = classifier()
    net.fit(*data, verbose=0)
    net.predict(data[0])
    fnn.datasets.moons()
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_dtypes_begin_alike():
    single, double = (classifier(input_shape=(2,), dtype=d) for d in ("float32", "float64"))
    assert np.array_equal(single.params, double.params.astype(np.float32))
    assert np.dtype(classifier(dtype=np.float64).dtype) == np.float64


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch_size", [1, 7, 36, 111, 500])
def test_mean_loss_weights_the_last_batch_rightly(data, batch_size, backend):
    """With a learning rate of nothing, every way to cut an epoch has the loss of the data."""
    net = classifier(optimizer=fnn.SGD(1e-30), backend=backend, dtype="float64")
    history = net.fit(*data, epochs=2, batch_size=batch_size, verbose=0).history
    figures = net.evaluate(*data)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(history[name], figures[name], rtol=1e-12)


def pieces(samples, batch_size, epochs, shuffle, whole_epochs, batches=3.0):
    rng, progress = np.random.default_rng(0), training.Progress(epochs, batch_size, True, samples)
    feed = training.Arrays(samples, batch_size, rng, shuffle)
    while progress.going:
        piece = feed.take(progress, int(batches), whole_epochs)
        yield progress.epoch, progress.batch, piece
        progress.batch += len(piece.starts)
        if piece.over:
            progress.next_epoch(progress.batch // -(-samples // batch_size), False)


@pytest.mark.parametrize("whole_epochs", [True, False])
@pytest.mark.parametrize("batches", [1.0, 2.0, 3.0, 7.9, 100.0])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("samples", "batch_size"), [(10, 3), (12, 4), (5, 5), (5, 9), (1, 1)])
def test_slices_hold_every_row_of_every_epoch_once(
    samples, batch_size, shuffle, batches, whole_epochs
):
    epochs, seen, place = 7, [[]], (0, 0)
    for epoch, batch, piece in pieces(samples, batch_size, epochs, shuffle, whole_epochs, batches):
        assert (epoch, batch) == place
        for start, stop in zip(piece.starts, piece.stops, strict=True):
            rows = piece.order[start:stop].tolist()
            assert 0 < len(rows) <= batch_size
            assert len(rows) == batch_size or len(seen[-1]) + len(rows) == samples
            seen[-1] += rows
            place = (place[0], place[1] + 1)
            if len(seen[-1]) == samples:
                seen.append([])
                place = (place[0] + 1, 0)
    assert len(seen) == epochs + 1 and seen.pop() == []
    assert all(sorted(rows) == list(range(samples)) for rows in seen)
    if shuffle and samples > batch_size:
        assert len({tuple(rows) for rows in seen}) > 1, "an epoch's order was not fresh"
    else:
        assert all(rows == list(range(samples)) for rows in seen)


def test_where_training_is_cut_into_slices_changes_nothing(data, monkeypatch):
    results = []
    for seconds in (1e-9, 1e-3, 10.0):
        monkeypatch.setattr(training, "SLICE_SECONDS", seconds)
        net = classifier()
        history = net.fit(*data, epochs=20, batch_size=10, verbose=0)
        results.append((net.params.tobytes(), str(history.history)))
    assert len(set(results)) == 1


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: a single batch takes longer")
@pytest.mark.parametrize(("batch_size", "epochs"), [(1, 1000), (16, 5000), (500, 10_000)])
def test_python_is_back_after_some_tens_of_milliseconds(batch_size, epochs, monkeypatch):
    x, y = np.zeros((500, 20), np.float32), np.zeros(500, int)
    net = classifier()
    net.fit(x, y, verbose=0)
    lengths, learn = [], training.Pace.learn
    monkeypatch.setattr(
        training.Pace,
        "learn",
        lambda self, n, seconds: lengths.append(seconds) or learn(self, n, seconds),
    )
    net.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0)
    # The first slices find the pace; the median, because another process may hold up any one.
    assert 0.01 <= np.median(lengths[6:-1]) <= 0.1


def test_a_second_fit_goes_on(data):
    """The optimizer's memory and the stream of shuffles outlive a call."""
    once, twice = classifier(), classifier()
    once.fit(*data, epochs=6, batch_size=10, verbose=0)
    for _ in range(3):
        twice.fit(*data, epochs=2, batch_size=10, verbose=0)
    assert np.array_equal(once.params, twice.params)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_are_one_buffer_that_may_be_written(backend):
    net = classifier(input_shape=(2,), backend=backend)
    x = np.ones((1, 2), np.float32)
    assert net.layers[0].weight.base is net.params.base
    before = net.predict(x)
    net.layers[1].bias[0] += 1
    assert net.predict(x)[0, 0] > before[0, 0]
    net.params[:] = 0
    np.testing.assert_allclose(net.predict(x), 1 / 3, rtol=1e-6)
    net.layers[0].weight = np.ones((2, 8))
    assert net.params[:16].tolist() == [1.0] * 16
    net.params = np.arange(net.params.size)
    assert net.layers[1].bias.tolist() == [48.0, 49.0, 50.0]


def test_a_row_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((700, 30)).astype(np.float32)
    net = fnn.Network(
        [fnn.Dense(50, "tanh"), fnn.Dense(20, "sigmoid"), fnn.Dense(7, "softmax")],
        input_shape=(30,), seed=0,
    )  # fmt: skip
    whole = net.predict(x)
    for cut in (1, 2, 13, 255, 256, 300):
        assert np.array_equal(whole[:cut], net.predict(x[:cut]))
    for i in (0, 100, 256, 699):
        assert np.array_equal(whole[i : i + 1], net.predict(x[i : i + 1]))


def test_predict_from_many_threads(data):
    net = classifier()
    net.fit(*data, verbose=0)
    expected, wrong = net.predict(data[0]), []

    def work():
        for i in range(50):
            rows = 1 + 37 * i % len(expected)
            if not np.array_equal(net.predict(data[0][:rows]), expected[:rows]):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_networks_train_at_once(data):
    def train(results, seed):
        net = classifier(seed=seed)
        net.fit(*data, epochs=30, batch_size=10, verbose=0)
        results[seed] = net.params.copy()

    alone, together = {}, {}
    for seed in range(3):
        train(alone, seed)
    threads = [threading.Thread(target=train, args=(together, seed)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone[s], together[s]) for s in range(3))


# History, validation and what is shown


@pytest.mark.parametrize("backend", BACKENDS)
def test_history_and_validation(data, backend):
    net = classifier(backend=backend)
    x, y = data
    history = net.fit(x, y, epochs=4, validation_data=(x[:20], y[:20]), verbose=0)
    assert history.epoch == [0, 1, 2, 3]
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(type(v) is float for values in history.history.values() for v in values)
    figures = net.evaluate(x[:20], y[:20])
    assert history.history["val_loss"][-1] == figures["loss"]
    assert history.history["val_accuracy"][-1] == figures["accuracy"]
    assert "4 epochs" in repr(history)


def test_regression_has_no_accuracy():
    net = fnn.Network([fnn.Dense(2)], loss="mse", seed=0)
    x = np.ones((5, 2))
    assert list(net.fit(x, x, verbose=0).history) == ["loss"]
    assert list(net.evaluate(x, x)) == ["loss"]


def test_accuracy_counts(data):
    net = classifier()
    x, y = data
    net.fit(x, y, epochs=5, verbose=0)
    share = (net.predict(x).argmax(axis=1) == y).mean()
    assert net.evaluate(x, y)["accuracy"] == pytest.approx(share, rel=1e-12)
    yes = fnn.Network([fnn.Dense(2, "sigmoid")], loss="binary_cross_entropy", seed=0)
    bits = np.random.default_rng(0).integers(0, 2, (len(x), 2))
    yes.fit(x, bits, verbose=0)
    share = ((yes.predict(x) > 0.5) == bits).mean()
    assert yes.evaluate(x, bits)["accuracy"] == pytest.approx(share, rel=1e-6)


# Stopping


@pytest.mark.parametrize("backend", BACKENDS)
def test_divergence_names_epoch_batch_and_layer(data, backend):
    x, y = data
    net = classifier(optimizer=fnn.SGD(1e30), backend=backend)
    with pytest.raises(fnn.DivergenceError) as caught:
        net.fit(x, y, epochs=5, batch_size=10, verbose=0)
    text = str(caught.value)
    assert "epoch 1, batch 2 of 12" in text
    assert "layer 1, Dense(3, 'softmax')" in text or "layer 0, Dense(8, 'relu')" in text
    assert "\n" not in text and issubclass(fnn.DivergenceError, FloatingPointError)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_that_blow_up_behind_a_finite_loss(backend):
    """Saturated sigmoids hide an infinite weight; the parameters themselves are looked at."""
    layers = [fnn.Dense(2, "sigmoid"), fnn.Dense(1, "sigmoid")]
    net = fnn.Network(
        layers, loss="quadratic", optimizer=fnn.SGD(3e38), input_shape=(1,), seed=0, backend=backend
    )
    x = np.full((8, 1), 3.0)
    with pytest.raises(fnn.DivergenceError, match=r"epoch 1, batch \d of 4: \w+ of layer \d"):
        net.fit(x, np.zeros(8) + 1e3, batch_size=2, verbose=0)


@pytest.mark.parametrize("layer", [0, 1])
def test_divergence_finds_the_layer(layer):
    net = classifier(input_shape=(2,))
    net.layers[layer].bias[1] = np.nan
    with pytest.raises(fnn.DivergenceError, match=f"output of dense in layer {layer}"):
        net.fit(np.ones((4, 2)), [0, 1, 2, 0], verbose=0)


class Blows(fnn.schedules.Schedule):
    """A rate that is infinite at its tenth step."""

    def at(self, steps):
        return np.where(steps == 9, np.inf, 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_update_that_spoils_a_parameter_is_named(data, backend):
    """Not the batch behind it, whose output shows it; also from within a slice of many batches."""
    net = classifier(optimizer=fnn.SGD(Blows()), backend=backend)
    with pytest.raises(
        fnn.DivergenceError, match=r"epoch 1, batch 10 of 12: weight of layer 0, Dense"
    ):
        net.fit(*data, batch_size=10, verbose=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("optimizer", ["adagrad", "rmsprop", "adam", "lion"])
def test_an_optimizer_s_memory_that_overflows_is_found(data, optimizer, backend):
    """A parameter that is divided by infinity would stand still, and nobody would know."""
    net = classifier(optimizer=optimizer, backend=backend)
    net.fit(*data, verbose=0)
    net._state[-1] = np.inf
    with pytest.raises(
        fnn.DivergenceError,
        match=r"the optimizer's memory of bias in layer 1, Dense|bias of layer 1",
    ):
        net.fit(*data, verbose=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_minus_infinity_is_not_turned_to_0(backend):
    """A weight that must not be negative would be 0 after an update that has blown up."""
    layers = [fnn.Dense(1, non_negative=True, use_bias=False)]
    net = fnn.Network(layers, optimizer=fnn.SGD(3e38), input_shape=(1,), backend=backend)
    net.layers[0].weight = [[2.0]]
    with pytest.raises(fnn.DivergenceError, match="batch 1 of 1: weight of layer 0"):
        net.fit(np.ones((4, 1)), np.zeros(4), verbose=0)


def test_ctrl_c_leaves_a_network_that_goes_on(data, monkeypatch):
    net = classifier()
    net.fit(*data, verbose=0)
    calls, learn = [], training.Pace.learn

    def interrupt(self, batches, seconds):
        calls.append(batches)
        if len(calls) == 3:
            raise KeyboardInterrupt
        learn(self, batches, seconds)

    monkeypatch.setattr(training.Pace, "learn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        net.fit(*data, epochs=1000, verbose=0)
    assert np.isfinite(net.params).all()
    net.fit(*data, epochs=1, verbose=0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: nothing holds signals back")
def test_ctrl_c_is_heard_at_once():
    program = (
        "import numpy as np, fastnn as fnn, signal\n"
        # a shell that starts tests in the background has Ctrl-C ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "net = fnn.Network([fnn.Dense(300, 'relu'), fnn.Dense(1)], seed=0)\n"
        "x = np.ones((20000, 300), np.float32)\n"
        "net.fit(x[:10], x[:10, 0], verbose=0); print('ready', flush=True)\n"
        "try: net.fit(x, x[:, 0], epochs=10**6, verbose=0)\n"
        "except KeyboardInterrupt: print(np.isfinite(net.params).all())\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.3)
            began = time.perf_counter()
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=30)
        finally:
            child.kill()
    assert out == "True\n"
    assert time.perf_counter() - began < 5  # the end of the process included


def clouded(value):
    cloudpickle = pytest.importorskip("cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(value))


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "cloudpickle": clouded,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("optimizer", fnn.optimizers.OPTIMIZERS)
def test_a_copy_trains_on_to_the_same_bits(data, optimizer, built, copied):
    """With its random numbers, its optimizer's memory and the state of its schedule."""
    layers = [fnn.Dense(8, "relu"), fnn.Dropout(0.2), fnn.BatchNorm(), fnn.Dense(3, "softmax")]
    net = fnn.Network(layers, loss="cross_entropy", optimizer=optimizer)  # of any seed
    if optimizer == "sgd":
        plateau = fnn.schedules.ReduceOnPlateau(0.1, patience=1)
        net.optimizer = fnn.SGD(plateau, momentum=0.9)
    batch_size = None if optimizer == "lbfgs" else 16
    if built:
        net.fit(*data, epochs=3, batch_size=batch_size, verbose=0)
    twin = copied(net)
    histories = [
        each.fit(*data, epochs=3, batch_size=batch_size, verbose=0).history for each in (net, twin)
    ]
    assert histories[0] == histories[1]
    for name in ("params", "_state", "_rule"):
        assert getattr(net, name).tobytes() == getattr(twin, name).tobytes(), name
    assert net.predict(data[0][:3]).tobytes() == twin.predict(data[0][:3]).tobytes()
    assert net.gradients(*data)["x"].tobytes() == twin.gradients(*data)["x"].tobytes()


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_callbacks_are_copied_with_their_network(data, copied):
    net = classifier()
    stop = fnn.callbacks.EarlyStopping("loss", patience=3)
    watch = fnn.callbacks.Inspect(*data, every=2)
    net.fit(*data, epochs=3, callbacks=[stop, watch], verbose=0)
    twin, twins = copied((net, [stop, watch]))
    assert all(each.network is twin for each in twins) and twins[1].history == watch.history
    for one, callbacks in ((net, [stop, watch]), (twin, twins)):
        one.fit(*data, epochs=3, callbacks=callbacks, verbose=0)
    assert net.params.tobytes() == twin.params.tobytes()
    assert stop.best == twins[0].best and watch.history == twins[1].history


@pytest.mark.parametrize("copied", [*COPIES.values(), copy.copy], ids=[*COPIES, "copy"])
def test_a_copy_of_a_layer_belongs_to_no_network(data, copied):
    net = classifier()
    net.fit(*data, verbose=0)
    layers = [copied(layer) for layer in net.layers]
    assert repr(layers) == repr(net.layers)
    with pytest.raises(AttributeError, match="weight exists once"):
        _ = layers[0].weight
    other = fnn.Network(layers, loss="cross_entropy", input_shape=(2,), seed=1)
    assert other.layers[0].weight.shape == net.layers[0].weight.shape
    assert not np.shares_memory(other.params, net.layers[0].weight)
    with pytest.raises(ValueError, match="already part of a network"):
        fnn.Network(copied(net).layers if copied is not copy.copy else net.layers)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_goes_its_own_way(data, copied):
    net = classifier()
    net.fit(*data, epochs=2, batch_size=10, verbose=0)
    twin = copied(net)
    for one in (net, twin):
        one.fit(*data, epochs=2, batch_size=10, verbose=0)
    assert np.array_equal(net.params, twin.params)
    twin.layers[0].weight[:] = 0
    assert not twin.params[:16].any() and net.params[:16].any()


# Looking inside


def test_gradients_change_nothing(data):
    net = classifier()
    net.fit(*data, verbose=0)
    before = net.params.copy(), net._state.copy(), net._grads.copy()
    gradients = net.gradients(*data)
    assert list(gradients) == ["0.weight", "0.bias", "1.weight", "1.bias", "x"]
    assert [g.shape for g in gradients.values()] == [(2, 8), (8,), (8, 3), (3,), data[0].shape]
    for kept, now in zip(before, (net.params, net._state, net._grads), strict=True):
        assert np.array_equal(kept, now)


def test_check_reports(data):
    x, y = data
    net = classifier(input_shape=(2,))
    report = fnn.check(net, x[:30], y[:30])
    assert report.ok and "all ok" in str(report)
    # The first row is (0, 0) and biases are 0: every relu is at its kink there.
    assert "(9 at kinks left out)" in str(report)  # 8 biases and one entry of x
    assert [line.name for line in report.lines] == [
        *("loss", "output", "0.weight", "0.bias", "1.weight", "1.bias", "x"),
    ]
    assert repr(report) == str(report)


def test_check_sees_a_wrong_kernel(data, monkeypatch):
    """The report is no formality: a formula with a mistake is found by both comparisons."""
    from fastnn.kernels import _kernel

    x, y = data
    right = _kernel.KERNELS["dense_backward"]
    wrong = right._replace(
        reference=lambda grad_out, x, weight, alpha_x: 1.01 * (x > 0) * (grad_out @ weight.T)
    )
    monkeypatch.setitem(_kernel.KERNELS, "dense_backward", wrong)
    report = fnn.check(classifier(input_shape=(2,)), x[:30], y[:30])
    assert not report.ok and "WRONG" in str(report)
    assert [line.name for line in report.lines if not line.ok] == ["0.weight", "0.bias", "x"]


def test_summary_and_repr(capsys):
    layers = [fnn.Input((784,), scale=1 / 255), fnn.Dense(30, "sigmoid"), fnn.Dense(10)]
    net = fnn.Network(layers, loss="mse", seed=0)
    net.summary()
    text = capsys.readouterr().out
    assert "23,550" in text and "23,860" in text and "95,440 bytes of float32" in text
    assert "Input((784,), scale=0.00392157)" in text
    assert repr(net) == (
        "Network([Dense(30, 'sigmoid'), Dense(10)], loss='mse', 23,860 parameters, float32)"
    )
    assert repr(fnn.Adam()).startswith("Adam(learning_rate=0.001")


# Initial weights


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("he_normal", 2 / 300),
        ("he_uniform", 2 / 300),
        ("glorot_normal", 2 / 500),
        ("glorot_uniform", 2 / 500),
        ("lecun_normal", 1 / 300),
        ("fan_out_normal", 1 / 200),
        ("orthogonal", 1 / 300),
        ("normal", 0.01**2),
        ("truncated_normal", (0.8796 * 0.05) ** 2),  # as in Keras: std is that before the cut
    ],
)
def test_initializers_have_their_variance(name, variance):
    draw = fnn.initializers.INITIALIZERS[name]
    values = draw(np.random.default_rng(0), (300, 200), 300, 200)
    assert values.var() == pytest.approx(variance, rel=0.03)
    assert abs(values.mean()) < 4 * np.sqrt(variance / values.size)
    if "uniform" in name:
        assert np.abs(values).max() <= np.sqrt(3 * variance)


def test_other_initializers():
    rng = np.random.default_rng(0)
    assert not fnn.initializers.zeros(rng, (2, 3), 2, 3).any()
    assert (fnn.initializers.ones(rng, (2, 3), 2, 3) == 1).all()
    assert (fnn.initializers.constant(0.5)(rng, (2, 3), 2, 3) == 0.5).all()
    assert fnn.initializers.normal(3.0)(rng, (300, 200), 2, 3).std() == pytest.approx(3, rel=0.02)
    layers = [
        fnn.Dense(4, "relu", bias_initializer=fnn.initializers.constant(0.1)),
        fnn.Dense(4, "tanh", weight_initializer="zeros"),
    ]
    net = fnn.Network(layers, input_shape=(9,), seed=0)
    assert (net.layers[0].bias == np.float32(0.1)).all() and not net.layers[1].weight.any()


@pytest.mark.parametrize("shape", [(40, 40), (60, 7), (7, 60), (1, 5), (5, 1)])
@pytest.mark.parametrize("gain", [1.0, 0.01, np.sqrt(2)])
def test_orthogonal_matrices_have_orthogonal_rows_or_columns(shape, gain):
    weight = fnn.initializers.orthogonal(gain)(np.random.default_rng(0), shape, *shape)
    assert weight.shape == shape
    tall = weight if shape[0] >= shape[1] else weight.T
    np.testing.assert_allclose(tall.T @ tall, np.eye(min(shape)) * gain**2, atol=1e-14)


def test_orthogonal_matrices_prefer_no_sign():
    """QR alone gives most diagonals one sign: Mezzadri (2007)."""
    draw, rng = fnn.initializers.orthogonal(), np.random.default_rng(0)
    traces = [np.trace(draw(rng, (4, 4), 4, 4)) for _ in range(500)]
    assert abs(np.mean(traces)) < 4 / np.sqrt(500)  # the trace has mean 0 and variance 1


def test_orthogonal_begins_no_biases():
    layer = fnn.Dense(3, bias_initializer="orthogonal")
    with pytest.raises(ValueError, match=r"orthogonal begins matrices; got the shape \(3,\)"):
        fnn.Network([layer], input_shape=(2,))


def test_truncated_normal_ends_at_two_deviations():
    draw = fnn.initializers.truncated_normal(0.5)
    values = draw(np.random.default_rng(0), (300, 200), 300, 200)
    assert 0.999 < np.abs(values).max() <= 1


@pytest.mark.parametrize("name", fnn.initializers.INITIALIZERS)
def test_the_same_seed_begins_with_the_same_bits(name):
    draw = fnn.initializers.INITIALIZERS[name]
    first, second = (draw(np.random.default_rng(5), (30, 20), 30, 20) for _ in range(2))
    assert np.array_equal(first, second) and first.dtype == np.float64


def test_unknown_initializers_list_the_known_ones_nearest_first():
    with pytest.raises(ValueError, match="weight_initializer must be one of he_normal, "):
        fnn.Dense(1, weight_initializer="HeNormal")
    with pytest.raises(ValueError, match="weight_initializer must be one of orthogonal, "):
        fnn.Dense(1, weight_initializer="ortogonal")


# Few rows at a time


@pytest.fixture
def policy():
    """A network that has predicted once, so that few rows take the fast road."""
    layers = [fnn.Dense(64, "relu"), fnn.Dense(5, "tanh"), fnn.Dense(2)]
    net = fnn.Network(layers, input_shape=(4,), seed=0)
    net.predict(np.zeros((1, 4), np.float32))
    assert (net._few is not None) == compiled.LOCKED
    return net


def rows_of(n):
    return np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 3, 11, 12, 15, 16, 17, 100, 255, 256, 257])
def test_few_rows_have_the_bits_of_many(policy, n):
    x = rows_of(500)
    expected = policy.predict(x)
    for start in (0, 7):
        assert np.array_equal(policy.predict(x[start : start + n]), expected[start : start + n])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float64)[:, ::-1][:, ::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x.tolist(),
        lambda x: x.astype(">f4"),
        lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),  # read-only
        lambda x: x.view(np.recarray),
    ],
)
def test_few_rows_of_any_kind(policy, change):
    x = rows_of(5)
    before = x.copy()
    assert np.array_equal(policy.predict(change(x)), policy.predict(x))
    assert np.array_equal(x, before)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_few_rows_that_are_not_finite(policy, wrong):
    for n in (1, 16, 17, 256, 600):
        x = rows_of(n)
        x[n - 1, 3] = wrong
        with pytest.raises(ValueError, match=rf"^x must hold finite .* in row {n - 1}, column 3$"):
            policy.predict(x)


def test_few_rows_beyond_the_networks_dtype(policy):
    x = rows_of(2).astype(np.float64)
    x[1, 2] = 1e300
    with pytest.raises(ValueError, match=r"^x must .* in row 1, column 2"):
        policy.predict(x)
    with pytest.raises(ValueError, match=r"^x must .*"):
        policy(x[1])


@pytest.mark.skipif(not compiled.LOCKED, reason="no fast road")
def test_how_many_rows_are_few():
    """So many that the interpreter lock is not held for long."""
    for widths, most in (((4, 64, 64, 2), 256), ((784, 30, 10), 64), ((784, 512, 10), 16)):
        net = fnn.Network([fnn.Dense(w) for w in widths[1:]], input_shape=widths[:1], seed=0)
        x = np.random.default_rng(0).standard_normal((300, widths[0])).astype(np.float32)
        expected = net.predict(x)
        assert np.array_equal(net.predict(x[:1]), expected[:1])
        assert net._few.most == most
        assert net._few(x[: most + 1]) is None
        assert np.array_equal(net._few(x[:most]), expected[:most])


@pytest.mark.skipif(not compiled.LOCKED, reason="no fast road")
def test_networks_share_the_place_where_few_rows_are_worked_on(monkeypatch):
    """One that needs more room takes it; the others stay where they are."""
    monkeypatch.setattr(compiled.Few, "work", {})
    x, nets = rows_of(200), []
    for width in (8, 64, 16):
        nets.append(fnn.Network([fnn.Dense(width, "tanh"), fnn.Dense(2)], input_shape=(4,), seed=0))
        nets[-1].predict(x[:1])
    small, large, between = (net._few.alive[3] for net in nets)
    assert small.size < large.size and between is large
    whole = [net._outputs(net._inputs(x), net.plan) for net in nets]
    for _ in range(2):
        for net, expected in zip(nets, whole, strict=True):
            assert np.array_equal(net.predict(x), expected)


@pytest.mark.parametrize("shape", [(0, 4), (1, 3), (4,), (1, 1, 4), ()])
def test_few_rows_of_another_shape(policy, shape):
    with pytest.raises(ValueError, match=r"^x must "):
        policy.predict(np.zeros(shape, np.float32))


def test_each_answer_is_an_array_of_its_own(policy):
    x = rows_of(2)
    first, second = policy.predict(x[:1]), policy.predict(x[1:])
    assert not np.array_equal(first, second) and first.base is None


def test_few_rows_see_new_parameters(policy):
    x = rows_of(3)
    policy.layers[2].bias = [1, 2]
    one = policy.predict(x)
    policy.params *= 2
    assert not np.array_equal(one, policy.predict(x))
    policy.fit(x, np.ones((3, 2)), epochs=3, verbose=0)
    fresh = fnn.Network(
        [fnn.Dense(64, "relu"), fnn.Dense(5, "tanh"), fnn.Dense(2)], input_shape=(4,), seed=1
    )
    fresh.params = policy.params
    assert np.array_equal(policy.predict(x), fresh.predict(x))


def test_copies_have_a_road_of_their_own(policy):
    x = rows_of(3)
    expected = policy.predict(x)
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert twin._few is None
        policy.params[:] = 0
        assert np.array_equal(twin.predict(x), expected)
        assert np.array_equal(twin.predict(x), expected)
        policy.params = twin.params


def test_the_fast_road_is_built_once(policy):
    """Also where a caller's rows are of a kind that never takes it."""
    road = policy._few
    policy.predict(rows_of(3).astype(np.float64))
    assert policy._few is road


def test_inputs_that_are_scaled_take_the_general_road():
    net = fnn.Network([fnn.Input((4,), scale=2.0), fnn.Dense(2)], seed=0)
    x = rows_of(3)
    first = net.predict(x)
    assert net._few is None
    assert np.array_equal(net.predict(x), first)


def test_a_network_is_freed_the_moment_it_is_let_go(data):
    """By its last reference, not by a collector that may come much later."""
    x, y = data
    for use in (
        lambda net: net.fit(x, y, epochs=2, validation_data=(x, y), verbose=0),
        lambda net: net.predict(x),
        lambda net: net.evaluate(x, y),
        lambda net: net.train_on_batch(x, y),
        lambda net: net.gradients(x, y),
        lambda net: net.layers[0].weight.sum(),
    ):
        net = classifier(input_shape=(2,))
        gc.disable()
        try:
            use(net)
            gone = weakref.ref(net)
            del net
            assert gone() is None
        finally:
            gc.enable()
