"""``python -m benches.readme`` writes the figures of the results into the README."""

import json
import sys
from functools import partial
from pathlib import Path

from benches import report
from benches.published import report as published

README = Path(__file__).parent.parent / "README.md"
RESULTS = report.RESULTS
# Part of the README: what makes it, from which results, by which command they are made.
PARTS = {
    "published": (published.markdown, "published.json", "python -m benches.published"),
    "benches": (
        partial(report.markdown, chart="benches/results/latest.png"),
        "latest.json",
        "python -m benches",
    ),
}


def main():
    text = README.read_text("utf-8")
    for name, (markdown, file, command) in PARTS.items():
        if not (RESULTS / file).exists():
            return f"there is no {file} yet: run {command}"
        try:
            results = json.loads((RESULTS / file).read_text("utf-8"))
            text = report.with_part(text, markdown(results), name)
        except ValueError as why:
            return str(why)
    README.write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
