"""Looking inside: what is shown is what runs, and looking changes nothing."""

import copy
import json
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest
from test_plan import NETWORKS, OPTIMIZERS, build

import fastnn as fnn
from fastnn import plot
from fastnn.callbacks import Inspect
from fastnn.explain import page

D = fnn.Dense


def leaky(alpha):
    return fnn.Activation("leaky_relu", alpha=alpha)


# -- activations


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_against_plain_numpy(backend, dtype):
    """Every rectifier shows what went in and what came out, applied by the product or not."""
    layers = [
        fnn.Input((2, 3), scale=0.5, offset=1.0),
        fnn.Flatten(),
        fnn.BatchNorm(),
        *(D(5, "relu"), D(4), fnn.Activation("relu"), fnn.Dropout(0.5), D(4, leaky(0.1))),
        *(D(6, "tanh"), fnn.Reshape((3, 2)), fnn.Flatten(), D(3, "softmax")),
    ]
    net = fnn.Network(layers, loss="cross_entropy", seed=0, dtype=dtype, backend=backend)
    rng = np.random.default_rng(0)
    net.params = rng.standard_normal(net.params.size) ** 2 * rng.choice([-1, 1], net.params.size)
    net.layers[1].running_var[:] **= 2
    x = rng.standard_normal((37, 2, 3))
    want = {"x": (a := x * 0.5 + 1)}
    want["0.flatten"] = a = a.reshape(37, 6)
    n = net.layers[1]
    a = (a - n.running_mean) / np.sqrt(n.running_var + n.epsilon) * n.weight + n.bias
    want["1.batch_norm"] = a
    for number, name, bend in (
        (2, "relu", lambda s: np.maximum(s, 0)),
        (3, "", None),
        (4, "relu", lambda s: np.maximum(s, 0)),
        (5, "dropout", lambda s: s),
        (6, "leaky_relu", lambda s: np.where(s > 0, s, 0.1 * s)),
        (7, "tanh", np.tanh),
    ):
        if isinstance(net.layers[number], D):
            want[f"{number}.dense"] = a = a @ net.layers[number].weight + net.layers[number].bias
        if name:
            want[f"{number}.{name}"] = a = bend(a)
    want["8.reshape"], want["9.flatten"] = a.reshape(37, 3, 2), a
    want["10.dense"] = a = a @ net.layers[10].weight + net.layers[10].bias
    e = np.exp(a - a.max(axis=1, keepdims=True))
    want["10.softmax"] = e / e.sum(axis=1, keepdims=True)
    got = net.activations(x)
    assert list(got) == list(want)
    for name in want:
        assert got[name].dtype == net.dtype
        scale = np.abs(want[name]).max()
        tolerance = {"float32": 2e-4, "float64": 1e-12}[dtype]
        np.testing.assert_allclose(got[name], want[name], atol=tolerance * scale, err_msg=name)
    assert np.array_equal(got["10.softmax"], net.predict(x))
    assert not any(np.shares_memory(a, b) for a, b in combinations(got.values(), 2))


def test_every_name_has_its_page():
    layers = [fnn.Flatten(), fnn.BatchNorm(), D(2, "relu"), fnn.Reshape((2, 1))]
    net = fnn.Network(layers, input_shape=(2, 3), backend="numpy")
    for name in list(net.activations(np.ones((1, 2, 3))))[1:]:
        assert page(name.partition(".")[2])


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_end_in_the_prediction(name):
    net, x, y = build(name)
    net.fit(x, y, epochs=2, verbose=0)
    state = net.params.tobytes(), net._state.tobytes()
    seen = net.activations(x)
    out = net.predict(x)
    assert np.array_equal(list(seen.values())[-1], out)
    assert (net.params.tobytes(), net._state.tobytes()) == state
    list(seen.values())[-1][...] = 7  # copies: nothing else becomes 7
    assert np.array_equal(net.predict(x), out)
    slow = copy.deepcopy(net)
    slow.backend = "numpy"
    for key, values in slow.activations(x).items():
        np.testing.assert_allclose(net.activations(x)[key], values, rtol=1e-9, atol=1e-12)


def test_activations_refuse_what_predict_refuses():
    net = build("classes")[0]
    for wrong, message in (([[1.0]], "x must have shape"), ([[np.nan, 1.0]], "finite")):
        with pytest.raises(ValueError, match=message):
            net.activations(wrong)
    with pytest.raises(AttributeError, match="input_shape"):
        fnn.Network([D(1)]).activations([[1.0]])


def test_an_unfused_plan_moves_no_region():
    """What is random depends on where it lies."""
    net = build("rectifiers")[0]
    plan, unfused = net.plan, net.plan.unfused()
    assert len(plan.applied) == 2 and not unfused.applied
    assert len(unfused.rows) == len(plan.rows) + 2
    kept = {row.out for row in plan.rows}
    added = [r.out for r in unfused.rows if r.out not in kept]
    assert added == [plan.row_size, plan.row_size + 9] and unfused.row_size == added[1] + 6
    assert [row.layer for row in unfused.rows] == sorted(
        (row.layer for row in unfused.rows), key=lambda n: n if n >= 0 else 100 - n
    )
    apart = fnn.Network(
        [D(2), fnn.Flatten(), fnn.Activation("relu"), D(1)], input_shape=(2,)
    ).plan.unfused()
    assert [int(row.layer) for row in apart.rows][:3] == [0, 2, 3]


# -- step_through


def walked(moments):
    """What was written in the phase of gradients, under the names of `Network.gradients`."""
    found = {}
    for moment in moments:
        if moment.phase == "gradient":
            for name, array in moment.writes.items():
                title = f"{moment.layer}.{name.removeprefix('grad_')}"
                found[moment.layer if name == "grad" else title] = array
        if moment.phase == "backward":
            found["x"] = moment.writes["grad_x"]  # the first layer's comes last
    return found


@pytest.mark.parametrize(
    ("name", "backend"), [(name, "numpy") for name in NETWORKS] + [("regularised", "compiled")]
)
def test_a_step_in_slow_motion_adds_up_to_the_gradients(name, backend):
    net, x, y = build(name, backend=backend)
    net.fit(x, y, epochs=1, batch_size=20, verbose=0)
    weights = np.linspace(0, 2, len(x))
    for options in ({}, {"sample_weight": weights}):
        want = net.gradients(x, y, **options)
        got = walked(net.step_through(x, y, **options))
        assert set(got) <= set(want)
        for title, gradient in want.items():
            if title not in got or got[title].size != gradient.size:
                assert not gradient.any(), title  # not trainable, or an embedding's input
                continue
            found = got[title].reshape(gradient.shape)  # flat samples may have become images
            if backend == "numpy":
                assert np.array_equal(found, gradient), title
            else:
                np.testing.assert_allclose(found, gradient, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [(name, "adam") for name in NETWORKS] + [("regularised", name) for name in OPTIMIZERS],
)
def test_a_step_in_slow_motion_is_the_next_step_of_training(name, optimizer):
    """To the bit; also with limits for gradients, penalties, constraints and running means."""
    net, x, y = build(name, optimizer, backend="numpy")
    net.fit(x, y, epochs=2, batch_size=20, verbose=0)
    limit = "clip_value" if optimizer == "adam" else "global_clip_norm"
    setattr(net.optimizer, limit, 0.05)
    before = net.params.tobytes(), net._state.tobytes(), net._rule.tobytes()
    moments = list(net.step_through(x, y))
    assert before == (net.params.tobytes(), net._state.tobytes(), net._rule.tobytes())
    after = net.state_dict()
    for moment in moments:
        for key, array in moment.writes.items():
            if key == "param":
                after[moment.layer] = array
            elif key.startswith("running_"):
                after[f"{moment.layer}.{key}"] = array
    net.fit(x, y, epochs=1, batch_size=len(x), shuffle=False, verbose=0)
    for title, array in net.state_dict().items():
        assert np.array_equal(after[title], array), title


def test_what_a_moment_shows():
    net, x, y = build("rectifiers", "momentum", dtype="float32")
    moments = list(net.step_through(x, y))
    ways = [(m.phase, m.layer, m.name) for m in moments]
    assert ways[:4] == [
        *(("forward", "0", "relu"), ("forward", "1", "dense"), ("forward", "1", "relu")),
        ("forward", "2", "dense"),
    ]
    phases = [m.phase for m in moments]
    assert phases == sorted(phases, key=["forward", "backward", "gradient", "update"].index)
    forward = [m for m in moments if m.phase == "forward"]
    for earlier, later in pairwise(forward):
        assert np.array_equal(earlier.writes["out"], later.reads["x"])
    relu = forward[2]
    assert relu.formula == "out = max(x, 0)" and relu.reads["x"].shape == (50, 9)
    assert (relu.reads["x"] < 0).any() and not (relu.writes["out"] < 0).any()
    for moment in moments:
        text = str(moment)
        assert text.startswith(f"{moment.phase}, {moment.layer} {moment.name}: ")
        assert moment.formula and "Source" not in text and "alpha where" not in text
        assert max(map(len, text.splitlines())) <= 120
        if moment.name == "dense":
            assert set(moment.reads) <= {"x", "weight", "bias", "grad_out"}
        for name, value in (moment.reads | moment.writes).items():
            assert f" {name} " in text
            assert not np.ndim(value) or value.dtype == np.float32
    update = moments[-1]
    assert (update.phase, update.layer, update.name) == ("update", "6.bias", "momentum")
    assert not np.array_equal(update.reads["velocity"], update.writes["velocity"])


def test_step_through_leaves_out_what_is_not_there():
    net, x, y = build("regularised")
    shown = {n for m in net.step_through(x, y) if m.layer == "2" for n in (*m.reads, *m.writes)}
    assert "weight" in shown and not shown & {"bias", "grad_bias"}
    net.optimizer = "lbfgs"
    assert {m.phase for m in net.step_through(x, y)} == {"forward", "backward", "gradient"}
    with pytest.raises(ValueError, match="as many rows"):
        net.step_through(x, y[:3])
    perceptron = fnn.Network([D(1, "step")], input_shape=(2,))
    with pytest.raises(ValueError, match="step has no gradient"):
        perceptron.step_through([[1.0, 2.0]], [[1.0]])


# -- Inspect


def random_net(**options):
    layers = [D(8, "relu"), fnn.Dropout(0.3), fnn.BatchNorm(), D(6, "tanh"), D(3, "softmax")]
    return fnn.Network(layers, loss="cross_entropy", seed=0, **options)


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_inspect_changes_no_bit_of_a_training(backend):
    x, y = fnn.datasets.spiral(20)
    nets = [random_net(backend=backend) for _ in range(2)]
    watch = Inspect(x[:30], y[:30])
    for net, callbacks in zip(nets, ([], [watch]), strict=True):
        net.fit(x, y, epochs=4, batch_size=16, callbacks=callbacks, verbose=0)
    assert nets[0].params.tobytes() == nets[1].params.tobytes()
    assert nets[0]._state.tobytes() == nets[1]._state.tobytes()
    assert nets[0]._rule.tobytes() == nets[1]._rule.tobytes()
    assert watch.history["epoch"] == [0, 1, 2, 3]


def test_what_inspect_finds():
    """Against numpy, on a network whose units are dead and saturated by hand."""
    layers = [D(4, "relu"), D(4, "sigmoid"), D(4, "tanh"), D(2)]
    x, y = np.full((10, 1), 1.0), np.zeros((10, 2))
    x[5:] = 2
    net = fnn.Network(layers, optimizer=fnn.SGD(1e-12), input_shape=(1,), seed=0, dtype="float64")
    net.layers[0].weight = [[1, -1, 0, 1]]
    net.layers[0].bias = [0, 0, 0, -1.5]  # alive, dead, dead, alive for some rows
    net.layers[1].weight[...] = 0
    net.layers[1].bias = [4.59, 4.60, -4.59, -4.60]  # sigmoid(4.5951) is 0.99
    net.layers[2].weight[...] = 0
    net.layers[2].bias = [2.29, 2.30, -2.30, -99]  # tanh(2.2976) is 0.98
    watch = Inspect(x, y, every=2)
    net.fit(x, y, epochs=4, callbacks=[watch], verbose=0)
    history, gradients = watch.history, net.gradients(x, y)
    assert history["epoch"] == [0, 2] and {len(values) for values in history.values()} == {2}
    assert history["0.dead"] == [0.5, 0.5]
    assert history["1.saturated"] == [0.5, 0.5] and history["2.saturated"] == [0.75, 0.75]
    assert not {"1.dead", "0.saturated", "3.dead"} & set(history)
    seen = net.activations(x)
    for number in range(4):
        both = [gradients[f"{number}.weight"].ravel(), gradients[f"{number}.bias"]]
        length = np.sqrt((np.concatenate(both) ** 2).sum())
        assert history[f"{number}.gradient"][1] == pytest.approx(length, rel=1e-6)
        (*_, last) = (a for name, a in seen.items() if name[0] == str(number))
        assert history[f"{number}.size"][1] == pytest.approx(np.sqrt((last**2).mean()), rel=1e-6)
    assert json.loads(json.dumps(watch.state())) == {"history": history}
    assert watch.table().splitlines()[1].split()[:3] == ["0", "Dense(4,", "'relu')"]
    assert "50% -> 50%" in watch.table().splitlines()[1]
    assert watch.table().splitlines()[0].startswith("epoch 0 -> 2")


def test_inspect_begins_anew_and_goes_on():
    x, y = fnn.datasets.spiral(20)
    watch, net = Inspect(x, y), random_net()
    assert watch.table() == "nothing recorded yet"
    for _ in range(2):
        net.fit(x, y, epochs=2, callbacks=watch, verbose=0)
        assert watch.history["epoch"] == [0, 1]
    state = json.loads(json.dumps(watch.state()))
    other = Inspect(x, y)
    other.network = net
    other.resume(state)
    assert other.table() == watch.table()
    other.on_epoch_end(2, {})
    assert other.history["epoch"] == [0, 1, 2] and state["history"]["epoch"] == [0, 1]
    assert watch.history["epoch"] == [0, 1]
    one = Inspect(x, y)
    net.fit(x, y, callbacks=one, verbose=0)
    assert one.table().startswith("epoch 0 ") and "->" not in one.table()


def test_inspect_of_what_does_not_fit():
    x, y = fnn.datasets.spiral(20)
    for wrong in (0, 1.5):
        with pytest.raises((TypeError, ValueError), match="every must be"):
            Inspect(x, y, every=wrong)
    net = random_net(input_shape=(2,))
    before = net.params.copy()
    with pytest.raises(ValueError, match="x must have shape"):
        net.fit(x, y, callbacks=Inspect(x[:, :1], y), verbose=0)
    assert np.array_equal(net.params, before)  # told before a step was made


def test_the_first_layers_of_a_deep_sigmoid_network_learn_slowest():
    """Nielsen, chapter 5: the gradient vanishes on its way to the front."""
    x, y = fnn.datasets.digits()
    watch = Inspect(x[:200], y[:200])
    layers = [
        fnn.Input((64,), scale=1 / 16),
        *(D(30, "sigmoid") for _ in range(4)),
        D(10, "softmax"),
    ]
    net = fnn.Network(layers, loss="cross_entropy", seed=0)
    net.fit(x[:200], y[:200], callbacks=watch, verbose=0)
    lengths = [watch.history[f"{number}.gradient"][0] for number in range(5)]
    assert lengths == sorted(lengths) and lengths[0] < lengths[4] / 30


def test_a_picture_of_it(tmp_path, monkeypatch):
    image = pytest.importorskip("matplotlib.image")
    x, y = fnn.datasets.spiral(20)
    watch, path = Inspect(x, y), tmp_path / "layers.png"
    with pytest.raises(ValueError, match="recorded something: give it to fit"):
        plot.inspection(watch, path)
    net = random_net()
    for layer in net.layers:
        layer.trainable = layer is net.layers[-1]  # a length of 0 has no place on its scale
    net.fit(x, y, epochs=3, callbacks=watch, verbose=0)
    plot.inspection(watch, path)
    pixels = image.imread(path)[..., :3]
    assert pixels.shape == (540, 4 * 540, 3)
    colours = {tuple(c) for c in (pixels.reshape(-1, 3) * 255).round().astype(int).tolist()}
    for colour in plot._COLOURS[: len(net.layers)]:
        assert tuple(bytes.fromhex(colour[1:])) in colours, colour
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"fastnn-numba\[plot\]"):
        plot.inspection(watch, path)
