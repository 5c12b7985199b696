"""Ctrl-C at random moments is heard soon, and the training goes on to the same bytes.

Each case is a training that is interrupted once, while it compiles, trains, validates, calls
callbacks or writes a file, and gone on with; a training that is interrupted before it has begun is
begun. Only the time from the signal until `KeyboardInterrupt` reaches the caller is measured. Every
fourth case interrupts `predict` of many rows instead.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np

import fastnn as fnn

COUNT, SMALL = 100, 8
MEDIAN, LATEST = 0.100, 0.250  # seconds


class Alarm:
    """Sends the signal to this process after a while, and knows when."""

    def __init__(self, seconds: float) -> None:
        self.sent = 0.0
        self.timer = threading.Timer(seconds, self._send)
        self.timer.daemon = True

    def _send(self) -> None:
        self.sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> Alarm:
        self.timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.timer.cancel()
        self.timer.join()


def latency(seconds: float, work) -> float | None:
    """How late the interrupt came to the caller; None where the work was done before."""
    alarm = Alarm(seconds)
    try:
        with alarm:
            work()
    except KeyboardInterrupt:
        return time.perf_counter() - alarm.sent
    if alarm.sent:  # at the last moment: it is on its way
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            pass
    return None


def network():
    return fnn.Network(
        [fnn.Dense(48, "relu"), fnn.Dropout(0.2), fnn.BatchNorm(), fnn.Dense(3, "softmax")],
        loss="cross_entropy",
        seed=3,
        input_shape=(20,),
    )


def everything(net):
    return net.params.tobytes(), net._state.tobytes(), str(net.history.history)


def run(count: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 20)).astype(np.float32)
    y = np.argmax(x[:, :3], axis=1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    late: list[float] = []
    different = began = cases = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"

        def train(net, **options):
            stopping = fnn.callbacks.EarlyStopping("loss", patience=50)
            keep = fnn.callbacks.Checkpoint(path, every="0.1s", resume=False)
            net.fit(
                x, y, epochs=25, validation_split=0.2, callbacks=[stopping, keep], verbose=0,
                **options,
            )  # fmt: skip
            return everything(net)

        try:
            whole = train(network())
            clock = time.perf_counter()
            train(network())
            takes = time.perf_counter() - clock
            many = np.tile(x, (200, 1))
            predicted = network().predict(many[: len(x)])
            while cases < count:
                cases += 1
                net = network()
                if cases % 4 == 0:
                    seen = latency(rng.uniform(0, 0.05), partial(net.predict, many))
                    late.append(seen or 0.0)
                    different += not np.array_equal(net.predict(x), predicted)
                    continue
                seen = latency(rng.uniform(0, takes), partial(train, net))
                if seen is None:
                    cases -= 1  # it was done before
                    continue
                late.append(seen)
                began += net.unfinished
                if net.unfinished or net.history is None:
                    different += train(net, resume=net.unfinished) != whole
                else:  # it came when all was done
                    different += everything(net) != whole
                different += fnn.load(path).params.shape != net.params.shape
        finally:
            signal.signal(signal.SIGINT, before)
    median, latest = np.median(late), np.quantile(late, 0.99)
    return {
        "cases": cases,
        "gone on with": began,
        "median": f"{median * 1e3:.1f} ms",
        "p99": f"{latest * 1e3:.1f} ms",
        "different": different,
        # With few cases, or beside other programs, a time says little: it fails a whole campaign.
        "failures": different + (count == COUNT and bool(median > MEDIAN or latest > LATEST)),
    }
