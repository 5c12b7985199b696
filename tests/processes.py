"""Other Python processes that tests start, and what becomes of them."""

import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(script, path, cache, *options, **settings):
    """A Python process that imports fastnn from a path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FASTNN_", "NUMBA_"))}
    # Without .pyc files: Python takes an old one where an edit changes neither size nor second.
    paths = {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    if cache is not None:
        paths["FASTNN_CACHE_DIR"] = str(cache)
    return subprocess.Popen(
        [sys.executable, "-P", *options, "-c", script],
        env={**kept, **paths, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    """What a process printed and what it complained about."""
    printed, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    return printed.strip(), complaints


def at_once(processes):
    """The same of processes that go on once all are there: each prints "ready" and reads a line."""
    with ExitStack() as stack:
        processes = [stack.enter_context(process) for process in processes]
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return [finished(process) for process in processes]


def forked(work):
    """Whether a forked child finds that ``work()`` is true."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: our subject
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    for _ in range(6000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")
