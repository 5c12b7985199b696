"""A team of threads: how many, what it does where not all come, its shares and meetings."""

import os
import signal
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest
from numba import njit
from test_plan import build
from test_threads import bits, state, wide

import fastnn as fnn
from fastnn import _threads, compiled, training
from fastnn.kernels import _op, _shares, _team, run
from fastnn.kernels._kernel import OPTIONS
from fastnn.kernels._memory import pointer

pytestmark = [
    pytest.mark.skipif(not _team.AVAILABLE, reason="nothing is compiled: one thread"),
    pytest.mark.usefixtures("end_of_a_deadlock"),
]


def teams():
    """Threads that somebody should have waited for."""
    threads = [thread for thread in threading.enumerate() if thread.is_alive()]
    return [thread for thread in threads if thread.name.startswith("fastnn-")]


# how many


@pytest.fixture
def asked(monkeypatch):
    """Says how many threads a network's training and looking ask for."""
    numbers = set()

    def noted(threads, *arguments):
        numbers.add(threads)
        return _threads.together(threads, *arguments)

    def all_numbers(*net_and_data, **options):
        numbers.clear()
        bits(*net_and_data, **options)
        return numbers

    monkeypatch.setattr(compiled, "together", noted)
    monkeypatch.setattr(_threads, "processors", lambda: 3)
    return all_numbers


def test_how_many_threads(asked, monkeypatch):
    """The argument, else the variable, else as many as are useful: one for a tiny network."""
    for text in ("3", "", None):
        if text is None:
            monkeypatch.delenv(_threads.VARIABLE)
        else:
            monkeypatch.setenv(_threads.VARIABLE, text)
        assert asked(*build("classes", threads=2)) == {2}
        assert asked(*build("classes"), batch_size=4) == ({3} if text else {1})
        assert max(asked(*wide("wide", rows=1000), batch_size=128)) == 3


@pytest.mark.parametrize("first", [1, 8])
@pytest.mark.parametrize("best", [1, 2, 4, 8])
def test_training_finds_out_how_many_are_fastest(first, best):
    """Whatever it begins with, and again when the load has changed."""
    now = 0.0
    crew = _threads.Crew(first, 8)
    for fastest, end in ((best, 30), (8 // best, 1000)):
        while now < end:
            threads = crew.threads
            assert threads in (1, 2, 4, 8)
            seconds = 0.03 * max(threads / fastest, fastest / threads)
            now += seconds
            crew.learn(1, seconds)
        assert crew.best == fastest and not crew.trials
    assert _threads.Crew(2, 2, tries=False).threads == 2


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", "2 threads"])
def test_a_wrong_variable_is_named(text, monkeypatch):
    monkeypatch.setenv(_threads.VARIABLE, text)
    net, x, y = build("classes")
    for call in (lambda: net.fit(x, y, verbose=0), lambda: net.predict(x)):
        with pytest.raises((TypeError, ValueError), match=f"^{_threads.VARIABLE} must be .*{text}"):
            call()


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_wrong_argument_is_named(threads):
    with pytest.raises((TypeError, ValueError), match=r"^threads must be .*got [^\n]+$"):
        build("classes", threads=threads)


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 0\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "400000 100000\n"}, 4),
        *[({"cpu.max": text}, None) for text in ("", "many", "1 2 3", "-1 100000", "\xff 1")],
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "250000\n"}, None),
    ],
)
def test_quota_of_a_container(files, processors, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert _threads._quota(tmp_path) == processors


# teams that do not come together


ACTIONS = {
    "train": lambda net, x, y: net.fit(x, y, epochs=2, batch_size=9, shuffle=False, verbose=0),
    "evaluate": lambda net, x, y: net.evaluate(x, y),
    "predict": lambda net, x, y: net.predict(x),
    "gradients": lambda net, x, y: net.gradients(x, y),
}


def failing_start(monkeypatch, error):
    """Let the team's second thread not start."""
    start = threading.Thread.start

    def fails(thread):
        if thread.name == "fastnn-2":
            raise error
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)


def interrupting(patch, action, early):
    """Let an interrupt be heard by the first thread before, or as soon as, it has run."""
    function = getattr(run, action)

    def interrupted(*arguments):
        seat = arguments[-1]
        if seat > 0 or not early:
            function(*arguments)
        if seat == 0:
            raise KeyboardInterrupt

    interrupted.signatures = function.signatures
    patch.setattr(run, action, interrupted)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_team_that_is_called_off_goes_home(action, error, monkeypatch):
    act, expected = ACTIONS[action], bits(*build("deep", threads=1))
    net, x, y = build("deep", threads=4)
    before = state(net)
    with monkeypatch.context() as patch:
        failing_start(patch, error)
        with pytest.raises(type(error)):
            act(net, x, y)
    assert not teams() and state(net) == before
    with monkeypatch.context() as patch:
        interrupting(patch, action, early=True)
        with pytest.raises(KeyboardInterrupt):
            act(net, x, y)
    assert not teams() and state(net) == before
    assert bits(build("deep", threads=4)[0], x, y) == expected


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_interrupt_after_a_slice_keeps_parameters_and_steps_together(threads, monkeypatch):
    """Ctrl-C is heard as soon as compiled code returns: between it and the next line of Python."""
    (net, x, y), (twin, _, _) = (build("deep", threads=threads) for _ in range(2))
    for each in (net, twin):  # all is compiled then: the next call of the engine trains
        each.fit(x[:9], y[:9], batch_size=9, shuffle=False, verbose=0)
    with monkeypatch.context() as patch:
        interrupting(patch, "train", early=False)
        with pytest.raises(KeyboardInterrupt):
            net.fit(x, y, batch_size=9, shuffle=False, verbose=0)  # the first slice is one batch
    assert not teams()
    twin.fit(x[:9], y[:9], batch_size=9, shuffle=False, verbose=0)
    assert state(net) == state(twin)


def test_an_interrupt_waits_for_the_threads(monkeypatch):
    """They read memory that whoever is interrupted lets go."""
    x = np.zeros((3000, 30), np.float32)
    net = fnn.Network([fnn.Dense(300), fnn.Dense(3)], input_shape=(30,), threads=3)
    net.predict(x)  # compiles
    join, waited = threading.Thread.join, []

    def interrupted(thread, timeout=None):
        waited.append(thread)
        signal.raise_signal(signal.SIGINT)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        net.predict(x)
    assert len(waited) == 2 and not any(thread.is_alive() for thread in waited)


def test_fewer_threads_will_do(monkeypatch):
    expected = bits(*build("deep", threads=1), epochs=3)
    failing_start(monkeypatch, RuntimeError("can't start new thread"))
    assert bits(*build("deep", threads=4), epochs=3) == expected


def test_divergence_reads_the_same(monkeypatch):
    monkeypatch.setattr(training, "SLICE_SECONDS", 1e-9)  # or a slice's length would be luck
    texts = []
    for threads in (1, 2, 3, 8):
        net, x, y = build("classes", dtype="float32", threads=threads)
        net.optimizer = fnn.SGD(1e30)
        with pytest.raises(fnn.DivergenceError) as caught:
            net.fit(x, y, epochs=5, batch_size=16, verbose=0)
        assert not teams()
        texts.append((str(caught.value), *state(net)))
    assert "epoch 1, batch 2 of 4" in texts[0][0] and len(set(texts)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_in_the_middle_of_a_team():
    """Wherever real signals come, the network is that of some number of whole steps."""
    net, x, y = wide("odd", threads=2)
    # Code is loaded before: a callback of llvmlite's would hear a signal and keep it to itself.
    net.fit(x, y, epochs=100, batch_size=300, shuffle=False, verbose=0)
    known = signal.signal(signal.SIGINT, signal.default_int_handler)
    for attempt in range(6):
        timer = threading.Timer(0.02 + 0.007 * attempt, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                net.fit(x, y, epochs=10**5, batch_size=300, shuffle=False, verbose=0)
        finally:
            timer.cancel()
        for thread in teams():  # the interrupt came while it started: it goes home by itself
            thread.join(10)
        assert not teams()
    signal.signal(signal.SIGINT, known)
    twin = wide("odd", threads=1)[0]
    twin.fit(x, y, epochs=int(net._rule["step"][0]), batch_size=300, shuffle=False, verbose=0)
    assert state(net) == state(twin)


# shares and meetings


@njit(**OPTIONS)
def first_wrong_share(most):
    """Arguments for which shares overlap, leave something out or are unfair, if there are any."""
    for n in range(most + 1):
        for members in range(1, 10):
            for grain in (1, 4):
                at = 0
                for seat in range(members):
                    lo, hi = _shares.share(n, grain, _shares.evenly(seat, members))
                    fair = (n + grain - 1) // grain // members * grain
                    cut_well = lo == at and lo % grain == 0 and lo <= hi
                    if not cut_well or not -grain < hi - lo - fair <= grain:
                        return n, members, grain
                    at = hi
                if at != n:
                    return n, members, grain
    return 0, 0, 0


def test_shares_cover_everything_once():
    assert first_wrong_share(100) == (0, 0, 0)


@njit(**OPTIONS)
def weights_between(plan, begin, end, whole, found):
    """Rows of each op's weights in a stretch, as `run.weights_pass` goes through them."""
    (first, last), at = run.limits(plan, _shares.Stretch(begin, end, whole)), np.int64(0)
    for i in range(plan.size):
        found[i, 0], found[i, 1], at = run.rows_between(plan[i], at, first, last)


@pytest.mark.parametrize("seed", range(20))
def test_stretches_have_every_weight_once(seed):
    rng = np.random.default_rng(seed)
    plan = np.zeros(rng.integers(1, 6), _op.OP)
    plan["gradient"] = 1
    plan["weight_rows"], plan["row_size"] = rng.integers(1, 40, (2, plan.size))
    for side in ("out_height", "out_width"):
        plan[side] = rng.integers(0, 5, plan.size)
    cuts = np.sort(rng.integers(0, 100, 5))
    found = np.zeros((plan.size, 2), np.int64)
    done = np.zeros(plan.size, np.int64)
    for begin, end in pairwise([0, *cuts, 100]):
        weights_between(plan.view(_op.RECORDS), begin, end, 100, found)
        some = found[:, 0] < found[:, 1]
        assert (found[some, 0] == done[some]).all() and (found[:, 0] % run.GRAIN == 0).all()
        done[some] = found[some, 1]
    assert (done == plan["weight_rows"]).all()


def uneven(members, rng):
    """Shares as no clock would make them: some of them empty."""
    shares = _shares.even(members)
    cuts = np.sort(rng.integers(0, _shares.WHOLE, (2, members - 1)), axis=1)
    cuts[rng.random(cuts.shape) < 0.2] = 0
    shares[:, 1:-1, _shares.BEGIN] = np.sort(cuts, axis=1)
    return shares


@pytest.mark.parametrize("name", ["deep", "regularised", "normalised"])
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_wherever_the_work_is_cut_the_bits_are_the_same(name, threads, monkeypatch):
    rng, results = np.random.default_rng(threads), []
    for count in (1, threads):
        if count > 1:
            monkeypatch.setattr(_threads.Crew, "shares", property(lambda _: uneven(threads, rng)))
        net, x, y = build(name, "adam", threads=count)
        net.fit(x, y, epochs=30, batch_size=40, verbose=0)
        results.append(state(net))
    assert results[0] == results[1]


@pytest.mark.parametrize("speeds", [[1, 1], [3, 1], [1, 4, 4], [1, 1000], [2, 1, 1, 5, 5, 1, 1, 1]])
def test_shares_follow_the_speeds(speeds):
    """All are done at once in the end; the slowest keeps enough to be seen getting faster."""
    members = len(speeds)
    shares = _shares.even(members)
    for _ in range(100):
        sizes = np.diff(shares[:, :, _shares.BEGIN])
        assert (sizes >= _shares.WHOLE // (_shares.LEAST * members) // 1.2).all()
        assert (sizes.sum(axis=1) == _shares.WHOLE).all()
        shares[:, :-1, _shares.SPENT] = sizes * 100 // speeds
        _shares.balance(shares)
    if max(speeds) < 1000:
        assert np.allclose(sizes / _shares.WHOLE, np.array(speeds) / sum(speeds), atol=0.01)


@pytest.mark.skipif(not _shares.CLOCK, reason="a system without clock_gettime: shares stay even")
def test_whoever_had_to_wait_does_more():
    net, x, y = wide("wide", threads=2)
    net.fit(x, y, epochs=1, batch_size=150, verbose=0)  # which compiles
    shares = net._crew[1].shares
    shares[:, 1, _shares.BEGIN] = _shares.WHOLE // 16
    net.fit(x, y, epochs=30, batch_size=150, verbose=0)
    assert (shares[:, 1, _shares.BEGIN] > _shares.WHOLE // 8).all()


@njit(**OPTIONS)
def rounds(slots, wrong, count, team, seat):
    """Write, meet, read what all have written, meet: with plain loads and stores in between."""
    members = _team.join(pointer(team), seat)
    for number in range(1, count + 1):
        slots[seat] = number
        if number % members == seat:
            slots[-1] += 1
        _team.meet(pointer(team), members)
        for i in range(members):
            wrong[seat] += slots[i] != number
        wrong[seat] += slots[-1] != number
        _team.meet(pointer(team), members)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_whoever_meets_sees_what_the_others_wrote(threads):
    for _ in range(3):
        slots, wrong = np.zeros(threads + 1, np.int64), np.zeros(threads, np.int64)
        _threads.together(threads, rounds, slots, wrong, 3000)
        assert not wrong.any() and slots[-1] == 3000


def run_unless_second(thread, run=threading.Thread.run):
    if thread.name != "fastnn-2":
        run(thread)


def test_a_thread_that_never_comes(monkeypatch):
    """Nobody begins without it; then the first one does it all."""
    nets = []
    for threads in (1, 3):
        net, x, y = build("deep", threads=threads)
        net.fit(x, y, batch_size=50, verbose=0)
        if threads > 1:
            monkeypatch.setattr(threading.Thread, "run", run_unless_second)
        net.fit(x, y, batch_size=50, verbose=0)
        nets.append(net)
    assert state(nets[0]) == state(nets[1])
