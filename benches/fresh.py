"""What only a fresh process can tell: how long a start takes, how much memory a training."""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from benches.workloads import TRAINING

ROOT = Path(__file__).parent.parent
FIRST = """
import fastnn as fnn
x, y = fnn.datasets.spiral()
layers = [fnn.Dense(64, "relu"), fnn.Dense(3, "softmax")]
net = fnn.Network(layers, loss="cross_entropy", optimizer="adam", seed=0)
net.fit(x, y, epochs=100, batch_size=300, verbose=0)
"""
STARTS = {
    "python": "",
    "import fastnn": "import fastnn",
    "import fastnn, build, train the spiral for 100 epochs": FIRST,
    "import torch": "import torch",
    "import jax": "import jax",
    "import sklearn.neural_network": "import sklearn.neural_network",
}
EMPTY = "the same with an empty cache"
MEMORY = """
import json, sys
import numpy as np
from benches.peers.fastnn import network, optimizer
from benches.workloads import TRAINING

def resident(which):
    status = open("/proc/self/status").read().split("\\n")
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(which))

def train(work):
    net = network(work, {threads})
    net.optimizer = optimizer(work)
    net.fit(*work.data(), epochs=2, batch_size=work.batch, verbose=0)

work = TRAINING["wide"]._replace(rows={rows})
train(work._replace(widths=(4, 4, 4, 10), rows=1024))  # loads the code, compiles it if need be
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
before = resident("VmRSS")
train(work)
print(json.dumps(dict(before=before, peak=resident("VmHWM"))))
"""
ROWS = 20_480  # of `wide`: enough for the data to count


def startup(repetitions: int = 3, empty_cache: bool = True) -> dict[str, float]:
    """Seconds from the start of a process to its end, the best of several."""
    found = {}
    for name, program in STARTS.items():
        if program.startswith("import") and find_spec(program.split()[1].split(".")[0]) is None:
            continue
        _seconds(program)  # compiles, reads files into the system's memory
        found[name] = min(_seconds(program) for _ in range(repetitions))
        if program == FIRST and empty_cache:
            with tempfile.TemporaryDirectory() as folder:
                found[EMPTY] = _seconds(program, FASTNN_CACHE_DIR=folder)
    return found


def memory(threads: int) -> dict[str, int] | None:
    """Bytes by which training `wide` grows a process, and what there is to hold; on Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    program = MEMORY.replace("{threads}", str(threads)).replace("{rows}", str(ROWS))
    seen = json.loads(_run(program).stdout)
    work = TRAINING["wide"]._replace(rows=ROWS)
    parameters = sum((a + 1) * b for a, b in pairwise(work.widths))
    held = {
        "data": sum(array.nbytes for array in work.data()),
        "parameters, gradients, moments": 4 * 4 * parameters,
        "outputs and their gradients": 2 * 4 * work.batch * sum(work.widths[1:]),
    }
    return {**seen, "grown": seen["peak"] - seen["before"], "rows": ROWS, "held": held}


def _seconds(program: str, **environment: str) -> float:
    began = time.perf_counter()
    _run(program, **environment)
    return time.perf_counter() - began


def _run(program: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", program]
    options = {"capture_output": True, "text": True, "check": True}
    return subprocess.run(command, cwd=ROOT, env={**installed(), **environment}, **options)


def installed() -> dict[str, str]:
    """The environment, without what would have a checkout's sources compiled at every start.

    An installed package has its bytecode beside it.
    """
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
