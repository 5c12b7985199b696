"""A training that goes wrong, or that others look at: what it leaves, refuses and shows."""

import copy
import threading

import numpy as np
import pytest

import fastnn as fnn
from fastnn import callbacks as cb
from fastnn import training
from fastnn.kernels._kernel import JIT

WIDTH = 512 if JIT else 16


def problem(rows=64):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 3)), rng.standard_normal((rows, 2))


def build(optimizer, **options):
    layers = [fnn.Dense(8, "tanh"), fnn.Dense(2)]
    return fnn.Network(layers, optimizer=optimizer, dtype="float64", seed=0, **options)


class Boundaries(cb.Callback):
    """Keeps what the network is after every slice."""

    def on_train_begin(self, logs):
        self.seen = [everything(self.network)]

    def on_slice_end(self, batches, logs):
        self.seen.append(everything(self.network))


def everything(net):
    return net.params.tobytes(), net._state.tobytes(), int(net._rule["step"][0])


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize("kind", [fnn.SGD, fnn.Adam])
@pytest.mark.parametrize("batches", [1, 2, 100])
def test_rollback_leaves_the_end_of_a_slice_and_goes_on_from_there(
    batches, kind, backend, monkeypatch
):
    """The rate explodes at step 21; with a better one all 30 epochs end well.

    With slices of one batch the explosion ends one, whose parameters are finite still.
    """
    monkeypatch.setattr(training.Pace, "learn", lambda pace, *_: setattr(pace, "batches", batches))
    x, y = problem()
    wild = fnn.schedules.Piecewise([21], [0.01, 1e300])
    net, ends = build(kind(wild, ema=0.9), backend=backend), Boundaries()
    options = {"epochs": 30, "batch_size": 16, "callbacks": [ends], "verbose": 0}
    with pytest.raises(fnn.DivergenceError, match="training diverged in epoch 6, batch"):
        net.fit(x, y, rollback=True, **options)
    assert everything(net) == ends.seen[-1] and np.isfinite(net.params).all()
    assert np.isfinite(net._state).all() and np.isfinite(net.predict(x)).all()
    assert net.unfinished and 0 < net._rule["step"][0] < 30
    assert len(net.history.epoch) == net._rule["step"][0] // 4
    net.optimizer.learning_rate = 0.01
    history = net.fit(x, y, resume=True, **options)
    assert history.epoch == list(range(30)) and not net.unfinished
    never = build(kind(0.01, ema=0.9), backend=backend)
    never.fit(x, y, **options)
    assert everything(net) == everything(never)
    assert history.history == never.history.history


def test_without_rollback_there_is_nothing_to_go_on_with():
    x, y = problem()
    net = build(fnn.SGD(1e300))
    with pytest.raises(fnn.DivergenceError):
        net.fit(x, y, epochs=3, verbose=0)
    assert not net.unfinished and net.history is None
    with pytest.raises(ValueError, match="there is no training to go on with"):
        net.fit(x, y, resume=True, verbose=0)


def test_one_fit_at_a_time():
    """Neither from its own callback nor from another thread; a copy may, and so may the next."""
    x, y = problem()
    net, refused, before = build(fnn.SGD(0.01)), [], []

    def attempt():
        for start in (net.fit, net.partial_fit, net.train_on_batch):
            quiet = {"verbose": 0} if start == net.fit else {}
            with pytest.raises(RuntimeError, match="is being fitted; wait for that, or fit a copy"):
                start(x, y, **quiet)
            refused.append(threading.get_ident())

    def others(epoch, logs):
        before.append(net.params.copy())
        attempt()
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        assert everything(net)[0] == before[-1].tobytes()
        copy.deepcopy(net).fit(x, y, verbose=0)

    net.fit(x, y, epochs=2, callbacks=others, verbose=0)
    assert len(refused) == 12 and len(set(refused)) >= 2
    alone = build(fnn.SGD(0.01))
    alone.fit(x, y, epochs=2, verbose=0)
    assert everything(net) == everything(alone)
    net.fit(x, y, verbose=0)


@pytest.mark.parametrize(("rows", "threads"), [(1, 1), (300, 2)])
def test_a_prediction_meanwhile_sees_whole_steps(rows, threads, end_of_a_deadlock):
    """Every answer is, bit for bit, that of the parameters after some step, never of two."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, WIDTH)), rng.standard_normal((64, 16))
    look = rng.standard_normal((rows, WIDTH)).astype(np.float32)

    def fresh():
        layers = [fnn.Dense(WIDTH, "tanh"), fnn.Dense(16)]
        return fnn.Network(layers, input_shape=(WIDTH,), seed=0, threads=threads)

    steps, twin, net = 200 if JIT else 60, fresh(), fresh()
    answers = {twin.predict(look).tobytes(): 0}
    for step in range(1, steps + 1):
        twin.train_on_batch(x, y)
        answers[twin.predict(look).tobytes()] = step
    thread = threading.Thread(
        target=net.fit, args=(x, y), kwargs={"epochs": steps, "batch_size": 64, "verbose": 0}
    )
    seen = []
    thread.start()
    while thread.is_alive():
        seen.append(answers.get(net.predict(look).tobytes()))
    thread.join()
    assert None not in seen, "parts of two steps"
    assert seen == sorted(seen) and len(set(seen)) >= 3


def test_another_thread_neither_copies_nor_saves_what_moves(tmp_path):
    """State that is half of one step and half of the next would look like a network."""
    x, y = problem()
    net = build("adam", input_shape=(3,))
    refused, path = [], tmp_path / "net.safetensors"

    def elsewhere():
        for call in (lambda: net.save(path), lambda: copy.deepcopy(net), net.averaged):
            with pytest.raises((RuntimeError, ValueError)) as caught:
                call()
            refused.append(str(caught.value))
        with pytest.raises(RuntimeError, match="being fitted by another thread"):
            net.params = net.params * 2
        net.state_dict()  # waits for the end of a slice, as predict does

    class Meanwhile(cb.Callback):
        def on_epoch_end(self, epoch, logs):
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            self.network.save(path)  # the training's own thread may

    net.fit(x, y, callbacks=Meanwhile(), verbose=0)
    assert refused[:2] == ["the network is being fitted by another thread; wait for that"] * 2
    assert np.array_equal(fnn.load(path).params, net.params)
