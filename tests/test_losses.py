"""Losses: the figure that is shown is the function that is descended, torch agrees, no trap."""

from itertools import pairwise

import numpy as np
import pytest

import fastnn as fnn
from fastnn import losses
from fastnn.kernels._kernel import JIT

L = fnn.losses
BACKENDS = ["compiled", "numpy"]
WIDTHS = [1, 2, 3, 7]  # targets
# name: (loss, activation before it)
LOSSES = {
    **{name: (name, "linear") for name in losses.known()},
    "cross_entropy": ("cross_entropy", "sigmoid"),
    "cross_entropy, fused": ("cross_entropy", "softmax"),
    "cross_entropy, smoothed": (L.CrossEntropy(label_smoothing=0.1), "softmax"),
    "binary_cross_entropy": ("binary_cross_entropy", "softmax"),
    "binary_cross_entropy, fused": ("binary_cross_entropy", "sigmoid"),
    "binary_cross_entropy, smoothed": (L.BinaryCrossEntropy(label_smoothing=0.3), "sigmoid"),
    "kl_divergence": ("kl_divergence", "softmax"),
    "poisson": ("poisson", "sigmoid"),
    "huber, narrow": (L.Huber(0.2), "linear"),
    "quantile, high": (L.Quantile(0.9), "linear"),
}
CASES = [
    (name, targets)
    for name, (loss, activation) in LOSSES.items()
    for targets in WIDTHS
    if targets > 1 or (losses.get(loss).op.targets != "classes" and activation != "softmax")
]


def built(loss, activation="linear", outputs=3, **options):
    """A network without parameters: what goes in are the outputs, before their activation."""
    options = {"dtype": "float64", "seed": 0, **options}
    return fnn.Network([fnn.Activation(activation)], loss=loss, input_shape=(outputs,), **options)


def targets_of(loss, rng, shape):
    """Random targets of the kind that a loss takes."""
    return {
        "classes": lambda: rng.dirichlet(np.ones(shape[1]), shape[0]),
        "chances": lambda: rng.uniform(0, 1, shape),
        "signs": lambda: rng.choice([-1.0, 1.0], shape),
        "counts": lambda: rng.poisson(2.0, shape).astype(float),
        "numbers": lambda: rng.standard_normal(shape),
    }[loss.op.targets]()


def case(name, targets, rows=6, seed=0):
    """A loss, its network, outputs before the activation, and targets."""
    given, activation = LOSSES[name]
    loss = losses.get(given)
    rng = np.random.default_rng(seed)
    outputs = targets * loss.op.per_target
    return (
        built(given, activation, outputs),
        rng.standard_normal((rows, outputs)),
        (targets_of(loss, rng, (rows, targets))),
    )


@pytest.mark.parametrize("weight", [None, [0.0, 1.0, 3.0, 0.5, 2.0, 1.0]], ids=["even", "weighted"])
@pytest.mark.parametrize(("name", "targets"), CASES)
def test_trap_7_the_reported_loss_is_the_function_whose_gradient_is_taken(name, targets, weight):
    """scikit-learn's squared error with k outputs descends k times what it shows."""
    net, x, y = case(name, targets)
    weights = {"sample_weight": weight}
    history = net.fit(x, y, batch_size=len(x), verbose=0, **weights).history  # nothing to learn
    assert history["loss"][0] == pytest.approx(net.evaluate(x, y, **weights)["loss"], rel=1e-14)
    gradient, eps = net.gradients(x, y, **weights)["x"], 1e-6
    slopes = np.empty_like(x)
    for place in np.ndindex(x.shape):
        kept = x[place]
        around = []
        for x[place] in (kept + eps, kept - eps):
            around.append(net.evaluate(x, y, **weights)["loss"])
        x[place] = kept
        slopes[place] = (around[0] - around[1]) / (2 * eps)
    assert np.abs(gradient - slopes).max() <= 1e-8 * max(1, np.abs(slopes).max())


@pytest.mark.parametrize("name", LOSSES)
def test_the_batch_loss_is_the_mean_of_the_rows(name):
    net, x, y = case(name, 3, rows=20)
    alone = [net.evaluate(x[i : i + 1], y[i : i + 1])["loss"] for i in range(20)]
    assert net.evaluate(x, y)["loss"] == pytest.approx(np.mean(alone), rel=1e-13)


def torch_losses(torch):
    f = torch.nn.functional

    def pinball(q):
        return lambda x, y: torch.maximum(q * (y - x), (q - 1) * (y - x)).mean()

    def gaussian(x, y):
        n = y.shape[1]
        return f.gaussian_nll_loss(x[:, :n], y, x[:, n:].exp(), eps=0)

    def chances(smoothing):
        return lambda x, y: f.binary_cross_entropy_with_logits(
            x, y * (1 - smoothing) + smoothing / 2
        )

    def on_sigmoids(x, y):
        return -(y * torch.sigmoid(x).log()).sum(1).mean()

    return {
        "mse": f.mse_loss,
        "mae": f.l1_loss,
        "quadratic": lambda x, y: f.mse_loss(x, y, reduction="sum") / (2 * len(x)),
        "huber": f.huber_loss,
        "huber, narrow": lambda x, y: f.huber_loss(x, y, delta=0.2),
        "log_cosh": lambda x, y: torch.log(torch.cosh(x - y)).mean(),
        "quantile": pinball(0.5),
        "quantile, high": pinball(0.9),
        "hinge": lambda x, y: torch.relu(1 - x * y).mean(),
        "gaussian_nll": gaussian,
        "poisson": lambda x, y: f.poisson_nll_loss(torch.sigmoid(x), y, log_input=False, eps=0),
        "kl_divergence": lambda x, y: f.kl_div(f.log_softmax(x, 1), y, reduction="batchmean"),
        "cross_entropy": on_sigmoids,
        "cross_entropy, fused": f.cross_entropy,
        "cross_entropy, smoothed": lambda x, y: f.cross_entropy(x, y, label_smoothing=0.1),
        "binary_cross_entropy": lambda x, y: f.binary_cross_entropy(torch.softmax(x, 1), y),
        "binary_cross_entropy, fused": f.binary_cross_entropy_with_logits,
        "binary_cross_entropy, smoothed": chances(0.3),
    }


@pytest.mark.parametrize(("name", "targets"), CASES)
def test_torch_has_the_same_loss_and_gradient(name, targets):
    torch = pytest.importorskip("torch")
    net, x, y = case(name, targets, rows=40)
    outputs = torch.tensor(x, requires_grad=True)
    loss = torch_losses(torch)[name](outputs, torch.tensor(y))
    loss.backward()
    want = outputs.grad.numpy()
    assert net.evaluate(x, y)["loss"] == pytest.approx(loss.item(), rel=1e-10)
    assert np.abs(net.gradients(x, y)["x"] - want).max() <= 1e-10 * np.abs(want).max()


# traps


@pytest.mark.parametrize("backend", BACKENDS)
def test_trap_1_cross_entropy_on_probabilities_is_not_clipped(backend):
    """A clipped loss stops at 16.118 and its gradient at 1e7, however wrong the output."""
    net = built("cross_entropy", outputs=2, backend=backend)
    for p in (0.3, 1e-9, 1e-200, 1e-300):
        x, y = np.array([[p, 1 - p]]), [[1.0, 0.0]]
        assert net.evaluate(x, y)["loss"] == pytest.approx(-np.log(p), rel=1e-14)
        assert net.gradients(x, y)["x"].tolist() == [[-1 / p, 0]]
    assert net.evaluate([[0.0, 1.0]], [[0.0, 1.0]])["loss"] == 0  # 0 log 0 = 0
    assert net.gradients([[0.0, 1.0]], [[0.0, 1.0]])["x"].tolist() == [[0, -1]]
    assert net.evaluate([[0.0, 1.0]], [[1.0, 0.0]])["loss"] == np.inf
    fused = built("cross_entropy", "softmax", 2, backend=backend)
    assert fused.evaluate([[-1000.0, 1000.0]], [0])["loss"] == 2000
    assert fused.gradients([[-1000.0, 1000.0]], [0])["x"].tolist() == [[-1, 1]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_trap_2_a_saturated_sigmoid_has_gradient_minus_one(backend, dtype):
    """The book's clipped pair of classes gives -0.0206 at -20 and -4e-11 at -40."""
    net = built("binary_cross_entropy", "sigmoid", 1, backend=backend, dtype=dtype)
    for z in (-17.0, -20.0, -40.0, -80.0, -1000.0):
        gradient = net.gradients(np.array([[z]]), np.array([1.0]))["x"].item()
        assert gradient == pytest.approx(-1, abs=1e-7)
        assert net.evaluate(np.array([[z]]), np.array([1.0]))["loss"] == pytest.approx(-z, rel=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_trap_8_the_absolute_error_has_the_sign_of_the_error(backend):
    """The book's sign climbs; 0 where there is no error."""
    net = built("mae", outputs=3, backend=backend)
    gradient = net.gradients([[2.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]])["x"]
    assert gradient.tolist() == [[1 / 3, 0, -1 / 3]]
    line = fnn.Network([fnn.Dense(1)], loss="mae", optimizer=fnn.SGD(0.01), seed=0, backend=backend)
    x = np.linspace(-1, 1, 50)[:, None]
    history = line.fit(x, 2 * x + 0.3, epochs=20, batch_size=50, verbose=0).history["loss"]
    assert all(after < before for before, after in pairwise(history))


@pytest.mark.parametrize("backend", BACKENDS)
def test_trap_18_losses_and_metrics_are_added_up_in_float64(backend):
    """In float32 a hundred thousand tenths add up to 9998.6."""
    net = built("mae", outputs=1, backend=backend, dtype="float32", metric="mse")
    rows = 100_000
    x, y = np.full((rows, 1), 0.1, np.float32), np.zeros((rows, 1), np.float32)
    tenth = float(np.float32(0.1))
    squared = float(np.float32(0.1) * np.float32(0.1))
    figures = net.evaluate(x, y)
    assert figures["loss"] == pytest.approx(tenth, rel=1e-12)
    assert figures["mse"] == pytest.approx(squared, rel=1e-12)
    line = fnn.Network([fnn.Dense(1)], loss="mae", seed=0, backend=backend)
    history = line.fit(np.zeros_like(x), x, batch_size=rows, verbose=0).history
    assert history["loss"][0] == pytest.approx(tenth, rel=1e-12)


def test_trap_20_labels_are_checked_once_and_before_training():
    def net(**options):
        layers = [fnn.Dense(5, "relu"), fnn.Dense(10, "softmax")]
        return fnn.Network(layers, loss="cross_entropy", input_shape=(3,), seed=0, **options)

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)), rng.integers(0, 10, 40)
    trained = []
    for labels in (y, y.astype(np.uint8), y.astype(float), y[:, None], np.eye(10)[y]):
        one = net()
        one.fit(x, labels, epochs=2, verbose=0)
        trained.append(one.params.tobytes())
    assert len(set(trained)) == 1
    one = net()
    before = one.params.copy()
    for wrong, message in [
        (
            np.where(y == 3, 12, y),
            "y must hold class labels from 0 to 9, as many as outputs, got 12",
        ),
        (np.where(y == 3, 255, y).astype(np.uint8), "from 0 to 9, as many as outputs, got 255"),
        (y - 1, "from 0 to 9, as many as outputs, got -1"),
        (np.eye(12)[y], r"y must have shape \(n, 10\) or labels \(n,\), got float64 \(40, 12\)"),
        (np.eye(10)[y] * 2, "y must hold probabilities from 0 to 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            one.fit(x, wrong, verbose=0)
    assert np.array_equal(one.params, before)


# far from 0, and near it


@pytest.mark.parametrize("backend", BACKENDS)
def test_log_cosh_neither_overflows_nor_loses_small_errors(backend):
    net = built("log_cosh", outputs=1, backend=backend)
    for error in (1e4, -1e300):
        loss = net.evaluate([[error]], [[0.0]])["loss"]
        assert loss == pytest.approx(abs(error) - np.log(2), rel=1e-14)
        assert net.gradients([[error]], [[0.0]])["x"] == np.sign(error)
    single = built("log_cosh", outputs=1, dtype="float32")
    for error in np.float32([1e-6, 1e-3, 0.5, 0.999, 1.001, 3]):
        exact = np.log1p(2 * np.sinh(np.float64(error) / 2) ** 2)
        assert single.evaluate([[error]], [[0.0]])["loss"] == pytest.approx(exact, rel=5e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_nothing_times_a_logarithm_of_nothing_costs(backend):
    divergence = built("kl_divergence", outputs=3, backend=backend)
    x, y = [[0.0, 0.5, 0.5]], [[0.0, 0.25, 0.75]]
    want = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert divergence.evaluate(x, y)["loss"] == pytest.approx(want, rel=1e-14)
    assert divergence.gradients(x, y)["x"].tolist() == [[0, -0.5, -1.5]]
    assert divergence.evaluate(y, y)["loss"] == 0
    rate = built("poisson", outputs=1, backend=backend)
    assert rate.evaluate([[0.0]], [[0.0]])["loss"] == 0
    assert rate.gradients([[0.0]], [[0.0]])["x"] == 1
    assert rate.evaluate([[0.0]], [[1.0]])["loss"] == np.inf


def test_a_spread_of_any_size_has_a_loss():
    net = built("gaussian_nll", outputs=2)
    for s in (-700.0, -30.0, 0.0, 30.0, 700.0):
        loss = net.evaluate([[1.0, s]], [[1.0]])["loss"]
        assert loss == s / 2
        assert net.gradients([[1.0, s]], [[1.0]])["x"].tolist() == [[0, 0.5]]


# what they find


def only_a_bias(loss, outputs, y, activation="linear", epochs=1500):
    """Outputs that do not depend on the input, learnt."""
    layers = [fnn.Dense(outputs, activation)]
    net = fnn.Network(layers, loss=loss, optimizer=fnn.Adam(0.02), dtype="float64", seed=0)
    net.fit(np.zeros((len(y), 1)), y, epochs=epochs, batch_size=len(y), verbose=0)
    return net.predict(np.zeros((1, 1)))[0]


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: long trainings")
def test_each_loss_finds_what_it_is_made_for():
    rng = np.random.default_rng(0)
    y = rng.gamma(2.0, 1.0, (400, 2)) * [1, 0.5]
    assert only_a_bias("mse", 2, y) == pytest.approx(y.mean(0), abs=1e-3)
    assert only_a_bias("quantile", 2, y) == pytest.approx(np.median(y, 0), abs=0.02)
    for q in (0.1, 0.8):
        found = only_a_bias(L.Quantile(q), 2, y)
        assert found == pytest.approx(np.quantile(y, q, axis=0), abs=0.03)
    found = only_a_bias("gaussian_nll", 4, y)
    assert found[:2] == pytest.approx(y.mean(0), abs=1e-3)  # first all the means,
    assert np.exp(found[2:]) == pytest.approx(y.var(0), rel=1e-3)  # then all log-variances
    counts = rng.poisson(0.4, 400)
    assert only_a_bias("poisson", 1, counts, "sigmoid") == pytest.approx(counts.mean(), abs=1e-3)


def test_a_hinge_takes_signs_bits_and_labels():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 3))
    bits = rng.integers(0, 2, (30, 3))
    net = built("hinge")
    figures = net.evaluate(x, 2 * bits - 1)
    assert net.evaluate(x, bits) == net.evaluate(x, bits.astype(bool)) == figures
    assert figures["accuracy"] == pytest.approx(((x > 0) == bits).mean())
    ones = net.evaluate(x, np.ones((30, 3)))  # of either kind
    assert ones["loss"] == pytest.approx(np.maximum(1 - x, 0).mean())
    labels = rng.integers(0, 3, 30)
    assert net.evaluate(x, labels)["loss"] == net.evaluate(x, np.eye(3)[labels])["loss"]
    assert net.evaluate(x, labels)["accuracy"] == (x.argmax(1) == labels).mean()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("backend", BACKENDS)
def test_smoothed_labels_are_smoothed_targets(classes, backend):
    rng = np.random.default_rng(classes)
    x, labels = rng.standard_normal((30, classes)), rng.integers(0, classes, 30)
    rows = np.eye(classes)[labels]
    plain = built("cross_entropy", "softmax", classes, backend=backend)
    net = built(L.CrossEntropy(label_smoothing=0.2), "softmax", classes, backend=backend)
    want = plain.evaluate(x, rows * 0.8 + 0.2 / classes)
    for y in (labels, rows):
        assert net.evaluate(x, y) == pytest.approx(want, rel=1e-14)
    yes = built(L.BinaryCrossEntropy(label_smoothing=0.2), "sigmoid", classes, backend=backend)
    wanted = built("binary_cross_entropy", "sigmoid", classes, backend=backend)
    assert yes.evaluate(x, rows)["loss"] == pytest.approx(
        wanted.evaluate(x, rows * 0.8 + 0.1)["loss"], rel=1e-14
    )
    # Not smoothed is to the bit what it was before there was smoothing.
    none = built(L.CrossEntropy(), "softmax", classes, backend=backend)
    assert none.evaluate(x, labels) == plain.evaluate(x, labels)


# what is refused


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: L.Huber(0), ValueError, "delta must be above 0, got 0"),
        (lambda: L.Huber(-1.0), ValueError, "delta must be above 0, got -1.0"),
        (lambda: L.Huber(np.inf), ValueError, "delta must be above 0, got inf"),
        (lambda: L.Huber("1"), TypeError, "delta must be a number, got str"),
        (lambda: L.Quantile(0), ValueError, "quantile must be above 0 and below 1, got 0"),
        (lambda: L.Quantile(1.0), ValueError, "quantile must be above 0 and below 1, got 1.0"),
        (lambda: L.Quantile(np.nan), ValueError, "quantile must be above 0 and below 1, got nan"),
        (lambda: L.CrossEntropy(1), ValueError, "label_smoothing must be at least 0 and below 1"),
        (lambda: L.BinaryCrossEntropy(-0.1), ValueError, "label_smoothing must be at least 0"),
        (lambda: L.Loss("hubert"), ValueError, "loss must be one of huber, .*; got 'hubert'"),
        (lambda: losses.get("hinj"), ValueError, "loss must be one of hinge, .*; got 'hinj'"),
        (lambda: losses.get(L.Huber), TypeError, r"loss must be an object, .* write Huber\(\)"),
        (lambda: losses.get(None), TypeError, "loss must be one of .*, got NoneType"),
        (lambda: losses.get("exponential_poisson"), ValueError, "loss must be one of poisson"),
    ],
)
def test_options_and_names_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("loss", "outputs", "y", "message"),
    [
        ("binary_cross_entropy", 1, [0.0, 1.5], "probabilities from 0 to 1 for this loss, got 1.5"),
        ("binary_cross_entropy", 2, [[0, 1], [-1, 0]], "from 0 to 1 for this loss, got -1"),
        ("poisson", 1, [1, -2], "y must hold counts or rates from 0 for this loss, got -2"),
        ("poisson", 3, [1, 2], r"y must have shape \(n, 3\), got int64 \(2,\)"),
        ("hinge", 1, [0.5, 1], "y must hold 0 and 1, or -1 and 1, for this loss, got 0.5"),
        ("hinge", 2, [[-1, 1], [0, 1]], "or -1 and 1, for this loss, got -1, 0 and 1"),
        ("hinge", 3, [0, 3], "y must hold class labels from 0 to 2, as many as outputs, got 3"),
        ("kl_divergence", 2, [[1, 1], [0, 1]], "one-hot or probabilities that sum to 1"),
        ("kl_divergence", 1, [1, 1], "kl_divergence needs an output for each class, got 1 output"),
        ("gaussian_nll", 4, np.zeros((2, 4)), r"\(n, 2\) for the 4 outputs of gaussian_nll, got"),
        ("gaussian_nll", 4, [0, 1], r"\(n, 2\) for the 4 outputs of gaussian_nll, got int64"),
        ("gaussian_nll", 2, np.zeros((2, 2)), r"\(n, 1\) or \(n,\) for the 2 outputs of gaussian"),
        ("huber", 2, [[np.nan, 0], [0, 0]], "y must hold finite numbers of float64, got nan"),
    ],
)
def test_targets_that_are_refused(loss, outputs, y, message):
    net = built(loss, outputs=outputs)
    with pytest.raises(ValueError, match=message):
        net.fit(np.ones((2, outputs)), y, verbose=0)


def test_an_odd_number_of_outputs_has_no_spread_for_each():
    with pytest.raises(ValueError, match="gaussian_nll needs 2 outputs for each target, got 3"):
        built("gaussian_nll", outputs=3)


def test_a_loss_shows_itself():
    assert repr(losses.get("huber")) == "Huber(delta=1.0)"
    assert "loss=Quantile(quantile=0.9)" in repr(built(L.Quantile(0.9)))
    assert "loss='mse'" in repr(built("mse"))
    given = L.Huber(0.5)
    assert losses.get(given) is given and given.fields() == {"delta": 0.5}


def test_check_and_copies_keep_the_options():
    rng = np.random.default_rng(0)
    net = fnn.Network(
        [fnn.Dense(4, "tanh"), fnn.Dense(2)], loss=L.Huber(0.1), input_shape=(3,), dtype="float64"
    )
    assert fnn.check(net, rng.standard_normal((9, 3)), rng.standard_normal((9, 2))).ok
