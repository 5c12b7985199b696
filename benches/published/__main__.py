"""``python -m benches.published``: train what the books have trained, and compare."""

import argparse
import datetime
import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import benches.published
from benches.published import report, runs
from benches.published.exact import CHECKS
from benches.published.rows import ROWS, Row
from benches.report import RESULTS
from benches.timing import facts
from fastnn._threads import processors


def parse(argv=None):
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.published",
        description=benches.published.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="NAME,...", help="rows whose names begin so")
    parser.add_argument("--seeds", type=int, help="of each row (default: 5 nnfs, 3 images)")
    parser.add_argument("--quick", action="store_true", help="first epochs only")
    parser.add_argument("--jobs", type=int, default=processors(), help="at once (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args(argv)
    begins = arguments.only.split(",") if arguments.only else [""]
    unknown = [b for b in begins if not any(name.startswith(b) for name in ROWS)]
    if unknown:
        parser.error(f"no row begins with {', '.join(unknown)}; there are {', '.join(ROWS)}")
    for option in ("seeds", "jobs"):
        if getattr(arguments, option) is not None and getattr(arguments, option) < 1:
            parser.error(f"--{option} must be 1 or more")
    arguments.rows = [r for r in ROWS.values() if any(r.name.startswith(b) for b in begins)]
    return arguments


def seeds_of(row: Row, arguments) -> list[int]:
    """The seeds that a row is trained with; quick: one where nothing can be claimed yet."""
    if arguments.quick and not runs.claims_of(row, quick=True):
        return [0]
    return list(range(arguments.seeds or row.seeds))


def trained(arguments, rows: list[Row]) -> Iterator[report.Results]:
    """Train every row with every seed, some at once, and give each row as soon as it is done."""
    figures: dict[str, dict[int, list[float]]] = {row.name: {} for row in rows}
    seconds: dict[str, float] = {row.name: 0.0 for row in rows}
    tasks = [(row, seed) for row in rows for seed in seeds_of(row, arguments)]
    tasks.sort(key=lambda task: -task[0].work)  # the longest first: none is left alone at the end
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, context) as pool:
        futures = {
            pool.submit(runs.run, row.name, seed, arguments.quick): (row, seed)
            for row, seed in tasks
        }
        for done, future in enumerate(as_completed(futures), 1):
            row, seed = futures[future]
            figures[row.name][seed], taken = future.result()
            seconds[row.name] += taken
            print(f"[{done}/{len(tasks)}] {row.name}, seed {seed}: {taken:.1f} s", flush=True)
            seeds = seeds_of(row, arguments)
            if len(figures[row.name]) == len(seeds):
                ours = zip(*(figures[row.name][seed] for seed in seeds), strict=True)
                claims = zip(runs.claims_of(row, arguments.quick), ours, strict=True)
                yield {
                    "name": row.name,
                    "source": row.source,
                    "what": report.described(row),
                    "seconds": seconds[row.name] / len(seeds),
                    "claims": [report.judged(claim, list(figures)) for claim, figures in claims],
                }


def exact_checks() -> list[report.Results]:
    """What is deterministic, computed and compared."""
    results = []
    for check in CHECKS:
        ours, same = check.result()
        print(f"{'ok' if same else 'NO'}  {check.source}: {check.printed}", flush=True)
        record = {"name": check.name, "source": check.source, "printed": check.printed}
        results.append(record | {"ours": ours, "pass": same})
    return results


def main(argv=None):
    arguments = parse(argv)
    left_out = {row.name: why for row in arguments.rows if (why := runs.lacking(row))}
    for name, why in left_out.items():
        print(f"{name}: {why}")
    name = "quick" if arguments.quick else "published"
    kept = arguments.out / f"{name}.json"
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": facts()["cpu"],
        "exact": exact_checks(),
        "rows": {},
        "left_out": left_out,
    }
    if arguments.only and not arguments.quick and kept.exists():  # the other rows stay
        results["rows"] = json.loads(kept.read_text("utf-8"))["rows"]
    for row in trained(arguments, [row for row in arguments.rows if row.name not in left_out]):
        print(report.lines(row), flush=True)
        results["rows"] = report.ordered(results["rows"] | {row["name"]: row})
        report.write(results, arguments.out, name)  # at once: there may be no end
    passed, total = report.count(results)
    print(f"{passed} of {total} published figures come out again")
    return 0 if passed == total else 1


if __name__ == "__main__":
    sys.exit(main())
