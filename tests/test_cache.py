"""The on-disk cache: what it must find, what it must never find, and all that can go wrong.

A "run" in one process is a new dispatcher of the same kernel: it has compiled nothing yet, so it
asks the cache. Where a process makes the difference, there are processes.
"""

import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest
from numba import config, types
from numba.core import event
from numba.core.registry import cpu_target

import fastnn as fnn
from fastnn.kernels import _cache, _op, activations, rectifiers
from fastnn.kernels._kernel import JIT, KERNELS, compiled
from tests.cache_faults import (
    DAMAGES,
    FORBIDDEN,
    NO_ROOM,
    NOT_KEPT,
    READ_ONLY,
    UNUSABLE,
    Full,
    failing,
    junk,
)
from tests.processes import ROOT, at_once, finished, start

pytestmark = pytest.mark.skipif(not JIT, reason="nothing is compiled, so nothing is kept")

AGES_AGO = time.time() - 10 * _cache.HOUR


def forget():
    """Make the module as it is in a new process."""
    _cache.folder.cache_clear()
    _cache._sweep.cache_clear()
    _cache._warned.clear()


@pytest.fixture
def top(tmp_path, monkeypatch):
    """An empty cache of this test's own."""
    forget()
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path / "cache"))
    # Whoever edits a kernel while the tests run must not turn the cache off.
    monkeypatch.setattr(_cache, "_sources", lambda: _cache.SOURCES)
    yield tmp_path / "cache"
    forget()


def run(dtype=np.float64, kernel="relu_forward"):
    """Call a kernel as a new process would; how often did it compile?"""
    dispatcher = compiled(KERNELS[kernel].run.py_func)
    x, out = np.array([-1, 0, 2], dtype), np.full(3, 9, dtype)
    with event.install_recorder("numba:compile") as recorder:
        dispatcher(x, out)
    np.testing.assert_array_equal(out, [0, 0, 2] if kernel == "relu_forward" else x)
    ends = [entry for _, entry in recorder.buffer if entry.is_end]
    assert sum(dispatcher.stats.cache_misses.values()) == len(ends)
    return len(ends)


def files(top):
    """Everything that lies in the folders of the cache."""
    return sorted(path for path in top.glob("*/*"))


# finding


def test_the_second_run_compiles_nothing(top):
    assert run() == 1
    (file,) = files(top)
    assert re.fullmatch(r"rectifiers\.relu_forward-[0-9a-f]{24}\.fastnn", file.name)
    assert run() == 0
    assert files(top) == [file]


WARM = """
import sys
import fastnn as fnn
x, y = fnn.datasets.xor()
net = fnn.Network([fnn.Dense(4, "tanh"), fnn.Dense(1)], seed=0)
net.fit(x, y, epochs=3, verbose=0)
net.evaluate(x, y), net.predict(x), net.predict(x), net.gradients(x, y)
print("numba.np.arrayobj" in sys.modules, "numba.np.linalg" in sys.modules)
"""


def test_a_warm_start_brings_in_nothing_that_compiles():
    """It is most of what numba is, and as long as all the rest; longer where there is scipy."""
    _first, second = (finished(start(WARM, ROOT, _cache.folder().parent)) for _ in range(2))
    assert second[0].split() == ["False", "False"]


def test_kernels_count_no_references():
    """Threads that share a counter wait for each other, and what counts is longer to compile."""
    net = fnn.Network([fnn.Dense(4, "tanh"), fnn.Dense(1)], seed=0)
    net.fit(*fnn.datasets.xor(), epochs=3, verbose=0)
    needs = set()
    for path in _cache.folder().glob(f"*{_cache.SUFFIX}"):
        if not path.name.startswith("in_c."):  # callbacks make an array
            needs |= pickle.loads(path.read_bytes()[32:])[0]
    assert needs and not {name for name in needs if name.startswith("NRT_")}


def test_code_that_needs_more_gets_more(top, monkeypatch):
    """What only numba's own modules provide is there before the code is linked."""
    assert run() == 1
    refreshed = []
    monkeypatch.setattr(_cache, "address_of_symbol", lambda name: None)
    monkeypatch.setattr(
        type(cpu_target.target_context), "refresh", lambda context: refreshed.append(1)
    )
    assert run() == 0 and len(refreshed) == 1


def test_callbacks_are_kept(top, monkeypatch):
    monkeypatch.setattr(_op, "COMPILED", [])
    for _ in range(2):
        assert _op.address.__wrapped__(activations.linear, np.dtype(np.float32))
    assert [callback.cache_hits for callback in _op.COMPILED] == [0, 1]


def test_numba_can_ask_what_it_asks_its_own_cache(top):
    dispatcher = compiled(rectifiers.relu_forward.py_func)
    assert dispatcher.stats.cache_path == str(_cache.folder())
    signature = "void(float64[::1], float64[::1])"
    dispatcher.compile(signature)
    assert len(files(top)) == 1
    again = compiled(rectifiers.relu_forward.py_func)
    again.compile(signature)
    assert list(again.stats.cache_hits.values()) == [1]
    again._cache.disable()
    again.recompile()  # empties the cache and compiles
    assert not files(top)
    again._cache.enable()
    again.recompile()
    assert len(files(top)) == 1


def test_folders_are_for_the_owner_alone(top):
    run()
    assert [path.stat().st_mode & 0o777 for path in (top, _cache.folder())] == [0o700, 0o700]


def test_an_empty_name_turns_it_off(top, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTNN_CACHE_DIR", "")
    assert run() == run() == 1
    assert compiled(rectifiers.relu_forward.py_func).stats.cache_path is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "platform, settings, place",
    [
        ("linux", {}, "~/.cache/fastnn"),
        ("linux", {"XDG_CACHE_HOME": "/x/y"}, "/x/y/fastnn"),
        ("darwin", {}, "~/Library/Caches/fastnn"),
        ("win32", {}, "~/AppData/Local/fastnn"),
        ("win32", {"LOCALAPPDATA": "/x/y"}, "/x/y/fastnn"),
        ("linux", {"FASTNN_CACHE_DIR": "~/mine"}, "~/mine"),
        ("linux", {"FASTNN_CACHE_DIR": "mine"}, "mine"),
    ],
)
def test_where_it_lies(platform, settings, place, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "FASTNN_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert _cache.root() == Path(place).expanduser().resolve()


def test_the_key_costs_nothing():
    def seconds():
        before = time.perf_counter()
        _cache._sources()
        _cache.source_key()
        return time.perf_counter() - before

    assert min(seconds() for _ in range(20)) < 0.02  # 3 ms where nothing else is at work


# never finding what is stale


@pytest.mark.parametrize(
    "owner, name",
    [
        (numba, "__version__"),
        (llvmlite, "__version__"),
        (np, "__version__"),
        (_cache, "llvm_version_info"),
        (sys, "version"),
        (_cache, "SOURCES"),
        (_cache, "SETTINGS"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_upgrade_changes_the_folder(owner, name, monkeypatch):
    before = _cache.source_key()
    monkeypatch.setattr(owner, name, "another")
    assert _cache.source_key() != before


def test_nothing_is_found_after_an_upgrade(top, monkeypatch):
    assert run() == 1
    monkeypatch.setattr(numba, "__version__", "another")
    forget()
    assert run() == 1
    assert run() == 0
    assert len(list(top.iterdir())) == 2


def path_of(kernel, *arguments):
    codegen = cpu_target.target_context.codegen()
    return _cache.KernelCache(kernel.py_func)._path(arguments, codegen)


@pytest.mark.parametrize("name", [*_cache.MODES, "CPU_NAME"])
def test_a_mode_changes_the_file(name, top, monkeypatch):
    before = path_of(rectifiers.relu_forward)
    assert before == path_of(rectifiers.relu_forward)
    monkeypatch.setattr(config, name, "another")
    assert path_of(rectifiers.relu_forward) != before


def test_every_mode_is_one_of_numba():
    assert [name for name in _cache.MODES if not hasattr(config, name)] == []


def test_the_mode_counts_at_the_time_of_compiling(top, monkeypatch):
    assert run() == 1
    monkeypatch.setattr(config, "BOUNDSCHECK", 0 if config.BOUNDSCHECK else 1)
    assert run() == 1
    assert run() == 0
    assert len(files(top)) == 2


def test_the_type_changes_the_file(top):
    number = numba.float64
    arrays = [
        numba.float32[::1],
        number[::1],
        number[:],
        number[::1, :],
        types.Array(number, 1, "C", readonly=True),
        types.Array(number, 1, "C", aligned=False),
    ]
    assert len({path_of(rectifiers.relu_forward, array) for array in arrays}) == len(arrays)


RATE = """
from ._kernel import compiled

@compiled
def rate():
    return {}
"""
SCALED = """
from ._kernel import compiled
from ._rate import rate

@compiled
def scaled(x):
    return rate() * x
"""
RUN_SCALED = """
from fastnn.kernels._scaled import scaled
from numba.core import event
{}
with event.install_recorder("numba:compile") as recorder:
    print(scaled(21.0), "compiled" if recorder.buffer else "found")
"""


@pytest.fixture
def package(tmp_path):
    """A package of two kernels in two files, one of which calls the other."""
    kernels = tmp_path / "package" / "fastnn" / "kernels"
    kernels.mkdir(parents=True)
    for folder in (kernels, kernels.parent):
        (folder / "__init__.py").touch()
    for name in ("_cache.py", "_kernel.py"):
        shutil.copy(ROOT / "kernels" / name, kernels)
    (kernels / "_rate.py").write_text(RATE.format(2.0))
    (kernels / "_scaled.py").write_text(SCALED)
    return tmp_path / "package"


def result(package, *options, before="", **settings):
    """What the kernel gives in a new process, which must have no complaints."""
    script = RUN_SCALED.format(before)
    process = start(script, package, package.parent / "cache", "-W", "error", *options, **settings)
    printed, complaints = finished(process)
    assert complaints == ""
    return printed


def test_an_edited_callee_is_compiled(package):
    callee = package / "fastnn" / "kernels" / "_rate.py"
    assert result(package) == "42.0 compiled"
    callee.write_text(RATE.format(3.0))
    assert result(package) == "63.0 compiled"
    callee.write_text(RATE.format(2.0))
    (package / "fastnn" / "kernels" / ".#_rate.py").symlink_to("an editor's lock")
    assert result(package) == "42.0 found"


def test_an_edit_under_a_running_process_spoils_nothing(package):
    callee = package / "fastnn" / "kernels" / "_rate.py"
    edit = f"import pathlib; pathlib.Path({str(callee)!r}).write_text({RATE.format(3.0)!r})"
    assert result(package, before=edit) == "42.0 compiled"
    assert not files(package.parent / "cache")
    assert result(package) == "63.0 compiled"


def test_what_is_read_at_import_counts(package, tmp_path):
    script = (
        "from fastnn.kernels import _cache, _rate\n"
        "from numba.core.registry import cpu_target\n"
        "codegen = cpu_target.target_context.codegen()\n"
        "print(_cache.source_key(), _rate.rate._cache._path((), codegen).name)"
    )
    settings = [
        {},
        {"NUMBA_CPU_NAME": "generic"},
        {"NUMBA_OPT": "max"},
        {"NUMBA_BOUNDSCHECK": "1"},
        {"FASTNN_VECTOR_BITS": "128"},
    ]
    processes = [start(script, package, tmp_path / "cache", **setting) for setting in settings]
    assert len({finished(process) for process in processes}) == len(settings)


def test_in_a_zip_file(package):
    archive = package.parent / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.rglob("*.py"):
            file.write(path, path.relative_to(package))
    assert result(archive) == "42.0 compiled"
    assert result(archive) == "42.0 found"


def test_without_sources(package):
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-b", package], check=True)
    for path in package.rglob("*.py"):
        path.unlink()
    cache = package.parent / "cache"
    printed, complaints = finished(start(RUN_SCALED.format(""), package, cache))
    assert printed == "42.0 compiled"
    assert complaints.count("Warning") == 1 and "source of the kernels is not" in complaints
    assert not cache.exists()


TWINS = """
import numpy as np
from ._kernel import compiled

def made(k):
    @compiled
    def twin(n):  # calls itself twice, so that it is not inlined away
        return k if n < 2 else twin(n - 1) + twin(n - 2)
    return twin

one, two = made(1), made(2)

@compiled
def first(n):
    return one(n)

@compiled
def second(n):
    return two(n)
"""


def test_closures_of_two_processes_are_not_mixed_up(package):
    """Their symbols have the same name, and numba's own cache would run one for the other."""
    (package / "fastnn" / "kernels" / "_twins.py").write_text(TWINS)
    cache = package.parent / "cache"
    script = "from fastnn.kernels._twins import first, second; print({})"
    for calls in ({"first(5)": "8", "second(5)": "16"}, {"first(5), second(5)": "8 16"}):
        processes = [start(script.format(call), package, cache) for call in calls]
        for process, expected in zip(processes, calls.values(), strict=True):
            printed, complaints = finished(process)
            assert printed == expected
            assert complaints.count("Warning") == 1 and "calls the closure" in complaints


def test_what_no_hash_tells_apart_is_not_kept(top):
    def local(x):
        return x

    unnamed = lambda x: x  # noqa: E731
    for function in (local, unnamed):
        function.__module__ = activations.__name__
    for function in (local, unnamed, helper_of_this_file):
        assert compiled(function)(3) == 3
    assert not files(top)
    address = numba.typeof(rectifiers.relu_forward)  # a type whose name holds an address
    assert path_of(rectifiers.relu_forward, address) is None


def helper_of_this_file(x):
    return x


# files that are not what they should be


def another_type(path):
    assert run(np.float32) == 1
    (other,) = (file for file in path.parent.iterdir() if file != path)
    shutil.copy(other, path)
    other.unlink()


def another_kernel(path):
    assert run(kernel="linear_forward") == 1
    (other,) = path.parent.glob("*linear_forward*")
    shutil.copy(other, path)
    other.unlink()


@pytest.mark.parametrize(
    "damage", [*DAMAGES, another_type, another_kernel], ids=lambda damage: damage.__name__
)
def test_a_damaged_file_is_replaced(damage, top):
    run()
    (file,) = files(top)
    damage(file)
    with pytest.warns(RuntimeWarning, match=UNUSABLE) as warned:
        assert run() == 1
    assert len(warned) == 1
    assert files(top) == [file]
    assert run() == 0


def test_a_folder_in_place_of_a_file(top):
    run()
    (file,) = files(top)
    file.unlink()
    file.mkdir()
    with pytest.warns(RuntimeWarning, match=UNUSABLE) as warned:
        assert run() == run() == 1
    assert len(warned) == 1
    assert files(top) == [file]


def test_many_damaged_files_are_one_warning(top):
    run(np.float32), run(np.float64)
    for file in files(top):
        junk(file)
    with pytest.warns(RuntimeWarning, match=UNUSABLE) as warned:
        assert run(np.float32) == run(np.float64) == 1
    assert len(warned) == 1
    assert run(np.float32) == run(np.float64) == 0


# places where nothing can be written


@pytest.mark.parametrize(
    "owner, name, value",
    [
        (_cache, "open", Full),
        (_cache, "open", failing(NO_ROOM)),
        (_cache, "open", failing(FORBIDDEN)),
        (_cache, "dumps", failing(MemoryError())),
        (Path, "replace", failing(NO_ROOM)),
    ],
)
def test_a_file_cannot_be_written(owner, name, value, top, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, value, raising=False)
        with pytest.warns(RuntimeWarning, match=NOT_KEPT) as warned:
            assert run() == run(np.float32) == 1
        assert len(warned) == 1
        assert warned[0].filename == __file__  # the line that called the kernel
        assert not files(top)
    assert run() == 1  # the disk has room again
    assert run() == 0


def test_an_interrupt_leaves_nothing(top, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not files(top)
    assert run() == 1


def test_a_file_that_another_process_has_put_there(top, monkeypatch):
    """Windows does not let go of it; on other systems it is simply replaced."""
    run()
    (file,) = files(top)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing(FileNotFoundError()))
        patch.setattr(Path, "replace", failing(FORBIDDEN))
        forget()
        assert run() == 1
    assert files(top) == [file]


def test_a_cache_that_can_only_be_read_is_used(top, monkeypatch):
    run()
    forget()
    monkeypatch.setattr(_cache, "open", failing(READ_ONLY), raising=False)
    for name in ("utime", "unlink", "rename", "replace"):
        monkeypatch.setattr(os, name, failing(READ_ONLY))
    assert run() == 0


def in_a_file(top, monkeypatch):
    top.touch()


def below_a_file(top, monkeypatch):
    top.touch()
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(top / "cache"))


def no_permission(top, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", failing(FORBIDDEN))


def no_home(top, monkeypatch):
    monkeypatch.setattr(Path, "home", failing(RuntimeError("no home")))
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("FASTNN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def of_another_user(top, monkeypatch):
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)


def open_to_a_group(top, monkeypatch):
    _cache.folder().chmod(0o770)


def below_an_open_folder(top, monkeypatch):
    _cache.folder()
    top.chmod(0o777)


def below_a_folder_of_another_user(top, monkeypatch):
    me, lstat = os.geteuid(), Path.lstat
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)

    def owned(path):  # all but the top is ours
        status = list(lstat(path))
        status[4] = me + 1 if path != top else me + 2
        return os.stat_result(status)

    monkeypatch.setattr(Path, "lstat", owned)


def through_a_link(top, monkeypatch):
    place = _cache.folder()
    place.rename(top / "elsewhere")
    place.symlink_to(top / "elsewhere")


PLACES = [
    in_a_file,
    below_a_file,
    no_permission,
    no_home,
    of_another_user,
    open_to_a_group,
    below_an_open_folder,
    below_a_folder_of_another_user,
    through_a_link,
]


@pytest.mark.parametrize("spoil", PLACES, ids=lambda spoil: spoil.__name__)
def test_a_folder_cannot_be_used(spoil, top, monkeypatch):
    spoil(top, monkeypatch)
    forget()
    with pytest.warns(RuntimeWarning, match=NOT_KEPT) as warned:
        assert run() == run() == 1
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert not files(top) if top.is_dir() else not top.exists() or top.read_bytes() == b""


def test_a_shared_folder_will_do_where_nobody_can_rename(top):
    top.mkdir()
    top.chmod(0o1777)  # as /tmp
    assert run() == 1
    assert run() == 0


def test_where_there_are_no_user_numbers(top, monkeypatch):
    monkeypatch.delattr(os, "geteuid", raising=False)  # Windows
    assert run() == 1
    assert run() == 0


def test_a_home_that_does_not_exist():
    script = (
        "import fastnn, numpy as np\n"
        "from fastnn.kernels.rectifiers import relu_forward\n"
        "for dtype in (np.float32, np.float64):\n"
        "    x = np.array([-1, 2], dtype)\n"
        "    relu_forward(x, x)\n"
        "    print(*x)"
    )
    home = {"HOME": os.devnull, "XDG_CACHE_HOME": "", "LOCALAPPDATA": os.devnull}
    printed, complaints = finished(start(script, ROOT, None, **home))
    assert printed.split() == ["0.0", "2.0"] * 2
    assert complaints.count("Warning") == 1 and "FASTNN_CACHE_DIR" in complaints


def test_nothing_is_made_where_nothing_is_compiled(tmp_path):
    script = (
        "import numpy as np\n"
        "from fastnn.kernels.rectifiers import relu_forward\n"
        "x = np.array([-1.0, 2.0])\n"
        "relu_forward(x, x)\n"
        "print(*x)"
    )
    process = start(script, ROOT, tmp_path / "cache", NUMBA_DISABLE_JIT="1")
    assert finished(process) == ("0.0 2.0", "")
    assert not (tmp_path / "cache").exists()


# many processes


TOGETHER = """
from fastnn.kernels._rate import rate
from fastnn.kernels._scaled import scaled
from numba import float32, float64, int64
from numba.core import event

print("ready", flush=True)
input()  # until all are
with event.install_recorder("numba:compile") as recorder:
    for number in [float32, float64, int64][::{}]:
        scaled.compile((number,))
    assert [scaled(float(x)) for x in (1, 2)] == [2, 4]
print("compiled" if recorder.buffer else "found")
"""


@pytest.mark.parametrize("attempt", [1, 2])
def test_processes_that_compile_at_once(attempt, package, tmp_path):
    """Whoever comes first compiles; the others do so too, or find what is whole already."""

    def together(*steps):
        scripts = [TOGETHER.format(step) for step in steps]
        return at_once(start(s, package, tmp_path / "cache", "-W", "error") for s in scripts)

    ends = together(1, -1, 1, -1)
    assert {complaints for _, complaints in ends} == {""}
    assert "compiled" in {printed for printed, _ in ends} <= {"compiled", "found"}
    kept = [(file.name.partition("-")[0], file.suffix) for file in files(tmp_path / "cache")]
    assert kept == [("_rate.rate", ".fastnn")] + [("_scaled.scaled", ".fastnn")] * 3
    assert together(1) == [("found", "")]


# tidying up


def aged(path):
    os.utime(path, (AGES_AGO, AGES_AGO))
    return path


def test_what_was_left_unfinished_is_swept(top):
    place = _cache.folder()
    for name in ("old", "young"):
        (place / f"{name}{_cache.UNFINISHED}").touch()
    aged(place / f"old{_cache.UNFINISHED}")
    run()
    assert {file.suffix for file in files(top)} == {_cache.SUFFIX, _cache.UNFINISHED}
    assert len(files(top)) == 2


def test_folders_of_old_kernels_are_swept(top):
    top.mkdir(mode=0o700)
    names = [f"{number:016x}" for number in range(12)]
    for number, name in enumerate(names):
        (top / name).mkdir()
        (top / name / f"kernel{_cache.SUFFIX}").touch()
        os.utime(top / name, (AGES_AGO - number,) * 2)
    recent = [f"{number:016x}" for number in range(100, 110)]
    for name in recent[: _cache.KEPT - 2]:
        (top / name).mkdir()
    run()
    left = {path.name for path in top.iterdir()}
    assert left == {*names[:2], *recent[: _cache.KEPT - 2], _cache.folder().name}


def test_what_is_used_now_is_not_swept(top):
    top.mkdir(mode=0o700)
    for number in range(_cache.KEPT + 3):
        (top / f"{number:016x}").mkdir()
    aged(_cache.folder())
    run()
    assert len(list(top.iterdir())) == _cache.KEPT + 4
    assert run() == 0


def test_looking_for_code_keeps_a_folder(top):
    run()
    place = aged(_cache.folder())
    forget()
    assert run() == 0
    assert place.stat().st_mtime > AGES_AGO + _cache.HOUR


def test_what_is_not_ours_is_not_swept(top, tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "KEPT", 0)
    elsewhere = tmp_path / "elsewhere"
    for path in (top / "0123456789abcde_", top / "0123456789abcdef", top / "mine", elsewhere):
        path.mkdir(parents=True, mode=0o700)
        (path / "notes.txt").touch()
    (elsewhere / f"kernel{_cache.SUFFIX}").touch()
    aged(elsewhere)
    (top / "fedcba9876543210").symlink_to(elsewhere)
    (top / "0000000000000000").touch()
    before = sorted(tmp_path.rglob("*"))
    for path in top.iterdir():
        os.utime(path, (AGES_AGO, AGES_AGO), follow_symlinks=False)
    top.chmod(0o700)
    run()
    mine = {_cache.folder(), *_cache.folder().iterdir()}
    assert sorted(set(tmp_path.rglob("*")) - mine) == before


def test_sweeping_gives_way_to_others(top, monkeypatch):
    monkeypatch.setattr(Path, "iterdir", failing(FileNotFoundError()))
    monkeypatch.setattr(Path, "glob", failing(FileNotFoundError()))
    assert run() == 1
    assert run() == 0
