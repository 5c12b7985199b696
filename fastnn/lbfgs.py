"""L-BFGS: a quasi-Newton method with little memory, for all the data at once.

The engine gives loss and gradient; everything here is numpy in float64 on the flat parameters,
which costs little beside a pass over the data. Source: Nocedal and Wright (2006), *Numerical
Optimization*, second edition: the direction is algorithm 7.4, the search along it unites
algorithms 3.5 and 3.6. Where losses are too close to be told apart, the slopes decide, as
proposed by Hager and Zhang (2005), SIAM J. Optim. 16: otherwise the minimum could be found to
half the digits only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastnn._callback import Callback
from fastnn.optimizers import LBFGS
from fastnn.training import Slice

__all__ = ["Point", "Trainer", "direction_of", "line_search"]

DECREASE, CURVATURE = 1e-4, 0.9  # of the Wolfe conditions: Nocedal and Wright, section 3.1
STALLS = 3  # iterations without a lower loss or a smaller gradient, after which it is over
Pairs = list[tuple[np.ndarray, np.ndarray]]


class Point(NamedTuple):
    """Parameters, and what the network makes of them."""

    x: np.ndarray  # float64, rounded as the network holds them
    loss: float
    gradient: np.ndarray  # float64
    scores: np.ndarray | None = None  # what the engine says of it


class Try(NamedTuple):
    """A point along a direction, how far it is, and the slope of the loss there."""

    length: float
    point: Point
    slope: float


def direction_of(gradient: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Minus the inverse Hessian, as the last steps show it, times the gradient.

    Parameters
    ----------
    gradient : array (n,)
    pairs : list of (array, array)
        Steps and the changes of the gradient they brought, the oldest first.

    Returns
    -------
    array (n,)
        Without pairs, minus the gradient.

    Examples
    --------
    >>> direction_of(np.array([1.0, 2.0]), [])
    array([-1., -2.])
    >>> hessian = np.diag([1.0, 4.0])
    >>> pairs = [(s, hessian @ s) for s in np.eye(2)]
    >>> direction_of(np.array([1.0, 2.0]), pairs)
    array([-1. , -0.5])
    """
    q, shares = -gradient, []
    for s, y in reversed(pairs):
        shares.append((s @ q) / (s @ y))
        q = q - shares[-1] * y
    if pairs:
        s, y = pairs[-1]
        q = q * ((s @ y) / (y @ y))
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        q = q + (share - (y @ q) / (s @ y)) * s
    return q


def line_search(
    evaluate: Callable[[np.ndarray], Point],
    start: Point,
    direction: np.ndarray,
    length: float,
    most: int,
    noise: float,
) -> Point | None:
    """A point along ``direction`` where the loss is lower and its slope is flatter.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(x)`` gives a `Point`; a loss that is not finite is one too far.
    start : Point
    direction : array (n,)
    length : float
        The first try.
    most : int
        Evaluations.
    noise : float
        Losses that differ by less are equal.

    Returns
    -------
    Point or None
        One that fulfils the strong Wolfe conditions, or after ``most`` evaluations the best one
        with a loss that is low enough, if there is one.
    """
    downhill = float(start.gradient @ direction)
    if not downhill < 0:
        return None
    low = Try(0.0, start, downhill)
    high: Try | None = None  # on the other side of a minimum
    for _ in range(most):
        point = evaluate(start.x + length * direction)
        here = Try(length, point, float(point.gradient @ direction))
        if abs(point.loss - start.loss) <= noise:
            enough = here.slope <= (2 * DECREASE - 1) * downhill
        else:
            enough = point.loss <= start.loss + DECREASE * length * downhill
        if not (enough and point.loss <= low.point.loss + noise):
            high = here
        elif abs(here.slope) <= -CURVATURE * downhill:
            return point
        else:
            onward = high is None or high.length > low.length
            if (here.slope >= 0) == onward:
                high = low
            low = here
        length = 2 * length if high is None else between(low, high)
    return low.point if low.length > 0 else None


def between(low: Try, high: Try) -> float:
    """Where the cubic with these losses and slopes is lowest; not too close to either end."""
    width = high.length - low.length
    with np.errstate(all="ignore"):
        bend = low.slope + high.slope + 3 * (low.point.loss - high.point.loss) / width
        root = np.sign(width) * np.sqrt(bend * bend - low.slope * high.slope)
        share = 1 - (high.slope + root - bend) / (high.slope - low.slope + 2 * root)
    if not np.isfinite(share):
        share = 0.5
    return low.length + width * float(np.clip(share, 0.1, 0.9))


class Trainer(Callback):
    """Iterations of L-BFGS in the place of a network's steps, and what they remember.

    Losses and gradients are those of a step at the learning rate 0, so that they are what every
    other optimizer would see.

    Parameters
    ----------
    network : Network
        Its parameters are moved, and its record of past steps.
    options : LBFGS

    Attributes
    ----------
    steps : Steps
        Takes a step and says whether it went well; to be set before the first.
    stop : bool
        Whether further iterations would be in vain.
    """

    brief = True
    MEMORY = ("stop", "stalls", "flattest")

    def __init__(self, network: Any, options: LBFGS) -> None:
        self.network, self.options = network, options
        self.steps: Any = None
        self.stop, self.stalls, self.flattest = False, 0, float("inf")
        self.point: Point | None = None

    def state(self) -> dict[str, Any]:
        """Where it is, and how long it has found nothing better."""
        point = {} if self.point is None else self.point._asdict()
        return {name: getattr(self, name) for name in self.MEMORY} | point

    def resume(self, state: dict[str, Any]) -> None:
        """Take it over."""
        for name in self.MEMORY:
            setattr(self, name, state[name])
        if "x" in state:
            self.point = Point(*(state[name] for name in Point._fields))

    def train(self, pair: Any, piece: Slice, scores: np.ndarray) -> int:
        """One iteration: as ``train`` of `fastnn.training.Training`, for a slice of one batch."""
        network, rule = self.network, self.network._rule
        params, grads = network._params, self.steps.buffers.grads[: network.plan.size]
        step, samples = int(rule["step"][0]), len(piece.order)

        def evaluate(x: np.ndarray) -> Point:
            """Loss and gradient; what is not finite comes as an infinite loss."""
            params[...] = x
            rounded = params.astype(np.float64)
            done = self.steps.take(pair, piece, np.zeros(1), scores)
            rule["step"] = step
            gradient = grads.astype(np.float64)
            loss = (scores[0, 0] + scores[2, 0]) / samples if done else np.inf
            return Point(rounded, float(loss), gradient, scores[:, 0].copy())

        with np.errstate(all="ignore"):  # a try that is too far may be too far for the dtype
            if self.point is None:
                self.point = evaluate(params.astype(np.float64))
                if not np.isfinite(self.point.loss):
                    return 0
            before = self.point
            try:
                self.iterate(evaluate, float(self.options.rates(step, 1)[0]))
            finally:  # also where Ctrl-C ends a search
                params[...] = self.point.x
        scores[:, 0] = before.scores
        rule["step"] = step + 1
        return 1

    def iterate(self, evaluate: Callable[[np.ndarray], Point], length: float) -> None:
        """Search along the direction; where that leads nowhere, straight downhill; learn."""
        assert self.point is not None
        old, options, pairs = self.point, self.options, self.network._pairs
        precision = float(np.finfo(self.network.dtype).eps)
        noise = precision * abs(old.loss)
        if largest(old.gradient) <= options.tolerance:
            self.stop = True
            return
        new = None
        while new is None and not self.stop:
            first = length if pairs else length * min(1.0, 1 / np.abs(old.gradient).sum())
            new = line_search(
                evaluate,
                old,
                direction_of(old.gradient, pairs),
                first,
                options.max_line_search,
                noise,
            )
            self.stop = new is None and not pairs
            if new is None:
                pairs.clear()
        if new is None:
            return
        self.point = new
        s, y = new.x - old.x, new.gradient - old.gradient
        if s @ y > precision * (y @ y):  # else the loss is not curved upwards here
            pairs.append((s, y))
        del pairs[: -options.memory]
        steepness = largest(new.gradient)
        stalled = new.loss >= old.loss - noise and steepness >= self.flattest
        self.stalls = self.stalls + 1 if stalled else 0
        self.flattest = min(self.flattest, steepness)
        self.stop = (
            steepness <= options.tolerance
            or largest(s) <= options.tolerance_change
            or self.stalls >= STALLS
        )


def largest(values: np.ndarray) -> float:
    """The largest absolute value."""
    return float(np.abs(values).max(initial=0.0))
