"""Activations: against torch, at 0 and far from it, and what the API says about them."""

import math
import re

import numpy as np
import pytest
from numba import config, njit

import fastnn as fnn
from fastnn.kernels import rectifiers
from fastnn.kernels._kernel import JIT, KERNELS, OPTIONS
from fastnn.kernels._op import OPS
from fastnn.layers import ALPHAS

NAMES = [op.name for op in OPS.values() if op.role == "activation"]
ELEMENTWISE = [name for name in NAMES if name != "softmax"]
SLOPED = [name for name in ELEMENTWISE if OPS[name].backward is not None]
STRAIGHT = ["linear", "relu", "leaky_relu", "elu", "selu"]  # above 0: their slope asks where x is
SCALE, ALPHA = rectifiers.SELU_SCALE, rectifiers.SELU_ALPHA
FLOOR = SCALE * ALPHA
INF = np.inf

each_format = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
each_activation = pytest.mark.parametrize("name", NAMES)


def forward(name, x, by="kernel"):
    entry = KERNELS[f"{name}_forward"]
    given = {"x": x, "alpha": ALPHAS.get(name), "out": np.empty_like(x)}
    return call(entry, given, by)


def slope(name, x, by="kernel"):
    entry = KERNELS[f"{name}_backward"]
    given = {
        "x": x,
        "out": forward(name, x, by).astype(x.dtype),
        "alpha": ALPHAS.get(name),
        "grad_out": np.ones_like(x),
        "grad_x": np.empty_like(x),
    }
    return call(entry, given, by)


def call(entry, given, by):
    """A kernel or its reference; compiled code never warns, the same formulas in numpy may."""
    with np.errstate(all="ignore"):
        if by == "reference":
            return np.asarray(entry.reference(**{name: given[name] for name in entry.inputs}))
        entry.run(*(given[name] for name in entry.shapes))
    return given[entry.writes[0]]


# Against torch


def torch_functions(torch):
    f = torch.nn.functional
    return {
        "linear": lambda x: x * 1,
        "relu": f.relu,
        "leaky_relu": lambda x: f.leaky_relu(x, 0.2),
        "elu": lambda x: f.elu(x, 0.7),
        "selu": f.selu,
        "gelu": f.gelu,
        "silu": f.silu,
        "mish": f.mish,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "softsign": f.softsign,
        "softplus": lambda x: f.softplus(x, threshold=1e3),  # by default it gives up above 20
        "exponential": torch.exp,
        "softmax": lambda x: torch.softmax(x, 1),
    }


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize("name", [*SLOPED, "softmax"])
def test_output_and_gradient_are_those_of_torch(name, backend):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.standard_normal((40, 3)) * spread for spread in (1e-6, 0.3, 1, 8)])
    x[-1] = 0, -0.0, 5
    y = rng.standard_normal(x.shape)
    options = {"alpha": {"leaky_relu": 0.2, "elu": 0.7}[name]} if name in ALPHAS else {}
    layers = [fnn.Activation(name, **options)]
    net = fnn.Network(
        layers, input_shape=(3,), loss="quadratic", dtype="float64", backend=backend, seed=0
    )
    given = torch.tensor(x, requires_grad=True)
    out = torch_functions(torch)[name](given)
    (((out - torch.tensor(y)) ** 2).sum() / 2 / len(x)).backward()
    np.testing.assert_allclose(net.predict(x), out.detach().numpy(), rtol=1e-10, atol=1e-10)
    gradient = net.gradients(x, y)["x"]
    np.testing.assert_allclose(gradient, given.grad.numpy(), rtol=1e-10, atol=1e-10)


# At 0, and far from it

# name: value at 0, 1000 and -1000, slope at 0, 1000 and -1000
LIMITS = {
    "linear": (0, 1000, -1000, 1, 1, 1),
    "relu": (0, 1000, 0, 0, 1, 0),
    "leaky_relu": (0, 1000, -10, 0.01, 1, 0.01),
    "elu": (0, 1000, -1, 1, 1, 0),
    "selu": (0, 1000 * SCALE, -FLOOR, FLOOR, SCALE, 0),
    "gelu": (0, 1000, 0, 0.5, 1, 0),
    "silu": (0, 1000, 0, 0.5, 1, 0),
    "mish": (0, 1000, 0, 0.6, 1, 0),
    "sigmoid": (0.5, 1, 0, 0.25, 0, 0),
    "tanh": (0, 1, -1, 1, 0, 0),
    "softsign": (0, 1000 / 1001, -1000 / 1001, 1, 1001**-2, 1001**-2),
    "softplus": (math.log(2), 1000, 0, 0.5, 1, 0),
    "exponential": (1, INF, 0, 1, INF, 0),
    "step": (0, 1, 0, None, None, None),
}


@each_format
@pytest.mark.parametrize("by", ["kernel", "reference"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_limits(name, by, dtype):
    x = np.array([0, 1000, -1000], dtype)
    eps = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(forward(name, x, by), LIMITS[name][:3], rtol=eps)
    if name in SLOPED:
        np.testing.assert_allclose(slope(name, x, by), LIMITS[name][3:], rtol=eps)


@each_format
@pytest.mark.parametrize("by", ["kernel", "reference"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_stays_nan(name, by, dtype):
    x = np.array([1, np.nan, -1, np.nan], dtype)
    assert np.isnan(forward(name, x, by)).tolist() == [False, True, False, True]
    if name in SLOPED:
        curved = name not in STRAIGHT
        assert np.isnan(slope(name, x, by)).tolist() == [False, curved, False, curved]


@each_format
@pytest.mark.parametrize("by", ["kernel", "reference"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_zeros_of_either_sign(name, by, dtype):
    zeros = np.array([0.0, -0.0], dtype)
    keeps = LIMITS[name][0] == 0 and name not in ("relu", "step")  # these give 0 below 0
    assert np.signbit(forward(name, zeros, by)).tolist() == [False, keeps]
    if name in SLOPED:
        assert len(set(slope(name, zeros, by).tolist())) == 1


@each_format
@pytest.mark.parametrize("name", [n for n in SLOPED if n != "exponential"])
def test_the_largest_numbers_overflow_nowhere(name, dtype):
    most = np.finfo(dtype).max
    x = np.array([most, -most, most / 2, -most / 2], dtype)
    values = forward(name, x / dtype(2))  # selu makes its input larger
    assert np.isfinite(values).all()
    assert np.isfinite(slope(name, x)).all()


@pytest.mark.parametrize("name", [n for n in SLOPED if n != "exponential"])
def test_formulas_in_numpy_do_not_even_warn(name):
    """``1 / (1 + exp(-x))`` overflows at -1000: the value survives, with a warning."""
    x = np.array([-1000.0, 1000.0])
    alpha = ALPHAS.get(name)
    for part in ("forward", "backward"):
        entry = KERNELS[f"{name}_{part}"]
        given = {"x": x, "alpha": alpha, "out": forward(name, x), "grad_out": np.ones(2)}
        assert np.isfinite(entry.reference(**{name: given[name] for name in entry.inputs})).all()


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_relu_has_slope_0_at_0_on_every_path(backend, zero):
    """As an op of its own, and as part of the dense layers on either side."""
    for layers in (
        [fnn.Dense(1, "relu")],
        [fnn.Dense(1, "relu"), fnn.Dense(1, weight_initializer="ones")],
    ):
        options = {"loss": "mse", "dtype": "float64", "backend": backend, "seed": 0}
        net = fnn.Network(layers, input_shape=(1,), **options)
        gradients = net.gradients([[zero]], [1.0])
        assert gradients["0.bias"] == 0 and gradients["x"] == 0


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_digits_are_kept_at_every_size(name):
    """Relative error of float32, near 0 and in the tails, where short formulas have lost all."""
    size = np.geomspace(1e-30, 25, 4001).astype(np.float32)
    for x in (size, -size):
        want = forward(name, x.astype(np.float64), "reference")
        error = np.abs(forward(name, x) - want)
        assert (error <= 10 * np.finfo(np.float32).eps * np.abs(want) + 1e-44).all()


def test_tails_of_gelu_silu_and_mish_in_float64():
    x = np.array([-1e-9, -0.5, -8, -20, -37])
    distribution = np.array([math.erfc(-z / math.sqrt(2)) / 2 for z in x])
    np.testing.assert_allclose(forward("gelu", x), x * distribution, rtol=2e-13)
    np.testing.assert_allclose(forward("silu", x), x / (1 + np.exp(-x)), rtol=1e-15)
    share = np.tanh(np.log1p(np.exp(x)))
    np.testing.assert_allclose(forward("mish", x), x * share, rtol=2e-15)
    np.testing.assert_allclose(forward("softplus", x), np.log1p(np.exp(x)), rtol=1e-15)
    np.testing.assert_allclose(forward("elu", x), np.expm1(x), rtol=1e-15)


@pytest.mark.skipif(not JIT or bool(config.BOUNDSCHECK), reason="nothing is vectorised then")
@each_format
@pytest.mark.parametrize("part", ["forward", "backward"])
@pytest.mark.parametrize("name", [n for n in SLOPED if n != "linear"])
def test_loops_are_vectorised(name, part, dtype):
    entry = KERNELS[f"{name}_{part}"]
    loop = njit(fastmath={"contract"}, **OPTIONS)(entry.run.py_func)
    loop(*(np.ones(1, dtype) if dims else 0.5 for dims in entry.shapes.values()))
    (code,) = loop.inspect_llvm().values()
    word = {np.float32: "float", np.float64: "double"}[dtype]
    assert re.search(rf"store <\d+ x {word}>", code)
    assert not re.search(r"call .*@(llvm\.)?(expm1|exp|log1p|log|tanh|erfc?)f?\b", code)


# What the API says


def test_alpha_by_default_depends_on_the_name():
    assert fnn.Activation("leaky_relu").alpha == 0.01
    assert fnn.Activation("elu").alpha == 1
    assert repr(fnn.Activation("elu", alpha=0.5)) == "Activation('elu', alpha=0.5)"
    assert repr(fnn.Activation("gelu")) == "Activation('gelu')"
    assert fnn.Activation("relu").alpha is None


def test_alpha_of_an_activation_that_has_none():
    with pytest.raises(ValueError, match="alpha belongs to leaky_relu and elu; relu has none"):
        fnn.Activation("relu", alpha=0.1)
    with pytest.raises(ValueError, match="alpha must be finite"):
        fnn.Activation("elu", alpha=float("nan"))


def test_alpha_reaches_the_kernel():
    for backend in ("compiled", "numpy"):
        layers = [fnn.Activation("elu", alpha=3)]
        net = fnn.Network(layers, input_shape=(1,), backend=backend)
        assert net.predict([[-1000.0], [2.0]]).ravel().tolist() == [-3, 2]


def test_only_straight_rectifiers_ride_along_with_dense_layers():
    def ops(name):
        layers = [fnn.Dense(3, name), fnn.Dense(2)]
        plan = fnn.Network(layers, input_shape=(2,)).plan
        return [re.split("  +", line)[1] for line in str(plan).splitlines()[1:-1]]

    assert ops("relu")[:2] == ["dense relu", "dense"]
    assert ops("leaky_relu")[:2] == ["dense leaky_relu", "dense"]
    assert ops("elu")[:3] == ["dense", "elu", "dense"]


@pytest.mark.parametrize(
    ("typed", "first"),
    [("gleu", "gelu"), ("ReLU", "relu"), ("Softplus", "softplus"), ("hardtanh", "tanh")],
)
def test_unknown_names_list_every_known_one_nearest_first(typed, first):
    with pytest.raises(ValueError) as error:
        fnn.Dense(1, typed)
    names = re.fullmatch(r"activation must be one of (.*); got '\w+'", str(error.value))[1]
    assert names.split(", ")[0] == first
    assert sorted(names.split(", ")) == sorted(NAMES)


# step


def perceptron(backend="compiled"):
    """NAND, with the weights of Nielsen's chapter 1."""
    layers = [fnn.Dense(1, "step")]
    net = fnn.Network(layers, input_shape=(2,), loss="mse", backend=backend, seed=0)
    net.params = [-2, -2, 3]
    return net


PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
NAND = np.array([1, 1, 1, 0])


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_step_predicts(backend):
    net = perceptron(backend)
    assert net.predict(PAIRS).ravel().tolist() == NAND.tolist()
    assert net.evaluate(PAIRS, NAND)["loss"] == 0


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_step_cannot_be_trained_and_says_so(backend):
    net = perceptron(backend)
    before = net.params.copy()
    for train in (net.fit, net.gradients):
        with pytest.raises(ValueError, match=r"layer 0, Dense\(1, 'step'\): step has no gradient"):
            train(PAIRS, NAND)
    assert np.array_equal(net.params, before)


def test_step_in_the_middle_is_named():
    layers = [fnn.Dense(3, "tanh"), fnn.Activation("step"), fnn.Dense(1)]
    with pytest.raises(ValueError, match=r"layer 1, Activation\('step'\): step has no gradient"):
        fnn.Network(layers).fit(PAIRS, NAND)


# Where weights begin


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        *((n, 2 / 300) for n in ("relu", "leaky_relu", "elu", "gelu", "silu", "mish")),
        ("selu", 1 / 300),
        *((n, 2 / 500) for n in ("linear", "tanh", "sigmoid", "softplus", "softsign", "softmax")),
    ],
)
def test_weights_begin_as_suits_the_activation(name, variance):
    net = fnn.Network([fnn.Dense(200, name)], input_shape=(300,), seed=0)
    assert net.layers[0].weight.var() == pytest.approx(variance, rel=0.03)


def test_selu_keeps_mean_and_variance_from_layer_to_layer():
    net = fnn.Network([fnn.Dense(300, "selu") for _ in range(12)], input_shape=(300,), seed=0)
    out = net.predict(np.random.default_rng(0).standard_normal((200, 300)))
    assert abs(out.mean()) < 0.1 and out.var() == pytest.approx(1, abs=0.15)


def test_the_documentation_names_every_activation():
    for name in ELEMENTWISE:
        assert f"``{name}``" in fnn.Activation.__doc__
