"""Layers for images: `fastnn.kernels.convolution` and `fastnn.kernels.pooling` compute them."""

from __future__ import annotations

import math

from fastnn import initializers
from fastnn._check import one_of, shown, whole
from fastnn.kernels._op import ALWAYS
from fastnn.layers import Activation, Layer, Neurons, Step

__all__ = ["AveragePool2D", "Conv2D", "MaxPool2D"]

MOST = 4096  # filters of a layer, and taps of a window: what a block of the kernels has room for


class Conv2D(Neurons):
    """Convolution: every filter looks at all places of an image through the same small window.

    A sample is an image of shape ``(channels, height, width)``, or ``(height, width)`` with one
    channel. Where samples are flat, as those of `fastnn.datasets.mnist`, put ``Reshape((28, 28))``
    before it; where channels come last, transpose them, ``x.transpose(0, 3, 1, 2)``. What comes
    out has a channel for each filter.

    Parameters
    ----------
    filters : int
        Channels going out, at most 4,096.
    kernel_size : int or (int, int)
        Height and width of the window, one number for both; at most 4,096 taps.
    activation : str or Activation, default "linear"
        What follows the sum.
    strides : int or (int, int), default 1
        How far the window moves, down and across.
    padding : "valid", "same", int or (int, int), default "valid"
        Zeros around the image: none; as many as make the output as large as the image, divided by
        the strides (as Keras, with the odd one below and to the right); or so many above and
        below, left and right (as torch).
    weight_initializer, bias_initializer, use_bias, weight_l1, weight_l2, bias_l1, bias_l2
        As of `Dense`.
    max_norm, non_negative, trainable
        Likewise; ``max_norm`` is that of the weights of a filter.

    Attributes
    ----------
    weight : array (channels, height, width, filters)
        View of the network's parameters; height and width are those of the window.
    bias : array (filters,)
        Likewise.

    Raises
    ------
    TypeError, ValueError
        For options out of range; by `Network`, where samples are no images or are smaller than
        the window.

    Notes
    -----
    Source: LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document
    recognition"; Nielsen, chapter 6. The window is not turned round, as in Keras and torch. Keras
    has weights (height, width, channels, filters), torch (filters, channels, height, width).

    Examples
    --------
    >>> import fastnn as fnn
    >>> layers = [fnn.Conv2D(6, 5, "relu"), fnn.MaxPool2D(2), fnn.Flatten(), fnn.Dense(10)]
    >>> net = fnn.Network(layers, input_shape=(28, 28), seed=0)
    >>> net.layers[0].weight.shape, net.layers[3].weight.shape
    ((1, 5, 5, 6), (864, 10))
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        activation: str | Activation = "linear",
        *,
        strides: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = "valid",
        weight_initializer: str | initializers.Initializer | None = None,
        bias_initializer: str | initializers.Initializer = "zeros",
        use_bias: bool = True,
        weight_l1: float = 0.0,
        weight_l2: float = 0.0,
        bias_l1: float = 0.0,
        bias_l2: float = 0.0,
        max_norm: float | None = None,
        non_negative: bool = False,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            activation, weight_initializer, bias_initializer, use_bias, weight_l1, weight_l2,
            bias_l1, bias_l2, max_norm, non_negative, trainable,
        )  # fmt: skip
        self.filters = whole("filters", filters, most=MOST)
        self.kernel_size = pair("kernel_size", kernel_size)
        if math.prod(self.kernel_size) > MOST:
            raise ValueError(f"kernel_size must have at most {MOST:,} taps, got {kernel_size}")
        self.strides = pair("strides", strides)
        if isinstance(padding, str):
            self.padding: str | tuple[int, int] = one_of("padding", padding, ["valid", "same"])
        else:
            self.padding = pair("padding", padding, least=0)
            if self.padding == (0, 0):
                self.padding = "valid"
        if self.activation.name == "softmax":
            raise ValueError("softmax of Conv2D would be over all values of an image; flatten it")

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A channel for each filter, as high and wide as the window has places."""
        return (self.filters, *self._places(shape)[0])

    def _places(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width going out, and zeros above and to the left of the image."""
        sizes, before = [], []
        for i, size in enumerate(image_of(self, shape)[1:]):
            window, stride = self.kernel_size[i], self.strides[i]
            if self.padding == "same":
                places = -(-size // stride)
                first = max(0, (places - 1) * stride + window - size) // 2
            else:
                first = 0 if isinstance(self.padding, str) else self.padding[i]
                places = (size + 2 * first - window) // stride + 1
            if places < 1:
                raise too_small(self, shape)
            sizes.append(places)
            before.append(first)
        return (sizes[0], sizes[1]), (before[0], before[1])

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """The sums, then the activation."""
        channels, height, width = image_of(self, shape)
        (out_height, out_width), (top, left) = self._places(shape)
        out = (self.filters, out_height, out_width)
        options = {"filters": self.filters, "padding_top": top, "padding_left": left}
        conv = Step(
            "conv2d", channels * height * width, math.prod(out), tuple(self.shapes(shape)),
            options=window_options(
                (channels, height, width), out[1:], self.kernel_size, self.strides, **options
            ),
        )  # fmt: skip
        return [conv, *(s for s in self.activation.steps(out) if s.op != "linear")]

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """A weight for each channel, tap and filter, a bias for each filter."""
        channels = image_of(self, shape)[0]
        bias = {"bias": (self.filters,)} if self.use_bias else {}
        return {"weight": (channels, *self.kernel_size, self.filters), **bias}

    def fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Values that a sum has, and sums that a value of the image is part of."""
        taps = math.prod(self.kernel_size)
        return image_of(self, shape)[0] * taps, self.filters * taps

    def __repr__(self) -> str:
        padding = "" if self.padding == "valid" else f", padding={self.padding!r}"
        strides = "" if self.strides == (1, 1) else f", strides={plain(self.strides)}"
        sizes = f"{self.filters}, {plain(self.kernel_size)}"
        return f"Conv2D({sizes}{self._activated}{strides}{padding}{self._changed})"


class Pool2D(Layer):
    """What pooling layers share."""

    op: str

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.pool_size = pair("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else pair("strides", strides)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """As many channels, each as high and wide as the window has places."""
        channels, *sizes = image_of(self, shape)
        moves = zip(sizes, self.pool_size, self.strides, strict=True)
        places = [(size - window) // stride + 1 for size, window, stride in moves]
        if min(places) < 1:
            raise too_small(self, shape)
        return (channels, *places)

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """One op."""
        image, out = image_of(self, shape), self.out_shape(shape)
        options = window_options(image, out[1:], self.pool_size, self.strides)
        return [Step(self.op, math.prod(image), math.prod(out), options=options, when=ALWAYS)]

    def __repr__(self) -> str:
        strides = "" if self.strides == self.pool_size else f", {plain(self.strides)}"
        return f"{type(self).__name__}({plain(self.pool_size)}{strides})"


class MaxPool2D(Pool2D):
    """The largest value of each window of an image, channel by channel.

    What is left over at the right and below, less than a window, is not looked at.

    Parameters
    ----------
    pool_size : int or (int, int), default 2
        Height and width of the window.
    strides : int or (int, int), optional
        How far it moves, down and across; by default by its own size.

    Notes
    -----
    Source: Nielsen, chapter 6. Of several largest values the first takes the gradient.

    Examples
    --------
    >>> import fastnn as fnn
    >>> net = fnn.Network([fnn.MaxPool2D()], input_shape=(2, 4), seed=0)
    >>> net.predict([[[1, 2, 3, 4], [8, 7, 6, 5]]])
    array([[[[8., 6.]]]], dtype=float32)
    """

    op = "max_pool2d"


class AveragePool2D(Pool2D):
    """The mean of each window of an image, channel by channel.

    Parameters
    ----------
    pool_size, strides
        As of `MaxPool2D`.

    Notes
    -----
    Source: LeCun et al. (1998), whose subsampling also learns a factor and a bias.

    Examples
    --------
    >>> import fastnn as fnn
    >>> net = fnn.Network([fnn.AveragePool2D()], input_shape=(2, 4), seed=0)
    >>> net.predict([[[1, 2, 3, 4], [8, 7, 6, 5]]])
    array([[[[4.5, 4.5]]]], dtype=float32)
    """

    op = "average_pool2d"


def pair(argument: str, value: int | tuple[int, int], least: int = 1) -> tuple[int, int]:
    """Numbers down and across, one for both where there is one."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{argument} must be one whole number or two, got {shown(value)}")
        down, across = value
        return whole(f"{argument}[0]", down, least), whole(f"{argument}[1]", across, least)
    both = whole(argument, value, least)
    return both, both


def plain(both: tuple[int, int]) -> str:
    """``5``, or ``(5, 3)``."""
    return str(both[0]) if both[0] == both[1] else str(both)


def image_of(layer: Layer, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a sample."""
    if len(shape) not in (2, 3):
        raise ValueError(
            f"{layer!r} needs images, (channels, height, width) or (height, width), got {shape}; "
            "put a Reshape before it"
        )
    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    return channels, height, width


def too_small(layer: Layer, shape: tuple[int, ...]) -> ValueError:
    """The error of a window that finds no place."""
    names = "(channels, height, width)" if len(shape) == 3 else "(height, width)"
    return ValueError(f"{layer!r}: the window is larger than the image, {names} {shape}")


def window_options(
    image: tuple[int, int, int],
    out_size: tuple[int, ...],
    window: tuple[int, int],
    strides: tuple[int, int],
    **more: int,
) -> tuple[tuple[str, float], ...]:
    """Sizes, by the names that a row of the plan has for them."""
    names = "channels height width out_height out_width kernel_height kernel_width".split()
    values = (*image, *out_size, *window, *strides)
    named = zip([*names, "stride_height", "stride_width"], values, strict=True)
    return (*named, *more.items())
