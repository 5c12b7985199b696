"""``python -m benches.readme`` writes the figures of ``latest.json`` into the README."""

import json
import sys
from pathlib import Path

from benches.report import RESULTS, with_part

README = Path(__file__).parent.parent / "README.md"


def main():
    latest = RESULTS / "latest.json"
    if not latest.exists():
        return f"there is no {latest.name} yet: run python -m benches"
    try:
        text = with_part(README.read_text("utf-8"), json.loads(latest.read_text("utf-8")))
    except ValueError as why:
        return str(why)
    README.write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
