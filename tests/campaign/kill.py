"""Kill -9 at a random moment of a save: the file is the old or the new one, and nothing is left.

A process that has nothing but `fastnn.files` in hand forks children that save version after version
of a file and write down, in memory that both share, which one they have begun and which is done.
Each is killed after a random number of microseconds. Then the file must hold one of these two,
whole; and one more save must leave no other file in its folder. Files of a few bytes and of
a megabyte, on a disk and, where there is one, in memory, where no `fsync` hides the other calls.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from fastnn import files

COUNT = 1000
SMALL = 50
ROOT = Path(__file__).parent.parent.parent
LONGEST = 20_000  # microseconds from the first save on


def save(path: Path, version: int, size: int) -> None:
    """A file of which every number tells the version."""
    files.write(path, {"a": np.full(size, version)}, {"version": str(version)})


def saves(path: Path, shared: mmap.mmap, version: int, size: int) -> None:
    """One version after another, until the end comes from outside."""
    while True:
        version += 1
        shared[:8] = version.to_bytes(8, "little")
        save(path, version, size)
        shared[8:16] = shared[:8]


def fault(path: Path, begun: int, done: int, figures: Counter) -> str:
    """What is wrong with what a killed process has left; nothing, where all is well."""
    try:
        arrays, metadata = files.read(path)
    except Exception as error:
        return f"unreadable: {error!r}"
    version = int(metadata["version"])
    if version not in (begun, done) or not (arrays["a"] == version).all():
        return f"version {version}, where {begun} was begun and {done} done"
    figures["between two saves" if begun == done else "new" if version == begun else "old"] += 1
    names = {*os.listdir(path.parent)} - {path.name}
    figures["left a file"] += len(names) > 0
    save(path, begun + 1, 1)
    if os.listdir(path.parent) != [path.name]:
        return f"not swept: {os.listdir(path.parent)}"
    return ""


def kills(count: int) -> dict[str, int | str]:
    """`count` children, each killed; in a process that has no threads."""
    figures: Counter[str] = Counter()
    draw, first = random.Random(), ""
    disks = [None, *(Path(disk) for disk in ["/dev/shm"] if os.access(disk, os.W_OK))]
    shared = mmap.mmap(-1, 16)
    for number in range(count):
        with tempfile.TemporaryDirectory(dir=disks[number % len(disks)]) as folder:
            path, size = Path(folder, "net.safetensors"), draw.choice((1, 1000, 200_000))
            save(path, 1, size)
            shared[:] = (1).to_bytes(8, "little") * 2
            child = os.fork()
            if not child:
                try:
                    saves(path, shared, 1, size)
                finally:
                    os._exit(1)
            while shared[0] == 1:  # until it begins
                time.sleep(0)
            time.sleep(draw.randrange(LONGEST) * 1e-6)
            os.kill(child, signal.SIGKILL)
            if os.WTERMSIG(os.waitpid(child, 0)[1]) != signal.SIGKILL:
                why = "the child ended by itself"
            else:
                begun, done = (int.from_bytes(shared[at : at + 8], "little") for at in (0, 8))
                why = fault(path, begun, done, figures)
        figures["failures"] += bool(why)
        first = first or why
    names = ("old", "new", "between two saves", "left a file", "failures")
    return (
        {"cases": count}
        | {name: figures[name] for name in names}
        | {"first failure": first or "none"}
    )


def run(count: int) -> dict[str, int | str]:
    command = [sys.executable, "-m", "tests.campaign.kill", str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(kills(int(sys.argv[1]))))
