"""The command ``fastnn``: reads the arguments and hands them to `fastnn.demo`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fastnn import __version__
from fastnn._check import one_of, whole

__all__ = ["main"]

MAX_SEED = 2**32 - 1  # what the generated data sets take
EPOCHS = {"digits": 20, "mnist": 30, "spiral": 10_001}
OWN = {"root": "mnist", "plot": "spiral"}  # options that belong to one data set

ABOUT = "Neural networks from scratch: every formula in numpy, every loop compiled by numba."
DEMO = """\
Train a network and show what it has learnt.

  digits  1,797 handwritten digits that come with the package; also trains the
          same network by the numpy reference and compares the two (the default)
  mnist   the first network of M. Nielsen's "Neural Networks and Deep Learning",
          chapter 1, on the real MNIST, whose four files you have
  spiral  three spiral arms, the network of H. Kinsley's and D. Kukiela's "Neural
          Networks from Scratch in Python"; draws its decision boundary
"""
EXAMPLES = """\
examples:
  fastnn demo
  fastnn demo --data spiral --plot boundary.png
  fastnn demo --data mnist --root ~/data --epochs 5 --json
"""


class Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the arguments; leave with exit code 2 and one line if they are wrong."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="fastnn",
        description=ABOUT,
        epilog="fastnn demo --help says more about the demonstrations.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastnn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    demo = commands.add_parser(
        "demo",
        help="train a network and show what it has learnt",
        description=DEMO,
        epilog=EXAMPLES,
        formatter_class=plain,
        allow_abbrev=False,
    )
    defaults = ", ".join(f"{name} {epochs}" for name, epochs in EPOCHS.items())
    demo.add_argument("--data", metavar="NAME", default="digits", help=f"{', '.join(EPOCHS)}")
    demo.add_argument(
        "--seed", metavar="N", type=int, default=0, help="initial weights and shuffling (default 0)"
    )
    demo.add_argument(
        "--epochs", metavar="N", type=int, help=f"passes over the data (default: {defaults})"
    )
    demo.add_argument(
        "--json", action="store_true", help="print the figures as one JSON object, nothing else"
    )
    demo.add_argument(
        "--root", metavar="DIR", help="mnist: folder of its files (default: $FASTNN_DATA)"
    )
    demo.add_argument(
        "--plot", metavar="FILE", help="spiral: where the PNG goes (default: fastnn-spiral.png)"
    )
    arguments, unknown = parser.parse_known_args(argv)
    if arguments.command is None:
        parser.error(f"a command is needed: {', '.join(commands.choices)}; see fastnn --help")
    if unknown:
        demo.error(f"unknown argument {' '.join(unknown)}; see fastnn demo --help")
    try:
        check(arguments)
    except ValueError as error:
        demo.error(str(error))
    return arguments


def check(arguments: argparse.Namespace) -> None:
    """Raise ValueError where the arguments of a demo are wrong; fill in what depends on others."""
    data = one_of("--data", arguments.data, EPOCHS)
    if whole("--seed", arguments.seed, least=0) > MAX_SEED:
        raise ValueError(f"--seed must be at most {MAX_SEED}, got {arguments.seed}")
    if arguments.epochs is None:
        arguments.epochs = EPOCHS[data]
    whole("--epochs", arguments.epochs)
    for option, owner in OWN.items():
        if getattr(arguments, option) is not None and data != owner:
            raise ValueError(f"--{option} goes with --data {owner}, got --data {data}")
    if arguments.plot is not None and not arguments.plot.lower().endswith(".png"):
        raise ValueError(f"--plot must name a .png file, got {arguments.plot!r}")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo that the arguments ask for; the exit code."""
    from fastnn import DivergenceError, demo

    writer = demo.Writer(quiet=arguments.json)
    options = {"seed": arguments.seed, "epochs": arguments.epochs}
    for option, owner in OWN.items():
        if arguments.data == owner:
            options[option] = getattr(arguments, option)
    try:
        figures = demo.DEMOS[arguments.data](writer, **options)
    except KeyboardInterrupt:
        writer.line()  # ends the one that was begun
        raise
    except BrokenPipeError:
        raise
    except (demo.DataError, DivergenceError, OSError) as error:
        print(f"fastnn demo: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, demo.DataError) else 1
    if arguments.json:
        print(json.dumps(figures, allow_nan=False))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fastnn``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        Exit code: 0, 1 where a demo failed, 2 for wrong arguments or missing data, 130
        after Ctrl-C, 141 where the reader of the output has gone.
    """
    try:
        code = run(parse(argv))
        sys.stdout.flush()
    except SystemExit as leaving:  # argparse has said what there was to say
        code = int(leaving.code or 0)
    except KeyboardInterrupt:
        print("fastnn: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # What is still in the buffer is flushed at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    return code
