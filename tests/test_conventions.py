"""Hyper-parameters of others turned into fastnn's: the same steps, where those can be installed."""

import inspect
import re

import numpy as np
import pytest

import fastnn as fnn
from fastnn import conventions
from fastnn.kernels._kernel import KERNELS

ROWS, FAN_IN, OUTPUTS = 12, 4, 3


def data(loss="mse", outputs=OUTPUTS):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, FAN_IN))
    if loss == "mse":
        return x, rng.standard_normal((ROWS, outputs))
    if loss == "cross_entropy":
        return x, np.arange(ROWS) % OUTPUTS
    return x, (rng.standard_normal((ROWS, outputs)) > 0).astype(int)


def step(weight, bias, x, y, loss, rate, l2=0.0, bias_l2=0.0):
    """Weights and biases of a linear model after one step of fastnn's gradient descent."""
    last = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss, "linear")
    net = fnn.Network(
        [fnn.Dense(weight.shape[1], last)], input_shape=(FAN_IN,), loss=loss, dtype="float64"
    )
    net.layers[0].weight, net.layers[0].bias = weight, bias
    gradient = net.gradients(x, y)
    return (
        weight - rate * (gradient["0.weight"] + 2 * l2 * weight),  # l2 * sum(w**2) in the loss
        bias - rate * (gradient["0.bias"] + 2 * bias_l2 * bias),
    )


# -- scikit-learn -----------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "binary_cross_entropy"])
def test_sklearn_penalty_and_scale_of_the_loss(loss):
    """A step of scikit-learn's SGD, penalty and all, is one of fastnn's with what the helpers say.

    Its squared error is the trap: the gradient is that of a sum over the outputs, the loss a mean.
    """
    sklearn = pytest.importorskip("sklearn.neural_network")
    x, y = data(loss)
    kind = sklearn.MLPRegressor if loss == "mse" else sklearn.MLPClassifier
    alpha, rate = 0.5, 0.1
    theirs = kind(
        hidden_layer_sizes=(),
        solver="sgd",
        alpha=alpha,
        learning_rate_init=rate,
        momentum=0.0,
        nesterovs_momentum=False,
        batch_size=ROWS,
        shuffle=False,
        random_state=0,
    )
    classes = {} if loss == "mse" else {"classes": np.unique(y)}
    if loss == "binary_cross_entropy":
        classes = {"classes": np.arange(OUTPUTS)}
    theirs.partial_fit(x, y, **classes)
    weight, bias = theirs.coefs_[0].copy(), theirs.intercepts_[0].copy()
    theirs.partial_fit(x, y)
    scale = conventions.loss_scale("sklearn", loss, OUTPUTS)
    l2 = conventions.l2_from_sklearn(alpha, ROWS, scale)
    ours = step(weight, bias, x, y, loss, rate * scale, l2)
    np.testing.assert_allclose(ours[0], theirs.coefs_[0], rtol=1e-12)
    np.testing.assert_allclose(ours[1], theirs.intercepts_[0], rtol=1e-10, atol=1e-15)


def test_sklearn_invscaling_counts_samples():
    """The rate drops between epochs, by the samples seen: 1/245 after one epoch of 60,000."""
    sklearn = pytest.importorskip("sklearn.neural_network")
    x, y = data()
    theirs = sklearn.MLPRegressor(
        hidden_layer_sizes=(), solver="sgd",
        learning_rate="invscaling", learning_rate_init=0.1, batch_size=5,
        power_t=0.4, random_state=0,
    )  # fmt: skip
    rates = conventions.rates_from_sklearn(0.1, ROWS, 5, epochs=3, power_t=0.4)
    assert rates.shape == (9,)
    for epoch in range(2):
        theirs.partial_fit(x, y)
        assert rates[3 * epoch + 2] != rates[3 * epoch + 3]
        assert theirs._optimizer.learning_rate == pytest.approx(rates[3 * epoch + 3], rel=1e-15)
    first, _, second, _ = conventions.rates_from_sklearn(1.0, 60_000, 30_000, epochs=2)
    assert first / second == pytest.approx(245, rel=1e-3)


def test_sklearn_adam_adds_epsilon_to_the_raw_mean():
    sklearn = pytest.importorskip("sklearn.neural_network._stochastic_optimizers")
    param, grad, epsilon = np.array([1.0, 1.0]), np.array([1e-3, 1e-6]), 1e-5
    theirs = sklearn.AdamOptimizer([param], 0.1, epsilon=epsilon)
    options = conventions.adam_epsilon("sklearn", epsilon)
    m, v = np.zeros(2), np.zeros(2)
    ours = param.copy()
    for count in (1, 2):
        theirs.update_params([param], [grad])
        ours, m, v = adam(ours, grad, m, v, options, count)
        np.testing.assert_allclose(ours, param, rtol=1e-12)


# -- torch ------------------------------------------------------------------------


def test_torch_weight_decay_is_half_a_penalty_on_biases_too():
    torch = pytest.importorskip("torch")
    x, y = data()
    linear = torch.nn.Linear(FAN_IN, OUTPUTS, dtype=torch.float64)
    weight, bias = linear.weight.detach().numpy().T.copy(), linear.bias.detach().numpy().copy()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1, weight_decay=0.3)
    torch.nn.MSELoss()(linear(torch.tensor(x)), torch.tensor(y)).backward()
    optimizer.step()
    l2, scale = conventions.l2_from_torch(0.3), conventions.loss_scale("torch", "mse", OUTPUTS)
    ours = step(weight, bias, x, y, "mse", 0.1 * scale, l2, bias_l2=l2)
    np.testing.assert_allclose(ours[0], linear.weight.detach().numpy().T, rtol=1e-12)
    np.testing.assert_allclose(ours[1], linear.bias.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "name"),
    [("mse", "MSELoss"), ("mae", "L1Loss"), ("binary_cross_entropy", "BCEWithLogitsLoss"),
     ("cross_entropy", "CrossEntropyLoss")],
)  # fmt: skip
def test_torch_losses_have_the_scale_of_ours(loss, name):
    torch = pytest.importorskip("torch")
    x, y = data("mse" if loss == "mae" else loss)
    weight, bias = np.full((FAN_IN, OUTPUTS), 0.1) * np.arange(1, 4), np.zeros(OUTPUTS)
    w = torch.tensor(weight, requires_grad=True)
    target = torch.tensor(y) if loss == "cross_entropy" else torch.tensor(y, dtype=torch.float64)
    getattr(torch.nn, name)()(torch.tensor(x) @ w, target).backward()
    ours = weight - step(weight, bias, x, y, loss, 1.0)[0]
    scale = conventions.loss_scale("torch", loss, OUTPUTS)
    np.testing.assert_allclose(scale * ours, w.grad.numpy(), rtol=1e-10, atol=1e-15)


def test_torch_adam_adds_epsilon_to_the_corrected_mean():
    torch = pytest.importorskip("torch")
    grad, epsilon = np.array([1e-3, 1e-6]), 1e-5
    param = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([param], lr=0.1, eps=epsilon)
    options = conventions.adam_epsilon("torch", epsilon)
    ours, m, v = np.ones(2), np.zeros(2), np.zeros(2)
    for count in (1, 2):
        param.grad = torch.tensor(grad)
        theirs.step()
        ours, m, v = adam(ours, grad, m, v, options, count)
        np.testing.assert_allclose(ours, param.detach().numpy(), rtol=1e-12)


def test_torch_momentum_makes_the_same_steps():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    param = torch.ones(3, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.SGD([param], lr=0.1, momentum=0.9)
    ours, velocity = np.ones(3), np.zeros(3)
    for _ in range(4):
        grad = rng.standard_normal(3)
        param.grad = torch.tensor(grad)
        theirs.step()
        ours, velocity = KERNELS["momentum_step"].reference(ours, grad, velocity, 0.1, 0.9, 0)
        np.testing.assert_allclose(ours, param.detach().numpy(), rtol=1e-12)


def test_torch_batch_norm_momentum_is_the_share_of_the_new_mean():
    torch = pytest.importorskip("torch")
    x = data()[0]
    theirs = torch.nn.BatchNorm1d(FAN_IN, momentum=0.2, dtype=torch.float64)
    theirs.running_mean.fill_(1.0)
    theirs(torch.tensor(x))
    keep = conventions.batch_norm_momentum_from_torch(0.2)
    assert keep == 0.8
    np.testing.assert_allclose(theirs.running_mean, keep + (1 - keep) * x.mean(axis=0))


def adam(param, grad, m, v, options, count):
    """A step of fastnn's Adam with an epsilon of someone else's."""
    raw = int(options["epsilon_mode"] == "raw")
    reference = KERNELS["adam_step"].reference
    return reference(param, grad, m, v, 0.1, 0.9, 0.999, options["epsilon"], raw, count)


# -- the books --------------------------------------------------------------------


def test_nielsen_weights_shrink_by_lmbda_over_the_training_set():
    """network2: ``w = (1 - eta * lmbda / n) w - eta * mean of the summed cross-entropy's``."""
    x, y = data("binary_cross_entropy")
    weight, bias, eta, lmbda, n = np.full((FAN_IN, OUTPUTS), 0.2), np.zeros(OUTPUTS), 0.5, 5.0, 50
    gradient = x.T @ (1 / (1 + np.exp(-x @ weight)) - y) / ROWS
    published = (1 - eta * lmbda / n) * weight - eta * gradient
    scale = conventions.loss_scale("nielsen", "binary_cross_entropy", OUTPUTS)
    l2 = conventions.l2_from_nielsen(lmbda, n, scale)
    ours = step(weight, bias, x, y, "binary_cross_entropy", eta * scale, l2)[0]
    np.testing.assert_allclose(ours, published, rtol=1e-13)


def test_nielsen_quadratic_cost_is_ours_and_half_the_outputs_of_mse():
    x, y = data()
    weight, bias = np.full((FAN_IN, OUTPUTS), 0.2), np.zeros(OUTPUTS)
    published = weight - 0.1 * x.T @ (x @ weight - y) / ROWS
    for loss in ("quadratic", "mse"):
        scale = conventions.loss_scale("nielsen", loss, OUTPUTS)
        ours = step(weight, bias, x, y, loss, 0.1 * scale)[0]
        np.testing.assert_allclose(ours, published, rtol=1e-13)


def test_network3_counts_batches():
    """lmbda=0.1 with 5,000 batches is what network2 calls lmbda=1.0 with 50,000 images."""
    assert conventions.l2_from_network3(0.1, 5_000) == pytest.approx(
        conventions.l2_from_nielsen(1.0, 50_000), rel=1e-15
    )


def test_worked_examples():
    assert conventions.l2_from_nielsen(5.0, 50_000) == 5e-5
    assert conventions.l2_from_sklearn(1e-4, 200) == 2.5e-7
    assert conventions.decay_from_keras(0.5, 1000) == 5e-4
    assert conventions.adam_epsilon("nnfs") == {"epsilon": 1e-7, "epsilon_mode": "corrected"}
    # After t updates Keras divides by 1 + decay_rate * t / decay_steps.
    adam = fnn.Adam(0.1, decay=conventions.decay_from_keras(0.5, 4))
    np.testing.assert_allclose(adam.rates(0, 9), 0.1 / (1 + 0.5 * np.arange(9) / 4), rtol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conventions.loss_scale("kears", "mse"), "library must be one of keras,"),
        (lambda: conventions.loss_scale("keras", "msee"), "loss must be one of mse,"),
        (lambda: conventions.loss_scale("keras", "mse", 0), "outputs must be at least 1, got 0"),
        (lambda: conventions.l2_from_nielsen(-1.0, 10), "lmbda must be at least 0, got -1.0"),
        (lambda: conventions.l2_from_nielsen(1.0, 0), "samples must be at least 1, got 0"),
        (lambda: conventions.l2_from_sklearn(1.0, 5, 0.0), "scale must be above 0, got 0.0"),
        (lambda: conventions.adam_epsilon("nielsen"), "library must be one of .*; got 'nielsen'"),
        (lambda: conventions.batch_norm_momentum_from_torch(1.1), "from 0 to 1, got 1.1"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_page_names_every_helper():
    page = inspect.getdoc(conventions)
    named = set(re.findall(r"`(\w+)`", page.replace("``", "")))
    assert set(conventions.__all__) <= named
    assert all(inspect.getdoc(getattr(conventions, name)) for name in conventions.__all__)
