"""Whole networks in files: what comes back is what went in, or a FormatError."""

import copy
import inspect
import json
import pickle
import re
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import NETWORKS, OPTIMIZERS, build

import fastnn as fnn
from fastnn import files, saving, schedules
from fastnn.layers import Layer
from fastnn.losses import Loss
from fastnn.optimizers import Optimizer
from fastnn.schedules import Schedule
from tests import attacks

# Arguments that are not the defaults, for each class that a file can name.
OBJECTS = [
    fnn.Activation("elu", alpha=0.3), fnn.Activation("relu"),
    fnn.Dense(3, fnn.Activation("leaky_relu", alpha=0.2), use_bias=False, weight_l1=0.1,
              weight_l2=0.2, max_norm=2.0, non_negative=True, trainable=False),
    fnn.Dense(3, bias_l1=0.3, bias_l2=0.4), fnn.Input((2, 3), scale=0.5, offset=-1.0),
    fnn.Dropout(0.3), fnn.GaussianNoise(0.2), fnn.BatchNorm(0.7, 0.1, trainable=False),
    fnn.LayerNorm(0.2, trainable=False), fnn.Normalization(), fnn.Rescaling(0.1, 3.0),
    fnn.Embedding(7, 2, trainable=False), fnn.Flatten(), fnn.Reshape((3, 2)),
    fnn.Conv2D(3, (2, 4), "relu", strides=(1, 2), padding=(0, 1), weight_l2=0.1, trainable=False),
    fnn.Conv2D(2, 3, padding="same"), fnn.MaxPool2D((2, 3), 1), fnn.AveragePool2D(3),
    Loss("mse"), fnn.losses.Huber(0.3), fnn.losses.Quantile(0.2),
    fnn.losses.CrossEntropy(0.1), fnn.losses.BinaryCrossEntropy(0.1),
    schedules.Constant(0.2), schedules.InverseTimeDecay(0.3, 0.1),
    schedules.Exponential(0.3, 0.5, steps=3, staircase=True),
    schedules.Piecewise([2, 4], [0.3, 0.2, 0.1]), schedules.Cosine(0.3, 9, warmup=2, final=0.1),
    schedules.OneCycle(0.3, 9, pct_start=0.4, div_factor=5.0, final_div_factor=7.0),
    schedules.ReduceOnPlateau(0.3, factor=0.2, patience=3, min_delta=0.1, cooldown=2,
                              min_learning_rate=0.01),
    fnn.SGD(0.3, momentum=0.5, nesterov=True, decay=0.1, clip_norm=2.0),
    fnn.Adagrad(0.3), fnn.RMSprop(schedules.Constant(0.3)), fnn.Adam(0.3, clip_value=1.0),
    fnn.AdamW(0.3), fnn.Nadam(0.3), fnn.Lion(0.3), fnn.LBFGS(0.5),
]  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def test_every_class_of_the_table_is_tried():
    assert {type(each).__name__ for each in OBJECTS} == set(saving.CLASSES)


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: type(thing).__name__)
def test_a_description_makes_the_same_again(thing):
    text = json.loads(json.dumps(saving.describe(thing)))
    kind = next(k for k in (Layer, Loss, Schedule, Optimizer) if isinstance(thing, k))
    twin = saving.build(text, kind)
    assert type(twin) is type(thing) and repr(twin) == repr(thing)
    assert saving.describe(twin) == saving.describe(thing)
    names = [n for n in inspect.signature(type(thing)).parameters if "initializer" not in n]
    assert set(names) <= set(text), "something is left out"


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [(n, "adam") for n in NETWORKS] + [("classes", o) for o in (*OPTIMIZERS, "lbfgs")],
)
def test_a_network_comes_back_whole(name, optimizer, path):
    net, x, y = build(name, "sgd" if optimizer == "lbfgs" else optimizer, dtype="float32")
    if optimizer == "lbfgs":
        net.optimizer = "lbfgs"
    net.classes = np.array(["no", "yes"])
    net.fit(x, y, epochs=2, verbose=0)
    net.save(path)
    twin = fnn.load(path)
    assert saving.architecture(twin) == saving.architecture(net)
    assert repr(twin.layers) == repr(net.layers) and twin.classes == ["no", "yes"]
    assert twin.history.history == net.history.history and not twin.unfinished
    for each in (net, twin):
        each.fit(x, y, epochs=2, verbose=0)
    assert twin.params.tobytes() == net.params.tobytes()
    assert twin._state.tobytes() == net._state.tobytes()
    assert twin.predict(x).tobytes() == net.predict(x).tobytes()


def test_an_input_and_what_is_in_front_come_back(path):
    net = fnn.Network(
        [fnn.Input((4, 2), scale=0.5, offset=1.0), fnn.Flatten(), fnn.Dense(3)], seed=0
    )
    net.save(path)
    twin = fnn.load(path, backend="numpy", threads=1)
    assert repr(twin._input) == repr(net._input) and twin.backend == "numpy"
    x = np.arange(16.0).reshape(2, 4, 2)
    np.testing.assert_allclose(twin.predict(x), net.predict(x), rtol=1e-6)
    assert "Input((4, 2), scale=0.5, offset=1)" in str(net.summary() or repr(twin._input))


def test_other_programs_read_the_parameters(path):
    torch_names = pytest.importorskip("safetensors.numpy")
    net, *_ = build("classes")
    net.save(path)
    arrays = torch_names.load_file(path)
    assert {"0.weight", "0.bias", "optimizer.memory"} <= set(arrays)
    assert np.array_equal(arrays["0.weight"], net.layers[0].weight)


def test_parameters_alone_are_taken_from_a_whole_network(path):
    net, *_ = build("classes")
    twin, *_ = build("classes")
    twin.params *= 0
    net.save(path)
    twin.load_weights(path)
    assert np.array_equal(net.params, twin.params)


def test_what_no_file_can_hold_is_named(path):
    class Mine(schedules.Schedule):
        def at(self, steps):
            return np.full(steps.shape, 0.1)

    net = fnn.Network([fnn.Dense(1)], input_shape=(2,), optimizer=fnn.SGD(Mine()), seed=0)
    with pytest.raises(TypeError, match="Mine is a class of your own"):
        net.save(path)
    net.optimizer, net.classes = "sgd", [object()]
    with pytest.raises(TypeError, match="classes must be texts or numbers"):
        net.save(path)
    with pytest.raises(AttributeError, match="plan and params exist once"):
        fnn.Network([fnn.Dense(1)]).save(path)
    assert not path.exists()


def test_parameters_alone_are_no_network(path):
    net, *_ = build("classes")
    net.save_weights(path)
    with pytest.raises(fnn.FormatError, match=r"'net.safetensors': there is no network in it"):
        fnn.load(path)


def test_copies_go_on_to_the_same_bits():
    net, x, y = build("regularised", dtype="float32")
    net.fit(x, y, epochs=2, verbose=0)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        twin.fit(x, y, epochs=2, verbose=0)
        assert twin.history.epoch == [0, 1]
    net.fit(x, y, epochs=2, verbose=0)
    assert net.params.tobytes() == twin.params.tobytes()


# -- files that are wrong ---------------------------------------------------------------


class Cut(fnn.callbacks.Callback):
    """Saves after two epochs."""

    path = None

    def on_epoch_end(self, epoch, logs):
        if epoch == 1 and self.path is not None:
            self.network.save(self.path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Arrays and metadata of a network with everything, in the middle of a training."""
    path = tmp_path_factory.mktemp("good") / "net.safetensors"
    net, x, y = build("regularised", dtype="float32")
    net.optimizer = fnn.Adam(schedules.ReduceOnPlateau(0.1))
    net.classes = ["a", 2, 3.5]

    cut = Cut()
    cut.path = path
    net.fit(x, y, epochs=3, callbacks=[fnn.callbacks.EarlyStopping("loss"), cut], verbose=0)
    return files.read(path)


def wrong(good, change):
    """What a changed file gives: a network or a FormatError, and nothing else."""
    arrays = {name: array.copy() for name, array in good[0].items()}
    texts = {name: json.loads(good[1][name]) for name in ("network", "training")}
    change(arrays, texts)
    metadata = good[1] | {name: json.dumps(text) for name, text in texts.items()}
    try:
        return saving.network_of(arrays, metadata)
    except fnn.FormatError as error:
        return error


def places(value, path=()):
    """Every place within a text of JSON."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def put(texts, path, value):
    *way, last = path
    for key in way:
        texts = texts[key]
    texts[last] = value


JUNK = [
    None, True, -1, 0, 3, 2**31, 2**63, 2**200, 0.5, -0.5, 1e308, "", "x", "relu", "<b>", [], {},
    [1], [[1]], {"class": "Dense"}, {"class": "Network"}, {"class": "relu"}, [-1], ["a"],
]  # fmt: skip


def test_the_good_file_is_good(good):
    net = wrong(good, lambda arrays, texts: None)
    assert isinstance(net, fnn.Network) and net.unfinished and len(net.history.epoch) == 2


def test_junk_anywhere_is_refused_or_valid(good):
    texts = {name: json.loads(good[1][name]) for name in ("network", "training")}
    refused, spots = 0, [path for path in places(texts) if len(path) > 1]
    for path in spots:
        for value in JUNK:
            result = wrong(good, lambda arrays, texts: put(texts, path, value))  # noqa: B023
            if isinstance(result, fnn.FormatError):
                refused += 1
                assert "\n" not in str(result) and len(str(result)) < 500
            else:
                assert np.isfinite(result.predict(np.ones((2, 4)))).all()
    assert refused > 0.7 * len(spots) * len(JUNK)


def test_what_is_missing_or_too_much_is_refused(good):
    for name in [name for name in good[0] if not name.startswith("callbacks")]:
        assert isinstance(wrong(good, lambda a, t: a.pop(name)), fnn.FormatError), name  # noqa: B023
        shorter = wrong(good, lambda a, t: a.update({name: a[name][:0]}))  # noqa: B023
        if good[0][name].size:
            assert isinstance(shorter, fnn.FormatError), name
    more = wrong(good, lambda a, t: a.update(more=np.zeros(1)))
    assert "arrays that no network has: 'more'" in str(more)
    texts = {name: json.loads(good[1][name]) for name in ("network", "training")}
    for part, text in texts.items():
        for name in text:
            result = wrong(good, lambda a, t: t[part].pop(name))  # noqa: B023
            assert isinstance(result, fnn.FormatError), name
            assert isinstance(
                wrong(good, lambda a, t: t[part].update({name + "_": 1})),  # noqa: B023
                fnn.FormatError,
            )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_json_is_refused_or_valid(good, data):
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    )
    texts = {name: json.loads(good[1][name]) for name in ("network", "training")}
    path = data.draw(st.sampled_from([p for p in places(texts) if len(p) > 1]))
    value = data.draw(junk)
    result = wrong(good, lambda arrays, texts: put(texts, path, value))
    assert isinstance(result, fnn.FormatError | fnn.Network)


def test_huge_networks_cost_nothing_before_they_are_refused(good):
    def wide(arrays, texts):
        layer = next(t for t in texts["network"]["layers"] if t["class"] == "Dense")
        layer["units"] = 2**31 - 1

    def deep(arrays, texts):
        texts["network"]["layers"] *= 300

    for change in (wide, deep):
        tracemalloc.start()
        try:
            assert isinstance(wrong(good, change), fnn.FormatError)
            assert tracemalloc.get_traced_memory()[1] < 64e6
        finally:
            tracemalloc.stop()


def test_what_contradicts_itself_is_refused(good):
    def other_input(arrays, texts):
        layer = {"class": "Input", "shape": [5], "scale": 1.0, "offset": 0.0}
        texts["network"]["layers"].insert(0, layer)

    def no_loss(arrays, texts):
        arrays["history.other"] = arrays.pop("history.loss")
        texts["training"]["figures"] = ["accuracy", "other"]

    def pairs(arrays, texts):
        arrays["optimizer.steps"] = np.zeros((1, 3))

    def texts_alone(arrays, texts):
        texts["training"] = [1]

    def infinite(arrays, texts):
        texts["training"]["epochs"] = float("inf")

    def no_figures(arrays, texts):
        del arrays["history.loss"], arrays["history.accuracy"]
        for name in [name for name in arrays if name.startswith("history.")]:
            del arrays[name]
        texts["training"]["figures"] = ["accuracy"]
        arrays["history.accuracy"] = np.zeros(0)

    for change, text in (
        (other_input, "the input's shape and the network's differ"),
        (no_loss, "must be an array|must have the loss"),
        (pairs, "belongs to LBFGS"),
        (texts_alone, "must be an object, got list"),
        (infinite, "must be JSON: Infinity is no number of JSON"),
        (no_figures, "a history must have the loss"),
    ):
        assert re.search(text, str(wrong(good, change)))


def test_a_callback_that_lacks_its_memory_says_so(good):
    _, x, y = build("regularised", dtype="float32")
    stop = fnn.callbacks.EarlyStopping("loss")
    for change in (dict.clear, lambda state: state.update(params="x")):
        net = wrong(good, lambda arrays, texts: None)
        change(net._progress.callbacks[0][1])
        with pytest.raises(ValueError, match="EarlyStopping"):
            net.fit(x, y, epochs=3, resume=True, callbacks=[stop, Cut()], verbose=0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_files_of_strangers_are_no_networks():
    """The same files that `fastnn.files` is tried with: none is a network, none does anything."""
    reports = attacks.run("fastnn:load")
    assert len(reports) >= 25
    found = {name: attacks.faults(report) for name, report in reports.items()}
    assert not {name: faults for name, faults in found.items() if faults}
    assert {report["outcome"] for report in reports.values()} == {"FormatError"}
