"""What ``fastnn demo`` shows: three small trainings, each beside something to compare it with.

Every demo prints through a `Writer` and returns its figures.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastnn import datasets
from fastnn.initializers import normal
from fastnn.kernels import _cache
from fastnn.layers import Dense, Input
from fastnn.network import Network
from fastnn.optimizers import SGD, Adam
from fastnn.plan import Plan
from fastnn.plot import decision_boundary

__all__ = ["DEMOS", "DemoError", "Writer", "digits", "draw", "mnist", "spiral"]

WIDTH = 80
SHADES = " ░▒▓█"
ASCII = str.maketrans(SHADES + "─", " .+#@-")

HELD_OUT = 360  # of the 1,797 digits
COMPARED = 20  # epochs at most that the numpy reference trains
RUNS = 3  # of which the fastest counts


class DemoError(Exception):
    """A demo cannot go on.

    Parameters
    ----------
    reason : str or Exception
        One line.
    code : int
        Exit code of the command.
    """

    def __init__(self, reason: object, code: int) -> None:
        super().__init__(str(reason))
        self.code = code


class Writer:
    """Prints for people; nothing where a program reads.

    Parameters
    ----------
    quiet : bool, default False
        Print nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.verbose: int | str = 0 if quiet else "auto"  # of fit: a bar in a terminal
        self.begun = False  # whether the last line is still to be ended

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if self.begun:
            self.line()

    def line(self, text: str = "", end: str = "\n") -> None:
        """Print text, in plain ASCII where the output cannot encode it."""
        if self.quiet:
            return
        encoding = sys.stdout.encoding or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(ASCII).encode(encoding, "backslashreplace").decode(encoding)
        print(text, end=end, flush=True)
        self.begun = end == ""

    def heading(self, text: str) -> None:
        """Print a title with a rule."""
        self.line(f"\n── {text} ".ljust(WIDTH, "─"))

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say what is being done, and when it is done how long it took."""
        self.line(f"{text} ... ", end="")
        began = time.perf_counter()
        yield
        self.line(f"{time.perf_counter() - began:.1f} s")


def draw(images: np.ndarray, captions: list[str], gap: int = 4) -> str:
    """Images as text, side by side, each above its caption.

    Parameters
    ----------
    images : array (n, rows, columns)
        Numbers from 0 to 1, each of which becomes one character.
    captions : list of str
        One for each image, at most as long as an image is wide.
    gap : int, default 4
        Spaces between two images.

    Returns
    -------
    str
        ``rows + 1`` lines.

    Examples
    --------
    >>> print(draw(np.array([[[0, 0.5], [0.75, 1]], [[1, 1], [1, 1]]]), ["a", "b"]))
     ▒    ██
    ▓█    ██
    a     b
    """
    levels = np.rint(images * (len(SHADES) - 1)).astype(int)
    rows = [["".join(SHADES[level] for level in row) for row in image] for image in levels]
    table = [*zip(*rows, strict=True), [text.ljust(images.shape[2]) for text in captions]]
    return "\n".join((" " * gap).join(line).rstrip() for line in table)


def digits(writer: Writer, *, seed: int, epochs: int) -> dict[str, Any]:
    """Train on the digits of the package, and the same again by the numpy reference.

    Parameters
    ----------
    writer : Writer
        Shows it.
    seed : int
        Of the network; which digits are held out does not depend on it.
    epochs : int
        Passes over the data.

    Returns
    -------
    dict
        The figures.
    """
    x, y = datasets.digits()
    order = np.random.default_rng(0).permutation(len(x))
    x_test, y_test = x[order[-HELD_OUT:]], y[order[-HELD_OUT:]]
    x, y = x[order[:-HELD_OUT]], y[order[:-HELD_OUT]]

    def build(backend: str = "compiled") -> Network:
        return Network(
            [Input((64,), scale=1 / 16), Dense(64, "relu"), Dense(10, "softmax")],
            loss="cross_entropy",
            optimizer=Adam(0.003),
            seed=seed,
            backend=backend,
        )

    net = build()
    writer.line(
        f"A small network learns to read {len(x):,} handwritten digits of 8 x 8 pixels,\n"
        f"then reads {len(x_test)} others that it has never seen."
    )
    _describe(writer, net)
    writer.heading("Training: batches of 32, cross-entropy, Adam(0.003)")
    _load_kernels(writer, build(), x, y)
    began = time.perf_counter()
    net.fit(x, y, epochs=epochs, verbose=writer.verbose)
    seconds = time.perf_counter() - began

    writer.heading("The digits that it has never seen")
    score = net.evaluate(x_test, y_test)
    writer.line(f"{score['accuracy']:.1%} of the {len(x_test)} held-out digits are read correctly.")
    guess = net.predict(x_test).argmax(axis=1)
    cells = x_test.reshape(-1, 8, 8).repeat(2, axis=2) / 16

    compared = min(epochs, COMPARED)
    writer.heading("The same training by the numpy reference")
    with writer.step(f"{compared} epoch{'s' * (compared > 1)}, {RUNS} times with each of the two"):
        nets, times = _race(build, x, y, compared)
    ratio = times["numpy"] / times["compiled"]
    difference = float(np.abs(nets["compiled"].params - nets["numpy"].params).max())
    writer.line(
        f"compiled kernels  {times['compiled']:8.3f} s\n"
        f"numpy reference   {times['numpy']:8.3f} s   {ratio:.0f} times as long\n"
        f"(Time of fit alone, with the kernels loaded; the fastest of {RUNS} runs.)\n"
        f"Largest difference between their {net.plan.size:,} parameters: {difference:.1e}.\n"
        "(float32 has 7 digits; sums in another order differ in the last, and training\n"
        "makes more of it.)"
    )
    writer.heading("Some of the held-out digits")
    _show_digits(writer, cells, y_test, guess, count=4)
    return {
        "dataset": "digits",
        "seed": seed,
        "epochs": epochs,
        "parameters": net.plan.size,
        "train_samples": len(x),
        "test_samples": len(x_test),
        "seconds": seconds,
        "loss": score["loss"],
        "accuracy": score["accuracy"],
        "compared_epochs": compared,
        "compiled_seconds": times["compiled"],
        "numpy_seconds": times["numpy"],
        "ratio": ratio,
        "difference": difference,
    }


def mnist(writer: Writer, *, seed: int, epochs: int, root: str | None) -> dict[str, Any]:
    """Train the network of Nielsen's first chapter on MNIST.

    Parameters
    ----------
    writer : Writer
        Shows it.
    seed : int
        Of the network.
    epochs : int
        Passes over the data.
    root : str or None
        Folder of MNIST's files; default the environment variable ``FASTNN_DATA``.

    Returns
    -------
    dict
        The figures.

    Raises
    ------
    DemoError
        Where the files are missing or damaged.

    Notes
    -----
    M. Nielsen (2015), "Neural Networks and Deep Learning", chapter 1: 95.42 % in epoch 28,
    the best of 30, and 91.29 % in epoch 0.
    """
    try:
        x, y, x_test, y_test = datasets.mnist(root)
    except (OSError, ValueError) as error:
        raise DemoError(error, code=2) from None
    x, y = x[:50_000], y[:50_000]

    def layer(units: int) -> Dense:
        drawn = normal(1.0)
        return Dense(units, "sigmoid", weight_initializer=drawn, bias_initializer=drawn)

    def build() -> Network:
        return Network(
            [Input((784,), scale=1 / 255), layer(30), layer(10)],
            loss="quadratic",
            optimizer=SGD(3.0),
            seed=seed,
        )

    net = build()
    writer.line(
        "The first network of Nielsen's book (chapter 1) learns to read MNIST:\n"
        f"{len(x):,} handwritten digits of 28 x 28 pixels, then {len(x_test):,} others."
    )
    _describe(writer, net)
    writer.heading("Training: batches of 10, quadratic cost, SGD(3.0)")
    _load_kernels(writer, build(), x, y)
    writer.line("Per cent of the test digits read correctly after each epoch, ten to a line:")
    accuracy: list[float] = []
    began = time.perf_counter()
    for epoch in range(epochs):
        history = net.fit(x, y, batch_size=10, validation_data=(x_test, y_test), verbose=0).history
        accuracy += history["val_accuracy"]
        if epoch % 10 == 0:
            writer.line(f"{epoch:5}:", end="")
        last = epoch % 10 == 9 or epoch == epochs - 1
        writer.line(f"  {100 * accuracy[-1]:5.2f}", end="\n" if last else "")
    seconds = time.perf_counter() - began
    best = int(np.argmax(accuracy))

    writer.heading("Beside the book")
    writer.line(
        f"{'':16}{'best':>8}  in epoch   epoch 0\n"
        f"{'this run':16}{accuracy[best]:8.2%}{best:10}  {accuracy[0]:8.2%}\n"
        f"{'Nielsen':16}{0.9542:8.2%}{28:10}  {0.9129:8.2%}\n"
        f"{seconds:.1f} s for {epochs} epochs and their tests"
    )
    writer.heading("Some of the test digits")
    guess = net.predict(x_test).argmax(axis=1)
    # Without the margin, two rows to a character, which is about twice as high as wide.
    cells = x_test.reshape(-1, 28, 28)[:, 3:25, 3:25].reshape(-1, 11, 2, 22).mean(axis=2) / 255
    _show_digits(writer, cells, y_test, guess, count=3)
    return {
        "dataset": "mnist",
        "seed": seed,
        "epochs": epochs,
        "parameters": net.plan.size,
        "train_samples": len(x),
        "test_samples": len(x_test),
        "seconds": seconds,
        "accuracy": accuracy[-1],
        "best_accuracy": accuracy[best],
        "best_epoch": best,
        "epoch_accuracy": accuracy,
        "book_best_accuracy": 0.9542,
        "book_best_epoch": 28,
        "book_first_accuracy": 0.9129,
    }


def spiral(writer: Writer, *, seed: int, epochs: int, plot: str | None) -> dict[str, Any]:
    """Train the spiral network of *Neural Networks from Scratch*, and draw what it has learnt.

    Parameters
    ----------
    writer : Writer
        Shows it.
    seed : int
        Of the data and the network.
    epochs : int
        Passes over the data.
    plot : str or None
        Where the picture goes; default ``fastnn-spiral.png``.

    Returns
    -------
    dict
        The figures; ``plot`` is None without matplotlib.

    Raises
    ------
    DemoError
        Where the picture cannot be written.

    Notes
    -----
    H. Kinsley and D. Kukieła (2020), "Neural Networks from Scratch in Python", chapter 11:
    loss 0.074 and accuracy 0.983 in the last of 10,001 epochs.
    """
    x, y = datasets.spiral(100, 3, seed)

    def build() -> Network:
        drawn = normal(0.01)
        return Network(
            [
                Dense(64, "relu", weight_initializer=drawn),
                Dense(3, "softmax", weight_initializer=drawn),
            ],
            loss="cross_entropy",
            optimizer=Adam(0.05, decay=5e-7, epsilon=1e-7),
            input_shape=(2,),
            seed=seed,
        )

    net = build()
    writer.line(
        '"Neural Networks from Scratch in Python", chapters 10 and 11: a network learns\n'
        f"which of three spiral arms a point belongs to, from {len(x)} points."
    )
    _describe(writer, net)
    writer.heading("Training: all points in one batch, cross-entropy, Adam(0.05, decay=5e-7)")
    _load_kernels(writer, build(), x, y)
    writer.line(" epoch     loss  accuracy")
    done, seconds = 0, 0.0
    for stop in sorted({epochs * tenth // 10 for tenth in range(1, 11)} - {0}):
        began = time.perf_counter()
        history = net.fit(x, y, epochs=stop - done, batch_size=len(x), verbose=0).history
        seconds += time.perf_counter() - began
        done, loss, accuracy = stop, history["loss"][-1], history["accuracy"][-1]
        writer.line(f"{done:6}{loss:9.3f}{accuracy:10.3f}")
    score = net.evaluate(x, y)

    writer.heading("Beside the book")
    writer.line(
        f"{'':27}loss  accuracy\n"
        f"{'last epoch':22}{loss:9.3f}{accuracy:10.3f}\n"
        f"{'the same in the book':22}{0.074:9.3f}{0.983:10.3f}\n"
        f"{'after the last step':22}{score['loss']:9.3f}{score['accuracy']:10.3f}\n"
        f"{seconds:.1f} s for {epochs:,} epochs; another seed gives other points and figures"
    )
    writer.heading("Decision boundary")
    picture, drawn = os.path.abspath(plot or "fastnn-spiral.png"), True
    try:
        decision_boundary(net, x, y, picture)
        writer.line(f"drawn in {picture}")
    except ImportError as error:
        drawn = False
        writer.line(str(error))
    except OSError as error:
        raise DemoError(error, code=1) from None
    return {
        "dataset": "spiral",
        "seed": seed,
        "epochs": epochs,
        "parameters": net.plan.size,
        "train_samples": len(x),
        "seconds": seconds,
        "last_epoch_loss": loss,
        "last_epoch_accuracy": accuracy,
        "loss": score["loss"],
        "accuracy": score["accuracy"],
        "book_loss": 0.074,
        "book_accuracy": 0.983,
        "plot": picture if drawn else None,
    }


DEMOS: dict[str, Callable[..., dict[str, Any]]] = {
    "digits": digits,
    "mnist": mnist,
    "spiral": spiral,
}


def _describe(writer: Writer, net: Network) -> None:
    """Show the summary and the plan of a network."""
    if writer.quiet:
        return
    writer.heading("The network")
    net.summary()
    plan, whole = plan_text(net.plan, shutil.get_terminal_size().columns)
    writer.heading("Its plan" if whole else "Its plan, without the columns of its work buffer")
    writer.line(plan)


def plan_text(plan: Plan, width: int) -> tuple[str, bool]:
    """The plan as text, without its four columns of addresses in ``work`` if it is too wide.

    Returns
    -------
    str, bool
        The text, and whether it is whole.
    """
    *table, total = str(plan).splitlines()
    head = table[0]
    whole = len(head) <= width
    if not whole:
        begin, end = head.index("when") + len("predict"), head.index("target") + len("target")
        table = [line[:begin] + line[end:] for line in table]
    return "\n".join([*table, total]), whole


def _load_kernels(writer: Writer, net: Network, x: np.ndarray, y: np.ndarray) -> None:
    """Compile what a demo runs, or load it, so that no later time contains that."""
    place = _cache.folder()
    if place is None:
        text = "Compiling the kernels, in every run, as there is no cache folder for them"
    else:
        shown = str(place.parent).replace(str(Path.home()), "~", 1)
        if any(place.glob(f"*{_cache.SUFFIX}")):
            text = f"Loading the kernels from {shown}, compiling those that are new"
        else:
            text = (
                "Compiling the kernels, which takes some seconds, once; later runs load them\n"
                f"from {shown}"
            )
    with writer.step(text):
        net.fit(x[:1], y[:1], verbose=0)
        net.evaluate(x[:1], y[:1])
        net.predict(x[:1])


def _race(
    build: Callable[[str], Network], x: np.ndarray, y: np.ndarray, epochs: int
) -> tuple[dict[str, Network], dict[str, float]]:
    """Train by both backends in turns; the networks, and the seconds of the fastest run."""
    nets: dict[str, Network] = {}
    times = {"compiled": np.inf, "numpy": np.inf}
    for _ in range(RUNS):
        for backend in times:
            net = nets[backend] = build(backend)
            began = time.perf_counter()
            net.fit(x, y, epochs=epochs, verbose=0)
            times[backend] = min(times[backend], time.perf_counter() - began)
    return nets, times


def _show_digits(
    writer: Writer, cells: np.ndarray, truth: np.ndarray, guess: np.ndarray, count: int
) -> None:
    """Draw some digits that were read correctly, then a few that were not, if there are any."""
    wrong = np.flatnonzero(guess != truth)[: count // 2]
    right = np.flatnonzero(guess == truth)[: count - len(wrong)]
    chosen = [*right, *wrong]
    captions = [
        f"read {guess[i]}, is {truth[i]}{' (!)' if guess[i] != truth[i] else ''}" for i in chosen
    ]
    writer.line(draw(cells[chosen], captions))
