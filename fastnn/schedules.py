"""Learning rates that change with the steps of training.

Every schedule counts the same thing: *steps*, the updates an optimizer has made, from 0, one for
each batch. An epoch has ``ceil(samples / batch_size)`` of them. The count goes on from one
`Network.fit` to the next, until the network is given another optimizer. (Other libraries count
epochs, as PyTorch's examples do, or samples, as scikit-learn's ``invscaling`` does: at 60,000
samples its rate is 1/245 of the first after one epoch.)

>>> from fastnn import SGD, schedules
>>> SGD(schedules.Exponential(0.1, 0.5, steps=2)).rates(0, 4).round(4)
array([0.1   , 0.0707, 0.05  , 0.0354])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn._check import flag, got, number, shown, whole

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "InverseTimeDecay",
    "OneCycle",
    "Piecewise",
    "ReduceOnPlateau",
    "Schedule",
]


class Schedule(ABC):
    """What every schedule is: a function of the number of steps made so far.

    A class of your own needs `at` alone.
    """

    @abstractmethod
    def at(self, steps: np.ndarray) -> np.ndarray:
        """Rates at which these steps, counted from 0, float64, are taken."""

    def rates(self, first: int, count: int) -> np.ndarray:
        """Rates of ``count`` steps from step ``first`` on.

        Parameters
        ----------
        first, count : int
            Steps ``first``, ..., ``first + count - 1``.

        Returns
        -------
        array (count,), float64
        """
        return self.at(np.arange(first, first + count, dtype=np.float64))

    def __repr__(self) -> str:
        options = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


class Constant(Schedule):
    """The same rate at every step, as the plain number gives.

    Parameters
    ----------
    learning_rate : float
        Above 0.

    Examples
    --------
    >>> Constant(0.1).rates(5, 2)
    array([0.1, 0.1])
    """

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = number("learning_rate", learning_rate, above=0)

    def at(self, steps: np.ndarray) -> np.ndarray:
        """``learning_rate``."""
        return np.full(steps.shape, self.learning_rate)


class InverseTimeDecay(Schedule):
    """``learning_rate / (1 + decay * step)``.

    Parameters
    ----------
    learning_rate : float
        Of the first step.
    decay : float
        0 or more.

    Notes
    -----
    Source: *Neural Networks from Scratch*, chapter 10. The ``decay`` of every optimizer does
    the same.

    Examples
    --------
    >>> InverseTimeDecay(1.0, 0.1).rates(0, 3).round(4)
    array([1.    , 0.9091, 0.8333])
    """

    def __init__(self, learning_rate: float, decay: float) -> None:
        self.learning_rate = number("learning_rate", learning_rate, above=0)
        self.decay = number("decay", decay, least=0)

    def at(self, steps: np.ndarray) -> np.ndarray:
        """``learning_rate / (1 + decay * step)``."""
        return self.learning_rate / (1 + self.decay * steps)


class Exponential(Schedule):
    """``learning_rate * factor ** (step / steps)``.

    Parameters
    ----------
    learning_rate : float
        Of the first step.
    factor : float
        What remains of the rate after ``steps`` steps, above 0.
    steps : int, default 1
        With 1, ``factor`` is that of PyTorch's ``ExponentialLR``, there for each epoch.
    staircase : bool, default False
        Fall all at once every ``steps`` steps, as PyTorch's ``StepLR`` does.

    Examples
    --------
    >>> Exponential(0.8, 0.5, steps=2, staircase=True).rates(0, 5)
    array([0.8, 0.8, 0.4, 0.4, 0.2])
    """

    def __init__(
        self, learning_rate: float, factor: float, *, steps: int = 1, staircase: bool = False
    ) -> None:
        self.learning_rate = number("learning_rate", learning_rate, above=0)
        self.factor = number("factor", factor, above=0)
        self.steps = whole("steps", steps)
        self.staircase = flag("staircase", staircase)

    def at(self, steps: np.ndarray) -> np.ndarray:
        """``learning_rate * factor ** (step / steps)``."""
        power = steps // self.steps if self.staircase else steps / self.steps
        return self.learning_rate * self.factor**power


class Piecewise(Schedule):
    """One rate after another.

    Parameters
    ----------
    boundaries : sequence of int
        Steps at which the next rate begins, each larger than the one before. Keras's
        ``PiecewiseConstantDecay`` takes the step of the boundary at the old rate still,
        PyTorch's ``MultiStepLR`` at the new one, as here.
    learning_rates : sequence of float
        One more than there are boundaries.

    Examples
    --------
    >>> Piecewise([2, 3], [0.1, 0.01, 0.001]).rates(0, 5)
    array([0.1  , 0.1  , 0.01 , 0.001, 0.001])
    """

    def __init__(self, boundaries: Sequence[int], learning_rates: Sequence[float]) -> None:
        for name, given in (("boundaries", boundaries), ("learning_rates", learning_rates)):
            if not isinstance(given, Sequence) and not (
                isinstance(given, np.ndarray) and given.ndim
            ):
                raise TypeError(f"{name} must be a sequence of numbers, {got(given)}")
        self.boundaries = [whole("boundaries", step) for step in boundaries]
        self.learning_rates = [number("learning_rates", rate, above=0) for rate in learning_rates]
        if sorted(set(self.boundaries)) != self.boundaries:
            raise ValueError(f"boundaries must grow, got {shown(self.boundaries)}")
        if len(self.learning_rates) != len(self.boundaries) + 1:
            raise ValueError(
                f"learning_rates must be one more than the {len(self.boundaries)} boundaries, "
                f"got {len(self.learning_rates)}"
            )

    def at(self, steps: np.ndarray) -> np.ndarray:
        """The rate between the boundaries on either side."""
        return np.array(self.learning_rates)[np.searchsorted(self.boundaries, steps, side="right")]


class Cosine(Schedule):
    """Down along half a cosine, after a rise from almost nothing if wanted.

    Parameters
    ----------
    learning_rate : float
        The highest rate, where the cosine begins.
    steps : int
        Steps until the end, those of the rise included; then the rate stays at ``final``.
    warmup : int, default 0
        Steps of the rise: step ``t`` is taken at ``learning_rate * (t + 1) / (warmup + 1)``, so
        that no step is lost at rate 0 and step ``warmup`` has the whole rate.
    final : float, default 0
        The rate at the end.

    Notes
    -----
    Source: Loshchilov and Hutter (2017), "SGDR", arXiv:1608.03983, eq. 5, without restarts:
    PyTorch's ``CosineAnnealingLR(T_max=steps - warmup, eta_min=final)``.

    Examples
    --------
    >>> Cosine(0.1, 6, warmup=1).rates(0, 8).round(4)
    array([0.05  , 0.1   , 0.0905, 0.0655, 0.0345, 0.0095, 0.    , 0.    ])
    """

    def __init__(
        self, learning_rate: float, steps: int, *, warmup: int = 0, final: float = 0.0
    ) -> None:
        self.learning_rate = number("learning_rate", learning_rate, above=0)
        self.steps = whole("steps", steps)
        self.warmup = whole("warmup", warmup, least=0)
        self.final = number("final", final, least=0)
        if self.warmup >= self.steps:
            raise ValueError(f"warmup must be below steps={self.steps}, got {self.warmup}")

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Rise, cosine and end."""
        rise = self.learning_rate * (steps + 1) / (self.warmup + 1)
        share = np.clip((steps - self.warmup) / (self.steps - self.warmup), 0, 1)
        return np.where(
            steps < self.warmup, rise, _along_cosine(self.learning_rate, self.final, share)
        )


class OneCycle(Schedule):
    """Up along half a cosine to a high rate, then down to almost nothing.

    Parameters
    ----------
    learning_rate : float
        The highest rate.
    steps : int
        Of the whole training, at least 2; after them the rate stays at the lowest.
    pct_start : float, default 0.3
        Share of the steps that goes up, between 0 and 1.
    div_factor : float, default 25
        The first rate is ``learning_rate / div_factor``.
    final_div_factor : float, default 1e4
        The last rate is the first one over this.

    Notes
    -----
    Source: Smith and Topin (2019), "Super-Convergence", arXiv:1708.07120, with the defaults and
    the two phases of PyTorch's ``OneCycleLR``; momentum is left alone
    (``cycle_momentum=False``).

    Examples
    --------
    >>> OneCycle(1.0, 8, pct_start=0.5).rates(0, 8).round(3)
    array([0.04 , 0.28 , 0.76 , 1.   , 0.854, 0.5  , 0.146, 0.   ])
    """

    def __init__(
        self,
        learning_rate: float,
        steps: int,
        *,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        self.learning_rate = number("learning_rate", learning_rate, above=0)
        self.steps = whole("steps", steps, least=2)
        self.pct_start = number("pct_start", pct_start, above=0, below=1)
        self.div_factor = number("div_factor", div_factor, above=0)
        self.final_div_factor = number("final_div_factor", final_div_factor, above=0)

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Up and down."""
        first = self.learning_rate / self.div_factor
        peak, last = max(self.pct_start * self.steps - 1, 0.0), self.steps - 1
        up = np.clip(steps / (peak or 1.0), 0, 1)  # without steps to go up, it begins at the peak
        down = np.clip((steps - peak) / (last - peak), 0, 1)
        return np.where(
            steps < peak,
            _along_cosine(first, self.learning_rate, up),
            _along_cosine(self.learning_rate, first / self.final_div_factor, down),
        )


def _along_cosine(start: float, end: float, share: np.ndarray) -> np.ndarray:
    """From ``start`` to ``end``, flat at both."""
    return end + (start - end) / 2 * (1 + np.cos(np.pi * share))


class ReduceOnPlateau(Schedule):
    """A lower rate whenever the loss has stopped falling.

    `Network.fit` tells it the loss at the end of every epoch: that of ``validation_data`` where
    there is some, else that of the training. It remembers what it was told: give each network
    one of its own.

    Parameters
    ----------
    learning_rate : float
        To begin with.
    factor : float, default 0.1
        What the rate is multiplied by, between 0 and 1.
    patience : int, default 10
        So many epochs in a row without a lower loss make the rate fall. PyTorch's ``patience``
        is the epochs that may pass before, one less.
    min_delta : float, default 1e-4
        A loss counts as lower where it is below the best one so far by more than this
        (PyTorch's ``threshold`` with ``threshold_mode="abs"``).
    cooldown : int, default 0
        Epochs after a fall that are not counted.
    min_learning_rate : float, default 0
        The rate falls no further.

    Notes
    -----
    Source: defaults and rules of Keras's ``ReduceLROnPlateau``; Nielsen, chapter 3, "How to
    choose a neural network's hyper-parameters", halves the rate likewise.

    Examples
    --------
    >>> rate = ReduceOnPlateau(0.1, factor=0.5, patience=2)
    >>> for loss in (1.0, 0.8, 0.8, 0.9):
    ...     rate.epoch_ended(loss)
    >>> rate.rates(0, 2)
    array([0.05, 0.05])
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_learning_rate: float = 0.0,
    ) -> None:
        self.learning_rate = number("learning_rate", learning_rate, above=0)
        self.factor = number("factor", factor, above=0, below=1)
        self.patience = whole("patience", patience)
        self.min_delta = number("min_delta", min_delta, least=0)
        self.cooldown = whole("cooldown", cooldown, least=0)
        self.min_learning_rate = number("min_learning_rate", min_learning_rate, least=0)
        self._best, self._waited, self._cooling = float("inf"), 0, 0

    @property
    def memory(self) -> list[float | None]:
        """What it has been told: the best loss or None, epochs since, epochs left to cool down."""
        best = None if self._best == float("inf") else self._best
        return [best, self._waited, self._cooling]

    @memory.setter
    def memory(self, value: Any) -> None:
        best, waited, cooling = value
        self._best = float("inf") if best is None else number("best", best)
        self._waited = whole("waited", waited, least=0)
        self._cooling = whole("cooling", cooling, least=0)

    def at(self, steps: np.ndarray) -> np.ndarray:
        """The rate of the epoch that is under way, whatever the step."""
        return np.full(steps.shape, self.learning_rate)

    def epoch_ended(self, loss: float) -> None:
        """Take note of an epoch's loss; lower ``learning_rate`` if it is time.

        Parameters
        ----------
        loss : float
        """
        better = loss < self._best - self.min_delta
        if better:
            self._best = loss
        cooling = self._cooling > 1  # the last epoch of the cool-down is counted, as in Keras
        self._cooling = max(self._cooling - 1, 0)
        self._waited = 0 if better or cooling else self._waited + 1
        if self._waited >= self.patience:
            self.learning_rate = max(self.learning_rate * self.factor, self.min_learning_rate)
            self._waited, self._cooling = 0, self.cooldown
