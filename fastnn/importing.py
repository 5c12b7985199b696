"""Networks that were trained elsewhere: scikit-learn's and PyTorch's, from objects in memory.

Neither package is imported: an object is recognised by the names of its class and module, and asked
for its arrays. What a network computes in training (dropout, the running means of `BatchNorm`) may
differ in detail; what it predicts does not. Files of Keras are read by `fastnn.keras_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnn.images import AveragePool2D, Conv2D, MaxPool2D
from fastnn.layers import Activation, Dense, Layer
from fastnn.network import Network
from fastnn.noise import Dropout
from fastnn.normalization import BatchNorm, LayerNorm
from fastnn.shapes import Embedding, Flatten

__all__ = ["from_sklearn", "from_torch"]

LOSSES = {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy", "exponential": "poisson"}
OF_SKLEARN = {
    "identity": "linear",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "softmax": "softmax",
    "exp": "exponential",
}


class Part(NamedTuple):
    """A layer, the values of its parameters, and how many values it takes, if that is known."""

    layer: Layer
    arrays: dict[str, np.ndarray]
    width: int | None = None


def assembled(parts: Sequence[Part], shape: tuple[int, ...], options: dict[str, Any]) -> Network:
    """A network of these layers with these parameters.

    Its dtype is float64 where an array is, and its loss the one that goes with the last activation,
    unless the options say otherwise.
    """
    joined: list[Part] = []
    sizes = shape
    for place, part in enumerate(parts):
        if isinstance(part.layer, Embedding) and not any(
            isinstance(after.layer, Flatten) for after in parts[place + 1 : place + 2]
        ):
            raise ValueError("an embedding must have a Flatten behind it to be taken over")
        if isinstance(part.layer, Activation) and part.layer.name == "softmax" and len(sizes) > 1:
            raise ValueError(
                f"softmax over samples of shape {sizes} is not supported; flatten them"
            )
        sizes = part.layer.out_shape(sizes)
        before = joined[-1].layer if joined else None
        sums = isinstance(before, Dense | Conv2D) and before.activation.name == "linear"
        if isinstance(part.layer, Activation) and sums:
            assert isinstance(before, Dense | Conv2D)
            joined[-1] = joined[-1]._replace(layer=_activated(before, part.layer))
        else:
            joined.append(part)
    arrays = [array for part in joined for array in part.arrays.values()]
    last = joined[-1].layer if joined else None
    last = last.activation if isinstance(last, Dense | Conv2D) else last
    defaults: dict[str, Any] = {
        "dtype": np.result_type(np.float32, *arrays),
        "loss": LOSSES.get(last.name, "mse") if isinstance(last, Activation) else "mse",
        "input_shape": shape,
    }
    net = Network([part.layer for part in joined], **defaults | options)
    net.load_state_dict(
        {f"{i}.{name}": a for i, part in enumerate(joined) for name, a in part.arrays.items()}
    )
    return net


def _activated(layer: Dense | Conv2D, activation: Activation) -> Layer:
    """The layer with an activation; a new one, whose weights would begin as it wants them."""
    if isinstance(layer, Dense):
        return Dense(layer.units, activation, use_bias=layer.use_bias)
    return Conv2D(
        layer.filters, layer.kernel_size, activation,
        strides=layer.strides, padding=layer.padding, use_bias=layer.use_bias,
    )  # fmt: skip


def from_sklearn(mlp: Any, **options: Any) -> Network:
    """The network of a fitted ``MLPClassifier`` or ``MLPRegressor`` of scikit-learn.

    Parameters
    ----------
    mlp : MLPClassifier or MLPRegressor
        Fitted.
    **options
        Further arguments of `Network`, such as ``optimizer`` or ``seed``. By default the dtype is
        that of the fitted weights, and the loss ``cross_entropy``, ``binary_cross_entropy``,
        ``poisson`` or ``mse``, as the output needs it.

    Returns
    -------
    Network
        Its ``classes`` are those of the classifier: the labels of the outputs, as a list. Where
        there are two, there is one output, the probability of the second.

    Raises
    ------
    TypeError
        Where ``mlp`` is no fitted one of the two.

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier  # doctest: +SKIP
    >>> net = fastnn.from_sklearn(MLPClassifier().fit(x, y))  # doctest: +SKIP
    >>> [net.classes[i] for i in net.predict(x).argmax(axis=1)]  # doctest: +SKIP
    """
    kind = type(mlp).__name__
    needs = ("coefs_", "intercepts_", "activation", "out_activation_")
    if not all(hasattr(mlp, name) for name in needs):
        raise TypeError(
            f"mlp must be a fitted MLPClassifier or MLPRegressor, got {kind}: {mlp!r:.80}"
        )
    names = [mlp.activation] * (len(mlp.coefs_) - 1) + [mlp.out_activation_]
    for name in names:
        if name not in OF_SKLEARN:
            raise ValueError(
                f"mlp: activation {name!r} is not supported; from_sklearn takes "
                f"{', '.join(OF_SKLEARN)}"
            )
    parts = [
        Part(Dense(len(bias), OF_SKLEARN[name]), {"weight": weight, "bias": bias})
        for weight, bias, name in zip(mlp.coefs_, mlp.intercepts_, names, strict=True)
    ]
    net = assembled(parts, (len(mlp.coefs_[0]),), options)
    if hasattr(mlp, "classes_"):
        net.classes = np.asarray(mlp.classes_).tolist()
    return net


def from_torch(
    source: Any,
    activations: Sequence[str] | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    **options: Any,
) -> Network:
    """The network of a ``torch.nn.Sequential``, or of a ``state_dict`` of linear layers.

    Parameters
    ----------
    source : torch.nn.Sequential or mapping of str to array
        A mapping has ``NAME.weight`` (fan_out, fan_in) and may have ``NAME.bias`` for each layer,
        in order: what ``module.state_dict()`` gives or a safetensors file holds.
    activations : sequence of str, optional
        Of a mapping: what follows each linear layer, such as ``["relu", "linear"]``.
    input_shape : tuple of int, optional
        Of a sample, where it is not flat or no layer tells its width: of images
        (channels, height, width), as torch has them.
    **options
        Further arguments of `Network`. By default the dtype is that of the weights, and the loss
        the one that goes with the last activation.

    Returns
    -------
    Network
        Which predicts as ``source`` does after ``source.eval()``.

    Raises
    ------
    TypeError, ValueError
        Where a module, or an option of it, has nothing like it here; the text says what has.

    Notes
    -----
    Above 20 torch's ``Softplus`` is a straight line, which changes it by 2e-9.

    Examples
    --------
    >>> state = {"0.weight": np.ones((2, 3)), "0.bias": np.zeros(2), "2.weight": np.ones((1, 2))}
    >>> from_torch(state, ["relu", "linear"]).predict([[1, 2, 3]])
    array([[12.]])
    """
    if isinstance(source, Mapping):
        parts = list(_linear_layers(source, activations))
    elif activations is not None:
        raise ValueError("activations go with a state_dict; a Sequential has its own")
    else:
        parts = [part for place, module in _modules(source, "") for part in _part(place, module)]
    if input_shape is None:
        input_shape = (_width(parts),)
    return assembled(parts, input_shape, options)


def _width(parts: Sequence[Part]) -> int:
    """Values of a sample, from the first layer that tells."""
    each = 1
    for part in parts:
        if isinstance(part.layer, Conv2D | MaxPool2D | AveragePool2D):
            break
        if part.width is not None:
            return part.width // each
        if isinstance(part.layer, Embedding):
            each = part.layer.dim
    raise ValueError(
        "no layer tells how many values a sample has: give input_shape=(fan_in,), or of images "
        "(channels, height, width)"
    )


def _array(tensor: Any) -> np.ndarray:
    """A tensor, or anything else that is an array of real numbers."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
        tensor = tensor.numpy()
    array = np.asarray(tensor)
    if array.dtype.kind != "f":
        raise TypeError(f"parameters must be arrays of real numbers, got one of {array.dtype}")
    return array


def _linear_layers(state: Mapping[str, Any], activations: Sequence[str] | None) -> Sequence[Part]:
    names = [name.removesuffix("weight") for name in state if name.endswith("weight")]
    arrays = {name: _array(value) for name, value in state.items()}
    for name, array in arrays.items():
        stem, _, last = name.rpartition(".")
        prefix = f"{stem}." if stem else ""
        if (last, array.ndim) not in (("weight", 2), ("bias", 1)) or prefix not in names:
            raise ValueError(
                f"a state_dict must have weights (fan_out, fan_in) and biases of linear layers, "
                f"got {name!r} {array.shape}; of other layers give the Sequential itself"
            )
    if activations is None or isinstance(activations, str) or len(activations) != len(names):
        raise ValueError(
            f"activations must name what follows each of the {len(names)} linear layers, such as "
            f"['relu', 'linear'], got {activations!r}"
        )
    return [
        _dense(arrays[f"{name}weight"], arrays.get(f"{name}bias"), activation)
        for name, activation in zip(names, activations, strict=True)
    ]


def _dense(weight: np.ndarray, bias: np.ndarray | None, activation: str = "linear") -> Part:
    values = {"weight": weight.T} | ({} if bias is None else {"bias": bias})
    layer = Dense(len(weight), activation, use_bias=bias is not None)
    return Part(layer, values, weight.shape[1])


def _modules(module: Any, place: str) -> Any:
    """The modules of a Sequential, and of those inside it, with their places."""
    if not _torch_name(module):
        raise TypeError(
            f"{place or 'source'} must be a torch.nn.Sequential or a state_dict, got "
            f"{type(module).__name__}; of a module with a forward of its own give the Sequential "
            "in it, or its state_dict and activations"
        )
    if _torch_name(module) != "Sequential":
        yield place or "source", module
        return
    for name, child in module.named_children():
        yield from _modules(child, f"{place}.{name}" if place else name)


def _torch_name(module: Any) -> str:
    """Name of a module's class, if it is one of torch's own."""
    kind = type(module)
    return kind.__name__ if kind.__module__.startswith("torch.nn.modules.") else ""


def _part(place: str, module: Any) -> Sequence[Part]:
    """The layer that a module is here; none for one that changes nothing."""
    name = _torch_name(module)
    if name in PLAIN:
        found: Sequence[Part] = [Part(Activation(PLAIN[name]), {})]
    elif name in OTHERS:
        found = OTHERS[name](module)
    else:
        known = ", ".join(sorted([*PLAIN, *OTHERS, "Sequential"]))
        raise ValueError(f"{place}: {name} is not supported; from_torch takes {known}")
    if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
        raise ValueError(f"{place}: {name} has hooks, which from_torch cannot know; remove them")
    return found


def _require(module: Any, **wanted: Any) -> None:
    """An option that has one meaning here."""
    for name, values in wanted.items():
        if getattr(module, name) not in values:
            raise ValueError(
                f"{type(module).__name__}({name}={getattr(module, name)!r}) is not supported; "
                f"from_torch takes {' or '.join(map(repr, values))}"
            )


def _linear(module: Any) -> Sequence[Part]:
    bias = None if module.bias is None else _array(module.bias)
    return [_dense(_array(module.weight), bias)]


def _conv2d(module: Any) -> Sequence[Part]:
    _require(module, dilation=((1, 1),), groups=(1,), padding_mode=("zeros",))
    values = {"weight": _array(module.weight).transpose(1, 2, 3, 0)}
    if module.bias is not None:
        values["bias"] = _array(module.bias)
    layer = Conv2D(
        module.out_channels, module.kernel_size, strides=module.stride, padding=module.padding,
        use_bias=module.bias is not None,
    )  # fmt: skip
    return [Part(layer, values)]


def _max_pool2d(module: Any) -> Sequence[Part]:
    _require(module, dilation=(1, (1, 1)), padding=(0, (0, 0)), return_indices=(False,))
    _require(module, ceil_mode=(False,))
    return [Part(MaxPool2D(module.kernel_size, module.stride), {})]


def _avg_pool2d(module: Any) -> Sequence[Part]:
    _require(module, padding=(0, (0, 0)), ceil_mode=(False,), divisor_override=(None,))
    return [Part(AveragePool2D(module.kernel_size, module.stride), {})]


def _leaky_relu(module: Any) -> Sequence[Part]:
    return [Part(Activation("leaky_relu", alpha=float(module.negative_slope)), {})]


def _elu(module: Any) -> Sequence[Part]:
    return [Part(Activation("elu", alpha=float(module.alpha)), {})]


def _gelu(module: Any) -> Sequence[Part]:
    _require(module, approximate=("none",))
    return [Part(Activation("gelu"), {})]


def _softplus(module: Any) -> Sequence[Part]:
    _require(module, beta=(1,), threshold=(20,))
    return [Part(Activation("softplus"), {})]


def _softmax(module: Any) -> Sequence[Part]:
    _require(module, dim=(-1, 1))
    return [Part(Activation("softmax"), {})]


def _dropout(module: Any) -> Sequence[Part]:
    return [Part(Dropout(float(module.p)), {})]


def _scaled(module: Any, width: int) -> dict[str, np.ndarray]:
    """Weight and bias of a normalization, 1 and 0 where it has none."""
    weight, bias = module.weight, module.bias
    values = next((_array(a) for a in (weight, bias) if a is not None), np.ones(1, np.float32))
    return {
        "weight": np.ones(width, values.dtype) if weight is None else _array(weight),
        "bias": np.zeros(width, values.dtype) if bias is None else _array(bias),
    }


def _batch_norm(module: Any) -> Sequence[Part]:
    if module.running_mean is None or module.momentum is None:
        raise ValueError("BatchNorm1d needs running means and a momentum to be taken over")
    width = module.num_features
    running = {name: _array(getattr(module, name)) for name in ("running_mean", "running_var")}
    layer = BatchNorm(1 - float(module.momentum), float(module.eps))
    return [Part(layer, _scaled(module, width) | running, width)]


def _layer_norm(module: Any) -> Sequence[Part]:
    if len(module.normalized_shape) != 1:
        raise ValueError(
            f"LayerNorm({module.normalized_shape}) is not supported; from_torch takes those of "
            "one size, over flat samples"
        )
    width = module.normalized_shape[0]
    return [Part(LayerNorm(float(module.eps)), _scaled(module, width), width)]


def _flatten(module: Any) -> Sequence[Part]:
    _require(module, start_dim=(1,), end_dim=(-1,))
    return [Part(Flatten(), {})]


def _embedding(module: Any) -> Sequence[Part]:
    _require(module, max_norm=(None,))
    layer = Embedding(module.num_embeddings, module.embedding_dim)
    return [Part(layer, {"weight": _array(module.weight)})]


def _nothing(module: Any) -> Sequence[Part]:
    return []


PLAIN = {
    "ReLU": "relu",
    "SELU": "selu",
    "SiLU": "silu",
    "Mish": "mish",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softsign": "softsign",
}
OTHERS: dict[str, Callable[[Any], Sequence[Part]]] = {
    "Linear": _linear,
    "Conv2d": _conv2d,
    "MaxPool2d": _max_pool2d,
    "AvgPool2d": _avg_pool2d,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "GELU": _gelu,
    "Softplus": _softplus,
    "Softmax": _softmax,
    "Dropout": _dropout,
    "BatchNorm1d": _batch_norm,
    "LayerNorm": _layer_norm,
    "Flatten": _flatten,
    "Embedding": _embedding,
    "Identity": _nothing,
}
