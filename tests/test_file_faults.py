"""Saving and loading where the system fails at any call, or other processes are at work."""

import ast
import errno
import functools
import importlib.util
import inspect
import os
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastnn import files

fcntl = pytest.importorskip("fcntl", reason="the faults are those of POSIX")

# What the system does in a save or a load. Each of these can fail, and each is made to.
NAMES = (
    "access close fchmod fsync fstat listdir lstat open read replace stat unlink write".split()
)  # fmt: skip
CRUCIAL = "access fchmod fsync replace stat write".split()
PURE = "environ fsdecode strerror path PathLike".split()
CODES = [
    getattr(errno, name) for name in "ENOSPC EIO EACCES EMFILE EROFS EINTR ENOENT EDQUOT".split()
]
OLD, NEW = {"a": np.arange(6.0)}, {"a": np.arange(3), "b": np.ones(1000, np.float32)}
LEFT = ".net.safetensors.0123456789abcdef.tmp"


def test_no_call_of_the_system_is_forgotten():
    used = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(files)))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "os"
    }
    assert {name for name in used if not name.isupper()} <= {*NAMES, *PURE}, used
    assert set(NAMES) <= used


class System:
    """Counts the calls of the system and lets the one at a place fail, or all from there on."""

    def __init__(self, monkeypatch, place=-1, code=0, on=False):
        self.calls, self.place, self.code, self.on = [], place, code, on
        for name in NAMES:
            # The disk is trusted, and not waited for.
            real = getattr(os, name) if name != "fsync" else lambda descriptor: None
            monkeypatch.setattr(os, name, functools.partial(self.call, name, real))
        monkeypatch.setattr(fcntl, "flock", functools.partial(self.call, "flock", fcntl.flock))

    def call(self, name, real, *arguments, **options):
        at = len(self.calls)
        self.calls.append(name)
        if at == self.place or (self.on and at > self.place >= 0):
            if name == "close":
                real(*arguments)  # Linux closes it and reports what it has to report
            raise OSError(self.code, os.strerror(self.code))
        return real(*arguments, **options)


def under(monkeypatch, action, **options):
    """An action under a system that fails: its result, its error, and the calls it made."""
    with monkeypatch.context() as patch:
        system = System(patch, **options)
        try:
            return action(), None, system.calls
        except OSError as error:
            return None, error, system.calls


def same(arrays, others):
    return all(np.array_equal(arrays[name], others[name]) for name in {*arrays, *others})


@pytest.mark.parametrize(
    ("there", "left"),
    [(False, False), (True, False), (True, True)],
    ids=["new", "old", "old, after a crash"],
)
@pytest.mark.parametrize("on", [False, True], ids=["one call fails", "all fail from there on"])
def test_a_save_that_fails_at_any_call(there, left, on, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save = functools.partial(files.write, path, NEW, {})

    old = b"".join(files._content("old", OLD, {}))

    def prepare():
        for file in tmp_path.iterdir():
            file.unlink()
        if there:
            path.write_bytes(old)
        if left:
            (tmp_path / LEFT).write_bytes(b"left")

    prepare()
    calls = under(monkeypatch, save)[2]
    for call in "open write fsync replace close flock".split():
        assert call in calls
    assert ("unlink" in calls) == left and ("fchmod" in calls) == there
    failed = set()
    for place, code in ((p, c) for p in range(len(calls)) for c in (CODES[:2] if on else CODES)):
        if calls[place] in ("stat", "lstat") and code == errno.ENOENT:
            continue  # no failure, but an answer
        prepare()
        _, error, made = under(monkeypatch, save, place=place, code=code, on=on)
        where = f"{made[: place + 1]} failed with {errno.errorcode[code]}"
        assert error or calls[place] not in CRUCIAL, where
        if error:
            failed.add(calls[place])
            assert error.errno == code and error.filename == str(path), where
            assert os.strerror(code) in error.strerror and error.__cause__, where
        if "replace" in made[:place] or (not error and not on):
            assert same(files.read(path)[0], NEW), where
            assert not error or "may not survive a power cut" in str(error)
        else:
            assert (path.read_bytes() if path.exists() else None) == (old if there else None)
            assert "what was there is as it was" in str(error)
        if not on:  # nobody can clean up in a system where nothing works
            assert {*os.listdir(tmp_path)} <= {path.name, LEFT}, where
        if os.listdir(tmp_path) != [path.name]:
            save()
            assert os.listdir(tmp_path) == [path.name], where
    # The rest serves to clean up, and whoever looks for a link that is none.
    assert "open" in failed and (on or not failed & {"close", "flock", "listdir", "unlink"})


def test_a_load_that_fails_at_any_call(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    files.write(path, NEW, {})
    load = functools.partial(files.read, path)
    calls = under(monkeypatch, load)[2]
    assert calls == ["open", "fstat", "read", "read", "read", "close"]
    for place in range(len(calls)):
        for code in CODES:
            result, error, _ = under(monkeypatch, load, place=place, code=code)
            if calls[place] == "close":  # all has been read
                assert same(result[0], NEW)
            else:
                assert error.errno == code and error.filename == str(path)


def test_the_system_may_take_and_give_less_than_asked(tmp_path, monkeypatch):
    path, write, read = tmp_path / "a", os.write, os.read
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:7]))
        patch.setattr(os, "read", lambda descriptor, count: read(descriptor, min(count, 5)))
        files.write(path, NEW, {})
        assert same(files.read(path)[0], NEW)
    size, open_ = path.stat().st_size, os.open

    def cut(*arguments):
        os.truncate(path, size - 1)
        return open_(*arguments)

    with monkeypatch.context() as patch:  # after its size was taken
        fstat = os.stat(path)
        patch.setattr(os, "fstat", lambda descriptor: fstat)
        patch.setattr(os, "open", cut)
        with pytest.raises(files.FormatError, match="became shorter"):
            files.read(path)


def test_a_folder_that_cannot_be_synced_is_none_of_our_faults(tmp_path, monkeypatch):
    path, action = tmp_path / "a", functools.partial(files.write, tmp_path / "a", NEW, {})
    place = [*under(monkeypatch, action)[2]][::-1].index("fsync")
    place = len(under(monkeypatch, action)[2]) - 1 - place
    assert under(monkeypatch, action, place=place, code=errno.EINVAL)[1] is None
    assert same(files.read(path)[0], NEW)


def test_a_file_that_grows_too_large_for_the_system(tmp_path):
    """No mock: a limit of the system on the size of files."""
    resource = pytest.importorskip("resource")
    path, limits = tmp_path / "a", resource.getrlimit(resource.RLIMIT_FSIZE)
    files.write(path, OLD, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large; nothing was saved"):
            files.write(path, {"a": np.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(files.read(path)[0], OLD) and os.listdir(tmp_path) == ["a"]


def test_signals_do_not_hurt_and_an_interrupt_leaves_the_old_file(tmp_path, monkeypatch):
    path, heard, array = tmp_path / "a", [], np.arange(500_000.0)
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while len(heard) < 20:
            files.write(path, {"a": array}, {})
            assert same(files.read(path)[0], {"a": array})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, NEW, {})
    assert same(files.read(path)[0], {"a": array}) and os.listdir(tmp_path) == ["a"]


def test_only_what_nobody_writes_is_swept(tmp_path):
    path, outside = tmp_path / "net.safetensors", tmp_path / "outside"
    outside.write_bytes(b"mine")
    others = [
        ".other.safetensors.0123456789abcdef.tmp",
        ".net.safetensors.0123456789abcde.tmp",
        ".net.safetensors.0123456789abcdef.tmp.bak",
        ".netxsafetensors.0123456789abcdef.tmp",
    ]
    for name in (LEFT, *others):
        (tmp_path / name).write_bytes(b"left")
    link, pipe, folder, busy = (f".net.safetensors.{n:016x}.tmp" for n in range(4))
    (tmp_path / link).symlink_to(outside)
    os.mkfifo(tmp_path / pipe)
    (tmp_path / folder).mkdir()
    (tmp_path / busy).write_bytes(b"being written")
    with (tmp_path / busy).open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files.write(path, NEW, {})
        kept = {path.name, outside.name, link, pipe, folder, busy, *others}
        assert {*os.listdir(tmp_path)} == kept and outside.read_bytes() == b"mine"
    files.write(path, NEW, {})  # its writer has gone
    assert {*os.listdir(tmp_path)} == kept - {busy}


def test_a_file_swept_before_it_is_locked_is_written_again(tmp_path, monkeypatch):
    swept, flock = [], fcntl.flock

    def late(descriptor, kind):
        if not swept:
            swept.extend(tmp_path.iterdir())
            swept[0].unlink()
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    files.write(tmp_path / "a", NEW, {})
    assert same(files.read(tmp_path / "a")[0], NEW) and os.listdir(tmp_path) == ["a"]


def test_many_writers_of_one_file(tmp_path):
    """Each sweeps what the others might be writing; none may lose its own, or find a mixture."""
    path = tmp_path / "a"
    files.write(path, {"a": np.zeros(1000)}, {})

    def save(number):
        for _ in range(20):
            files.write(path, {"a": np.full(1000, float(number))}, {})
            assert len({*files.read(path)[0]["a"]}) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(8)))
    assert os.listdir(tmp_path) == ["a"]


def test_a_system_without_locks(tmp_path, monkeypatch):
    """Windows: no locks, no modes, no folder to sync; a file must be closed to be renamed."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("files_without_locks", files.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path, opened = tmp_path / "net.safetensors", set()
    (tmp_path / LEFT).write_bytes(b"left")
    real = {name: getattr(os, name) for name in ("open", "close", "replace", "unlink")}

    def open_(*arguments):
        opened.add(descriptor := real["open"](*arguments))
        return descriptor

    def close(descriptor):
        opened.remove(descriptor)
        real["close"](descriptor)

    def closed(name, *arguments):
        assert not opened, f"{name} of a file that is open"
        real[name](*arguments)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "close", close)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, functools.partial(closed, name))
    for arrays in (OLD, NEW):
        module.write(path, arrays, {})
        assert same(module.read(path)[0], arrays) and os.listdir(tmp_path) == [path.name]


def test_the_mode_of_a_file_is_kept(tmp_path):
    path, umask = tmp_path / "a", os.umask(0o027)
    try:
        files.write(path, OLD, {})
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        for mode in (0o600, 0o666, 0o444 if os.geteuid() == 0 else 0o644):
            path.chmod(mode)
            files.write(path, NEW, {})
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(umask)


def test_a_private_file_is_never_open_to_others(tmp_path, monkeypatch):
    path, modes, open_ = tmp_path / "a", [], os.open
    files.write(path, OLD, {})
    path.chmod(0o600)

    def look(*arguments):
        descriptor = open_(*arguments)
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", look)
    files.write(path, NEW, {})
    assert modes[-1] == 0o600 and len(modes) == 2  # after the folder's


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "runs").mkdir()
    link, run = tmp_path / "latest", tmp_path / "runs" / "one"
    link.symlink_to(Path("runs", "one"))
    for arrays in (OLD, NEW):  # at first it leads to nothing
        files.write(link, arrays, {})
        assert link.is_symlink() and same(files.read(run)[0], arrays)
    assert os.listdir(run.parent) == ["one"] and os.listdir(tmp_path) in (
        ["runs", "latest"],
        ["latest", "runs"],
    )
    link.unlink()
    link.symlink_to("latest")
    with pytest.raises(OSError, match="nothing was saved"):
        files.write(link, NEW, {})


def test_what_is_no_file_is_neither_replaced_nor_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, error in (("pipe", OSError), ("folder", IsADirectoryError)):
        with pytest.raises(error, match="no regular file"):
            files.write(tmp_path / name, NEW, {})
        with pytest.raises(files.FormatError, match="no regular file"):
            files.read(tmp_path / name)
    for where in ("absent/a", "folder/../absent/a"):
        with pytest.raises(FileNotFoundError):
            files.write(tmp_path / where, NEW, {})
        with pytest.raises(FileNotFoundError):
            files.read(tmp_path / where)
    files.write(tmp_path / "a", OLD, {})
    monkeypatch.setattr(os, "access", lambda path, how: False)  # as root, all may be written
    with pytest.raises(PermissionError, match="write-protected"):
        files.write(tmp_path / "a", NEW, {})
    assert same(files.read(tmp_path / "a")[0], OLD)
