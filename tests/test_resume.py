"""Trainings that are interrupted and go on, end as if nothing had happened.

`tests.campaign.resume` cuts at every batch; here are what it does not try, and what is refused.
"""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastnn as fnn
from fastnn.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping
from fastnn.interrupts import Interrupts
from fastnn.kernels._kernel import JIT

X = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
Y = np.argmax(X[:, :3], axis=1)


def network(**options):
    options = {"loss": "cross_entropy", "seed": 0, **options}
    return fnn.Network([fnn.Dense(8, "relu"), fnn.Dropout(0.2), fnn.Dense(3, "softmax")], **options)


def result(net):
    return net.params.tobytes(), net._state.tobytes(), str(net.history.history)


class Cut(Callback):
    """Ends a training by an error after an epoch, once."""

    def __init__(self, epoch):
        self.epoch, self.heard = epoch, []

    def on_epoch_end(self, epoch, logs):
        self.heard.append(epoch)
        if epoch == self.epoch:
            self.epoch = None
            raise KeyboardInterrupt


def interrupted(*members, epoch=2, **options):
    net, cut = network(), Cut(epoch)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=5, batch_size=16, callbacks=[*members, cut], verbose=0, **options)
    return net, [*members, cut]


@pytest.fixture(scope="module")
def whole():
    net = network()
    net.fit(X, Y, epochs=5, batch_size=16, verbose=0)
    return result(net)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training.safetensors"


def test_it_goes_on_in_memory(whole):
    net, members = interrupted()
    assert net.unfinished and net.history.epoch == [0, 1, 2]
    history = net.fit(X, Y, resume=True, callbacks=members, verbose=0)
    assert result(net) == whole and history is net.history and not net.unfinished
    assert members[0].heard == [0, 1, 2, 2, 3, 4], "not brief: what was interrupted comes again"


def test_it_goes_on_from_a_file_in_a_network_that_was_never_built(whole, path):
    net, members = interrupted()
    net.save(path)
    other = network(seed=5, threads=1)
    other.fit(X, Y, resume=str(path), callbacks=members, verbose=0)
    assert result(other) == whole and other.seed == 0


def test_it_goes_on_in_another_process_with_other_threads(whole, path):
    net, _ = interrupted()
    net.save(path)
    np.savez(path.with_suffix(".npz"), x=X, y=Y)
    program = (
        "import sys, numpy as np, fastnn as fnn\n"
        "class Cut(fnn.callbacks.Callback): pass\n"
        f"data = np.load({str(path.with_suffix('.npz'))!r})\n"
        f"net = fnn.load({str(path)!r}, threads=3)\n"
        "net.fit(data['x'], data['y'], resume=True, callbacks=[Cut()], verbose=0)\n"
        f"net.save({str(path)!r})\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert result(fnn.load(path)) == whole


def test_a_checkpoint_goes_on_by_itself(path):
    def program(epochs, cut=None):
        net = network()
        members = [EarlyStopping("loss", patience=9), Checkpoint(path), Cut(cut)]
        net.fit(X, Y, epochs=epochs, batch_size=16, callbacks=members, verbose=0)
        return result(net)

    want = program(6)
    path.unlink()
    for cut in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            program(6, cut)
    assert program(6) == want
    assert program(6) == want, "a training that has ended stays as it is"


def test_a_checkpoint_by_time_writes_within_an_epoch(path):
    seen = []

    class Look(Callback):
        def on_slice_end(self, batches, logs):
            if path.exists():
                seen.append(fnn.load(path)._progress.batch)

    keep = Checkpoint(path, every="0.000001s")
    network(optimizer="sgd").fit(
        np.tile(X, (50, 1)), np.tile(Y, 50), batch_size=1, callbacks=[keep, Look()], verbose=0
    )
    assert len(seen) > 1 and seen == sorted(seen) and 0 < seen[0] < 3000
    for wrong in ("30", "s", "0s", "1 day", -1, 2.5, None):
        with pytest.raises((TypeError, ValueError), match="every must"):
            Checkpoint(path, every=wrong)


def test_a_log_has_every_epoch_once(tmp_path, path):
    log = tmp_path / "log.csv"
    net, (_, cut) = interrupted(CSVLogger(log))
    net.save(path)
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines, "3,0.5,0.5", ""]))  # an epoch that the file knows nothing of
    network().fit(X, Y, resume=path, callbacks=[CSVLogger(log), cut], verbose=0)
    text = log.read_text().splitlines()
    assert text[0] == "epoch,loss,accuracy"
    assert [line.split(",")[0] for line in text[1:]] == list("01234")


def test_more_epochs_may_be_asked_for(whole):
    net, cut = network(), Cut(1)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=2, batch_size=16, callbacks=cut, verbose=0)
    net.fit(X, Y, epochs=5, resume=True, callbacks=cut, verbose=0)
    assert result(net) == whole


def test_epochs_may_begin_with_another_number(whole):
    net = network()
    net.fit(X, Y, epochs=2, batch_size=16, verbose=0)
    history = net.fit(X, Y, epochs=5, initial_epoch=2, batch_size=16, verbose=0)
    assert history.epoch == [2, 3, 4] and result(net)[:2] == whole[:2]
    with pytest.raises(ValueError, match="initial_epoch must be below epochs=2, got 2"):
        net.fit(X, Y, epochs=2, initial_epoch=2, verbose=0)


def test_what_does_not_fit_is_refused_and_nothing_changes(path):
    net, members = interrupted()
    net.save(path)
    twin = network(seed=3, input_shape=(4,))
    before = twin.params.copy()

    def refused(text, *data, error=ValueError, **options):
        options = {"resume": path, "callbacks": members, "verbose": 0, **options}
        with pytest.raises(error, match=text):
            twin.fit(*(data or (X, Y)), **options)
        assert np.array_equal(twin.params, before) and not twin.unfinished

    other = X.copy()
    other[31, 2] += 1
    refused("the data must be those of the training so far", other, Y)
    refused("the data must be those of the training so far", X.astype(np.float64), Y)
    refused("the data must be those", X, Y, validation_data=(X, Y))
    refused("the data must be those", X, Y, sample_weight=np.full(60, 2.0))
    refused("samples must be 60, got 59", X[1:], Y[1:])
    refused("batch_size must be 16, got 8", batch_size=8)
    refused("shuffle must be True, got False", shuffle=False)
    refused("initial_epoch and resume exclude each other", initial_epoch=1, epochs=9)
    refused("needs its callbacks: Cut; got none", callbacks=None)
    refused("No such file", resume=path.with_name("x"), error=FileNotFoundError)
    refused("no training to go on with: none was interrupted", resume=True)
    twin.save(path)
    refused("holds a network, but no training", resume=path)
    small = fnn.Network([fnn.Dense(3, "softmax")], loss="cross_entropy", input_shape=(4,))
    net.save(path)
    with pytest.raises(ValueError, match="to go on, layers must be"):
        small.fit(X, Y, resume=path, verbose=0)
    net = network()
    net.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match="has come to its end: call fit without resume"):
        net.fit(X, Y, epochs=9, resume=True, verbose=0)


def test_batches_that_come_one_by_one_go_on(path):
    class Data:
        """Can be gone through again."""

        def __iter__(self):
            return iter([(X[i : i + 20], Y[i : i + 20]) for i in (0, 20, 40)])

    net = network()
    net.fit(Data(), epochs=4, verbose=0)
    want = result(net)
    for data in (list(Data()), Data()):
        net = network()
        net.fit(data, epochs=4, verbose=0)
        assert result(net) == want
    ordered = network()
    ordered.fit(X, Y, epochs=4, batch_size=20, shuffle=False, verbose=0)
    assert result(ordered) == want

    class Stop(Callback):
        seen = 0

        def on_slice_end(self, batches, logs):
            self.seen += 1
            if self.seen == 5:
                raise KeyboardInterrupt

    net, stop = network(), Stop()
    with pytest.raises(KeyboardInterrupt):
        net.fit(Data(), epochs=4, callbacks=stop, verbose=0)
    net.save(path)
    net = fnn.load(path)
    net.fit(Data(), resume=True, callbacks=stop, verbose=0)
    assert result(net) == want


def test_a_generator_gives_as_many_epochs_as_it_has():
    def endless():
        while True:
            yield X[:10], Y[:10], np.ones(10)

    net = network()
    history = net.fit(endless(), epochs=3, steps_per_epoch=2, verbose=0)
    assert history.epoch == [0, 1, 2] and net._rule["step"][0] == 6
    net.fit(((X[:7], Y[:7]) for _ in range(2)), verbose=0)
    with pytest.raises(ValueError, match="x gave 0 batches in epoch 2; give a list"):
        net.fit(((X[:7], Y[:7]) for _ in range(2)), epochs=2, verbose=0)
    with pytest.raises(ValueError, match=r"x gave 2 of 4 batches in epoch 1"):
        net.fit([(X, Y)] * 2, steps_per_epoch=4, verbose=0)
    for wrong, text in (
        ([], "x gave no batches"),
        ([X], "a batch must be"),
        (X, "y is missing"),
        (3, "y is missing"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            net.fit(wrong, verbose=0)
    with pytest.raises(ValueError, match="batch_size has no meaning for batches"):
        net.fit([(X, Y)], batch_size=3, verbose=0)
    with pytest.raises(ValueError, match="steps_per_epoch has no meaning for arrays"):
        net.fit(X, Y, steps_per_epoch=3, verbose=0)


def test_single_steps_are_the_steps_of_fit():
    whole, steps, parts = network(), network(), network()
    whole.fit(X, Y, epochs=3, batch_size=20, shuffle=False, verbose=0)
    for _ in range(3):
        logs = [steps.train_on_batch(X[i : i + 20], Y[i : i + 20]) for i in (0, 20, 40)]
    assert result(whole)[:2] == (steps.params.tobytes(), steps._state.tobytes())
    loss = whole.history.history["loss"][-1]
    assert np.mean([log["loss"] for log in logs]) == pytest.approx(loss, rel=1e-12)
    assert parts.partial_fit(X, Y, batch_size=16) is parts
    twin = network()
    twin.fit(X, Y, batch_size=16, verbose=0)
    assert result(parts)[:2] == result(twin)[:2]
    steps.train_on_batch(np.tile(X, (9, 1)), np.tile(Y, 9))  # more rows than ever
    steps.layers[0].trainable = False
    before = steps.layers[0].weight.copy()
    steps.train_on_batch(X, Y)
    assert np.array_equal(steps.layers[0].weight, before)
    steps.optimizer, whole.optimizer = fnn.SGD(0.1, momentum=0.5), fnn.SGD(0.1, momentum=0.5)
    whole.params = steps.params
    for net in (steps, whole):
        net.layers[0].trainable = True
    for _ in range(2):
        steps.train_on_batch(X, Y)
    whole.fit(X, Y, epochs=2, batch_size=60, verbose=0)
    assert (whole.params.tobytes(), whole._state.tobytes()) == (
        steps.params.tobytes(),
        steps._state.tobytes(),
    )
    steps.params[:] = np.nan
    with pytest.raises(fnn.DivergenceError, match="layer 0"):
        steps.train_on_batch(X, Y)


def test_what_takes_no_single_steps_and_no_batches():
    net = network(optimizer="lbfgs")
    with pytest.raises(ValueError, match="LBFGS cannot take single steps"):
        net.train_on_batch(X, Y)
    with pytest.raises(ValueError, match="LBFGS needs all rows at once: give arrays"):
        net.fit([(X, Y)], verbose=0)
    with pytest.raises(ValueError, match="belong to arrays"):
        net.fit([(X, Y)], sample_weight=np.ones(60), verbose=0)
    with pytest.raises(ValueError, match="batches that come one by one exclude each other"):
        net.fit([(X, Y)], validation_split=0.5, verbose=0)


def test_a_step_without_a_metric_has_a_loss():
    net = fnn.Network([fnn.Dense(2)], seed=0)
    assert list(net.train_on_batch(X, X[:, :2])) == ["loss"]


def test_where_memory_does_not_do_the_network_is_as_it_was(monkeypatch):
    """Every allocation of a first `fit`, and of one with more rows, fails once."""
    aligned, calls = fnn.network._aligned, []

    def failing(size, dtype, *made):
        calls.append(size)
        if len(calls) == fail:
            raise MemoryError("no room")
        return aligned(size, dtype, *made)

    want = network()
    want.fit(X[:8], Y[:8], batch_size=4, verbose=0)
    want.fit(X, Y, batch_size=60, verbose=0)
    for built in (False, True):
        fail = 0
        while True:
            fail += 1
            net = network()
            if built:
                net.fit(X[:8], Y[:8], batch_size=4, verbose=0)
                before = result(net)
            calls.clear()
            monkeypatch.setattr(fnn.network, "_aligned", failing)
            try:
                net.fit(X if built else X[:8], Y if built else Y[:8], verbose=0,
                        batch_size=60 if built else 4)  # fmt: skip
                break
            except MemoryError:
                assert result(net) == before if built else net._plan is None
            finally:
                monkeypatch.setattr(fnn.network, "_aligned", aligned)
            if not built:
                net.fit(X[:8], Y[:8], batch_size=4, verbose=0)
            net.fit(X, Y, batch_size=60, verbose=0)
            assert result(net)[:2] == result(want)[:2], "something was left behind"
        assert fail > 3


def test_callbacks_without_memory_and_with_one_of_their_own(path):
    class Bare:
        began = 0

        def on_train_begin(self, logs):
            self.began += 1

    class Counts(Callback):
        def state(self):
            return {"numbers": np.arange(3.0), "best": float("inf"), "words": ["a", None], "n": 3}

        def resume(self, state):
            self.told = state

    bare, counts = Bare(), Counts()
    net, members = interrupted(bare, counts)
    net.save(path)
    network().fit(X, Y, resume=path, callbacks=members, verbose=0)
    assert bare.began == 2
    assert counts.told.pop("numbers").tolist() == [0, 1, 2]
    assert counts.told == {"best": float("inf"), "words": ["a", None], "n": 3}
    Counts.state = lambda self: {"what": object()}
    net, _ = interrupted(Counts())
    with pytest.raises(TypeError, match=r"state\(\) of Counts must hold numbers, texts"):
        net.save(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: fnn.callbacks.TimeBudget(1000),
        lambda path: fnn.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1.0),
        lambda path: fnn.callbacks.ModelCheckpoint(path.with_name("b"), "loss", keep_last=1),
        lambda path: fnn.callbacks.TargetReached("loss", 0.0),
        lambda path: fnn.callbacks.Inspect(X, Y),
    ],
)
def test_every_callback_goes_on_from_a_file(make, path):
    whole = network()
    member = make(path)
    whole.fit(X, Y, epochs=5, batch_size=16, callbacks=[member, Cut(None)], verbose=0)
    net, _ = interrupted(make(path))
    net.save(path)
    again, twin = network(), make(path)
    again.fit(X, Y, resume=path, callbacks=[twin, Cut(None)], verbose=0)
    assert result(again) == result(whole)
    states = [{n: v for n, v in m.state().items() if n != "seconds"} for m in (member, twin)]
    assert states[0] == states[1]


# -- Ctrl-C -----------------------------------------------------------------------------


def test_a_signal_waits_for_what_belongs_together():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(len(heard)))
    try:
        with Interrupts() as interrupts:
            with interrupts.held(), interrupts.held():
                signal.raise_signal(signal.SIGINT)
                assert not heard
            assert heard == [0]
            signal.raise_signal(signal.SIGINT)
            assert heard == [0, 1]
            with pytest.raises(ZeroDivisionError), interrupts.held():
                signal.raise_signal(signal.SIGINT)
                raise ZeroDivisionError
        assert heard == [0, 1, 2], "also where something failed"
        assert signal.getsignal(signal.SIGINT) is not None
    finally:
        signal.signal(signal.SIGINT, before)


def test_who_ignores_the_signal_and_other_threads_are_let_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts, interrupts.held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def elsewhere():
        with Interrupts() as interrupts, interrupts.held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: nothing compiles")
def test_ctrl_c_is_not_lost_while_it_compiles(tmp_path):
    program = (
        "import numpy as np, fastnn as fnn, os, signal, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))\n"
        "net = fnn.Network([fnn.Dense(1)], seed=0)\n"
        "x = np.ones((10, 2))\n"
        "try: timer.start(); net.fit(x, x[:, 0], epochs=10**9, verbose=0)\n"
        "except KeyboardInterrupt: pass\n"
        "net.fit(x, x[:, 0], verbose=0); print(np.isfinite(net.params).all())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"FASTNN_CACHE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where Python says what it forgot
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == b"True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_was_forked_in_a_step_knows_it():
    net = network(input_shape=(4,))
    want = net.predict(X)
    net._turns.version, net._turns.busy = (
        1,
        (os.getppid(), 1),
    )  # as the child of a parent that trains has it
    for call in (lambda: net.predict(X), lambda: net.fit(X, Y, verbose=0)):
        with pytest.raises(RuntimeError, match="was being fitted when this process was forked"):
            call()
    net.params = net.params.copy()
    assert np.array_equal(net.predict(X), want)
    net.fit(X, Y, verbose=0)


def test_the_end_may_be_interrupted_too(path):
    """Callbacks that have heard of it do not hear again, the others do."""

    class Last(Callback):
        told = 0

        def on_train_end(self, logs):
            self.told += 1
            if self.told == 2:
                raise KeyboardInterrupt

    first, second = Last(), Last()
    second.told = 1
    stop = EarlyStopping("loss", patience=9)
    net = network()
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=3, callbacks=[first, stop, second], verbose=0)
    assert net.unfinished and net.history.epoch == [0, 1, 2] and first.told == 1
    net.save(path)
    net = fnn.load(path)
    assert net.unfinished
    net.fit(
        X, Y, resume=True, callbacks=[first, EarlyStopping("loss", patience=9), second], verbose=0
    )
    assert not net.unfinished and (first.told, second.told) == (1, 3)
