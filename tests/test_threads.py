"""Threads: any number of them gives the same bits, in any process and beside any others."""

import hashlib
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.compiler_lock import global_compiler_lock
from test_plan import NETWORKS, PAIRS, build

import fastnn as fnn
from fastnn.compiled import LOCKED, Few
from fastnn.kernels import _team, run
from fastnn.kernels._kernel import compiled
from fastnn.kernels.gemm import SCRATCH
from tests.processes import ROOT, finished, forked, start

pytestmark = [
    pytest.mark.skipif(not _team.AVAILABLE, reason="nothing is compiled: one thread"),
    pytest.mark.usefixtures("end_of_a_deadlock"),
]

DTYPES = ["float32", "float64"]
D = fnn.Dense
# Widths at which kernels choose another way, for the batch or for a thread's part of it: narrow
# layers, with and without room for their copies; operands that are packed; tiles that are not full.
WIDE = {
    "wide": (lambda: [D(100, "relu"), D(600, "tanh"), D(3, "softmax")], 784),
    "odd": (lambda: [D(33, "tanh"), D(17, "sigmoid"), D(65), D(1)], 17),
    "narrow": (lambda: [D(4, "tanh"), D(3), D(2), D(784), D(4)], 33),
    "no room": (lambda: [D(2)], 8160),
}


def state(net):
    """The bits of all that a network has learnt."""
    return [part.tobytes() for part in (net.params, net._state, net._rule["step"])]


def bits(net, x, y, **options):
    """The same after training, and what the network says then."""
    history = net.fit(x, y, verbose=0, **options).history
    looks = [net.predict(x), *net.gradients(x, y).values()]
    return [history, net.evaluate(x, y), *state(net), *(look.tobytes() for look in looks)]


def wide(name, rows=300, **options):
    layers, width = WIDE[name]
    rng = np.random.default_rng(3)
    net = fnn.Network(layers(), input_shape=(width,), seed=0, **options)
    x = rng.standard_normal((rows, width)).astype(net.dtype)
    return net, x, rng.standard_normal((rows, net.plan.fan_out))


# the same bits


@pytest.mark.parametrize(("name", "optimizer"), PAIRS)
def test_any_number_of_threads_gives_the_same_bits(name, optimizer):
    """Batches that end short, are one row, fewer rows than threads, all there is."""
    for dtype in DTYPES:
        for batch, rows in ((16, 50), (3, 20), (1, 9), (64, 50), (4, 1)):
            results = []
            for threads in (1, 2, 3, 4, 8):
                net, x, y = build(name, optimizer, dtype=dtype, threads=threads)
                results.append(bits(net, x[:rows], y[:rows], epochs=2, batch_size=batch))
            assert all(result == results[0] for result in results), (dtype, batch, rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WIDE)
def test_any_number_of_threads_gives_wide_layers_the_same_bits(name, dtype):
    results = []
    for threads in (1, 2, 3, 8):
        net, x, y = wide(name, dtype=dtype, threads=threads)
        results.append(bits(net, x, y, epochs=2, batch_size=128))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("threads", [2, 3, 4, 8])
def test_the_same_bits_again_and_again(threads):
    """Hundreds of meetings in each of many trainings: a race would be a matter of luck."""
    expected = None
    for count in (1, *[threads] * 8):
        net, x, y = build("deep", dtype="float32", threads=count)
        result = bits(net, x, y, epochs=40, batch_size=13)
        assert result == (expected := expected or result)


HASH = """
import os
if {one_processor}:
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from fastnn import _threads
from test_threads import hash_of
print(hash_of(None))
print(_threads.processors())
"""


def hash_of(threads):
    """One number for all bits of a training, and for all that is asked after it."""
    net, x, y = wide("odd", loss="mse", threads=threads)
    return hashlib.sha256(repr(bits(net, x, y, epochs=3, batch_size=50)).encode()).hexdigest()


def test_new_processes_give_the_same_bits():
    """Also eight threads on one processor, which is all that such a process counts."""
    alone = hasattr(os, "sched_setaffinity")
    path, cache = f"{ROOT}{os.pathsep}{ROOT / 'tests'}", os.environ["FASTNN_CACHE_DIR"]
    modes = {k: v for k, v in os.environ.items() if k.startswith("NUMBA_")}  # of this process
    processes = [
        start(HASH.format(one_processor=one), path, cache, FASTNN_NUM_THREADS=count, **modes)
        for count, one in (("1", False), ("2", False), ("3", False), ("8", False), ("8", alone))
    ]
    ends = [finished(process)[0].split() for process in processes]
    assert {digest for digest, _ in ends} == {hash_of(1)}
    assert ends[-1][1] == "1" or not alone


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WIDE)
def test_a_row_has_the_same_bits_in_any_split(name, dtype):
    net, x, _ = wide(name, rows=600, dtype=dtype, threads=1)
    whole = net.predict(x)

    @settings(max_examples=15, deadline=None)
    @given(st.sets(st.integers(0, len(x)), max_size=6), st.sampled_from([1, 2, 3, 8]))
    def agree(cuts, threads):
        net.threads = threads
        parts = [net.predict(x[lo:hi]) for lo, hi in pairwise(sorted({0, *cuts, len(x)}))]
        assert np.array_equal(np.concatenate(parts), whole)

    agree()
    for i in (0, 1, 255, 256, 599):
        assert np.array_equal(net.predict(x[i : i + 1]), whole[i : i + 1])
        assert np.array_equal(net.predict(x[i : i + 1].tolist()), whole[i : i + 1])


# threads of the user, and processes


@pytest.mark.parametrize("threads", [1, 2])
def test_one_network_answers_many_threads(threads):
    net, x, y = wide("odd", rows=520, threads=threads)
    whole, figures = net.predict(x), net.evaluate(x, y)

    def ask(number):
        for i in range(40):
            lo, hi = (number * i) % 300, 520 - i if i % 4 else (number * i) % 300 + 1
            assert np.array_equal(net.predict(x[lo:hi]), whole[lo:hi])
        assert net.evaluate(x, y) == figures

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


@pytest.mark.parametrize("threads", [1, 2, None])
def test_networks_train_at_once(threads):
    names = [*NETWORKS, *NETWORKS][:8]

    def train(number, threads=threads):
        return bits(*build(names[number], seed=number, threads=threads), epochs=20, batch_size=7)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(train, range(8))) == [train(number, threads=1) for number in range(8)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_child_goes_on(busy):
    """Whether or not another thread is in the middle of a training with its team."""
    train = lambda: bits(*build("deep", threads=2), epochs=3, batch_size=9)  # noqa: E731
    expected, ended = train(), threading.Event()

    def others():
        while not ended.is_set():
            bits(*build("classes", threads=2), epochs=500, batch_size=9)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(others) if busy else None
        try:
            for attempt in range(5):
                time.sleep(0.01 * attempt)
                assert forked(lambda: train() == expected)
        finally:
            ended.set()
    assert future is None or future.result() is None
    assert train() == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_fork_waits_for_a_thread_that_compiles():
    """Its child has no such thread to give back the compiler's lock, and could not go on."""
    compiling = threading.Event()

    def others():
        with global_compiler_lock:
            compiling.set()
            time.sleep(0.2)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(others)
        compiling.wait()
        assert forked(lambda: compiled(lambda x: 2 * x)(2) == 4)


@pytest.mark.skipif(not LOCKED, reason="no fast road")
def test_the_first_threads_on_the_fast_road_work_in_one_place(monkeypatch):
    """Whoever comes second must not free what the first has the address of."""
    nets = [build("classes")[0] for _ in range(2)]
    both, zeros = threading.Barrier(2), np.zeros

    def late(size, dtype=float):
        if size == SCRATCH:
            both.wait()
        return zeros(size, dtype)

    monkeypatch.setattr(Few, "scratch", {})
    monkeypatch.setattr(np, "zeros", late)
    with ThreadPoolExecutor(2) as pool:
        roads = list(pool.map(lambda net: Few(net.plan, net.params), nets))
    (kept,) = Few.scratch.values()
    assert {road.alive[0][run.SCRATCH_AT] for road in roads} == {kept.ctypes.data}


def test_spawned_processes():
    expected = hash_of(1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(hash_of, [2, 2, 3])) == [expected] * 3
