"""What users hand over: every form of good data works alike, every bad one is one clear line.

Nothing has changed after an error: parameters, optimizer and the caller's arrays.
"""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastnn as fnn
from fastnn.kernels._kernel import JIT


class Sparse:
    """Looks like a scipy.sparse matrix."""

    nnz = 1

    def toarray(self):
        return np.zeros((2, 3))


def classifier(**options):
    layers = [fnn.Dense(4, "tanh"), fnn.Dense(3, "softmax")]
    options = {"loss": "cross_entropy", "input_shape": (3,), "seed": 0, **options}
    return fnn.Network(layers, **options)


def regressor(outputs=2, loss="mse"):
    return fnn.Network([fnn.Dense(outputs)], input_shape=(3,), loss=loss, seed=0)


X = np.random.default_rng(0).standard_normal((6, 3))
Y = np.array([0, 1, 2, 0, 1, 2])


def spoiled(value, place=(4, 1)):
    x = X.copy()
    x[place] = value
    return x


BAD_X = {
    "one row": (X[0], ValueError, r"x must have shape (n, 3), got (3,)", r"x.reshape(-1, 3)"),
    "images": (np.zeros((6, 3, 1)), ValueError, r"got (6, 3, 1)", r"x.reshape(6, -1)"),
    "width": (X[:, :2], ValueError, r"x must have shape (n, 3), got (6, 2)", ""),
    "number": (1.0, ValueError, "x must not be empty, got an array of shape ()", ""),
    "no rows": (X[:0], ValueError, "x must not be empty, got an array of shape (0, 3)", ""),
    "no columns": (X[:, :0], ValueError, "x must not be empty", "(6, 0)"),
    "NaN": (spoiled(np.nan), ValueError, "x must hold finite numbers", "nan in row 4, column 1"),
    "inf": (spoiled(np.inf), ValueError, "x must hold finite numbers", "inf in row 4, column 1"),
    "too large": (spoiled(1e39), ValueError, "of float32", "1e+39 in row 4, column 1"),
    "object": (X.astype(object), TypeError, "x must hold real numbers, got an array of object", ""),
    "text": (X.astype(str), TypeError, "x must hold real numbers, got an array of <U", ""),
    "complex": (X.astype(complex), TypeError, "x must hold real numbers", "complex128"),
    "dates": (np.zeros((6, 3), "M8[s]"), TypeError, "x must hold real numbers", "datetime64"),
    "ragged": ([[1, 2, 3], [1, 2]], ValueError, "x must be an array of numbers, got list", ""),
    "nothing": (None, TypeError, "x must hold real numbers, got an array of object", ""),
    "masked": (np.ma.masked_less(X, 0), ValueError, "x must have no masked values", "x.filled("),
    "sparse": (Sparse(), TypeError, "x must be a dense array, got Sparse", "x.toarray()"),
}  # fmt: skip
BAD_LABELS = {
    "short": (Y[:5], "x and y must have as many rows, got 6 and 5"),
    "too large": (Y + 1, "y must hold class labels from 0 to 2, as many as outputs, got 3"),
    "negative": (Y - 1, "y must hold class labels from 0 to 2, as many as outputs, got -1"),
    "fractional": (Y + 0.5, "y must hold class labels, whole numbers from 0, got 0.5"),
    "NaN": (np.where(Y == 1, np.nan, Y), "y must hold finite numbers of float32, got nan in row 1"),
    "one-hot width": (np.eye(4)[Y], "y must have shape (n, 3) or labels (n,), got float64 (6, 4)"),
    "two-hot": (np.eye(3)[Y] + np.eye(3)[Y], "y must hold probabilities from 0 to 1"),
    "sum": (np.eye(3)[Y] / 2, "got a sum of 0.5 in row 0"),
    "rank": (np.zeros((6, 3, 1)), "y must have shape (n, 3) or labels (n,)"),
    "empty": (Y[:0], "y must not be empty"),
}


def unchanged(net, x, y):
    """A function that says whether network and arrays are as they were."""
    params, step = net.params.copy(), int(net._rule["step"][0])
    arrays = [(a, a.copy()) for a in (x, y) if isinstance(a, np.ndarray)]

    def same():
        return (
            np.array_equal(net.params, params)
            and int(net._rule["step"][0]) == step
            and all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in arrays)
        )

    return same


def raises(error, *parts):
    """Expect one line that holds all parts."""
    return pytest.raises(error, match=r"(?=.*" + r")(?=.*".join(map(re.escape, parts)) + r")\A.*\Z")


@pytest.mark.parametrize("case", BAD_X)
def test_bad_x_is_refused_everywhere(case):
    x, error, *parts = BAD_X[case]
    net = classifier()
    same = unchanged(net, x, Y)
    y = np.zeros(len(x) if isinstance(x, np.ndarray | list) else 1, int)
    for call in (
        lambda: net.fit(x, y, verbose=0),
        lambda: net.evaluate(x, y),
        lambda: net.gradients(x, y),
        lambda: net.predict(x),
    ):
        with raises(error, *parts):
            call()
    with raises(error, "validation_data: x"):
        net.fit(X, Y, validation_data=(x, y), verbose=0)
    assert same()


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_are_refused_everywhere(case):
    y, *parts = BAD_LABELS[case]
    net = classifier()
    same = unchanged(net, X, y)
    for call in (
        lambda: net.fit(X, y, verbose=0),
        lambda: net.evaluate(X, y),
        lambda: net.gradients(X, y),
    ):
        with raises(ValueError, *parts):
            call()
    with raises(ValueError, "validation_data: ", *parts):
        net.fit(X, Y, validation_data=(X, y), verbose=0)
    assert same()


@pytest.mark.parametrize(
    ("net", "y", "parts"),
    [
        (regressor(), X, ["y must have shape (n, 2) or labels (n,), got float64 (6, 3)"]),
        (regressor(), X[:, 0], ["y must have shape (n, 2) or labels (n,), got float64 (6,)"]),
        (regressor(1), X[:, :2], ["y must have shape (n, 1) or (n,), got float64 (6, 2)"]),
        (regressor(1), spoiled(np.inf)[:, 1], ["y must hold finite numbers"]),
        (regressor(2, "binary_cross_entropy"), X[:, :2], ["y must hold probabilities from 0 to 1"]),
        (regressor(1, "cross_entropy"), Y, ["cross_entropy needs an output for each class"]),
    ],
)  # fmt: skip
def test_bad_targets_of_other_losses(net, y, parts):
    same = unchanged(net, X, y)
    with raises(ValueError, *parts):
        net.fit(X, y, verbose=0)
    assert same()


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"epochs": 0}, ValueError, ["epochs must be at least 1, got 0"]),
        ({"epochs": 1.5}, TypeError, ["epochs must be a whole number, got float: 1.5"]),
        ({"epochs": True}, TypeError, ["epochs must be a whole number, got bool: True"]),
        ({"batch_size": 0}, ValueError, ["batch_size must be at least 1, got 0"]),
        ({"batch_size": -3}, ValueError, ["batch_size must be at least 1, got -3"]),
        ({"batch_size": "all"}, TypeError, ["batch_size must be a whole number, got str"]),
        ({"verbose": 3}, ValueError, ["verbose must be 'auto', 0, 1 or 2, got 3"]),
        ({"verbose": np.zeros(2)}, ValueError, ["verbose must be 'auto', 0, 1 or 2, got array("]),
        ({"shuffle": "no"}, TypeError, ["shuffle must be True or False, got str: 'no'"]),
        ({"rollback": 1}, TypeError, ["rollback must be True or False, got int: 1"]),
        ({"resume": 3}, TypeError, ["resume must be a path, got int: 3"]),
        ({"validation_data": X}, ValueError, ["validation_data must be (x, y), got ndarray"]),
        ({"validation_data": (X, Y, Y)}, ValueError, ["validation_data must be (x, y), got tuple"]),
    ],
)
def test_bad_options_of_fit(options, error, parts):
    net = classifier()
    same = unchanged(net, X, Y)
    with raises(error, *parts):
        net.fit(X, Y, **options)
    assert same()


def one(**options):
    return fnn.Network([fnn.Dense(1)], **options)


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: fnn.Network([]), ValueError, ["layers must hold at least one", "got none"]),
        (lambda: fnn.Network([fnn.Input((3,))]), ValueError, ["layers must hold at least one"]),
        (lambda: fnn.Network(fnn.Dense(1)), TypeError, ["layers must be a list", "got Dense"]),
        (lambda: fnn.Network([3]), TypeError, ["layers[0] must be a layer, got int: 3"]),
        (lambda: fnn.Network([fnn.Dense]), TypeError, ["layers[0]", "write Dense(...)"]),
        (lambda: fnn.Network([fnn.Dense(1), fnn.Input((1,))]), ValueError, ["only come first"]),
        (lambda: fnn.Network([d := fnn.Dense(1), d]), ValueError, ["already part of a network"]),
        (lambda: fnn.Network(one(input_shape=(1,)).layers), ValueError, ["already part of"]),
        (lambda: fnn.Dense(1, "rleu"), ValueError, ["activation must be one of relu", "'rleu'"]),
        (lambda: fnn.Dense(1, None), TypeError, ["activation must be one of", "NoneType"]),
        (lambda: fnn.Activation("tahn"), ValueError, ["activation must be one of tanh"]),
        (lambda: fnn.Activation("mse"), ValueError, ["activation must be one of", "got 'mse'"]),
        (lambda: one(loss="cross_entrpoy"), ValueError, ["loss must be one of cross_entropy"]),
        (lambda: one(loss="softmax_cross_entropy"), ValueError, ["loss must be one of"]),
        (lambda: one(optimizer="adma"), ValueError, ["optimizer must be one of adam", "'adma'"]),
        (lambda: one(optimizer=fnn.Adam), TypeError, ["write Adam()"]),
        (lambda: one(dtype="float16"), ValueError, ["dtype must be one of", "'float16'"]),
        (lambda: one(backend="numba"), ValueError, ["backend must be one of", "'numba'"]),
        (lambda: one(seed=-1), ValueError, ["seed must be at least 0, got -1"]),
        (lambda: one(seed="a"), TypeError, ["seed must be a whole number, got str: 'a'"]),
        (lambda: one(input_shape=3), ValueError, ["input_shape must be (fan_in,)", "got 3"]),
        (lambda: one(input_shape=(3, 3)), ValueError, ["needs flat samples, got (3, 3)"]),
        (lambda: one(input_shape=(0,)), ValueError, ["input_shape[0] must be at least 1, got 0"]),
        (
            lambda: fnn.Network([fnn.Input((2,)), fnn.Dense(1)], input_shape=(3,)),
            ValueError,
            ["input_shape must agree with Input((2,)), got (3,)"],
        ),
        (lambda: fnn.Dense(0), ValueError, ["units must be at least 1, got 0"]),
        (lambda: fnn.Dense(2.0), TypeError, ["units must be a whole number, got float"]),
        (lambda: fnn.Dense(1, weight_initializer="he"), ValueError, ["weight_initializer must"]),
        (lambda: fnn.Input((2,), scale=np.nan), ValueError, ["scale must be", "got nan"]),
        (lambda: fnn.SGD(0), ValueError, ["learning_rate must be above 0", "got 0"]),
        (lambda: fnn.SGD("fast"), TypeError, ["learning_rate must be a number, got str"]),
        (lambda: fnn.SGD(momentum=1), ValueError, ["momentum must be at least 0 and below 1"]),
        (lambda: fnn.SGD(nesterov=True), ValueError, ["nesterov needs a momentum above 0"]),
        (lambda: fnn.Adam(beta2=1.0), ValueError, ["beta2 must be", "below 1, got 1.0"]),
        (lambda: fnn.Adam(epsilon_mode="hat"), ValueError, ["epsilon_mode must be one of"]),
        (lambda: fnn.Adam(float("inf")), ValueError, ["learning_rate must be", "got inf"]),
        (lambda: fnn.initializers.normal(-1), ValueError, ["std must be at least 0"]),
    ],
)  # fmt: skip
def test_bad_networks(make, error, parts):
    with raises(error, *parts):
        make()


def test_known_names_come_nearest_first():
    with pytest.raises(ValueError, match=r"must be one of sigmoid, .*softmax.*; got 'sigmod'"):
        fnn.Dense(1, "sigmod")


class Hostile:
    def __repr__(self):
        return "two\nlines"


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: fnn.Dense(Hostile()), TypeError, ["units", "got Hostile: two lines"]),
        (lambda: fnn.Dense(np.zeros((9, 9))), TypeError, ["units", "got ndarray: array([[0., 0."]),
        (lambda: fnn.Dense(2**63), ValueError, ["units must be at most 9223372036854775807, got"]),
        (lambda: fnn.Dense(-(10**5000)), ValueError, ["units must be at least 1, got <int>"]),
        (lambda: fnn.Rescaling(10**400), ValueError, ["scale must be finite, got inf"]),
        (lambda: fnn.Rescaling(-(10**400)), ValueError, ["scale must be finite, got -inf"]),
        (lambda: fnn.Dense(1, use_bias="no"), TypeError, ["use_bias must be True or", "'no'"]),
        (lambda: fnn.BatchNorm(trainable=[]), TypeError, ["trainable must be True or False"]),
        (lambda: fnn.Adam(amsgrad=np.ones(2)), TypeError, ["amsgrad must be True or False"]),
        (lambda: one(dtype=None), TypeError, ["dtype must be one of", "got NoneType"]),
        (lambda: one(dtype=3), TypeError, ["dtype must be one of", "got int: 3"]),
        (lambda: one(optimizer="x" * 9999), ValueError, ["optimizer must be one of", "..."]),
        (lambda: fnn.schedules.Piecewise(3, [1]), TypeError, ["boundaries must be a sequence"]),
        (lambda: fnn.schedules.Piecewise([3], 1), TypeError, ["learning_rates must be a sequence"]),
        (lambda: fnn.callbacks.EarlyStopping(3), TypeError, ["monitor must be a string, got int"]),
        (lambda: fnn.callbacks.ReduceLROnPlateau(min_lr="a"), TypeError, ["min_lr must be a"]),
        (lambda: fnn.callbacks.CSVLogger(b"a"), TypeError, ["path must be a path, got bytes"]),
        (lambda: fnn.load(3), TypeError, ["path must be a path, got int: 3"]),
        (lambda: one(input_shape=(1,)).save("."), ValueError, ["path must name a file, got '.'"]),
        (lambda: fnn.datasets.mnist([]), TypeError, ["root must be a path, got list: []"]),
        (lambda: fnn.datasets.moons(noise=10**400), ValueError, ["noise: expected a number"]),
        (
            lambda: one(input_shape=(1,)).fit([[1]], [1], callbacks=np.array(1)),
            TypeError,
            ["callbacks must be objects"],
        ),
        (
            lambda: fnn.Network(
                [fnn.Dense(1, bias_initializer=fnn.initializers.constant(1e39))], input_shape=(2,)
            ),
            ValueError,
            ["0.bias must hold numbers of float32, got larger ones"],
        ),
    ],
)  # fmt: skip
def test_what_comes_is_shown_in_one_short_line(make, error, parts):
    with raises(error, *parts) as caught:
        make()
    assert len(str(caught.value)) < 400


def test_a_mask_is_never_lost():
    """Not where rows are cut for validation, and not within a list."""
    net = fnn.Network([fnn.Dense(2), fnn.Reshape((2, 1))], input_shape=(3,), seed=0)
    y, hidden = X[:, :2], np.ma.masked_less(X, 0)
    for x in (hidden, list(hidden)):
        with raises(ValueError, "x must have no masked values"):
            net.fit(x, y, validation_split=0.5, verbose=0)
        with raises(ValueError, "x must have no masked values"):
            net.predict(x)
        with raises(ValueError, "x must have no masked values"):
            fnn.Normalization().adapt(x)
    with raises(ValueError, "y must have no masked values"):
        net.evaluate(X, list(hidden[:, :2, None]))
    with raises(TypeError, "x must be a dense array"):
        net.fit(Sparse(), y, validation_split=0.5)


def test_weights_of_all_rows_are_checked_before_some_are_cut_off():
    net = classifier()
    for weights, part in ((np.ones(60), "shape (6,), got (60,)"), ([1] * 5 + [np.nan], "finite")):
        with raises(ValueError, "sample_weight must", part):
            net.fit(X, Y, sample_weight=weights, validation_split=0.5, verbose=0)
    with raises(ValueError, "class_weight must give weights that float32 can hold"):
        net.fit(X, Y, class_weight={0: 1e39}, verbose=0)


def test_weights_of_the_wrong_shape_are_refused():
    net = classifier()
    before = net.params.copy()
    layer = net.layers[0]
    for name, value, parts in [
        ("weight", np.zeros((4, 3)), ["weight must have shape (3, 4), got (4, 3)"]),
        ("weight", 0.0, ["weight must have shape (3, 4), got ()"]),
        ("bias", np.zeros(3), ["bias must have shape (4,), got (3,)"]),
        ("bias", [1, [2]], ["bias must be an array of numbers"]),
        ("bias", [1e39] * 4, ["bias must hold numbers of float32, got larger ones"]),
        ("bias", np.ma.masked_equal([0, 1, 2, 3], 1), ["bias must have no masked values, got 1"]),
    ]:
        with raises(ValueError, *parts):
            setattr(layer, name, value)
    for value in (["a"] * 4, np.ones(4, complex), np.ones(4, object)):
        with raises(TypeError, "bias must hold real numbers, got an array of"):
            layer.bias = value
        with raises(TypeError, "0.bias must hold real numbers, got an array of"):
            net.load_state_dict(net.state_dict() | {"0.bias": value})
    with raises(ValueError, "params must have shape (31,), got (30,)"):
        net.params = np.zeros(30)
    with raises(TypeError, "params must hold real numbers, got an array of complex128"):
        net.params = np.zeros(31, complex)
    with raises(TypeError, "state must be a mapping of names to arrays, got list: []"):
        net.load_state_dict([])
    assert np.array_equal(net.params, before)
    with raises(ValueError, "weight_initializer must give an array of shape (3, 1), got (1, 3)"):
        fnn.Network(
            [fnn.Dense(1, weight_initializer=lambda rng, shape, fan_in, fan_out: np.zeros((1, 3)))],
            input_shape=(3,),
        )


def test_before_the_width_is_known():
    net = fnn.Network([fnn.Dense(2)], loss="mse", seed=0)
    for use in (lambda: net.params, lambda: net.plan, lambda: net.layers[0].weight, net.summary):
        with raises(AttributeError, "input_shape=(fan_in,)) or call fit"):
            use()
    with raises(ValueError, "x and y must have as many rows"):
        net.fit(X, np.zeros((5, 2)), verbose=0)
    with pytest.raises(AttributeError):
        _ = net.params  # a refused fit built nothing
    net.fit(X, np.zeros((6, 2)), verbose=0)
    assert net.layers[0].weight.shape == (3, 2)


# Data that works, in every form.

DTYPES = [
    *("float32", "float64", "float16", "longdouble", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *(">f4", ">f8", ">i4", ">u2", "<f8"),
]


def forms(x):
    """The same numbers laid out in memory in every way."""
    wide = np.zeros((2 * len(x), 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), x.dtype, x.size, 1).reshape(x.shape)
    return {
        "as it is": x,
        "Fortran": np.asfortranarray(x),
        "strided": wide[::2, ::3],
        "reversed": x[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "unaligned": unaligned,
        "broadcast": np.broadcast_to(x[:1], x.shape),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_layout_gives_the_same_bits(dtype):
    x = np.arange(0, 60).reshape(20, 3).astype(dtype)
    y = np.arange(20) % 3
    for name, given_x in forms(x).items():
        plain = np.ascontiguousarray(given_x, np.float64)
        before = given_x.copy()
        nets = [classifier(dtype="float64") for _ in range(2)]
        histories = [
            net.fit(data, y, epochs=2, batch_size=8, verbose=0)
            for net, data in zip(nets, (given_x, plain), strict=True)
        ]
        assert histories[0].history == histories[1].history, name
        assert np.array_equal(nets[0].params, nets[1].params), name
        assert np.array_equal(nets[0].predict(given_x), nets[1].predict(plain)), name
        assert np.array_equal(given_x, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_of_every_dtype(dtype):
    if dtype == "bool":
        net = fnn.Network([fnn.Dense(2, "softmax")], input_shape=(3,), loss="cross_entropy", seed=0)
        y = Y > 0
    else:
        net, y = classifier(), Y.astype(dtype)
    expected = net.evaluate(X, np.asarray(y, int))
    for form in (y, y[:, None], y.tolist(), np.eye(net.plan.fan_out)[y.astype(int)]):
        assert net.evaluate(X, form) == pytest.approx(expected, rel=1e-6)


def test_lists_frames_and_unmasked_arrays():
    net = classifier(dtype="float64")
    expected = net.predict(X)

    class Frame:
        def __array__(self, dtype=None, copy=None):
            return X if dtype is None else X.astype(dtype)

    for x in (X.tolist(), Frame(), np.ma.MaskedArray(X)):
        assert np.array_equal(net.predict(x), expected)


def test_scale_and_offset_are_applied_on_the_way():
    images = np.random.default_rng(0).integers(0, 256, (9, 3), np.uint8)
    layers = [fnn.Input((3,), scale=2 / 255, offset=-1), fnn.Dense(3, "softmax")]
    net = fnn.Network(layers, loss="cross_entropy", dtype="float64", seed=0)
    plain = fnn.Network([fnn.Dense(3, "softmax")], input_shape=(3,), dtype="float64", seed=0)
    assert np.array_equal(net.params, plain.params)
    np.testing.assert_allclose(net.predict(images), plain.predict(images * (2 / 255) - 1))


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: the interpreter's own memory is measured")
def test_a_memmap_is_not_copied(tmp_path):
    """Training reads a file of 160 MB; the process grows by far less."""
    rows, width = 400_000, 100
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(rows, width))
    x[::1000, 0] = 1
    x.flush()
    x = np.memmap(tmp_path / "x", np.float32, "r", shape=(rows, width))
    net = fnn.Network([fnn.Dense(1)], input_shape=(width,), loss="mse", seed=0)
    net.fit(x[:1000], x[:1000, 0], epochs=1, verbose=0)
    tracemalloc.start()
    net.fit(x, x[:, 0], epochs=1, batch_size=4096, verbose=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6


NUMBERS = hnp.arrays(
    st.sampled_from(["f4", "f8", "f2", "i4", "u1", "i8", "?"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(x=NUMBERS, y=NUMBERS)
def test_any_numbers_work_or_are_refused(x, y):
    """No other exception, no crash, no NaN, whatever the arrays are."""
    net = classifier()
    before = net.params.copy()
    try:
        figures = net.evaluate(x, y)
    except (ValueError, TypeError) as error:
        assert "\n" not in str(error) and str(error)[:2] in ("x ", "y ")
        return
    assert np.isfinite(figures["loss"]) or np.abs(x.astype(float)).max() > 1e18
    assert np.array_equal(net.params, before)
    assert net.predict(x).shape == (len(x), 3)
