"""Exports: C, numpy and njit say what `predict` says, for every op, and a C compiler is content."""

import ast
import copy
import ctypes
import errno
import os
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

import fastnn as fnn
from fastnn import export, export_c
from fastnn.kernels._kernel import JIT
from fastnn.kernels._op import OPS
from tests.test_plan import NETWORKS

AS_USERS_RUN_IT = JIT and os.environ.get("NUMBA_BOUNDSCHECK") != "1"
COMPILERS = {"gcc": ["-std=c99"], "g++": ["-std=c++17"]}
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wdouble-promotion", "-O2"]
WIDTH, ROWS = 40, 1000
# Ops that `predict` never runs: others take their place there.
TRAINING_ONLY = {"dropout", "gaussian_noise", "batch_norm"}
DATA = np.random.default_rng(7).standard_normal((50, WIDTH)) * 3 + 1
LAYERS = {
    "dense": lambda: fnn.Dense(24),
    "conv2d": lambda: fnn.Conv2D(3, (3, 2), strides=(2, 1), padding="same"),
    "max_pool2d": lambda: fnn.MaxPool2D(2, 1),
    "average_pool2d": lambda: fnn.AveragePool2D(2, 1),
    "embedding": lambda: fnn.Embedding(11, 3),
    "running_norm": lambda: fnn.BatchNorm(),
    "layer_norm": lambda: fnn.LayerNorm(),
    "standardize": lambda: fnn.Normalization().adapt(DATA),
    "rescaling": lambda: fnn.Rescaling(0.3, 0.1),
}
ACTIVATIONS = [name for name, op in OPS.items() if op.role == "activation"]
ROW_WISE, WIDTHS = ["softmax", "layer_norm", "running_norm"], [2, 3, 5, 10, 33, 257, 1000]
EXACT = {"linear", "step", "relu", "leaky_relu", "embedding", "max_pool2d"}
IMAGE = (2, 4, 5)  # as many numbers as WIDTH


def single(op, dtype, width=WIDTH):
    """A network of this op alone, with random parameters."""
    layer = LAYERS[op]() if op in LAYERS else fnn.Activation(op)
    shape = IMAGE if "2d" in op else (width,)
    net = fnn.Network([layer], input_shape=shape, seed=0, dtype=dtype)
    rng = np.random.default_rng(1)
    net.params = rng.standard_normal(net.params.shape)
    if op == "running_norm":
        net.layers[0].running_var[...] = rng.uniform(0.1, 3, width)
    if op == "embedding":  # every bit must come back, of the strangest numbers too
        limits = np.finfo(dtype)
        net.layers[0].weight[0] = limits.max, limits.smallest_subnormal, -0.0
        net.layers[0].weight[1] = limits.tiny, 1 / 3, limits.min
    return net


def inputs(net, rows, scale=1.0):
    rng, shape = np.random.default_rng(5), (rows, *net.plan.in_shape)
    if isinstance(net.layers[0], fnn.Embedding):
        return rng.integers(0, 11, shape).astype(net.dtype)
    return (rng.standard_normal(shape) * scale).astype(net.dtype)


def magnitude(net, x, out):
    """What an error of one ULP is one of: a value, or the largest part of it that was added up."""
    layer = net.layers[0]
    if isinstance(layer, fnn.Dense):
        return np.abs(x) @ np.abs(layer.weight) + np.abs(layer.bias)
    if isinstance(layer, fnn.Conv2D | fnn.AveragePool2D):
        net = copy.deepcopy(net)
        net.params = np.abs(net.params)
        return net.predict(np.abs(x))
    if isinstance(layer, fnn.Rescaling):
        return np.abs(x) * 0.3 + 0.1
    if isinstance(layer, fnn.Normalization):
        return (np.abs(x) + np.abs(layer.bias)) * np.abs(layer.weight)
    if isinstance(layer, fnn.BatchNorm | fnn.LayerNorm):
        one_row = isinstance(layer, fnn.LayerNorm)
        mean = x.mean(axis=1, keepdims=True) if one_row else layer.running_mean
        var = x.var(axis=1, keepdims=True) if one_row else layer.running_var
        factor = np.abs(layer.weight) / np.sqrt(var + layer.epsilon)
        return (np.abs(x) + np.abs(mean)) * factor + np.abs(layer.bias)
    return np.abs(out)


@pytest.fixture(scope="module", params=COMPILERS)
def library(request, tmp_path_factory):
    """Every op in both dtypes, as one shared library made by one compiler."""
    nets = {op: WIDTH for op in [*LAYERS, *ACTIVATIONS]}
    return compiled(request.param, tmp_path_factory.mktemp("c"), nets)


@pytest.fixture(scope="module")
def wide_library(tmp_path_factory):
    """What looks at a row, of a few and of many columns."""
    nets = {f"{op}{width}": width for op in ROW_WISE for width in WIDTHS}
    return compiled("gcc", tmp_path_factory.mktemp("c"), nets)


def compiled(compiler, folder, nets):
    """Networks of one op and of the width given, whose names begin with the op's."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    source = []
    for dtype, real in (("float32", "float"), ("float64", "double")):
        for named, width in nets.items():
            name, op = f"{named}_{dtype}", named.rstrip("0123456789")
            single(op, dtype, width).export_c(folder / f"{name}.h")
            source.append(
                f'#include "{name}.h"\n'
                "#ifdef __cplusplus\n" + f'extern "C"\n#endif\nvoid {name}_rows(const {real} *x, '
                f"int rows, {real} *out);\nvoid {name}_rows(const {real} *x, int rows, {real} *out)"
                f"\n{{\n    for (int i = 0; i < rows; i++)\n        {name}_predict(x + i * "
                f"{name.upper()}_FAN_IN, out + i * {name.upper()}_FAN_OUT);\n}}\n"
            )
    (folder / "all.c").write_text("\n".join(source))
    language = ["-x", "c++"] if compiler == "g++" else []
    subprocess.run(
        [compiler, *COMPILERS[compiler], *STRICT, "-fPIC", "-shared", *language, "all.c", "-lm"],
        cwd=folder,
        check=True,
    )
    return ctypes.CDLL(str(folder / "a.out"))


def rows_by_c(library, op, net, x):
    out = np.empty((len(x), net.plan.fan_out), net.dtype)
    places = (ctypes.c_void_p(a.ctypes.data) for a in (x, out))
    getattr(library, f"{op}_{net.dtype}_rows")(next(places), len(x), next(places))
    return out


def test_every_op_that_predict_runs_has_a_text_in_c():
    needed = {op.name for op in OPS.values() if op.role in ("layer", "activation")}
    assert needed - TRAINING_ONLY == set(export_c.C) == {*LAYERS, *ACTIVATIONS}


@pytest.mark.skipif(not AS_USERS_RUN_IT, reason="the compiled path is what is compared")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", [*LAYERS, *ACTIVATIONS])
def test_c_is_within_4_ulp_of_predict(library, op, dtype):
    net = single(op, dtype)
    for scale in (0.01, 1, 3):
        x = inputs(net, ROWS, scale)
        got, want = rows_by_c(library, op, net, x), net.predict(x)
        if op in EXACT:
            assert got.tobytes() == want.tobytes()
            continue
        assert ulps_apart(net, x, got, want) <= 4


def ulps_apart(net, x, got, want):
    """The largest difference, in units in the last place."""
    error = np.abs(got.astype(np.longdouble) - want.reshape(got.shape))
    return (error / np.spacing(magnitude(net, x, want)).reshape(got.shape)).max()


@pytest.mark.skipif(not AS_USERS_RUN_IT, reason="the compiled path is what is compared")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("op", ROW_WISE)
def test_rows_of_any_width_and_spread(wide_library, op, width, dtype):
    net = single(op, dtype, width)
    x = inputs(net, ROWS).astype(float)
    rng = np.random.default_rng(9)
    for factor, offset in ((1, 0), (np.exp(rng.uniform(-5, 4, (ROWS, 1))), 0), (1, 10)):
        rows = (x * factor + offset * rng.standard_normal((ROWS, 1))).astype(dtype)
        got, want = rows_by_c(wide_library, f"{op}{width}", net, rows), net.predict(rows)
        assert ulps_apart(net, rows, got, want) <= 4


@pytest.mark.skipif(not AS_USERS_RUN_IT, reason="the compiled path is what is compared")
@pytest.mark.parametrize(("dtype", "lowest"), [("float32", -110), ("float64", -760)])
@pytest.mark.parametrize("op", ["gelu", "silu", "mish"])
def test_digits_are_kept_below_the_normal_range(library, op, dtype, lowest):
    """A factor that has lost digits there, times x, would lose as many as x is large."""
    net = single(op, dtype)
    x = np.linspace(lowest, -10, ROWS * WIDTH).reshape(ROWS, WIDTH).astype(dtype)
    got, want = rows_by_c(library, op, net, x), net.predict(x)
    assert ulps_apart(net, x, got, want) <= 4
    assert (want == 0).any() and ((want != 0) & (np.abs(want) < np.finfo(dtype).tiny)).any()


@pytest.mark.skipif(not AS_USERS_RUN_IT, reason="the compiled path is what is compared")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30, -1e30])
def test_c_treats_what_is_no_usual_number_as_predict_does(library, value, dtype):
    for op in [*LAYERS, *ACTIVATIONS]:
        net = single(op, dtype)
        if op == "embedding":
            continue
        x = inputs(net, 2)
        x.reshape(2, -1)[1, 3] = value
        got = rows_by_c(library, op, net, x)[1]
        if np.isfinite(value):
            assert np.array_equal(np.isfinite(got), np.isfinite(net.predict(x)[1].ravel())), op
        elif np.isnan(value):
            assert np.isnan(got[3]), op


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("rectifiers", "float32"),
        ("normalised", "float64"),
        ("categories", "float32"),
        ("images", "float32"),
        ("smooth", "float32"),
        ("unfused", "float64"),
    ],
)
def test_whole_networks(name, dtype, tmp_path):
    layers, loss, width, _ = NETWORKS[name]
    net = fnn.Network(layers(), loss=loss, input_shape=(width,), seed=1, dtype=dtype)
    x = inputs(net, 20)
    want = net.predict(x)
    most = {"float32": 1e-5, "float64": 1e-12}[dtype] * np.abs(want).max()
    net.export_numpy(tmp_path / "model.py", x=x)
    assert imported(tmp_path / "model.py") <= {"numpy", "math"}
    got = runpy.run_path(tmp_path / "model.py")["predict"](x)
    assert got.dtype == dtype and np.abs(got - want).max() <= most
    net.export_njit(tmp_path / "model.py", x=x)
    assert imported(tmp_path / "model.py") <= {"numpy", "math", "numba"}
    if AS_USERS_RUN_IT:
        got = runpy.run_path(tmp_path / "model.py")["predict"](x)
        assert got.dtype == dtype and np.abs(got - want).max() <= most
    net.export_c(tmp_path / "model.h", x=x)
    runs(tmp_path, "model")


def imported(path):
    return {
        name.name.split(".")[0] if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }


def runs(folder, name, code=0):
    """The header as a program."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    options = [*COMPILERS["gcc"], *STRICT, f"-D{name.upper()}_MAIN", f"{name}.h", "-lm"]
    subprocess.run(["gcc", "-x", "c", *options], cwd=folder, check=True)
    run = subprocess.run([folder / "a.out"], capture_output=True, text=True)
    assert run.returncode == code and "largest difference" in run.stdout


def small(**options):
    layers = [
        fnn.Flatten(),
        fnn.Dense(4, "relu", use_bias=False),
        fnn.Dense(6),
        fnn.Reshape((3, 2)),
    ]
    options = {"seed": 0, **options}
    return fnn.Network([fnn.Input((2, 3), scale=0.5, offset=1), *layers], **options)


@pytest.mark.skipif(not AS_USERS_RUN_IT, reason="compiles")
def test_shapes_scaled_input_and_calls_from_compiled_code(tmp_path):
    net, path = small(), tmp_path / "net.py"
    x = inputs(net, 7)
    net.export_njit(path)
    predict = runpy.run_path(path)["predict"]

    @njit
    def inside(x):
        return predict(x) * 2

    want = net.predict(x)
    assert want.shape == (7, 3, 2)
    np.testing.assert_allclose(inside(x), want * 2, rtol=1e-5)
    np.testing.assert_allclose(predict(x), want, rtol=1e-5)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 2, 3\)"):
        predict(np.ones((7, 2, 4), np.float32))


def test_a_file_tests_itself_and_fails_where_a_weight_is_wrong(tmp_path):
    net = small()
    for write, name in ((net.export_numpy, "net.py"), (net.export_c, "net.h")):
        path = tmp_path / name
        write(path)
        text = path.read_text()
        weight = re.search(r"weight_2.*?\n +(-?\d\.\d+)", text, re.S)[1]
        for wanted, changed in ((0, weight), (1, str(float(weight) + 1))):
            path.write_text(text.replace(weight, changed, 1))
            if name == "net.h":
                runs(tmp_path, "net", wanted)
            else:
                run = subprocess.run([sys.executable, path], capture_output=True, text=True)
                assert run.returncode == wanted, run.stderr
                assert "largest difference" in run.stdout
    with pytest.raises(ValueError, match=r"x must have shape \(n, 2, 3\), got \(3,\)"):
        runpy.run_path(tmp_path / "net.py")["predict"](np.ones(3))


def test_a_network_that_changes_nothing(tmp_path):
    net = fnn.Network([fnn.Flatten(), fnn.Dropout(0.5)], input_shape=(2, 2), seed=0)
    x = inputs(net, 3)
    net.export_numpy(tmp_path / "net.py")
    assert np.array_equal(runpy.run_path(tmp_path / "net.py")["predict"](x), x.reshape(3, 4))
    net.export_c(tmp_path / "net.h")
    runs(tmp_path, "net")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_bit_by_bit(value):
    assert float(export.number_text(value)).hex() == value.hex()


def test_numbers_of_float32_come_back_bit_by_bit():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 20_000, np.uint32)
    bits[:4] = 0, 1 << 31, 1, 0x7F7FFFFF  # zeros, the smallest, the largest
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    read = [float(export.number_text(value)) for value in values]
    assert np.array(read).astype(np.float32).tobytes() == values.tobytes()


class Rude(fnn.Dense):
    """Tries to end a comment, a docstring and a line."""

    def __repr__(self):
        return 'Rude */ int x; /* """\n1/0\n \\ ??/ é'


def test_nothing_of_a_network_is_pasted_as_code(tmp_path):
    net = fnn.Network([Rude(2)], input_shape=(3,), seed=0)
    net.export_c(tmp_path / "rude.h")
    runs(tmp_path, "rude")
    for write in (net.export_numpy, net.export_njit):
        write(tmp_path / "rude.py")
        ast.parse((tmp_path / "rude.py").read_text())
    net.export_numpy(tmp_path / "rude.py")
    runpy.run_path(tmp_path / "rude.py")


@pytest.mark.parametrize("name", ["2d", "a b", "", "_x", "a__b", "a_", "é", "x;", 3])
def test_names_that_c_does_not_take(name, tmp_path):
    with pytest.raises(ValueError, match=r"name must begin with a letter.*got"):
        small().export_c(tmp_path / "net.h", name=name)
    assert not (tmp_path / "net.h").exists()


def test_the_name_is_the_files_unless_given(tmp_path):
    small().export_c(tmp_path / "policy.h")
    assert "policy_predict(const float *x" in (tmp_path / "policy.h").read_text()
    small().export_c(tmp_path / "my-policy.h", name="other")
    assert "other_predict(const float *x" in (tmp_path / "my-policy.h").read_text()
    with pytest.raises(ValueError, match="got 'my-policy'"):
        small().export_c(tmp_path / "my-policy.h")


@pytest.mark.parametrize("method", ["export_c", "export_numpy", "export_njit"])
def test_what_cannot_be_exported(method, tmp_path):
    path = tmp_path / "net"
    with pytest.raises(AttributeError, match="input_shape"):
        getattr(fnn.Network([fnn.Dense(2)]), method)(path)
    net = small()
    net.params[3] = np.nan
    with pytest.raises(ValueError, match=r"1\.weight must hold finite numbers"):
        getattr(net, method)(path)
    net = fnn.Network([fnn.Activation("exponential")], input_shape=(1,))
    with pytest.raises(ValueError, match="must have finite outputs"):
        getattr(net, method)(path, x=[[1e3]])
    with pytest.raises(ValueError, match="x must have shape"):
        getattr(small(), method)(path, x=[[1.0, 2.0]])
    assert not path.exists()


@pytest.mark.parametrize("method", ["export_c", "export_numpy", "export_njit"])
def test_a_file_is_replaced_whole_or_not_at_all(method, tmp_path, monkeypatch):
    net, path = single("tanh", "float32"), tmp_path / "model"
    path.write_text("old")

    def full(descriptor, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left on device; nothing was saved"):
            getattr(net, method)(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["model"]
    getattr(net, method)(path)
    assert "tanh" in path.read_text() and os.listdir(tmp_path) == ["model"]


def test_an_op_without_a_text_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(export_c.C, "dense")
    with pytest.raises(NotImplementedError, match="no text for dense; it has average_pool2d"):
        small().export_c(tmp_path / "net.h")


def test_the_command(tmp_path, capsys):
    from fastnn.cli import main

    net, file = small(backend="numpy"), str(tmp_path / "net.safetensors")
    net.save(file)
    for name, options in (("net.h", []), ("net.py", []), ("net.py", ["--njit"])):
        assert main(["export", file, str(tmp_path / name), *options]) == 0
        assert "predict(" in (tmp_path / name).read_text()
    for wrong, message in (
        ([file, "net.c"], "FILE must end in .h or .py, got 'net.c'"),
        ([file, "net.h", "--njit"], "--name goes with .h, --njit with .py"),
        ([file, "net.h", "--name", "2d"], "name must begin with a letter"),
        ([str(tmp_path / "net.py"), "net.h"], "'net.py'"),
        ([str(tmp_path / "none"), "net.h"], "No such file"),
    ):
        assert main(["export", *wrong]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
