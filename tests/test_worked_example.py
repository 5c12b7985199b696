"""Two inputs, two hidden neurons, one output: every number worked out by hand.

With x = (1, 2) and the hidden weights (columns are neurons) and biases

    weight = [[ 0.5, -1.0],      bias = (0.5, 1.0)
              [ 0.25, 0.5]]

the hidden sums are 1*0.5 + 2*0.25 + 0.5 = 1.5 and 1*(-1) + 2*0.5 + 1 = 1.0, which relu leaves
as they are. The output weights (2, -1) and the bias 0.5 give 2*1.5 - 1*1.0 + 0.5 = 2.5. The
target is 2, so the squared error is 0.25 and its derivative 2 * (2.5 - 2) = 1.

Backwards: the output's weights have gradient 1 * (1.5, 1.0), its bias 1. The hidden outputs have
1 * (2, -1), which relu lets through, as both sums are above 0. The hidden weights have gradient
x outer (2, -1) = [[2, -1], [4, -2]], the biases (2, -1), the inputs
(2*0.5 - 1*(-1), 2*0.25 - 1*0.5) = (2, 0).

A step of gradient descent with a learning rate of 0.1 takes a tenth of all that away.
"""

import numpy as np
import pytest

import fastnn as fnn

X, Y = [[1.0, 2.0]], [2.0]


@pytest.fixture(params=["compiled", "numpy"])
def net(request):
    net = fnn.Network(
        [fnn.Dense(2, "relu"), fnn.Dense(1)],
        loss="mse",
        optimizer=fnn.SGD(0.1),
        input_shape=(2,),
        dtype="float64",
        backend=request.param,
    )
    net.layers[0].weight = [[0.5, -1.0], [0.25, 0.5]]
    net.layers[0].bias = [0.5, 1.0]
    net.layers[1].weight = [[2.0], [-1.0]]
    net.layers[1].bias = [0.5]
    return net


def test_forward(net):
    assert net.predict(X).tolist() == [[2.5]]
    assert net.evaluate(X, Y) == {"loss": 0.25}


def test_backward(net):
    gradients = {name: g.tolist() for name, g in net.gradients(X, Y).items()}
    assert gradients == {
        "0.weight": [[2.0, -1.0], [4.0, -2.0]],
        "0.bias": [2.0, -1.0],
        "1.weight": [[1.5], [1.0]],
        "1.bias": [1.0],
        "x": [[2.0, 0.0]],
    }


def test_update(net):
    net.fit(X, Y, verbose=0)
    np.testing.assert_allclose(
        net.params, [0.3, -0.9, -0.15, 0.7, 0.3, 1.1, 1.85, -1.1, 0.4], rtol=1e-15
    )


def test_a_class_label_costs_the_logarithm_of_its_probability(net):
    """Softmax of (0, ln 3) is (1/4, 3/4); the second class then costs -ln(3/4)."""
    net = fnn.Network(
        [fnn.Dense(2, "softmax")],
        loss="cross_entropy",
        input_shape=(1,),
        dtype="float64",
        backend=net.backend,
    )
    net.params = [0.0, np.log(3), 0.0, 0.0]
    np.testing.assert_allclose(net.predict([[1.0]]), [[0.25, 0.75]], rtol=1e-15)
    assert net.evaluate([[1.0]], [1])["loss"] == pytest.approx(-np.log(0.75), rel=1e-15)
    np.testing.assert_allclose(net.gradients([[1.0]], [1])["0.bias"], [0.25, -0.25], rtol=1e-15)
