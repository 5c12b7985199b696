"""Networks of others: the same predictions, what is not supported named, files never trusted."""

import io
import json
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn as fnn
from fastnn import keras_file

DATA = Path(__file__).parent / "data"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 5))


NUMPY = {"backend": "numpy"}  # nothing to compile; the campaign `roundtrips` runs the kernels


def close(got, want):
    most = {"float32": 1e-5, "float64": 1e-12}[got.dtype.name]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=most * np.abs(want).max())


# scikit-learn


def fitted(kind, y, x=X, **options):
    network = pytest.importorskip("sklearn.neural_network")
    options = {"hidden_layer_sizes": (6,), "max_iter": 2, "random_state": 0, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        return getattr(network, kind)(**options).fit(x, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_sklearn_regressors(activation):
    mlp = fitted("MLPRegressor", X[:, :2], activation=activation, hidden_layer_sizes=(7, 3))
    net = fnn.from_sklearn(mlp, **NUMPY)
    assert net.classes is None and net._loss.name == "mse"
    close(net.predict(X), mlp.predict(X))


def test_sklearn_classifiers():
    labels = np.array(["cat", "dog", "owl"])[np.arange(40) % 3]
    mlp = fitted("MLPClassifier", labels)
    net = fnn.from_sklearn(mlp, optimizer="sgd", seed=3, **NUMPY)
    close(net.predict(X), mlp.predict_proba(X))
    assert [net.classes[i] for i in net.predict(X).argmax(axis=1)] == mlp.predict(X).tolist()
    assert net._loss.name == "cross_entropy" and net.seed == 3
    mlp = fitted("MLPClassifier", labels == "cat")  # yes or no: one output
    net = fnn.from_sklearn(mlp, **NUMPY)
    close(net.predict(X)[:, 0], mlp.predict_proba(X)[:, 1])
    assert net._loss.name == "binary_cross_entropy" and net.classes == [False, True]
    mlp = fitted("MLPClassifier", np.array([labels == "cat", labels != "owl"]).T)  # several each
    close(fnn.from_sklearn(mlp, **NUMPY).predict(X), mlp.predict_proba(X))


def test_sklearn_float32_and_counts():
    mlp = fitted("MLPRegressor", X[:, 0].astype("f4"), X.astype("f4"))
    net = fnn.from_sklearn(mlp, **NUMPY)
    assert net.dtype == "float32"
    close(net.predict(X)[:, 0], mlp.predict(X.astype("f4")))
    assert fnn.from_sklearn(mlp, dtype="float64").dtype == "float64"
    if "loss" in mlp.get_params():  # since 1.7
        mlp = fitted("MLPRegressor", np.arange(40.0), loss="poisson")
        net = fnn.from_sklearn(mlp, **NUMPY)
        assert net._loss.name == "poisson"
        close(net.predict(X)[:, 0], mlp.predict(X))


def test_what_is_no_fitted_mlp():
    network = pytest.importorskip("sklearn.neural_network")
    for wrong in (network.MLPClassifier(), 3, "net"):
        with pytest.raises(TypeError, match="mlp must be a fitted MLPClassifier"):
            fnn.from_sklearn(wrong)
    mlp = fitted("MLPRegressor", X[:, 0])
    mlp.activation = "sine"
    with pytest.raises(ValueError, match=r"'sine' is not supported; from_sklearn takes identity"):
        fnn.from_sklearn(mlp, **NUMPY)


# PyTorch


def sequential(*modules, dtype="float64"):
    torch = pytest.importorskip("torch")
    return torch.nn.Sequential(*modules).to(getattr(torch, dtype)).eval()


def agree(module, x, **options):
    import torch

    net = fnn.from_torch(module, **options, **NUMPY)
    tensor = torch.tensor(x).to(next(module.parameters()).dtype) if x.dtype.kind == "f" else None
    tensor = torch.tensor(x) if tensor is None else tensor
    close(net.predict(x), module(tensor).detach().numpy())
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_module_of_torch_that_is_taken(dtype):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = sequential(
        *(nn.BatchNorm1d(5), nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 8, bias=False), nn.Tanh()),
        *(nn.Sequential(nn.Linear(8, 7), nn.LayerNorm(7), nn.GELU()), nn.Dropout(0.5)),
        *(nn.Linear(7, 6), nn.LeakyReLU(0.3), nn.Linear(6, 6), nn.ELU(0.7), nn.Identity()),
        *(nn.Linear(6, 6), nn.SELU(), nn.Linear(6, 6), nn.SiLU(), nn.Linear(6, 6), nn.Mish()),
        *(nn.Linear(6, 6), nn.Sigmoid(), nn.BatchNorm1d(6, affine=False), nn.Softsign()),
        *(nn.Linear(6, 5), nn.LayerNorm(5, elementwise_affine=False), nn.Softplus()),
        *(nn.Linear(5, 3), nn.Softmax(dim=1)),
        dtype=dtype,
    )
    module.train()(torch.tensor(X.astype(dtype)))  # running means that have run
    net = agree(module.eval(), X.astype(dtype))
    assert net.dtype == dtype and net._loss.name == "cross_entropy"
    assert repr(net.layers[1]) == "Dense(9, 'relu')"


def test_torch_shapes_and_tables():
    nn = pytest.importorskip("torch").nn
    images = RNG.standard_normal((7, 2, 3))
    module = sequential(nn.Flatten(), nn.Linear(6, 2))
    assert agree(module, images, input_shape=(2, 3)).plan.in_shape == (2, 3)
    agree(module, images.reshape(7, 6))
    module = sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 1))
    agree(module, RNG.integers(0, 9, (7, 4)))


@pytest.mark.filterwarnings("ignore:Using padding")  # torch, of windows of even size
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_hundred_networks_for_images(dtype):
    nn = pytest.importorskip("torch").nn
    rng = np.random.default_rng(4)
    for _ in range(100):
        shape = tuple(int(n) for n in (rng.integers(1, 5), *rng.integers(7, 15, 2)))
        strides = int(rng.integers(1, 3))
        padding = rng.choice(np.array(["valid", "same", 1, (2, 0)], object))
        first = nn.Conv2d(
            shape[0], int(rng.integers(1, 9)), tuple(int(n) for n in rng.integers(1, 5, 2)),
            stride=1 if padding == "same" else strides, padding=padding, bias=rng.random() < 0.5,
        )  # fmt: skip
        pool = [nn.MaxPool2d(2), nn.AvgPool2d((2, 1), 1)][int(rng.integers(2))]
        second = nn.Conv2d(first.out_channels, 3, 1)
        module = sequential(first, nn.ReLU(), pool, second, nn.Tanh(), nn.Flatten(), dtype=dtype)
        net = agree(module, rng.standard_normal((5, *shape)).astype(dtype), input_shape=shape)
        assert [type(layer).__name__ for layer in net.layers[::2]] == ["Conv2D", "Conv2D"]
        assert net.layers[0].activation.name == "relu"


def test_images_of_torch_need_their_shape():
    nn = pytest.importorskip("torch").nn
    conv = nn.Conv2d(2, 3, (3, 2), stride=2, padding=1, bias=False)
    for modules in ([conv], [nn.MaxPool2d(2)], [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(9, 1)]):
        with pytest.raises(ValueError, match=r"give input_shape=.*\(channels, height, width\)"):
            fnn.from_torch(sequential(*modules))
    for modules, message in (
        ([nn.Softmax(1)], "softmax over samples of shape"),
        ([nn.Linear(9, 1)], "needs flat samples"),
        ([nn.BatchNorm1d(3)], "needs flat samples"),
        ([nn.LayerNorm(9)], "needs flat samples"),
    ):
        with pytest.raises(ValueError, match=message):
            fnn.from_torch(sequential(conv, *modules), input_shape=(2, 9, 9))
    net = agree(sequential(conv, nn.Sigmoid()), RNG.random((4, 2, 9, 8)), input_shape=(2, 9, 8))
    want = "[Conv2D(3, (3, 2), 'sigmoid', strides=2, padding=(1, 1), use_bias=False)]"
    assert repr(net.layers) == want and net._loss.name == "binary_cross_entropy"


def test_a_state_dict_needs_no_torch():
    state = {
        "body.0.weight": RNG.standard_normal((4, 5)),
        "body.0.bias": RNG.standard_normal(4),
        "head.weight": RNG.standard_normal((2, 4)),
    }
    net = fnn.from_torch(state, ["tanh", "linear"], **NUMPY)
    want = np.tanh(X @ state["body.0.weight"].T + state["body.0.bias"]) @ state["head.weight"].T
    close(net.predict(X), want)
    for activations in (None, "tanh", ["tanh"]):
        with pytest.raises(ValueError, match="what follows each of the 2 linear layers"):
            fnn.from_torch(state, activations)
    for name, shape in (("bn.running_mean", (4,)), ("conv.weight", (2, 3, 3)), ("a.bias", (2,))):
        with pytest.raises(ValueError, match=f"got '{name}'"):
            fnn.from_torch(state | {name: np.ones(shape)}, ["tanh", "linear"])
    with pytest.raises(TypeError, match="arrays of real numbers, got one of object"):
        fnn.from_torch({"0.weight": np.array([[None]])}, ["linear"])
    with pytest.raises(ValueError, match="activation must be one of"):
        fnn.from_torch(state, ["tanh", "sine"])


def test_what_of_torch_is_not_supported():
    nn = pytest.importorskip("torch").nn
    for modules, message in (
        ([nn.Conv1d(1, 1, 1)], "1: Conv1d is not supported; from_torch takes AvgPool2d"),
        ([nn.GELU(approximate="tanh")], "approximate='tanh'"),
        ([nn.Softmax(dim=0)], "Softmax.dim=0"),
        ([nn.Softplus(beta=2)], "beta=2"),
        ([nn.LayerNorm((3, 4))], "flat samples"),
        ([nn.BatchNorm1d(4, track_running_stats=False)], "running means"),
        ([nn.Embedding(3, 2), nn.Linear(2, 1)], "Flatten behind it"),
        ([nn.Flatten(0)], "start_dim=0"),
        ([nn.Conv2d(2, 2, 1, groups=2)], "groups=2"),
        ([nn.Conv2d(2, 2, 1, dilation=2)], r"dilation=\(2, 2\)"),
        ([nn.Conv2d(2, 2, 1, padding_mode="circular")], "padding_mode='circular'"),
        ([nn.MaxPool2d(3, padding=1)], "padding=1"),
        ([nn.MaxPool2d(3, ceil_mode=True)], "ceil_mode=True"),
        ([nn.MaxPool2d(3, dilation=2)], r"dilation=2\) is not .* takes 1 or \(1, 1\)"),
        ([nn.MaxPool2d(3, return_indices=True)], "return_indices=True"),
        ([nn.AvgPool2d(3, padding=(0, 1))], r"padding=\(0, 1\)\) is not .* takes 0 or"),
        ([nn.AvgPool2d(3, ceil_mode=True)], r"AvgPool2d\(ceil_mode=True"),
        ([nn.AvgPool2d(3, divisor_override=2)], "divisor_override=2"),
        ([nn.BatchNorm2d(4)], "BatchNorm2d is not supported; from_torch takes .*Conv2d"),
        ([nn.Dropout2d()], "Dropout2d is not supported"),
    ):
        with pytest.raises(ValueError, match=message):
            fnn.from_torch(sequential(nn.Linear(5, 4), *modules))
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda module, x, out: out + 1)
    with pytest.raises(ValueError, match="ReLU has hooks"):
        fnn.from_torch(sequential(nn.Linear(5, 4), hooked))

    class Own(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + 1

    for wrong in (Own(nn.Linear(5, 4)), np.ones(3), None):
        with pytest.raises(TypeError, match=r"source must be a torch\.nn\.Sequential"):
            fnn.from_torch(wrong)
    with pytest.raises(ValueError, match="give input_shape"):
        fnn.from_torch(sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="activations go with a state_dict"):
        fnn.from_torch(sequential(nn.Linear(5, 4)), ["relu"])


# Keras


@pytest.fixture(scope="module")
def real():
    return contents("sequential")


def contents(name):
    """What a file of Keras holds: the config, and the weights as bytes."""
    pytest.importorskip("h5py")
    with zipfile.ZipFile(DATA / f"{name}.keras") as archive:
        return json.loads(archive.read("config.json")), archive.read("model.weights.h5")


def write(path, config, weights):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return path


@pytest.mark.parametrize("name", ["sequential", "functional", "images", "reshaped"])
def test_files_that_keras_wrote(name):
    pytest.importorskip("h5py")
    arrays = np.load(DATA / "keras.npz")
    net = fnn.from_keras(DATA / f"{name}.keras", **NUMPY)
    x, want = arrays[f"{name}_x"], arrays[f"{name}_y"]
    assert net.dtype == want.dtype
    close(net.predict(x.transpose(0, 3, 1, 2) if name == "images" else x), want)


def test_every_layer_of_the_table_is_in_a_file():
    seen = set()
    for name in ("sequential", "functional", "images"):
        with zipfile.ZipFile(DATA / f"{name}.keras") as archive:
            config = json.loads(archive.read("config.json"))
        seen |= {layer["class_name"] for layer in config["config"]["layers"]}
    assert seen == set(keras_file.LAYERS)


def at(config, place):
    return config["config"]["layers"][place]


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        (4, {"class_name": "Conv1D"}, "class 'Conv1D' is not supported; from_keras takes Activat"),
        (
            1,
            {"class_name": "MaxPooling2D", "pool_size": [2, 2]},
            "from_keras takes images, of three sizes",
        ),
        (4, {"registered_name": "mine>Dense"}, "class 'Dense' is not supported"),
        (4, {"module": "os"}, "class 'Dense' is not supported"),
        (4, {"activation": "hard_sigmoid"}, "'hard_sigmoid' is not supported; from_keras takes"),
        (4, {"activation": {"class_name": "function", "config": "system"}}, "is not supported"),
        (4, {"dtype": {"config": {"name": "mixed_float16"}}}, "layers of dtype"),
        (4, {"quantization_config": {}}, "quantization_config={}"),
        (4, {"units": 6}, r"must be an array of shape \(6, 6\), got \(6, 5\)"),
        (4, {"units": "6"}, "units must be a whole number"),
        (4, {"units": 10**12}, "must be an array of shape"),
        (4, {"use_bias": False}, "must have 1 arrays, got 2"),
        (5, {"axis": 2}, r"BatchNormalization.axis=2"),
        (5, {"renorm": True}, "renorm=True"),
        (5, {"epsilon": float("nan")}, "epsilon must be"),
        (8, {"rms_scaling": True}, "rms_scaling=True"),
        (3, {"mean": [0.0]}, "mean and a variance for each of 6"),
        (3, {"invert": True}, "invert=True"),
        (9, {"rate": 2}, "rate must be"),
        (14, {"max_value": 6.0}, "max_value=6.0"),
        (19, {"axis": 0}, "Softmax.axis=0"),
        (20, {"target_shape": [3, 10**9]}, "needs 3000000000 values"),
        (0, {"batch_shape": [None, 10**9, 10**9]}, "a sample of shape"),
        (0, {"batch_shape": [None, None]}, "must have fixed sizes"),
        (1, {"class_name": "Dropout", "rate": 0.1}, "over samples of shape"),
    ],
)
def test_what_of_keras_is_not_supported(place, changes, message, real, tmp_path):
    config = json.loads(json.dumps(real[0]))
    layer = at(config, place)
    for key, value in changes.items():
        (layer if key in layer else layer["config"])[key] = value
    with pytest.raises((ValueError, TypeError), match=message):
        fnn.from_keras(write(tmp_path / "net.keras", config, real[1]))


def by_hand(path, shape, layers, dtype="float32"):
    """A file as Keras writes it, of layers (class, config, arrays)."""
    h5py = pytest.importorskip("h5py")
    head = {"class_name": "InputLayer", "config": {"batch_shape": [None, *shape]}}
    described, buffer, seen = [head | {"module": "keras.layers"}], io.BytesIO(), {}
    with h5py.File(buffer, "w") as file:
        for kind, config, arrays in layers:
            config = config | {"dtype": dtype}
            described.append({"class_name": kind, "module": "keras.layers", "config": config})
            group = keras_file._snake(kind)
            seen[group] = seen.get(group, -1) + 1
            variables = file.create_group(
                f"layers/{group}_{seen[group]}/vars" if seen[group] else f"layers/{group}/vars"
            )
            for i, array in enumerate(arrays):
                variables[str(i)] = array.astype(dtype)
    model = {"class_name": "Sequential", "config": {"layers": described}}
    return write(path, model, buffer.getvalue())


LINE = {"data_format": "channels_last"}
CONV = {
    **{"filters": 4, "kernel_size": [3, 2], "strides": [1, 1], "padding": "valid", **LINE},
    **{"dilation_rate": [1, 1], "groups": 1, "activation": "linear", "use_bias": True},
}
POOL = {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid", **LINE}
BATCH_NORM = {"axis": -1, "momentum": 0.9, "epsilon": 1e-3, "center": True, "scale": True}
NORM = {"axis": -1, "mean": None, "variance": None}


def keras_windows(x, size, strides, padding="valid"):
    """Windows (n, height, width, channels, *size) of images whose channels come last."""
    if padding == "same":
        places = [-(-n // stride) for n, stride in zip(x.shape[1:3], strides, strict=True)]
        moves = zip(places, size, strides, x.shape[1:3], strict=True)
        zeros = [max((n - 1) * stride + window - old, 0) for n, window, stride, old in moves]
        around = [(0, 0), *((n // 2, n - n // 2) for n in zeros), (0, 0)]
        x = np.pad(x, around)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))
    return windows[:, :: strides[0], :: strides[1]]


def keras_layer(kind, config, arrays, x):
    """What a layer of Keras makes of images, or of flat samples."""
    images = x.ndim == 4
    first = images and config.get("data_format") == "channels_first"
    x = x.transpose(0, 2, 3, 1) if first else x
    if kind == "Flatten":
        return x.reshape(len(x), -1)
    if kind == "Conv2D":
        kernel, *bias = arrays
        windows = keras_windows(x, kernel.shape[:2], config["strides"], config["padding"])
        x = np.einsum("nhwcij,ijcf->nhwf", windows, kernel) + sum(bias)
        x = np.maximum(x, 0) if config["activation"] == "relu" else x
    elif kind in ("MaxPooling2D", "AveragePooling2D"):
        windows = keras_windows(x, config["pool_size"], config["strides"])
        x = windows.max((-2, -1)) if kind == "MaxPooling2D" else windows.mean((-2, -1))
    elif kind == "Rescaling":
        x = x * config["scale"] + config["offset"]
    elif kind == "Activation":
        x = np.tanh(x)
    elif kind == "BatchNormalization":
        gamma, beta, mean, variance = arrays
        x = (x - mean) / np.sqrt(variance + config["epsilon"]) * gamma + beta
    elif kind == "Normalization":
        x = (x - arrays[0]) / np.sqrt(arrays[1])
    elif kind == "Dense":
        x = x @ arrays[0] + arrays[1]
    return x.transpose(0, 3, 1, 2) if first else x


def keras_images(rng, form):
    """Shape of a sample and layers of a random network for images: (class, config, arrays)."""
    channels, *sizes = shape = [int(n) for n in (rng.integers(1, 5), *rng.integers(6, 13, 2))]
    kernel, second = ([int(n) for n in rng.integers(1, 4, 2)] for _ in range(2))
    strides, pool = ([int(n) for n in rng.integers(1, 3, 2)] for _ in range(2))
    filters, last = (int(n) for n in rng.integers(1, 6, 2))
    padding = str(rng.choice(["valid", "same"]))
    form = {"data_format": form}
    first = {"filters": filters, "kernel_size": kernel, "strides": strides, "padding": padding}
    final = {"filters": last, "kernel_size": second, "padding": "same", "use_bias": False}
    kind = str(rng.choice(["MaxPooling2D", "AveragePooling2D"]))
    layers = [
        ("Rescaling", {"scale": 0.5, "offset": 0.1}, []),
        (
            "Conv2D",
            CONV | first | form | {"activation": str(rng.choice(["relu", "linear"]))},
            [rng.standard_normal((*kernel, channels, filters)), rng.standard_normal(filters)],
        ),
        (kind, POOL | form | {"pool_size": pool, "strides": [1, 2]}, []),
        ("Dropout", {"rate": 0.5}, []),
        ("Conv2D", CONV | final | form, [rng.standard_normal((*second, filters, last))]),
        ("Activation", {"activation": "tanh"}, []),
    ]
    return (shape if form["data_format"] == "channels_first" else [*sizes, channels]), layers


def behind_flatten(rng, width):
    """Layers with values of their own for each of the values that a Flatten has lined up."""
    above, below = 1 + rng.random((5, width)), rng.standard_normal((5, width))
    wide, seen = rng.standard_normal((width, width)), np.array(9.0)
    return [
        ("Flatten", {"data_format": str(rng.choice(keras_file.FORMATS))}, []),
        ("Normalization", NORM, [below[0], above[0], seen]),
        ("BatchNormalization", BATCH_NORM, [above[1], below[1], below[2], above[2]]),
        ("Activation", {"activation": "tanh"}, []),
        (
            "Dense",  # as many neurons as values: the order ends here
            {"units": width, "activation": "linear", "use_bias": True},
            [wide / width**0.5, below[3]],
        ),
        ("BatchNormalization", BATCH_NORM, [above[3], below[4], below[2], above[4]]),
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", keras_file.FORMATS)
def test_a_hundred_networks_of_keras_for_images(form, dtype, tmp_path):
    rng = np.random.default_rng(5)
    for _ in range(50):
        shape, layers = keras_images(rng, form)
        images = rng.standard_normal((4, *shape)).astype(dtype).astype(float)
        turned = images.transpose(0, 3, 1, 2) if form == "channels_last" else images
        for flat in (False, True):
            layers = layers + behind_flatten(rng, images[0].size) if flat else layers
            layers = [
                (k, c, [a.astype(dtype).astype(float) for a in arrays]) for k, c, arrays in layers
            ]
            for layer in layers[-6:]:
                images = keras_layer(*layer, images)
            net = fnn.from_keras(by_hand(tmp_path / "net.keras", shape, layers, dtype), **NUMPY)
            assert net.dtype == dtype and net.plan.in_shape == turned.shape[1:]
            last_turned = form == "channels_last" and not flat
            close(net.predict(turned), images.transpose(0, 3, 1, 2) if last_turned else images)


def test_images_of_one_channel_may_be_reshaped(tmp_path):
    rng = np.random.default_rng(6)
    conv = ("Conv2D", CONV, [rng.standard_normal((3, 2, 1, 4)), rng.standard_normal(4)])
    turn = ("Reshape", {"target_shape": [5, 6, 1]}, [])
    x = rng.standard_normal((3, 30)).astype("f4").astype(float)
    for shape in ([30], [5, 6], [5, 6, 1]):
        net = fnn.from_keras(
            by_hand(tmp_path / "net.keras", shape, [turn, conv], "float64"), **NUMPY
        )
        want = keras_layer(*conv, x.reshape(3, 5, 6, 1)).transpose(0, 3, 1, 2)
        close(net.predict(x.reshape(3, *net.plan.in_shape)), want)
    assert net.plan.in_shape == (1, 5, 6)


CONV_ARRAYS = [np.ones((3, 2, 3, 4)), np.ones(4)]
OTHER = {"data_format": "channels_first"}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([("Conv2D", {"dilation_rate": [2, 2]})], r"Conv2D\(dilation_rate=\[2, 2\]\) is not supp"),
        ([("Conv2D", {"groups": 3})], r"Conv2D\(groups=3\) is not supported; from_keras takes 1"),
        ([("Conv2D", {"padding": "full"})], r"padding='full'\) is not .* takes 'valid' or 'same'"),
        ([("Conv2D", {"padding": 1})], r"Conv2D\(padding=1\) is not supported"),
        ([("Conv2D", {"activation": "softmax"})], "activation='softmax'.*flatten the images"),
        ([("Conv2D", {"filters": 10**6})], "filters must be at most 4096"),
        ([("Conv2D", {"kernel_size": [100, 100]})], "at most 4,096 taps"),
        ([("Conv2D", {"kernel_size": [3, 3]})], r"shape \(3, 3, 3, 4\), got \(3, 2, 3, 4\)"),
        ([("Conv2D", {"use_bias": False})], "must have 1 arrays, got 2"),
        ([("Conv2D", {"data_format": "nchw"})], "have one data_format, channels_last or"),
        ([("Conv2D", {}), ("MaxPooling2D", OTHER)], r"have one data_format.*'channels_first'\]"),
        ([("MaxPooling2D", {"padding": "same"})], r"MaxPooling2D\(padding='same'\) is not"),
        ([("AveragePooling2D", {"padding": "same"})], r"AveragePooling2D\(padding='same'\) is"),
        ([("MaxPooling2D", {"pool_size": [9, 2]})], "window is larger than the image"),
        ([("Conv2D", {}), ("BatchNormalization", {})], "BatchNormalization.*takes flat samples"),
        ([("Conv2D", {}), ("LayerNormalization", {})], "LayerNormalization.*takes flat samples"),
        ([("Conv2D", {}), ("Normalization", {})], "Normalization.*takes flat samples"),
        ([("Conv2D", {}), ("Dense", {})], "Dense.*takes flat samples"),
        ([("Conv2D", {}), ("Softmax", {})], "Softmax.*takes flat samples"),
        ([("Conv2D", {}), ("Activation", {"activation": "softmax"})], "softmax over samples of"),
        ([("Conv2D", {}), ("Flatten", {})], "flattened images as output are not supported"),
        ([("Conv2D", {}), ("Reshape", {"target_shape": [60]})], r"Reshape\(\(60,\)\) of or to im"),
        ([("Reshape", {"target_shape": [6, 5, 3]}), ("Conv2D", {})], "of several channels"),
        (
            [("Conv2D", {}), ("Flatten", {}), ("Reshape", {"target_shape": [15, 4]})],
            "of several channels",
        ),
        ([("Flatten", {}), ("Conv2D", {})], r"Conv2D over samples of shape \(90,\)"),
        ([("Flatten", {}), ("MaxPooling2D", {})], "from_keras takes images, of three"),
    ],
)
def test_what_of_keras_for_images_is_not_supported(layers, message, tmp_path):
    usual = {"Conv2D": CONV, "MaxPooling2D": POOL, "AveragePooling2D": POOL, "Flatten": LINE}
    arrays = {"Conv2D": CONV_ARRAYS}
    file = by_hand(
        tmp_path / "net.keras", [5, 6, 3],
        [(kind, usual.get(kind, {}) | config, arrays.get(kind, [])) for kind, config in layers],
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        fnn.from_keras(file, **NUMPY)


def test_a_table_whose_rows_keras_turns_is_not_supported(tmp_path):
    table = ("Embedding", {"input_dim": 9, "output_dim": 2}, [np.ones((9, 2))])
    file = by_hand(tmp_path / "net.keras", [4], [table, ("Flatten", OTHER, [])])
    with pytest.raises(ValueError, match=r"Flatten\(data_format='channels_first'\) is not"):
        fnn.from_keras(file, **NUMPY)


def test_models_that_are_no_chain(tmp_path):
    config, weights = contents("functional")
    at(config, 3)["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = "embedding"
    with pytest.raises(
        ValueError, match=r"must follow one another, got 'dense\w*' behind 'flatten"
    ):
        fnn.from_keras(write(tmp_path / "net.keras", config, weights))
    config["class_name"] = "Mine"
    with pytest.raises(ValueError, match="class 'Mine' is not supported"):
        fnn.from_keras(write(tmp_path / "net.keras", config, weights))


def hdf5(change, weights):
    """The weights, after a change to the open file."""
    import h5py

    buffer = io.BytesIO(weights)
    with h5py.File(buffer, "r+") as file:
        change(file, h5py)
    return buffer.getvalue()


DENSE = "layers/dense/vars/0"


def replaced(make):
    def change(file, h5py):
        del file[DENSE]
        make(file, h5py)

    return change


ATTACKS = {
    "a link to another file": (
        lambda f, h: f.__setitem__(DENSE, h.ExternalLink("/etc/passwd", "/")),
        "or a link in its place",
    ),
    "a link inside": (
        lambda f, h: f.__setitem__(DENSE, h.SoftLink("/layers/dense_1/vars/0")),
        "or a link in its place",
    ),
    "an array in another file": (
        lambda f, h: f.create_dataset(DENSE, (6, 5), "f4", external=[("/etc/passwd", 0, 120)]),
        "not stored as Keras does",
    ),
    "an array that is not there": (
        lambda f, h: f.create_dataset(DENSE, (6, 5), "f4", fillvalue=1),
        "not stored as Keras does",
    ),
    "an array of another shape": (
        lambda f, h: f.create_dataset(DENSE, (1 << 20, 1 << 20), "f4"),
        r"shape \(6, 5\), got \(1048576, 1048576\)",
    ),
    "a compressed array": (
        lambda f, h: f.create_dataset(DENSE, (6, 5), "f4", np.ones((6, 5)), compression="gzip"),
        "not stored as Keras does",
    ),
    "texts": (
        lambda f, h: f.create_dataset(DENSE, data=np.full((6, 5), b"abcd")),
        "must hold real numbers",
    ),
    "a group": (lambda f, h: f.create_group(DENSE), "got a group"),
    "nothing": (lambda f, h: None, "must have 2 arrays, got 1"),
    "one too many": (
        lambda f, h: [f.create_dataset(k, data=np.ones((6, 5))) for k in (DENSE, f"{DENSE}0")],
        "must have 2 arrays, got 3",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_weights_that_are_not_what_keras_writes(name, real, tmp_path):
    make, message = ATTACKS[name]
    path = write(tmp_path / "net.keras", real[0], hdf5(replaced(make), real[1]))
    with pytest.raises(fnn.FormatError, match=message):
        fnn.from_keras(path)


def test_files_that_are_none(real, tmp_path):
    path = tmp_path / "net.keras"
    with pytest.raises(FileNotFoundError):
        fnn.from_keras(path)
    for content in (b"", b"junk", (DATA / "sequential.keras").read_bytes()[:-30]):
        path.write_bytes(content)
        with pytest.raises(fnn.FormatError, match=r"no \.keras file, or damaged"):
            fnn.from_keras(path)
    for config in ("", "[]", "3", "{", "[" * 100_000, '{"class_name": "Sequential"}', "{}"):
        with pytest.raises(fnn.FormatError, match=r"no JSON|not what Keras writes"):
            fnn.from_keras(write(path, config, real[1]))
    with pytest.raises(fnn.FormatError, match="not what Keras writes"):
        fnn.from_keras(write(path, real[0], b"junk"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(fnn.FormatError, match=r"it has no model\.weights\.h5"):
        fnn.from_keras(path)


def test_a_zip_that_unpacks_to_something_huge_is_refused(real, tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(real[0]))
        archive.writestr("model.weights.h5", bytes(1 << 25))
    with pytest.raises(fnn.FormatError, match="larger than"):
        fnn.from_keras(path)


PATHS = st.lists(st.integers(0, 30), min_size=1, max_size=6)
JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@pytest.mark.parametrize("name", ["sequential", "images"])
@settings(max_examples=60, deadline=None)
@given(PATHS, JUNK | st.lists(JUNK, max_size=3) | st.dictionaries(st.text(max_size=3), JUNK))
def test_any_config_is_taken_or_refused(name, tmp_path_factory, path, value):
    """A value anywhere in the config becomes any other: no other exception, and no code."""
    config, weights = contents(name)
    node = config["config"]["layers"]
    for step in path:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[step % len(keys)]
        if not isinstance(node[key], dict | list) or not node[key]:
            break
        parent, node = node, node[key]
    else:
        node, key = parent, key
    node[key] = value
    file = tmp_path_factory.getbasetemp() / "any.keras"
    try:
        fnn.from_keras(write(file, config, weights))
    except ValueError as error:  # and so a FormatError
        assert "\n" not in str(error)


def test_any_damage_to_the_weights_is_refused_or_only_numbers(real, tmp_path):
    rng, refused = np.random.default_rng(0), 0
    for _ in range(40):
        weights = bytearray(real[1])
        for place in rng.integers(0, 4000, 3):  # where most of the structure is
            weights[place] = rng.integers(256)
        try:
            net = fnn.from_keras(write(tmp_path / "net.keras", real[0], bytes(weights)))
        except fnn.FormatError:
            refused += 1
        else:
            assert net.plan.size == 235
    assert refused


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py: pip install 'fastnn-numba\[keras\]'"):
        fnn.from_keras(DATA / "sequential.keras")


def test_a_copy_knows_its_classes():
    import pickle

    mlp = fitted("MLPClassifier", np.arange(40) % 3)
    net = pickle.loads(pickle.dumps(fnn.from_sklearn(mlp, **NUMPY)))
    assert net.classes == [0, 1, 2]
