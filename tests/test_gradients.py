"""Every op's gradient against central differences: all parameters and all inputs, float64."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import losses
from fastnn.kernels._kernel import JIT
from fastnn.kernels._op import OPS

EPS = 1e-5
ACTIVATIONS = [op.name for op in OPS.values() if op.role == "activation" and op.backward]
# Losses on probabilities take outputs that are probabilities.
PROBABLE = dict.fromkeys(
    ("cross_entropy", "binary_cross_entropy", "kl_divergence", "poisson"), ("softmax", "sigmoid")
)
LOSSES = losses.known()
ENDINGS = [(a, loss) for loss in LOSSES for a in PROBABLE.get(loss, ACTIVATIONS)]


def network(hidden, output, loss, seed, backend="compiled"):
    normal = fnn.initializers.normal(0.7)
    options = {"weight_initializer": normal, "bias_initializer": normal}
    layers = [
        fnn.Activation("leaky_relu", alpha=0.3),
        fnn.Dense(4, hidden, **options),
        fnn.Dense(3 * losses.get(loss).op.per_target, **options),
        fnn.Activation(output),
    ]
    return fnn.Network(
        layers, input_shape=(3,), loss=loss, dtype="float64", seed=seed, backend=backend
    )


def data(loss, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((5, 3))
    return x, targets_of(losses.get(loss), rng, (5, 3))


def targets_of(loss, rng, shape):
    """Random targets of the kind that a loss takes."""
    return {
        "classes": lambda: rng.dirichlet(np.ones(shape[1]), shape[0]),
        "chances": lambda: rng.integers(0, 2, shape).astype(float),
        "signs": lambda: rng.choice([-1.0, 1.0], shape),
        "counts": lambda: rng.poisson(2.0, shape).astype(float),
        "numbers": lambda: rng.standard_normal(shape),
    }[loss.op.targets]()


def differences(net, x, y):
    """Central differences of the loss in every parameter and every input."""

    def loss():
        return net.evaluate(x, y)["loss"]

    result = []
    for values in (net.params, x.reshape(-1)):
        slopes = np.empty(values.size)
        for i in range(values.size):
            kept = values[i]
            values[i] = kept + EPS
            above = loss()
            values[i] = kept - EPS
            below = loss()
            values[i] = kept
            slopes[i] = (above - below) / (2 * EPS)
        result.append(slopes)
    return result


def relative(got, want):
    return np.abs(got - want).max() / max(np.abs(want).max(), 1e-3)


def check(hidden, output, loss, seed):
    net = network(hidden, output, loss, seed)
    x, y = data(loss, seed)
    got = net.gradients(x, y)
    params = np.concatenate([got[p.title].ravel() for p in net.plan.parameters])
    slopes, x_slopes = differences(net, x, y)
    return max(relative(params, slopes), relative(got["x"].ravel(), x_slopes))


@pytest.mark.parametrize(("output", "loss"), ENDINGS)
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_gradient_matches_central_differences(hidden, output, loss):
    # A kink within EPS of a value spoils the difference, not the gradient: such data, rare,
    # is told apart from a wrong formula by other data, which a wrong formula fails as well.
    seeds = range(3)
    errors = [check(hidden, output, loss, seed) for seed in (seeds if JIT else [0])]
    assert min(errors) <= 1e-6
    assert sorted(errors)[len(errors) // 2] <= 1e-6


def test_two_runs_give_the_same_bits():
    x, y = data("cross_entropy", 0)
    net = network("tanh", "softmax", "cross_entropy", 0)
    first, second = net.gradients(x, y), net.gradients(x, y)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_saturated_sigmoid_still_learns():
    """A confidently wrong unit has gradient -1, where clipped formulas have almost none."""
    net = fnn.Network(
        [fnn.Dense(1, "sigmoid")], input_shape=(1,), loss="binary_cross_entropy", dtype="float64"
    )
    net.params = [1.0, 0.0]
    for z in (-17.0, -40.0, -700.0):
        gradient = net.gradients([[z]], [1.0])["0.bias"][0]
        assert gradient == pytest.approx(-1, abs=1e-7)
        assert net.evaluate([[z]], [1.0])["loss"] == pytest.approx(-z, rel=1e-7)


def test_cross_entropy_is_exact_for_any_logits():
    net = fnn.Network(
        [fnn.Dense(3, "softmax")], input_shape=(3,), loss="cross_entropy", dtype="float64"
    )
    net.params = [*np.eye(3).ravel(), 0, 0, 0]
    assert net.evaluate([[1000.0, 0, -1000]], [2])["loss"] == 2000
    loss = net.evaluate([[1010.0, 1000, 1000]], [0])["loss"]
    assert loss == pytest.approx(np.log1p(2 * np.exp(-10)), rel=1e-11)


def test_mae_descends():
    """The gradient has the sign of the error, and is 0 where there is none."""
    net = fnn.Network([fnn.Dense(1)], input_shape=(1,), loss="mae", dtype="float64")
    net.params = [1.0, 0.0]
    assert net.gradients([[2.0]], [1.0])["0.bias"] == 1
    assert net.gradients([[1.0]], [2.0])["0.bias"] == -1
    assert net.gradients([[1.0]], [1.0])["0.bias"] == 0
