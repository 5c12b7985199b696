"""The on-disk cache of compiled code: one file for each function, signature, machine and mode.

numba's own cache keeps an index beside its data files and rewrites it without a lock: two
processes that compile at once can make it serve one signature's code to another. It also raises
in the caller's face when a file is truncated, the disk is full or no folder is writable, and it
does not notice an edit in a function that the cached one calls. Here

* a file's name is a hash of its signature, machine and mode: there is no index to race for;
* the folder's name is a hash of the source of all kernels, which holds their compile options, and
  of the versions: code from before an edit or an upgrade is never found;
* a file starts with a checksum of its place and content, and is renamed once it is complete;
* whatever goes wrong, the code is compiled again and a warning, one for each cause, says why.

Some code is not kept, because no hash would tell when it is stale: functions from outside this
package, closures and what calls them, code that holds an address, and whatever is compiled after
the sources have been edited under a running process.

The files hold pickles, so whoever can write them can run code as you. Their folder is made for
its owner alone; it is not used if others can write to it or replace it.

``FASTNN_CACHE_DIR`` moves the cache; set to an empty string it turns it off.
"""

import contextlib
import hashlib
import importlib.machinery
import importlib.resources
import os
import pickle
import re
import stat
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import llvmlite
import numba
import numpy as np
from llvmlite.binding import address_of_symbol, llvm_version_info
from numba.core import config, sigutils
from numba.core.caching import _Cache, dumps
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys

SUFFIX = ".fastnn"
UNFINISHED = ".fastnn-part"
KEPT = 6  # folders of older kernels that stay, for those who switch between versions
HOUR = 3600  # after it nobody still writes a file, or is about to use a folder
# numba's settings that change the code and show neither in its source nor in the machine's name.
MODES = (
    "BOUNDSCHECK DEBUGINFO_DEFAULT DEBUG_JIT DEBUG_NRT EXTEND_VARIABLE_LIFETIMES FULL_TRACEBACKS "
    "LLVM_REFPRUNE_FLAGS LLVM_REFPRUNE_PASS LOOP_VECTORIZE OPT SLP_VECTORIZE "
    "USE_LLVMLITE_MEMORY_MANAGER USING_SVML"
).split()
CLOSURE = re.compile("_3c[a-z]+_3e")  # "<locals>" or "<lambda>" in a mangled name
NOT_KEPT = (
    "compiled code is not kept for the next run; set FASTNN_CACHE_DIR to a folder of your own "
    "with room in it, or to an empty string to do without"
)
# Windows denies a file while another process puts it in place.
ABSENT = (FileNotFoundError, PermissionError) if os.name == "nt" else (FileNotFoundError,)


def _sources() -> str:
    """A hash of every kernel's source; empty where there is none, as in a frozen program."""
    try:
        files = importlib.resources.files(__package__).iterdir()
        # Other names that end in .py, such as ".#dense.py", are an editor's.
        found = sorted((f.name, f.read_bytes()) for f in files if re.fullmatch(r"\w+\.py", f.name))
    except Exception:  # of whatever loader the package came with
        found = []
    return hashlib.sha256(repr(found).encode()).hexdigest() if found else ""


# Read before any kernel is imported; `folder` looks again after, and trusts what has not changed.
SOURCES = _sources()
SETTINGS = os.environ.get("FASTNN_VECTOR_BITS")


def source_key() -> str:
    """A hash of all that decides what the kernels say, and of who translates it."""
    versions = (numba.__version__, llvmlite.__version__, llvm_version_info, np.__version__)
    # The suffix tells debug and free-threaded builds from others.
    python = (sys.version, importlib.machinery.EXTENSION_SUFFIXES[0], sys.flags.optimize)
    return hashlib.sha256(repr((SOURCES, SETTINGS, versions, python)).encode()).hexdigest()[:16]


def root() -> Path | None:
    """Where the cache lives, or None where the user has turned it off."""
    place = os.environ.get("FASTNN_CACHE_DIR")
    if place == "":
        return None
    if place is None:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        place = Path(base) / "fastnn"
    return Path(place).expanduser().resolve()  # or a link could be made to lead elsewhere later


@cache
def folder() -> Path | None:
    """Folder for this version of the kernels, made ready; None if it cannot be or must not be."""
    try:
        top = root()
        if top is None:
            return None
        sources = _sources()
        if not sources:
            raise RuntimeError("the source of the kernels is not installed")
        if sources != SOURCES:
            return None
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = top / source_key()
        place.mkdir(mode=0o700, exist_ok=True)
        _refuse_foreign(place)
        with contextlib.suppress(OSError):  # a folder that can only be read will do
            os.utime(place)  # tells _sweep that it is in use
        return place
    except Exception as error:  # no home, no permission, no disk: no reason to stop
        _warn(NOT_KEPT, error)
        return None


def _refuse_foreign(place: Path) -> None:
    """Raise if others can write to the folder, or put another in its place."""
    if not hasattr(os, "geteuid"):
        return  # Windows: nobody else writes below a user's profile
    me = os.geteuid()
    for path, owners, guard in ((place, {me}, 0), (place.parent, {me, 0}, stat.S_ISVTX)):
        status = path.lstat()
        if status.st_uid not in owners:
            raise PermissionError(f"{path} belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & guard:
            raise PermissionError(f"{path} can be written by others: chmod go-w closes it")


@cache
def _sweep(place: Path) -> None:
    """Delete, once in a process, unfinished files and folders of kernels long replaced."""
    old = time.time() - HOUR
    with contextlib.suppress(OSError):  # other processes sweep, too
        for file in place.glob(f"*{UNFINISHED}"):
            if file.stat().st_mtime < old:
                file.unlink()
        owner, others = place.stat().st_uid, []
        for path in place.parent.iterdir():
            status = path.lstat()
            ours = re.fullmatch("[0-9a-f]{16}", path.name) and status.st_uid == owner
            if ours and stat.S_ISDIR(status.st_mode) and path != place:
                others.append((status.st_mtime, path))
        for used, path in sorted(others, reverse=True)[KEPT:]:
            with contextlib.suppress(OSError):
                if used < old:
                    for file in path.iterdir():
                        if file.suffix in (SUFFIX, UNFINISHED):
                            file.unlink()
                    path.rmdir()  # fails if anything else was in it


_warned: set[str] = set()


def _warn(message: str, error: Exception) -> None:
    """Warn, once for each message, at the line outside fastnn and numba that led here."""
    if message in _warned:
        return
    _warned.add(message)
    level, frame = 1, sys._getframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in ("fastnn", "numba"):
        level, frame = level + 1, frame.f_back
    reason = f"{type(error).__name__}: {error}"
    warnings.warn(f"fastnn: {message} ({reason})", RuntimeWarning, stacklevel=level)


def _needs(library) -> set[str]:
    """Names of what code calls and reads that is not its own."""
    module = library._final_module
    found = {v.name for v in (*module.functions, *module.global_variables) if v.is_declaration}
    return {name for name in found if not name.startswith("llvm.")}


def _checksum(path: Path, content: bytes) -> bytes:
    """Of a file that belongs in this place: the content of another one is no good here."""
    return hashlib.sha256(f"{path.parent.name}/{path.name}\0".encode() + content).digest()


# Symbols that kept code may call without holding them: see `_kernel.on_its_own`.
SYMBOLS: dict[str, Callable[[], None]] = {}


class KernelCache(_Cache):
    """What a numba dispatcher or C callback asks for compiled code, and hands new code to."""

    def __init__(self, function):
        package, _, module = (function.__module__ or "").rpartition(".")
        self._stem = f"{module}.{function.__qualname__}"
        self._line = function.__code__.co_firstlineno
        # Name and line stand for the source in this package only, and not for what has "<locals>"
        # or "<lambda>" in its name.
        self._known = package == __package__ and "<" not in self._stem
        self._enabled = True

    @property
    def cache_path(self):
        place = folder()
        return None if place is None else str(place)

    def enable(self):
        self._enabled = True

    def disable(self):
        self._enabled = False

    def flush(self):
        place = folder() if self._known else None
        for path in place.glob(f"{self._stem}-*{SUFFIX}") if place else ():
            with contextlib.suppress(OSError):
                path.unlink()

    def _path(self, sig, codegen) -> Path | None:
        """Where the code for a signature lies; None if it is not kept."""
        place = folder() if self._known and self._enabled else None
        mode = [getattr(config, name, None) for name in MODES]
        signature = sigutils.normalize_signature(sig)
        identity = repr((self._line, signature, codegen.magic_tuple(), mode))
        if place is None or " at 0x" in identity:  # the address of a function given as argument
            return None
        digest = hashlib.sha256(identity.encode()).hexdigest()[:24]
        return place / f"{self._stem}-{digest}{SUFFIX}"

    def load_overload(self, sig, target_context):
        """The code for a signature, if it is kept.

        numba would first bring in everything it can compile, which takes longer than all the rest
        of a warm start. Code that is compiled already needs it where it calls what is only there
        then.
        """
        path = self._path(sig, target_context.codegen())
        if path is None:
            return None
        try:
            data = path.read_bytes()
            if data[:32] != _checksum(path, data[32:]):
                raise ValueError(f"{path}: wrong checksum")
            needs, code = pickle.loads(data[32:])
            for name in SYMBOLS.keys() & needs:
                SYMBOLS[name]()
            rtsys.initialize(target_context)
            if any(address_of_symbol(name) is None for name in needs):
                target_context.refresh()
            return CompileResult._rebuild(target_context, *code)
        except ABSENT:
            return None
        except Exception as error:  # whatever is wrong with the file, the next one replaces it
            _warn("kept code cannot be used and is compiled again", error)
            return None

    def save_overload(self, sig, data):
        path = self._path(sig, data.codegen)
        if path is None or data.lifted or data.library.has_dynamic_globals:
            return
        _sweep(path.parent)
        unfinished = path.with_name(f"{self._stem}-{uuid.uuid4().hex}{UNFINISHED}")
        try:
            # Closures are told apart by a number that starts at 1 in every process, and linking
            # the code of two processes can take one for another.
            for function in data.library.get_defined_functions():
                if CLOSURE.search(function.name):
                    raise ValueError(f"{self._stem} calls the closure {function.name}")
            content = dumps((_needs(data.library), data._reduce()))
            try:
                with open(unfinished, "xb") as file:
                    file.write(_checksum(path, content) + content)
                unfinished.replace(path)
            finally:  # after an interrupt, too
                with contextlib.suppress(OSError):
                    unfinished.unlink()
        except Exception as error:
            if not os.path.exists(path):  # or else another process has put it there
                _warn(NOT_KEPT, error)
