"""``python -m tests.campaign NAME [--count N]``: run a campaign and print its figures."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import time

import tests.campaign

NAMES = [m.name for m in pkgutil.iter_modules(tests.campaign.__path__) if m.name[0] != "_"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--count", type=int, help="cases; by default a whole campaign")
    asked = parser.parse_args()
    campaign = importlib.import_module(f"tests.campaign.{asked.name}")
    count = asked.count or campaign.COUNT
    print(f"{asked.name}: {campaign.__doc__.splitlines()[0]}")
    began = time.perf_counter()
    figures = campaign.run(count)
    for name, value in figures.items():
        print(f"  {name:<24} {value}")
    print(f"  {'seconds':<24} {time.perf_counter() - began:.0f}")
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
