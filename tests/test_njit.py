"""A network inside other compiled code: the same numbers as from Python, and no way past an end.

Without the compiler the same functions run as Python, on the network's own methods.
"""

import ctypes
import os
import pickle
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from numba import njit, prange
from numba.core import event, types
from numba.core.errors import TypingError

import fastnn as fnn
from fastnn.kernels import in_njit
from fastnn.kernels._kernel import JIT
from tests.test_plan import NETWORKS, build

compiled_only = pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: nothing is compiled")


@njit
def through(net, x):
    return net(x)


@njit
def into(net, x, out, scratch):
    net.predict_into(x, out, scratch)


@njit
def room(net, rows):
    return net.scratch_size(rows)


def small(*widths, dtype="float32", **options):
    layers = [*(fnn.Dense(w, "tanh") for w in widths), fnn.Dense(2)]
    return fnn.Network(layers, input_shape=(4,), seed=0, dtype=dtype, **options)


@pytest.mark.parametrize(
    ("name", "dtype"), [*((n, "float64") for n in NETWORKS), ("classes", "float32")]
)
def test_rows_and_batches_have_the_bits_of_predict(name, dtype):
    net, x, _ = build(name, dtype=dtype)
    x = x.astype(dtype)
    want = net.predict(x)
    assert np.array_equal(through(net, x), want)
    assert np.array_equal(through(net, x[:5]), want[:5])
    assert through(net, x[3]).tobytes() == want[3].tobytes() == net(x[3]).tobytes()
    assert through(net, x).dtype == net.dtype


@pytest.mark.parametrize("rows", [0, 1, 11, 16, 17, 256, 257, 600])
def test_any_number_of_rows(rows):
    net = small(7)
    x = np.random.default_rng(0).standard_normal((600, 4)).astype(np.float32)
    out, scratch = np.empty((rows, 2), np.float32), np.empty(net.scratch_size(max(rows, 1)), "f4")
    want = net.predict(x)[:rows]
    if rows or JIT:
        into(net, x[:rows], out, scratch)
        assert np.array_equal(out, want) and np.array_equal(through(net, x[:rows]), want)


def test_what_compiled_code_needs_is_what_python_says():
    for net in (small(7), small(300, 5)):
        for rows in (1, 5, 11, 12, 16, 17, 255, 256, 257, 1000):
            assert room(net, rows) == net.scratch_size(rows)


@pytest.mark.parametrize("kind", [np.float64, np.int32, np.uint8, bool])
def test_other_dtypes_and_strides_are_converted(kind):
    net = small(7)
    x = (np.random.default_rng(0).standard_normal((20, 8)) * 3).astype(np.uint8).astype(kind)
    assert np.array_equal(through(net, x[:, ::2]), net.predict(x[:, ::2]))
    assert np.array_equal(through(net, x[3, ::2]), net.predict(x[:, ::2])[3])


def test_an_input_scales_and_a_flatten_takes_flat_rows():
    layers = [fnn.Input((2, 3), scale=1 / 255, offset=-0.5), fnn.Flatten(), fnn.Dense(3)]
    net = fnn.Network([*layers, fnn.Reshape((3, 1))], seed=0)
    x = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)
    want = net.predict(x)
    assert np.array_equal(through(net, x.reshape(10, 6)), want[..., 0])
    assert np.array_equal(through(net, x[2].ravel()), want[2, :, 0])
    assert np.array_equal(net(x), want) and np.array_equal(net(x[2]), want[2])


def test_the_weights_are_seen_as_they_are():
    net = small(7)
    x = np.ones(4, np.float32)
    before = through(net, x)
    net.params *= 2
    assert not np.array_equal(through(net, x), before)
    assert np.array_equal(through(net, x), net.predict(x[None])[0])
    net.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    assert np.array_equal(through(net, x), net.predict(x[None])[0])


def test_a_copy_has_weights_of_its_own():
    net = small(7)
    x = np.ones(4, np.float32)
    want = through(net, x)
    twin = pickle.loads(pickle.dumps(net))
    net.params[:] = 0
    assert np.array_equal(through(twin, x), want)
    assert not through(net, x).any()


@pytest.mark.parametrize("shape", [(3,), (5,), (0,), (2, 3), (20, 5)])
def test_rows_of_another_length_are_refused(shape):
    net = small(7)
    x, out, scratch = np.ones(shape, np.float32), np.ones((2, 2), np.float32), np.ones(10**6, "f4")
    with pytest.raises(ValueError, match="x must"):
        through(net, x)
    with pytest.raises(ValueError, match="x must"):
        into(net, x, out if x.ndim == 2 else out[0], scratch)


def test_room_that_does_not_fit_is_refused():
    net = small(7)
    x, out = np.ones((5, 4), "f4"), np.ones((5, 2), "f4")
    scratch = np.ones(net.scratch_size(5), "f4")
    into(net, x, out, scratch)
    for bad in (np.ones((4, 2), "f4"), np.ones((5, 3), "f4"), np.ones((2, 5), "f4")):
        with pytest.raises(ValueError, match="out must"):
            into(net, x, bad, scratch)
    for bad in (scratch[:-1], scratch[:0]):
        with pytest.raises(ValueError, match="scratch"):
            into(net, x, out, bad)
    with pytest.raises(ValueError, match="out must"):
        into(net, x[0], out[0, :1], scratch)
    for bad in (out.astype(float), out[:, ::-1], np.asfortranarray(out)):
        with pytest.raises((TypeError, TypingError), match="out must be a C-contiguous array"):
            into(net, x, bad, scratch)


def test_what_is_no_array_of_rows_is_refused():
    net = small(7)
    for bad in (np.ones((1, 1, 4)), np.ones(4, complex), "abcd"):
        with pytest.raises((TypeError, ValueError, TypingError), match="x must"):
            through(net, bad)


def test_a_network_that_is_not_built_says_so():
    with pytest.raises(AttributeError, match="input_shape"):
        through(fnn.Network([fnn.Dense(2)]), np.ones(3))


@compiled_only
def test_one_compilation_serves_all_networks():
    x = np.ones(4, np.float32)
    through(small(7), x)
    through(small(7, 9, 5), x)
    before = len(through.signatures)
    with event.install_recorder("numba:compile") as recorder:
        assert through(small(7, 9, 5), x).shape == through(small(300), x).shape == (2,)
    assert len(through.signatures) == before and recorder.buffer == []


@njit
def same(net):
    return net, 1


def test_a_network_comes_back_as_itself():
    net = small(7)
    assert same(net)[0] is net


@njit(parallel=True)
def in_parallel(net, x, out):
    for i in prange(x.shape[0]):
        out[i] = net(x[i])


@compiled_only
def test_calls_at_the_same_time_do_not_meet():
    net = small(30, 30)
    x = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    want = net.predict(x)
    out = np.empty_like(want)
    in_parallel(net, x, out)
    assert np.array_equal(out, want)
    alone = njit(nogil=True)(through.py_func)
    alone(net, x)
    results = [None] * 4

    def work(k):
        results[k] = all(np.array_equal(alone(net, x), want) for _ in range(50))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert results == [True] * 4


@compiled_only
def test_the_type_knows_the_dtype_alone():
    kinds = {in_njit.TYPES[np.dtype(d)] for d in ("float32", "float64")}
    assert {small(3)._numba_type_, small(5, 6, dtype="float64")._numba_type_} == kinds
    assert all(isinstance(pickle.loads(pickle.dumps(k)), types.Type) for k in kinds)
    assert all(pickle.loads(pickle.dumps(k)) is k for k in kinds)


@compiled_only
def test_a_users_function_is_kept_on_disk(tmp_path):
    (tmp_path / "users.py").write_text(
        textwrap.dedent("""
        import numpy as np, fastnn as fnn
        from numba import njit

        @njit(cache=True)
        def rollout(policy, state):
            for _ in range(10):
                state = policy(state)
            return state

        net = fnn.Network([fnn.Dense(5, "tanh"), fnn.Dense(4)], input_shape=(4,), seed=0)
        print(rollout(net, np.ones(4, np.float32)).tobytes().hex())
        print(sum(rollout.stats.cache_hits.values()))
        """)
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", "import users"],
            capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert runs[0][0] == runs[1][0] and [r[1] for r in runs] == ["0", "1"]


DOUBLE = "double (int, double *, void *)"


@compiled_only
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_c_calls_the_network(dtype):
    net = small(7, dtype=dtype)
    f = net.cfunc()
    x = np.random.default_rng(0).standard_normal(4)
    out = np.full(4, 9.0)
    at = (a.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for a in (x, out[1:]))
    x_at, out_at = at
    assert f.ctypes(x_at, 4, out_at, f.user_data) == 1
    assert np.array_equal(out[1:3], net(x)) and out[0] == out[3] == 9
    net.params *= 2
    f.ctypes(x_at, 4, out_at, f.user_data)
    assert np.array_equal(out[1:3], net(x))
    assert f.ctypes(x_at, 3, out_at, f.user_data) == f.ctypes(x_at, 5, out_at, f.user_data) == 0
    single = fnn.Network([fnn.Dense(1)], input_shape=(4,), seed=0, dtype=dtype)
    g = single.cfunc(DOUBLE)
    assert g.ctypes(4, x_at, g.user_data) == single(x)[0]
    assert np.isnan(g.ctypes(3, x_at, g.user_data))


@compiled_only
def test_scipy_integrates_and_filters_with_a_network():
    scipy = pytest.importorskip("scipy")
    integrate = pytest.importorskip("scipy.integrate")
    ndimage = pytest.importorskip("scipy.ndimage")

    def build_one(width):
        layers = [fnn.Dense(9, "tanh"), fnn.Dense(1)]
        return fnn.Network(layers, input_shape=(width,), dtype="float64", seed=0)

    net = build_one(1)
    low = net.cfunc(DOUBLE).low_level_callable()
    assert isinstance(low, scipy.LowLevelCallable)
    want = integrate.quad(lambda t: net([t])[0], 0, 3)[0]
    assert integrate.quad(low, 0, 3)[0] == pytest.approx(want, rel=1e-12)
    net = build_one(9)
    image = np.random.default_rng(0).standard_normal((12, 13))
    got = ndimage.generic_filter(image, net.cfunc().low_level_callable(), size=3)
    assert np.array_equal(got, ndimage.generic_filter(image, lambda w: net(w)[0], size=3))


@compiled_only
def test_c_functions_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="returns one output"):
        small(3).cfunc(DOUBLE)
    with pytest.raises(ValueError, match="signature must be"):
        small(3).cfunc("void (void)")
