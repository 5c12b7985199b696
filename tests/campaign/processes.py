"""Many processes: forked at any moment, spawned, or started at once with nothing compiled.

A child that is forked after a training, in the middle of one or while another thread compiles,
can train; so can children that `multiprocessing` starts afresh; and processes that compile into
one empty cache give the right answers, leave nothing unfinished and find what was compiled.
"""

import multiprocessing
import random
import tempfile
import threading
import time
from contextlib import contextmanager
from itertools import count as numbers
from pathlib import Path

import fastnn as fnn
from fastnn.kernels import _cache
from fastnn.kernels._kernel import compiled
from tests.campaign import _small
from tests.processes import ROOT, at_once, forked, start

COUNT, SMALL = 200, 2  # cold starts
TOGETHER = (2, 3, 4)  # of them in one cache


def run(count):
    """For every two cold starts a fork of each kind, for every ten a process of each other kind."""
    forks, children = count // 2, count // 10
    failures = {
        "forks after a fit": [not fork() for _ in range(forks)],
        "forks during a fit": forks_during(fit, forks),
        "forks while compiling": forks_during(compile_something, forks),
        "spawned": [child("spawn", n) for n in range(children)],
        "forkservers": [child("forkserver", n) for n in range(children)],
        "cold starts": [wrong for group in groups(count) for wrong in cold(*group)],
    }
    return {
        "cases": sum(map(len, failures.values())),
        **{name: len(wrong) for name, wrong in failures.items()},
        "failures": sum(map(sum, failures.values())),
    }


# forks


def train(threads=2):
    """The bits of a training."""
    x, y = fnn.datasets.spiral(20, 3, seed=0)
    layers = [fnn.Dense(16, "relu"), fnn.Dense(3, "softmax")]
    net = fnn.Network(layers, input_shape=(2,), loss="cross_entropy", seed=0, threads=threads)
    net.fit(x, y, epochs=3, batch_size=9, verbose=0)
    return net.params.tobytes() + net.predict(x).tobytes()


def fork():
    """Whether a forked child trains as its parent does, and can compile."""
    expected = train(threads=1)
    return forked(lambda: train() == expected and compile_something() == 4)


def fit():
    """Something to be in the middle of."""
    train()


def compile_something():
    """Compile a function that no cache keeps, and call it."""

    def twice(x):
        return x * 2

    return compiled(twice)(2)


@contextmanager
def meanwhile(work):
    """Do something in another thread again and again."""
    ended = threading.Event()

    def others():
        while not ended.is_set():
            work()

    thread = threading.Thread(target=others)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def forks_during(work, count):
    """Whether each fork went wrong, at a random moment of another thread's work."""
    moments, wrong = random.Random(0), []
    with meanwhile(work):
        for _ in range(count):
            time.sleep(moments.uniform(0, 0.05))
            try:
                wrong.append(not fork())
            except AssertionError:  # it hangs
                wrong.append(True)
    return wrong


# processes that multiprocessing starts


def check(number, expected):
    """In a child: fail unless it trains as its parent does."""
    assert _small.answers(*_small.KINDS[number % len(_small.KINDS)], fit=True) == expected


def child(method, number):
    """Whether a child process went wrong."""
    expected = _small.answers(*_small.KINDS[number % len(_small.KINDS)], fit=True)
    process = multiprocessing.get_context(method).Process(target=check, args=(number, expected))
    process.start()
    process.join(120)
    failed = process.exitcode != 0
    process.kill()
    return failed


# cold starts

COLD = """
from tests.campaign import _small
print("ready", flush=True)
input()
print(_small.answers({!r}, {!r}, fit={}))
"""


def groups(count):
    """Networks for processes that start together; in every eighth group they train as well."""
    for number in numbers():
        size = min(TOGETHER[number % 3], count)
        if size < 1:
            return
        alike = number % 2 == 0  # all want the same code, or each another
        kinds = [
            _small.KINDS[(number + (0 if alike else i)) % len(_small.KINDS)] for i in range(size)
        ]
        yield kinds, number % 8 == 7
        count -= size


def cold(kinds, fit):
    """Whether each process went wrong that compiles into one empty cache, at the same time."""
    expected = [(_small.answers(*kind, fit=fit), "") for kind in kinds]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"

        def begin(kinds):
            scripts = [COLD.format(*kind, fit) for kind in kinds]
            return at_once(start(script, ROOT, cache, "-W", "error") for script in scripts)

        try:
            ends = begin(kinds)
            [again] = begin(kinds[:1])
        except AssertionError as error:
            print(error)
            return [True] * len(kinds)
        unfinished = [path for path in cache.rglob("*") if path.suffix == _cache.UNFINISHED]
    spoiled = bool(unfinished) or again != expected[0]
    return [spoiled or end != wanted for end, wanted in zip(ends, expected, strict=True)]
