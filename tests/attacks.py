"""Files that a stranger could send, and what a loader does with them.

``run("fastnn.files:read")`` gives every file to a loader in a process of its own and returns a
report on each: how it ended, what it did besides, time and memory. ``faults(report)`` says what in
it breaks the promise. Another loader, or more files, can be given to `run`.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import io
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
MIB = 1 << 20
DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
# Of sys.audit: what runs code, or reaches beyond the file. Opening to read is looked at by itself.
DEEDS = re.compile(
    r"import|exec|compile|code\.|marshal\.|pickle\.|subprocess\.|socket\.|ctypes\.|urllib\.|shutil\.|"
    r"os\.(system|exec|fork|forkpty|posix_spawn|spawn|startfile|remove|rename|rmdir|mkdir|chmod|"
    r"chown|link|symlink|truncate|kill|putenv|unsetenv)"
)


def pack(header: bytes | dict, body: bytes = b"") -> bytes:
    """A file of any header, right or wrong."""
    if isinstance(header, dict):
        header = json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + body


def sealed(content: bytes) -> bytes:
    """The same file with the checksum that belongs to it, so that deeper checks are reached."""
    end = min(8 + int.from_bytes(content[:8], "little"), len(content))
    found = DIGEST.search(content, 8, end)
    if not found:
        return content
    start, stop = found.span(1)
    blank = content[8:start] + b"0" * 64 + content[stop:]
    return content[:start] + hashlib.sha256(blank).hexdigest().encode() + content[stop:]


def array(shape, offsets, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def one(shape, offsets, dtype="F32", size=8) -> Callable[[], bytes]:
    return lambda: pack({"a": array(shape, offsets, dtype)}, bytes(size))


def two(first, second, size) -> Callable[[], bytes]:
    places = {"a": first, "b": second}
    header = {
        name: array([stop - start], [start, stop], "U8") for name, (start, stop) in places.items()
    }
    return lambda: pack(header, bytes(size))


def notes(metadata) -> Callable[[], bytes]:
    return lambda: pack({"__metadata__": metadata, "a": array([2], [0, 8])}, bytes(8))


class Command:
    """What a pickle runs when it is read."""

    def __reduce__(self):
        return os.system, ("exit 0",)


def tiny(count: int) -> bytes:
    """A header of many arrays of one byte."""
    entries = (
        b'"layers.%d.weight":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}' % (n, n, n + 1)
        for n in range(count)
    )
    return pack(b"{" + b",".join(entries) + b"}", bytes(count))


def archive(name: str, size: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(name, bytes(size))
    return file.getvalue()


def npy() -> bytes:
    body = pickle.dumps(Command())
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + body


GOOD = pack({"a": array([2], [0, 8])}, bytes(8))
EMOJI = "\U0001f600".encode()

REFUSED: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "seven bytes": lambda: bytes(7),
    "eight zeros": lambda: bytes(8),
    "a header of 2^63 bytes": lambda: (1 << 63).to_bytes(8, "little") + GOOD[8:],
    "a header of 2^64 - 1 bytes": lambda: b"\xff" * 8 + GOOD[8:],
    "a header longer than the file": lambda: (len(GOOD) - 7).to_bytes(8, "little") + GOOD[8:],
    "a header of 20 MB": lambda: pack(b"{" + b" " * 20_000_000 + b"}"),
    "cut in the data": lambda: GOOD[:-1],
    "a byte too many": lambda: GOOD + b"\0",
    "no object": lambda: pack(b"[]"),
    "space before the header": lambda: pack(b" " + GOOD[8:-8], bytes(8)),
    "byte order mark": lambda: pack(b"\xef\xbb\xbf" + GOOD[8:-8], bytes(8)),
    "utf-16": lambda: pack(GOOD[8:-8].decode().encode("utf-16"), bytes(8)),
    "no utf-8": lambda: pack(
        b'{"\xff\xfe":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', b"0000"
    ),
    "half a surrogate": lambda: pack({"\ud800": array([2], [0, 8])}, bytes(8)),
    "half a surrogate in metadata": notes({"a": "\udfff"}),
    "zero byte after the header": lambda: pack(GOOD[8:-8] + b"\0", bytes(8)),
    "two headers": lambda: pack(GOOD[8:-8] * 2, bytes(8)),
    "comma too many": lambda: pack(GOOD[8:-9] + b",}", bytes(8)),
    "only a comma": lambda: pack(b"{,}"),
    "not closed": lambda: pack(GOOD[8:-9], bytes(8)),
    "comment": lambda: pack(b"{/**/" + GOOD[9:-8], bytes(8)),
    "single quotes": lambda: pack(GOOD[8:-8].replace(b'"', b"'"), bytes(8)),
    "hole": two((0, 4), (5, 9), 9),
    "hole at the start": two((1, 4), (4, 8), 8),
    "overlap": two((0, 6), (4, 8), 8),
    "same place twice": two((0, 4), (0, 4), 4),
    "data without an array": one([1], [0, 4]),
    "array without data": one([4], [0, 16]),
    "empty array in the midst of another": two((0, 8), (4, 4), 8),
    "offsets backwards": one([2], [8, 0]),
    "three offsets": one([2], [0, 4, 8]),
    "one offset": one([2], [8]),
    "negative offsets": one([2], [-8, 0]),
    "negative shape": one([-2], [0, 8]),
    "two negatives make a plus": one([-1, -2], [0, 8]),
    "shape of 2^63": one([1 << 63], [0, 8]),
    "shape of 2^64 + 2": one([(1 << 64) + 2], [0, 8]),
    "a product that wraps to 2": one([1 << 32, 1 << 32, 2], [0, 8]),
    "a product that wraps to 0": one([1 << 32, 1 << 32], [0, 0], size=0),
    "empty, and too large for numpy": one([1 << 47, 1 << 47, 0], [0, 0], size=0),
    "65 dimensions": one([1] * 65, [0, 4], size=4),
    "a thousand dimensions": one([1] * 1000, [0, 4], size=4),
    "shape of floats": one([2.0], [0, 8]),
    "shape of truths": one([True, 2], [0, 8]),
    "shape of texts": one(["2"], [0, 8]),
    "shape null": one(None, [0, 8]),
    "shape a number": one(2, [0, 8]),
    "shape a list in a list": one([[2]], [0, 8]),
    "shape NaN": one([float("nan")], [0, 8]),
    "offsets infinite": one([2], [0, float("inf")]),
    "number with an exponent": lambda: pack(GOOD[8:-8].replace(b"[2]", b"[2e0]"), bytes(8)),
    "number of 1,900 digits": lambda: pack(
        GOOD[8:-8].replace(b"[2]", b"[" + b"9" * 1900 + b"]"), bytes(8)
    ),
    "number of a million digits": lambda: pack(
        GOOD[8:-8].replace(b"[2]", b"[" + b"9" * MIB + b"]"), bytes(8)
    ),
    "dtype BF16": one([4], [0, 8], "BF16"),
    "dtype F16": one([4], [0, 8], "F16"),
    "dtype of objects": one([1], [0, 8], "O"),
    "dtype of numpy": one([2], [0, 8], "float32"),
    "dtype a list": one([2], [0, 8], ["F32"]),
    "dtype a number": one([2], [0, 8], 7),
    "dtype too narrow for its bytes": one([2], [0, 8], "F64"),
    "dtype missing": lambda: pack({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "field too many": lambda: pack({"a": array([2], [0, 8]) | {"run": "os.system"}}, bytes(8)),
    "array null": lambda: pack({"a": None}),
    "array an object in an object": lambda: pack({"a": {"b": array([2], [0, 8])}}, bytes(8)),
    "same name twice": lambda: pack(b"{" + GOOD[9:-9] + b"," + GOOD[9:-8], bytes(8)),
    "same name in two spellings": lambda: pack(
        b"{" + GOOD[9:-9] + b"," + GOOD[9:-8].replace(b'"a"', b'"\\u0061"'), bytes(8)
    ),
    "same field twice": lambda: pack(GOOD[8:-8].replace(b"[2]", b'[2],"shape":[2]'), bytes(8)),
    "metadata twice": lambda: pack(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata in two spellings": lambda: pack(b'{"__metadata__":{},"\\u005f_metadata__":{}}'),
    "metadata an array": lambda: pack({"__metadata__": array([2], [0, 8])}, bytes(8)),
    "metadata a list": notes(["a"]),
    "metadata of numbers": notes({"a": 1}),
    "metadata of objects": notes({"a": {"b": "c"}}),
    "metadata with 1,001 names": notes({str(n): "" for n in range(1001)}),
    "checksum of other data": notes({"sha256": "0" * 64}),
    "checksum empty": notes({"sha256": ""}),
    "checksum of one letter": notes({"sha256": "a"}),
    "checksum in capitals": notes({"sha256": "A" * 64}),
    "checksum in another script": notes({"sha256": "\u0661" * 64}),
    "deep lists": lambda: pack(b"[" * 100_000),
    "deep lists in a shape": lambda: pack(
        b'{"a":{"dtype":"F32","shape":' + b"[" * 100_000, bytes(8)
    ),
    "deep lists, closed": lambda: pack(
        b'{"a":{"shape":' + b"[" * 999 + b"]" * 999 + b"}}", bytes(8)
    ),
    "deep objects": lambda: pack(b'{"a":' * 100_000 + b"}" * 100_000),
    "deep objects in metadata": lambda: pack(
        b'{"__metadata__":' + b'{"a":' * 100_000 + b"}" * 100_001
    ),
    "16 MB of lists": lambda: pack(b'{"a":[' + b"[]," * 5_500_000 + b"[]]}"),
    "16 MB of objects": lambda: pack(b"{" + b'"a":{},' * 2_300_000 + b'"a":{}}'),
    "16 MB of ones in a shape": lambda: pack(b'{"a":{"shape":[' + b"1," * 8_000_000 + b"1]}}"),
    "16 MB of names in metadata": lambda: pack(
        b'{"__metadata__":{' + b",".join(b'"%x":""' % n for n in range(1_300_000)) + b"}}"
    ),
    "16 MB of wide letters in a name": lambda: pack(b'{"' + EMOJI * 4_000_000 + b'":{}}'),
    "16 MB of wide letters in metadata": lambda: pack(
        b'{"__metadata__":{"a":"' + EMOJI * 4_000_000 + b'"}}'
    ),
    "16 MB of quotes": lambda: pack(b'{"' + b'\\"' * 8_000_000),
    "16 MB of backslashes": lambda: pack(b'{"' + b"\\" * 16_000_000),
    "140,000 arrays": lambda: tiny(140_000),
    "zip bomb": lambda: archive("a.npy", 20 * MIB),
    "zip of a network by another library": lambda: archive("config.json", 100),
    "gzip bomb": lambda: gzip.compress(bytes(20 * MIB)),
    "hdf5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(2000),
    "pickle": lambda: pickle.dumps(Command()),
    "pickle, old": lambda: pickle.dumps(Command(), 0),
    "pickle as data": lambda: pack(GOOD[8:-8], pickle.dumps(Command())),
    "npy of objects": npy,
    "python": lambda: b"import os; os.system('exit 0')\n",
    "python in the header": lambda: pack(b"__import__('os').system('exit 0')"),
    "class name": lambda: pack({"a": {"__class__": "subprocess.Popen", "args": ["sh"]}}),
    "html": lambda: b"<html><script>alert(1)</script></html>",
    "onnx": lambda: b"\x08\x08\x12\x07pytorch:" + bytes(100),
}

# Nothing is wrong with these: what they hold has to be text and numbers and nothing else.
TAKEN: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: pack(b"{}"),
    "html names": lambda: pack({"<script>alert(1)</script>": array([2], [0, 8])}, bytes(8)),
    "names of other places": lambda: pack({"../../etc/passwd\0": array([2], [0, 8])}, bytes(8)),
    "terminal codes as a name": lambda: pack({"\x1b[2J\r\n": array([2], [0, 8])}, bytes(8)),
    "code as metadata": notes({"__reduce__": "os.system", "config": '{"class": "Lambda"}'}),
    "not a number as data": lambda: pack(GOOD[8:-8], b"\xff" * 8),
    "empty but long": one([1 << 47, 0], [0, 0], size=0),
    "64 dimensions": one([1] * 64, [0, 4], size=4),
    "100,000 arrays": lambda: tiny(100_000),
    "16 MB of names with wide letters": lambda: pack(
        b"{"
        + b",".join(
            b'"%s%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % (b"a" * 900 + EMOJI, n)
            for n in range(16_000)
        )
        + b"}"
    ),
    "8 MB of wide letters in metadata": lambda: pack(
        b'{"__metadata__":{"a":"' + EMOJI * 2_000_000 + b'"}}'
    ),
    "40 MB of data": lambda: pack({"a": array([10 * MIB], [0, 40 * MIB])}, bytes(40 * MIB)),
}
ATTACKS = REFUSED | TAKEN


def run(loader: str, attacks: dict[str, Callable[[], bytes]] = ATTACKS) -> dict[str, dict]:
    """What a loader, ``"module:function"`` of a path, does with each file."""
    with tempfile.TemporaryDirectory() as folder:
        names = [*attacks]
        for number, name in enumerate(names):
            Path(folder, f"{number}.safetensors").write_bytes(attacks[name]())
        command = [sys.executable, "-m", "tests.attacks", loader, folder, str(len(names))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return dict(zip(names, json.loads(done.stdout), strict=True))


def faults(report: dict) -> list[str]:
    """What a report has that must not be: nothing, where all is well."""
    found = [f"{report['outcome']}: {report['message']}"]
    if report["outcome"] in ("FormatError", "taken"):
        found = []
    if "\n" in report["message"] or len(report["message"]) > 1000:
        found.append(f"an error of more than a line: {report['message'][:2000]}")
    if report["deeds"]:
        found.append(f"it did {report['deeds']}")
    if report["seconds"] > 1 + report["size"] / (4 * MIB):  # of this process alone
        found.append(f"it took {report['seconds']} s")
    if report["growth"] > 2 * report["size"] + 64 * MIB:
        found.append(f"it took {report['growth'] / MIB:.0f} MiB for {report['size'] / MIB:.0f}")
    return found


def careless(path: Path) -> None:
    """What no loader may do, for a trial of the trial: it must be found out."""
    if path.stat().st_size != len(GOOD):
        pickle.loads(path.read_bytes())
        return
    list(range(10_000_000))  # memory
    end = time.process_time() + 1.1
    while time.process_time() < end:
        pass
    path.with_name("deed").write_bytes(b"")
    raise RuntimeError("two\nlines")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _report(load: Callable[[Path], object], path: Path) -> dict:
    """Load a file in this process, a fork that does nothing else and is watched."""
    deeds: list[str] = []

    def watch(event: str, arguments: tuple) -> None:
        if watching and DEEDS.match(event):
            deeds.append(f"{event}{arguments!r:.200}")
        elif watching and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            deeds.append(f"{event}{arguments!r:.200}")

    watching = False
    sys.addaudithook(watch)
    before = _resident()
    watching, began = True, time.process_time()
    outcome, message = "taken", ""
    try:
        load(path)
    except BaseException as error:
        outcome, message = type(error).__name__, str(error)
    watching, seconds = False, time.process_time() - began
    return {
        "outcome": outcome, "message": message, "deeds": deeds, "seconds": seconds,
        "growth": _peak() - before, "size": path.stat().st_size,
    }  # fmt: skip


def main(loader: str, folder: str, count: str) -> None:
    module, _, function = loader.partition(":")
    load = getattr(importlib.import_module(module), function)
    good = Path(folder, "good.safetensors")
    good.write_bytes(GOOD)
    with contextlib.suppress(Exception):  # what is imported once is no deed of a file
        load(good)
    reports = []
    for number in range(int(count)):
        receiver, sender = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(60)
            report = _report(load, Path(folder, f"{number}.safetensors"))
            with os.fdopen(sender, "w") as pipe:
                json.dump(report, pipe)
            os._exit(0)
        os.close(sender)
        with os.fdopen(receiver) as pipe:
            text = pipe.read()
        status = os.waitpid(child, 0)[1]
        death = {"outcome": f"ended by {status}", "message": "", "deeds": [], "seconds": 0.0}
        reports.append(json.loads(text) if text else death | {"growth": 0, "size": 0})
    print(json.dumps(reports))


if __name__ == "__main__":
    main(*sys.argv[1:])
