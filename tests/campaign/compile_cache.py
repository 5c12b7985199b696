"""The cache of compiled code under fire: right answers, one warning where it is due, repaired then.

Each case is a cache that holds a network's code and in which one thing is wrong. A new process
that uses it must give the right bits, warn once, or not at all where nothing is amiss, and end
well; later ones must not warn and, once the cause is gone, find everything.
"""

import os
import random
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path

from fastnn.kernels import _cache
from tests.cache_faults import DAMAGES, NOT_KEPT, UNUSABLE
from tests.campaign import _small
from tests.processes import ROOT, finished, start

COUNT, SMALL = 63, 1


def run(count):
    """All faults in turn, each time with other files, another network, another place to cut."""
    wrong = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            name, case = list(CASES.items())[number % len(CASES)]
            kind = _small.KINDS[number % len(_small.KINDS)]
            place = Path(folder) / f"{number}"
            try:
                case(place, kind, random.Random(number))
            except AssertionError as error:
                wrong[f"{number}: {name}, {kind}"] = error
            shutil.rmtree(place, ignore_errors=True)
    return {"cases": count, "kinds of faults": len(CASES), "failures": len(wrong), **wrong}


# What a process does: something about its surroundings, then its work.
FIRST = """
import os, resource, sys
from fastnn.kernels import _cache
from tests import cache_faults as faults
"""
WORK = """
from numba.core import event
from tests.campaign import _small
with event.install_recorder("numba:compile") as recorder:
    bits = _small.answers{}
print(bits, not recorder.buffer)
"""
OPENED = """
sys.addaudithook(lambda what, which: print(which[0]) if what == "open" else None)
"""
FULL = "_cache.open = faults.Full"
FORBIDDEN = "_cache.open = faults.failing(faults.FORBIDDEN)"
NO_ENTRY = "_cache.Path.replace = faults.failing(faults.NO_ROOM)"
NO_LONG_FILES = "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
READ_ONLY = """
_cache.open = faults.failing(faults.READ_ONLY)
for name in ("utime", "unlink", "rename", "replace"):
    setattr(os, name, faults.failing(faults.READ_ONLY))
"""
FOREIGN = "owner = os.geteuid(); os.geteuid = lambda: owner + 1"


def found(kind, cache, first="", *, warns=None, package=ROOT, bits=None):
    """Whether a new process compiled nothing; its bits and warnings must be the right ones."""
    # The package may be another, the tests are those of here.
    path = os.pathsep.join(map(str, (package, ROOT)))
    with start(FIRST + first + WORK.format(kind), path, cache) as process:
        printed, complaints = finished(process)
    said, compiled_nothing = printed.split()
    assert said == (bits or _small.answers(*kind)), f"wrong bits: {complaints}"
    lines = re.findall("Warning: (.*)", complaints)
    assert len(lines) == (warns is not None), complaints
    assert not lines or re.match(warns, lines[0]), complaints
    return compiled_nothing == "True"


def warm(place, kind):
    """A cache of what a network needs, copied from the one in use; its files."""
    source = _cache.root() or place.with_name("all")
    with start(FIRST + OPENED + WORK.format(kind), ROOT, source) as process:
        printed, _ = finished(process)
    names = {line for line in printed.splitlines() if line.endswith(_cache.SUFFIX)}
    copies = [place / name.parent.name / name.name for name in map(Path, sorted(names))]
    copies[0].parent.mkdir(parents=True, mode=0o700)
    place.chmod(0o700)
    for name, copy in zip(sorted(names), copies, strict=True):
        shutil.copy(name, copy)
    return copies


def some(files, rng):
    """At least one of them."""
    return rng.sample(files, rng.randint(1, len(files)))


# files that are not what they should be


def damaged(damage, place, kind, rng):
    for path in some(warm(place, kind), rng):
        damage(path)
    assert not found(kind, place, warns=UNUSABLE), "a damaged file was used"
    assert found(kind, place), "not repaired"


def cut(place, kind, rng):
    def anywhere(path):
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])

    damaged(anywhere, place, kind, rng)


def swapped(place, kind, rng):
    one, other = rng.sample(warm(place, kind), 2)
    content = one.read_bytes()
    shutil.copy(other, one)
    other.write_bytes(content)
    assert not found(kind, place, warns=UNUSABLE), "another's code was used"
    assert found(kind, place), "not repaired"


def missing(place, kind, rng):
    for path in some(warm(place, kind), rng):
        path.unlink()
    assert not found(kind, place)
    assert found(kind, place), "not repaired"


# folders where nothing can be written, or that are not to be trusted


def hindered(first, place, kind, rng):
    """Some code is missing, and what replaces it cannot be kept."""
    for path in some(warm(place, kind), rng):
        path.unlink()
    kept = sorted(place.rglob("*"))
    assert not found(kind, place, first, warns=NOT_KEPT)
    assert sorted(place.rglob("*")) == kept, "something was left behind"
    assert not found(kind, place)
    assert found(kind, place), "not kept when it could be"


def read_only(place, kind, rng):
    warm(place, kind)
    assert found(kind, place, READ_ONLY), "could have been read"


def foreign(place, kind, rng):
    warm(place, kind)
    assert not found(kind, place, FOREIGN, warns=NOT_KEPT), "a stranger's code was used"
    assert found(kind, place)


def open_to_others(place, kind, rng):
    opened = rng.choice([place, warm(place, kind)[0].parent])
    opened.chmod(0o777)
    assert not found(kind, place, warns=NOT_KEPT), "anybody's code was used"
    opened.chmod(0o700)
    assert found(kind, place)


def no_folder(place, kind, rng):
    place.touch()
    assert not found(kind, place, warns=NOT_KEPT)
    place.unlink()
    assert not found(kind, place)
    assert found(kind, place)


# other sources


def edited(place, kind, rng):
    """An edited formula is compiled; then both versions are found, side by side."""
    kind = ("no weights", kind[1])  # a relu, of which the formula is edited
    warm(place, kind)
    package = place / "package"
    for name in ("fastnn", "kernels"):
        shutil.copytree(
            ROOT / name, package / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    formula = package / "kernels" / "rectifiers.py"
    before = formula.read_text()
    after = before.replace(
        "zero if x[i] <= zero else x[i]", "zero if x[i] <= zero else x[i] + x[i]"
    )
    assert after != before
    old = _small.answers(*kind)
    assert found(kind, place, package=package), "the same sources elsewhere"
    formula.write_text(after)
    with start(
        FIRST + WORK.format(kind), os.pathsep.join([str(package), str(ROOT)]), ""
    ) as process:
        new = finished(process)[0].split()[0]
    assert new != old
    assert not found(kind, place, package=package, bits=new), "stale code"
    for text, bits in ((before, old), (after, new)):
        formula.write_text(text)
        assert found(kind, place, package=package, bits=bits), "two versions, side by side"


CASES = {
    "junk": partial(damaged, DAMAGES[0]),
    "disk full": partial(hindered, FULL),
    "swapped": swapped,
    "edited": edited,
    **{damage.__name__: partial(damaged, damage) for damage in DAMAGES[1:]},
    "cut anywhere": cut,
    "missing": missing,
    "nothing may be written": partial(hindered, FORBIDDEN),
    "no room for an entry": partial(hindered, NO_ENTRY),
    "no long files": partial(hindered, NO_LONG_FILES),
    "read-only, something missing": partial(hindered, READ_ONLY),
    "read-only": read_only,
    "a foreign owner": foreign,
    "open to others": open_to_others,
    "no folder": no_folder,
}
