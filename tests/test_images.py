"""Convolution and pooling: against torch, for any threads, alone or in a batch."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn.kernels._kernel import JIT

# Step by step in Python what a thread does to lanes takes minutes.
compiled = pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: takes minutes")

CONVOLUTIONS = {
    "plain": dict(kernel_size=3),
    "wide window": dict(kernel_size=(2, 5)),
    "zeros around": dict(kernel_size=3, padding=(2, 1)),
    "same": dict(kernel_size=(3, 4), padding="same"),
    "strides": dict(kernel_size=3, strides=(2, 3), padding=1),
    "apart": dict(kernel_size=2, strides=3),
    "no bias": dict(kernel_size=3, use_bias=False),
    "one tap": dict(kernel_size=1),
}
POOLS = {
    "halves": (2, None),
    "overlapping": (3, 2),
    "one step": ((2, 3), 1),
    "apart": (2, 3),
}


def build(layers, shape, **options):
    options = {"dtype": "float64", "seed": 3, "loss": "mse", **options}
    return fnn.Network(layers, input_shape=shape, **options)


def lenet(**options):
    layers = [
        *(fnn.Conv2D(6, 5, "relu"), fnn.MaxPool2D(), fnn.Conv2D(16, 5, "relu"), fnn.MaxPool2D()),
        *(fnn.Flatten(), fnn.Dense(120, "relu"), fnn.Dense(84, "relu"), fnn.Dense(10, "softmax")),
    ]
    options = {"loss": "cross_entropy", "optimizer": "adam", "seed": 0, **options}
    return fnn.Network([fnn.Input((28, 28), scale=1 / 255), *layers], **options)


def images(n, *shape):
    rng = np.random.default_rng(n)
    return rng.integers(0, 256, (n, *shape)).astype(np.uint8), rng.integers(0, 10, n)


@pytest.mark.filterwarnings("ignore:Using padding")  # torch, of windows of even size
@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_agrees_with_torch(name, backend):
    torch = pytest.importorskip("torch")
    options = CONVOLUTIONS[name]
    net = build([fnn.Conv2D(5, **options), fnn.Activation("tanh")], (3, 9, 11), backend=backend)
    layer, rng = net.layers[0], np.random.default_rng(2)
    net.params = rng.standard_normal(net.params.shape)
    x = rng.standard_normal((19, 3, 9, 11))
    y = rng.standard_normal((19, *net.plan.out_shape))
    taken, weight = (
        torch.tensor(a, requires_grad=True) for a in (x, layer.weight.transpose(3, 0, 1, 2))
    )
    bias = torch.tensor(layer.bias if layer.use_bias else np.zeros(5), requires_grad=True)
    padding = layer.padding if layer.padding != "valid" else 0
    out = torch.nn.functional.conv2d(
        taken, weight, bias, stride=layer.strides, padding=padding
    ).tanh()
    torch.nn.functional.mse_loss(out, torch.tensor(y)).backward()
    np.testing.assert_allclose(net.predict(x), out.detach(), rtol=1e-10, atol=1e-12)
    got = net.gradients(x, y)
    wanted = {"x": taken.grad, "0.weight": weight.grad.permute(1, 2, 3, 0)}
    if layer.use_bias:
        wanted["0.bias"] = bias.grad
    for key, want in wanted.items():
        np.testing.assert_allclose(got[key], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_agrees_with_torch(kind, name, backend):
    torch = pytest.importorskip("torch")
    size, strides = POOLS[name]
    ours, theirs = {
        "max": (fnn.MaxPool2D, torch.nn.functional.max_pool2d),
        "average": (fnn.AveragePool2D, torch.nn.functional.avg_pool2d),
    }[kind]
    net = build([ours(size, strides)], (3, 8, 9), backend=backend)
    rng = np.random.default_rng(2)
    x = rng.integers(0, 4, (19, 3, 8, 9)).astype(float)  # with ties
    y = rng.standard_normal((19, *net.plan.out_shape))
    taken = torch.tensor(x, requires_grad=True)
    out = theirs(taken, size, strides)
    torch.nn.functional.mse_loss(out, torch.tensor(y)).backward()
    np.testing.assert_allclose(net.predict(x), out.detach(), rtol=1e-12)
    np.testing.assert_allclose(net.gradients(x, y)["x"], taken.grad, rtol=1e-9, atol=1e-13)


def test_strides_of_same_padding_are_those_of_keras():
    """As many places as the size divided by the stride, rounded up; the odd zero comes last."""
    net = build([fnn.Conv2D(1, 3, strides=2, padding="same", use_bias=False)], (4, 5))
    net.layers[0].weight = np.arange(9.0).reshape(1, 3, 3, 1)
    x = np.ones((1, 4, 5))
    padded = np.pad(x[0], ((0, 1), (1, 1)))
    want = [
        [(padded[i : i + 3, j : j + 3] * np.arange(9).reshape(3, 3)).sum() for j in (0, 2, 4)]
        for i in (0, 2)
    ]
    np.testing.assert_allclose(net.predict(x)[0, 0], want)


@compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_image_has_the_same_bits_in_any_company(dtype):
    net = lenet(dtype=dtype)
    x, _ = images(50, 28, 28)
    whole = net.predict(x)
    for rows in ([0], [49], range(3), range(10, 27), range(16)):
        rows = list(rows)
        assert np.array_equal(net.predict(x[rows]), whole[rows])
    assert np.array_equal(net(x[7].ravel()), whole[7])


@compiled
@pytest.mark.parametrize("batch", [1, 10, 50, 128])
def test_threads_do_not_change_a_bit(batch):
    x, y = images(150, 28, 28)
    nets = [lenet(threads=threads) for threads in (1, 2, 3)]
    for net in nets:
        net.fit(x, y, epochs=2, batch_size=batch, verbose=0)
        assert np.array_equal(net.params, nets[0].params)
        assert np.array_equal(net.predict(x), nets[0].predict(x))


@compiled
@pytest.mark.parametrize("shape", [(1, 28, 28), (12, 9, 9), (5, 40, 40)])
def test_threads_that_share_the_taps_do_not_change_a_bit(shape):
    """Where a batch is not cut into parts, each thread has some of the taps, for all samples."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((130, *shape)), rng.standard_normal((130, 3))
    results = []
    for threads in (1, 2, 3, 4):
        layers = [fnn.Conv2D(7, 4, "tanh"), fnn.MaxPool2D(3), fnn.Flatten(), fnn.BatchNorm()]
        net = build([*layers, fnn.Dense(3)], shape, dtype="float32", threads=threads)
        assert not net.plan.divisible
        net.fit(x, y, epochs=2, batch_size=130, verbose=0)
        results.append(net.params.tobytes())
    assert len(set(results)) == 1


@compiled
def test_channels_wider_than_a_block_of_the_kernels():
    """More than what is laid side by side at a time: blocks of channels, rows and columns."""
    rng = np.random.default_rng(0)
    for shape, filters, size in [
        ((160, 9, 9), 40, 3),
        ((3, 5, 700), 7, (3, 60)),
        ((2, 70, 70), 130, 5),
    ]:
        nets = [
            build([fnn.Conv2D(filters, size, padding="same")], shape, backend=backend)
            for backend in ("compiled", "numpy")
        ]
        x = rng.standard_normal((3, *shape))
        y = rng.standard_normal((3, filters, *shape[1:]))
        got = nets[0].gradients(x, y)
        for key, want in nets[1].gradients(x, y).items():
            np.testing.assert_allclose(got[key], want, rtol=1e-8, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (lambda: fnn.Conv2D(2, 3), (9,), r"needs images, \(channels, height, width\)"),
        (lambda: fnn.MaxPool2D(), (2, 3, 4, 5), "put a Reshape before it"),
        (
            lambda: fnn.Conv2D(2, (3, 4)),
            (3, 3),
            r"larger than the image, \(height, width\) \(3, 3\)",
        ),
        (lambda: fnn.Conv2D(2, 3), (9, 9, 1), r"\(channels, height, width\) \(9, 9, 1\)"),
        (lambda: fnn.Conv2D(2, 3, "softmax"), None, "softmax of Conv2D would be over all values"),
        (lambda: fnn.AveragePool2D(5), (1, 4, 9), "window is larger than the image"),
        (lambda: fnn.Conv2D(2, 3, padding="full"), None, "padding must be one of"),
        (lambda: fnn.Conv2D(2, (3, 3, 3)), None, "kernel_size must be one whole number or two"),
        (lambda: fnn.Conv2D(2, 0), None, "kernel_size must be at least 1"),
        (lambda: fnn.Conv2D(2, 65), None, "kernel_size must have at most 4,096 taps"),
        (lambda: fnn.Conv2D(5000, 3), None, "filters must be at most 4096"),
        (lambda: fnn.MaxPool2D(2, strides=0), None, "strides must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        fnn.Network([layer()], input_shape=shape or (9, 9), seed=0)


def test_penalties_and_constraints_are_those_of_each_filter():
    net = build([fnn.Conv2D(4, 3, max_norm=0.5, weight_l2=0.1)], (2, 5, 5), optimizer="sgd")
    x = np.random.default_rng(0).standard_normal((9, 2, 5, 5))
    y = 10 * np.random.default_rng(1).standard_normal((9, 4, 3, 3))
    net.fit(x, y, epochs=20, batch_size=9, verbose=0)
    lengths = np.sqrt((net.layers[0].weight.reshape(-1, 4) ** 2).sum(axis=0))
    assert (lengths <= 0.5 + 1e-12).all() and (lengths > 0.49).any()


def test_a_single_image_is_told_how_to_be_a_batch():
    net = build([fnn.Conv2D(1, 3)], (5, 6))
    with pytest.raises(ValueError, match=r"x must have shape \(n, 5, 6\), got \(5, 6\).*x\[None\]"):
        net.predict(np.ones((5, 6)))


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_derivatives_of_single_images_and_batches(backend):
    net = build([fnn.Conv2D(3, 2, "tanh"), fnn.MaxPool2D(), fnn.Flatten()], (5, 6), backend=backend)
    x = np.random.default_rng(0).standard_normal((4, 5, 6))
    outs = net.plan.fan_out
    jacobian = net.jacobian(x)
    assert jacobian.shape == (4, outs, 30) and net.jacobian(x[0]).shape == (outs, 30)
    assert np.array_equal(net.jacobian(x[1].ravel()), jacobian[1])
    pulled = net.vjp(x[2], np.eye(outs)[0])
    np.testing.assert_allclose(pulled, jacobian[2, 0].reshape(5, 6), rtol=1e-12)
    pushed = net.jvp(x, np.ones_like(x))
    np.testing.assert_allclose(pushed, jacobian.sum(axis=2), rtol=1e-10)
    np.testing.assert_allclose(net.jvp(x[0], np.ones((5, 6))), pushed[0], rtol=1e-12)
