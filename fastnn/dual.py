"""Dual numbers: arrays that carry their derivative in one direction through every formula.

A dual number is a value and a *tangent*, how fast the value changes along a direction. Arithmetic
follows the rules of calculus, ``(a + a' e)(b + b' e) = ab + (a' b + a b') e`` with ``e * e = 0``,
so that a formula in numpy gives its exact derivative along with its result: no differences, no
rounding beyond that of the formula. Fed to the formulas of a forward pass they give a
Jacobian-vector product, to those of a backward pass a Hessian-vector product.

Source: Wengert (1964), "A simple automatic derivative evaluation program", CACM 7; Pearlmutter
(1994), "Fast exact multiplication by the Hessian", Neural Computation 6.

>>> import numpy as np
>>> from fastnn.dual import Dual
>>> x = Dual(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
>>> (x * x).sum()
Dual(5.0, 2.0)
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.kernels.elementary import normal_cdf

__all__ = ["Dual"]

# Slopes of functions of one number, from what goes in and what comes out.
SLOPES: dict[Any, Callable[[Any, Any], Any]] = {
    np.negative: lambda x, out: -1.0,
    np.square: lambda x, out: 2 * x,
    np.sqrt: lambda x, out: 0.5 / out,
    np.exp: lambda x, out: out,
    np.expm1: lambda x, out: out + 1,
    np.log: lambda x, out: 1 / x,
    np.log1p: lambda x, out: 1 / (1 + x),
    np.tanh: lambda x, out: 1 - out**2,
    np.cos: lambda x, out: -np.sin(x),
    np.absolute: lambda x, out: np.sign(x),
    np.sign: lambda x, out: 0.0,
    normal_cdf: lambda x, out: np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
}
# Slopes of functions of two numbers, for each of them; matmul has its own rule.
PAIRS: dict[Any, Callable[[Any, Any, Any], tuple[Any, Any]]] = {
    np.add: lambda a, b, out: (1.0, 1.0),
    np.subtract: lambda a, b, out: (1.0, -1.0),
    np.multiply: lambda a, b, out: (b, a),
    np.divide: lambda a, b, out: (1 / b, -out / b),
    np.power: lambda a, b, out: (b * a ** (b - 1), 0.0),  # of exponents that are no variables
    np.maximum: lambda a, b, out: (a > b, a <= b),
    np.minimum: lambda a, b, out: (a < b, a >= b),
    np.logaddexp: lambda a, b, out: (np.exp(a - out), np.exp(b - out)),
}
LOOKS = {getattr(np, name) for name in "equal not_equal less less_equal greater greater_equal "
         "isfinite floor".split()}  # fmt: skip


class Dual(np.lib.mixins.NDArrayOperatorsMixin):
    """An array and its tangent; views of it are views of both.

    Parameters
    ----------
    value, tangent : array
        Of one shape.
    """

    def __init__(self, value: Any, tangent: Any) -> None:
        self.value = np.asarray(value)
        self.tangent = np.broadcast_to(tangent, self.value.shape)
        if self.tangent.shape == np.shape(tangent):
            self.tangent = np.asarray(tangent)  # which may be written

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "at":  # add.at(target, places, what)
            target, places, what = inputs
            for put, more in zip(_parts(target), _parts(what), strict=True):
                ufunc.at(put, places, more)
            return None
        if method != "__call__" or options:
            return NotImplemented
        values, tangents = zip(*map(_parts, inputs), strict=True)
        out = ufunc(*values)
        if ufunc in LOOKS:
            return out
        if ufunc is np.matmul:
            a, b = (np.broadcast_to(t, v.shape) for t, v in zip(tangents, values, strict=True))
            return Dual(out, a @ values[1] + values[0] @ b)
        if ufunc in SLOPES:
            out = np.asarray(out, float)
            return Dual(out, SLOPES[ufunc](values[0], out) * tangents[0])
        if ufunc not in PAIRS:
            return NotImplemented
        slopes = PAIRS[ufunc](values[0], values[1], out)
        return Dual(out, sum(s * t for s, t in zip(slopes, tangents, strict=True)))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function is np.where:
            test, *both = args
            (a, da), (b, db) = map(_parts, both)
            return Dual(np.where(test, a, b), np.where(test, da, db))
        if function is np.stack:
            pairs = zip(*map(_parts, args[0]), strict=True)
            return Dual(*(np.stack(part, **options) for part in pairs))
        if function is np.clip:
            return np.minimum(np.maximum(args[0], args[1]), args[2])
        if function is np.zeros_like:
            return Dual(np.zeros(self.shape), np.zeros(self.shape))
        return NotImplemented

    def __getitem__(self, place: Any) -> Dual:
        return Dual(self.value[place], self.tangent[place])

    def __setitem__(self, place: Any, new: Any) -> None:
        self.value[place], self.tangent[place] = _parts(new)

    def reshape(self, *shape: Any) -> Dual:
        """Both in another shape."""
        return Dual(self.value.reshape(*shape), self.tangent.reshape(*shape))

    def sum(self, **options: Any) -> Dual:
        """Sums of both."""
        return Dual(self.value.sum(**options), self.tangent.sum(**options))

    def mean(self, **options: Any) -> Dual:
        """Means of both."""
        return Dual(self.value.mean(**options), self.tangent.mean(**options))

    def var(self, axis: int, keepdims: bool = False) -> Dual:
        """Mean of the squared distances from the mean."""
        apart = self - self.mean(axis=axis, keepdims=True)
        return (apart * apart).mean(axis=axis, keepdims=keepdims)

    def max(self, axis: int, keepdims: bool = False) -> Dual:
        """The largest, and how fast it changes."""
        assert keepdims
        place = np.expand_dims(self.value.argmax(axis=axis), axis)
        return Dual(*(np.take_along_axis(part, place, axis) for part in _parts(self)))

    def astype(self, dtype: Any) -> Any:
        """Whole numbers have no tangent; of floats nothing is rounded."""
        return self.value.astype(dtype) if np.dtype(dtype).kind != "f" else self

    def swapaxes(self, first: int, second: int) -> Dual:
        """Both with two axes that have changed places."""
        return Dual(*(part.swapaxes(first, second) for part in (self.value, self.tangent)))

    @property
    def T(self) -> Dual:
        """Both transposed."""
        return Dual(self.value.T, self.tangent.T)

    shape = property(operator.attrgetter("value.shape"))
    ndim = property(operator.attrgetter("value.ndim"))
    size = property(operator.attrgetter("value.size"))
    dtype = property(operator.attrgetter("value.dtype"))

    def __len__(self) -> int:
        return len(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        return f"Dual({self.value}, {self.tangent})"


def _parts(x: Any) -> tuple[Any, Any]:
    """Value and tangent; what is no dual number does not change."""
    return (x.value, x.tangent) if isinstance(x, Dual) else (x, 0.0)
