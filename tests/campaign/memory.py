"""Memory: what is done a million times leaves nothing behind, and too little of it spoils nothing.

Predictions, refused inputs, trainings and copies through pickle: after a warm-up the process grows
by less than `ROOM`. And a training that does not fit into memory, wherever it runs out of it,
raises MemoryError and leaves the network as it was: given room, it trains to the same bits as one
that never ran out.
"""

import gc
import json
import mmap
import pickle
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastnn as fnn
from fastnn.kernels import _cache
from tests.processes import ROOT, finished, start

COUNT, SMALL = 1_000_000, 20_000  # predictions of one row
ROOM = 5 << 20
PAGE = mmap.PAGESIZE
D = fnn.Dense


def run(count):
    """For every ten predictions a refused input, for every thousand a training and a copy."""
    loads = {"predictions": 1, "refused inputs": 10, "trainings": 1000, "copies": 1000}
    acts = dict(zip(loads, (predictions(), refused(), trainings(), copies()), strict=True))
    for name, act in acts.items():  # the warm-up
        for number in range(max(5, count // loads[name] // 10)):
            act(number)
    growth, before = {}, resident()
    for name, act in acts.items():
        begin = resident()
        for number in range(count // loads[name]):
            act(number)
        growth[f"growth by {name}"] = resident() - begin
    growth["growth by all"] = resident() - before
    short = short_of_memory(1 << (21 if count < COUNT else 17)) if sys.platform == "linux" else {}
    counts = {name: count // load for name, load in loads.items()}
    return {
        "cases": sum(counts.values()) + sum(short.get("ends", {}).values()),
        **counts,
        **{name: f"{number / 1024:,.0f} KiB" for name, number in growth.items()},
        "short of memory": short.get("ends"),
        "failures": sum(g >= ROOM for g in growth.values()) + len(short.get("wrong", ())),
        "changed": short.get("wrong"),
    }


def resident():
    """Bytes of this process that are in memory; where the system does not say, most so far."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * PAGE


# what is done again and again


def network(**options):
    layers = [D(16, "relu"), D(3, "softmax")]
    return fnn.Network(layers, input_shape=(4,), loss="cross_entropy", seed=0, **options)


def data(dtype="float32"):
    rng = np.random.default_rng(0)
    return rng.standard_normal((50, 4)).astype(dtype), rng.integers(0, 3, 50)


def predictions():
    """One row, by the fast road and, of a list or another dtype, by the general one."""
    net, (x, _) = network(), data()
    rows = [x[:1]] * 98 + [x[:1].tolist(), x[:1].astype("float64")]

    def act(number):
        net.predict(rows[number % len(rows)])

    return act


def refused():
    """What no network takes; an error that does not come is one that leaves this campaign."""
    net, (x, y) = network(), data()
    net.fit(x, y, verbose=0)
    nan = np.where(x > 1, np.nan, x)
    wrong = [
        lambda: net.predict(x[0]),
        lambda: net.predict(x[:, :3]),
        lambda: net.predict(nan),
        lambda: net.predict(nan[np.isnan(nan).any(axis=1)][:1]),
        lambda: net.predict([["a"] * 4]),
        lambda: net.predict(x.astype(complex)),
        lambda: net.predict(np.ma.masked_greater(x, 1)),
        lambda: net.predict(x[:0]),
        lambda: net.fit(x, y[:-1], verbose=0),
        lambda: net.fit(x, y + 1, verbose=0),
        lambda: net.fit(nan, y, verbose=0),
        lambda: net.fit(x, y, epochs=0, verbose=0),
        lambda: net.fit(x, y, batch_size=2.5, verbose=0),
        lambda: net.fit(x, y, sample_weight=-np.ones(50), verbose=0),
        lambda: net.fit(x, y, validation_data=(x, y + 1), verbose=0),
        lambda: net.evaluate(x, y[:, None, None]),
        lambda: net.gradients(x, nan[:, 0]),
        lambda: net.load_state_dict({"0.weight": x}),
        lambda: setattr(net, "params", x),
        lambda: fnn.Network([D(3), D(3, "no such")], input_shape=(4,)),
        lambda: fnn.Network(net.layers, input_shape=(4,)),
    ]

    def act(number):
        try:
            wrong[number % len(wrong)]()
        except (TypeError, ValueError):
            return
        raise AssertionError(f"input {number % len(wrong)} was taken")

    return act


def trainings():
    """Of new networks and of one and the same, with one thread and with two."""
    old, (x, y) = network(), data()

    def act(number):
        net = network(threads=1 + number % 2) if number % 3 else old
        net.fit(x, y, epochs=2, batch_size=16, validation_data=(x, y), verbose=0)
        net.evaluate(x, y)

    return act


def copies():
    """By pickle, which then predict and train."""
    net, (x, y) = network(), data()
    net.fit(x, y, verbose=0)

    def act(number):
        copy = pickle.loads(pickle.dumps(net))
        copy.predict(x[:1]), copy.predict(x[:1])
        copy.fit(x, y, verbose=0)

    return act


# too little memory


def short_of_memory(step):
    """Trainings in a process that has too little memory, and each time so much more."""
    script = f"from tests.campaign import memory; memory.train_in_little({step})"
    # What is given back is given to the system: a limit then means the same each time.
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    with start(script, ROOT, _cache.root(), **settings) as process:
        return json.loads(finished(process)[0])


def train_in_little(step):
    """Print how trainings ended and what went wrong, as JSON."""
    ends, wrong = {"MemoryError": 0, "trained": 0}, []
    for case in CASES:
        expected, room, end = case.trained(case.network()), 0, ""
        while end != "trained":
            net = case.network()
            before, bits, end = case.known(net), b"", "trained"
            with at_most(room):
                try:
                    bits = case.trained(net)
                except MemoryError:
                    end = "MemoryError"
            ends[end] += 1
            if end == "MemoryError":
                if case.known(net) != before:
                    wrong.append(f"{case.name} in {room} bytes: the network has changed")
                try:
                    bits = case.trained(net)
                except Exception as error:
                    wrong.append(f"{case.name} in {room} bytes: {error!r} afterwards")
                    bits = expected
            if bits != expected:
                wrong.append(f"{case.name} in {room} bytes: trains otherwise afterwards")
            room += step
    print(json.dumps({"ends": ends, "wrong": wrong}))


@contextmanager
def at_most(room):
    """Let the process have no more memory than it has now and so many bytes."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * PAGE + room, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)


class Case(NamedTuple):
    """A training that needs some megabytes."""

    name: str
    width: int = 300  # of the first layer
    rows: int = 100
    trained_before: bool = True  # so that the optimizer has something to remember
    another: str = ""  # optimizer, before the training
    batch_size: int = 64
    validated: bool = False

    def data(self):
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((self.rows, 900)), rng.standard_normal((self.rows, 3))
        return x.astype("float32"), y.astype("float32")

    def network(self):
        """A new one, which knows its input if it has been trained."""
        shape = (900,) if self.trained_before else None
        net = fnn.Network([D(self.width, "relu"), D(3)], input_shape=shape, seed=0, threads=1)
        if self.trained_before:
            x, y = self.data()
            net.fit(x[:64], y[:64], verbose=0)
        return net

    def known(self, net):
        """What can be seen of it."""
        return repr(net), net.params.tobytes() if self.trained_before else b""

    def trained(self, net):
        """The bits of its parameters after the training."""
        x, y = self.data()
        if self.another and net.optimizer.rule != self.another:
            net.optimizer = self.another
        validation = (x, y) if self.validated else None
        net.fit(x, y, batch_size=self.batch_size, validation_data=validation, verbose=0)
        return net.params.tobytes()


CASES = [
    Case("not built yet", trained_before=False),
    Case("a wide layer"),
    Case("another optimizer", another="nadam"),
    Case("a large batch", rows=1000, batch_size=1000),
    Case("validation", width=900, rows=300, validated=True),
]
