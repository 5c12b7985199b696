"""The on-disk cache of compiled code: one file for each function, signature and machine.

numba's own cache keeps an index beside its data files and rewrites it without
a lock: two processes that compile at once can make it serve one signature's
code to another. It also raises in the caller's face when a file is truncated,
the disk is full or no folder is writable, and it does not notice an edit in a
function that the cached one calls. Here

* a file's name is a hash of everything it depends on, so there is no index to race for;
* the folder's name is a hash of every kernel's source, of the versions and of the
  compile mode, so code from before an edit or an upgrade is never found;
* a file carries its own checksum and is written beside its place and then renamed;
* whatever goes wrong, the code is compiled again and one warning says why.

The files hold pickles, so whoever can write them can run code as you: the
folder is created for its owner alone, and one that belongs to somebody else
is not used.

``FASTNN_CACHE_DIR`` moves the cache; set to an empty string it turns it off.
"""

import contextlib
import hashlib
import os
import pickle
import platform
import shutil
import stat
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, _Cache, dumps
from numba.core.compiler import CompileResult

SUFFIX = ".fastnn"
KEPT = 6  # folders of older kernels that stay, for those who switch between versions


def source_key() -> str:
    """A hash of all that decides what the compiler makes of a kernel, apart from the machine."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(here.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    mode = (
        numba.__version__,
        llvmlite.__version__,
        np.__version__,
        platform.python_version(),
        config.BOUNDSCHECK,
        config.OPT,
        config.CPU_NAME,
        config.CPU_FEATURES,
        os.environ.get("FASTNN_VECTOR_BITS"),
    )
    digest.update(repr(mode).encode())
    return digest.hexdigest()[:16]


def root() -> Path | None:
    """Where the cache lives, or None where the user has turned it off."""
    asked = os.environ.get("FASTNN_CACHE_DIR")
    if asked is not None:
        return Path(asked) if asked else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fastnn"


@cache
def folder() -> Path | None:
    """Folder for this version of the kernels, made ready; None, with a warning, if it cannot be."""
    try:
        top = root()
        if top is None:
            return None
        place = top / source_key()
        fresh = not place.is_dir()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            status = place.stat()
            if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"{place} can be written by others")
        tempfile.TemporaryFile(dir=place).close()
        if fresh:
            _sweep(top, place)
        return place
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        warnings.warn(
            f"fastnn: compiled code is not kept between runs ({error}); "
            "set FASTNN_CACHE_DIR to a folder of your own",
            stacklevel=2,
        )
        return None


def _sweep(top: Path, place: Path) -> None:
    """Drop the folders of kernels that have long been replaced."""
    with contextlib.suppress(OSError):
        others = [
            p for p in top.iterdir() if p != place and len(p.name) == len(place.name) and p.is_dir()
        ]
        for old in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


class KernelCache(_Cache):
    """What a numba dispatcher or C callback asks for compiled code, and hands new code to."""

    def __init__(self, function):
        self._function = function
        self._enabled = True

    @property
    def cache_path(self):
        return str(folder() or "")

    def enable(self):
        self._enabled = True

    def disable(self):
        self._enabled = False

    def flush(self):
        place = folder()
        if place is not None:
            for path in place.glob(f"{self._stem()}-*{SUFFIX}"):
                path.unlink(missing_ok=True)

    def _stem(self) -> str:
        return f"{self._function.__module__.rpartition('.')[2]}.{self._function.__qualname__}"

    def _path(self, signature, codegen) -> Path | None:
        place = folder() if self._enabled else None
        if place is None:
            return None
        code = self._function.__code__
        identity = (str(signature), codegen.magic_tuple(), code.co_code.hex(), code.co_firstlineno)
        return (
            place
            / f"{self._stem()}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:24]}{SUFFIX}"
        )

    def load_overload(self, sig, target_context):
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._give_up(path, error)
        try:
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                raise ValueError("checksum does not match")
            result = CompileResult._rebuild(target_context, *pickle.loads(data[32:]))
            if tuple(result.signature.args) != tuple(getattr(sig, "args", sig)):
                raise ValueError(f"holds code for {result.signature}")
            return result
        except Exception as error:  # whatever is in a damaged file, the answer is to compile again
            return self._give_up(path, error)

    def save_overload(self, sig, data):
        path = self._path(sig, data.codegen)
        if path is None or data.lifted or data.library.has_dynamic_globals:
            return
        temporary = None
        try:
            payload = dumps(data._reduce())
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                temporary = Path(file.name)
                file.write(hashlib.sha256(payload).digest() + payload)
            temporary.replace(path)
        except Exception as error:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            warnings.warn(
                f"fastnn: compiled code not kept ({type(error).__name__}: {error})", stacklevel=2
            )

    def _give_up(self, path: Path, error: Exception) -> None:
        warnings.warn(
            f"fastnn: compiling again, {path.name} cannot be used "
            f"({type(error).__name__}: {error})",
            stacklevel=3,
        )
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


__all__ = ["CompileResultCacheImpl", "KernelCache", "folder", "root", "source_key"]
