"""``python -m benches.size``: what a step costs as a network, its batch or its data grow.

One of width, depth, batch and rows grows over two decades while the others stay. Cost should
follow the floating-point operations, and no size should cost much more for each of them than its
neighbours: of the widths, 1000 and 1023 are set beside 992 and 1024, at most a tenth above them.
"""

import argparse
import datetime
import json
import sys
from pathlib import Path

import numpy as np

from benches.measure import figures
from benches.peak import gflops, peak
from benches.peers.fastnn import initial, training
from benches.report import COLOURS, RESULTS, draw, duration
from benches.timing import facts, interleaved, machine
from benches.workloads import Training
from fastnn._threads import processors

LABELS = "cross_entropy"
NEIGHBOURS = {1000: (992, 1024), 1023: (992, 1024)}
BAR = 1.1  # times the cost of an operation at the neighbours
CASES = {
    "width": {
        width: Training((width, width, width, 10), LABELS, 256, 2560)
        for width in (8, 16, 32, 64, 128, 256, 512, 992, 1000, 1023, 1024)
    },
    "depth": {
        depth: Training((64,) * (depth + 1) + (10,), LABELS, 64, 640)
        for depth in (1, 3, 10, 30, 100)
    },
    "batch": {
        batch: Training((784, 128, 128, 10), LABELS, batch, max(4 * batch, 256))
        for batch in (1, 4, 16, 32, 64, 128, 256, 512, 1024)
    },
    "rows": {
        rows: Training((784, 128, 128, 10), LABELS, 128, rows) for rows in (600, 6_000, 60_000)
    },
}


def measured(cases, threads, turn):
    """Seconds for a step of each case, all in turns, and the peak in the same rounds."""
    calls = {str(n): training(w, initial(w), w.data(), threads) for n, w in cases.items()}
    times = interleaved({**calls, "peak": peak(threads)}, turn)
    top = gflops(times.pop("peak").min(), threads)
    found = {}
    for number, work in cases.items():
        step = times[str(number)] / work.steps
        found[str(number)] = {"flop": work.flop, **figures(work.flop, step, step)}
    return {"peak_gflops": top, "cases": found}


def against_neighbours(widths):
    """How much more an operation costs at a width than at the costlier of its neighbours."""
    cost = {int(n): case["best"] / case["flop"] for n, case in widths["cases"].items()}
    return {
        str(n): cost[n] / max(cost[other] for other in others) for n, others in NEIGHBOURS.items()
    }


def table(results):
    rows = []
    for name, found in results["sizes"].items():
        rows.append(f"\n{name:>8}{'flop':>16}{'step':>10}{'GFLOP/s':>9}{'of peak':>9}")
        for number, case in found["cases"].items():
            share = case["gflops"] / found["peak_gflops"]
            rows.append(
                f"{number:>8}{case['flop']:16,}{duration(case['best']):>10}"
                f"{case['gflops']:9.1f}{share:9.0%}"
            )
    rows.append("")
    for number, ratio in results["against_neighbours"].items():
        others = " and ".join(map(str, NEIGHBOURS[int(number)]))
        word = "within" if ratio <= BAR else "ABOVE"
        rows.append(
            f"width {number}: an operation costs {ratio:.2f} times what it does at {others}, "
            f"{word} the bar of {BAR}"
        )
    return "\n".join(rows)


def figure(results):
    """Time and speed over the operations of a step, a line for each thing that grows."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = drawing.subplots(1, 2)
    every = []
    colours = [COLOURS[name] for name in ("fastnn", "torch", "torch.compile", "JAX")]
    styles = zip(results["sizes"].items(), colours, "os^D", strict=True)
    for (name, found), colour, marker in styles:
        cases = list(found["cases"].values())
        flop = [case["flop"] for case in cases]
        every += flop
        look = {"color": colour, "marker": marker, "label": name, "markersize": 5, "alpha": 0.8}
        left.plot(flop, [case["best"] * 1e6 for case in cases], **look)
        right.plot(flop, [case["gflops"] for case in cases], **look)
    top = max(found["peak_gflops"] for found in results["sizes"].values())
    ends = np.array([min(every), max(every)])
    left.plot(ends, ends / top / 1e3, color="grey", linestyle="--", label="at the peak")
    right.axhline(top, color="grey", linestyle="--", label="peak")
    left.set(ylabel="microseconds a step", title="time")
    right.set(ylabel="GFLOP/s", title="speed")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="floating-point operations a step")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return drawing


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benches.size")
    parser.add_argument("--threads", type=int, default=processors())
    parser.add_argument("--turn", type=float, default=0.1, help="seconds (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args(argv)
    print(f"{machine()}; {arguments.threads} threads", flush=True)
    sizes = {n: measured(c, arguments.threads, arguments.turn) for n, c in CASES.items()}
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": facts() | {"threads": arguments.threads},
        "sizes": sizes,
        "against_neighbours": against_neighbours(sizes["width"]),
    }
    print(table(results))
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1)
    (arguments.out / "size.json").write_text(text + "\n", encoding="utf-8")
    draw(figure(results), arguments.out / "size")


if __name__ == "__main__":
    sys.exit(main())
