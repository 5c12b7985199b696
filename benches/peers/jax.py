"""JAX: the whole training is one compiled call, a scan over the batches in a loop over epochs.

A call for each epoch, as in most programs, costs twice as much on the smallest network.
"""

import os
from functools import partial

from benches.workloads import BETA1, BETA2, EPSILON


def library(threads):
    """``jax`` with so many threads: its pool is made at its first use and never resized."""
    os.environ.setdefault("NPROC", str(threads))
    import jax

    return jax


def forward(jax, work, params, x):
    """Outputs without the last activation."""
    activation = jax.nn.relu if work.hidden == "relu" else jax.nn.sigmoid
    for weight, bias in params[:-1]:
        if weight.ndim == 4:
            kinds = ("NCHW", "IHWO", "NCHW")
            x = jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=kinds)
            x, window = activation(x + bias[:, None, None]), (1, 1, 2, 2)
            x = jax.lax.reduce_window(x, -jax.numpy.inf, jax.lax.max, window, window, "VALID")
            continue
        x = activation(x.reshape(len(x), -1) @ weight + bias)
    weight, bias = params[-1]
    return x @ weight + bias


def loss_of(jax, work, params, x, y):
    """Mean loss of a batch."""
    out = forward(jax, work, params, x)
    if work.loss == "cross_entropy":
        chosen = jax.numpy.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1)
        return -chosen.mean()
    if work.loss == "mse":
        return ((out - y) ** 2).mean()
    return ((jax.nn.sigmoid(out) - y) ** 2).sum() / (2 * len(y))


def training(work, weights, data, threads):
    jax = library(threads)
    numpy, tree = jax.numpy, jax.tree
    x, y = (numpy.asarray(a.reshape(-1, work.batch, *a.shape[1:])) for a in data)
    gradient = jax.value_and_grad(partial(loss_of, jax, work))

    def step(state, batch):
        params, m, v, count = state
        loss, grads = gradient(params, *batch)
        if work.optimizer == "sgd":
            return (tree.map(lambda p, g: p - work.rate * g, params, grads), m, v, count), loss
        count += 1
        m = tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
        v = tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
        rate, root = work.rate / (1 - BETA1**count), 1 / numpy.sqrt(1 - BETA2**count)
        params = tree.map(
            lambda p, m, v: p - rate * m / (numpy.sqrt(v) * root + EPSILON), params, m, v
        )
        return (params, m, v, count), loss

    @partial(jax.jit, donate_argnums=0)
    def run(state, x, y, epochs):
        def epoch(_, before):
            state, losses = jax.lax.scan(step, before[0], (x, y))
            return state, losses.mean()

        return jax.lax.fori_loop(0, epochs, epoch, (state, numpy.float32(0)))

    def fit(epochs):
        params = tree.map(numpy.array, weights)
        moments = params if work.optimizer == "adam" else ()
        m, v = tree.map(numpy.zeros_like, moments), tree.map(numpy.zeros_like, moments)
        _, loss = run((params, m, v, numpy.int32(0)), x, y, epochs)
        return float(loss)

    return fit


def inference(work, weights, x, threads):
    jax = library(threads)
    params, x = jax.tree.map(jax.numpy.asarray, weights), jax.numpy.asarray(x)
    predict = jax.jit(partial(forward, jax, work))
    return lambda: predict(params, x).block_until_ready()
