"""The elementary functions against wider arithmetic: errors in units in the last place (ULP)."""

import re

import numpy as np
import pytest
from numba import config, njit

from fastnn.kernels import activations, elementary
from fastnn.kernels._kernel import JIT, OPTIONS, SUMS

BITS = {np.float32: np.uint32, np.float64: np.uint64}
LONG = np.finfo(np.longdouble).nmant >= 63
WIDER = {np.float32: np.float64, np.float64: np.longdouble if LONG else np.float64}
BOUND = {np.float32: 2, np.float64: 4 if LONG else 5}  # numpy's float64 may itself be 1 ULP off
LOOSE = {"normal": {np.float32: 4, np.float64: 4}}  # a quotient times an exponential


def exact_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def exact_normal(x):
    """Phi(x), by its series near 0 and by the tail's continued fraction far from it."""
    z = np.minimum(np.abs(x), 200)  # of no weight in any format, but with a square
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.arccos(x.dtype.type(-1)))
    near, term = np.zeros_like(z), z.copy()
    for n in range(1, 80):
        near += term
        term = term * z * z / (2 * n + 1)
    far = z
    for n in range(120, 0, -1):
        far = z + n / far
    tail = np.where(z < 3, 0.5 - density * near, density / far)
    return np.where(x < 0, tail, 1 - tail)


EXACT = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sigmoid": exact_sigmoid,
    "tanh": np.tanh,
    "normal": exact_normal,
}
KERNELS = {
    "exp": elementary.exp,
    "expm1": elementary.expm1,
    "log": elementary.log,
    "log1p": elementary.log1p,
    "sigmoid": activations.sigmoid_forward,
    "tanh": activations.tanh_forward,
    "normal": elementary.normal,
}
INF, NAN = np.inf, np.nan
SPECIAL = {
    "exp": {-INF: 0, INF: INF, NAN: NAN, 0.0: 1, -1e4: 0, 1e4: INF},
    "expm1": {-INF: -1, INF: INF, NAN: NAN, 0.0: 0.0, -1e4: -1, 1e4: INF},
    "log": {-INF: NAN, INF: INF, NAN: NAN, 0.0: -INF, -1: NAN, 1: 0},
    "log1p": {-INF: NAN, INF: INF, NAN: NAN, 0.0: 0.0, -1: -INF, -2: NAN},
    "sigmoid": {-INF: 0, INF: 1, NAN: NAN, 0.0: 0.5, -1e4: 0, 1e4: 1},
    "tanh": {-INF: -1, INF: 1, NAN: NAN, 0.0: 0.0, -50: -1, 50: 1},
    "normal": {-INF: 0, INF: 1, NAN: NAN, 0.0: 0.5, -1e4: 0, 1e4: 1},
}
ODD = ["expm1", "log1p", "tanh"]  # close to 0 they are x, with its sign

each_format = pytest.mark.parametrize("dtype", BITS, ids=lambda dtype: dtype.__name__)
each_function = pytest.mark.parametrize("name", EXACT)


def run(name, x):
    out = np.empty_like(x)
    with np.errstate(over="ignore", invalid="ignore"):  # Python warns, compiled code does not
        KERNELS[name](x, out)
    return out


def ulps(got, exact):
    """Distance in ULP of the format of ``got``; inf where only one of the two is NaN."""
    info = np.finfo(got.dtype)
    # Overflow counts as the largest number: at the border inf is within one ULP of it.
    got, exact = (np.clip(y.astype(exact.dtype), -info.max, info.max) for y in (got, exact))
    exponent = np.where(exact == 0, info.minexp, np.frexp(exact)[1] - 1)
    ulp = np.ldexp(exact.dtype.type(1), np.maximum(exponent, info.minexp) - info.nmant)
    distance = np.abs(got - exact) / ulp
    distance[np.isnan(got) != np.isnan(exact)] = np.inf
    return np.nan_to_num(distance, nan=0, posinf=np.inf)


def check(name, x):
    if not JIT:
        x = x[:: max(1, len(x) // 300)]
    dtype = x.dtype.type
    with np.errstate(all="ignore"):
        errors = ulps(run(name, x), EXACT[name](x.astype(WIDER[dtype])))
    worst = errors.argmax()
    assert errors[worst] <= LOOSE.get(name, BOUND)[dtype], (
        f"{name}({x[worst]!r}) is {errors[worst]:.2f} ULP off"
    )


@each_format
@each_function
def test_every_exponent(name, dtype):
    info = np.finfo(dtype)
    power = np.ldexp(dtype(1), np.arange(info.minexp - info.nmant, info.maxexp))
    x = np.concatenate([power, np.nextafter(power, dtype(0)), np.nextafter(power, info.max)])
    check(name, np.concatenate([x, -x]))


@each_format
@each_function
def test_all_magnitudes(name, dtype):
    # A constant step through the bit patterns spaces the numbers by their logarithm.
    bits, count = BITS[dtype], 1_000_003 if dtype == np.float32 else 100_003
    x = np.arange(count, dtype=bits) * bits(np.iinfo(bits).max // count)
    check(name, x.view(dtype))


@each_format
@each_function
@pytest.mark.parametrize("reach", [0.6, 20, 110, 750])
def test_even_steps(name, dtype, reach):
    check(name, np.linspace(-reach, reach, 100_001, dtype=dtype))


@each_format
@each_function
def test_where_the_reduction_changes(name, dtype):
    near = np.ldexp(np.arange(-40, 41), -2 - np.finfo(dtype).nmant) + 1
    k = np.arange(-1080, 1026) if dtype == np.float64 else np.arange(-152, 130)
    half_way = np.outer((k + 0.5) * np.log(2), near).ravel()  # x / ln 2 rounds up or down
    root = np.outer(np.sqrt([0.5, 2]), near).ravel()  # m = 2 m' and m'
    check(name, np.concatenate([half_way, half_way / 2, root, root - 1, near]).astype(dtype))


@each_format
@each_function
def test_special_values(name, dtype):
    x = np.array(list(SPECIAL[name]), dtype)
    expected = np.array(list(SPECIAL[name].values()), dtype)
    np.testing.assert_array_equal(run(name, x), expected)
    zeros = np.zeros(3, dtype)
    assert np.signbit(run(name, -zeros)).all() == (name == "log" or name in ODD)


@each_format
@pytest.mark.parametrize("name", ODD)
def test_the_smallest_numbers_stay_themselves(name, dtype):
    x = np.finfo(dtype).smallest_subnormal * np.arange(-9, 10, dtype=dtype)
    np.testing.assert_array_equal(run(name, x), x)


@each_format
@each_function
def test_the_same_bits_at_every_place(name, dtype):
    """In a vector or in what is left over behind the last one."""
    for size in (1, 7, 37):
        assert len(set(run(name, np.full(size, 0.7, dtype)).tolist())) == 1


@pytest.mark.skipif(not JIT or bool(config.BOUNDSCHECK), reason="nothing is vectorised then")
@each_format
@each_function
def test_loops_are_vectorised(name, dtype):
    # Compiled here: numba does not show code that comes from the cache.
    loop = njit(fastmath=set(SUMS), **OPTIONS)(KERNELS[name].py_func)
    loop(np.ones(1, dtype), np.ones(1, dtype))
    (code,) = loop.inspect_llvm().values()
    word = {np.float32: "float", np.float64: "double"}[dtype]
    assert re.search(rf"= fmul .*<\d+ x {word}>", code)
    assert not re.search(r"call .*@(llvm\.)?(expm1|exp|log1p|log|tanh|erfc?)f?\b", code)
