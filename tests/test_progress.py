"""What a training shows: a bar by tqdm, lines, or nothing; and that showing it changes nothing."""

import importlib.util
import io
import re
import sys
import threading
import time

import numpy as np
import pytest

import fastnn as fnn
from fastnn import callbacks as cb
from fastnn import progress

EPOCHS = 30
needs_tqdm = pytest.mark.skipif(
    importlib.util.find_spec("tqdm") is None, reason="tqdm is not installed"
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Notebook(io.StringIO):
    """What a notebook's kernel has for its output."""


Notebook.__module__ = "ipykernel.iostream"


@pytest.fixture
def screen(monkeypatch):
    def of(kind):
        monkeypatch.setattr(sys, "stdout", kind())
        return sys.stdout

    return of


@pytest.fixture
def no_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)


def problem(rows=60):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 2)), rng.integers(0, 3, rows)


def build():
    layers = [fnn.Dense(8, "relu"), fnn.Dense(3, "softmax")]
    return fnn.Network(layers, loss="cross_entropy", optimizer=fnn.Adam(0.01), seed=0)


def drawn(output):
    """What the bar has shown, one after another."""
    return [text for text in re.split("[\r\n]+", output.getvalue()) if text]


@pytest.mark.parametrize(
    ("verbose", "kind", "lines", "bar"),
    [
        (0, Terminal, 0, False),
        (0, io.StringIO, 0, False),
        pytest.param(1, Terminal, 1, True, marks=needs_tqdm),
        pytest.param(1, io.StringIO, 1, True, marks=needs_tqdm),
        (2, Terminal, EPOCHS, False),
        (2, io.StringIO, EPOCHS, False),
        pytest.param("auto", Terminal, 1, True, marks=needs_tqdm),
        pytest.param("auto", Notebook, 1, True, marks=needs_tqdm),
        ("auto", io.StringIO, 10, False),
    ],
)
def test_what_is_shown(screen, verbose, kind, lines, bar):
    x, y = problem()
    output = screen(kind)
    build().fit(x, y, epochs=EPOCHS, verbose=verbose)
    text = output.getvalue()
    assert text.count("\n") == lines
    assert ("\repoch 30/30: 100%|" in text) == bar
    if verbose != 0:
        assert "epoch 30/30" in text and "accuracy" in text and "loss" in text


def test_lines_in_a_terminal_without_tqdm(screen, no_tqdm, monkeypatch):
    """One in a tenth of a second, and the last; not every epoch is that long."""
    x, y = problem()
    output = screen(Terminal)
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def tick(epoch, logs):
        now[0] += 0.3 if epoch < 3 else 0.03

    build().fit(x, y, epochs=11, callbacks=tick)
    shown = [int(n) for n in re.findall(r"^epoch (\d+)/11 ", output.getvalue(), re.M)]
    assert shown == [1, 2, 3, 7, 11]
    output.truncate(0)
    now[0] += 1
    build().fit(x, y, epochs=100, callbacks=cb.LambdaCallback(on_epoch_end=lambda e, logs: None))
    assert output.getvalue().count("\n") == 2 and "epoch 100/100" in output.getvalue()


def test_a_bar_that_cannot_be_had(screen, no_tqdm):
    x, y = problem()
    output, net = screen(io.StringIO), build()
    with pytest.raises(ImportError, match=r"a bar needs tqdm: install 'fastnn-numba\[progress\]'"):
        net.fit(x, y, verbose=1)
    assert net._plan is None and output.getvalue() == ""
    net.fit(x, y, epochs=2)
    assert output.getvalue().count("\n") == 2


@needs_tqdm
def test_a_bar_that_ends_early_is_full(screen):
    x, y = problem()
    output = screen(Terminal)
    history = build().fit(x, y, epochs=400, callbacks=cb.TargetReached("loss", 1.0))
    count = len(history.epoch)
    assert count < 400 and drawn(output)[-1].startswith(f"epoch {count}/{count}: 100%|")


@needs_tqdm
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, fnn.DivergenceError])
def test_what_ends_a_training_leaves_the_bar_on_its_line(screen, error):
    x, y = problem()
    output = screen(Terminal)

    def fail(epoch, logs):
        if epoch == 9:
            raise error("enough")

    with pytest.raises(error):
        build().fit(x, y, epochs=40, callbacks=fail)
    assert output.getvalue().endswith("]\n") and output.getvalue().count("\n") == 1
    assert not list(fnn.progress.watcher_of(1).kind._instances)  # nobody waits for its room


@needs_tqdm
def test_a_bar_goes_on_where_the_training_was(screen):
    x, y = problem()
    stopped = []

    def stop(epoch, logs):
        if epoch == 14 and not stopped:
            stopped.append(epoch)
            raise KeyboardInterrupt

    net = build()
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, y, epochs=EPOCHS, callbacks=stop, verbose=0)
    output = screen(Terminal)
    net.fit(x, y, resume=True, callbacks=stop)
    first, *_, last = drawn(output)
    assert re.match(r"epoch 15/30: +(48|50)%", first) and last.startswith("epoch 30/30: 100%")


@needs_tqdm
def test_a_bar_of_batches_that_come_one_by_one(screen):
    x, y = problem()

    def batches():
        for _ in range(5):
            time.sleep(progress.DRAW)
            yield x, y

    output = screen(Terminal)
    build().fit(batches())
    first, *middle, last = drawn(output)
    assert first.startswith("epoch 1/1:   0%") and last.startswith("epoch 1/1: 100%")
    assert [text for text in middle if re.match(r"epoch 1/1, batch [345]: +0%.*loss=", text)]


@needs_tqdm
def test_a_bar_shows_the_last_validation_through_the_epoch(screen):
    x, y = problem()
    output = screen(Terminal)
    pause = cb.LambdaCallback(on_slice_end=lambda *_: time.sleep(progress.DRAW))
    build().fit(x, y, epochs=2, batch_size=30, validation_data=(x, y), callbacks=pause)
    second = [text for text in drawn(output) if text.startswith("epoch 2/2")]
    assert len(second) >= 2 and all("val_loss=" in text for text in second)


@needs_tqdm
def test_a_bar_changes_no_bit_and_starts_no_thread(screen):
    x, y = problem()
    nets = [build(), build()]
    nets[0].fit(x, y, epochs=5, verbose=0)
    screen(Terminal)
    before = threading.active_count()
    seen = []
    nets[1].fit(x, y, epochs=5, callbacks=lambda *_: seen.append(threading.enumerate()))
    assert nets[0].params.tobytes() == nets[1].params.tobytes()
    assert threading.active_count() == before
    assert not [t for threads in seen for t in threads if "tqdm" in type(t).__module__]
