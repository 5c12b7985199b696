"""vjp, jvp, Jacobians and Hessian-vector products against finite differences and torch."""

import numpy as np
import pytest
from numba import njit

import fastnn as fnn
from fastnn.kernels._kernel import JIT
from tests.test_plan import NETWORKS, build

SMOOTH = [n for n in NETWORKS if n != "categories"]
EPS = 1e-6


@njit
def pulled(net, x, grad_out):
    return net.vjp(x, grad_out)


@njit
def jacobian(net, x):
    return net.jacobian(x)


def settled(name, **options):
    """A network whose running means have moved, and rows that are no corner of a rectifier."""
    net, x, y = build(name, **options)
    if net.backend == "compiled":
        net.fit(x, y, epochs=1, verbose=0)
    return net, x, y


def by_differences(f, x):
    """d f / d x, (*f(x).shape, x.size), by central differences."""
    columns = []
    for i in range(x.size):
        step = np.zeros(x.size)
        step[i] = EPS
        step = step.reshape(x.shape)
        columns.append((f(x + step) - f(x - step)) / (2 * EPS))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("name", SMOOTH)
def test_jacobian_is_that_of_central_differences(name):
    net, x, _ = settled(name)
    want = by_differences(net, x[4])
    np.testing.assert_allclose(net.jacobian(x[4]), want, rtol=1e-6, atol=1e-8)
    got = net.jacobian(x[:7])
    assert got.shape == (7, net.plan.fan_out, net.plan.fan_in)
    np.testing.assert_allclose(got[4], want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", SMOOTH)
def test_compiled_python_and_numpy_agree(name):
    net, x, _ = settled(name)
    rng = np.random.default_rng(3)
    grad_out = rng.standard_normal((50, net.plan.fan_out))
    got = pulled(net, x, grad_out)
    near = {"rtol": 0, "atol": 0} if JIT else {"atol": 1e-12}  # BLAS sums rows in another order
    assert np.array_equal(got, net.vjp(x, grad_out))
    np.testing.assert_allclose(got[3], pulled(net, x[3], grad_out[3]), **near)
    jacobians = jacobian(net, x[:5])
    assert np.array_equal(jacobians, net.jacobian(x[:5]))
    np.testing.assert_allclose(jacobians[2], jacobian(net, x[2]), **near)
    np.testing.assert_allclose(
        np.einsum("no,noi->ni", grad_out[:5], jacobians), got[:5], atol=1e-12
    )
    slow = build(name, backend="numpy")[0]
    slow.params = net.params
    np.testing.assert_allclose(slow.vjp(x, grad_out), got, atol=1e-12)
    np.testing.assert_allclose(slow.jacobian(x[:5]), jacobians, atol=1e-12)


def test_more_rows_and_outputs_than_a_block():
    net = fnn.Network([fnn.Dense(3, "tanh"), fnn.Dense(300)], input_shape=(4,), seed=0)
    x = np.random.default_rng(0).standard_normal((600, 4)).astype("f4")
    jacobians = jacobian(net, x[:3])
    slow = fnn.Network(
        [fnn.Dense(3, "tanh"), fnn.Dense(300)], input_shape=(4,), seed=0, backend="numpy"
    )
    np.testing.assert_allclose(jacobians, slow.jacobian(x[:3]), atol=1e-5)
    grad_out = np.ones((600, 300), np.float32)
    np.testing.assert_allclose(pulled(net, x, grad_out), slow.vjp(x, grad_out), atol=1e-3)


def test_the_scale_of_an_input_is_part_of_the_derivative():
    layers = [fnn.Input((4,), scale=0.01, offset=-1), fnn.Dense(5, "tanh"), fnn.Dense(3)]
    net = fnn.Network(layers, seed=0, dtype="float64")
    x = np.arange(4) * 50
    want = by_differences(net, x.astype(float))
    for got in (net.jacobian(x), jacobian(net, x)):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


def test_what_has_no_gradient_says_so():
    step = fnn.Network([fnn.Dense(2, "step")], input_shape=(3,), seed=0)
    table = fnn.Network([fnn.Embedding(5, 2), fnn.Dense(1)], input_shape=(3,), seed=0)
    for net in (step, table):
        for f in (fnn.Network.jacobian, jacobian):
            with pytest.raises(ValueError, match="step and Embedding have no gradient"):
                f(net, np.ones(3))


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 2), (4, 3), (2, 4)])
def test_a_gradient_of_another_shape_is_refused(shape):
    net = fnn.Network([fnn.Dense(2)], input_shape=(3,), seed=0)
    x = np.ones((4, 3)) if len(shape) == 2 else np.ones(3)
    for f in (fnn.Network.vjp, pulled):
        with pytest.raises(ValueError, match="grad_out must"):
            f(net, x, np.ones(shape))


def torch_twin(net, torch):
    """The same network in torch, float64; takes its flat parameters and x."""
    names = {"tanh": torch.tanh, "softmax": lambda z: torch.softmax(z, -1), "gelu": None}
    names |= {"gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu}
    names |= {"mish": torch.nn.functional.mish, "sigmoid": torch.sigmoid, "linear": lambda z: z}
    names |= {"softplus": torch.nn.functional.softplus, "elu": torch.nn.functional.elu}
    plan = net.plan

    def forward(params, x):
        for number, layer in enumerate(net.layers):
            own = {
                p.name: params[p.offset : p.offset + p.size].reshape(p.shape)
                for p in plan.parameters
                if p.layer == number
            }
            x = names[layer.activation.name](x @ own["weight"] + own["bias"])
        return x

    return forward


ACTIVATIONS = ("tanh", "gelu", "silu", "mish", "sigmoid", "softplus", "elu")


def for_torch():
    torch = pytest.importorskip("torch")
    layers = [*(fnn.Dense(5, name) for name in ACTIVATIONS), fnn.Dense(3, "softmax")]
    net = fnn.Network(layers, input_shape=(4,), dtype="float64", seed=2, loss="cross_entropy")
    net.params += np.random.default_rng(0).standard_normal(net.params.size) * 0.3
    return torch, net, torch_twin(net, torch)


def test_jacobian_and_products_are_those_of_torch():
    torch, net, twin = for_torch()
    rng = np.random.default_rng(1)
    x, grad_out = rng.standard_normal(4), rng.standard_normal(3)
    params = torch.tensor(net.params)
    f, at = (lambda z: twin(params, z)), torch.tensor(x)
    want = torch.autograd.functional.jacobian(f, at).numpy()
    pull = torch.autograd.functional.vjp(f, at, torch.tensor(grad_out))[1].numpy()
    np.testing.assert_allclose(net.jacobian(x), want, atol=1e-10 * np.abs(want).max())
    np.testing.assert_allclose(net.vjp(x, grad_out), pull, atol=1e-10 * np.abs(pull).max())
    along = torch.autograd.functional.jvp(f, at, torch.tensor(x[::-1].copy()))[1].numpy()
    np.testing.assert_allclose(net.jvp(x, x[::-1]), along, atol=1e-10 * np.abs(along).max())


def test_hessian_products_are_those_of_torch():
    torch, net, twin = for_torch()
    rng = np.random.default_rng(1)
    x, y, v = (
        rng.standard_normal((6, 4)),
        rng.integers(0, 3, 6),
        rng.standard_normal(net.params.size),
    )

    def loss(params):
        chances = twin(params, torch.tensor(x))
        return -torch.log(chances[torch.arange(6), torch.tensor(y)]).mean()

    _, want = torch.autograd.functional.hvp(loss, torch.tensor(net.params), torch.tensor(v))
    got, want = net.hessian_vector_product(x, y, v), want.numpy()
    np.testing.assert_allclose(got, want, atol=1e-10 * np.abs(want).max())


@pytest.mark.parametrize("name", SMOOTH)
def test_jvp_is_the_jacobian_times_a_direction(name):
    net, x, _ = settled(name)
    v = np.random.default_rng(5).standard_normal(x.shape)
    want = np.einsum("noi,ni->no", net.jacobian(x[:6]), v[:6])
    got = net.jvp(x[:6], v[:6])
    np.testing.assert_allclose(got, want, atol=1e-12 * max(1, np.abs(want).max()))
    np.testing.assert_allclose(net.jvp(x[2], v[2]), got[2], rtol=1e-13)


@pytest.mark.parametrize("name", NETWORKS)
def test_hessian_product_is_the_difference_of_gradients(name):
    net, x, y = settled(name)
    v = np.random.default_rng(5).standard_normal(net.params.size)
    before, gradients = net.params.copy(), []
    for side in (1, -1):
        net.params = before + side * 1e-6 * v
        gradients.append(net.loss_and_gradient(x, y)[1])
    net.params = before
    fixed = [not p.trainable for p in net.plan.parameters for _ in range(p.size)]
    got = net.hessian_vector_product(x, y, v)
    assert not got[fixed].any()
    if not any(fixed):  # else the differences were along other directions as well
        want = (gradients[0] - gradients[1]) / 2e-6
        np.testing.assert_allclose(got, want, atol=2e-6 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_directions_of_another_shape_are_refused(shape):
    net = fnn.Network([fnn.Dense(2)], input_shape=(4,), seed=0)
    v = np.ones(shape)
    with pytest.raises(ValueError, match="v must"):
        net.jvp(np.ones(4), v)
    with pytest.raises(ValueError, match="v must"):
        net.hessian_vector_product(np.ones((2, 4)), np.ones((2, 2)), v)
