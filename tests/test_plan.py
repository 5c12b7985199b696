"""The plan: its map has no overlaps, and compiled and numpy interpreters agree through training."""

import re
from itertools import pairwise

import numpy as np
import pytest
from numba import njit
from numba.core import event

import fastnn as fnn
from fastnn import compiled
from fastnn.kernels import _op, run
from fastnn.kernels._kernel import JIT, KERNELS
from fastnn.kernels._memory import call, pointer
from fastnn.kernels._op import OPS, TRAIN, op_of
from fastnn.kernels.optimizers import RULES
from fastnn.plan import Plan

N = fnn.initializers.normal


class Recorded(fnn.Network):
    """A network that keeps hold of the buffers of its last training."""

    def _training_buffers(self, capacity, threads):
        self.last = super()._training_buffers(capacity, threads)
        return self.last


def leaky(width):
    return fnn.Dense(width, fnn.Activation("leaky_relu", alpha=0.2))


D = fnn.Dense
# name: (layers, loss, width of x, targets)
NETWORKS = {
    "regression": (lambda: [D(7, "tanh"), D(2)], "mse", 3, "numbers"),
    "one output": (lambda: [D(5, "relu"), D(1)], "mae", 4, "numbers"),
    "classes": (lambda: [D(9, "relu"), D(4, "softmax")], "cross_entropy", 2, "labels"),
    "soft labels": (lambda: [D(3, "softmax")], "cross_entropy", 5, "rows"),
    "yes or no": (lambda: [D(6, "tanh"), D(1, "sigmoid")], "binary_cross_entropy", 3, "bits"),
    "Nielsen": (lambda: [D(8, "sigmoid"), D(4, "sigmoid")], "quadratic", 6, "labels"),
    "unfused": (lambda: [D(6, "sigmoid"), D(3), fnn.Activation("softmax")], "mse", 3, "rows"),
    "rectifiers": (  # fused between two dense layers, and not: first, last, doubled, of slope < 0
        lambda: [
            fnn.Activation("relu"),
            D(9, "relu"),
            D(8, "relu"),
            fnn.Activation("leaky_relu"),
            D(7, fnn.Activation("leaky_relu", alpha=-0.5)),
            leaky(6),
            D(2, "relu"),
        ],
        "mse",
        5,
        "numbers",
    ),
    "regularised": (
        lambda: [
            D(9, "relu", weight_l2=0.01, bias_l1=0.01, max_norm=1.0),
            fnn.Dropout(0.3),
            D(6, "tanh", use_bias=False, weight_l1=0.01, non_negative=True),
            fnn.GaussianNoise(0.1),
            D(5, "relu", trainable=False),
            D(3, "softmax"),
        ],
        "cross_entropy",
        4,
        "labels",
    ),
    "normalised": (
        lambda: [
            fnn.Normalization().adapt(np.random.default_rng(7).standard_normal((50, 5)) * 3 + 1),
            fnn.Rescaling(0.5, 0.1),
            D(7, use_bias=False),
            fnn.BatchNorm(momentum=0.8),
            fnn.Activation("tanh"),
            D(6),
            fnn.LayerNorm(),
            D(2),
        ],
        "mse",
        5,
        "numbers",
    ),
    "categories": (
        lambda: [fnn.Embedding(11, 3), D(4, "tanh"), D(2)],
        "mse",
        3,
        "numbers",
    ),
    "images": (
        lambda: [
            fnn.Reshape((2, 6, 7)),
            fnn.Conv2D(3, (3, 2), "relu", padding="same", weight_l2=0.01, max_norm=1.0),
            fnn.MaxPool2D(),
            fnn.Conv2D(5, 2, "tanh", strides=(1, 2), padding=1, use_bias=False),
            fnn.AveragePool2D((2, 1), 1),
            fnn.Flatten(),
            D(3, "softmax"),
        ],
        "cross_entropy",
        84,
        "labels",
    ),
    "smooth": (  # every other activation once
        lambda: [
            *(D(5, fnn.Activation("elu", alpha=0.7)), D(6, "selu"), D(7, "gelu"), D(5, "silu")),
            *(D(4, "mish"), D(6, "softsign"), D(3, "softplus"), D(2, "exponential")),
        ],
        "mse",
        4,
        "numbers",
    ),
    "deep": (
        lambda: [fnn.Activation("tanh"), leaky(17), leaky(5), leaky(33), D(3, "sigmoid")],
        "cross_entropy",
        4,
        "labels",
    ),
    "smoothed": (
        lambda: [D(9, "tanh"), D(4, "softmax")],
        fnn.losses.CrossEntropy(label_smoothing=0.2),
        2,
        "labels",
    ),
    "robust": (lambda: [D(5, "tanh"), D(3)], fnn.losses.Huber(0.3), 4, "numbers"),
    "log cosh": (lambda: [D(5, "tanh"), D(3)], "log_cosh", 4, "numbers"),
    "a quantile": (lambda: [D(5, "tanh"), D(2)], fnn.losses.Quantile(0.9), 4, "numbers"),
    "a margin": (lambda: [D(6, "tanh"), D(1)], "hinge", 3, "bits"),
    "margins": (lambda: [D(6, "tanh"), D(3)], "hinge", 3, "labels"),
    "rates": (lambda: [D(6, "tanh"), D(2, "sigmoid")], "poisson", 3, "counts"),
    "spreads": (lambda: [D(6, "tanh"), D(6)], "gaussian_nll", 3, "numbers"),
    "divergence": (lambda: [D(5, "tanh"), D(3, "softmax")], "kl_divergence", 3, "rows"),
    "top": (lambda: [D(6, "tanh"), D(7, "softmax")], "cross_entropy", 3, "labels"),
    "root": (lambda: [D(6, "tanh"), D(2)], "mae", 3, "numbers"),
}
TARGETS = ("classes", "chances", "signs", "counts", "numbers")
METRICS = {"top": "top_3_accuracy", "root": "rmse"}
if "exponential" in OPS:
    NETWORKS["log rates"] = (lambda: [D(6, "tanh"), D(2, "exponential")], "poisson", 3, "counts")
OPTIMIZERS = {
    "sgd": lambda: fnn.SGD(0.05, decay=1e-3),
    "momentum": lambda: fnn.SGD(0.02, momentum=0.9),
    "nesterov": lambda: fnn.SGD(0.02, momentum=0.9, nesterov=True),
    "adam": lambda: fnn.Adam(0.01),
    "adam raw": lambda: fnn.Adam(0.01, epsilon=1e-4, epsilon_mode="raw", decay=1e-3),
    "adamw": lambda: fnn.AdamW(0.01, weight_decay=0.1),
    "amsgrad": lambda: fnn.AdamW(0.01, amsgrad=True),
    "nadam": lambda: fnn.Nadam(0.01),
    "adagrad": lambda: fnn.Adagrad(fnn.schedules.Cosine(0.05, 100, warmup=10)),
    "rmsprop": lambda: fnn.RMSprop(0.01, epsilon_mode="inside"),
    "rmsprop momentum": lambda: fnn.RMSprop(0.003, momentum=0.5),
    "rmsprop centered": lambda: fnn.RMSprop(0.003, momentum=0.5, centered=True, epsilon=1e-3),
    "lion": lambda: fnn.Lion(0.001, weight_decay=0.1),
    "averaged": lambda: fnn.RMSprop(0.01, ema=0.9),
}
# A rule knows nothing of the network whose numbers it moves: a few of each meet.
PAIRS = [
    (name, optimizer)
    for name in NETWORKS
    for optimizer in OPTIMIZERS
    if name in ("regression", "classes", "rectifiers") or optimizer in ("momentum", "adam")
] + [("regularised", "averaged"), ("normalised", "averaged")]


def build(name, optimizer="adam", **options):
    layers, loss, width, kind = NETWORKS[name]
    options = {"dtype": "float64", "seed": 1, "input_shape": (width,), **options}
    options["metric"] = METRICS.get(name, "accuracy")
    net = Recorded(layers(), loss=loss, optimizer=OPTIMIZERS[optimizer](), **options)
    rng = np.random.default_rng(7)
    x = rng.standard_normal((50, width))
    x = rng.integers(0, 11, x.shape).astype(float) if name == "categories" else x
    classes = net.plan.fan_out // net.plan.loss.per_target
    y = {
        "counts": lambda: rng.poisson(2, (50, classes)),
        "numbers": lambda: rng.standard_normal((50, classes)),
        "labels": lambda: rng.integers(0, classes, 50),
        "rows": lambda: rng.dirichlet(np.ones(classes), 50),
        "bits": lambda: rng.integers(0, 2, 50).astype(float),
    }[kind]()
    return net, x, y


def closest(got, want):
    """Largest difference relative to the largest value."""
    return np.abs(got - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-300)


@pytest.mark.parametrize(("name", "optimizer"), PAIRS)
def test_compiled_training_is_the_numpy_training(name, optimizer):
    """200 steps, the last batch of an epoch short, and some of a batch that is summed in parts.

    Parameters, gradients, every activation.
    """
    (fast, x, y), (slow, _, _) = build(name, optimizer), build(name, optimizer, backend="numpy")
    assert np.array_equal(fast.params, slow.params)
    steps = 0
    for batch_size, batches, epochs in ((16, 4, 50 if JIT else 5), (50, 1, 5)):
        histories = [
            net.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0) for net in (fast, slow)
        ]
        steps += batches * epochs
        assert int(fast._rule["step"][0]) == int(slow._rule["step"][0]) == steps
        for part in ("params", "grads", "work", "grad_work", "state"):
            want = getattr(slow.last, part)  # behind the gradients lie those of the other parts
            assert closest(getattr(fast.last, part)[: want.size], want) <= 1e-9, part
        for figure, values in histories[0].history.items():
            np.testing.assert_allclose(values, histories[1].history[figure], rtol=1e-9)
    assert closest(fast.predict(x), slow.predict(x)) <= 1e-9
    a, b = fast.evaluate(x, y), slow.evaluate(x, y)
    assert a == pytest.approx(b, rel=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_stays_close_to_the_reference(name):
    (fast, x, y), (slow, _, _) = (
        build(name, dtype="float32", backend=b) for b in ("compiled", "numpy")
    )
    for net in (fast, slow):
        net.fit(x, y, epochs=10, batch_size=16, verbose=0)
        assert net.params.dtype == net.predict(x).dtype == np.float32
    assert closest(fast.params, slow.params) <= 1e-3


def in_pieces(plan, rule, sources, buffers, capacity, order, cuts, weight_cuts):
    """A training step in which rows and weights are worked on in pieces, as threads would."""
    net = _op.placed(run.bind(buffers, order, 0, order.size, capacity, 0, 0, run.NO_KEY, 1))
    meeting = pointer(np.zeros(1, np.int64))  # of a single member
    for i in range(cuts.size - 1):
        run.rows_pass(plan, sources, net, 0, cuts[i], cuts[i + 1], meeting, 0, 1)
    for row in range(plan.size):
        if plan[row].gradient != 0:
            width = plan[row].weight_rows
            for i in range(weight_cuts.size - 1):
                lo, hi = int(weight_cuts[i] * width), int(weight_cuts[i + 1] * width)
                if hi > lo:
                    call(plan[row].gradient, plan[row], net, lo, hi)
    rule[0].step += 1
    size = rule[0].parameters
    for i in range(weight_cuts.size - 1):
        call(
            rule[0].update, rule[0], net, int(weight_cuts[i] * size), int(weight_cuts[i + 1] * size)
        )


if JIT:
    in_pieces = njit(in_pieces)


# A batch norm looks at all rows; for it, whole steps are compared in test_layers.py.
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "normalised"])
def test_pieces_of_rows_and_weights_add_up_to_the_same_bits(name, optimizer):
    """What threads rely on: no row looks at another, no weight at another."""
    states = []
    for rows, weights in [([0, 50], [0, 1]), ([0, 1, 17, 40, 50], [0, 0.2, 0.5, 0.9, 1])]:
        net, x, y = build(name, optimizer)
        pair, plan = net._pair(x, y)
        buffers = net._training_buffers(64, 1)
        net._follow_optimizer()
        net._rule["learning_rate"] = 0.01
        rule = net._rule.view(_op.RECORDS)
        rule["update"] = _op.address(
            compiled.UPDATES[net._rule["kind"][0]], net.dtype, net._rule.dtype
        )
        ops = compiled.addressed(plan, "", False, net.dtype, TRAIN)
        table = compiled.records(pair, net.dtype)
        for _ in range(2):
            cuts = np.array(rows), np.array(weights, float)
            in_pieces(ops, rule, table, buffers, 64, np.arange(50), *cuts)
        states.append([b.tobytes() for b in buffers[:5]])
    assert states[0] == states[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_regions_do_not_overlap(name):
    plan = build(name)[0].plan
    spans = sorted((p.offset, p.offset + p.size) for p in plan.parameters)
    assert [end for _, end in spans] == [*(start for start, _ in spans[1:]), plan.size]
    regions = {(r.out, r.out + r.fan_out) for r in plan.rows}
    regions |= {(r.kept, r.kept + r.fan_in) for r in plan.rows if r.kept}
    regions |= {(i, i + 1) for i in (plan.sample_weight, plan.weighted_loss)}
    targets = plan.fan_out // plan.loss.per_target
    regions = sorted([(0, plan.fan_in), (plan.target, plan.target + targets), *regions])
    assert all(end <= start for (_, end), (start, _) in pairwise(regions))
    assert regions[-1][1] == plan.row_size


def test_every_op_is_used_by_some_network():
    used = {op_of(row).name for name in NETWORKS for row in build(name)[0].plan.rows}
    losses_on_probabilities = {"binary_cross_entropy"}  # its gradient is checked elsewhere
    assert set(OPS) - used <= {"weighted", "step"} | losses_on_probabilities


def test_every_op_has_its_kernels_and_every_rule_its_step():
    for op in OPS.values():
        assert f"{op.name}_forward" in KERNELS
        assert (op.backward is not None) == (f"{op.name}_backward" in KERNELS)
        assert (op.gradient is not None) == (f"{op.name}_gradient" in KERNELS)
        assert op.role in ("layer", "activation", "loss", "weights", "metric")
        assert op.role != "loss" or op.targets in TARGETS
        assert not op.metric or OPS[op.metric].role == "metric"
    assert all(f"{rule}_step" in KERNELS for rule in RULES)
    assert {optimizer().rule for optimizer in OPTIMIZERS.values()} == set(RULES)


def test_a_layer_that_needs_no_gradient_for_its_input_computes_none():
    net, x, y = build("deep")
    net.fit(x, y, epochs=1, batch_size=50, verbose=0)
    first = net.plan.rows[net.plan.first]
    assert op_of(first).gradient is not None and first.layer == 2
    assert not net.last.grad_work[: first.x * 64].any()
    assert net.gradients(x, y)["x"].any()


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: nothing is compiled")
def test_a_second_network_compiles_nothing():
    """Other widths, depth, batch size and data: the same compiled code."""

    def train(layers, width, rows):
        net = fnn.Network(layers, loss="cross_entropy", seed=0)
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((rows, width)), rng.integers(0, 2, rows)
        net.fit(x, y, epochs=2, batch_size=7, verbose=0)
        net.evaluate(x, y), net.predict(x), net.gradients(x, y)

    train([fnn.Dense(4, "relu"), fnn.Dense(2, "softmax")], 3, 20)
    before = len(_op.COMPILED)
    with event.install_recorder("numba:compile") as recorder:
        train([*(fnn.Dense(w, "relu") for w in (40, 1, 19)), fnn.Dense(5, "softmax")], 61, 333)
    assert len(_op.COMPILED) == before
    assert recorder.buffer == []


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: nothing is compiled")
def test_only_the_ops_in_use_are_compiled():
    net = fnn.Network([fnn.Dense(3, "tanh")], input_shape=(2,), loss="mse", seed=0)
    net.predict(np.zeros((1, 2)))
    rows = next(iter(net.plan.addressed.values()))
    assert [bool(address) for address in rows["forward"]] == [True, True, False]
    assert not rows["backward"].any() and not rows["gradient"].any()


def test_print_shows_every_op_and_region():
    text = str(build("classes")[0].plan)
    lines = text.splitlines()
    assert lines[0].split() == [
        *("#", "op", "layer", "when", "x", "out", "prob", "target", "weight", "bias"),
        *("fan_in", "fan_out"),
    ]
    assert [re.split("  +", line)[1] for line in lines[1:-1]] == [
        *("dense relu", "dense", "softmax", "softmax_cross_entropy", "categorical_accuracy"),
    ]
    assert re.fullmatch(r"params: 67 values; work: \d+ values per batch row", lines[-1])


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_plan_of_no_parameters_trains_nothing(backend):
    layers = [fnn.Activation("relu")]
    net = fnn.Network(layers, input_shape=(2,), loss="mse", seed=0, backend=backend)
    assert isinstance(net.plan, Plan) and net.params.size == 0
    history = net.fit([[1.0, 2.0]], [[1.0, 1.0]], epochs=2, verbose=0)
    assert history.history["loss"] == [0.5, 0.5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_buffers_begin_on_a_line_of_the_cache(dtype):
    """Vectors that lie in two lines are read and written twice."""
    for rows in (7, 5000):  # of the heap, of pages of its own
        net = fnn.Network([fnn.Dense(5, "relu"), fnn.Dense(3)], input_shape=(4,), dtype=dtype)
        for name, buffer in net._training_buffers(rows, 2)._asdict().items():
            assert buffer.ctypes.data % 64 == 0, name
