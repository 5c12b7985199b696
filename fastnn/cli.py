"""The command ``fastnn``: demonstrations, pages that explain, the cache of compiled code."""

from __future__ import annotations

import _thread
import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from fastnn import __version__
from fastnn._check import one_of, whole

__all__ = ["main"]

FAILED, WRONG, INTERRUPTED, UNREAD = 1, 2, 130, 141  # exit codes; the last two are a shell's
MAX_SEED = 2**32 - 1  # what the generated data sets take
DTYPES = ("float32", "float64")
EPOCHS = {"digits": 20, "mnist": 30, "spiral": 10_001}
OWN = {"root": "mnist", "plot": "spiral"}  # options that belong to one data set

ABOUT = "Neural networks from scratch: every formula in numpy, every loop compiled by numba."
DEMO = """\
Train a network and show what it has learnt.

  digits  1,797 handwritten digits that come with the package; trains the same
          network by the numpy reference, too, and compares the two
  mnist   the network of chapter 1 of "Neural Networks and Deep Learning" by
          M. Nielsen, on the real MNIST, whose four files you have
  spiral  the network of "Neural Networks from Scratch in Python" by H. Kinsley
          and D. Kukiela, on three spiral arms; draws its decision boundary
"""
EXAMPLES = """\
examples:
  fastnn demo
  fastnn demo --data spiral --plot boundary.png
  fastnn demo --data mnist --root ~/data --epochs 5 --json
"""


WARMUP = """\
Compile everything now and keep it, so that no training has to wait later: in a
container image, on a server, before a lesson. What is kept already is not
compiled again.
"""
EXPLAIN = """\
Print a page on an activation, a layer, a loss, a metric, an optimizer or an
initializer: its formula, the numpy reference, the kernel that runs, the chapters
of both books, and mistakes to avoid. Without a name, list the names.
"""


EXPORT = """\
Write a network, as Network.save has written it, as source code: a C header where
FILE ends in .h, Python that needs numpy alone where it ends in .py.
"""


class Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(WRONG, f"{self.prog}: error: {' '.join(message.split())}\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the arguments; leave with exit code 2 and one line if they are wrong."""
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
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = f"{', '.join(EPOCHS)} (default: digits)"
    defaults = ", ".join(f"{name} {epochs}" for name, epochs in EPOCHS.items())
    demo.add_argument("--data", metavar="NAME", default="digits", help=names)
    demo.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of all that is random (default: 0)"
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
    warmup = commands.add_parser(
        "warmup",
        help="compile everything and keep it",
        description=WARMUP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    warmup.add_argument(
        "--dtype", metavar="NAME", help=f"{' or '.join(DTYPES)} (default: both)", dest="dtype"
    )
    explain = commands.add_parser(
        "explain",
        help="print a page on an activation, a loss, an optimizer, ...",
        description=EXPLAIN,
        epilog="examples:\n  fastnn explain\n  fastnn explain adam",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    explain.add_argument("name", metavar="NAME", nargs="?", help="what to explain")
    export = commands.add_parser(
        "export",
        help="write a network as a C header or a Python file",
        description=EXPORT,
        epilog="examples:\n  fastnn export net.safetensors net.h\n"
        "  fastnn export net.safetensors net.py --njit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    export.add_argument("network", metavar="NETWORK", help="a file of Network.save")
    export.add_argument("file", metavar="FILE", help="where the source goes: .h or .py")
    export.add_argument("--name", metavar="NAME", help=".h: what names begin with (default: FILE)")
    export.add_argument("--njit", action="store_true", help=".py: compiled by numba")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        chosen = commands.choices.get(arguments.command, parser)
        chosen.error(f"unknown argument {' '.join(unknown)}; see {chosen.prog} --help")
    if arguments.command is None:
        parser.error(f"a command is needed: {', '.join(commands.choices)}; see fastnn --help")
    try:
        if arguments.command == "demo":
            check(arguments)
        elif arguments.command == "warmup" and arguments.dtype is not None:
            one_of("--dtype", arguments.dtype, DTYPES)
    except ValueError as error:
        commands.choices[arguments.command].error(str(error))
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


def warm(arguments: argparse.Namespace) -> int:
    """Fill the cache; the exit code."""
    from fastnn import warmup

    dtypes = [arguments.dtype] if arguments.dtype else DTYPES
    began = time.perf_counter()
    place, before = warmup.kept()
    if place is None:
        why = (
            "FASTNN_CACHE_DIR is empty" if os.environ.get("FASTNN_CACHE_DIR") == "" else "see above"
        )
        print(f"fastnn warmup: error: compiled code cannot be kept: {why}", file=sys.stderr)
        return FAILED
    steps = list(warmup.steps(dtypes))
    for number, (name, compile_it) in enumerate(steps):
        if sys.stdout.isatty():
            print(f"\r{number + 1}/{len(steps)} {name:<50}"[:78], end="", flush=True)
        compile_it()
    if sys.stdout.isatty():
        print(f"\r{'':<78}\r", end="")
    after = warmup.kept()[1]
    print(
        f"{after} compiled functions in {place}, {after - before} of them new, "
        f"in {time.perf_counter() - began:.1f} s"
    )
    return 0


def explain(arguments: argparse.Namespace) -> int:
    """Print a page; the exit code."""
    from fastnn.explain import explain

    try:
        explain(arguments.name)
    except ValueError as error:
        print(f"fastnn explain: error: {error}", file=sys.stderr)
        return WRONG
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write source code; the exit code."""
    from fastnn import load

    header = arguments.file.endswith(".h")
    try:
        if not header and not arguments.file.endswith(".py"):
            raise ValueError(f"FILE must end in .h or .py, got {arguments.file!r}")
        if arguments.njit if header else arguments.name is not None:
            raise ValueError("--name goes with .h, --njit with .py")
        net = load(arguments.network)
        if header:
            net.export_c(arguments.file, name=arguments.name)
        elif arguments.njit:
            net.export_njit(arguments.file)
        else:
            net.export_numpy(arguments.file)
    except (ValueError, OSError) as error:
        print(f"fastnn export: error: {error}", file=sys.stderr)
        return WRONG
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run the demo that the arguments ask for; the exit code."""
    from fastnn import DivergenceError, demo

    options = {"seed": arguments.seed, "epochs": arguments.epochs}
    for option, owner in OWN.items():
        if arguments.data == owner:
            options[option] = getattr(arguments, option)
    try:
        with demo.Writer(quiet=arguments.json) as writer:
            figures = demo.DEMOS[arguments.data](writer, **options)
    except (demo.DemoError, DivergenceError) as error:
        print(f"fastnn demo: error: {error}", file=sys.stderr)
        return error.code if isinstance(error, demo.DemoError) else FAILED
    if arguments.json:
        print(json.dumps(figures, allow_nan=False))
    return 0


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but not inside of LLVM, which would lose it or crash on it."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("llvmlite.binding"):
            threading.Timer(0.05, _thread.interrupt_main).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C heard while kernels are compiled."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # someone else's matter
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


COMMANDS = {"demo": run, "warmup": warm, "explain": explain, "export": export}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fastnn``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        Exit code: 0; 1 where a demo or its output failed; 2 for wrong arguments or missing
        data; 130 after Ctrl-C; 141 where the reader of the output has gone.
    """
    try:
        try:
            with interruptible():
                arguments = parse(argv)
                code = COMMANDS[arguments.command](arguments)
        except SystemExit as leaving:  # argparse has said what there was to say
            code = int(leaving.code or 0)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("fastnn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # of the output
        # What is still in its buffer is flushed at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return UNREAD
        print(f"fastnn: error: {error}", file=sys.stderr)
        return FAILED
    return code
