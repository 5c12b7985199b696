"""Metrics: scikit-learn says the same on random data, and the training shows the same."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import metrics as M

N, K = 200, 6


def labels(rng):
    return rng.integers(0, K, N), rng.integers(0, K, N)


def probabilities(rng):
    return rng.integers(0, K, N), rng.dirichlet(np.ones(K), N)


def bits(rng):
    return rng.integers(0, 2, N), rng.integers(0, 2, N)


def chances(rng):
    return rng.integers(0, 2, N), rng.uniform(0, 1, N)


def ties(rng):
    return rng.integers(0, 2, N), rng.integers(0, 5, N) / 4


def many_bits(rng):
    return rng.integers(0, 2, (N, 3)), rng.uniform(0, 1, (N, 3))


def numbers(rng):
    return rng.standard_normal(N), rng.standard_normal(N)


def several(rng):
    return rng.standard_normal((N, 3)), rng.standard_normal((N, 3)) * [1, 2, 0.1]


def some_labels(rng):
    """Labels with gaps: a class that never occurs counts for nothing."""
    return rng.choice([0, 3, 7], N), rng.choice([0, 2, 7], N)


def of_class(kind, average):
    def theirs(sk, y, p, w):
        return getattr(sk, f"{kind}_score")(y, p, average=average, sample_weight=w, zero_division=0)

    ours = {"precision": M.precision, "recall": M.recall, "f1": M.f1}[kind]
    return lambda y, p, w: ours(y, p, average=average, sample_weight=w), theirs


# name: (data, ours, scikit-learn's)
CASES = {
    "accuracy": (
        labels,
        lambda y, p, w: M.accuracy(y, p, sample_weight=w),
        lambda sk, y, p, w: sk.accuracy_score(y, p, sample_weight=w),
    ),
    "accuracy of outputs": (
        probabilities,
        lambda y, p, w: M.accuracy(np.eye(K)[y], p, sample_weight=w),
        lambda sk, y, p, w: sk.accuracy_score(y, p.argmax(1), sample_weight=w),
    ),
    "binary_accuracy": (
        chances,
        lambda y, p, w: M.binary_accuracy(y, p, sample_weight=w),
        lambda sk, y, p, w: sk.accuracy_score(y, p > 0.5, sample_weight=w),
    ),
    "binary_accuracy of several": (
        many_bits,
        lambda y, p, w: M.binary_accuracy(y, p, threshold=0.3, sample_weight=w),
        lambda sk, y, p, w: np.mean(
            [sk.accuracy_score(y[:, i], p[:, i] > 0.3, sample_weight=w) for i in range(3)]
        ),
    ),
    **{
        f"top_{k}_accuracy": (
            probabilities,
            lambda y, p, w, k=k: M.top_k_accuracy(y, p, k=k, sample_weight=w),
            lambda sk, y, p, w, k=k: sk.top_k_accuracy_score(y, p, k=k, sample_weight=w),
        )
        for k in (1, 2, 5)
    },
    "confusion_matrix": (
        labels,
        lambda y, p, w: M.confusion_matrix(y, p, sample_weight=w),
        lambda sk, y, p, w: sk.confusion_matrix(y, p, sample_weight=w),
    ),
    **{
        f"{kind}, {average}, {data.__name__}": (data, *of_class(kind, average))
        for kind in ("precision", "recall", "f1")
        for data, average in [
            (bits, "binary"),
            *(
                (data, a)
                for data in (labels, some_labels)
                for a in ("macro", "micro", "weighted", None)
            ),
        ]
    },
    **{
        f"auc, {data.__name__}": (
            data,
            lambda y, p, w: M.auc(y, p, sample_weight=w),
            lambda sk, y, p, w: sk.roc_auc_score(y, p, sample_weight=w),
        )
        for data in (chances, ties, bits)
    },
    "log_loss": (
        probabilities,
        lambda y, p, w: M.log_loss(y, p, sample_weight=w),
        lambda sk, y, p, w: sk.log_loss(y, p, sample_weight=w, labels=np.arange(K)),
    ),
    "log_loss, one-hot": (
        probabilities,
        lambda y, p, w: M.log_loss(np.eye(K)[y], p, sample_weight=w),
        lambda sk, y, p, w: sk.log_loss(y, p, sample_weight=w, labels=np.arange(K)),
    ),
    "log_loss, yes or no": (
        chances,
        lambda y, p, w: M.log_loss(y, p[:, None], sample_weight=w),
        lambda sk, y, p, w: sk.log_loss(y, p, sample_weight=w),
    ),
    **{
        f"{ours}, {data.__name__}": (
            data,
            lambda y, p, w, ours=ours: getattr(M, ours)(y, p, sample_weight=w),
            lambda sk, y, p, w, theirs=theirs: getattr(sk, theirs)(y, p, sample_weight=w),
        )
        for ours, theirs in {
            "mae": "mean_absolute_error",
            "mse": "mean_squared_error",
            "r2": "r2_score",
        }.items()
        for data in (numbers, several)
    },
    "rmse": (
        numbers,
        lambda y, p, w: M.rmse(y, p, sample_weight=w),
        lambda sk, y, p, w: sk.root_mean_squared_error(y, p, sample_weight=w),
    ),
    "rmse, one root for all": (
        several,
        lambda y, p, w: M.rmse(y, p, sample_weight=w),
        lambda sk, y, p, w: np.sqrt(sk.mean_squared_error(y, p, sample_weight=w)),
    ),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_scikit_learn_says_the_same(name, weighted):
    sk = pytest.importorskip("sklearn.metrics")
    data, ours, theirs = CASES[name]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y, p = data(rng)
        w = rng.uniform(0, 3, N) * (rng.random(N) < 0.8) if weighted else None
        got, want = ours(y, p, w), theirs(sk, y, p, w)
        np.testing.assert_allclose(got, want, rtol=1e-12)
        assert np.ndim(want) > 0 or type(got) is float


def test_a_target_that_never_changes():
    sk = pytest.importorskip("sklearn.metrics")
    y = np.column_stack([np.full(5, 2.0), np.arange(5.0)])
    for p in (y, y + 0.5, y * [1, 2]):
        assert M.r2(y, p) == pytest.approx(sk.r2_score(y, p))


def test_a_class_that_is_never_called_has_precision_0():
    assert M.precision([1, 0], [0, 0]) == 0 and M.recall([0, 0], [1, 0]) == 0
    assert M.f1([0, 0], [0, 0]) == 0


def test_trap_6_regression_accuracy_of_several_outputs_never_exceeds_1():
    """The book's class divides elements by rows and shows 3 for three outputs."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((50, 3))
    assert M.regression_accuracy(y, y) == 1
    near = y + y.std() / 250 * rng.uniform(-2, 2, y.shape)
    hits = np.abs(near - y) < np.std(y) / 250
    assert M.regression_accuracy(y, near) == pytest.approx(hits.mean())
    assert M.regression_accuracy(y[:, 0], y[:, :1] + 0.1, tolerance=0.2) == 1


def test_trap_18_metrics_are_taken_in_float64():
    y, p = np.zeros(100_000, np.float32), np.full(100_000, 0.1, np.float32)
    assert M.mae(y, p) == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_an_impossible_truth_costs_infinity():
    assert M.log_loss([0], [[0.0, 1.0]]) == np.inf
    assert M.log_loss([1], [[0.0, 1.0]]) == 0
    assert M.log_loss([0.0, 1.0], [0.0, 1.0]) == 0


def test_what_predict_gives_is_taken():
    rng = np.random.default_rng(0)
    net = fnn.Network(
        [fnn.Dense(1, "sigmoid")], input_shape=(2,), loss="binary_cross_entropy", seed=0
    )
    x, y = rng.standard_normal((40, 2)), rng.integers(0, 2, 40)
    outputs = net.predict(x)
    figures = net.evaluate(x, y)
    assert M.binary_accuracy(y, outputs) == pytest.approx(figures["accuracy"])
    assert M.log_loss(y, outputs) == pytest.approx(figures["loss"], rel=1e-6)
    assert M.accuracy(y, outputs > 0.5) == pytest.approx(figures["accuracy"])
    assert 0 <= M.auc(y, outputs) <= 1 and M.f1(y, outputs > 0.5) >= 0


# what the training shows


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize(
    ("metric", "of"),
    [
        ("accuracy", M.accuracy),
        ("top_1_accuracy", M.accuracy),
        ("top_3_accuracy", lambda y, p: M.top_k_accuracy(y, p, k=3)),
        ("mae", lambda y, p: M.mae(np.eye(5)[y], p)),
        ("mse", lambda y, p: M.mse(np.eye(5)[y], p)),
        ("rmse", lambda y, p: M.rmse(np.eye(5)[y], p)),
    ],
)
def test_the_training_shows_the_metric_that_is_asked_for(metric, of, backend):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((70, 3)), rng.integers(0, 5, 70)
    net = fnn.Network(
        [fnn.Dense(5, "softmax")], input_shape=(3,), loss="cross_entropy", metric=metric,
        optimizer=fnn.SGD(0.1), dtype="float64", seed=0, backend=backend,
    )  # fmt: skip
    before = of(y, net.predict(x))
    assert list(net.evaluate(x, y)) == ["loss", metric]
    assert net.evaluate(x, y)[metric] == pytest.approx(before, rel=1e-12)
    history = net.fit(x, y, epochs=2, batch_size=70, validation_data=(x, y), verbose=0).history
    assert list(history) == ["loss", metric, "val_loss", f"val_{metric}"]
    assert history[metric][0] == pytest.approx(before, rel=1e-12)
    assert history[f"val_{metric}"][-1] == pytest.approx(of(y, net.predict(x)), rel=1e-12)
    # A metric is only looked at: the loss alone is descended.
    plain = fnn.Network(
        [fnn.Dense(5, "softmax")], input_shape=(3,), loss="cross_entropy", optimizer=fnn.SGD(0.1),
        dtype="float64", seed=0, backend=backend,
    )  # fmt: skip
    plain.fit(x, y, epochs=2, batch_size=70, verbose=0)
    assert np.array_equal(plain.params, net.params)


def test_a_root_is_taken_at_the_end_of_the_epoch():
    x = np.array([[1.0], [2.0], [5.0]])
    net = fnn.Network([fnn.Activation("linear")], input_shape=(1,), metric="rmse", dtype="float64")
    history = net.fit(x, np.zeros((3, 1)), batch_size=2, verbose=0).history
    assert history["rmse"][0] == pytest.approx(np.sqrt(10))


# what is refused


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: M.accuracy([0, 1], [0]), ValueError, "as many rows, got 2 and 1"),
        (lambda: M.accuracy([0, 1], [0.2, 0.7]), ValueError, "chances of yes: y_pred > 0.5"),
        (lambda: M.accuracy(["a"], [0]), TypeError, "y_true must hold real numbers, got an array"),
        (lambda: M.accuracy([], []), ValueError, r"y_true must have shape \(n,\) or \(n, k\)"),
        (lambda: M.accuracy(np.eye(3), np.eye(3)[:, :2]), ValueError, "as many classes"),
        (lambda: M.mae([[1, 2]], [[1]]), ValueError, r"same shape, got \(1, 2\) and \(1, 1\)"),
        (
            lambda: M.mae([1, np.nan], [1, 2]),
            ValueError,
            "y_true must hold finite numbers, got nan",
        ),
        (lambda: M.top_k_accuracy([0], [[1, 2]], k=0), ValueError, "k must be at least 1, got 0"),
        (lambda: M.top_k_accuracy([2], [[1, 2]]), ValueError, "labels from 0 to 1, got 2"),
        (lambda: M.top_k_accuracy([0], [1]), ValueError, r"an output for each class, \(n, k\)"),
        (lambda: M.confusion_matrix([0, 4], [0, 1], classes=3), ValueError, "from 0 to 2, got 4"),
        (lambda: M.confusion_matrix([0, -1], [0, 1]), ValueError, "from 0 to 1, got -1"),
        (lambda: M.precision([0, 2], [0, 1]), ValueError, "needs labels 0 and 1, got 0, 1, 2"),
        (lambda: M.f1([0], [0], average="makro"), ValueError, "average must be one of macro"),
        (lambda: M.auc([0, 0], [1, 2]), ValueError, "y_true must hold both 0 and 1"),
        (lambda: M.auc([0, 2], [1, 2]), ValueError, "y_true must hold 0 and 1, got 2"),
        (lambda: M.auc([0, 1], np.eye(2)), ValueError, r"y_score must have shape \(2,\)"),
        (lambda: M.log_loss([0], [[0.5, 0.6]]), ValueError, "y_pred must hold probabilities"),
        (lambda: M.log_loss([0, 1], [0.5, 1.6]), ValueError, "y_pred must hold probabilities"),
        (lambda: M.r2([1.0], [1.0]), ValueError, "r2 needs at least 2 rows, got 1"),
        (lambda: M.mae([1], [1], sample_weight=[1, 2]), ValueError, r"shape \(1,\), got \(2,\)"),
        (lambda: M.mae([1], [1], sample_weight=[-1]), ValueError, "numbers from 0, not all of"),
        (
            lambda: M.regression_accuracy([1], [1], tolerance=0),
            ValueError,
            "tolerance must be above",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "acuracy"}, ValueError, "metric must be one of accuracy, .*got 'acuracy'"),
        ({"metric": "top_0_accuracy"}, ValueError, "metric must be one of top_3_accuracy"),
        ({"metric": None}, TypeError, "metric must be one of .*, got NoneType"),
        ({"metric": "top_4_accuracy"}, ValueError, "needs more than 4 outputs, got 4"),
        ({"metric": "mae", "loss": "gaussian_nll"}, ValueError, "metric mae needs an output for"),
    ],
)
def test_metrics_of_the_training_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        fnn.Network([fnn.Dense(4)], input_shape=(2,), **options)
