"""Workloads timed: fastnn and its peers in turns, the peak in the same rounds."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benches import peers
from benches.peak import gflops, peak
from benches.peers import PEERS, Unavailable
from benches.peers.fastnn import initial
from benches.timing import Call, interleaved, repeated
from benches.workloads import Inference, Training

STEPS = 15  # of a turn, at the least: what a call costs by itself is not what is compared
ALONE = "fastnn, 1 thread"  # beside fastnn with as many threads as the peers


def ready(
    work: Training | Inference,
    threads: int,
    without: dict[str, str],
    only: Collection[str] = (),
) -> tuple[dict[str, Call], dict[str, str]]:
    """Peers that do this work, checked against fastnn; and why others do not.

    Parameters
    ----------
    work : Training or Inference
        The workload.
    threads : int
        For each peer.
    without : dict of str to str
        Peers that are left out, and why.
    only : collection of str
        Peers to take, fastnn among them; all if empty.

    Returns
    -------
    tuple of dict
        ``call(number)`` for each peer: train so many epochs, or predict so many times.
        Reasons of those that are left out, `without` among them.
    """
    trains = isinstance(work, Training)
    kind = "training" if trains else "inference"
    names = [
        name for name in peers.able(kind) if name not in without and (not only or name in only)
    ]
    left_out = {name: why for name, why in without.items() if name in peers.able(kind)}
    weights, data, made = initial(work), work.data(), {}
    for name in names:
        try:
            made[name] = PEERS[name].maker(kind)(work, weights, data, threads)
        except Unavailable as why:
            left_out[name] = str(why)
    if threads > 1 and trains and not only:
        made[ALONE] = PEERS["fastnn"].maker(kind)(work, weights, data, 1)
    with threadpool_limits(threads, "blas"):  # of libraries that have been loaded by now
        if trains:
            peers.agree_on_losses(work, made)
        else:
            peers.agree_on_outputs(made)
    return made if trains else {n: repeated(call) for n, call in made.items()}, left_out


def timed(
    work: Training | Inference, threads: int, without: dict[str, str], turn: float, rounds: int
) -> dict[str, Any]:
    """Seconds for one step or call of each peer, as the results keep them."""
    calls, left_out = ready(work, threads, without)
    for number in {1, threads}:
        calls[f"peak {number}"] = peak(number)
    least = math.ceil(STEPS / work.steps) if isinstance(work, Training) else 1
    with threadpool_limits(threads, "blas"):
        times = interleaved(calls, turn, rounds, least=least)
    if isinstance(work, Training):
        times = {n: t if n.startswith("peak") else t / work.steps for n, t in times.items()}
    peaks = {n: gflops(times.pop(f"peak {n}").min(), n) for n in sorted({1, threads})}
    return {
        "kind": "training" if isinstance(work, Training) else "inference",
        "what": str(work),
        "unit": work.unit,
        "flop": work.flop,
        "rounds": rounds,
        "peak_gflops": {str(n): peaks[n] for n in peaks},
        "peers": {name: figures(work.flop, t, times["fastnn"]) for name, t in times.items()},
        "share_of_peak": shares(work.flop, times, peaks, threads),
        "left_out": left_out,
    }


def figures(flop: int, times: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """Best and median seconds, speed, and how many times as long as fastnn takes."""
    return {
        "best": float(times.min()),
        "median": float(np.median(times)),
        "gflops": flop / float(times.min()) / 1e9,
        "ratio": float(times.min() / own.min()),
        "ratio_median": float(np.median(times / own)),
    }


def shares(
    flop: int, times: dict[str, np.ndarray], peaks: dict[int, float], threads: int
) -> dict[str, float]:
    """Of the peak, with as many threads as the peers and with one."""
    names = {threads: "fastnn", 1: ALONE if threads > 1 else "fastnn"}
    return {
        str(number): float(flop / times[name].min() / 1e9 / peaks[number])
        for number, name in names.items()
        if name in times
    }
