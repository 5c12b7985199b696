"""Random networks of scikit-learn, PyTorch and Keras predict the same here.

Outputs agree to 1e-5 of the largest in float32 and to 1e-12 in float64. A library that is not
installed is left out, and named.
"""

import importlib.util
import os
import tempfile
import warnings

import numpy as np

import fastnn as fnn

COUNT, SMALL = 300, 6
CLOSE = {"float32": 1e-5, "float64": 1e-12}
ROWS = 30
LIBRARIES = {"scikit-learn": "sklearn", "torch": "torch", "keras": "keras"}


def of_sklearn(rng, dtype, x):
    """A little trained, so that the weights are not as they began."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    sizes = tuple(map(int, rng.integers(1, 12, rng.integers(1, 4))))
    options = {
        "hidden_layer_sizes": sizes,
        "activation": str(rng.choice(["identity", "logistic", "tanh", "relu"])),
        "max_iter": 2,
        "random_state": int(rng.integers(1000)),
    }
    classes = int(rng.integers(0, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if classes < 2:
            y = rng.standard_normal((ROWS, classes + 1)).astype(dtype)
            mlp = MLPRegressor(**options).fit(x, y[:, 0] if classes == 0 else y)
            want = mlp.predict(x).reshape(ROWS, -1)
        else:
            mlp = MLPClassifier(**options).fit(x, np.arange(ROWS) % classes)
            want = mlp.predict_proba(x)
    net = fnn.from_sklearn(mlp)
    got = net.predict(x)
    if classes == 2:
        got = np.hstack([1 - got, got])
    return net, got, want


def of_torch(rng, dtype, x):
    import torch
    from torch import nn

    torch.manual_seed(int(rng.integers(1000)))
    chosen, width = [], x.shape[1]
    activations = [
        *(nn.ReLU, nn.SELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softsign, nn.GELU, nn.ELU),
        *(nn.Softplus, nn.Identity, lambda: nn.Softmax(-1), lambda: nn.LeakyReLU(0.2)),
    ]
    for _ in range(rng.integers(1, 5)):
        fan_out = int(rng.integers(1, 20))
        chosen.append(nn.Linear(width, fan_out, bias=bool(rng.integers(2))))
        if rng.integers(3) == 0:
            chosen.append(nn.BatchNorm1d(fan_out))
        elif rng.integers(3) == 0 and fan_out > 3:  # of two values it would magnify what is lost
            chosen.append(nn.LayerNorm(fan_out))
        chosen.append(rng.choice(activations)())
        chosen.append(nn.Dropout(0.3))
        width = fan_out
    module = nn.Sequential(*chosen).to(getattr(torch, dtype))
    module(torch.tensor(x))  # running means that are not 0 and 1
    module.eval()
    net = fnn.from_torch(module)
    return net, net.predict(x), module(torch.tensor(x)).detach().numpy()


def of_keras(rng, dtype, x):
    import keras
    from keras import layers

    keras.utils.set_random_seed(int(rng.integers(1000)))
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    activations = [
        *("linear", "relu", "elu", "selu", "gelu", "silu", "mish", "sigmoid", "softsign"),
        *("softplus", "softmax", "leaky_relu"),
    ]
    others = [
        *(layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Softmax, layers.Flatten),
        *(lambda: layers.Dropout(0.2), lambda: layers.GaussianNoise(0.2)),
        lambda: layers.Rescaling(0.5, 0.1),
    ]
    if dtype == "float32":  # what Keras computes so even where all is float64
        activations.append("tanh")
        others += [layers.LayerNormalization]
        others += [lambda: layers.BatchNormalization(scale=bool(rng.integers(2)))]
    tensor = first = keras.Input((x.shape[1],), dtype=dtype)
    if rng.integers(2):
        scaling = layers.Normalization()
        scaling.adapt(x)
        tensor = scaling(tensor)
    for _ in range(rng.integers(1, 5)):
        units, name = int(rng.integers(4, 20)), str(rng.choice(activations))
        tensor = layers.Dense(units, name, use_bias=bool(rng.integers(2)))(tensor)
        tensor = rng.choice(others)()(tensor)
    model = keras.Model(first, tensor)
    if rng.integers(2):
        model = keras.Sequential([keras.Input((x.shape[1],), dtype=dtype), *model.layers[1:]])
    for weight in model.weights:
        if "mean" not in weight.path and "var" not in weight.path and weight.dtype == dtype:
            weight.assign(weight + 0.1 * rng.standard_normal(weight.shape).astype(dtype))
    with tempfile.TemporaryDirectory() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Keras's own, of numpy
            model.save(f"{folder}/model.keras")
        net = fnn.from_keras(f"{folder}/model.keras")
    return net, net.predict(x), np.asarray(model(x, training=False))


def run(count):
    os.environ.setdefault("KERAS_BACKEND", "jax")  # the one that keeps float64
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    makers = {"scikit-learn": of_sklearn, "torch": of_torch, "keras": of_keras}
    here = [name for name in makers if importlib.util.find_spec(LIBRARIES[name])]
    figures = {"cases": 0, "failures": 0}
    for name in makers:
        figures[name] = 0 if name in here else "not installed"
    largest = dict.fromkeys(CLOSE, 0.0)
    for case in range(count):
        name, dtype = here[case % len(here)], list(CLOSE)[case // len(here) % 2]
        rng = np.random.default_rng(case)
        x = rng.standard_normal((ROWS, rng.integers(1, 15))).astype(dtype)
        net, got, want = makers[name](rng, dtype, x)
        error = np.abs(got - want).max() / max(np.abs(want).max(), 1e-3)
        good = net.dtype == dtype and got.shape == want.shape and error <= CLOSE[dtype]
        figures["cases"] += 1
        figures["failures"] += not good
        figures[name] += 1
        largest[dtype] = max(largest[dtype], float(error))
        if not good:
            print(f"case {case}: {name} {dtype}, {error:.1e} off: {net}")
    figures |= {f"largest error, {dtype}": f"{error:.1e}" for dtype, error in largest.items()}
    return figures
