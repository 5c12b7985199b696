"""Penalties, limits, constraints, noise and weights of rows: formula, both paths, any threads."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn.kernels.penalties import BESIDE

LAYERS = {
    "penalties": lambda: [fnn.Dense(6, "tanh", weight_l2=0.02, bias_l1=0.03), fnn.Dense(3)],
    "noise": lambda: [fnn.Dense(6, "tanh"), fnn.Dropout(0.4), fnn.GaussianNoise(0.2), fnn.Dense(3)],
    "constraints": lambda: [fnn.Dense(6, max_norm=0.5), fnn.Dense(3, non_negative=True)],
    "no bias": lambda: [fnn.Dense(6, "relu", use_bias=False), fnn.Dense(3, use_bias=False)],
    "frozen": lambda: [fnn.Dense(6, "tanh", trainable=False), fnn.Dense(3)],
}


def problem(rows=40):
    rng = np.random.default_rng(3)
    return rng.standard_normal((rows, 4)), rng.standard_normal((rows, 3))


def build(layers, loss="mse", optimizer=None, **options):
    options = {"dtype": "float64", "seed": 2, "input_shape": (4,), **options}
    return fnn.Network(layers, loss=loss, optimizer=optimizer or fnn.Adam(0.02), **options)


def total_loss(net, x, y):
    """Mean loss and penalties, by formulas of their own."""
    layers = [layer for layer in net.layers if isinstance(layer, fnn.Dense)]
    penalties = sum(
        layer.weight_l1 * np.abs(layer.weight).sum() + layer.weight_l2 * (layer.weight**2).sum()
        for layer in layers
    ) + sum(
        layer.bias_l1 * np.abs(layer.bias).sum() + layer.bias_l2 * (layer.bias**2).sum()
        for layer in layers
        if layer.use_bias
    )
    return net.evaluate(x, y)["loss"] + penalties


@pytest.mark.parametrize("name", LAYERS)
def test_every_number_of_threads_gives_the_same_bits(name):
    x, y = problem()
    results = set()
    for threads in (1, 2, 3, 8):
        net = build(LAYERS[name](), threads=threads)
        net.optimizer.global_clip_norm = 0.3
        net.fit(x, y, epochs=3, batch_size=16, verbose=0)
        results.add(net.params.tobytes() + net.predict(x).tobytes())
    assert len(results) == 1


def test_a_step_makes_only_what_it_has_a_use_for():
    """And nothing else is compiled; a setting that is taken back leaves nothing behind."""
    x, y = problem()
    net = build([fnn.Dense(6, "tanh"), fnn.Dense(3)])
    dense, optimizer = net.layers[0], net.optimizer
    for owner, setting, value, off, names in [
        (dense, "weight_l2", 0.01, 0.0, {"weigh", "penalize"}),
        (dense, "max_norm", 0.5, 0.0, {"constrain"}),
        (optimizer, "clip_value", 0.5, None, {"penalize"}),
        (optimizer, "clip_norm", 0.5, None, {"limit", "rescale"}),
        (optimizer, "global_clip_norm", 0.5, None, {"limit", "rescale"}),
        (optimizer, "ema", 0.0, None, {"average"}),
    ]:
        for now, expected in ((value, names), (off, set())):
            setattr(owner, setting, now)
            net.fit(x, y, verbose=0)
            assert {name for name in BESIDE if net._rule[name][0]} == expected


@pytest.mark.parametrize("clip", ["clip_value", "clip_norm", "global_clip_norm"])
@pytest.mark.parametrize("name", LAYERS)
def test_compiled_and_numpy_paths_agree(name, clip):
    x, y = problem()
    nets = [build(LAYERS[name](), backend=backend) for backend in ("compiled", "numpy")]
    for net in nets:
        setattr(net.optimizer, clip, 0.05)
        net.fit(x, y, epochs=5, batch_size=16, verbose=0, sample_weight=np.linspace(0, 2, len(x)))
    np.testing.assert_allclose(nets[0].params, nets[1].params, rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_loss_and_penalties():
    x, y = problem()
    layers = [
        fnn.Dense(5, "tanh", weight_l1=0.1, weight_l2=0.2, bias_l1=0.3, bias_l2=0.4),
        fnn.Dense(3, weight_l2=0.5, use_bias=False),
    ]
    net = build(layers)
    net.layers[0].bias[...] = np.linspace(-1, 1, 5) + 0.1
    got = net.gradients(x, y)
    for parameter in net.plan.parameters:
        view, slopes = parameter.of(net.params), np.zeros(parameter.shape)
        for place in np.ndindex(view.shape):
            middle, sides = view[place], []
            for step in (1e-6, -1e-6):
                view[place] = middle + step
                sides.append(total_loss(net, x, y))
            view[place] = middle
            slopes[place] = (sides[0] - sides[1]) / 2e-6
        np.testing.assert_allclose(got[parameter.title], slopes, rtol=1e-6, atol=1e-8)


def test_history_shows_data_loss_and_penalties_apart():
    x, y = problem()
    net = build([fnn.Dense(3, weight_l2=0.1)], optimizer=fnn.SGD(1e-12))
    want = total_loss(net, x, y)
    history = net.fit(x, y, batch_size=7, verbose=0).history
    assert history["loss"][0] == pytest.approx(want, rel=1e-9)
    assert history["regularization_loss"][0] == pytest.approx(
        0.1 * (net.layers[0].weight ** 2).sum(), rel=1e-9
    )
    assert history["data_loss"][0] == pytest.approx(net.evaluate(x, y)["loss"], rel=1e-9)
    assert "data_loss" not in build([fnn.Dense(3)]).fit(x, y, verbose=0).history


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_trap_9_the_slope_of_l1_is_zero_at_zero(backend):
    x, y = problem()
    net = build([fnn.Dense(3, weight_l1=5.0, bias_l1=5.0)], backend=backend)
    plain = build([fnn.Dense(3)], backend=backend)
    net.params[...] = plain.params[...] = 0
    want = plain.gradients(x, y)
    for name, got in net.gradients(x, y).items():
        np.testing.assert_array_equal(got, want[name])


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_trap_11_dropout(backend):
    """Kept values scaled up, the same mask backward, another one each step, identity elsewhere."""
    x = np.ones((64, 4))
    layers = [fnn.Dropout(0.25), fnn.Dense(3)]
    net = build(layers, backend=backend, optimizer=fnn.SGD(1e-9))
    np.testing.assert_array_equal(net.predict(x), x @ net.layers[1].weight + net.layers[1].bias)
    first = net.gradients(x, np.zeros((64, 3)))
    again = net.gradients(x, np.zeros((64, 3)))
    np.testing.assert_array_equal(first["x"], again["x"])
    dropped = first["x"] == 0
    assert 0.15 < dropped.mean() < 0.35 and len(np.unique(dropped, axis=0)) > 5
    # What reaches a kept input is what would without dropout of the same outputs, scaled.
    seen = np.where(dropped, 0, 1 / 0.75)
    out = seen @ net.layers[1].weight + net.layers[1].bias
    want = (2 * out / out.size) @ net.layers[1].weight.T * seen
    np.testing.assert_allclose(first["x"], want, rtol=1e-9)
    net.fit(x, np.zeros((64, 3)), batch_size=64, verbose=0)
    assert (net.gradients(x, np.zeros((64, 3)))["x"] == 0).tolist() != dropped.tolist()
    with pytest.raises(ValueError, match=r"rate must be .*below 1"):
        fnn.Dropout(1.0)


def test_dropout_layers_and_seeds_draw_differently():
    x = np.ones((32, 4))
    masks = []
    for seed in (1, 2):
        net = build([fnn.Dropout(0.5), fnn.Activation("linear"), fnn.Dropout(0.5)], seed=seed)
        net.gradients(x, np.zeros((32, 4)))
        buffers = net._training_buffers(32, 1)
        terms = net.plan.terms(net.layers)
        pair = net._pair(x, np.zeros((32, 4)))[0]
        net._engine().gradients(net.plan, "", net._rule, terms, pair, buffers, 32, np.arange(32), 1)
        places = [row.kept * 32 for row in net.plan.rows if row.kept]
        masks += [buffers.work[place : place + 128].tobytes() for place in places]
    assert len(set(masks)) == 4


def test_noise_is_normal():
    x = np.zeros((4000, 5))
    net = build([fnn.GaussianNoise(2.0)], input_shape=(5,))
    out = net.gradients(x, x)["x"] * x.size / 2  # derivative of the mean square
    assert abs(out.mean()) < 0.05 and abs(out.std() - 2) < 0.05
    assert abs((out**4).mean() / out.var() ** 2 - 3) < 0.2


def test_a_layer_that_is_not_trainable_stays_and_can_be_set_free():
    x, y = problem()
    net = build([fnn.Dense(6, "tanh", trainable=False), fnn.Dense(3)])
    before = net.params.copy()
    net.fit(x, y, epochs=2, verbose=0)
    first = net.plan.parameters[1].offset + 6
    np.testing.assert_array_equal(net.params[:first], before[:first])
    assert (net.params[first:] != before[first:]).any()
    net.layers[0].trainable = True
    net.fit(x, y, epochs=1, verbose=0)
    assert (net.params[:first] != before[:first]).any()


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_limits_of_the_gradient(backend):
    x, y = problem()

    def step(**limit):
        net = build([fnn.Dense(3)], backend=backend, optimizer=fnn.SGD(1.0))
        for name, value in limit.items():
            setattr(net.optimizer, name, value)
        gradients, before = net.gradients(x, 100 * y), net.params.copy()
        net.fit(x, 100 * y, batch_size=len(x), verbose=0)
        flat = np.concatenate([gradients["0.weight"].ravel(), gradients["0.bias"]])
        return before - net.params, flat

    moved, gradient = step(clip_value=0.5)
    np.testing.assert_allclose(moved, np.clip(gradient, -0.5, 0.5), rtol=1e-9)
    moved, gradient = step(clip_norm=0.5)
    for part in (slice(0, 12), slice(12, 15)):
        np.testing.assert_allclose(
            moved[part], gradient[part] * 0.5 / np.linalg.norm(gradient[part]), rtol=1e-9
        )
    moved, gradient = step(global_clip_norm=0.5)
    np.testing.assert_allclose(moved, gradient * 0.5 / np.linalg.norm(gradient), rtol=1e-9)


def test_constraints_hold_after_training():
    x, y = problem()
    net = build([fnn.Dense(6, max_norm=0.5), fnn.Dense(3, non_negative=True)])
    net.fit(x, y, epochs=5, verbose=0)
    assert np.linalg.norm(net.layers[0].weight, axis=0).max() <= 0.5 * (1 + 1e-12)
    assert net.layers[1].weight.min() >= 0


@pytest.mark.parametrize("loss", ["mse", "mae", "quadratic", "cross_entropy"])
def test_a_row_of_weight_two_is_a_row_given_twice(loss):
    x, y = problem()
    y = np.abs(y) / np.abs(y).sum(axis=1, keepdims=True)
    weight = np.random.default_rng(0).integers(0, 3, len(x))
    last = "softmax" if loss == "cross_entropy" else "linear"
    net = build([fnn.Dense(3, last)], loss=loss)
    got = net.gradients(x, y, sample_weight=weight)
    want = net.gradients(np.repeat(x, weight, axis=0), np.repeat(y, weight, axis=0))
    share = weight.sum() / len(x)
    np.testing.assert_allclose(got["0.weight"], want["0.weight"] * share, rtol=1e-9)
    repeated = net.evaluate(np.repeat(x, weight, axis=0), np.repeat(y, weight, axis=0))["loss"]
    assert net.evaluate(x, y, sample_weight=weight)["loss"] == pytest.approx(repeated * share)


def test_class_weights():
    utils = pytest.importorskip("sklearn.utils.class_weight")
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((60, 4)), rng.choice(3, 60, p=[0.6, 0.3, 0.1])
    balanced = utils.compute_class_weight("balanced", classes=np.arange(3), y=labels)

    def trained(**weights):
        net = build([fnn.Dense(3, "softmax")], loss="cross_entropy")
        net.fit(x, labels, epochs=2, verbose=0, **weights)
        return net.params.tobytes()

    want = trained(sample_weight=balanced[labels])
    assert trained(class_weight="balanced") == want
    assert trained(class_weight=dict(enumerate(balanced))) == want
    assert trained(class_weight="balanced", sample_weight=np.ones(60)) == want != trained()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(3)}, r"sample_weight must have shape \(40,\), got \(3,\)"),
        ({"sample_weight": -np.ones(40)}, "sample_weight must be at least 0, got -1"),
        ({"sample_weight": np.full(40, np.nan)}, "sample_weight must hold finite numbers"),
        ({"class_weight": "balanced"}, "class_weight needs class labels"),
    ],
)
def test_weights_that_do_not_fit(options, message):
    x, y = problem()
    net = build([fnn.Dense(3)])
    before = net.params.copy()
    with pytest.raises(ValueError, match=message):
        net.fit(x, y, verbose=0, **options)
    np.testing.assert_array_equal(net.params, before)


def test_class_weights_that_do_not_fit():
    x, _ = problem()
    net = build([fnn.Dense(3, "softmax")], loss="cross_entropy")
    labels = np.arange(40) % 3
    for given, message in (
        ({3: 1.0}, "labels go from 0 to 2, got 3"),
        ({0: -1.0}, r"class_weight\[0\] must be"),
        ("even", "must be 'balanced' or a dict"),
    ):
        with pytest.raises(ValueError, match=message):
            net.fit(x, labels, class_weight=given, verbose=0)
    with pytest.raises(TypeError, match="must be 'balanced' or a dict"):
        net.fit(x, labels, class_weight=[1, 2, 3], verbose=0)
