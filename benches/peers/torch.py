"""PyTorch: the loop as its users write it; eager, with a fused optimizer, compiled, scripted."""

import warnings

import numpy as np

from benches.peers import Unavailable
from benches.workloads import BETA1, BETA2, EPSILON


def model_of(work, weights, output=None):
    """A Sequential with these weights, and ``output`` behind the last layer."""
    from torch import nn, no_grad, tensor

    layers = []
    for weight, bias in weights:
        if weight.ndim == 4:
            channels, size, _, filters = weight.shape
            layer, own = nn.Conv2d(channels, filters, size), weight.transpose(3, 0, 1, 2)
        else:
            layer, own = nn.Linear(*weight.shape), weight.T
            if layers and isinstance(layers[-1], nn.MaxPool2d):
                layers.append(nn.Flatten())
        with no_grad():
            layer.weight.copy_(tensor(own))
            layer.bias.copy_(tensor(bias))
        layers += [layer, nn.ReLU() if work.hidden == "relu" else nn.Sigmoid()]
        if weight.ndim == 4:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers[:-1], *([output] if output else []))


def losses():
    """Mean loss of a batch, by name."""
    from torch.nn import functional

    def quadratic(out, y):
        return functional.mse_loss(out, y, reduction="sum") / (2 * len(out))

    return {
        "cross_entropy": functional.cross_entropy,
        "mse": functional.mse_loss,
        "quadratic": quadratic,
    }


def optimizer(work, model, fused):
    from torch import optim

    if work.optimizer == "sgd":
        return optim.SGD(model.parameters(), lr=work.rate, fused=fused)
    options = {"betas": (BETA1, BETA2), "eps": EPSILON, "fused": fused}
    return optim.Adam(model.parameters(), lr=work.rate, **options)


def training(work, weights, data, threads, how="eager", shuffle=False):
    import torch

    torch.set_num_threads(threads)
    model = model_of(work, weights, torch.nn.Sigmoid() if work.loss == "quadratic" else None)
    start = [param.detach().clone() for param in model.parameters()]
    loss_of = losses()[work.loss]
    x, y = (torch.from_numpy(np.ascontiguousarray(array)) for array in data)

    def forward(x, y):
        return loss_of(model(x), y)

    if how == "compile":
        forward = compiled(forward, x[: work.batch], y[: work.batch])

    def fit(epochs):
        with torch.no_grad():
            for param, value in zip(model.parameters(), start, strict=True):
                param.copy_(value)
        rule = optimizer(work, model, fused=None if how == "eager" else True)
        batches = list(zip(x.split(work.batch), y.split(work.batch), strict=True))
        step = 0
        for _ in range(epochs):
            if shuffle:
                order = torch.randperm(len(x))
                batches = zip(x[order].split(work.batch), y[order].split(work.batch), strict=True)
            told = []
            for bx, by in batches:
                rule.zero_grad()
                loss = forward(bx, by)
                loss.backward()
                if work.decay:
                    rule.param_groups[0]["lr"] = work.rate / (1 + work.decay * step)
                    step += 1
                rule.step()
                told.append(loss.detach())
        return float(torch.stack(told).mean())

    return fit


def compiled(function, *example):
    """``torch.compile``, tried at once: it needs a C++ compiler."""
    import torch

    torch.compiler.reset()  # forgets earlier workloads: it compiles a function eight times at most
    fast = torch.compile(function)
    try:
        with warnings.catch_warnings(action="ignore"):
            fast(*example)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise Unavailable(f"cannot compile here: {reason[0] if reason else error!r}") from error
    return fast


def inference(work, weights, x, threads, how="eager"):
    import torch

    torch.set_num_threads(threads)
    model, x = model_of(work, weights).eval(), torch.from_numpy(x)
    if how == "script":
        with warnings.catch_warnings(action="ignore"):  # it is deprecated
            model = torch.jit.freeze(torch.jit.script(model))
    with torch.inference_mode():
        if how == "compile":
            model = compiled(model, x)

    @torch.inference_mode()
    def call():
        return model(x)

    return call
