"""What can go wrong with the folder of compiled code, and what is said then."""

import errno
import io
import os

from fastnn.kernels import _cache

NOT_KEPT = r"^fastnn: compiled code is not kept .*FASTNN_CACHE_DIR"
UNUSABLE = r"^fastnn: kept code cannot be used and is compiled again"


def junk(path):
    path.write_bytes(b"junk" * 1000)


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def only_a_checksum(path):
    path.write_bytes(path.read_bytes()[:32])


def flipped_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def another_version(path):
    """The right name, in the folder of other sources."""
    content = path.read_bytes()[32:]
    elsewhere = path.parents[1] / "0123456789abcdef" / path.name
    path.write_bytes(_cache._checksum(elsewhere, content) + content)


def no_pickle(path):
    path.write_bytes(_cache._checksum(path, b"junk") + b"junk")


def unreadable(path):
    path.unlink()
    path.symlink_to(path)  # too many levels of symbolic links


DAMAGES = [
    junk,
    empty,
    truncated,
    only_a_checksum,
    flipped_bit,
    another_version,
    no_pickle,
    unreadable,
]


class Full(io.FileIO):
    """A file on a disk that is full after some bytes."""

    def write(self, data):
        super().write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


NO_ROOM = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))
FORBIDDEN = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
