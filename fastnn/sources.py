"""The user's arrays: checked, described, and never copied whole.

A `Source` is one array as the gathering kernels see it: where it lies, its
dtype and strides, and how a value becomes the network's. Arrays that no
kernel reads (another byte order, float16, long double, not aligned) are
converted a slice of training at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnn._check import number, numbers, shown
from fastnn.kernels._kernel import JIT
from fastnn.kernels.optimizers import all_finite
from fastnn.losses import Loss

__all__ = ["Source", "inputs", "targets", "weights"]

# bool is read as the byte that it is.
_READABLE = set(
    map(np.dtype, "float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64".split())
)
_CLASSES = ("classes", "chances", "signs")  # domains whose targets may be given as class labels
_PIECE = 1 << 20  # values that are looked at at once, so that no check doubles the memory


class Source(NamedTuple):
    """An array (n, columns) and where its gathered rows go."""

    array: np.ndarray
    kernel: str  # gather_rows or gather_labels
    out: int  # offset in work
    width: int  # values per batch row there
    scale: float = 1.0
    offset: float = 0.0

    @property
    def readable(self) -> bool:
        """Whether compiled code reads the array as it is."""
        return self.array.dtype in _READABLE and self.array.flags.aligned

    def arrays(self, order: np.ndarray) -> dict[str, Any]:
        """Arguments of the gathering kernel, but for its output."""
        name = "labels" if self.kernel == "gather_labels" else "source"
        return {name: self.array, "order": order, "scale": self.scale, "offset": self.offset}

    def taken(self, order: np.ndarray, dtype: np.dtype) -> Source:
        """These rows alone, copied into a dtype that compiled code reads."""
        kind = np.dtype(np.int64) if self.kernel == "gather_labels" else dtype
        return self._replace(array=np.ascontiguousarray(self.array[order], kind))


def rows_of(argument: str, value: Any) -> np.ndarray:
    """As `numbers`, of one row at the least."""
    array = numbers(argument, value)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{argument} must not be empty, got an array of shape {array.shape}")
    return array


def check_finite(argument: str, array: np.ndarray, dtype: np.dtype) -> None:
    """Every value is a number, also once it is rounded to the network's dtype."""
    if array.dtype.kind != "f":
        return
    if JIT and array.dtype == dtype and array.flags.carray and all_finite(array.reshape(-1)):
        return
    step = max(1, _PIECE // array.shape[1])
    for start in range(0, len(array), step):
        with np.errstate(over="ignore"):
            piece = array[start : start + step].astype(dtype, copy=False)
        if not np.isfinite(piece).all():
            row, column = np.argwhere(~np.isfinite(piece))[0]
            raise ValueError(
                f"{argument} must hold finite numbers of {dtype}, "
                f"got {array[start + row, column]} in row {start + row}, column {column}"
            )


def inputs(
    value: Any,
    dtype: np.dtype,
    shape: tuple[int, ...] | None,
    scale: float = 1.0,
    offset: float = 0.0,
    *,
    checked: bool = True,
) -> Source:
    """Check ``x`` and describe it as the source of the first region of ``work``.

    Parameters
    ----------
    value : array-like (n, fan_in)
        Real numbers; (n, *shape) where samples have another shape.
    dtype : numpy.dtype
        Of the network.
    shape : tuple of int or None
        Of a sample, if it is known.
    scale, offset : float
        ``x * scale + offset`` is what the network sees.
    checked : bool
        Whether to look here for values that are not finite.

    Raises
    ------
    TypeError, ValueError
        If it is no dense, finite, real array of that shape.
    """
    array = rows_of("x", value)
    wanted = ", ".join(map(str, shape or ("fan_in",)))
    if array.ndim == 1 or (shape is not None and array.ndim != 1 + len(shape)):
        rest = "-1" if shape is None or len(shape) == 1 else wanted
        hint = f".reshape(-1, {wanted})" if array.ndim == 1 else f".reshape({len(array)}, {rest})"
        if array.ndim > 1 and array.shape == shape:
            hint = "[None]"
        raise ValueError(
            f"x must have shape (n, {wanted}), got {array.shape}; one row per sample: x{hint}"
        )
    if shape is not None and array.shape[1:] != shape:
        raise ValueError(f"x must have shape (n, {wanted}), got {array.shape}")
    array = array if array.ndim == 2 else array.reshape(len(array), -1)
    if checked:
        check_finite("x", array, dtype)
    return Source(array, "gather_rows", 0, array.shape[1], scale, offset)


def targets(
    value: Any, dtype: np.dtype, samples: int, fan_out: int, out: int, loss: Loss
) -> Source:
    """Check ``y`` and describe it as the source of the target region of ``work``.

    Parameters
    ----------
    value : array-like
        Class labels (n,), or numbers (n, targets); (n,) too where there is one target. There
        are as many targets as outputs, but for losses that take several outputs for each.
    dtype : numpy.dtype
        Of the network.
    samples, fan_out : int
        Rows of ``x``, and width of the output.
    out : int
        Offset of the target in ``work``.
    loss : Loss
        What it takes as targets, and how they are smoothed.

    Raises
    ------
    TypeError, ValueError
        If it does not fit the input, the output or the loss.
    """
    array, domain = rows_of("y", value), loss.op.targets
    if len(array) != samples:
        raise ValueError(f"x and y must have as many rows, got {samples} and {len(array)}")
    width = fan_out // loss.op.per_target
    column = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
    classes = domain in _CLASSES or (domain == "numbers" and array.dtype.kind in "iu")
    labels = column and width > 1 and classes and width == fan_out
    if not (labels or array.shape == (samples, width) or (column and width == 1)):
        other = "labels (n,)" if width == fan_out > 1 and domain != "counts" else "(n,)"
        shapes = f"(n, {width}) or {other}" if width == 1 or other != "(n,)" else f"(n, {width})"
        each = "" if width == fan_out else f" for the {fan_out} outputs of {loss.name}"
        raise ValueError(f"y must have shape {shapes}{each}, got {array.dtype} {array.shape}")
    array = array.reshape(-1, 1) if array.ndim == 1 else array
    check_finite("y", array, dtype)
    smoothing = loss.label_smoothing
    scale, offset = 1 - smoothing, smoothing / (width if domain == "classes" else 2)
    if labels:
        _check_labels(array, fan_out)
        scale, offset = (2, -1) if domain == "signs" else (scale, offset)
        return Source(array, "gather_labels", out, width, scale, offset)
    if domain == "classes" and width == 1:
        raise ValueError(
            f"{loss.name} needs an output for each class, got 1 output; "
            "for yes or no, use a sigmoid output with binary_cross_entropy"
        )
    if domain == "signs":
        scale, offset = _signs(array)
    elif domain == "counts":
        _check_counts(array)
    elif domain != "numbers":
        _check_domain(array, domain)
    return Source(array, "gather_rows", out, width, scale, offset)


def weights(
    sample_weight: Any, class_weight: Any, target: Source, dtype: np.dtype, out: int
) -> Source | None:
    """Check what each row counts and describe it as a source; None where all count 1.

    Parameters
    ----------
    sample_weight : array-like (n,) or None
        At least 0.
    class_weight : dict of int to float, "balanced" or None
        For each label; "balanced" is rows / (classes * rows of the class).
    target : Source
        Of ``y``.
    dtype : numpy.dtype
        Of the network.
    out : int
        Offset in ``work``.

    Raises
    ------
    TypeError, ValueError
        If they do not fit the rows or the classes.
    """
    rows = len(target.array)
    result = None
    if sample_weight is not None:
        result = row_weights(sample_weight, rows, dtype)
    if class_weight is not None:
        by_class = _class_weights(class_weight, target)[target.array[:, 0].astype(np.int64)]
        result = by_class if result is None else result * by_class
        with np.errstate(over="ignore"):
            if not np.isfinite(result.astype(dtype)).all():
                raise ValueError(f"class_weight must give weights that {dtype} can hold")
    if result is None:
        return None
    return Source(result.reshape(-1, 1), "gather_rows", out, 1)


def row_weights(sample_weight: Any, rows: int, dtype: np.dtype) -> np.ndarray:
    """Check what each of so many rows counts, (rows,)."""
    result = rows_of("sample_weight", sample_weight)
    if result.shape != (rows,):
        raise ValueError(f"sample_weight must have shape ({rows},), got {result.shape}")
    check_finite("sample_weight", result.reshape(-1, 1), dtype)
    if result.min() < 0:
        raise ValueError(f"sample_weight must be at least 0, got {result.min()}")
    return result


def _class_weights(class_weight: Any, target: Source) -> np.ndarray:
    """A weight for each class, float64."""
    if target.kernel != "gather_labels" and not (
        target.width == 1 and np.isin(np.unique(target.array), (0, 1)).all()
    ):
        raise ValueError("class_weight needs class labels as y, got other targets")
    classes = max(2, target.width)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight must be 'balanced' or a dict of label: weight, "
                f"got {shown(class_weight)}"
            )
        counts = np.bincount(target.array[:, 0].astype(np.int64), minlength=classes)
        present = np.count_nonzero(counts)
        return counts.sum() / (present * np.maximum(counts, 1))
    if not isinstance(class_weight, dict):
        raise TypeError(
            "class_weight must be 'balanced' or a dict of label: weight, "
            f"got {type(class_weight).__name__}"
        )
    result = np.ones(classes)
    for label, weight in class_weight.items():
        if isinstance(label, bool) or label not in range(classes):
            raise ValueError(f"class_weight: labels go from 0 to {classes - 1}, got {shown(label)}")
        result[int(label)] = number(f"class_weight[{label}]", weight, least=0)
    return result


def _check_labels(array: np.ndarray, classes: int) -> None:
    low, high = array.min(), array.max()
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"y must hold class labels from 0 to {classes - 1}, as many as outputs, got {wrong}"
        )
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        wrong = array[array != np.floor(array)][0]
        raise ValueError(f"y must hold class labels, whole numbers from 0, got {wrong}")


def _check_domain(array: np.ndarray, domain: str) -> None:
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        wrong = low if low < 0 else high
        raise ValueError(f"y must hold probabilities from 0 to 1 for this loss, got {wrong}")
    if domain == "classes":
        sums = array.sum(axis=1, dtype=np.float64)
        if (np.abs(sums - 1) > 1e-3).any():
            row = int(np.argmax(np.abs(sums - 1)))
            raise ValueError(
                f"y must be one-hot or probabilities that sum to 1 in each row, "
                f"got a sum of {sums[row]:g} in row {row}"
            )


def _check_counts(array: np.ndarray) -> None:
    if array.min() < 0:
        raise ValueError(f"y must hold counts or rates from 0 for this loss, got {array.min()}")


def _signs(array: np.ndarray) -> tuple[float, float]:
    """Scale and offset that turn targets of two values into -1 and 1."""
    below = array == -1
    wrong = ~(below | (array == 0) | (array == 1))
    if wrong.any():
        raise ValueError(f"y must hold 0 and 1, or -1 and 1, for this loss, got {array[wrong][0]}")
    if below.any():
        if (array == 0).any():
            raise ValueError("y must hold 0 and 1, or -1 and 1, for this loss, got -1, 0 and 1")
        return 1, 0
    return (2, -1) if (array == 0).any() else (1, 0)
