"""Many threads at once: every answer has the bits that it has when nothing else happens.

Eight threads ask one network, each for so many predictions of all sizes; eight threads train
eight networks; and eight threads of a new process ask for the first time, with nothing compiled.
"""

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastnn as fnn
from tests.campaign import _small
from tests.processes import ROOT, finished, start

COUNT, SMALL = 10_000, 100  # predictions of each thread
THREADS = 8
D = fnn.Dense


def run(count):
    """For every 500 predictions a round of fits, for every 1,000 a race to compile."""
    predictions = [wrong for net in networks() for wrong in predict_at_once(net, count // 2)]
    fits = [wrong for i in range(max(1, count // 500)) for wrong in fit_at_once(i)]
    races = [race(i) for i in range(max(1, count // 1000))]
    return {
        "cases": THREADS * (count // 2 * 2) + len(fits) + len(races),
        "predictions": THREADS * (count // 2 * 2),
        "fits": len(fits),
        "races to compile": len(races),
        "failures": sum(predictions) + sum(fits) + sum(races),
    }


def at_once(work):
    """What ``work(number)`` gives in threads that begin together."""
    barrier = threading.Barrier(THREADS)

    def begin(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def networks():
    """One that answers alone, one with a team of threads for each answer."""
    for threads in (1, 2):
        layers = [D(33, "tanh"), D(17, "relu"), D(9, "sigmoid"), D(3)]
        yield fnn.Network(layers, input_shape=(7,), seed=0, threads=threads)


def predict_at_once(net, count):
    """Wrong answers in each thread; a third of the calls is for few rows, which share buffers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 7)).astype(net.dtype)
    whole = net.predict(x)

    def ask(number):
        rng, wrong = np.random.default_rng(number), 0
        for i in range(count):
            rows = int(rng.integers(1, 17)) if i % 3 else int(rng.integers(1, 300))
            lo = int(rng.integers(0, 301 - rows))
            wrong += not np.array_equal(net.predict(x[lo : lo + rows]), whole[lo : lo + rows])
        return wrong

    return at_once(ask)


def fit_at_once(number):
    """Whether each of eight trainings differs from the same alone; threads of any number."""
    optimizers = ["sgd", "adam", "rmsprop", "adagrad"]

    def trained(seed, threads):
        layers = [D(16, "relu"), fnn.Dropout(0.2), D(8, "tanh"), D(3, "softmax")]
        net = fnn.Network(
            layers,
            input_shape=(4,),
            loss="cross_entropy",
            optimizer=optimizers[seed % 4],
            dtype=_small.DTYPES[seed % 2],
            seed=seed,
            threads=threads,
        )
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((100, 4)), rng.integers(0, 3, 100)
        history = net.fit(x, y, epochs=8, batch_size=13, verbose=0).history
        return history, net.params.tobytes(), net._state.tobytes()

    together = at_once(lambda seat: trained(8 * number + seat, threads=(1, 2, 3, None)[seat % 4]))
    alone = [trained(8 * number + seat, threads=1) for seat in range(THREADS)]
    return [one != other for one, other in zip(together, alone, strict=True)]


RACE = """
from tests.campaign import _small, threads
kinds = {}
print(*threads.at_once(lambda seat: _small.answers(*kinds[seat % len(kinds)], fit={})))
"""


def race(number):
    """Whether a process went wrong whose first calls come from eight threads.

    In every other one all of them want the same code, in every fourth also that of `fit`.
    """
    kinds = _small.KINDS[number % len(_small.KINDS) :][:1] if number % 2 == 0 else _small.KINDS
    fit = number % 4 == 3
    expected = [_small.answers(*kinds[seat % len(kinds)], fit=fit) for seat in range(THREADS)]
    with tempfile.TemporaryDirectory() as folder:
        cache = "" if number % 5 == 4 else os.path.join(folder, "cache")
        process = start(RACE.format(kinds, fit), ROOT, cache, "-W", "error")
        with process:
            return finished(process) != (" ".join(expected), "")
