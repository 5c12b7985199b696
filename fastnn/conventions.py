r"""Hyper-parameters of the books and of other libraries, in fastnn's scale.

The same word means different numbers in different places. In fastnn

* the loss of a batch is the *mean* over its rows, and a penalty ``weight_l2=l2`` adds
  ``l2 * sum(w**2)`` to that mean, whatever the size of the batch or of the data;
* ``mse``, ``mae`` and ``binary_cross_entropy`` are means over the outputs as well,
  ``quadratic`` is half a sum over them;
* ``decay`` counts updates, from 0: step ``t`` is taken at ``learning_rate / (1 + decay * t)``;
* ``momentum`` of an optimizer is the share of the velocity that is kept, and of `BatchNorm` the
  share of the running mean that is kept.

============== ===================================== ==============================================
from           what they write                       in fastnn
============== ===================================== ==============================================
L2 penalty
---------------------------------------------------------------------------------------------------
nnfs, Keras    ``l2``: ``l2 * sum(w**2)``            ``weight_l2``: the same number
Nielsen,       ``lmbda``, over twice the rows of     `l2_from_nielsen`: ``lmbda / (2 * samples)``
network2       the *training set*
Nielsen,       ``lmbda``, over twice the *batches*   `l2_from_network3`: ``lmbda / (2 * batches)``
network3       of an epoch
scikit-learn   ``alpha``, over twice the rows of a   `l2_from_sklearn`:
               *batch*: it changes with              ``alpha / (2 * batch_size)``
               ``batch_size``
torch          ``weight_decay``: ``weight_decay * w`` `l2_from_torch`: ``weight_decay / 2``, and
               is added to the gradient, also of     ``bias_l2`` the same
               biases
AdamW          ``weight_decay``: no penalty, it      ``AdamW(weight_decay=...)``: the same number
               shrinks weights beside the gradient
-------------- ------------------------------------- ----------------------------------------------
Scale of the loss
---------------------------------------------------------------------------------------------------
Nielsen        cross-entropy is *summed* over the    `loss_scale`: learning rate times it, penalty
               outputs                               over it
scikit-learn   ``squared_error`` follows             `loss_scale`, likewise
               ``(p - y) / batch`` whatever number
               of outputs it reports the mean of
nnfs, Keras,   means over rows and outputs           1
torch
-------------- ------------------------------------- ----------------------------------------------
Decay of the learning rate
---------------------------------------------------------------------------------------------------
nnfs           ``decay``, per update from 0          ``decay``: the same number
Keras          ``InverseTimeDecay(rate, decay_steps, `decay_from_keras`
               decay_rate)``; an optimizer's
               ``decay=`` is ignored, with a warning
scikit-learn   ``"invscaling"``: counts *samples*,   `rates_from_sklearn`: the rate of each update,
               once an epoch; after one epoch of     as an array
               60,000 rows the rate is 1/245
-------------- ------------------------------------- ----------------------------------------------
Epsilon of Adam
---------------------------------------------------------------------------------------------------
nnfs, torch    added to the root of the *corrected*  `adam_epsilon`: ``epsilon_mode="corrected"``
               mean, as in the paper's algorithm 1
Keras,         added to the root of the *raw* mean:  `adam_epsilon`: ``epsilon_mode="raw"``
scikit-learn   as if 31.6 times larger at step 1
-------------- ------------------------------------- ----------------------------------------------
Momentum
---------------------------------------------------------------------------------------------------
nnfs, Keras,   ``v = momentum * v - rate * g``,      the same number
scikit-learn   then ``w += v``
torch          ``v = momentum * v + g``, then        the same number: the same steps while the rate
               ``w -= rate * v``                     stays what it is
torch,         ``momentum``: share of the *new* mean `batch_norm_momentum_from_torch`:
BatchNorm                                            ``1 - momentum``
Keras,         ``momentum``: share of the old mean   the same number
BatchNorm
============== ===================================== ==============================================

Examples
--------
Chapter 3 of Nielsen's book trains with ``eta=0.5`` and ``lmbda=5.0`` on 50,000 images, by a
cross-entropy that is summed over ten outputs:

>>> from fastnn import conventions
>>> scale = conventions.loss_scale("nielsen", "binary_cross_entropy", outputs=10)
>>> 0.5 * scale, conventions.l2_from_nielsen(5.0, samples=50_000, scale=scale)
(5.0, 5e-06)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnn._check import number, one_of, whole

__all__ = [
    "adam_epsilon",
    "batch_norm_momentum_from_torch",
    "decay_from_keras",
    "l2_from_network3",
    "l2_from_nielsen",
    "l2_from_sklearn",
    "l2_from_torch",
    "loss_scale",
    "rates_from_sklearn",
]

_LIBRARIES = ("keras", "nielsen", "nnfs", "sklearn", "torch")
_LOSSES = ("binary_cross_entropy", "cross_entropy", "mae", "mse", "quadratic")

# How many times as large as the derivative of fastnn's loss the one is that they follow. What is
# not here is the same.
_SCALES: dict[tuple[str, str], Callable[[int], float]] = {
    ("nielsen", "binary_cross_entropy"): float,  # the sum over the outputs
    ("nielsen", "mse"): lambda outputs: outputs / 2,  # his quadratic cost, half the sum
    ("sklearn", "binary_cross_entropy"): float,
    ("sklearn", "mse"): lambda outputs: outputs / 2,
}

# Where each adds Adam's epsilon, and how much where nobody says: nnfs 0.5.1, torch 2.13,
# scikit-learn 1.9, Keras 3.16; Nielsen's book has no Adam.
_EPSILONS = {
    "keras": (1e-7, "raw"),
    "nnfs": (1e-7, "corrected"),
    "sklearn": (1e-8, "raw"),
    "torch": (1e-8, "corrected"),
}


def loss_scale(library: str, loss: str, outputs: int = 1) -> float:
    """How many times as large as fastnn's the gradient is that another library follows.

    To train alike by gradient descent, multiply the learning rate by it and hand it to the
    helper for the penalty. Adam's steps do not depend on the scale of the loss, so that with
    Adam only the penalty needs it.

    Parameters
    ----------
    library : {"keras", "nielsen", "nnfs", "sklearn", "torch"}
        torch with its default ``reduction="mean"``.
    loss : {"binary_cross_entropy", "cross_entropy", "mae", "mse", "quadratic"}
        fastnn's loss that stands in for theirs.
    outputs : int, default 1
        Outputs of the network.

    Returns
    -------
    float
        1 for most; ``outputs`` where they sum over the outputs what fastnn takes the mean of.

    Notes
    -----
    Read in the sources of Nielsen's network2 and of scikit-learn 1.9, where ``squared_error``
    with several outputs reports a mean over them and follows the gradient of a sum.

    Examples
    --------
    >>> loss_scale("sklearn", "mse", outputs=3), loss_scale("torch", "mse", outputs=3)
    (1.5, 1.0)
    """
    library = one_of("library", library, _LIBRARIES)
    loss = one_of("loss", loss, _LOSSES)
    return _SCALES.get((library, loss), lambda outputs: 1.0)(whole("outputs", outputs))


def l2_from_nielsen(lmbda: float, samples: int, scale: float = 1.0) -> float:
    """``weight_l2`` for the ``lmbda`` of Nielsen's network2.

    Parameters
    ----------
    lmbda : float
        As in ``net.SGD(..., lmbda=5.0)``; it does not touch biases.
    samples : int
        Rows of the whole training set.
    scale : float, default 1
        What `loss_scale` says.

    Returns
    -------
    float
        ``lmbda / (2 * samples * scale)``.

    Notes
    -----
    Source: Nielsen, chapter 3, eq. 85 and 87.

    Examples
    --------
    >>> l2_from_nielsen(5.0, samples=50_000)
    5e-05
    """
    return _l2("lmbda", lmbda, 2 * whole("samples", samples), scale)


def l2_from_network3(lmbda: float, batches: int, scale: float = 1.0) -> float:
    """``weight_l2`` for the ``lmbda`` of Nielsen's network3, which counts batches, not samples.

    Parameters
    ----------
    lmbda : float
        As in chapter 6: ``lmbda=0.1``.
    batches : int
        Whole batches of an epoch: 5,000 for 50,000 images ten at a time.
    scale : float, default 1
        What `loss_scale` says.

    Returns
    -------
    float
        ``lmbda / (2 * batches * scale)``.

    Examples
    --------
    >>> l2_from_network3(0.1, batches=5_000)
    1e-05
    """
    return _l2("lmbda", lmbda, 2 * whole("batches", batches), scale)


def l2_from_sklearn(alpha: float, batch_size: int, scale: float = 1.0) -> float:
    """``weight_l2`` for the ``alpha`` of scikit-learn's MLP.

    Parameters
    ----------
    alpha : float
        As in ``MLPRegressor(alpha=1e-4)``; it does not touch biases.
    batch_size : int
        Rows of a batch; ``"auto"`` there is ``min(200, samples)``. A last batch of fewer rows
        is penalised more in scikit-learn, which no constant can follow.
    scale : float, default 1
        What `loss_scale` says.

    Returns
    -------
    float
        ``alpha / (2 * batch_size * scale)``.

    Examples
    --------
    >>> l2_from_sklearn(1e-4, batch_size=200)
    2.5e-07
    """
    return _l2("alpha", alpha, 2 * whole("batch_size", batch_size), scale)


def l2_from_torch(weight_decay: float) -> float:
    """``weight_l2`` for the ``weight_decay`` of torch's optimizers other than AdamW.

    Parameters
    ----------
    weight_decay : float
        torch adds ``weight_decay * parameter`` to every gradient, those of biases included:
        give ``bias_l2`` the same number.

    Returns
    -------
    float
        ``weight_decay / 2``, as the derivative of ``l2 * w**2`` is ``2 * l2 * w``.

    Examples
    --------
    >>> l2_from_torch(1e-4)
    5e-05
    """
    return _l2("weight_decay", weight_decay, 2, 1.0)


def _l2(argument: str, value: float, divisor: int, scale: float) -> float:
    """A penalty over what it is divided by, and over the scale of the loss."""
    return number(argument, value, least=0) / (divisor * number("scale", scale, above=0))


def adam_epsilon(library: str, epsilon: float | None = None) -> dict[str, float | str]:
    """Arguments that give `fastnn.Adam` the epsilon of another library.

    Parameters
    ----------
    library : {"keras", "nnfs", "sklearn", "torch"}
        Whose Adam.
    epsilon : float, optional
        As given there; default that library's own.

    Returns
    -------
    dict
        ``epsilon`` and ``epsilon_mode``.

    Examples
    --------
    >>> import fastnn as fnn
    >>> adam_epsilon("keras")
    {'epsilon': 1e-07, 'epsilon_mode': 'raw'}
    >>> fnn.Adam(0.001, **adam_epsilon("keras")).epsilon_mode
    'raw'
    """
    own, mode = _EPSILONS[one_of("library", library, _EPSILONS)]
    return {
        "epsilon": own if epsilon is None else number("epsilon", epsilon, least=0),
        "epsilon_mode": mode,
    }


def decay_from_keras(decay_rate: float, decay_steps: int = 1) -> float:
    """``decay`` for Keras's ``InverseTimeDecay(learning_rate, decay_steps, decay_rate)``.

    Parameters
    ----------
    decay_rate : float
        By how much the divisor grows in ``decay_steps`` updates.
    decay_steps : int, default 1
        Updates.

    Returns
    -------
    float
        ``decay_rate / decay_steps``.

    Notes
    -----
    With ``staircase=True`` Keras divides whole numbers only, which fastnn's ``decay`` does not.

    Examples
    --------
    >>> decay_from_keras(0.5, decay_steps=1000)
    0.0005
    """
    return number("decay_rate", decay_rate, least=0) / whole("decay_steps", decay_steps)


def rates_from_sklearn(
    learning_rate_init: float,
    samples: int,
    batch_size: int,
    epochs: int,
    power_t: float = 0.5,
) -> np.ndarray:
    """Learning rate of every update under scikit-learn's ``learning_rate="invscaling"``.

    Parameters
    ----------
    learning_rate_init : float
        Rate of the first epoch.
    samples, batch_size : int
        Rows of the training set, and of a batch.
    epochs : int
        Passes over the data.
    power_t : float, default 0.5
        As there.

    Returns
    -------
    array (epochs * batches,), float64
        In epoch ``e``, counted from 0, ``learning_rate_init / (e * samples + 1)**power_t``: the
        rate falls between epochs only, by the number of *samples* seen.

    Examples
    --------
    >>> rates_from_sklearn(0.001, samples=60_000, batch_size=30_000, epochs=2).round(7)
    array([1.0e-03, 1.0e-03, 4.1e-06, 4.1e-06])
    """
    rate = number("learning_rate_init", learning_rate_init, above=0)
    samples = whole("samples", samples)
    batches = -(-samples // whole("batch_size", batch_size))
    seen = np.arange(whole("epochs", epochs)).repeat(batches) * float(samples)
    return rate / (seen + 1) ** number("power_t", power_t)


def batch_norm_momentum_from_torch(momentum: float) -> float:
    """``BatchNorm(momentum=...)`` for torch's, which is the share of the new mean.

    Parameters
    ----------
    momentum : float
        As in ``BatchNorm1d(momentum=0.1)``, from 0 to 1.

    Returns
    -------
    float
        ``1 - momentum``: the share of the running mean that is kept.

    Notes
    -----
    torch also stores the unbiased variance, ``batch / (batch - 1)`` times the one it divides
    by, and adds an epsilon of 1e-5 where Keras and fastnn add 1e-3.

    Examples
    --------
    >>> batch_norm_momentum_from_torch(0.1)
    0.9
    """
    momentum = number("momentum", momentum, least=0)
    if momentum > 1:
        raise ValueError(f"momentum must be from 0 to 1, got {momentum}")
    return 1 - momentum
