"""Results as text, as a Markdown table, as a chart, and as a part of the README."""

import json
import re
from pathlib import Path
from textwrap import fill
from typing import Any

Results = dict[str, Any]

RESULTS = Path(__file__).parent / "results"
TITLE = 72  # letters above one of two charts: more would run into the other
# M. Okabe and K. Ito's colours, which every kind of colour vision tells apart.
COLOURS = {
    "fastnn": "#D55E00",
    "fastnn, 1 thread": "#E69F00",
    "numpy": "#F0E442",
    "torch": "#0072B2",
    "torch fused": "#56B4E9",
    "torch.compile": "#009E73",
    "torchscript": "#7F7F7F",
    "JAX": "#CC79A7",
    "scikit-learn": "#BBBBBB",
    "onnxruntime": "#000000",
}


def duration(seconds: float) -> str:
    """``12.3 us``, ``4.56 ms``, ``1.23 s``: three digits."""
    for unit, name in ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s")):
        if seconds < 999.5 * unit or unit == 1.0:
            return f"{digits(seconds / unit)} {name}"
    raise AssertionError


def digits(value: float) -> str:
    """Three digits, two behind the point at the most: 1.23, 12.3, 1,230."""
    value = float(f"{value:.3g}")
    return f"{value:,.{max(0, 3 - len(str(int(value))))}f}"


def threads(number: int | str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} thread{'s' * (int(number) > 1)}"


def peaks(found: dict[str, float]) -> str:
    """Of one thread and of all."""
    return " and ".join(f"{peak:.0f} with {threads(n)}" for n, peak in found.items())


def lines(name: str, found: Results) -> str:
    """A workload for the terminal."""
    rows = [
        f"\n{name}: {found['what']}; peak {peaks(found['peak_gflops'])} GFLOP/s",
        f"{'':18}{'best':>10}{'median':>10}{'GFLOP/s':>9}{'x fastnn':>10}{'median':>9}",
    ]
    for peer, figures in found["peers"].items():
        rows.append(
            f"{peer:18}{duration(figures['best']):>10}{duration(figures['median']):>10}"
            f"{figures['gflops']:9.1f}{figures['ratio']:10.2f}{figures['ratio_median']:9.2f}"
        )
    shares = (f"{share:.0%} with {threads(n)}" for n, share in found["share_of_peak"].items())
    rows.append(f"fastnn reaches {' and '.join(shares)} of the peak")
    rows += [f"{peer}: {why}" for peer, why in found["left_out"].items()]
    return "\n".join(rows)


def peers_of(results: Results, kind: str) -> list[str]:
    """Peers with a figure in some workload of a kind, in the order of the colours."""
    seen = {p for w in of_kind(results, kind).values() for p in w["peers"]}
    return [peer for peer in COLOURS if peer in seen]


def of_kind(results: Results, kind: str) -> dict[str, Results]:
    """Workloads that train, or that predict."""
    return {n: w for n, w in results["workloads"].items() if w["kind"] == kind}


def table(results: Results, kind: str) -> str:
    """Markdown: a row for each workload, a column for each peer."""
    found = of_kind(results, kind)
    peers = peers_of(results, kind)
    number = str(results["machine"]["threads"])
    share = ["share of peak"] if kind == "training" else []
    heads = [f"**{kind}**", "", *peers[:1], *share, *peers[1:]]
    rows = ["| " + " | ".join(heads) + " |", "|---|---|" + "--:|" * (len(heads) - 2)]
    for name, work in found.items():
        cells = []
        for peer in peers:
            figures = work["peers"].get(peer)
            if figures is None:
                cells.append("-")
            elif peer == "fastnn":
                cells.append(f"**{duration(figures['best'])}**")
                cells += [f"{work['share_of_peak'][number]:.0%}"] * len(share)
            else:
                cells.append(f"{duration(figures['best'])} ({digits(figures['ratio'])} x)")
        rows.append("| " + " | ".join([name, work["what"], *cells]) + " |")
    return "\n".join(rows)


def caption(results: Results) -> str:
    """What the figures are and depend on."""
    known, works = results["machine"], results["workloads"].values()
    best: dict[str, float] = {}
    for work in works:
        for number, peak in work["peak_gflops"].items():
            best[number] = max(peak, best.get(number, 0))
    seen = {peer for work in works for peer in work["peers"]}
    notes = [f"{n}: {note}" for n, note in results["peers"].items() if note and n in seen]
    left_out = absences(results["workloads"], seen)
    versions = ", ".join(f"{name} {v}" for name, v in known["versions"].items() if v)
    parts = [
        "Time of one training step or one call, the best of several turns that all take in one "
        "process, and how many times as long as fastnn a peer needs.",
        f"{known['cpu']}, {known['vector_bits']}-bit vectors, {threads(known['threads'])} for each "
        f"library, float32, {results['date']}. A loop of nothing but multiply-adds peaks at "
        f'{peaks(best)} GFLOP/s; "share of peak" is fastnn\'s of that in the same turns.',
        f"{versions}.",
        *([f"Left out: {'; '.join(left_out)}."] if left_out else []),
        *([f"{'; '.join(notes)}."] if notes else []),
    ]
    return "\n".join(parts)


def absences(works: dict[str, Results], seen: set[str]) -> list[str]:
    """Who was left out and why; of which workloads, where there are figures in others."""
    places: dict[tuple[str, str], list[str]] = {}
    for name, work in works.items():
        for peer, why in work["left_out"].items():
            places.setdefault((peer, why), []).append(name)
    return [
        f"{peer} on {', '.join(names)} ({why})" if peer in seen else f"{peer} ({why})"
        for (peer, why), names in sorted(places.items())
    ]


def startup(results: Results) -> str:
    """A sentence on the starts."""
    found = results["startup"]
    return "Start-up, a whole process each: " + ", ".join(
        f"{name} {duration(seconds)}" for name, seconds in found.items()
    )


def memory(results: Results) -> str:
    """A sentence on the memory of training ``wide``."""
    found = results["memory"]
    if found is None:
        return "Memory: measured on Linux only"
    mib, held = 2**20, sum(found["held"].values())
    parts = ", ".join(f"{name} {n / mib:.0f}" for name, n in found["held"].items())
    return (
        f"Memory: training wide on {found['rows']:,} rows grows the process by "
        f"{found['grown'] / mib:.0f} MiB at its peak, {found['grown'] / held:.2f} times the "
        f"{held / mib:.0f} MiB that it holds ({parts}); with Python and all libraries the peak is "
        f"{found['peak'] / mib:.0f} MiB"
    )


def whole(results: Results) -> str:
    """Markdown: the whole runs and the commands that repeat them."""
    rows = ["| whole run | fastnn | torch | | command |", "|---|--:|--:|--:|---|"]
    for name, run in results["whole"].items():
        command = f"`python -m benches.whole {name}`"
        if "skipped" in run:
            rows.append(f"| {run['title']} | - | - | {run['skipped']} | {command} |")
            continue
        title = run["title"]
        if run["accuracy"] is not None:
            title += f" ({run['accuracy']:.1%} right)"
        other, ratio = "not installed", ""
        if run["torch"] is not None:
            scaled = " *" if run["scaled"] else ""
            other = f"{duration(run['torch'])}{scaled}"
            ratio = f"{digits(run['torch'] / run['fastnn'])} x"
        rows.append(f"| {title} | **{duration(run['fastnn'])}** | {other} | {ratio} | {command} |")
    if any(run.get("scaled") for run in results["whole"].values()):
        rows += ["", "\\* scaled from fewer epochs."]
    return "\n".join(rows)


def markdown(results: Results, chart: str) -> str:
    """All of it, for ``latest.md`` and for the README; ``chart`` leads to the picture."""
    parts = [table(results, kind) for kind in ("training", "inference") if of_kind(results, kind)]
    if parts:
        parts += [f"![Time of each workload, fastnn and its peers]({chart})"]
        parts += [caption(results)]
    parts += [make(results) + "." for make in (startup, memory) if make.__name__ in results]
    parts += [whole(results)] if "whole" in results else []
    return "\n\n".join(parts) + "\n"


def figure(results: Results) -> Any:
    """Bars for each workload on a logarithmic scale, one colour for each peer."""
    from matplotlib.figure import Figure

    works = results["workloads"]
    columns = 2
    rows = [list(works.items())[i : i + columns] for i in range(0, len(works), columns)]
    heights = [max(len(work["peers"]) for _, work in row) + 1.6 for row in rows]
    drawing = Figure(figsize=(12, 0.27 * sum(heights) + 0.4), layout="constrained")
    grid = drawing.subplots(
        len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes in grid.flat[len(works) :]:
        axes.set_visible(False)
    for axes, (name, work) in zip(grid.flat, works.items(), strict=False):
        peers = [peer for peer in COLOURS if peer in work["peers"]]
        times = [work["peers"][peer]["best"] * 1e6 for peer in peers]
        axes.barh(peers, times, color=[COLOURS[peer] for peer in peers], height=0.72)
        for place, peer in enumerate(peers):
            figures = work["peers"][peer]
            ratio = "" if peer == "fastnn" else f"  {digits(figures['ratio'])} x"
            text = f" {duration(figures['best'])}{ratio}"
            axes.text(times[place], place, text, va="center", fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")  # names of 2, 3, 4, 6 would lie on each other
        axes.set_xlim(min(times) / 3, max(times) * 6)
        axes.invert_yaxis()
        axes.set_title(fill(f"{name}: {work['what']}", TITLE), fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("microseconds for a step or a call, shorter is better", fontsize=8)
    return drawing


def draw(drawing: Any, stem: Path) -> None:
    """As PNG and as SVG, the same bytes for the same figures."""
    import matplotlib

    drawing.savefig(stem.with_suffix(".png"), dpi=110)
    with matplotlib.rc_context({"svg.hashsalt": "fastnn", "svg.fonttype": "none"}):
        drawing.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


def write(results: Results, folder: Path, name: str) -> None:
    """``name.json``, ``.md``, ``.png`` and ``.svg`` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / name
    text = json.dumps(results, indent=1, ensure_ascii=False)
    stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(markdown(results, f"{name}.png"), encoding="utf-8")
    if results["workloads"]:
        draw(figure(results), stem)


def markers(name: str) -> tuple[str, str]:
    """What stands around a generated part of the README."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def part_of(text: str, name: str = "benches") -> str:
    """What stands between the markers of a part.

    Raises
    ------
    ValueError
        Where they are missing, or not one of each in this order.
    """
    begin, end = markers(name)
    parts = re.findall(rf"{begin}\n(.*?){end}", text, re.S)
    if len(parts) != 1 or text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"README.md must hold one line {begin} and, behind it, one line {end}")
    return parts[0]


def with_part(text: str, part: str, name: str = "benches") -> str:
    """The README with another part between the markers."""
    begin, end = markers(name)
    return text.replace(f"{begin}\n{part_of(text, name)}{end}", f"{begin}\n{part}{end}")
