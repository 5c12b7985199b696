"""Damaged files: each is refused with a FormatError, or what is read is whole and sound.

Every truncation, every flipped bit and every inverted byte of small files, then `count` random
mutations: bits, bytes, insertions, deletions, blocks swapped and repeated, other numbers, words and
lengths in the header. Half of them get a length and a checksum that fit again, so that what stands
behind these is reached. `run` takes the function under trial, and files that are good.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from fastnn import files
from tests.attacks import GOOD, pack, sealed

COUNT = 1_000_000
SMALL = 10_000
SLOW = 1.0  # seconds of this process for one file

NUMBER, WORD = re.compile(rb"-?\d+"), re.compile(rb'"[^"]*"')
NUMBERS = [
    *(b"%d" % n for n in (-1, 0, 1, 2, 4, 7, 8, 255, 1 << 20)),
    *(b"%d" % (1 << n) for n in (31, 32, 47, 48, 62, 63, 64, 200)),
    *b"-2147483648 1.0 1e3 1e999 NaN -Infinity true null [] {} [1] 01 +1 0x1 , ] }".split(),
]
WORDS = [
    *b'"F32" "F64" "I64" "U64" "U8" "F16" "dtype" "shape" "data_offsets" "sha256"'.split(),
    *rb'"__metadata__" "" "\ud800" "\u0061" "a "\" 1 [] {} null'.split(),
]


def originals() -> list[bytes]:
    """Small files that are good: what is nearly right goes furthest."""
    rng = np.random.default_rng(0)
    arrays = {
        "0.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "0.bias": np.ones(4),
        "steps": np.array(7),
        "bytes": np.arange(5, dtype=np.uint8),
        "none": np.empty((0, 3), np.uint64),
    }
    notes = {"format": "np", "note": 'ü {}[]"\\'}
    return [
        b"".join(files._content("one", {"a": arrays["0.weight"]}, {})),
        b"".join(files._content("many", arrays, notes)),
        GOOD,  # has no checksum
    ]


def load(content: bytes) -> Hashable:
    """`fastnn.files` under trial: what it returns must be as it says, and is told apart by this."""
    arrays, metadata = files.parse(content, "corrupt")
    for array in arrays.values():
        assert array.dtype in [dtype.newbyteorder("=") for dtype in files.DTYPES.values()]
        assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous
    assert sum(array.nbytes for array in arrays.values()) < len(content)
    "".join([*arrays, *metadata, *metadata.values()]).encode()
    return tuple((name, array.shape, array.tobytes()) for name, array in arrays.items())


def changed(part: bytes, draw: random.Random) -> bytes:
    """A piece of a file with one thing wrong."""
    new = bytearray(part or b"\0")
    at, other = draw.randrange(len(new)), draw.randrange(len(new))
    size = draw.choice((1, 1, 2, 4, 8, 16, 50))
    block = new[at : at + size]
    kind = draw.choice("bit byte insert delete swap repeat number number number word word".split())
    if kind == "bit":
        new[at] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        new[at] = draw.choice(b'\0\1\n ",[]{}:\\09aF\x7f\x80\xff')
    elif kind == "insert":
        new[at:at] = draw.randbytes(size)
    elif kind == "delete":
        del new[at : at + size]
    elif kind == "swap":
        new[at : at + size] = new[other : other + size]
        new[other : other + size] = block
    elif kind == "repeat":
        new[other:other] = block
    else:
        pattern, others = (NUMBER, NUMBERS) if kind == "number" else (WORD, WORDS)
        if found := [*pattern.finditer(new)]:
            start, stop = draw.choice(found).span()
            new[start:stop] = draw.choice(others)
    return bytes(new)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A file with one to three things wrong, anywhere, or behind a length and checksum that fit."""
    times, way = draw.choice((1, 1, 1, 2, 3)), draw.random()
    end = 8 + int.from_bytes(content[:8], "little")
    if way < 0.1:
        length = draw.choice((draw.getrandbits(64), max(end - 8 + draw.randint(-20, 20), 0)))
        return length.to_bytes(8, "little") + content[8:]
    if way < 0.5:
        for _ in range(times):
            content = changed(content, draw)
        return content
    text, body = content[8:end], content[end:]
    for _ in range(times):
        if draw.random() < 0.9:
            text = changed(text, draw)
        else:
            body = changed(body, draw)
    return sealed(pack(text, body))


def run(
    count: int,
    load: Callable[[bytes], Hashable] = load,
    originals: Callable[[], Sequence[bytes]] = originals,
) -> dict[str, int | float | str]:
    """`load` takes what a file contains and returns what tells its result from others."""
    figures: Counter[str] = Counter()
    first, slowest = "", 0.0

    def fail(content: bytes, why: str) -> None:
        nonlocal first
        figures["failures"] += 1
        first = first or f"{why}: {content!r:.1000}"

    def attempt(content: bytes) -> Hashable | None:
        """What is read; None for a FormatError."""
        nonlocal slowest
        figures["cases"] += 1
        began, result = time.process_time(), None
        try:
            result = load(content)
            figures["taken"] += 1
        except files.FormatError:
            figures["refused"] += 1
        except Exception as error:
            fail(content, repr(error))
        slowest = max(slowest, time.process_time() - began)
        return result

    good = originals()
    for content in good:
        wanted = attempt(content)
        if wanted is None:
            fail(content, "a good file is refused")
        for end in range(len(content)):
            if attempt(content[:end]) is not None:
                fail(content[:end], "a part is taken for the whole")
        for place in range(len(content)):
            for flip in (*(1 << bit for bit in range(8)), 0xFF):
                flipped = content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]
                result = attempt(flipped)
                # Only the word "sha256" itself may go: nothing else is lost with it.
                if b'"sha256":"' in content and result not in (None, wanted):
                    fail(flipped, "a flipped byte went unseen")
    figures["systematic"] = figures["cases"]
    draw = random.Random(0)
    for _ in range(count):
        attempt(mutated(draw.choice(good), draw))
    if slowest > SLOW:
        fail(b"", f"{slowest:.2f} s for one file")
    figures["random"] = figures["cases"] - figures["systematic"]
    names = ("cases", "systematic", "random", "refused", "taken", "failures")
    return {name: figures[name] for name in names} | {
        "slowest, ms": round(slowest * 1000, 1),
        "first failure": first or "none",
    }
