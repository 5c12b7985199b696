"""Those that do the same work: the same weights, the same batches in the same order, float32.

Each module here imports its library when it is asked to make something, and not before:

    training(work, weights, data, threads)  ->  fit(epochs), which starts from the weights at each
                                                call and returns the mean loss of the last epoch
    inference(work, weights, x, threads)    ->  call(), which returns the outputs

``weights`` are pairs (weight, bias) of float32 arrays. Data, outputs and parameters are in the
library's own kind of array before the clock starts.
"""

import importlib
import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from benches.workloads import Training

CHECKED = 10  # steps, at the least, after which the losses must agree
LOSS_RTOL, OUTPUT_ATOL = 1e-3, 1e-3


class Disagreement(AssertionError):
    """A peer that does not do the same work as fastnn."""


class Unavailable(Exception):
    """A peer that is installed and cannot do its work here; the text says why."""


class Peer(NamedTuple):
    """Where a peer's code is, what must be installed for it, and what it can do."""

    module: str
    needs: tuple[str, ...]
    how: str = ""  # which of the ways that the module knows
    trains: bool = True
    predicts: bool = True
    own_start: bool = False  # trains from initial weights of its own: nothing to compare
    note: str = ""

    def maker(self, what: str) -> Callable:
        """``training`` or ``inference`` of its module."""
        make = getattr(importlib.import_module(f"benches.peers.{self.module}"), what)
        return partial(make, how=self.how) if self.how else make


PEERS = {
    "fastnn": Peer("fastnn", ("fastnn",)),
    "numpy": Peer("numpy", ("numpy",), note="a plain loop by hand, products by its BLAS"),
    "torch": Peer("torch", ("torch",), "eager", note="eager"),
    "torch fused": Peer(
        "torch", ("torch",), "fused", predicts=False, note="eager, fused optimizer"
    ),
    "torch.compile": Peer("torch", ("torch",), "compile", note="and the fused optimizer"),
    "torchscript": Peer(
        "torch", ("torch",), "script", trains=False, note="torch.jit.script, frozen"
    ),
    "JAX": Peer("jax", ("jax",), note="jit, a scan over the batches in a loop over the epochs"),
    "scikit-learn": Peer(
        "sklearn",
        ("sklearn",),
        own_start=True,
        note="trains from initial weights of its own, with Adam's epsilon where Keras has it; "
        "on nielsen it trains softmax cross-entropy, for want of a quadratic cost",
    ),
    "onnxruntime": Peer("onnxruntime", ("onnxruntime", "onnx"), trains=False, note="Gemm and Relu"),
}


def able(kind: str) -> dict[str, Peer]:
    """Peers that train (``kind`` "training") or predict ("inference"), installed or not."""
    return {n: p for n, p in PEERS.items() if (p.trains if kind == "training" else p.predicts)}


def absent(peers: dict[str, Peer] = PEERS) -> dict[str, str]:
    """Why a peer cannot be here, by its name."""
    missing = {name: [n for n in p.needs if find_spec(n) is None] for name, p in peers.items()}
    return {name: f"{' and '.join(n)} not installed" for name, n in missing.items() if n}


def agree_on_losses(work: Training, made: dict[str, Callable[[int], float]]) -> None:
    """Train some steps and raise where a peer's loss is not fastnn's then."""
    epochs = math.ceil(CHECKED / work.steps)
    own = made["fastnn"](epochs)
    for name, fit in made.items():
        if name in PEERS and PEERS[name].own_start:
            continue
        loss = fit(epochs)
        if not abs(loss - own) <= LOSS_RTOL * abs(own):
            raise Disagreement(
                f"{name} does not train the same on {work}: its loss is {loss:.6g} after "
                f"{epochs * work.steps} steps, fastnn's is {own:.6g}"
            )


def agree_on_outputs(made: dict[str, Callable[[], Any]]) -> None:
    """Predict once and raise where a peer's outputs are not fastnn's."""
    own = np.asarray(made["fastnn"]())
    for name, call in made.items():
        out = np.asarray(call())
        if out.shape != own.shape or not np.abs(out - own).max() <= OUTPUT_ATOL:
            raise Disagreement(f"{name} does not predict the same as fastnn")
