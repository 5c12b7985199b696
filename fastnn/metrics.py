"""How good predictions are: functions of ``(y_true, y_pred)`` in plain numpy and float64.

They are for what `Network.predict` gives and for any other numbers. One of a few can be followed
through the training too, see ``metric`` of `Network`.

>>> import numpy as np
>>> outputs = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.5, 0.4, 0.1]])
>>> accuracy([0, 1, 2], outputs)
0.6666666666666666
>>> confusion_matrix([0, 1, 2], outputs)
array([[1, 0, 0],
       [0, 1, 0],
       [1, 0, 0]])
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from fastnn._check import number, numbers, one_of, whole
from fastnn.kernels._op import Op

__all__ = [
    "accuracy",
    "auc",
    "binary_accuracy",
    "confusion_matrix",
    "f1",
    "log_loss",
    "mae",
    "mse",
    "precision",
    "r2",
    "recall",
    "regression_accuracy",
    "rmse",
    "top_k_accuracy",
]

_MOST = 10_000  # classes of a confusion matrix, whose size is their square
_AVERAGES = ("binary", "macro", "micro", "weighted")


# -- what the training shows --------------------------------------------------------


class Metric(NamedTuple):
    """A metric that the training follows: its name, and its op where the loss does not choose."""

    name: str
    op: str = ""
    fields: dict[str, float] = {}  # noqa: RUF012 (never written)

    def check(self, loss: Op, fan_out: int) -> None:
        """Whether it fits the loss and the number of outputs."""
        if self.op and loss.per_target > 1:
            raise ValueError(
                f"metric {self.name} needs an output for each target, {loss.name} has "
                f"{loss.per_target}; use metric='accuracy' and fastnn.metrics on predictions"
            )
        top = int(self.fields.get("top", 0))
        if top >= fan_out and self.op == "top_k_accuracy":
            raise ValueError(f"metric {self.name} needs more than {top} outputs, got {fan_out}")


_FOLLOWED = {
    "accuracy": Metric("accuracy"),
    "mae": Metric("mae", "mae"),
    "mse": Metric("mse", "mse"),
    "rmse": Metric("rmse", "mse"),
}


def get(value: Any) -> Metric:
    """A metric of the training by its name: those of ``_FOLLOWED``, or ``top_3_accuracy``."""
    if isinstance(value, Metric):
        return value
    top = re.fullmatch(r"top_([1-9]\d*)_accuracy", value) if isinstance(value, str) else None
    if top:
        return Metric(top[0], "top_k_accuracy", {"top": int(top[1])})
    known = [*_FOLLOWED, "top_3_accuracy"]
    return _FOLLOWED[one_of("metric", value, known)]


# -- what goes in -------------------------------------------------------------------


def _numbers(argument: str, value: Any) -> np.ndarray:
    array = numbers(argument, value)
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{argument} must have shape (n,) or (n, k), got {array.shape}")
    with np.errstate(over="ignore"):  # of long doubles
        finite = np.isfinite(array.astype(np.float64, copy=False))
    if not finite.all():
        raise ValueError(f"{argument} must hold finite numbers, got {array[~finite][0]}")
    return array


def _pair(y_true: Any, y_pred: Any, pred: str = "y_pred") -> tuple[np.ndarray, np.ndarray]:
    """Two arrays with as many rows."""
    true, guess = _numbers("y_true", y_true), _numbers(pred, y_pred)
    if len(true) != len(guess):
        raise ValueError(
            f"y_true and {pred} must have as many rows, got {len(true)} and {len(guess)}"
        )
    return true, guess


def _same(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays (n, k) of float64; (n,) is (n, 1), and nothing else is stretched."""
    true, guess = _pair(y_true, y_pred)
    true, guess = (a.reshape(len(a), -1).astype(np.float64) for a in (true, guess))
    if true.shape != guess.shape:
        raise ValueError(
            f"y_true and y_pred must have the same shape, got {true.shape} and {guess.shape}"
        )
    return true, guess


def _labels(argument: str, array: np.ndarray) -> np.ndarray:
    """Class labels (n,): as they are, or the largest of each row's outputs."""
    if array.ndim == 2 and array.shape[1] > 1:
        return array.argmax(axis=1)
    column = array.reshape(-1)
    if array.dtype.kind == "f" and (column != np.floor(column)).any():
        raise ValueError(
            f"{argument} must hold class labels or an output for each class, got "
            f"{column[column != np.floor(column)][0]}; of chances of yes: {argument} > 0.5"
        )
    if not -(1 << 63) <= int(column.min()) <= int(column.max()) < 1 << 63:
        raise ValueError(f"{argument} must hold class labels below 2**63, got larger ones")
    return column.astype(np.int64)


def _both_labels(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    true, guess = _pair(y_true, y_pred)
    if true.ndim == guess.ndim == 2 and true.shape[1] != guess.shape[1]:
        raise ValueError(
            f"y_true and y_pred must have as many classes, got {true.shape} and {guess.shape}"
        )
    return _labels("y_true", true), _labels("y_pred", guess)


def _scores(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Class labels (n,), and outputs (n, k) that have a column for each of them."""
    true, guess = _pair(y_true, y_pred)
    if guess.ndim != 2 or guess.shape[1] < 2:
        raise ValueError(f"y_pred must have an output for each class, (n, k), got {guess.shape}")
    if true.ndim == 2 and 1 < true.shape[1] != guess.shape[1]:
        raise ValueError(
            f"y_true and y_pred must have as many classes, got {true.shape} and {guess.shape}"
        )
    labels = _labels("y_true", true)
    if labels.min() < 0 or labels.max() >= guess.shape[1]:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(
            f"y_true must hold class labels from 0 to {guess.shape[1] - 1}, got {wrong}"
        )
    return labels, guess


def _yes_or_no(true: np.ndarray) -> np.ndarray:
    """Targets (n,) that are 0 and 1, as booleans."""
    if true.ndim == 2 and true.shape[1] > 1:
        raise ValueError(f"y_true must have shape (n,), got {true.shape}")
    column = true.reshape(-1)
    if not ((column == 0) | (column == 1)).all():
        raise ValueError(
            f"y_true must hold 0 and 1, got {column[(column != 0) & (column != 1)][0]}"
        )
    return column == 1


def _weights(sample_weight: Any, rows: int) -> np.ndarray:
    """What each row counts: 1, or as given."""
    if sample_weight is None:
        return np.ones(rows)
    weight = _numbers("sample_weight", sample_weight).astype(np.float64)
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight must have shape ({rows},), got {weight.shape}")
    if weight.min() < 0 or not weight.any():
        raise ValueError("sample_weight must hold numbers from 0, not all of them 0")
    return weight


def _mean(values: np.ndarray, sample_weight: Any) -> float:
    """Mean of the rows' values, each with its weight."""
    return float(np.average(values, weights=_weights(sample_weight, len(values))))


# -- classes ------------------------------------------------------------------------


def accuracy(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Share of the rows whose class is right.

    Parameters
    ----------
    y_true, y_pred : array (n,) or (n, k)
        Class labels, or an output for each class: the largest counts, the first of equals.
    sample_weight : array (n,), optional
        What each row counts.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        Where the arrays hold no labels or do not fit each other.

    Notes
    -----
    Source: *Neural Networks from Scratch*, chapter 5.

    Examples
    --------
    >>> accuracy([0, 1, 1], [0, 1, 0])
    0.6666666666666666
    """
    true, guess = _both_labels(y_true, y_pred)
    return _mean(true == guess, sample_weight)


def binary_accuracy(
    y_true: Any, y_pred: Any, *, threshold: float = 0.5, sample_weight: Any = None
) -> float:
    """Share of the outputs on the target's side of the threshold, each output for itself.

    Parameters
    ----------
    y_true, y_pred : array (n,) or (n, k)
        Targets and outputs of the same shape; yes is what is above the threshold.
    threshold : float, default 0.5
        0.5 for chances, 0 for the outputs of a hinge loss.
    sample_weight : array (n,), optional
        What each row counts.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        Where the arrays do not fit each other.

    Notes
    -----
    Source: *Neural Networks from Scratch*, chapter 16.

    Examples
    --------
    >>> binary_accuracy([[1, 0], [1, 1]], [[0.9, 0.2], [0.6, 0.4]])
    0.75
    """
    true, guess = _same(y_true, y_pred)
    cut = number("threshold", threshold)
    return _mean(((true > cut) == (guess > cut)).mean(axis=1), sample_weight)


def top_k_accuracy(y_true: Any, y_pred: Any, *, k: int = 5, sample_weight: Any = None) -> float:
    """Share of the rows whose class is among the ``k`` largest outputs.

    Parameters
    ----------
    y_true : array (n,) or (n, classes)
        Class labels, or one-hot rows.
    y_pred : array (n, classes)
        An output for each class; of equals the first is the larger, as for `accuracy`.
    k : int, default 5
        As in Keras and in the ImageNet competitions; 1 gives `accuracy`.
    sample_weight : array (n,), optional
        What each row counts.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        Where the arrays do not fit each other.

    Examples
    --------
    >>> top_k_accuracy([2, 0], [[0.1, 0.6, 0.3], [0.2, 0.3, 0.5]], k=2)
    0.5
    """
    labels, guess = _scores(y_true, y_pred)
    true = labels[:, None]
    score = np.take_along_axis(guess, true, axis=1)
    before = (guess > score) | ((guess == score) & (np.arange(guess.shape[1]) < true))
    return _mean(before.sum(axis=1) < whole("k", k), sample_weight)


def confusion_matrix(
    y_true: Any, y_pred: Any, *, classes: int | None = None, sample_weight: Any = None
) -> np.ndarray:
    """How often each class was taken for each other.

    Parameters
    ----------
    y_true, y_pred : array (n,) or (n, k)
        Class labels, or an output for each class.
    classes : int, optional
        How many there are; by default as many as outputs, or up to the largest label.
    sample_weight : array (n,), optional
        What each row counts.

    Returns
    -------
    array (classes, classes), int64, or float64 with weights
        Row: the true class; column: the predicted one.

    Raises
    ------
    TypeError, ValueError
        Where the arrays hold no labels from 0 to below ``classes``.

    Examples
    --------
    >>> confusion_matrix([0, 1, 1], [0, 1, 0])
    array([[1, 0],
           [1, 1]])
    """
    true, guess = _both_labels(y_true, y_pred)
    widths = [np.shape(y)[1] for y in (y_true, y_pred) if np.ndim(y) == 2]
    most = int(max(true.max(), guess.max(), *(w - 1 for w in widths), 0)) + 1
    count = most if classes is None else whole("classes", classes)
    low = int(min(true.min(), guess.min()))
    if low < 0 or most > count:
        wrong = low if low < 0 else most - 1
        raise ValueError(f"labels must be from 0 to {count - 1}, got {wrong}")
    if count > _MOST:
        raise ValueError(f"classes must be at most {_MOST} for a matrix of all pairs, got {count}")
    weights = None if sample_weight is None else _weights(sample_weight, len(true))
    counts = np.bincount(true * count + guess, weights, count * count)
    return counts.reshape(count, count)


def _by_class(
    y_true: Any, y_pred: Any, average: str | None, sample_weight: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each class in sight: hits, times predicted, times true; and what each class counts."""
    if average is not None:
        one_of("average", average, _AVERAGES)
    true, guess = _both_labels(y_true, y_pred)
    weight = _weights(sample_weight, len(true))
    names, place = np.unique(np.concatenate([true, guess]), return_inverse=True)
    if average == "binary":
        if not set(names.tolist()) <= {0, 1}:
            raise ValueError(
                "average='binary' needs labels 0 and 1, got "
                f"{', '.join(map(str, names[:5]))}; choose 'macro', 'micro' or 'weighted'"
            )
        names, place = np.arange(2), names[place]
    true, guess = place[: len(true)], place[len(true) :]
    hits, said, real = (
        np.bincount(where, weights, len(names))
        for where, weights in ((true, weight * (true == guess)), (guess, weight), (true, weight))
    )
    shares = np.ones(len(names)) if average == "macro" else real
    if average == "binary":
        hits, said, real, shares = hits[1:], said[1:], real[1:], np.ones(1)
    if average == "micro":
        hits, said, real, shares = (np.array([a.sum()]) for a in (hits, said, real, real))
    return hits, said, real, shares


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Quotient; 0 where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _averaged(values: np.ndarray, shares: np.ndarray, average: str | None) -> Any:
    """One number for all classes, or for None a number for each."""
    return values if average is None else float(np.average(values, weights=shares))


def precision(
    y_true: Any, y_pred: Any, *, average: str | None = "binary", sample_weight: Any = None
) -> Any:
    """Share of what was called a class that is of that class.

    Parameters
    ----------
    y_true, y_pred : array (n,) or (n, k)
        Class labels, or an output for each class.
    average : {"binary", "macro", "micro", "weighted", None}
        ``binary``, the default: of class 1 where there are only 0 and 1. ``macro``: mean over
        the classes that occur; ``weighted``: the same, a class counting as often as it is
        true; ``micro``: all classes in one count. None: a number for each class that occurs.
    sample_weight : array (n,), optional
        What each row counts.

    Returns
    -------
    float, or array for ``average=None``
        From 0 to 1; 0 for a class that was never called.

    Raises
    ------
    TypeError, ValueError
        Where the arrays hold no labels or do not fit each other or ``average``.

    Examples
    --------
    >>> precision([0, 1, 1, 0], [0, 1, 1, 1])
    0.6666666666666666
    """
    hits, said, _, shares = _by_class(y_true, y_pred, average, sample_weight)
    return _averaged(_ratio(hits, said), shares, average)


def recall(
    y_true: Any, y_pred: Any, *, average: str | None = "binary", sample_weight: Any = None
) -> Any:
    """Share of what is of a class that was called so.

    Parameters
    ----------
    y_true, y_pred, average, sample_weight
        As for `precision`.

    Returns
    -------
    float, or array for ``average=None``
        From 0 to 1; 0 for a class that is never true.

    Raises
    ------
    TypeError, ValueError
        As `precision`.

    Examples
    --------
    >>> recall([0, 1, 1, 1], [0, 1, 0, 0])
    0.3333333333333333
    """
    hits, _, real, shares = _by_class(y_true, y_pred, average, sample_weight)
    return _averaged(_ratio(hits, real), shares, average)


def f1(
    y_true: Any, y_pred: Any, *, average: str | None = "binary", sample_weight: Any = None
) -> Any:
    """Harmonic mean of precision and recall, class by class.

    Parameters
    ----------
    y_true, y_pred, average, sample_weight
        As for `precision`.

    Returns
    -------
    float, or array for ``average=None``
        From 0 to 1; 0 for a class that is neither true nor called.

    Raises
    ------
    TypeError, ValueError
        As `precision`.

    Examples
    --------
    >>> f1([0, 1, 1, 1], [0, 1, 0, 0])
    0.5
    """
    hits, said, real, shares = _by_class(y_true, y_pred, average, sample_weight)
    return _averaged(_ratio(2 * hits, said + real), shares, average)


def auc(y_true: Any, y_score: Any, *, sample_weight: Any = None) -> float:
    """Area under the ROC curve: how often a yes scores above a no, ties counting half.

    Parameters
    ----------
    y_true : array (n,)
        0 and 1, both at least once.
    y_score : array (n,) or (n, 1)
        Larger for a likelier yes: chances, logits, any order.
    sample_weight : array (n,), optional
        What each row counts.

    Returns
    -------
    float
        From 0 to 1; 0.5 by chance.

    Raises
    ------
    TypeError, ValueError
        Where ``y_true`` is not of two kinds, or the arrays do not fit each other.

    Notes
    -----
    Source: Hanley and McNeil (1982), "The meaning and use of the area under a receiver
    operating characteristic (ROC) curve".

    Examples
    --------
    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    true, score = _pair(y_true, y_score, "y_score")
    yes = _yes_or_no(true)
    if score.size != len(score):
        raise ValueError(f"y_score must have shape ({len(score)},), got {score.shape}")
    weight = _weights(sample_weight, len(yes))
    values, place = np.unique(score.reshape(-1), return_inverse=True)
    positive = np.bincount(place, weight * yes, len(values))
    negative = np.bincount(place, weight * ~yes, len(values))
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        raise ValueError("y_true must hold both 0 and 1, with weights above 0")
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs)


def log_loss(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Mean of minus the logarithm of the chance that was given to the truth.

    Nothing is clipped: a truth that was called impossible costs inf.

    Parameters
    ----------
    y_true : array (n,) or (n, classes)
        Class labels, or rows of probabilities.
    y_pred : array (n, classes), (n, 1) or (n,)
        Rows that sum to 1; or chances of yes, where ``y_true`` is 0 and 1.
    sample_weight : array (n,), optional
        What each row counts.

    Returns
    -------
    float
        0 or more.

    Raises
    ------
    TypeError, ValueError
        Where there are no probabilities, or the arrays do not fit each other.

    Notes
    -----
    Source: *Neural Networks from Scratch*, chapters 5 and 16; Nielsen, chapter 3.

    Examples
    --------
    >>> round(log_loss([0, 1], [[0.9, 0.1], [0.2, 0.8]]), 4)
    0.1643
    """
    true, guess = _pair(y_true, y_pred)
    if guess.size == len(guess):
        yes = _yes_or_no(true).reshape(-1, 1)
        chance = guess.reshape(-1, 1).astype(np.float64)
        target, chances = np.hstack([~yes, yes]), np.hstack([1 - chance, chance])
    elif true.size == len(true):
        labels, guess = _scores(y_true, y_pred)
        target, chances = np.eye(guess.shape[1])[labels], guess.astype(np.float64)
    else:
        target, chances = _same(y_true, y_pred)
    for argument, rows in (("y_true", target), ("y_pred", chances)):
        sums = rows.sum(axis=1)
        if rows.min() < 0 or rows.max() > 1 or (np.abs(sums - 1) > 1e-3).any():
            row = int(np.argmax(np.abs(sums - 1) + (rows < 0).any(axis=1)))
            raise ValueError(
                f"{argument} must hold probabilities that sum to 1 in each row, "
                f"got {rows[row][:5]} in row {row}"
            )
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(target > 0, chances, 1))
    return _mean(-(target * logs).sum(axis=1), sample_weight)


# -- numbers ------------------------------------------------------------------------


def mae(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Mean absolute error, over rows and outputs.

    Parameters
    ----------
    y_true, y_pred : array (n,) or (n, k)
        Of the same shape; (n,) and (n, 1) are the same.
    sample_weight : array (n,), optional
        What each row counts.

    Returns
    -------
    float
        0 or more.

    Raises
    ------
    TypeError, ValueError
        Where the arrays do not fit each other.

    Examples
    --------
    >>> mae([1.0, 2.0], [1.5, 2.0])
    0.25
    """
    true, guess = _same(y_true, y_pred)
    return _mean(np.abs(true - guess).mean(axis=1), sample_weight)


def mse(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Mean squared error, over rows and outputs.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As for `mae`.

    Returns
    -------
    float
        0 or more.

    Raises
    ------
    TypeError, ValueError
        As `mae`.

    Examples
    --------
    >>> mse([1.0, 2.0], [1.5, 2.0])
    0.125
    """
    true, guess = _same(y_true, y_pred)
    return _mean(((true - guess) ** 2).mean(axis=1), sample_weight)


def rmse(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Root of the mean squared error over rows and outputs.

    With several outputs it is one root, as in Keras; scikit-learn takes a root for each output
    and then the mean.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As for `mae`.

    Returns
    -------
    float
        0 or more.

    Raises
    ------
    TypeError, ValueError
        As `mae`.

    Examples
    --------
    >>> rmse([1.0, 2.0], [1.5, 1.5])
    0.5
    """
    return float(np.sqrt(mse(y_true, y_pred, sample_weight=sample_weight)))


def r2(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Share of the targets' variance that is explained; the mean over the outputs.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As for `mae`; two rows at least.

    Returns
    -------
    float
        1 where all is right, 0 where the mean would do as well, negative below. For a target
        that never changes: 1 where it is met exactly, 0 elsewhere, as in scikit-learn.

    Raises
    ------
    TypeError, ValueError
        As `mae`.

    Examples
    --------
    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0])
    0.5
    """
    true, guess = _same(y_true, y_pred)
    if len(true) < 2:
        raise ValueError("r2 needs at least 2 rows, got 1")
    weight = _weights(sample_weight, len(true))[:, None]
    left = (weight * (true - guess) ** 2).sum(axis=0)
    all_of_it = (weight * (true - np.average(true, 0, weight[:, 0])) ** 2).sum(axis=0)
    constant = np.where(left == 0, 1.0, 0.0)
    explained = 1 - _ratio(left, all_of_it)
    return float(np.where(all_of_it > 0, explained, constant).mean())


def regression_accuracy(y_true: Any, y_pred: Any, *, tolerance: float | None = None) -> float:
    """Share of the outputs within ``tolerance`` of the target: the book's, see Notes.

    Parameters
    ----------
    y_true, y_pred : array (n,) or (n, k)
        Of the same shape.
    tolerance : float, optional
        Errors below it count as right; by default the standard deviation of all targets,
        divided by 250.

    Returns
    -------
    float
        From 0 to 1: several outputs are averaged.

    Raises
    ------
    TypeError, ValueError
        Where the arrays do not fit each other.

    Notes
    -----
    Source: *Neural Networks from Scratch*, chapter 17. Known there alone: to compare with
    others use `r2` or `rmse`. The book's class divides the hits in all outputs by the rows
    and can show an accuracy of 3 for three outputs.

    Examples
    --------
    >>> regression_accuracy([0.0, 1.0, 2.0], [0.0, 1.001, 2.5])
    0.6666666666666666
    """
    true, guess = _same(y_true, y_pred)
    most = true.std() / 250 if tolerance is None else number("tolerance", tolerance, above=0)
    return float((np.abs(true - guess) < most).mean())
