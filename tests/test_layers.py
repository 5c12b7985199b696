"""Layers beside Dense: what they promise, against torch, for any threads."""

import copy

import numpy as np
import pytest

import fastnn as fnn


def build(layers, shape, **options):
    options = {"dtype": "float64", "seed": 3, "loss": "mse", **options}
    return fnn.Network(layers, input_shape=shape, **options)


def data(rows=24, columns=5):
    rng = np.random.default_rng(1)
    return 3 * rng.standard_normal((rows, columns)) + 1, rng.standard_normal((rows, columns))


def randomised(net):
    """The same network with other weights and biases than 1 and 0."""
    rng = np.random.default_rng(5)
    for parameter in net.plan.parameters:
        if parameter.name in ("weight", "bias"):
            parameter.of(net.params)[...] += 0.5 * rng.standard_normal(parameter.shape)
    return net


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize(
    ("layer", "twin"),
    [
        (lambda: fnn.BatchNorm(0.9, 1e-5), lambda torch: torch.nn.BatchNorm1d(5, eps=1e-5)),
        (lambda: fnn.LayerNorm(), lambda torch: torch.nn.LayerNorm(5)),
    ],
    ids=["BatchNorm", "LayerNorm"],
)
def test_normalization_agrees_with_torch(layer, twin, backend):
    torch = pytest.importorskip("torch")
    x, y = data()
    net = randomised(build([layer()], (5,), backend=backend))
    other = twin(torch).double()
    with torch.no_grad():
        other.weight.copy_(torch.tensor(net.layers[0].weight))
        other.bias.copy_(torch.tensor(net.layers[0].bias))
    taken = torch.tensor(x, requires_grad=True)
    torch.nn.functional.mse_loss(other(taken), torch.tensor(y)).backward()
    got = net.gradients(x, y)
    for name, want in (("x", taken), ("0.weight", other.weight), ("0.bias", other.bias)):
        np.testing.assert_allclose(got[name], want.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_trap_12_running_means_of_batch_norm(backend):
    """Momentum is the old value's share, variances are biased, one update a step of fit alone."""
    x, y = data()
    net = build([fnn.BatchNorm(0.75), fnn.Dense(5)], (5,), backend=backend)
    net.gradients(x, y), net.evaluate(x, y), net.predict(x)
    np.testing.assert_array_equal(net.layers[0].running_mean, 0)
    np.testing.assert_array_equal(net.layers[0].running_var, 1)
    mean, var = np.zeros(5), np.ones(5)
    net.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for rows in (x[:8], x[8:16], x[16:]):
        mean = 0.75 * mean + 0.25 * rows.mean(axis=0)
        var = 0.75 * var + 0.25 * rows.var(axis=0)
    np.testing.assert_allclose(net.layers[0].running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(net.layers[0].running_var, var, rtol=1e-12)
    layer = net.layers[0]
    normal = (x - mean) / np.sqrt(var + 1e-3) * layer.weight + layer.bias
    want = normal @ net.layers[1].weight + net.layers[1].bias
    np.testing.assert_allclose(net.predict(x), want, rtol=1e-9)


def test_batch_norm_of_a_single_row_is_its_bias():
    net = randomised(build([fnn.BatchNorm()], (5,)))
    before = net.layers[0].bias.copy()
    x, y = data(1)
    gradient = net.gradients(x, y)
    np.testing.assert_allclose(gradient["0.bias"], 2 * (before - y[0]) / 5, rtol=1e-12)
    np.testing.assert_array_equal(gradient["x"], 0)


def test_batch_norm_has_the_same_bits_for_any_number_of_threads():
    x, y = data(60, 9)
    results = set()
    for threads in (1, 2, 3, 4, 8):
        layers = [fnn.Dense(33, use_bias=False), fnn.BatchNorm(), fnn.Activation("relu")]
        net = build([*layers, fnn.LayerNorm(), fnn.Dense(9)], (9,), threads=threads)
        net.fit(x, y, epochs=3, batch_size=24, verbose=0)
        results.add(net.params.tobytes() + net.predict(x).tobytes())
    assert len(results) == 1


def test_embedding_looks_up_and_learns_its_rows_alone():
    torch = pytest.importorskip("torch")
    x = np.array([[0, 3], [3, 3], [1, 0]])
    y = np.arange(12.0).reshape(3, 4)
    net = build([fnn.Embedding(5, 2)], (2,))
    table = torch.tensor(net.layers[0].weight, requires_grad=True)
    torch.nn.functional.mse_loss(table[torch.tensor(x)].reshape(3, 4), torch.tensor(y)).backward()
    np.testing.assert_array_equal(net.predict(x), net.layers[0].weight[x].reshape(3, 4))
    np.testing.assert_allclose(net.gradients(x, y)["0.weight"], table.grad, rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "message"),
    [(5, "from 0 to 4 .*got 5"), (-1, "got -1"), (0.5, "whole numbers .*got fractions")],
)
def test_embedding_refuses_what_is_not_in_its_table(value, message):
    net = build([fnn.Embedding(5, 2)], (2,))
    x = np.array([[0, value]])
    for call in (net.predict, lambda x: net.fit(x, np.zeros((1, 4)), verbose=0)):
        with pytest.raises(ValueError, match=message):
            call(x)


def test_normalization_is_part_of_the_network():
    x, y = data()
    net = build([fnn.Normalization().adapt(x), fnn.Dense(5)], (5,))
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    want = scaled @ net.layers[1].weight + net.layers[1].bias
    np.testing.assert_allclose(net.predict(x), want, rtol=1e-9)
    before = net.layers[0].weight.copy()
    net.fit(x, y, verbose=0)
    np.testing.assert_array_equal(net.layers[0].weight, before)
    net.layers[0].adapt(2 * x)
    np.testing.assert_allclose(net.layers[0].weight, before / 2, rtol=1e-12)
    with pytest.raises(ValueError, match=r"call adapt\(x\)"):
        build([fnn.Normalization()], (5,))
    with pytest.raises(ValueError, match="adapted to 5 columns, got 3"):
        build([fnn.Normalization().adapt(x)], (3,))


def test_shapes():
    x = np.arange(48.0).reshape(4, 3, 4)
    net = build([fnn.Rescaling(2.0), fnn.Flatten(), fnn.Dense(6), fnn.Reshape((2, 3))], (3, 4))
    flat = build([fnn.Dense(6)], (12,))
    flat.params = net.params
    np.testing.assert_array_equal(net.predict(x).reshape(4, 6), flat.predict(2 * x.reshape(4, 12)))
    y = np.zeros((4, 2, 3))
    assert (
        net.evaluate(x, y)["loss"] == flat.evaluate(2 * x.reshape(4, 12), y.reshape(4, 6))["loss"]
    )
    assert net.gradients(x, y)["x"].shape == x.shape
    lazy = fnn.Network([fnn.Flatten(), fnn.Dense(2)], seed=0)
    lazy.fit(x, np.zeros((4, 2)), verbose=0)
    assert lazy.plan.in_shape == (3, 4)
    with pytest.raises(ValueError, match=r"Dense\(2\) needs flat samples, got \(3, 4\); put Flat"):
        build([fnn.Dense(2)], (3, 4))
    with pytest.raises(ValueError, match=r"Reshape\(\(5,\)\) needs 5 values, got \(3, 4\)"):
        build([fnn.Reshape((5,))], (3, 4))
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3, 4\), got \(4, 12\)"):
        net.predict(x.reshape(4, 12))


def test_copies_keep_everything():
    x, y = data()
    layers = [fnn.Normalization().adapt(x), fnn.Dense(4, weight_l2=0.1), fnn.BatchNorm()]
    net = build([*layers, fnn.Dropout(0.2), fnn.Dense(5)], (5,))
    net.fit(x, y, verbose=0)
    twin = copy.deepcopy(net)
    for each in (net, twin):
        each.fit(x, y, epochs=2, verbose=0)
    assert net.params.tobytes() == twin.params.tobytes()
