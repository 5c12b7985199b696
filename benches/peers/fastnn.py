"""fastnn itself: `Network.fit` and `Network.predict`."""

import fastnn as fnn
from benches.workloads import BETA1, BETA2, EPSILON, OUTPUT
from fastnn._threads import processors


def optimizer(work):
    if work.optimizer == "sgd":
        return fnn.SGD(work.rate, decay=work.decay)
    options = {"beta1": BETA1, "beta2": BETA2, "epsilon": EPSILON}
    return fnn.Adam(work.rate, decay=work.decay, **options)


def network(work, threads=1, **options):
    """A network for a workload, with the initial weights of seed 0 or another."""
    layers = []
    for filters, size in getattr(work, "convolutions", ()):
        layers += [fnn.Conv2D(filters, size, work.hidden), fnn.MaxPool2D()]
    layers += [fnn.Flatten()] if layers else []
    layers += [fnn.Dense(width, work.hidden) for width in work.widths[1:-1]]
    layers.append(fnn.Dense(work.widths[-1], OUTPUT[work.loss]))
    if getattr(work, "scale", 1) != 1:
        layers.insert(0, fnn.Input(work.widths[:1], scale=work.scale, offset=work.offset))
    if threads == processors():
        threads = None  # what users get: the library chooses, up to so many
    given = {"loss": work.loss, "input_shape": work.in_shape, "seed": 0, "threads": threads}
    return fnn.Network(layers, **given | options)


def initial(work):
    """Pairs (weight, bias) that all begin with."""
    return [(layer.weight.copy(), layer.bias.copy()) for layer in weighted(network(work))]


def weighted(net):
    """Layers with a weight and a bias."""
    return [layer for layer in net.layers if isinstance(layer, fnn.Dense | fnn.Conv2D)]


def loaded(work, weights, threads):
    """A network with these weights."""
    net = network(work, threads)
    load(net, weights)
    return net


def load(net, weights):
    for layer, (weight, bias) in zip(weighted(net), weights, strict=True):
        layer.weight, layer.bias = weight, bias


def training(work, weights, data, threads):
    net = network(work, threads)

    def fit(epochs):
        load(net, weights)
        net.optimizer = optimizer(work)
        history = net.fit(*data, epochs=epochs, batch_size=work.batch, shuffle=False, verbose=0)
        return history.history["loss"][-1]

    return fit


def inference(work, weights, x, threads):
    net = loaded(work, weights, threads)
    return lambda: net.predict(x)
