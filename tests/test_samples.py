"""Predictions with dropout and noise at work: random, and the same bits wherever they are drawn."""

import numpy as np
import pytest
from test_plan import NETWORKS, build

import fastnn as fnn
from fastnn import network as network_module
from fastnn.kernels import _team

D = fnn.Dense
RANDOM = lambda: [D(9, "relu"), fnn.Dropout(0.3), fnn.BatchNorm(), D(5, "tanh")]  # noqa: E731


def network(last=(2,), **options):
    layers = [*RANDOM(), fnn.GaussianNoise(0.1), D(*last)]
    options = {"seed": 3, "input_shape": (4,), **options}
    net = fnn.Network(layers, **options)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 4)).astype(net.dtype)
    net.fit(x, rng.standard_normal((600, 2)), epochs=2, verbose=0)
    return net, x


def test_samples_are_what_the_formulas_say():
    """Of dropout alone, one block: the mask is applied by hand."""
    net = fnn.Network([fnn.Dropout(0.25)], input_shape=(5,), seed=1, dtype="float64")
    x = np.random.default_rng(0).standard_normal((200, 5))
    said = net.predict(x, samples=40)
    assert said.shape == (40, 200, 5)
    kept = said != 0
    np.testing.assert_allclose(said, np.where(kept, x / 0.75, 0), rtol=1e-15)
    assert abs(kept.mean() - 0.75) < 0.01
    assert abs(np.corrcoef(kept.reshape(40, -1))[np.triu_indices(40, 1)]).max() < 0.2
    noisy = fnn.Network([fnn.GaussianNoise(0.5)], input_shape=(5,), seed=1)
    spread = noisy.predict(x, samples=40) - x
    assert abs(spread.std() - 0.5) < 0.01 and abs(spread.mean()) < 0.01


@pytest.mark.parametrize("name", ["regularised"])
def test_both_backends_draw_the_same(name):
    fast, x, y = build(name)
    slow = build(name, backend="numpy")[0]
    fast.fit(x, y, epochs=2, verbose=0)
    slow.params = fast.params
    x = np.tile(x, (11, 1))  # more than one block
    a, b = fast.predict(x, samples=3), slow.predict(x, samples=3)
    np.testing.assert_allclose(a, b, rtol=1e-9)
    np.testing.assert_allclose(a.sum(axis=2), 1)  # the last activation is there
    assert not np.array_equal(a[0], a[1])
    alike = np.repeat(x[:1], 550, axis=0)
    a, b = fast.predict(alike, samples=2), slow.predict(alike, samples=2)
    np.testing.assert_allclose(a, b, rtol=1e-9)
    assert not np.array_equal(a[:, :38], a[:, 512:])  # blocks draw numbers of their own


def test_any_threads_any_number_and_any_time_give_the_same_bits():
    net, x = network()
    want = net.predict(x, samples=5)
    before = net.params.tobytes(), int(net._rule["step"][0])
    for threads in (1, 2, 3, 4) if _team.AVAILABLE else (1,):
        net.threads = threads
        assert np.array_equal(net.predict(x, samples=5), want)
    assert np.array_equal(net.predict(x, samples=2), want[:2])
    half = x.astype(np.float16)  # is converted on its way
    same = net.predict(half.astype(np.float32), samples=2)
    assert np.array_equal(net.predict(half, samples=2), same)
    assert before == (net.params.tobytes(), int(net._rule["step"][0]))
    calm = net.predict(x[:3])
    net.predict(x[:3], samples=2)
    assert np.array_equal(net.predict(x[:3]), calm)  # the fast road is as it was
    other, _ = network(seed=4)
    other.params = net.params
    assert not np.array_equal(other.predict(x, samples=5), want)


def test_pieces_of_many_rows_do_not_depend_on_threads(monkeypatch):
    """As they come where networks are wide; without samples each thread has a block of a piece."""
    monkeypatch.setattr(network_module, "_PIECE", 1)
    net, x = network()
    x = np.repeat(x, 3, axis=0)
    seen = []
    for threads in (1, 2, 3) if _team.AVAILABLE else (1,):
        net.threads = threads
        pieces = [*network_module._row_slices(len(x), net.plan, threads)]
        assert {len(rows) for rows in pieces[:-1]} == {256 * threads}
        assert np.array_equal(np.concatenate(pieces), np.arange(len(x)))
        seen.append((net.predict(x, samples=2).tobytes(), net.predict(x).tobytes()))
    assert len(set(seen)) == 1


def test_running_means_are_at_rest():
    """A row's sample does not depend on the rows beside it, as it would by the batch's means."""
    net, x = network()
    want = net.predict(x[:40], samples=3)
    other = x[:40].copy()
    other[1:] *= 100
    assert np.array_equal(net.predict(other, samples=3)[:, 0], want[:, 0])


def test_what_cannot_be_sampled():
    net, x = network()
    for samples, text in ((0, "samples must be at least 1, got 0"), (1.5, "a whole number")):
        with pytest.raises((TypeError, ValueError), match=text):
            net.predict(x, samples=samples)
    with pytest.raises(ValueError, match="x must hold finite numbers"):
        net.predict(x * np.nan, samples=2)
    with pytest.raises(ValueError, match="Dropout or GaussianNoise: this network has none"):
        fnn.Network([D(1)], input_shape=(4,)).predict(x, samples=2)


def test_every_network_can_or_says_why():
    for name in NETWORKS:
        net, x, _ = build(name)
        if any(isinstance(layer, fnn.Dropout) for layer in net.layers):
            assert net.predict(x, samples=2).shape == (2, *net.predict(x).shape)
        else:
            with pytest.raises(ValueError, match="samples needs a layer"):
                net.predict(x, samples=2)
