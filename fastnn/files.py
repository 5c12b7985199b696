"""Files of named arrays in the safetensors format, written whole or not at all, read without trust.

A file is the length of a header (8 bytes, little-endian), the header in JSON, and the arrays one
behind another::

    {"__metadata__": {"sha256": "..."}, "0.weight": {"dtype": "F32", "shape": [2, 64],
     "data_offsets": [0, 512]}, ...}

Nothing in a file is executed: names come from no table of classes, sizes are checked before
anything is allocated. Hugging Face's ``safetensors`` reads these files and its files are read
here. Source: the description of the format at https://github.com/huggingface/safetensors.

The checksum is that of the whole file from the header on, with 64 zeros in its own place: it finds
damage in metadata and names as it does in the data.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastnn._check import file_path

try:
    import fcntl
except ImportError:  # Windows, where nobody can delete a file that is open
    fcntl = None  # type: ignore[assignment]

__all__ = ["FormatError", "parse", "read", "write"]

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "U8": np.dtype("u1"),
}
METADATA, CHECKSUM = "__metadata__", "sha256"
NO_CHECKSUM = b"0" * 64

# Limits of a header. Python's objects are far larger than the JSON that makes them: with these, no
# file takes more than twice its size and 64 MiB.
LONGEST = 1 << 24  # bytes; 100,000 arrays take about half
LONGEST_METADATA = 1 << 23  # bytes
MOST = 1 << 17  # arrays
LONGEST_NAME = 1000  # bytes
LARGEST = 1 << 48  # elements of an array, those of empty dimensions counted as one
DIMENSIONS = 64  # numpy's own limit

PIECE = 1 << 24  # bytes read at a time

# A header is cut into its entries by a grammar, so that json sees a short piece at a time, or one
# of texts alone: no depth, no flood of brackets. What *+ has matched is never tried in another
# way: the time is linear.
TEXT = rb'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
ENTRY = re.compile(
    rb"""
    [ \t\n\r]*+
    (?P<entry>
      "__metadata__" GAP : GAP \{ (?: GAP TEXT GAP : GAP TEXT GAP ,?+ ){0,1000} GAP \}
    | (?P<name> TEXT) GAP : GAP (?P<array> \{ [^{}]{0,2000}+ \} )
    )?
    GAP (?P<next> [,}])
    """.replace(b"TEXT", TEXT).replace(b"GAP", rb"[ \t\n\r]*+"),
    re.VERBOSE,
)

Places = dict[str, tuple[int, int, np.dtype[Any], tuple[int, ...]]]


class FormatError(ValueError):
    """A file is damaged, or is no safetensors file that fastnn can use."""


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays to a file, all of it or nothing.

    The file is written under another name in the same folder, brought to the disk, and renamed:
    at every moment there is the old file or the new one. What an earlier save has left behind
    because it was killed is deleted first.

    Parameters
    ----------
    path : str or PathLike
        The file. An old one is replaced and its mode is kept; one that may not be written, or is
        no regular file, is refused, as `open` would. A symbolic link stays, and the file that it
        leads to is replaced; other hard links to the old file keep its content.
    arrays : mapping of str to array
        float32, float64, int64, uint64 or uint8, of any layout.
    metadata : mapping of str to str
        What else is to be known. A checksum is added under the name "sha256".

    Raises
    ------
    OSError
        Where the system cannot write; an old file is as it was. Only where the system fails after
        all is written, in bringing the name to the disk, it is the new one, and the error says so.
    TypeError, ValueError
        Where `read` could not give back what is to be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastnn import files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files.write(f"{folder}/a.safetensors", {"x": np.arange(3)}, {"note": "three"})
    ...     files.read(f"{folder}/a.safetensors")
    ({'x': array([0, 1, 2])}, {'note': 'three'})
    """
    head, body = _content(named_file(path).name, arrays, metadata)
    put(path, head, body)


def named_file(path: str | os.PathLike[str]) -> Path:
    """A path that names a file."""
    asked = file_path("path", path)
    if not asked.name:
        raise ValueError(f"path must name a file, got {str(asked)!r}")
    return asked


def put(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    """Write the parts to a file, one behind the other: all of it or nothing, as `write` does."""
    asked = str(named_file(path))
    as_it_was = "; nothing was saved, what was there is as it was"
    with contextlib.ExitStack() as stack:
        with _named(asked, as_it_was):
            target = os.path.realpath(asked)
            mode = _mode(target)
            if fcntl:  # opened before anything is written: a failure now does no harm
                folder = stack.enter_context(_opened(os.path.dirname(target), os.O_RDONLY))
            _sweep(target)
            while not _replaced(target, mode, *parts):
                pass
        with _named(asked, "; the new file is whole, but may not survive a power cut"):
            if fcntl:
                _sync(folder)


def _content(
    name: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> tuple[bytes, memoryview]:
    """The two parts of a file: length and header, and the data, a copy that nobody else changes."""
    kinds = {dtype: kind for kind, dtype in DTYPES.items()}
    plain = {key: np.asarray(array) for key, array in arrays.items()}
    for key, array in plain.items():
        if not isinstance(key, str) or array.dtype.newbyteorder("<") not in kinds:
            known = ", ".join(dtype.name for dtype in kinds)
            raise TypeError(f"{key!r} must be a text and its array {known}, got {array.dtype}")
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise TypeError(f"metadata must be texts by name, got {metadata!r:.80}")
    if METADATA in arrays or CHECKSUM in metadata:
        raise ValueError(f"{METADATA!r} for an array and {CHECKSUM!r} in metadata are taken")

    body = memoryview(bytearray(sum(array.nbytes for array in plain.values())))
    places, at = {}, 0
    # The widest numbers come first: so all lie where a reader that maps the file needs them.
    for key in sorted(plain, key=lambda key: -plain[key].itemsize):
        array, end = plain[key], at + plain[key].nbytes
        dtype = array.dtype.newbyteorder("<")
        np.frombuffer(body[at:end], dtype).reshape(array.shape)[...] = array
        places[key] = {"dtype": kinds[dtype], "shape": array.shape, "data_offsets": [at, end]}
        at = end
    header: dict[str, Any] = {METADATA: {CHECKSUM: NO_CHECKSUM.decode(), **metadata}}
    header |= {key: places[key] for key in plain}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    _header(name, text, len(body))  # what is written can be read
    checksum = _checksum(text, body).encode()
    return len(text).to_bytes(8, "little") + text.replace(NO_CHECKSUM, checksum, 1), body


def _checksum(text: bytes | bytearray, body: memoryview) -> str:
    """Of a header without its checksum, and the data."""
    result = hashlib.sha256(text)
    result.update(body)
    return result.hexdigest()


@contextlib.contextmanager
def _named(path: str, outcome: str = "") -> Iterator[None]:
    """Errors of the system bear the name of the file that was asked for."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{outcome}", path) from error


@contextlib.contextmanager
def _opened(path: str, flags: int, mode: int = 0o666) -> Iterator[int]:
    """A file's descriptor: with it, every call of the system is one that is seen here."""
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), mode)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # what matters was brought to the disk before
            os.close(descriptor)


def _mode(path: str) -> int | None:
    """Mode of a file that may be replaced; None where there is none yet."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):  # renaming over a device would be the end of it
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, f"{os.strerror(code)}: it is no regular file")
    if not os.access(path, os.W_OK):  # renaming would not ask
        raise OSError(errno.EACCES, f"{os.strerror(errno.EACCES)}: it is write-protected")
    return mode & 0o777


def _sweep(path: str) -> None:
    """Delete what killed saves of this file have left, as far as that can be done.

    Whoever writes such a file holds a lock on it, which the system takes away when the process
    ends, however it ends. Numbers of processes would not do: they come again, and those of another
    machine or container say nothing here; an age would keep large files for long.
    """
    folder, name = os.path.split(path)
    ours = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError):
        for found in filter(ours.fullmatch, os.listdir(folder)):
            left = os.path.join(folder, found)
            with contextlib.suppress(OSError):  # locked or open: it is being written
                if fcntl:
                    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                    with _opened(left, flags) as descriptor:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(left)
                else:
                    os.unlink(left)


def _replaced(path: str, mode: int | None, *parts: bytes | memoryview) -> bool:
    """Write under another name and rename; False if a sweep took the new file for a left one."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with _opened(temporary, flags, 0o666 if mode is None else mode) as descriptor:
            if fcntl:
                with contextlib.suppress(OSError):  # where files have no locks, none is swept
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                try:
                    os.lstat(temporary)
                except FileNotFoundError:  # swept in the moment before the lock
                    return False
                if mode is not None:
                    os.fchmod(descriptor, mode)  # what the umask took away
            for part in parts:
                left = memoryview(part)
                while left:  # the system may take less than it is given
                    left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
            if fcntl:  # as long as the lock is held
                os.replace(temporary, path)
        if not fcntl:  # Windows renames no file that is open
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return True


def _sync(folder: int) -> None:
    """Bring a folder's names to the disk, so that the new file survives a power cut as well."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such call
            raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays of a file, and its metadata.

    Safe on files from strangers: at most twice a file's size and 64 MiB of memory are taken, in
    linear time, and only for bytes that are there.

    Parameters
    ----------
    path : str or PathLike
        A safetensors file of float32, float64, int64, uint64 or uint8 arrays.

    Returns
    -------
    dict of str to array, dict of str to str
        Arrays in the order of the header; the metadata without the checksum.

    Raises
    ------
    FormatError
        Where the file is damaged, cut, or not of this format.
    OSError
        Where the system cannot read.
    """
    asked = str(file_path("path", path))
    name = os.path.basename(asked)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a pipe would let us wait for a writer
    with _named(asked), _opened(asked, flags) as descriptor:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{name!r} is no safetensors file: it is no regular file")

        def take(count: int) -> bytearray:
            """The next bytes; the system may give less than it is asked for."""
            content = bytearray()
            while len(content) < count:
                piece = os.read(descriptor, min(count - len(content), PIECE))
                if not piece:
                    break
                content += piece
            return content

        return _parse(name, take, status.st_size)


def parse(content: bytes, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read what a file contains, as `read` does; `name` is for errors.

    Examples
    --------
    >>> from fastnn import files
    >>> files.parse(b"no such thing", "a.safetensors")
    Traceback (most recent call last):
    ...
    fastnn.files.FormatError: 'a.safetensors' is no safetensors file, or cut: ...
    """
    return _parse(name, io.BytesIO(content).read, len(content))


def _parse(
    name: str, take: Callable[[int], bytes | bytearray], size: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a file of `size` bytes piece by piece, each checked before the next is taken."""
    length = int.from_bytes(take(8), "little")
    if length > min(LONGEST, size - 8):
        raise FormatError(
            f"{name!r} is no safetensors file, or cut: "
            f"a header of {length} bytes in a file of {size}, at most {LONGEST} are read"
        )
    text = take(length)
    places, metadata = _header(name, text, size - 8 - length)
    body = memoryview(take(size - 8 - length))
    if len(body) != size - 8 - length:
        raise FormatError(f"{name!r} became shorter while it was read")
    checksum = metadata.pop(CHECKSUM, None)
    if checksum is not None:
        plain = text.replace(checksum.encode(), NO_CHECKSUM, 1)
        if checksum != _checksum(plain, body):
            raise FormatError(f"{name!r} is damaged: its checksum does not fit its content")
    return {
        key: np.frombuffer(body[start:stop], dtype).reshape(shape).astype(dtype.newbyteorder("="))
        for key, (start, stop, dtype, shape) in places.items()
    }, metadata


def _header(name: str, text: bytes | bytearray, size: int) -> tuple[Places, dict[str, str]]:
    """Where arrays lie in data of `size` bytes, and what they are; the metadata."""
    try:
        return _entries(text, size)
    except (ValueError, RecursionError) as error:  # of json as well
        raise FormatError(f"{name!r} has a header that cannot be used: {error}") from None


def _entries(text: bytes | bytearray, size: int) -> tuple[Places, dict[str, str]]:
    """What `_header` gives, or a ValueError that says what is wrong."""
    places: Places = {}
    metadata: dict[str, str] | None = None
    if text[:1] != b"{":
        raise ValueError("it must be an object of JSON from its first byte")
    at, more = 1, True
    while more:
        found = ENTRY.match(text, at)
        if not found:
            raise ValueError(f"neither an array nor up to 1000 texts of metadata at its byte {at}")
        at, more = found.end(), found["next"] == b","
        start, stop = found.span("entry")
        if start < 0:
            if more or places or metadata is not None:
                raise ValueError(f"nothing stands before the comma or brace at its byte {at - 1}")
            break
        if (
            stop - start > LONGEST_METADATA
            or found.end("name") - found.start("name") > LONGEST_NAME
        ):
            raise ValueError(
                f"at most {LONGEST_METADATA} bytes of metadata, {LONGEST_NAME} of a name"
            )
        [(key, value)] = DECODER.decode((b"{" + text[start:stop] + b"}").decode()).items()
        key.encode()  # half of a pair of surrogates is no text that could be printed
        if key in places or (key == METADATA and metadata is not None):
            raise ValueError(f"{key[:80]!r} stands twice")
        if key == METADATA:
            metadata = _texts(value)
        elif len(places) == MOST:
            raise ValueError(f"at most {MOST} arrays")
        else:
            places[key] = _place(key, value)
    if text[at:].strip(b" \t\n\r"):
        raise ValueError(f"something follows its end at byte {at}")
    end = 0
    for start, stop, _, _ in sorted(places.values(), key=lambda place: place[:2]):
        if start != end:
            raise ValueError(f"arrays must lie one behind another, not at {start} after {end}")
        end = stop
    if end != size:
        raise ValueError(f"it describes {end} bytes of data, and there are {size}")
    return places, metadata or {}


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON with each name once."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


DECODER = json.JSONDecoder(object_pairs_hook=once)


def _texts(value: dict[str, Any]) -> dict[str, str]:
    """Metadata: texts by name."""
    for key, text in value.items():
        if not isinstance(text, str):
            raise ValueError(f"metadata must be texts by name, got {text!r:.80} for {key[:80]!r}")
        key.encode(), text.encode()
    return value


def _place(key: str, value: dict[str, Any]) -> tuple[int, int, np.dtype, tuple[int, ...]]:
    """Where an array lies, and what it is."""
    if set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{key[:80]!r} must have dtype, shape, data_offsets, got {value!r:.200}")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"{key[:80]!r} must be one of {', '.join(DTYPES)}, got {kind!r:.80}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"{key[:80]!r} needs lists of whole numbers, got {value!r:.200}")
    if len(shape) > DIMENSIONS or math.prod(n or 1 for n in shape) > LARGEST:
        raise ValueError(f"{key[:80]!r} is larger than any array: {shape!r:.200}")
    if math.prod(shape) * DTYPES[kind].itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"{key[:80]!r} does not fit its place: {value!r:.200}")
    return offsets[0], offsets[1], DTYPES[kind], tuple(shape)


def _naturals(value: Any) -> bool:
    """Whether this is a list of whole numbers from 0; true and 2.0 are none."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
