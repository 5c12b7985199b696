"""Networks of Keras, from ``.keras`` files, which are read as data: nothing in them is run.

A file is a zip of ``config.json``, the layers, and ``model.weights.h5``, their arrays. Layers are
looked up in a closed table, never imported by name; sizes are checked against the file before
anything is allocated; links to other files are refused. HDF5 itself is parsed by h5py, a large
library in C: of a file from a stranger that is the part to worry about.

Source: the files that Keras 3 writes, and its ``saving_lib`` for the names of the groups.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnn._check import whole
from fastnn.files import FormatError
from fastnn.images import AveragePool2D, Conv2D, MaxPool2D, Pool2D
from fastnn.importing import Part, assembled
from fastnn.layers import Activation, Dense, Elementwise, Layer
from fastnn.network import Network
from fastnn.noise import Dropout, GaussianNoise
from fastnn.normalization import BatchNorm, LayerNorm, Normalization, Rescaling, Scaled
from fastnn.shapes import Embedding, Flatten, Reshape

__all__ = ["from_keras"]

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LONGEST = 1 << 26  # bytes of the config
EXPANSION = 100  # how many times its size a zip may grow when it is unpacked
LARGEST = 1 << 26  # values of a sample
DEEPEST = 10_000  # layers
ACTIVATIONS = {  # of Keras, and what they are here
    name: name
    for name in (
        *("linear", "relu", "elu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh"),
        *("softsign", "softplus", "exponential", "softmax", "leaky_relu"),
    )
} | {"swish": "silu"}
SLOPE = 0.2  # of leaky_relu where Keras knows it by its name alone
FOR_IMAGES = ("Conv2D", "MaxPooling2D", "AveragePooling2D")
FORMATS = ("channels_last", "channels_first")

Config = dict[str, Any]
Shape = tuple[int, ...]


def from_keras(path: str | os.PathLike[str], **options: Any) -> Network:
    """The network of a ``.keras`` file; needs h5py, the extra ``keras``, and no Keras.

    Parameters
    ----------
    path : str or PathLike
        What ``model.save("model.keras")`` has written: a ``Sequential``, or a functional model
        whose layers follow one another.
    **options
        Further arguments of `Network`. By default the dtype is that of the weights, and the loss
        the one that goes with the last activation.

    Returns
    -------
    Network
        Which predicts as the model does. Its images are channels first: see the notes.

    Raises
    ------
    FormatError
        Where the file is damaged, or not what Keras writes.
    ValueError
        Where a layer, or an option of it, has nothing like it here; the text says what has.
    ImportError
        Where h5py is not installed.

    Notes
    -----
    The layers for images here take ``(channels, height, width)``. Those of Keras take ``(height,
    width, channels)``, unless their ``data_format`` is ``channels_first``. So in a model with such
    layers every sample of three sizes is turned: an input of ``(28, 28, 1)`` becomes an
    ``input_shape`` of ``(1, 28, 28)``, and the weights behind a ``Flatten`` are put in the new
    order. Data ``(n, height, width, channels)`` has to be turned as well, by ``x.transpose(0, 3,
    1, 2)``; where images come out, they are channels first too.

    Examples
    --------
    >>> net = from_keras("model.keras")  # doctest: +SKIP
    >>> net.predict(images.transpose(0, 3, 1, 2))  # doctest: +SKIP
    """
    try:
        import h5py
    except ImportError:
        raise ImportError("from_keras needs h5py: pip install 'fastnn-numba[keras]'") from None
    name = Path(path).name
    try:
        with zipfile.ZipFile(path) as archive:
            size = Path(path).stat().st_size
            config = _member(name, archive, CONFIG, LONGEST)
            weights = _member(name, archive, WEIGHTS, EXPANSION * size)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise FormatError(f"{name!r} is no .keras file, or damaged: {error}") from None
    try:
        model = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name!r}: {CONFIG} is no JSON: {error}") from None
    try:
        shape, layers = _chain(name, model)
        with h5py.File(io.BytesIO(weights), "r") as file:
            arrays = Arrays(name, h5py, file, len(weights))
            dtype = _dtype(name, layers)
            sample = _sample(shape, _channels_last(name, layers))
            parts = list(_parts(name, layers, arrays, sample))
    except FormatError:
        raise
    except (
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        OSError,
        RuntimeError,
    ) as error:
        raise FormatError(f"{name!r}: not what Keras writes: {error}") from None
    return assembled(parts, sample.shape, {"dtype": dtype} | options)


def _member(name: str, archive: zipfile.ZipFile, member: str, most: int) -> bytes:
    """A file of the zip, if it is there and not absurdly large."""
    if member not in archive.namelist():
        raise FormatError(f"{name!r} is no .keras file: it has no {member}")
    with archive.open(member) as file:
        content = file.read(most + 1)  # what the zip says of its size need not be true
    if len(content) > most:
        raise FormatError(f"{name!r}: {member} is larger than {most:,} bytes when unpacked")
    return content


def _chain(name: str, model: Any) -> tuple[tuple[int, ...], list[Config]]:
    """Shape of a sample, and the layers behind the input."""
    kind, config = model["class_name"], model["config"]
    if kind not in ("Sequential", "Functional"):
        raise ValueError(
            f"{name!r}: a model of class {kind!r:.80} is not supported; "
            "from_keras takes Sequential and Functional"
        )
    layers = config["layers"]
    if not isinstance(layers, list) or not 0 < len(layers) <= DEEPEST:
        raise FormatError(f"{name!r}: layers must be a list of at most {DEEPEST:,}")
    if kind == "Functional":
        for before, layer in itertools.pairwise(layers):
            if _sources(layer) != [before["name"]]:
                raise ValueError(
                    f"{name!r}: the layers must follow one another, got {layer['name']!r:.80} "
                    f"behind {before['name']!r:.80}"
                )
    batch_shape = config.get("build_input_shape")
    if layers[0]["class_name"] == "InputLayer":
        batch_shape = layers[0]["config"]["batch_shape"]
    if not isinstance(batch_shape, list) or not all(type(n) is int for n in batch_shape[1:]):
        raise ValueError(f"{name!r}: the input must have fixed sizes, got {batch_shape!r:.80}")
    shape = tuple(batch_shape[1:])
    if not shape or min(shape) < 1 or math.prod(shape) > LARGEST:
        raise FormatError(f"{name!r}: a sample of shape {shape!r:.80}")
    return shape, layers


def _sources(layer: Config) -> list[str]:
    """Names of the layers that a layer of a functional model takes its input from."""
    return [
        tensor["config"]["keras_history"][0] if isinstance(tensor, dict) else ""
        for node in layer["inbound_nodes"]
        for tensor in node["args"]
    ]


class Sample(NamedTuple):
    """A sample between two layers: its shape here, and how Keras lines up the same values.

    What Keras has is ``sample.reshape(whole).transpose(axes)``; ``last`` says whether its images
    have their channels last.
    """

    shape: Shape
    whole: Shape
    axes: tuple[int, ...]
    last: bool

    @property
    def alike(self) -> bool:
        """Whether the values stand in the same order on both sides."""
        long = [axis for axis in self.axes if self.whole[axis] > 1]
        return long == sorted(long)

    def rows(self, array: np.ndarray) -> np.ndarray:
        """An array with a row for each value, put in the order that the values have here."""
        if self.alike:
            return array
        turned = array.reshape(*(self.whole[axis] for axis in self.axes), -1)
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return turned.transpose(*back, len(back)).reshape(array.shape)

    def behind(self, layer: Layer, config: Config) -> Sample:
        """What comes out of a layer."""
        shape = layer.out_shape(self.shape)
        if isinstance(layer, Elementwise | Scaled):
            return self
        if isinstance(layer, Flatten):
            axes = self.axes
            if len(self.shape) > 1 and config.get("data_format") == "channels_first":
                axes = (*axes[1:], axes[0])  # Keras puts the channels last before it flattens
            return self._replace(shape=shape, axes=axes)
        return _here(shape, self.last)


def _here(shape: Shape, last: bool) -> Sample:
    """A sample of this shape here that no Flatten has lined up."""
    turned = last and len(shape) == 3
    return Sample(shape, shape, (1, 2, 0) if turned else tuple(range(len(shape))), last)


def _sample(shape: Shape, last: bool) -> Sample:
    """The same of a shape that Keras gives."""
    if last and len(shape) == 3:
        height, width, channels = shape
        shape = channels, height, width
    return _here(shape, last)


def _channels_last(name: str, layers: list[Config]) -> bool:
    """Whether the model has layers for images whose channels come last."""
    images = [layer["config"] for layer in layers if layer["class_name"] in FOR_IMAGES]
    formats = [config["data_format"] for config in images]
    for given in formats:
        if given not in FORMATS or given != formats[0]:
            raise ValueError(
                f"{name!r}: the layers for images must have one data_format, "
                f"{' or '.join(FORMATS)}, got {formats!r:.80}"
            )
    return formats[:1] == ["channels_last"]


class Arrays:
    """The arrays of a file, none of which is read before its size is known to be right."""

    def __init__(self, name: str, h5py: Any, file: Any, size: int) -> None:
        self.name, self.h5py, self.file, self.size = name, h5py, file, size

    def take(self, group: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        """The variables of a layer, which must have these shapes."""
        folder = self._at(f"layers/{group}/vars")
        if len(folder) != len(shapes):
            raise FormatError(
                f"{self.name!r}: {group} must have {len(shapes)} arrays, got {len(folder)}"
            )
        return [self._read(f"layers/{group}/vars/{i}", shape) for i, shape in enumerate(shapes)]

    def count(self, group: str) -> int:
        """How many variables a layer has."""
        return len(self._at(f"layers/{group}/vars"))

    def _at(self, path: str) -> Any:
        """What lies at a path of plain links."""
        found = self.file
        for part in path.split("/"):
            link = found.get(part, getlink=True) if isinstance(found, self.h5py.Group) else None
            if not isinstance(link, self.h5py.HardLink):
                raise FormatError(f"{self.name!r}: {WEIGHTS} has no {path}, or a link in its place")
            found = found[part]
        return found

    def _read(self, path: str, shape: tuple[int, ...]) -> np.ndarray:
        data = self._at(path)
        if not isinstance(data, self.h5py.Dataset) or data.shape != shape:
            raise FormatError(
                f"{self.name!r}: {path} must be an array of shape {shape}, got "
                f"{getattr(data, 'shape', 'a group')}"
            )
        kind, stored = data.dtype, data.id.get_storage_size()
        plain = data.chunks is None and not data.external and not data.is_virtual
        # Contiguous and all there: as large as it says, and not larger than the file.
        if not plain or stored != math.prod(shape) * kind.itemsize or stored > self.size:
            raise FormatError(f"{self.name!r}: {path} is not stored as Keras does, in one piece")
        if kind.kind not in "fi":  # Normalization counts in whole numbers
            raise FormatError(f"{self.name!r}: {path} must hold real numbers, got {kind}")
        return data[()].astype(kind.newbyteorder("="))


def _parts(name: str, layers: list[Config], arrays: Arrays, sample: Sample) -> Iterator[Part]:
    """The layers here, with their parameters."""
    seen: Counter[str] = Counter()
    for layer, after in zip(layers, [*layers[1:], {}], strict=True):
        kind, config = layer["class_name"], layer["config"]
        own = layer["module"] == "keras.layers" and layer.get("registered_name") is None
        if kind not in LAYERS or not own:
            raise ValueError(
                f"{name!r}: a layer of class {kind!r:.80} is not supported; "
                f"from_keras takes {', '.join(sorted(LAYERS))}"
            )
        group = _snake(kind)
        seen[group] += 1
        if seen[group] > 1:
            group += f"_{seen[group] - 1}"
        if kind == "InputLayer":
            continue
        if kind == "Embedding" and after.get("class_name") != "Flatten":
            raise ValueError(f"{name!r}: an Embedding must have a Flatten behind it")
        if kind == "Embedding":
            _require("Flatten", after["config"], data_format="channels_last")
        _require(kind, config, quantization_config=None, lora_rank=None)
        part = LAYERS[kind](config, arrays, group, sample)
        sample = sample.behind(part.layer, config)
        if math.prod(sample.shape) > LARGEST:
            raise FormatError(f"{name!r}: {group} gives samples of shape {sample.shape!r:.80}")
        yield part
    if len(sample.shape) == 1 and not sample.alike:
        raise ValueError(
            f"{name!r}: flattened images as output are not supported, their values would come in "
            "another order; from_keras takes a Dense behind them, or images as output"
        )


def _snake(kind: str) -> str:
    """The name of a class as the groups of the file have it: ``LeakyReLU`` is ``leaky_re_lu``."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _require(kind: str, config: Config, **wanted: Any) -> None:
    """Options that have one meaning here."""
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"{kind}({name}={config[name]!r:.80}) is not supported; from_keras takes {value!r}"
            )


def _dtype(name: str, layers: list[Config]) -> str:
    """What all layers compute in."""
    policies = [layer["config"].get("dtype") for layer in layers]
    names = [p["config"]["name"] if isinstance(p, dict) else p for p in policies]
    first = names[-1] or "float32"
    for layer, other in zip(layers, names, strict=True):
        if layer["class_name"] != "InputLayer" and (other or "float32") != first:
            raise ValueError(f"{name!r}: layers of dtype {first!r:.80} and {other!r:.80} in one")
    if first not in ("float32", "float64"):
        raise ValueError(
            f"{name!r}: dtype {first!r:.80} is not supported; from_keras takes float32"
        )
    return first


def _flat(kind: str, sample: Sample, config: Config | None = None) -> int:
    """Values of a sample, for a layer that works along them and nothing else."""
    shape = sample.shape
    axis = (config or {}).get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if len(shape) != 1 or axis not in (-1, 1):
        raise ValueError(
            f"{kind}(axis={axis!r:.80}) over samples of shape {shape} is not supported; "
            "from_keras takes flat samples and axis -1"
        )
    return shape[0]


def _activation(name: Any) -> Activation:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"activation {name!r:.80} is not supported; from_keras takes {', '.join(ACTIVATIONS)}"
        )
    alpha = SLOPE if name == "leaky_relu" else None
    return Activation(ACTIVATIONS[name], alpha=alpha)


def _dense(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
    width = _flat("Dense", sample)
    units, biased = whole("units", config["units"]), bool(config["use_bias"])
    shapes: list[tuple[int, ...]] = [(width, units), (units,)]
    weight, *bias = arrays.take(group, shapes if biased else shapes[:1])
    layer = Dense(units, _activation(config["activation"]), use_bias=biased)
    return _summed(layer, sample.rows(weight), bias)


def _summed(layer: Layer, weight: np.ndarray, bias: list[np.ndarray]) -> Part:
    """A layer of neurons, with the bias that it may have."""
    return Part(layer, {"weight": weight} | dict(zip(("bias",), bias, strict=False)))


def _image(kind: str, sample: Sample) -> int:
    """Channels of a sample, for a layer that works on images."""
    if len(sample.shape) != 3:
        raise ValueError(
            f"{kind} over samples of shape {sample.shape} is not supported; from_keras takes "
            "images, of three sizes"
        )
    return sample.shape[0]


def _conv(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
    channels = _image("Conv2D", sample)
    _require("Conv2D", config, dilation_rate=[1, 1], groups=1)
    padding, biased = config["padding"], bool(config["use_bias"])
    activation = _activation(config["activation"])
    if activation.name == "softmax":  # over the channels in Keras, over all values here
        raise ValueError("Conv2D(activation='softmax') is not supported; flatten the images before")
    if padding not in ("valid", "same"):
        raise ValueError(
            f"Conv2D(padding={padding!r:.80}) is not supported; from_keras takes 'valid' or 'same'"
        )
    layer = Conv2D(
        config["filters"], config["kernel_size"], activation,
        strides=config["strides"], padding=padding, use_bias=biased,
    )  # fmt: skip
    shapes = [(*layer.kernel_size, channels, layer.filters), (layer.filters,)]
    weight, *bias = arrays.take(group, shapes if biased else shapes[:1])
    return _summed(layer, weight.transpose(2, 0, 1, 3), bias)


def _pool(kind: str, layer: type[Pool2D]) -> Callable[..., Part]:
    def found(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
        _image(kind, sample)
        _require(kind, config, padding="valid")
        return Part(layer(config["pool_size"], config["strides"]), {})

    return found


def _scaled(config: Config, arrays: Arrays, group: str, sample: Sample, *more: str) -> Any:
    """Arrays of a normalization, 1 and 0 for those that it has not."""
    (width,) = sample.shape
    names = [n for n, has in (("weight", "scale"), ("bias", "center")) if config[has]]
    found = arrays.take(group, [(width,)] * (len(names) + len(more)))
    values = [sample.rows(array) for array in found]
    plain = {"weight": np.ones(width, np.float32), "bias": np.zeros(width, np.float32)}
    return plain | dict(zip([*names, *more], values, strict=True))


def _batch_norm(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
    _flat("BatchNormalization", sample, config)
    _require("BatchNormalization", config, renorm=False)
    layer = BatchNorm(config["momentum"], config["epsilon"])
    return Part(layer, _scaled(config, arrays, group, sample, "running_mean", "running_var"))


def _layer_norm(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
    _flat("LayerNormalization", sample, config)
    _require("LayerNormalization", config, rms_scaling=False)
    return Part(LayerNorm(config["epsilon"]), _scaled(config, arrays, group, sample))


def _normalization(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
    """Mean and variance are in the config where they were given, else in the weights."""
    width = _flat("Normalization", sample, config)
    _require("Normalization", config, invert=False)
    found = [config["mean"], config["variance"]]
    if found == [None, None]:
        found = arrays.take(group, [(width,), (width,), ()])[:2]
    mean, variance = (np.asarray(array, float) for array in found)
    if mean.shape != (width,) or variance.shape != (width,):
        raise ValueError(
            f"Normalization must have a mean and a variance for each of {width} values"
        )
    deviation = np.maximum(np.sqrt(variance), 1e-7)  # as Keras guards against 0
    layer = Normalization()
    layer._adapted = {"weight": sample.rows(1 / deviation), "bias": sample.rows(mean)}
    return Part(layer, layer._adapted)


def _embedding(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
    _require("Embedding", config, mask_zero=False)
    layer = Embedding(config["input_dim"], config["output_dim"])
    (table,) = arrays.take(group, [(layer.vocabulary, layer.dim)])
    return Part(layer, {"weight": table})


def _relu(config: Config, *_: Any) -> Part:
    _require("ReLU", config, max_value=None, threshold=0.0)
    slope = config["negative_slope"]
    return Part(Activation("leaky_relu", alpha=slope) if slope else Activation("relu"), {})


def _softmax(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
    _flat("Softmax", sample, config)
    return Part(Activation("softmax"), {})


def _rescaling(config: Config, *_: Any) -> Part:
    return Part(Rescaling(config["scale"], config["offset"]), {})


def _reshape(config: Config, arrays: Arrays, group: str, sample: Sample) -> Part:
    given = Reshape(config["target_shape"]).shape
    after = _sample(given, sample.last)
    if not (sample.alike and after.alike):
        raise ValueError(
            f"Reshape({given}) of or to images of several channels that come last is not "
            "supported, their values would come in another order"
        )
    return Part(Reshape(after.shape), {})


LAYERS: dict[str, Callable[..., Part]] = {
    "InputLayer": lambda *_: Part(Flatten(), {}),
    "Dense": _dense,
    "Conv2D": _conv,
    "MaxPooling2D": _pool("MaxPooling2D", MaxPool2D),
    "AveragePooling2D": _pool("AveragePooling2D", AveragePool2D),
    "Activation": lambda config, *_: Part(_activation(config["activation"]), {}),
    "ReLU": _relu,
    "LeakyReLU": lambda c, *_: Part(Activation("leaky_relu", alpha=c["negative_slope"]), {}),
    "ELU": lambda config, *_: Part(Activation("elu", alpha=config["alpha"]), {}),
    "Softmax": _softmax,
    "Dropout": lambda config, *_: Part(Dropout(config["rate"]), {}),
    "GaussianNoise": lambda config, *_: Part(GaussianNoise(config["stddev"]), {}),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "Embedding": _embedding,
    "Flatten": lambda *_: Part(Flatten(), {}),
    "Reshape": _reshape,
}
