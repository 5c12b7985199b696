"""Every public entry is handed everything: right results or one clear line, never anything else.

Data go to every method of ten networks, and to metrics, parameters and `Normalization`, in all
dtypes and layouts, of right and wrong shapes, with good and bad values, and as things that are no
data at all; arguments of every layer, loss, optimizer, schedule, callback, initializer, data set
and of `fit` are likewise anything. What is accepted must do what the same numbers do as a plain
float64 or int64 array (or a plain number), bit for bit, and, now and then, what the numpy backend
does; what is refused must be refused in one line that names the argument, must not have been
legal, and leaves the network as it was. Nobody's arrays change.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import decimal
import fractions
import inspect
import math
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import (
    callbacks,
    conventions,
    datasets,
    initializers,
    losses,
    metrics,
    optimizers,
    schedules,
)

COUNT, SMALL = 20_000, 400
SEED = 20

REFUSALS = (TypeError, ValueError)
DTYPES = (
    *("float32", "float64", "float16", "longdouble", "bool", ">f4", ">f8", ">i4", ">u2", ">f2"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
LAYOUTS = (
    *("C", "C", "F", "strided", "reversed", "broadcast", "unaligned", "read-only", "memmap"),
    *("matrix", "unmasked", "list", "tuple", "array-like", "subclass"),
)
FOLDER = tempfile.TemporaryDirectory(prefix="fastnn-inputs-")


class Given:
    """Something with `__array__`, as frames have."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)


class Sub(np.ndarray):
    """Anybody's subclass."""


class Hostile:
    """Answers nothing without an error."""

    def __len__(self) -> int:
        raise ValueError("no length")

    def __repr__(self) -> str:
        return "two\nlines"


def sparse(rng: np.random.Generator) -> Any:
    try:
        import scipy.sparse
    except ImportError:
        return None
    kind = rng.choice(["csr_matrix", "coo_array", "csc_array"])
    return getattr(scipy.sparse, kind)(rng.integers(0, 2, (4, 3)))


def laid_out(rng: np.random.Generator, array: np.ndarray, layout: str) -> Any:
    """The same numbers in another place or form; of "broadcast", only the first row's."""
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "strided" and array.ndim:
        wide = np.zeros(tuple(2 * n + 1 for n in array.shape), array.dtype)
        view = wide[tuple(slice(1, None, 2) for _ in array.shape)]
        view[...] = array
        return view
    if layout == "reversed" and array.ndim:
        return array[::-1].copy()[::-1]
    if layout == "broadcast" and array.ndim and len(array):
        return np.broadcast_to(array[:1], array.shape)
    if layout == "unaligned":
        return np.frombuffer(b"\0" + array.tobytes(), array.dtype, array.size, 1).reshape(
            array.shape
        )
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
        return array
    if layout == "memmap" and array.size:
        path = Path(FOLDER.name) / f"{rng.integers(8)}"
        path.unlink(missing_ok=True)
        path.write_bytes(array.tobytes())
        return np.memmap(path, array.dtype, "r", shape=array.shape)
    if layout == "matrix" and array.ndim == 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.matrix(array)
    if layout == "unmasked":
        return np.ma.MaskedArray(array)
    if layout in ("list", "tuple"):
        return array.tolist() if layout == "list" else tuple(array.tolist() if array.ndim else ())
    if layout == "array-like":
        return Given(array)
    return array.view(Sub) if layout == "subclass" else array


def values(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Numbers that suit ``kind``, or, now and then, do not."""
    spoil = rng.random()
    if kind == "labels":
        array = np.array(rng.integers(0, 2 if spoil > 0.1 else 4, shape), float)
    elif kind == "rows":
        array = rng.random(shape) + 0.01
        array = array / (array.sum(axis=-1, keepdims=True) if shape and spoil > 0.1 else 1)
    elif kind == "shares":
        array = rng.random(shape) * (1 if spoil > 0.1 else 3)
    else:
        array = np.array(rng.standard_normal(shape)) * rng.choice([1.0, 1.0, 3.0, 100.0])
    array = np.asarray(array)
    if array.size and rng.random() < 0.15:
        array.flat[rng.integers(array.size)] = rng.choice(
            [np.nan, np.inf, -np.inf, 1e38, -3e38, 1e39, 1e300, 1e-310, 5e-324, 1e-40, -0.0, 2**53]
        )
    return array


def data(rng: np.random.Generator, shape: tuple[int, ...], kind: str = "numbers") -> Any:
    """An array-like, mostly of this shape."""
    if rng.random() < 0.08:
        return oddity(rng)
    if rng.random() < 0.12:
        shape = tuple(rng.integers(0, 4, rng.integers(0, 5)))
    elif rng.random() < 0.06 and shape:
        wrong = list(shape)
        wrong[rng.integers(len(wrong))] += rng.choice([-1, 1])
        shape = tuple(max(0, n) for n in wrong)
    array = values(rng, shape, kind)
    dtype = np.dtype(rng.choice(DTYPES))
    with np.errstate(all="ignore"):
        array = np.asarray(array.astype(dtype))
    if dtype.kind in "iu" and array.size and rng.random() < 0.05:
        array.flat[0] = np.iinfo(dtype).max
    if rng.random() < 0.1:
        return spoiled(rng, array)
    return laid_out(rng, array, str(rng.choice(LAYOUTS)))


def spoiled(rng: np.random.Generator, array: np.ndarray) -> Any:
    """The array as something that must be refused, or nearly."""
    way = rng.integers(8)
    if way == 0:
        return np.ma.MaskedArray(array, rng.random(array.shape) < 0.5)
    if way == 1:
        return array.astype(object)
    if way == 2:
        return array.astype(complex)
    if way == 3:
        return array.astype(str)
    if way == 4:
        return [np.ma.MaskedArray(row, True) for row in array] if array.ndim else None
    if way == 5:
        return (row for row in array) if array.ndim else iter(())
    if way == 6:
        return [*array.tolist(), [[1]]] if array.ndim else [[], [1]]
    return np.zeros(array.shape, [("a", "f4"), ("b", "i8")])


def oddity(rng: np.random.Generator) -> Any:
    """What is no data."""
    things: list[Callable[[], Any]] = [
        lambda: None, lambda: "abc", lambda: b"abc", lambda: 3, lambda: math.nan, lambda: 1j,
        lambda: True, lambda: {}, lambda: {"a": [1, 2]}, lambda: {1, 2}, lambda: object(),
        lambda: Hostile(), lambda: [], lambda: [[]], lambda: [[1, 2], [3]], lambda: [None, None],
        lambda: [10**400] * 3, lambda: [[10**30, 1, 2]], lambda: range(4), lambda: iter([1, 2]),
        lambda: (i for i in range(3)), lambda: lambda: 0, lambda: int, lambda: np,
        lambda: np.zeros(3, "M8[s]"), lambda: np.zeros((4, 3), "m8[s]"), lambda: np.float32(2),
        lambda: np.array("text"), lambda: np.array(None), lambda: np.zeros((4, 3), "V4"),
        lambda: memoryview(b"abcd"), lambda: bytearray(b"abcd"), lambda: [[1, "2", 3]],
        lambda: sparse(rng), lambda: ["a\nb"] * 4, lambda: np.ma.masked, lambda: Ellipsis,
        lambda: [decimal.Decimal(1)] * 3, lambda: [[fractions.Fraction(1, 2)] * 3] * 2,
        lambda: np.array([[1, 2, 3]], object), lambda: np.array(["1", "2"], "S"),
    ]  # fmt: skip
    return things[rng.integers(len(things))]()


def plain(value: Any) -> np.ndarray | None:
    """What it says, as an ordinary array of float64 or int64; None where it holds no numbers."""
    if hasattr(value, "toarray"):
        return None
    rows = value if isinstance(value, list | tuple) else [value]
    if any(np.ma.is_masked(row) for row in rows):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    if array.dtype.kind in "biu":
        if array.dtype == np.uint64 and array.size and array.max() >= 2**63:
            return np.array(array, np.uint64, order="C")
        return np.array(array, np.int64, order="C")
    with np.errstate(over="ignore"):
        return np.array(array, np.float64, order="C") if array.dtype.kind == "f" else None


def exact(value: Any, array: np.ndarray) -> bool:
    """Whether the plain array holds the very same numbers, also once they are float64."""
    return array.dtype.kind == "f" or bool((np.abs(array.astype(float)) <= 2**53).all())


def image(value: Any) -> Any:
    """What must not change while somebody else has it."""
    if isinstance(value, np.ma.MaskedArray):
        return value.data.tobytes(), np.ma.getmaskarray(value).tobytes()
    if isinstance(value, Given):
        return image(value.array)
    if isinstance(value, np.ndarray):
        base = value.base if isinstance(value.base, np.ndarray) else value
        if value.dtype.hasobject:
            return repr(value.tolist())
        return value.tobytes(), base.tobytes(), value.dtype, value.shape, value.strides
    if hasattr(value, "toarray"):
        return value.toarray().tobytes()
    if isinstance(value, list | tuple | dict | bytearray):
        return repr(value)
    return None


# -- what happens -----------------------------------------------------------------------


class Failure(Exception):
    """Something that must not happen."""


def attempt(call: Callable[[], Any], names: tuple[str, ...], more: tuple[type, ...] = ()) -> Any:
    """The result, or the error, which must be a good one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)  # np.matrix
        try:
            return call()
        except (*REFUSALS, *more) as error:
            text = str(error)
            if isinstance(error, UnicodeError):
                raise Failure(f"{type(error).__name__}: {text}") from error
            if (
                "\n" in text
                or "numba" in text
                or (not isinstance(error, more) and len(text) > 1000)
            ):
                raise Failure(f"not one clear line: {text[:300]!r}") from error
            if not isinstance(error, more) and not any(
                re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names
            ):
                raise Failure(f"names none of {names}: {type(error).__name__}: {text}") from error
            return error
        except Exception as error:
            raise Failure(f"{type(error).__name__}: {str(error)[:300]}") from error


def flat(result: Any) -> Any:
    """A result as something that == can tell from others, NaN included."""
    if isinstance(result, Exception):
        return type(result).__name__
    if isinstance(result, np.ndarray):
        return result.dtype, result.shape, result.tobytes()
    if isinstance(result, dict):
        return {key: flat(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [flat(value) for value in result]
    return repr(result)


# -- data -------------------------------------------------------------------------------


def kinds() -> dict[str, tuple[Callable[..., fnn.Network], tuple[int, ...], Any, str, str]]:
    """Networks by name, with the shape of a sample, of a target, and the kinds of both."""
    dense, net = fnn.Dense, fnn.Network

    def classes(dtype: str) -> Callable[..., fnn.Network]:
        return lambda **o: net(
            [dense(4, "tanh"), dense(3, "softmax")],
            loss="cross_entropy", input_shape=(3,), dtype=dtype, **o,
        )  # fmt: skip

    def simple(layers: Callable[[], list[Any]], loss: str, shape: tuple[int, ...] = (3,)) -> Any:
        return lambda **o: net(layers(), loss=loss, input_shape=shape, **o)

    return {
        "classes32": (classes("float32"), (3,), (), "numbers", "labels"),
        "classes64": (classes("float64"), (3,), (3,), "numbers", "rows"),
        "numbers": (simple(lambda: [dense(2)], "mse"), (3,), (2,), "numbers", "numbers"),
        "yes": (
            simple(lambda: [dense(1, "sigmoid")], "binary_cross_entropy"),
            (3,), (1,), "numbers", "shares",
        ),
        "counts": (
            simple(lambda: [dense(1, "exponential")], "poisson"), (3,), (), "numbers", "labels",
        ),
        "signs": (simple(lambda: [dense(2)], "hinge"), (3,), (), "numbers", "labels"),
        "table": (
            simple(lambda: [fnn.Embedding(3, 2), dense(1)], "mse", (2,)),
            (2,), (), "labels", "numbers",
        ),
        "images": (
            simple(
                lambda: [fnn.Input((2, 3), scale=0.5, offset=-1), fnn.Flatten(), dense(2)],
                "mae", (2, 3),
            ),
            (2, 3), (2,), "numbers", "numbers",
        ),
        "reshaped": (
            simple(lambda: [dense(4), fnn.Reshape((2, 2))], "mse"), (3,), (2, 2),
            "numbers", "numbers",
        ),
        "spread": (
            simple(lambda: [fnn.BatchNorm(), dense(2)], "gaussian_nll"), (3,), (1,),
            "numbers", "numbers",
        ),
    }  # fmt: skip


class Subject:
    """A network that can be put back to where it began."""

    def __init__(self, make: Callable[..., fnn.Network], backend: str) -> None:
        self.net = make(seed=1, backend=backend, threads=1)
        self.params = self.net.params.copy()
        self.rng = self.net._shuffle_rng.bit_generator.state

    def reset(self) -> None:
        self.net.params = self.params
        self.net._reset_optimizer(self.net._optimizer)
        self.net._shuffle_rng.bit_generator.state = self.rng

    def state(self) -> Any:
        net = self.net
        return (
            net.params.tobytes(), net._state.tobytes(), int(net._rule["step"][0]),
            repr(net._shuffle_rng.bit_generator.state),
        )  # fmt: skip


def fit(net: Any, x: Any, y: Any, w: Any, **more: Any) -> Any:
    history = net.fit(x, y, sample_weight=w, batch_size=3, epochs=2, verbose=0, **more)
    return history.history


GOOD = ("x", "y", "sample_weight", "validation_data")  # of the second pair


def validated(net: Any, x: Any, y: Any, w: Any) -> Any:
    return fit(net, *net.good, None, validation_data=(x, y))


METHODS: dict[str, Callable[..., Any]] = {
    "predict": lambda net, x, y, w: net.predict(x),
    "evaluate": lambda net, x, y, w: net.evaluate(x, y, sample_weight=w),
    "gradients": lambda net, x, y, w: net.gradients(x, y, sample_weight=w),
    "fit": fit,
    "fit, class_weight": lambda net, x, y, w: fit(net, x, y, w, class_weight={0: 2.0}),
    "fit, validation_split": lambda net, x, y, w: fit(net, x, y, w, validation_split=0.5),
    "fit, validation_data": validated,
    "fit, batches": lambda net, x, y, w: (
        net.fit([(x, y) if w is None else (x, y, w)] * 2, epochs=2, verbose=0).history
    ),
    "partial_fit": lambda net, x, y, w: net.partial_fit(x, y, sample_weight=w).params.copy(),
    "train_on_batch": lambda net, x, y, w: net.train_on_batch(x, y, sample_weight=w),
}


def legal_x(value: Any, shape: tuple[int, ...], dtype: np.dtype, kind: str) -> bool:
    """Whether this must be accepted as ``x``, said by other words than the library's."""
    array = plain(value)
    if array is None or array.ndim != 1 + len(shape) or array.shape[1:] != shape or not len(array):
        return False
    with np.errstate(over="ignore"):
        if not np.isfinite(array.astype(dtype)).all():
            return False
    return kind != "labels" or bool(np.isin(array, (0, 1, 2)).all())


def legal_weight(value: Any, rows: int, dtype: np.dtype) -> bool:
    """Whether this must be accepted as ``sample_weight`` of so many rows."""
    array = plain(value)
    if value is None:
        return True
    with np.errstate(over="ignore"):
        return (
            array is not None
            and array.shape == (rows,)
            and bool((np.isfinite(array.astype(dtype)) & (array >= 0)).all())
        )


class Nets:
    """All networks, each thrice: for what is given, for the same in plain, and by formula."""

    def __init__(self) -> None:
        self.kinds = kinds()
        self.made: dict[str, list[Subject]] = {}

    def __getitem__(self, name: str) -> list[Subject]:
        if name not in self.made:
            make, shape, target, kind, target_kind = self.kinds[name]
            rng = np.random.default_rng(0)
            x = values(rng, (4, *shape), "labels") if kind == "labels" else rng.random((4, *shape))
            y = np.arange(4.0) % 2 if target_kind == "labels" else rng.random((4, *target))
            y = y / y.sum(axis=1, keepdims=True) if target_kind == "rows" else y
            backends = ("compiled", "compiled", "numpy")
            self.made[name] = [Subject(make, backend) for backend in backends]
            for subject in self.made[name]:
                subject.net.good = np.clip(x, 0, 2).round() if kind == "labels" else x, y
        return self.made[name]


def on_data(rng: np.random.Generator, nets: Nets, name: str, method: str) -> str:
    """One call of one method: "accepted" or "refused"."""
    _, shape, target, kind, target_kind = nets.kinds[name]
    given, twin, formula = nets[name]
    rows = int(rng.choice([1, 2, 3, 4, 5, 9]))
    what = rng.choice(["x", "y", "sample_weight", "all"])

    def of(argument: str, *drawn: Any) -> Any:
        if what in (argument, "all"):
            return data(rng, *drawn)
        array = np.abs(values(np.random.default_rng(3), *drawn))
        array = np.where(np.isfinite(array) & (array < 1e30), array, 1)
        return array / array.sum(axis=-1, keepdims=True) if drawn[1] == "rows" else array

    x = of("x", (rows, *shape), kind)
    y = of("y", (rows, *target), target_kind)
    w = of("sample_weight", (rows,), "shares") if what != "y" and rng.random() < 0.4 else None
    if "batches" in method and not isinstance(w, np.ndarray):
        w = None
    if "validation_data" in method:
        w = None
    before, state = [image(v) for v in (x, y, w)], given.state()
    call, names = METHODS[method], ("x", "y", "sample_weight", "class_weight", "batch")
    if "validation" in method:
        names = (*names, "validation_data", "validation_split")
    result = attempt(lambda: call(given.net, x, y, w), names, (fnn.DivergenceError,))
    if [image(v) for v in (x, y, w)] != before:
        raise Failure(f"inputs changed by {method} of {name}")
    refused = isinstance(result, REFUSALS)
    if refused and given.state() != state:
        raise Failure(f"the network changed: {result}")
    dtype = given.net.dtype
    good_x = legal_x(x, shape, dtype, kind)
    plains = [plain(v) for v in (x, y, w)]
    legal = good_x and (method == "predict" or plains[1] is not None)
    if method not in ("predict", "fit, validation_data"):
        legal = legal and legal_weight(w, 0 if plains[0] is None else len(plains[0]), dtype)
    if not refused and not legal:
        raise Failure(f"{name}.{method} accepted {x!r:.200}, {y!r:.200}, {w!r:.200}")
    if method == "predict" and refused and legal:
        raise Failure(f"{name}.{method} refused {x!r:.200}: {result}")
    if legal:
        px, py, pw = plains
        same = attempt(lambda: call(twin.net, px, py, pw), names, (fnn.DivergenceError,))
        exactly = all(p is None or exact(v, p) for v, p in zip((x, y, w), plains, strict=True))
        if refused != isinstance(same, REFUSALS):
            raise Failure(f"{name}.{method} of {x!r:.150}, {y!r:.150}: {result!r}, but {same!r}")
        if exactly and flat(result) != flat(same):
            raise Failure(f"{name}.{method} of {x!r:.150}, {y!r:.150}: {result}, not {same}")
        if exactly and given.net.params.tobytes() != twin.net.params.tobytes():
            raise Failure(f"{name}.{method} of {x!r:.150}, {y!r:.150}: other parameters")
        small = exactly and all(p is None or not (np.abs(p) > 1e3).any() for p in plains)
        if small and not refused and rng.random() < 0.25:
            other = attempt(lambda: call(formula.net, x, y, w), names, (fnn.DivergenceError,))
            tolerance = 1e-9 if dtype == np.float64 else 2e-3
            if type(other) is not type(result) or not near(other, result, tolerance):
                raise Failure(f"{name}.{method} of {x!r:.150}: {result}, by formula {other}")
            formula.reset()
        twin.reset()
    given.reset()
    return "refused" if refused else "accepted"


def near(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two results say the same but for rounding."""
    if isinstance(one, dict):
        return set(one) == set(other) and all(near(one[k], other[k], tolerance) for k in one)
    if isinstance(one, Exception):
        return True
    return bool(np.allclose(one, other, tolerance, tolerance, equal_nan=True))


def on_unbuilt(rng: np.random.Generator, nets: Nets, name: str) -> str:
    """The first `fit` of a network that does not know its input: refused, it builds nothing."""
    net, twin = (
        fnn.Network([fnn.Dense(2, "tanh"), fnn.Dense(1)], seed=0, backend="numpy") for _ in range(2)
    )
    rows = int(rng.integers(1, 5))
    x, y = data(rng, (rows, 3)), data(rng, (rows,))
    generator = repr(net._weights_rng.bit_generator.state)
    before = [image(v) for v in (x, y)]
    result = attempt(lambda: fit(net, x, y, None), ("x", "y", "samples"), (fnn.DivergenceError,))
    if [image(v) for v in (x, y)] != before:
        raise Failure("inputs changed by a first fit")
    plains = [plain(v) for v in (x, y)]
    if isinstance(result, REFUSALS):
        if net._plan is not None or repr(net._weights_rng.bit_generator.state) != generator:
            raise Failure(f"a refused fit has built something: {result}")
        if all(p is not None and p.shape[:1] == (rows,) and (abs(p) < 1e9).all() for p in plains):
            px, py = plains
            if px.ndim == 2 and px.size and py.ndim == 1:
                raise Failure(f"a first fit refused {x!r:.150}, {y!r:.150}: {result}")
        return "refused"
    if any(p is None for p in plains):
        raise Failure(f"a first fit accepted {x!r:.150}, {y!r:.150}")
    same = attempt(lambda: fit(twin, *plains, None), ("x", "y"), (fnn.DivergenceError,))
    if all(exact(0, p) for p in plains) and flat(same) != flat(result):
        raise Failure(f"a first fit of {x!r:.150}, {y!r:.150}: {result}, not {same}")
    return "accepted"


def on_stream(rng: np.random.Generator, nets: Nets, name: str) -> str:
    """`fit` of anything that is to give batches."""
    given = nets["numbers"][0]
    rows = int(rng.integers(1, 4))
    pair = (data(rng, (rows, 3)), data(rng, (rows, 2)))
    good = (np.ones((rows, 3)), np.zeros((rows, 2)))
    batches = [
        pair, [pair], [pair, pair], [good], iter([good]), iter([pair]), [good, 3], [good[:1]],
        [(*good, pair[1])], [(*good, None, None)], {1: good},
        (good,), oddity(rng), [oddity(rng)], [[oddity(rng), oddity(rng)]],
    ][rng.integers(15)]  # fmt: skip
    state = given.state()
    names = ("x", "y", "sample_weight", "batch", "batches")
    result = attempt(lambda: given.net.fit(batches, verbose=0), names, (fnn.DivergenceError,))
    refused = isinstance(result, REFUSALS)
    later = isinstance(batches, list) and len(batches) > 1  # the first batch was a step
    if refused and not later and given.state() != state:
        raise Failure(f"the network changed: {result}")
    given.reset()
    return "refused" if refused else "accepted"


# -- functions of arrays ----------------------------------------------------------------


def adapted(x: Any) -> Any:
    return fnn.Normalization().adapt(x)._adapted


SCORES: dict[str, Callable[..., Any]] = {
    name: getattr(metrics, name) for name in metrics.__all__ if callable(getattr(metrics, name))
}


def on_scores(rng: np.random.Generator, nets: Nets, name: str) -> str:
    """One call of a function of `fastnn.metrics`."""
    function, rows = SCORES[name], int(rng.integers(1, 6))
    second = "y_score" if name == "auc" else "y_pred"
    wide = name in ("top_k_accuracy", "log_loss") or rng.random() < 0.3
    true = data(rng, (rows,), "labels")
    guess = data(rng, (rows, 3) if wide else (rows,), "rows" if wide else "labels")
    options: dict[str, Any] = {"k": 2} if name == "top_k_accuracy" else {}
    if "sample_weight" in inspect.signature(function).parameters and rng.random() < 0.3:
        options["sample_weight"] = data(rng, (rows,), "shares")
    before = [image(v) for v in (true, guess, *options.values())]
    names = ("y_true", second, "labels", "classes", "sample_weight", "r2", "average")
    result = attempt(lambda: function(true, guess, **options), names)
    if [image(v) for v in (true, guess, *options.values())] != before:
        raise Failure(f"inputs changed by {name}")
    weight = options.get("sample_weight")
    plains = [plain(v) for v in (true, guess, weight)]
    refused = isinstance(result, REFUSALS)
    numbers = plains[0] is not None and plains[1] is not None
    numbers = numbers and (weight is None or plains[2] is not None)
    if not refused and not numbers:
        raise Failure(f"{name} accepted {true!r:.150}, {guess!r:.150}, {weight!r:.150}")
    if numbers:
        if weight is not None:
            options["sample_weight"] = plains[2]
        same = attempt(lambda: function(plains[0], plains[1], **options), names)
        exactly = all(p is None or exact(0, p) for p in plains)
        agree = refused == isinstance(same, REFUSALS) and (
            refused or not exactly or near(result, same, 1e-9)
        )
        if not agree:
            raise Failure(f"{name} of {true!r:.150}, {guess!r:.150}: {result!r}, not {same!r}")
    return "refused" if refused else "accepted"


def weight_set(net: Any, value: Any) -> None:
    net.layers[0].weight = value


def bias_set(net: Any, value: Any) -> None:
    net.layers[1].bias = value


def params_set(net: Any, value: Any) -> None:
    net.params = value


def state_set(net: Any, value: Any) -> None:
    net.load_state_dict(net.state_dict() | {"1.bias": value})


SETTERS: dict[str, tuple[Callable[[Any, Any], Any], tuple[str, ...], tuple[int, ...]]] = {
    "Dense.weight": (weight_set, ("weight",), (3, 4)),
    "Dense.bias": (bias_set, ("bias",), (3,)),
    "params": (params_set, ("params",), (31,)),
    "load_state_dict": (state_set, ("1.bias",), (3,)),
}


def on_setters(rng: np.random.Generator, nets: Nets, name: str) -> str:
    """Parameters from anything."""
    put, names, shape = SETTERS[name]
    given, twin, _ = nets["classes32"]
    value = data(rng, shape)
    before, state, array = image(value), given.state(), plain(value)
    result = attempt(lambda: put(given.net, value), names)
    if image(value) != before:
        raise Failure(f"inputs changed by {name}")
    refused = isinstance(result, REFUSALS)
    legal = array is not None and array.shape == shape
    if legal:
        with np.errstate(over="ignore"):
            legal = not (np.isfinite(array) & np.isinf(array.astype(np.float32))).any()
    if refused and (legal or given.state() != state):
        raise Failure(f"{name} refused {value!r:.200}, or changed the network: {result}")
    if not refused:
        if not legal:
            raise Failure(f"{name} accepted {value!r:.200}")
        put(twin.net, np.asarray(array, np.float64))
        if not np.array_equal(given.net.params, twin.net.params, equal_nan=True):
            raise Failure(f"{name} of {value!r:.200} gives other parameters")
    given.reset()
    twin.reset()
    return "refused" if refused else "accepted"


def on_adapt(rng: np.random.Generator, nets: Nets, name: str) -> str:
    """`Normalization.adapt`."""
    value = data(rng, (int(rng.integers(1, 5)), 3))
    before, array = image(value), plain(value)
    result = attempt(lambda: adapted(value), ("x",))
    if image(value) != before:
        raise Failure("inputs changed by adapt")
    refused = isinstance(result, REFUSALS)
    if not refused:
        if array is None or array.ndim != 2 or not np.isfinite(array).all():
            raise Failure(f"adapt accepted {value!r:.200}")
        wide = array.astype(np.float64)
        if not np.allclose(result["bias"], wide.mean(axis=0), rtol=1e-6):
            raise Failure(f"adapt of {value!r:.200} gives another mean")
    elif array is not None and array.ndim == 2 and array.size and (np.abs(array) < 1e30).all():
        raise Failure(f"adapt refused {value!r:.200}: {result}")
    return "refused" if refused else "accepted"


# -- arguments --------------------------------------------------------------------------


def argument(rng: np.random.Generator, usual: Any) -> Any:
    """Anything, or near what is usual."""
    if rng.random() < 0.35:
        return oddity(rng)
    near_it: list[Any] = [
        0, 1, -1, 2, 3, True, False, None, 0.5, -0.5, 1.0, 0.0, -0.0, 1e-30, 1e30, 1e39, 1e308,
        math.nan, math.inf, -math.inf, 2**31, 2**63, 2**70, -(2**70), 10**400, -(10**400),
        np.int8(3), np.int64(1), np.uint64(2**64 - 1), np.float16(0.25), np.float32(0.5),
        np.longdouble(0.5), np.bool_(True), np.array(2), np.array(0.5), np.array([1, 2]),
        np.zeros((3, 3)), fractions.Fraction(1, 2), decimal.Decimal("0.5"), "", "a", "relu", "tanh",
        "sgd", "mse", "zeros", "x\ny", "x" * 1000, (1,), (2, 3), [2, 3], (0,), (-1,), (1.5,),
        ("a",), (2**40, 2**40), [None], "float64", np.float32, np.float64, Hostile(),
        np.longdouble("1e4000"), fractions.Fraction(10**400), str(10**10), np.str_("relu"),
    ]  # fmt: skip
    if rng.random() < 0.2:
        return usual
    return near_it[rng.integers(len(near_it))]


class Writer:
    """Takes figures."""

    def add_scalar(self, *arguments: Any) -> None:
        """Nothing is kept."""


def network(**options: Any) -> fnn.Network:
    options = {"layers": [fnn.Dense(2)], "backend": "numpy", "input_shape": (3,)} | options
    return fnn.Network(**options)


def trained(**options: Any) -> Any:
    """`fit` of a fresh network by formula."""
    x = np.arange(12.0).reshape(4, 3) / 12
    net = network(seed=0)
    before = net.params.copy()
    try:
        return net.fit(x, x[:, :2], **{"epochs": 2, "verbose": 0} | options).history
    except REFUSALS:
        ran = "callbacks" in options  # the user's own error, from within the training
        if not ran and not np.array_equal(net.params, before):
            raise Failure("the network changed") from None
        raise


def defaults(kind: Any) -> dict[str, Any]:
    """Arguments of an optimizer."""
    return {name: p.default for name, p in inspect.signature(kind).parameters.items()}


# For every callable, arguments that it takes, and as what errors may name an argument.
SUBJECTS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Network": (
        network,
        dict(layers=[], loss="mse", metric="accuracy", optimizer="adam", input_shape=(3,), seed=0,
             dtype="float32", backend="numpy", threads=1),
    ),
    "fit options": (
        trained,
        dict(epochs=1, initial_epoch=0, batch_size=2, steps_per_epoch=None, shuffle=True,
             class_weight=None, validation_data=None, validation_split=0.25, callbacks=None,
             resume=False, rollback=False, verbose=0),
    ),
    "Input": (fnn.Input, dict(shape=(3,), scale=2.0, offset=1.0)),
    "Dense": (
        fnn.Dense,
        dict(units=3, activation="relu", weight_initializer="zeros", bias_initializer="zeros",
             use_bias=True, weight_l1=0.1, weight_l2=0.1, bias_l1=0.1, bias_l2=0.1, max_norm=1.0,
             non_negative=False, trainable=True),
    ),
    "Activation": (fnn.Activation, dict(name="elu", alpha=0.5)),
    "Dropout": (fnn.Dropout, dict(rate=0.5)),
    "GaussianNoise": (fnn.GaussianNoise, dict(stddev=0.5)),
    "BatchNorm": (fnn.BatchNorm, dict(momentum=0.5, epsilon=0.1, trainable=True)),
    "LayerNorm": (fnn.LayerNorm, dict(epsilon=0.1, trainable=True)),
    "Rescaling": (fnn.Rescaling, dict(scale=1.0, offset=0.5)),
    "Embedding": (fnn.Embedding, dict(vocabulary=3, dim=2, trainable=True)),
    "Reshape": (fnn.Reshape, dict(shape=(2, 3))),
    "Conv2D": (fnn.Conv2D, dict(filters=2, kernel_size=3, strides=1, padding=0)),
    "MaxPool2D": (fnn.MaxPool2D, dict(pool_size=2, strides=1)),
    "AveragePool2D": (fnn.AveragePool2D, dict(pool_size=2, strides=1)),
    "Huber": (losses.Huber, dict(delta=1.0)),
    "Quantile": (losses.Quantile, dict(quantile=0.5)),
    "CrossEntropy": (losses.CrossEntropy, dict(label_smoothing=0.1)),
    "BinaryCrossEntropy": (losses.BinaryCrossEntropy, dict(label_smoothing=0.1)),
    **{
        kind.__name__: (kind, defaults(kind))
        for kind in optimizers.OPTIMIZERS.values()
    },
    "Constant": (schedules.Constant, dict(learning_rate=0.1)),
    "InverseTimeDecay": (schedules.InverseTimeDecay, dict(learning_rate=0.1, decay=0.1)),
    "Exponential": (
        schedules.Exponential, dict(learning_rate=0.1, factor=0.5, steps=1, staircase=False),
    ),
    "Piecewise": (schedules.Piecewise, dict(boundaries=[1, 2], learning_rates=[0.1, 0.2, 0.3])),
    "Cosine": (schedules.Cosine, dict(learning_rate=0.1, steps=9, warmup=2, final=0.01)),
    "OneCycle": (
        schedules.OneCycle,
        dict(learning_rate=0.1, steps=9, pct_start=0.3, div_factor=25.0, final_div_factor=1e4),
    ),
    "ReduceOnPlateau": (
        schedules.ReduceOnPlateau,
        dict(learning_rate=0.1, factor=0.1, patience=1, min_delta=0.1, cooldown=1,
             min_learning_rate=0.0),
    ),
    "EarlyStopping": (
        callbacks.EarlyStopping,
        dict(monitor="loss", min_delta=0.1, patience=1, mode="auto", restore_best_weights=True,
             start_from_epoch=0),
    ),
    "TargetReached": (callbacks.TargetReached, dict(monitor="loss", value=0.1, mode="min")),
    "TimeBudget": (callbacks.TimeBudget, dict(seconds=1.0)),
    "CSVLogger": (callbacks.CSVLogger, dict(path=f"{FOLDER.name}/log.csv", append=False)),
    "ReduceLROnPlateau": (
        callbacks.ReduceLROnPlateau,
        dict(monitor="loss", factor=0.1, patience=1, min_delta=0.1, cooldown=1, min_lr=0.0,
             mode="auto"),
    ),
    "ScalarWriter": (callbacks.ScalarWriter, dict(writer=Writer(), prefix="")),
    "Checkpoint": (
        callbacks.Checkpoint, dict(path=f"{FOLDER.name}/a.safetensors", every=1, resume=True),
    ),
    "ModelCheckpoint": (
        callbacks.ModelCheckpoint,
        dict(path=f"{FOLDER.name}/b.safetensors", monitor="loss", save_best_only=True, every=1,
             keep_last=None, save_weights_only=False, mode="auto"),
    ),
    "initializers.normal": (initializers.normal, dict(std=0.1)),
    "initializers.truncated_normal": (initializers.truncated_normal, dict(std=0.1)),
    "initializers.orthogonal": (initializers.orthogonal, dict(gain=1.0)),
    "initializers.constant": (initializers.constant, dict(value=0.5)),
    "datasets.spiral": (datasets.spiral, dict(samples=3, classes=2, seed=0)),
    "datasets.vertical": (datasets.vertical, dict(samples=3, classes=2, seed=0)),
    "datasets.sine": (datasets.sine, dict(samples=3)),
    "datasets.moons": (datasets.moons, dict(samples=4, noise=0.1, seed=0)),
    "datasets.circles": (datasets.circles, dict(samples=4, noise=0.1, factor=0.5, seed=0)),
    "datasets.read_idx": (datasets.read_idx, dict(path=f"{FOLDER.name}/none")),
    "datasets.mnist": (datasets.mnist, dict(root=f"{FOLDER.name}/none")),
    "load": (fnn.load, dict(path=f"{FOLDER.name}/none")),
    "save": (lambda path: network().save(path), dict(path=f"{FOLDER.name}/c.safetensors")),
    "save_weights": (
        lambda path: network().save_weights(path), dict(path=f"{FOLDER.name}/d.safetensors"),
    ),
    "load_weights": (lambda path: network().load_weights(path), dict(path=f"{FOLDER.name}/none")),
    "load_state_dict(state)": (lambda state: network().load_state_dict(state), dict(state={})),
    "Network.optimizer": (
        lambda optimizer: setattr(network(), "optimizer", optimizer), dict(optimizer="sgd"),
    ),
    "metrics.accuracy options": (
        lambda **o: metrics.top_k_accuracy([0, 1], [[0.4, 0.6]] * 2, **o), dict(k=1),
    ),
    "metrics.f1 options": (lambda **o: metrics.f1([0, 1], [1, 1], **o), dict(average="macro")),
    "metrics.confusion_matrix options": (
        lambda **o: metrics.confusion_matrix([0, 1], [1, 1], **o), dict(classes=2),
    ),
    "metrics.regression_accuracy options": (
        lambda **o: metrics.regression_accuracy([0, 1], [1, 1], **o), dict(tolerance=0.5),
    ),
    "metrics.binary_accuracy options": (
        lambda **o: metrics.binary_accuracy([0, 1], [1, 1], **o), dict(threshold=0.5),
    ),
    "explain": (fnn.explain.__globals__["page"], dict(name="relu")),
    **{
        f"conventions.{name}": (getattr(conventions, name), dict(usual))
        for name, usual in {
            "l2_from_nielsen": dict(lmbda=0.1, samples=10, scale=1.0),
            "l2_from_network3": dict(lmbda=0.1, batches=10, scale=1.0),
            "l2_from_sklearn": dict(alpha=0.1, batch_size=10, scale=1.0),
            "l2_from_torch": dict(weight_decay=0.1),
            "loss_scale": dict(library="torch", loss="mse", outputs=2),
            "adam_epsilon": dict(library="torch", epsilon=1e-8),
            "decay_from_keras": dict(decay_rate=0.1, decay_steps=2),
            "batch_norm_momentum_from_torch": dict(momentum=0.1),
        }.items()
    },
}  # fmt: skip
# Where an error may call an argument something else.
CALLED = {
    "name": ("activation", "alpha", "name"),
    "activation": ("activation",),
    "lmbda": ("lmbda",),
    "input_shape": ("input_shape", "shape", "samples", "layer"),
    "state": ("state",),
    "boundaries": ("boundaries", "learning_rates"),
    "learning_rates": ("boundaries", "learning_rates"),
    "metric": ("metric",),
    "layers": ("layers",),
    "validation_split": ("validation_split",),
    "initial_epoch": ("initial_epoch", "epochs"),
    "epochs": ("initial_epoch", "epochs"),
    "resume": ("resume", "go on"),
    "path": ("path", "state", "IDX"),
    "classes": ("classes", "labels"),
}
FILES = {"path", "root", "resume"}


def on_arguments(rng: np.random.Generator, nets: Nets, name: str) -> str:
    """One call with one argument that is anything."""
    function, usual = SUBJECTS[name]
    which = str(rng.choice(list(usual)))
    value = argument(rng, usual[which])
    if huge(which, value):
        return "left out"
    arguments = copy.copy(usual)
    if name == "fit options":
        arguments = {}
    if name == "Network":
        arguments.pop("layers")
    arguments[which] = value
    before = image(value)
    names = (*CALLED.get(which, ()), which)
    more: tuple[type, ...] = (fnn.DivergenceError,) if name == "fit options" else ()
    if which in FILES:
        more = (OSError, fnn.FormatError)
    with contextlib.chdir(FOLDER.name):
        result = attempt(lambda: function(**arguments), names, more)
    if image(value) != before:
        raise Failure(f"{name} changed {which}")
    if isinstance(result, Exception):
        return "refused"
    if same_kind(value, usual[which]):
        return "accepted"
    raise Failure(f"{name} accepted {which}={value!r:.100}")


def huge(which: str, value: Any) -> bool:
    """Sizes that are legal and that this machine has no memory or time for."""
    sizes = ("units", "epochs", "samples", "classes", "outputs", "threads", "input_shape")
    if isinstance(value, np.floating):
        value = float(value)
    if isinstance(value, tuple) and any(isinstance(n, int) and 2**20 < n for n in value):
        return which == "input_shape"
    return which in sizes and is_number(value) and 1 << 20 < value < 1 << 63


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | fractions.Fraction) and not isinstance(
        value, bool | np.bool_ | complex | np.complexfloating
    )


def same_kind(value: Any, usual: Any) -> bool:
    """Whether it is at all what the argument is about; limits are the error's affair."""
    if value is None or value is usual or type(value) is type(usual):
        return True
    if usual is None or callable(value):
        return True
    if isinstance(usual, bool):
        return isinstance(value, bool | np.bool_)
    if isinstance(usual, int | float):
        return is_number(value) or isinstance(value, schedules.Schedule)
    if isinstance(usual, str):
        return isinstance(value, str | Path | bytes | type)
    if isinstance(usual, tuple | list):
        return isinstance(value, tuple | list | range | np.ndarray)
    return isinstance(usual, dict | Writer)


# -- the whole --------------------------------------------------------------------------


def entries(nets: Nets) -> dict[str, Callable[[np.random.Generator], str]]:
    """Everything there is to call, by name."""

    def bound(function: Callable[..., str], *arguments: Any) -> Callable[[Any], str]:
        return lambda rng: function(rng, nets, *arguments)

    def any_net(method: str) -> Callable[[Any], str]:
        return lambda rng: on_data(rng, nets, str(rng.choice(list(nets.kinds))), method)

    return {
        **{method: any_net(method) for method in METHODS},
        **{f"metrics.{name}": bound(on_scores, name) for name in SCORES},
        **{name: bound(on_setters, name) for name in SETTERS},
        "Normalization.adapt": bound(on_adapt, ""),
        "first fit": bound(on_unbuilt, ""),
        "fit of a stream": bound(on_stream, ""),
        **{name: bound(on_arguments, name) for name in SUBJECTS},
    }


def run(count: int, seed: int = SEED) -> dict[str, Any]:
    """Call everything, in turns, methods of networks most often."""
    nets = Nets()
    calls = entries(nets)
    names = [*list(METHODS) * 8, *[n for n in calls if n not in METHODS] * 2]
    told: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in calls}
    failures: dict[str, str] = {}
    for case in range(count):
        name = names[case % len(names)]
        rng = np.random.default_rng([seed, case])
        try:
            told[name][calls[name](rng)] += 1
        except Failure as failure:
            told[name]["failed"] += 1
            failures[f"case {case}, {name}"] = str(failure)
            nets.made.clear()
    lines = {f"  {name}": ", ".join(f"{n} {k}" for k, n in t.items()) for name, t in told.items()}
    wrong = {f"! {name}": text for name, text in failures.items()}
    return {"cases": count, "failures": len(failures), **lines, **wrong}
