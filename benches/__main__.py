"""``python -m benches``: every workload for fastnn and its peers, in turns, in one process."""

import argparse
import datetime
import os
import sys
from pathlib import Path

from benches import fresh, peers, report, whole
from benches.measure import timed
from benches.timing import facts, machine
from benches.workloads import INFERENCE, TRAINING
from fastnn._threads import processors

WORKLOADS = TRAINING | INFERENCE
FIGURES = ("startup", "memory", "whole")
QUICK = "left out by --quick"  # it compiles for half a minute


def parse(argv=None):
    """Read the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short turns, no long runs")
    parser.add_argument(
        "--only",
        metavar="NAME,...",
        help=f"of these: {', '.join([*TRAINING, 'inference', *FIGURES])}",
    )
    parser.add_argument(
        "--threads", type=int, default=processors(), help="for each library (default: %(default)s)"
    )
    parser.add_argument(
        "--whole", action="store_true", help="torch's long whole run to its end, not scaled"
    )
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    arguments = parser.parse_args(argv)
    names = arguments.only.split(",") if arguments.only else [*WORKLOADS, *FIGURES]
    arguments.names = [name for n in names for name in (INFERENCE if n == "inference" else [n])]
    unknown = [n for n in arguments.names if n not in WORKLOADS and n not in FIGURES]
    if unknown or arguments.threads < 1:
        parser.error(f"unknown: {', '.join(unknown)}" if unknown else "--threads must be 1 or more")
    return arguments


def main(argv=None):
    arguments = parse(argv)
    threads, quick, names = arguments.threads, arguments.quick, arguments.names
    print(f"{machine()}; {threads} threads for each library", flush=True)
    if (os.getloadavg()[0] if hasattr(os, "getloadavg") else 0) > 0.5:
        print("other programs are at work here: figures will be worse than they could be")
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": facts() | {"threads": threads},
        "peers": {name: peer.note for name, peer in peers.PEERS.items()},
        "absent": peers.absent(),
        "workloads": {},
    }
    without = results["absent"] | ({"torch.compile": QUICK} if quick else {})
    for name, why in without.items():
        print(f"{name}: {why}")
    if "startup" in names:  # first, while this process has no threads that could wake
        results["startup"] = fresh.startup(1 if quick else 3, empty_cache=not quick)
        print(report.startup(results), flush=True)
    if "memory" in names and not quick:
        results["memory"] = fresh.memory(threads)
        print(report.memory(results), flush=True)
    for name in names:
        if name in WORKLOADS:
            found = timed(WORKLOADS[name], threads, without, 0.03 if quick else 0.15, 5)
            results["workloads"][name] = found
            print(report.lines(name, found), flush=True)
    if "whole" in names and not quick:
        results["whole"] = whole.runs(threads, to_the_end=arguments.whole)
        print(report.whole(results), flush=True)
    partial = quick or arguments.only
    report.write(results, arguments.out, "partial" if partial else "latest")


if __name__ == "__main__":
    sys.exit(main())
