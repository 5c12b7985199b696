"""`check`: compiled against numpy against finite differences, on the user's network and data."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastnn._check import whole
from fastnn.kernels._op import op_of
from fastnn.layers import Layer
from fastnn.network import Network

__all__ = ["Line", "Report", "check"]

EPS = 1e-5  # of the central differences: the best for float64 by measurement
KINK = 1e-4  # slopes to either side that differ by more, where a smooth loss's differ by about EPS
CLOSER = 0.01  # share of EPS that is tried where they do
# Largest allowed difference, relative to the largest value of an array: between two orders of
# summation in the network's dtype, and between a gradient and a central difference.
PATHS = {"float32": 1e-4, "float64": 1e-9}
DIFFERENCES = {"float32": 1e-3, "float64": 1e-6}


class Line(NamedTuple):
    """One array or number of the report; differences are relative to its largest value."""

    name: str
    shape: tuple[int, ...]
    largest: float
    numpy: float  # compiled against numpy
    differences: float | None  # compiled against central differences, of gradients only
    ok: bool


@dataclass(frozen=True)
class Report:
    """What `check` found; prints as a table.

    Attributes
    ----------
    lines : list of Line
        Loss, output, and every gradient.
    dtype : str
        Of the network.
    probed : int
        Central differences that were taken.
    kinks : int
        How many of them were left out because the loss has no slope there.
    """

    lines: list[Line]
    dtype: str
    probed: int
    kinks: int

    @property
    def ok(self) -> bool:
        """Whether every line is within its bound."""
        return all(line.ok for line in self.lines)

    def __str__(self) -> str:
        table = [("", "shape", "largest", "numpy", "differences", "")]
        for line in self.lines:
            slopes = "" if line.differences is None else f"{line.differences:.1e}"
            verdict = "ok" if line.ok else "WRONG"
            figures = (f"{line.largest:.3g}", f"{line.numpy:.1e}", slopes, verdict)
            table.append((line.name, "x".join(map(str, line.shape)) or "1", *figures))
        widths = [max(len(row[c]) for row in table) for c in range(6)]
        text = [
            "  ".join(
                cell.ljust(w) if c in (0, 5) else cell.rjust(w)
                for c, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        text.append(
            f"{self.dtype}, relative differences; numpy <= {PATHS[self.dtype]:g}, "
            f"{self.probed} central differences"
            f"{f' ({self.kinks} at kinks left out)' if self.kinks else ''} "
            f"<= {DIFFERENCES[self.dtype]:g}: {'all ok' if self.ok else 'NOT ok'}"
        )
        return "\n".join(text)

    def __repr__(self) -> str:
        return str(self)


def check(net: Network, x: Any, y: Any, *, probes: int = 50) -> Report:
    """Compare a network's compiled path, its numpy path and finite differences.

    The loss is that of training: what is random has the same values everywhere, batches are
    normalized by themselves, penalties count.

    Parameters
    ----------
    net : Network
        Left as it is; copies do the work.
    x, y : array
        Some rows of data, as for `Network.fit`. A few dozen are enough: the numpy path and
        the differences are slow.
    probes : int, default 50
        Entries of each array, picked at random but always the same ones, whose derivative
        is taken by central differences in float64. Where the slopes to either side disagree,
        as those of relu do at 0, there is nothing to compare with and the entry is left out.

    Returns
    -------
    Report
        ``print`` it; ``report.ok`` says whether everything agrees.

    Raises
    ------
    TypeError, ValueError
        Where the data do not fit.

    Examples
    --------
    >>> import fastnn as fnn
    >>> x, y = fnn.datasets.digits()
    >>> net = fnn.Network(
    ...     [fnn.Input((64,), scale=1 / 16), fnn.Dense(20, "tanh"), fnn.Dense(10, "softmax")],
    ...     loss="cross_entropy", dtype="float64", seed=0,
    ... )
    >>> check(net, x[:20], y[:20]).ok
    True
    """
    probes = whole("probes", probes)
    fast, slow = _twin(net, x, str(net.dtype), "compiled"), _twin(net, x, str(net.dtype), "numpy")
    exact = _twin(net, x, "float64", "numpy")
    rng = np.random.default_rng(0)
    lines, probed, kinks = [], 0, 0

    def line(name: str, got: Any, want: Any, slopes: Any = None, at: Any = None) -> None:
        got, want = np.asarray(got), np.asarray(want)
        largest = float(np.abs(want).max())
        apart = _apart(got, want, largest)
        ok = apart <= PATHS[str(net.dtype)]
        difference = None
        if slopes is not None:
            nonlocal probed, kinks
            smooth = ~np.isnan(slopes)
            probed, kinks = probed + len(at), kinks + int((~smooth).sum())
            difference = _apart(got.ravel()[at][smooth], slopes[smooth], max(largest, 1e-6))
            ok = ok and difference <= DIFFERENCES[str(net.dtype)]
        lines.append(Line(name, got.shape, largest, apart, difference, ok))

    (loss, got), (slow_loss, want) = fast._differentiate(x, y), slow._differentiate(x, y)
    line("loss", loss, slow_loss)
    line("output", fast.predict(x), slow.predict(x))
    for parameter in net.plan.parameters:
        if not parameter.trainable:
            continue
        at = np.sort(rng.permutation(parameter.size)[:probes])
        values = parameter.of(exact.params).reshape(-1)
        slopes = _slopes(values, at, lambda: exact._differentiate(x, y)[0])
        line(parameter.title, got[parameter.title], want[parameter.title], slopes, at)
    if op_of(net.plan.rows[0]).backward is None:  # whole numbers go in, which have no slope
        return Report(lines, str(net.dtype), probed, kinks)
    seen = _seen(net, x)
    plain = _twin(net, x, "float64", "numpy", scaled=False)
    at = np.sort(rng.permutation(seen.size)[:probes])
    samples = seen.reshape(-1, *plain.plan.in_shape)  # a view: what changes in seen changes here
    slopes = _slopes(seen.reshape(-1), at, lambda: plain._differentiate(samples, y)[0])
    line("x", got["x"], want["x"], slopes, at)
    return Report(lines, str(net.dtype), probed, kinks)


def _apart(got: np.ndarray, want: np.ndarray, largest: float) -> float:
    """Largest difference, relative; NaN, which is within no bound, where one is not finite."""
    return float(np.abs(got - want).max(initial=0) / (largest or 1.0))


def _slopes(values: np.ndarray, at: np.ndarray, loss: Callable[[], float]) -> np.ndarray:
    """Central differences of the loss in some of the values, which are put back; NaN at kinks."""
    slopes = np.empty(len(at))
    here = loss()

    def both_sides(i: int, step: float) -> tuple[float, float]:
        kept = values[i]
        values[i] = kept + step
        above = (loss() - here) / step
        values[i] = kept - step
        below = (here - loss()) / step
        values[i] = kept
        return above, below

    for n, i in enumerate(at):
        for step in (EPS, CLOSER * EPS):  # closer, where something bends within the first
            above, below = both_sides(i, step)
            kink = abs(above - below) > KINK * max(abs(above), abs(below), 1e-6)
            slopes[n] = np.nan if kink else (above + below) / 2
            if not kink:
                break
    return slopes


def _seen(net: Network, x: Any) -> np.ndarray:
    """The input as the network sees it, in float64."""
    source = net._inputs(x)
    return np.ascontiguousarray(source.array.astype(np.float64) * source.scale + source.offset)


def _twin(net: Network, x: Any, dtype: str, backend: str, scaled: bool = True) -> Network:
    """Copy of a network for another path, with the same parameters."""
    layers: list[Layer] = []
    if scaled and net._input is not None:
        layers.append(copy.copy(net._input))
    layers += [copy.copy(layer) for layer in net.layers]
    shape = np.shape(x)[1:] if net._plan is None else net.plan.in_shape
    twin = Network(layers, loss=net._loss, input_shape=shape, seed=0, dtype=dtype, backend=backend)
    twin.params = net.params
    return twin
