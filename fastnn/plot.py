"""Pictures of what a network has learnt; needs matplotlib, the extra ``plot``."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.inside import Inspect
from fastnn.network import Network

__all__ = ["decision_boundary", "inspection"]

# M. Okabe and K. Ito's colours, which every kind of colour vision tells apart; the markers
# differ as well, for print in grey.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GRID = 400  # points along each side where the network is asked
_MARGIN = 0.06  # of the picture around the data


def decision_boundary(net: Network, x: Any, y: Any, path: str | os.PathLike[str]) -> None:
    """Draw which class a network sees at every point of the plane, and the data upon it.

    The stronger the colour, the surer the network. Misclassified points are ringed;
    the title says how many are not.

    Parameters
    ----------
    net : Network
        Takes two values; gives a probability for each class, or a single one for class 1.
    x : array (n, 2)
        Points.
    y : array (n,)
        Their classes, from 0.
    path : str or path-like
        Where the PNG goes. It is written beside its place and then renamed, so that no
        half of a picture is ever there.

    Raises
    ------
    ImportError
        Without matplotlib: ``pip install 'fastnn-numba[plot]'``.
    ValueError
        Where ``x`` or ``y`` has another shape.
    OSError
        Where the file cannot be written.

    Notes
    -----
    Colours: M. Okabe and K. Ito (2008), "Color Universal Design".

    Examples
    --------
    >>> import fastnn as fnn
    >>> from fastnn.plot import decision_boundary
    >>> x, y = fnn.datasets.spiral()
    >>> net = fnn.Network(
    ...     [fnn.Dense(64, "relu"), fnn.Dense(3, "softmax")],
    ...     loss="cross_entropy", optimizer=fnn.Adam(0.05), seed=0,
    ... )
    >>> history = net.fit(x, y, epochs=500, batch_size=300, verbose=0)
    >>> decision_boundary(net, x, y, "spiral.png")  # doctest: +SKIP
    """
    figure = _figure(6.4, 6.4)
    from matplotlib.colors import to_rgb

    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"x must have shape (n, 2), got {x.shape}")
    if y.shape != (len(x),):
        raise ValueError(f"y must have shape ({len(x)},), got {y.shape}")
    margin = _MARGIN * (np.ptp(x, axis=0).max() or 1.0)
    low, high = x.min(axis=0) - margin, x.max(axis=0) + margin
    sides = [np.linspace(low[i], high[i], _GRID) for i in range(2)]
    grid = np.stack(np.meshgrid(*sides), axis=-1)
    chances = _chances(net, grid.reshape(-1, 2)).reshape(_GRID, _GRID, -1)
    classes = chances.shape[-1]
    guess = _chances(net, x).argmax(axis=1)
    accuracy = (guess == y).mean()
    colours = [_COLOURS[k % len(_COLOURS)] for k in range(classes)]

    axes = figure.add_subplot()
    mixed = chances @ np.array([to_rgb(colour) for colour in colours])
    extent = (low[0], high[0], low[1], high[1])
    axes.imshow(1 - 0.5 * (1 - mixed), origin="lower", extent=extent, aspect="auto")
    for k in range(classes):
        lead = chances[..., k] - np.delete(chances, k, axis=-1).max(axis=-1)
        if lead.min() < 0 < lead.max():
            axes.contour(*sides, lead, levels=[0], colors="0.2", linewidths=0.9)
    for k in range(classes):
        axes.scatter(
            x[y == k, 0],
            x[y == k, 1],
            s=26,
            c=colours[k],
            marker=_MARKERS[k % len(_MARKERS)],
            edgecolors="white",
            linewidths=0.7,
            label=f"class {k}",
        )
    wrong = x[guess != y]
    if len(wrong):
        axes.scatter(
            wrong[:, 0],
            wrong[:, 1],
            s=90,
            facecolors="none",
            edgecolors="black",
            linewidths=1.1,
            label="misclassified",
        )
    axes.set(
        xlabel="$x_0$",
        ylabel="$x_1$",
        xlim=extent[:2],
        ylim=extent[2:],
        title=f"Decision boundary: {accuracy:.1%} of {len(x):,} points classified correctly",
    )
    figure.legend(loc="outside lower center", ncols=classes + 1, frameon=False)
    _save(figure, path)


def inspection(watch: Inspect, path: str | os.PathLike[str]) -> None:
    """Draw what `fastnn.callbacks.Inspect` has found: a line for each layer, epoch by epoch.

    Parameters
    ----------
    watch : Inspect
        After a training.
    path : str or path-like
        Where the PNG goes, as in `decision_boundary`.

    Raises
    ------
    ImportError
        Without matplotlib: ``pip install 'fastnn-numba[plot]'``.
    ValueError
        Where nothing is recorded yet.
    OSError
        Where the file cannot be written.

    Examples
    --------
    >>> import fastnn as fnn
    >>> from fastnn.plot import inspection
    >>> x, y = fnn.datasets.spiral()
    >>> watch = fnn.callbacks.Inspect(x, y)
    >>> net = fnn.Network([fnn.Dense(8, "relu"), fnn.Dense(3, "softmax")], loss="cross_entropy")
    >>> history = net.fit(x, y, epochs=20, callbacks=watch, verbose=0)
    >>> inspection(watch, "layers.png")  # doctest: +SKIP
    """
    titles = {
        "gradient": "Length of the gradient",
        "size": "Size of the outputs",
        "dead": "Share of dead units",
        "saturated": "Share of saturated outputs",
    }
    if not watch.history:
        raise ValueError("watch must have recorded something: give it to fit as a callback")
    kinds = [kind for kind in titles if any(n.endswith(f".{kind}") for n in watch.history)]
    figure = _figure(3.6 * len(kinds), 3.6)
    lines: dict[str, Any] = {}  # of the legend, by layer
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for number, layer in enumerate(watch.network.layers):
            values = watch.history.get(f"{number}.{kind}")
            if values is not None:
                (lines[f"{number} {layer!r}"],) = axes.plot(
                    watch.history["epoch"],
                    values,
                    color=_COLOURS[number % len(_COLOURS)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    markevery=max(1, len(values) // 8),
                )
        if kind == "gradient":
            axes.set_yscale("log")
        elif kind == "size":
            axes.set_ylim(bottom=0)
        else:
            axes.set_ylim(-0.05, 1.05)
        axes.set(title=titles[kind], xlabel="epoch")
        axes.grid(color="0.9")
    named = dict(sorted(lines.items(), key=lambda line: int(line[0].split()[0])))
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    """An empty picture of so many inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: install 'fastnn-numba[plot]'") from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    _write(Path(path), picture.getvalue())


def _chances(net: Network, x: np.ndarray) -> np.ndarray:
    """Probability of each class, also where the network gives that of class 1 alone."""
    out = net.predict(x).astype(np.float64)
    return out if out.shape[1] > 1 else np.hstack([1 - out, out])


def _write(path: Path, data: bytes) -> None:
    """Write a file beside its place, then rename it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
