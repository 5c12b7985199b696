"""Files of named arrays in the safetensors format, written whole or not at all, read without trust.

A file is the length of a header (8 bytes, little-endian), the header in JSON, and the arrays one
behind another::

    {"__metadata__": {"sha256": "..."}, "0.weight": {"dtype": "F32", "shape": [2, 64],
     "data_offsets": [0, 512]}, ...}

Nothing in a file is executed: names come from no table of classes, sizes are checked before
anything is allocated. Hugging Face's ``safetensors`` reads these files and its files are read
here. Source: the description of the format at https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnn._check import file_path

__all__ = ["FormatError", "read", "write"]

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
LONGEST = 100_000_000  # bytes of a header, as in the safetensors package
METADATA, CHECKSUM = "__metadata__", "sha256"


class FormatError(ValueError):
    """A file is damaged, or is no safetensors file that fastnn can use."""


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write arrays to a file, all of it or nothing.

    The file is written under another name in the same folder, brought to the disk, and renamed:
    at every moment there is the old file or the new one. A checksum of the data is added to the
    metadata.

    Parameters
    ----------
    path : str or PathLike
        The file; an old one is replaced.
    arrays : mapping of str to array
        float32 or float64, of any layout.
    metadata : dict of str to str
        What else is to be known.

    Raises
    ------
    OSError
        Where the system cannot write; an old file is as it was.
    """
    path = file_path("path", path)
    if not path.name:
        raise ValueError(f"path must name a file, got {str(path)!r}")
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {METADATA: {}}
    data, at = [], 0
    for name, array in arrays.items():
        # A copy in C order: views and transposed arrays must not be written as they lie.
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        header[name] = {
            "dtype": names[plain.dtype],
            "shape": list(plain.shape),
            "data_offsets": [at, at + plain.nbytes],
        }
        data.append(plain.tobytes())
        at += plain.nbytes
    body = b"".join(data)
    header[METADATA] = metadata | {CHECKSUM: hashlib.sha256(body).hexdigest()}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(len(text).to_bytes(8, "little") + text + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if os.name == "posix":  # the new name is to survive a power cut as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays of a file, and its metadata.

    Parameters
    ----------
    path : str or PathLike
        A safetensors file of float32 or float64 arrays.

    Returns
    -------
    dict of str to array, dict of str to str
        Arrays in the order of the file.

    Raises
    ------
    FormatError
        Where the file is damaged, cut, or not of this format.
    OSError
        Where the system cannot read.
    """
    path = file_path("path", path)
    content, name = path.read_bytes(), path.name
    if len(content) < 8:
        raise FormatError(f"{name!r} is no safetensors file: {len(content)} bytes")
    length = int.from_bytes(content[:8], "little")
    if length > min(LONGEST, len(content) - 8):
        raise FormatError(f"{name!r} is no safetensors file, or cut: a header of {length} bytes")
    body = memoryview(content)[8 + length :]
    header = _header(name, content[8 : 8 + length])
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{name!r}: the metadata must be texts by name")
    checksum = metadata.pop(CHECKSUM, None)
    if checksum is not None and checksum != hashlib.sha256(body).hexdigest():
        raise FormatError(f"{name!r} is damaged: its checksum does not fit its data")
    places = {key: _place(name, key, entry) for key, entry in header.items()}
    end = 0
    for start, stop, _, _ in sorted(places.values(), key=lambda place: place[:2]):
        if start != end:
            raise FormatError(f"{name!r}: arrays must lie one behind another")
        end = stop
    if end != len(body):
        raise FormatError(f"{name!r}: {len(body)} bytes of data where the header has {end}")
    return {
        key: np.frombuffer(body[start:stop], dtype).reshape(shape).astype(dtype.newbyteorder("="))
        for key, (start, stop, dtype, shape) in places.items()
    }, metadata


def _header(name: str, text: bytes) -> dict[str, Any]:
    """The header as JSON, each name once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise FormatError(f"{name!r}: a name stands twice in the header")
        return result

    try:
        header = json.loads(text.decode(), object_pairs_hook=once)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name!r}: the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise FormatError(f"{name!r}: the header must be an object, got {type(header).__name__}")
    return header


def _place(name: str, key: str, entry: Any) -> tuple[int, int, np.dtype, tuple[int, ...]]:
    """Where an array lies, and what it is."""
    wrong = FormatError(f"{name!r}: {key[:80]!r} is described by {str(entry)[:200]!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise FormatError(
            f"{name!r}: {key[:80]!r} must be {' or '.join(DTYPES)}, got {str(kind)[:80]}"
        )
    if not _naturals(shape) or len(shape) > 32 or not _naturals(offsets) or len(offsets) != 2:
        raise wrong
    if math.prod(shape) * DTYPES[kind].itemsize != offsets[1] - offsets[0]:
        raise wrong
    return offsets[0], offsets[1], DTYPES[kind], tuple(shape)


def json_of(name: str, text: str) -> Any:
    """JSON without surprises."""
    return _header(name, text.encode())


def _naturals(value: Any) -> bool:
    """Whether this is a list of whole numbers from 0, none of them absurd."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in value)
