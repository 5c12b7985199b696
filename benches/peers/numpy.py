"""numpy: the training loop of someone who knows the formulas and writes them straight down."""

import numpy as np

from benches.peers import Unavailable
from benches.workloads import BETA1, BETA2, EPSILON


def forward(work, weights, x):
    """Outputs of all layers, the last without its activation, the batch in front."""
    outs = [x]
    for weight, bias in weights[:-1]:
        x = x @ weight
        x += bias
        x = np.maximum(x, 0, out=x) if work.hidden == "relu" else sigmoid(x)
        outs.append(x)
    weight, bias = weights[-1]
    return [*outs, x @ weight + bias]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loss_and_gradient(work, out, y):
    """Mean loss of a batch, and its gradient with respect to the last layer's sums."""
    n = len(out)
    if work.loss == "cross_entropy":
        out = np.exp(out - out.max(axis=1, keepdims=True))
        out /= out.sum(axis=1, keepdims=True)
        rows = np.arange(n)
        loss = -np.log(out[rows, y]).mean()
        out[rows, y] -= 1
        return loss, out / n
    if work.loss == "mse":
        grad = out - y
        return (grad * grad).mean(), grad * (2 / grad.size)
    out = sigmoid(out)
    grad = out - y
    return (grad * grad).sum() / (2 * n), grad * out * (1 - out) / n


def gradients(work, weights, outs, grad):
    """Gradients of weights and biases, in the order of the parameters."""
    grads = []
    for number in range(len(weights) - 1, -1, -1):
        x = outs[number]
        grads += [grad.sum(axis=0), x.T @ grad]
        if number:
            grad = grad @ weights[number][0].T
            grad *= x > 0 if work.hidden == "relu" else x * (1 - x)
    return grads[::-1]


def training(work, weights, data, threads):
    if work.image:
        raise Unavailable("convolutions are not written out")
    x, y = data
    batches = [
        (x[start : start + work.batch], y[start : start + work.batch])
        for start in range(0, len(x), work.batch)
    ]

    def fit(epochs):
        own = [(weight.copy(), bias.copy()) for weight, bias in weights]
        params = [param for pair in own for param in pair]
        m = [np.zeros_like(param) for param in params]
        v = [np.zeros_like(param) for param in params]
        step = 0
        for _ in range(epochs):
            total = 0.0
            for bx, by in batches:
                outs = forward(work, own, bx)
                loss, grad = loss_and_gradient(work, outs[-1], by)
                total += loss
                grads = gradients(work, own, outs, grad)
                step += 1
                if work.optimizer == "sgd":
                    for param, g in zip(params, grads, strict=True):
                        param -= work.rate * g
                    continue
                rate, root = work.rate / (1 - BETA1**step), (1 - BETA2**step) ** 0.5
                for param, g, first, second in zip(params, grads, m, v, strict=True):
                    first *= BETA1
                    first += (1 - BETA1) * g
                    second *= BETA2
                    second += (1 - BETA2) * g * g
                    param -= rate * first / (np.sqrt(second) / root + EPSILON)
        return float(total) / len(batches)

    return fit


def inference(work, weights, x, threads):
    return lambda: forward(work, weights, x)[-1]
