"""Losses with options; those without are known by their names alone, see `Network`.

``loss="huber"`` is ``loss=Huber()``. The loss of a batch is the mean of its rows' losses, and it
is this number whose gradient is taken.
"""

from __future__ import annotations

from typing import Any

from fastnn._check import number, one_of
from fastnn.kernels._kernel import KERNELS
from fastnn.kernels._op import OPS, Op

__all__ = ["BinaryCrossEntropy", "CrossEntropy", "Huber", "Loss", "Quantile"]


class Loss:
    """A loss by its name.

    Parameters
    ----------
    name : str
        One of the names that `Network` lists.

    Attributes
    ----------
    name : str
        Of the op in `fastnn.kernels`.
    label_smoothing : float
        Share of every target that is spread evenly over all outputs; 0 for most losses.

    Raises
    ------
    TypeError, ValueError
        For an unknown name; the text lists the known ones.

    Examples
    --------
    >>> Loss("mse")
    'mse'
    """

    label_smoothing = 0.0

    def __init__(self, name: str) -> None:
        self.name = one_of("loss", name, known())

    @property
    def op(self) -> Op:
        """What its targets are, and how many outputs it takes for each of them."""
        return OPS[self.name]

    def fields(self) -> dict[str, float]:
        """Options of the kernels, under the names of their arguments."""
        return {}

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if k != "name")
        return f"{type(self).__name__}({options})" if options else repr(self.name)


class Huber(Loss):
    """Half the squared error near the target, a straight line beyond ``delta``.

    ``error**2 / 2`` where ``|error| <= delta``, and ``delta * (|error| - delta / 2)``
    elsewhere; the mean over the outputs. An outlier pulls no harder than ``delta``.

    Parameters
    ----------
    delta : float, default 1.0
        Above 0; 1 as in Keras and PyTorch. Huber's 1.345 standard deviations of the noise
        lose 5 % against least squares where there are no outliers.

    Raises
    ------
    TypeError, ValueError
        Where ``delta`` is no number above 0.

    Notes
    -----
    Source: Huber (1964), "Robust estimation of a location parameter".

    Examples
    --------
    >>> Huber(0.5)
    Huber(delta=0.5)
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__("huber")
        self.delta = number("delta", delta, above=0)

    def fields(self) -> dict[str, float]:
        """Where the line begins."""
        return {"delta": self.delta}


class Quantile(Loss):
    """The pinball loss: least where a share ``quantile`` of the targets lies below the output.

    ``quantile * (target - output)`` below the target and ``(1 - quantile) * (output -
    target)`` above; the mean over the outputs. Two networks, of the quantiles 0.05 and 0.95,
    bound what is to be expected in 9 cases of 10.

    Parameters
    ----------
    quantile : float, default 0.5
        Between 0 and 1, both excluded; 0.5 gives the median and half the loss ``mae``.

    Raises
    ------
    TypeError, ValueError
        Where ``quantile`` is no number between 0 and 1.

    Notes
    -----
    Source: Koenker and Bassett (1978), "Regression quantiles".

    Examples
    --------
    >>> Quantile(0.9)
    Quantile(quantile=0.9)
    """

    def __init__(self, quantile: float = 0.5) -> None:
        super().__init__("quantile")
        self.quantile = number("quantile", quantile, above=0, below=1)

    def fields(self) -> dict[str, float]:
        """The share."""
        return {"quantile": self.quantile}


class CrossEntropy(Loss):
    """Minus the logarithm of the true class's probability.

    ``-sum of target * log(output)``; after a softmax both are computed as one, from the
    logits, and exact for any of them.

    Parameters
    ----------
    label_smoothing : float, default 0
        From 0 to below 1. Targets become ``target * (1 - label_smoothing) +
        label_smoothing / classes``, in training and evaluation alike, so that no output is
        driven to infinity; the accuracy is counted as before.

    Raises
    ------
    TypeError, ValueError
        Where ``label_smoothing`` is no number from 0 to below 1.

    Notes
    -----
    Sources: *Neural Networks from Scratch*, chapters 5 and 9; Nielsen, chapter 3, eq. 80
    (log-likelihood cost); Szegedy and others (2016), "Rethinking the Inception architecture
    for computer vision" (smoothing, there 0.1).

    Examples
    --------
    >>> CrossEntropy(label_smoothing=0.1)
    CrossEntropy(label_smoothing=0.1)
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__("cross_entropy")
        self.label_smoothing = number("label_smoothing", label_smoothing, least=0, below=1)


class BinaryCrossEntropy(Loss):
    """Cross-entropy of each output alone, each a chance of yes: one label, or several at once.

    ``-target * log(output) - (1 - target) * log(1 - output)``, the mean over the outputs;
    after a sigmoid both are computed as one, and exact however sure the output is.

    Parameters
    ----------
    label_smoothing : float, default 0
        From 0 to below 1. Targets become ``target * (1 - label_smoothing) +
        label_smoothing / 2``, as in Keras.

    Raises
    ------
    TypeError, ValueError
        Where ``label_smoothing`` is no number from 0 to below 1.

    Notes
    -----
    Sources: *Neural Networks from Scratch*, chapter 16; Nielsen, chapter 3, eq. 57 and 63,
    who adds up the outputs where this takes their mean.

    Examples
    --------
    >>> BinaryCrossEntropy()
    BinaryCrossEntropy(label_smoothing=0.0)
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__("binary_cross_entropy")
        self.label_smoothing = number("label_smoothing", label_smoothing, least=0, below=1)


LOSSES = {
    "binary_cross_entropy": BinaryCrossEntropy,
    "cross_entropy": CrossEntropy,
    "huber": Huber,
    "quantile": Quantile,
}


def known() -> list[str]:
    """Names of all losses but those that a plan makes of an activation and a loss."""
    losses = [op.name for op in OPS.values() if op.role == "loss"]
    return [name for name in losses if "prob" not in KERNELS[f"{name}_forward"].shapes]


def get(value: Any) -> Loss:
    """A loss by its name, with its defaults, or the object itself."""
    if isinstance(value, Loss):
        return value
    if isinstance(value, type) and issubclass(value, Loss):
        raise TypeError(f"loss must be an object, got the class: write {value.__name__}()")
    name = one_of("loss", value, known())
    return LOSSES[name]() if name in LOSSES else Loss(name)
