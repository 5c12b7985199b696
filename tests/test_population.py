"""A population's members are the networks they would be alone, whatever they are trained with."""

import contextlib
import copy
import io
import pickle
import signal
import time

import numpy as np
import pytest
from test_plan import NETWORKS, OPTIMIZERS, build

import fastnn as fnn
from fastnn import steps
from fastnn.kernels import _team
from fastnn.kernels._kernel import JIT

pytestmark = pytest.mark.usefixtures("end_of_a_deadlock")
D = fnn.Dense
THREADS = (1, 2, 3, 4) if _team.AVAILABLE else (1,)


def template(seed=5, **options):
    layers = [D(9, "relu", weight_l2=0.01), fnn.Dropout(0.2), fnn.BatchNorm(), D(3, "softmax")]
    options = {"loss": "cross_entropy", "optimizer": fnn.Adam(0.02), "threads": 1, **options}
    return fnn.Network(layers, seed=seed, input_shape=(2,), **options)


@pytest.fixture(scope="module")
def spiral():
    return fnn.datasets.spiral(20)


def bits(net, x):
    return net.params.tobytes(), net._state.tobytes(), net.predict(x).tobytes(), net.history.history


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        *(("regularised", optimizer) for optimizer in OPTIMIZERS),
        *((name, "adam") for name in ("normalised", "categories", "classes", "regression")),
    ],
)
def test_members_are_bit_identical_to_networks_trained_alone(name, optimizer):
    net, x, y = build(name, optimizer, threads=1)
    before = bits(net, x)[:3] if net.history else net.params.tobytes()
    options = {"epochs": 3, "batch_size": 16, "verbose": 0}
    want = []
    for seed in (3, 1, 4):
        alone = build(name, optimizer, threads=2, seed=seed)[0]
        alone.fit(x, y, **options)
        want.append(bits(alone, x))
    for threads in THREADS if optimizer in ("adam", "momentum") else THREADS[-1:]:
        population = fnn.Population(net, 3, {"seed": [3, 1, 4]}, threads=threads)
        population.fit(x, y, **options)
        assert [bits(member, x) for member in population] == want
    assert net.params.tobytes() == before and net.history is None


def test_every_network_is_a_template():
    for name in NETWORKS:
        net = build(name, seed=8)[0]
        population = fnn.Population(net, 2, {"seed": [8, 9]})
        fresh = fnn.Population(net, 1, {"seed": [8]})[0]
        assert population[0].params.tobytes() == net.params.tobytes() == fresh.params.tobytes()
        assert population[0].plan.rows == net.plan.rows


def test_hyper_parameters_vary(spiral):
    vary = {"learning_rate": [0.1, 0.01], "weight_l2": [0, 0.1], "1.rate": [0.5, 0]}
    population = fnn.Population(template(), 2, vary | {"clip_norm": [None, 0.5]})
    population.fit(*spiral, epochs=2, verbose=0)
    for i, member in enumerate(population):
        alone = template(population[i].seed, optimizer=fnn.Adam(vary["learning_rate"][i]))
        alone.optimizer.clip_norm = (None, 0.5)[i]
        rate = vary["1.rate"][i]
        layers = [D(9, "relu", weight_l2=vary["weight_l2"][i]), fnn.Dropout(rate), fnn.BatchNorm()]
        layers.append(D(3, "softmax", weight_l2=vary["weight_l2"][i]))
        options = {"loss": "cross_entropy", "optimizer": alone.optimizer, "seed": member.seed}
        alone = fnn.Network(layers, **options)
        alone.fit(*spiral, epochs=2, verbose=0)
        assert bits(member, spiral[0]) == bits(alone, spiral[0])


def test_members_share_a_plan_until_they_differ(spiral):
    population = fnn.Population(template(), 3, {"seed": [1, 2, 3]})
    assert population[0].plan is population[1].plan is population[2].plan
    population[1].layers[0].trainable = False
    frozen, moving = (member.layers[0].weight.copy() for member in population.members[1:])
    population.fit(*spiral, epochs=2, verbose=0)
    assert (population[1].layers[0].weight == frozen).all()
    assert (population[2].layers[0].weight != moving).any()
    assert population[0].plan is population[2].plan is not population[1].plan
    alone = template(3)
    alone.fit(*spiral, epochs=2, verbose=0)
    assert bits(population[2], spiral[0]) == bits(alone, spiral[0])
    varied = fnn.Population(template(), 2, {"1.rate": [0.1, 0.2]})
    assert [max(row.rate for row in member.plan.rows) for member in varied] == [0.1, 0.2]


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: a single batch fills a slice")
def test_members_go_on_at_the_pace_of_those_before(spiral, monkeypatch):
    """The first slice of all has one batch; the next member begins with as many as fit."""
    slices, take = [], steps.Steps.take
    monkeypatch.setattr(
        steps.Steps,
        "take",
        lambda steps, pair, piece, *rest: (
            slices.append(len(piece.starts)) or take(steps, pair, piece, *rest)
        ),
    )
    fnn.Population(template(), 2, threads=1).fit(*spiral, epochs=2, batch_size=60, verbose=0)
    assert [count for count in slices if count] == [1, 1, 2]


def test_seeds_come_from_the_template(spiral):
    seeds = [member.seed for member in fnn.Population(template(), 5)]
    assert len(set(seeds)) == 5
    assert [member.seed for member in fnn.Population(template(), 3)] == seeds[:3]
    assert [member.seed for member in fnn.Population(template(6), 5)] != seeds
    assert len({member.seed for member in fnn.Population(template(None), 3)}) == 3


def test_folds_and_data_of_each(spiral):
    x, y = spiral
    folds = np.array_split(np.random.default_rng(0).permutation(len(x)), 3)
    rows = [np.setdiff1d(np.arange(len(x)), fold) for fold in folds]
    population = fnn.Population(template(), 3)
    weights = np.linspace(0, 2, len(x))
    population.fit(x, y, rows=rows, sample_weight=weights, epochs=2, verbose=0)
    other = fnn.Population(template(), 3)
    parts = [[array[chosen] for chosen in rows] for array in (x, y, weights)]
    other.fit(*parts[:2], sample_weight=parts[2], per_member=True, epochs=2, verbose=0)
    judged = population.evaluate(x, y, rows=folds)
    for i, fold in enumerate(folds):
        alone = template(population[i].seed)
        alone.fit(x[rows[i]], y[rows[i]], sample_weight=weights[rows[i]], epochs=2, verbose=0)
        assert bits(population[i], x) == bits(other[i], x) == bits(alone, x)
        assert alone.evaluate(x[fold], y[fold])["accuracy"] == judged["accuracy"][i]


def test_parameters_are_one_array(spiral):
    population = fnn.Population(template(), 3)
    assert population.params.shape == (3, population[0].plan.size)
    for row, member in zip(population.params, population, strict=True):
        assert row.ctypes.data % 64 == 0 and np.shares_memory(row, member.layers[0].weight)
    row = spiral[0][-1:].astype(np.float32)
    said = [population.predict(row) for _ in range(3)]  # by the fast road, which knows addresses
    population.params *= 0.5
    assert not (population.predict(row) == said[2]).all(axis=(1, 2)).any()
    population.params = np.zeros(population.params.shape)
    assert not population[2].params.any()
    with pytest.raises(ValueError, match=r"params must have shape \(3, .*got \(3, 1\)"):
        population.params = np.zeros((3, 1))


def test_copies_are_populations(spiral):
    population = fnn.Population(template(), 2)
    population.fit(*spiral, verbose=0)
    for twin in (copy.deepcopy(population), pickle.loads(pickle.dumps(population))):
        assert np.array_equal(twin.params, population.params)
        assert np.shares_memory(twin.params[1], twin[1].params)
        twin.fit(*spiral, verbose=0)
        assert not np.array_equal(twin.params, population.params)
    alone = copy.deepcopy(population[1])
    population.fit(*spiral, verbose=0)
    alone.fit(*spiral, verbose=0)
    assert bits(alone, spiral[0]) == bits(population[1], spiral[0])


def test_an_ensemble(spiral):
    x, y = spiral
    net = fnn.Network([D(8, "tanh"), D(3, "softmax")], loss="cross_entropy", seed=0)
    population = fnn.Population(net, 4)
    with pytest.raises(AttributeError, match="input_shape"):
        population.params  # noqa: B018
    with pytest.raises(ValueError, match="no member has a history"):
        population.best()
    assert len(population.fit(x, y, epochs=2, verbose=0)) == len(population) == 4
    said = population.predict(x)
    assert said.shape == (4, 60, 3) and said.dtype == np.float32
    for one, member in zip(said, population, strict=True):
        assert np.array_equal(one, member.predict(x))
    mean, std = population.mean_and_std(x)
    np.testing.assert_allclose(mean, said.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, said.std(axis=0), rtol=1e-4, atol=1e-7)
    figures = population.evaluate(x, y)
    assert population.best("accuracy", x, y) is population[int(figures["accuracy"].argmax())]
    losses = [history.history["loss"][-1] for history in population.histories]
    assert population.best() is population[int(np.argmin(losses))]
    with pytest.raises(ValueError, match="metric must be one of loss, accuracy; got 'lost'"):
        population.best("lost")


def test_errors_say_what_and_whose(spiral):
    x, y = spiral
    for wrong, text in (
        ({"learning_rat": [1, 2]}, "name in vary must be one of learning_rate"),
        ({"learning_rate": [1]}, r"vary\['learning_rate'\] must have a value for each of 2"),
        ({"learning_rate": [1, -1]}, "member 1: learning_rate must be above 0, got -1"),
        ({"rate": [0.1, 1]}, "member 1: rate must be at least 0 and below 1, got 1"),
        ({"seed": [1, -1]}, "member 1: seed must be at least 0"),
    ):
        with pytest.raises(ValueError, match=text):
            fnn.Population(template(), 2, wrong)
    with pytest.raises(TypeError, match="network must be a Network"):
        fnn.Population([D(1)], 2)
    with pytest.raises(ValueError, match="n must be at least 1"):
        fnn.Population(template(), 0)
    population = fnn.Population(template(), 2)
    before = population.params.copy()
    for options, text in (
        ({"rows": [[1]]}, "rows must have an entry for each of 2 members, got 1"),
        ({"rows": [[1], [2, 60]]}, r"rows\[1\] must lie from 0 to 59, got 2 to 60"),
        ({"rows": [[1], []]}, r"rows\[1\] must be numbers of rows"),
        ({"rows": 3}, "rows must be a sequence, got int: 3"),
        ({"per_member": True}, "x must have an entry for each of 2 members, got 60"),
        ({"resume": True}, "no training to go on with"),
        ({"callbacks": [1]}, "callbacks must be a function"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            population.fit(x, y, **options, verbose=0)
    with pytest.raises(ValueError, match="member 1: x must hold finite numbers"):
        population.fit([x, x * np.nan], [y, y], per_member=True, verbose=0)
    assert np.array_equal(population.params, before)


def test_a_member_that_diverges_does_not_stop_the_others(spiral):
    optimizer = fnn.SGD(0.1)
    rates = [0.1, 1e30, 0.01, 1e30]
    net = fnn.Network([D(8, "relu"), D(2)], optimizer=optimizer, seed=0, input_shape=(2,))
    population = fnn.Population(net, 4, {"learning_rate": rates})
    with pytest.raises(fnn.DivergenceError, match=r"member 1: training diverged .*members 3"):
        population.fit(spiral[0], spiral[0], epochs=3, verbose=0)
    assert [history is None for history in population.histories] == [False, True, False, True]
    assert len(population.histories[2].epoch) == 3 and not population.unfinished
    assert population.best() in (population[0], population[2])


def test_another_error_stops_them_and_resume_goes_on(spiral):
    whole, cut = fnn.Population(template(), 3), fnn.Population(template(), 3, threads=1)
    whole.fit(*spiral, epochs=4, verbose=0)

    full = [True]

    def fail(epoch, logs):
        if epoch == 2 and full.pop():
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="member 1: the disk is full"):
        cut.fit(*spiral, epochs=4, verbose=0, callbacks=lambda i: [fail] * (i == 1))
    assert [member.unfinished for member in cut] == [False, True, False] and cut.unfinished
    options = {"resume": True, "callbacks": lambda i: [fail] * (i == 1), "verbose": 0}
    full.append(False)
    cut.fit(*spiral, epochs=4, **options)
    assert not cut.unfinished
    for one, other in zip(whole, cut, strict=True):
        assert bits(one, spiral[0]) == bits(other, spiral[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_all_and_resume_goes_on_to_the_same_bytes(spiral, threads):
    def interrupted(i):
        def interrupt(epoch, logs):
            if i == 2 and epoch == 5 and armed.pop():
                signal.raise_signal(signal.SIGINT)
                time.sleep(0.3)  # the main thread looks up ten times a second

        return [interrupt]

    armed = [False, True, False]
    whole, cut = (fnn.Population(template(), 6, threads=threads) for _ in range(2))
    options = {"epochs": 9, "batch_size": 6, "callbacks": interrupted, "verbose": 0}
    whole.fit(*spiral, **options)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(*spiral, **options)
    assert cut.unfinished and cut[2].unfinished and len(cut[2].history.epoch) == 6
    assert cut.predict(spiral[0]).shape == (6, 60, 3)
    cut.fit(*spiral, resume=True, **options)
    assert not cut.unfinished
    for one, other in zip(whole, cut, strict=True):
        assert bits(one, spiral[0]) == bits(other, spiral[0])


def test_what_is_shown(spiral):
    population = fnn.Population(template(), 4)
    for verbose, text in ((0, ""), (2, "member 4/4"), (1, "member 4/4: 100%")):
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            population.fit(*spiral, epochs=2, verbose=verbose)
        assert text in shown.getvalue() and bool(text) == bool(shown.getvalue())
    assert repr(population).startswith("Population(4 of Network([Dense(9, 'relu'")


def test_a_policy_evolves_on_the_cart_pole():
    from benches import cartpole

    population = fnn.Population(cartpole.policy(), 3)
    states = np.random.default_rng(0).standard_normal((5, 4))
    said = population.predict(states)
    for row, outputs in zip(population.params, said, strict=True):
        pushes = [cartpole.push(row, state) for state in states]
        np.testing.assert_allclose(pushes, outputs[:, 0], rtol=1e-4, atol=1e-6)
    if JIT:
        assert cartpole.evolve(12, told=lambda line: None)[1].mean() > 300
