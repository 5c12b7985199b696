"""Judgement on the figures, and the table of them."""

import json
from pathlib import Path
from typing import Any

from benches.published.rows import ROWS, RULES, Claim, Row

Results = dict[str, Any]

PRINTED = 0.0005  # figures of nnfs are printed with three digits
POINTS, START, END = 0.004, 0.015, 0.005
SEED_0 = 0.01  # Adam makes whole steps of rounding errors at first: float64 is 0.006 away, too


def holds(claim: Claim, ours: list[float]) -> bool:
    """Whether our figures, one for each seed, count as the published one; see `rows.RULES`."""
    published, least, most = claim.published, min(ours), max(ours)
    mean = sum(ours) / len(ours)
    accuracy = claim.figure.endswith("accuracy")
    return {
        "range": most >= published - PRINTED if accuracy else least <= published + PRINTED,
        "at least": least >= published,
        "peak": mean >= published - POINTS,
        "best": most >= published - POINTS,
        "start": least - START <= published <= most + START,
        "end": least - END <= published <= most + END,
        "seed 0": abs(ours[0] - published) <= SEED_0,
        "fails": most < 0.5,
        "descends": most < published,
    }[claim.rule]


def judged(claim: Claim, ours: list[float]) -> Results:
    """A claim beside our figures."""
    return {
        **claim._asdict(),
        "ours": ours,
        "mean": sum(ours) / len(ours),
        "min": min(ours),
        "max": max(ours),
        "pass": holds(claim, ours),
    }


def described(row: Row) -> str:
    """Network and hyper-parameters in a line."""
    hidden, output = row.activations
    name, options = row.optimizer
    told = [f"{options['learning_rate']:g}"]
    told += [f"{k}={v:g}" for k, v in options.items() if k not in ("learning_rate", "epsilon")]
    parts = [
        f"{'-'.join(map(str, row.widths))} {hidden}, {output}",
        row.loss,
        f"{name}({', '.join(told)})",
        f"batch {row.batch}",
        f"{row.epochs:,} epochs",
        *([f"l2 {row.l2:.3g}"] if row.l2 else []),
        *([f"dropout {row.dropout:g}"] if row.dropout else []),
    ]
    return "; ".join(parts)


def shown(claim: Results, value: float) -> str:
    """An accuracy in per cent, a loss as it is."""
    return f"{value:.2%}" if claim["figure"].endswith("accuracy") else f"{value:.4g}"


def when(claim: Results) -> str:
    """``epoch 0``, ``last``, ``peak``."""
    epoch = claim["when"]
    return f"epoch {epoch}" if isinstance(epoch, int) else epoch


def lines(found: Results) -> str:
    """A row for the terminal."""
    rows = [f"{found['name']}: {found['source']}; {found['what']}; {found['seconds']:.0f} s a seed"]
    for claim in found["claims"]:
        verdict = "ok" if claim["pass"] else "NO"
        low, mean, high = (shown(claim, claim[key]) for key in ("min", "mean", "max"))
        rows.append(
            f"  {verdict}  {claim['figure']}, {when(claim)}: published "
            f"{shown(claim, claim['published'])}, ours {low} / {mean} / {high} ({claim['rule']})"
        )
    return "\n".join(rows)


def count(results: Results) -> tuple[int, int]:
    """How many figures came out again, and how many there are."""
    claims = [claim["pass"] for row in results["rows"].values() for claim in row["claims"]]
    claims += [check["pass"] for check in results["exact"]]
    return sum(claims), len(claims)


def markdown(results: Results) -> str:
    """All of it, for ``published.md`` and for the README."""
    claims = [(row, claim) for row in results["rows"].values() for claim in row["claims"]]
    good, total = count(results)
    table = [
        "| source | figure | published | ours: mean | min | max | seeds | |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for check in results["exact"]:
        verdict = "same digits" if check["pass"] else "**other digits**"
        table.append(
            f"| {check['source']} | {check['printed'].replace(' ', ', ')} | | | | | | {verdict} |"
        )
    for row, claim in claims:
        verdict = claim["rule"] if claim["pass"] else f"**no** ({claim['rule']})"
        low, mean, high = (shown(claim, claim[key]) for key in ("min", "mean", "max"))
        table.append(
            f"| {row['source']}: {row['what']} | {claim['figure']}, {when(claim)} | "
            f"{shown(claim, claim['published'])} | {mean} | {low} | {high} | "
            f"{len(claim['ours'])} | {verdict} |"
        )
    used = dict.fromkeys(claim["rule"] for _, claim in claims)
    rules = "; ".join(f'"{rule}" {RULES[rule]}' for rule in used)
    missing = "; ".join(f"{name} ({why})" for name, why in results["left_out"].items())
    parts = [
        f"{good} of {total} published figures come out again, trained on {results['machine']}, "
        f"{results['date']}; `python -m benches.published` repeats them.",
        "<details>\n<summary>Every figure beside the book's</summary>",
        "\n".join(table),
        f"What counts as the same: {rules}.",
        *([f"Left out: {missing}."] if missing else []),
        "</details>",
    ]
    return "\n\n".join(parts) + "\n"


def ordered(rows: dict[str, Results]) -> dict[str, Results]:
    """In the order of `rows.ROWS`."""
    return {name: rows[name] for name in ROWS if name in rows}


def write(results: Results, folder: Path, name: str) -> None:
    """``name.json`` and ``name.md`` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown(results), encoding="utf-8")
