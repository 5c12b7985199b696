"""The house: who may import whom, what a kernel may not do, what every public thing must have."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastnn
import fastnn.kernels
from fastnn.kernels._kernel import KERNELS

ROOT = Path(__file__).parent.parent
MODULES = [
    *(
        f"fastnn.{m.name}"
        for m in pkgutil.iter_modules(fastnn.__path__)
        if m.name not in ("kernels", "__main__")
    ),
    *(f"fastnn.kernels.{m.name}" for m in pkgutil.iter_modules(fastnn.kernels.__path__)),
]
STANDARD = set(sys.stdlib_module_names)
COMPILER = {"numba", "llvmlite"}
# Extras are imported where they are used, never when a module is.
ALLOWED = {
    "fastnn": {"numpy", "fastnn"},
    "kernels": {"numpy", *COMPILER},
}
EXTRAS = {"matplotlib", "tqdm", "h5py", "scipy"}


def files(folder):
    return sorted((ROOT / folder).glob("*.py"))


def imports(path, top_level_only):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("path", files("fastnn") + files("kernels"), ids=lambda p: p.stem)
def test_arrows_point_one_way(path):
    folder = path.parent.name
    for name in imports(path, top_level_only=True):
        top = name.split(".")[0] if not name.startswith(".") else ""
        assert top in ALLOWED[folder] | STANDARD | {""}, f"{path.name} imports {name}"
    for name in imports(path, top_level_only=False):
        if folder == "kernels":
            assert not name.startswith(("fastnn", "..")), f"{path.name} knows the API: {name}"
        else:
            assert name.split(".")[0] not in COMPILER, f"{path.name} imports {name}"
            assert name.split(".")[0] in ALLOWED[folder] | STANDARD | EXTRAS, name


def test_layers_of_kernels_do_not_know_the_interpreter():
    for path in files("kernels"):
        if path.stem not in ("run", "desk", "__init__"):
            assert ".run" not in set(imports(path, top_level_only=False)), path.name


def test_kernels_is_one_folder_under_one_name():
    """A checkout has a link; where git made none, the installed package maps the folder."""
    link = ROOT / "fastnn" / "kernels"
    assert link.resolve() == ROOT / "kernels"
    assert "kernels" not in sys.modules
    run = subprocess.run(
        [sys.executable, "-c", "import kernels"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "ImportError: import fastnn.kernels, not kernels" in run.stderr


def test_the_core_needs_numpy_and_numba_only():
    program = (
        "import sys; before = set(sys.modules); import fastnn\n"
        "tops = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(tops & {'matplotlib', 'tqdm', 'sklearn', 'pandas', 'torch'}))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "[]\n" and run.stderr == ""


def test_every_module_and_public_name_is_documented():
    for name in MODULES:
        module = importlib.import_module(name)
        assert inspect.getdoc(module), name
    for name in fastnn.__all__:
        thing = getattr(fastnn, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{member}"


def test_public_functions_name_their_parameters():
    """What is called with data documents every parameter, and what it may raise."""
    for method in (fastnn.Network.fit, fastnn.Network.predict, fastnn.Network.evaluate,
                   fastnn.Network.gradients, fastnn.check):  # fmt: skip
        text = inspect.getdoc(method)
        for parameter in list(inspect.signature(method).parameters):
            assert parameter == "self" or re.search(rf"\b{parameter}\b.* :", text), parameter
        assert "Returns\n-------" in text and "Raises\n------" in text


def body(function):
    """Syntax tree of a kernel's Python source."""
    source = inspect.getsource(getattr(function, "py_func", function))
    return ast.parse(inspect.cleandoc(source) if source[0] == " " else source)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_never_raise_and_never_allocate(name):
    for node in ast.walk(body(KERNELS[name].run)):
        assert not isinstance(node, ast.Raise | ast.Assert), f"{name} raises"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = node.func.attr
            allocates = {"empty", "zeros", "ones", "full", "copy", "array", "arange", "append"}
            assert called not in allocates, f"{name} calls {called}"


def test_no_fast_math_that_hides_nan():
    from fastnn.kernels._kernel import SUMS

    assert not SUMS & {"nnan", "ninf", "fast"}
    for path in files("kernels"):
        assert "fastmath=True" not in path.read_text(), path.name
        assert "parallel=True" not in path.read_text(), path.name


def test_nothing_read_from_a_file_is_run():
    """No eval, exec, pickle or import by name outside the cache of compiled code."""
    for path in files("fastnn") + files("kernels"):
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        assert not names & {"eval", "exec", "__import__", "marshal"}, path.name
        assert path.stem == "_cache" or "pickle" not in names, path.name


def test_types_are_sound():
    pytest.importorskip("mypy")
    run = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_style(command):
    pytest.importorskip("ruff")
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
