"""Every op's gradient against central differences: all parameters and all inputs, float64."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import losses
from fastnn.kernels._op import OPS

EPS = 1e-5
ACTIVATIONS = [op.name for op in OPS.values() if op.role == "activation" and op.backward]
# Losses on probabilities take outputs that are probabilities.
PROBABLE = dict.fromkeys(
    ("cross_entropy", "binary_cross_entropy", "kl_divergence", "poisson"), ("softmax", "sigmoid")
)
LOSSES = losses.known()
ENDINGS = [(a, loss) for loss in LOSSES for a in PROBABLE.get(loss, ACTIVATIONS)]
# Every loss with every hidden activation, and with every output activation that it takes.
CHAINS = [("tanh", a, loss) for a, loss in ENDINGS]
CHAINS += [(h, PROBABLE.get(loss, ["linear"])[0], loss) for h in ACTIVATIONS for loss in LOSSES]
LAYERS = {
    "dense": lambda: fnn.Dense(4, use_bias=False),
    "dropout": lambda: fnn.Dropout(0.3),
    "noise": lambda: fnn.GaussianNoise(0.5),
    "batch norm": lambda: fnn.BatchNorm(),
    "layer norm": lambda: fnn.LayerNorm(),
    "rescaling": lambda: fnn.Rescaling(1.5, -0.2),
    "normalization": lambda: fnn.Normalization().adapt(np.arange(12.0).reshape(3, 4) ** 1.5),
}
PENALTIES = {"none": {}, "l1": {"weight_l1": 0.1, "bias_l1": 0.2}, "l2": {"weight_l2": 0.3}}


def network(hidden, output, loss, seed, backend="compiled", between=(), penalties=None):
    normal = fnn.initializers.normal(0.7)
    options = {"weight_initializer": normal, "bias_initializer": normal}
    layers = [
        fnn.Activation("leaky_relu", alpha=0.3),
        fnn.Dense(4, hidden, **options, **(penalties or {})),
        *between,
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
        return net._differentiate(x, y)[0]

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


def error(seed, hidden, output, loss, between=None, penalties=None):
    """Largest relative difference, of what is trained and of the input."""
    layers = () if between is None else (between(),)
    net = network(hidden, output, loss, seed, between=layers, penalties=penalties)
    x, y = data(loss, seed)
    got = net.gradients(x, y)
    slopes, x_slopes = differences(net, x, y)
    moved = [p for p in net.plan.parameters if p.trainable]
    params = np.concatenate([got[p.title].ravel() for p in moved])
    slopes = np.concatenate([p.of(slopes).ravel() for p in moved])
    return max(relative(params, slopes), relative(got["x"].ravel(), x_slopes))


def agrees(*chain):
    """Whether gradients are right for one of three sets of data.

    A kink within EPS of a value spoils the difference, not the gradient: such data, rare, is
    told apart from a wrong formula by other data, which a wrong formula fails as well.
    """
    return any(error(seed, *chain) <= 1e-6 for seed in range(3))


@pytest.mark.parametrize(("hidden", "output", "loss"), CHAINS)
def test_gradient_matches_central_differences(hidden, output, loss):
    assert agrees(hidden, output, loss)


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("between", LAYERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_through_every_layer(loss, between, penalties):
    output = PROBABLE.get(loss, ["linear"])[0]
    assert agrees("tanh", output, loss, LAYERS[between], PENALTIES[penalties])


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
