"""Damaged files of whole networks: each is refused with a FormatError, or a valid network.

What `tests.campaign.corrupt` does to files of arrays, done to a network with a training under way;
and one place of its description after another replaced by what does not belong there. A network
that is taken must predict.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Hashable
from pathlib import Path

import numpy as np

import fastnn as fnn
from fastnn import files, saving
from tests.campaign import corrupt

COUNT, SMALL = 100_000, 300


class Cut(fnn.callbacks.Callback):
    """Saves in the middle of a training."""

    path = Path()

    def on_epoch_end(self, epoch, logs):
        if epoch == 1:
            self.network.save(self.path)


def originals() -> list[bytes]:
    """One small network with everything."""
    net = fnn.Network(
        [fnn.Input((2,), scale=0.5), fnn.Dense(2, "tanh"), fnn.Dropout(0.1), fnn.Dense(1)],
        optimizer=fnn.SGD(fnn.schedules.ReduceOnPlateau(0.1), momentum=0.5),
        seed=0,
    )
    cut = Cut()
    x = np.random.default_rng(0).standard_normal((8, 2))
    with tempfile.TemporaryDirectory() as folder:
        cut.path = Path(folder) / "net.safetensors"
        stop = fnn.callbacks.EarlyStopping("loss")
        net.fit(x, x[:, :1], epochs=3, batch_size=4, callbacks=[stop, cut], verbose=0)
        return [cut.path.read_bytes()]


def load(content: bytes) -> Hashable:
    """A network that predicts."""
    arrays, metadata = files.parse(content, "corrupt")
    given = tuple((name, array.shape, array.tobytes()) for name, array in arrays.items())
    network = saving.network_of(arrays, metadata, backend="numpy")
    rows = np.ones((2, *network.plan.in_shape))
    assert network.predict(rows).shape == (2, *network.plan.out_shape)
    return given


def misdescribed(content: bytes, draw: random.Random) -> bytes:
    """The same file with another value somewhere in its description."""
    arrays, metadata = files.parse(content, "good")
    name = draw.choice(["network", "training"])
    text = json.loads(metadata[name])
    spot, key = text, None
    while isinstance(spot, dict | list) and spot:
        above, key = spot, draw.choice(list(spot) if isinstance(spot, dict) else range(len(spot)))
        spot = above[key]
        if draw.random() < 0.3:
            break
    above[key] = draw.choice(
        [None, True, -1, 0, 1, 3, 2**31, 2**63, 2**200, 0.5, -0.5, 1e308, "", "x", "tanh", [], {},
         [1], [[1]], ["a"], {"class": "Dense"}, {"class": "os.system"}]
    )  # fmt: skip
    metadata[name] = json.dumps(text)
    return b"".join(files._content("corrupt", arrays, metadata))


def run(count: int) -> dict[str, int | float | str]:
    good = originals()
    figures = corrupt.run(count, load, lambda: [good[0]])
    draw, taken = random.Random(1), 0
    for _ in range(count):
        try:
            load(misdescribed(good[0], draw))
            taken += 1
        except files.FormatError:
            pass
        except Exception as error:
            figures["failures"] += 1
            figures["first failure"] = repr(error)
    return figures | {"cases": figures["cases"] + count, "misdescribed and valid": taken}
