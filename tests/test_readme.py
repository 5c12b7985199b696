"""The README tells the truth: its blocks run and print what stands below them."""

import contextlib
import importlib
import inspect
import io
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

import fastnn as fnn
from fastnn.kernels import activations
from fastnn.kernels._kernel import JIT, KERNELS
from fastnn.kernels._op import OPS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
# A block of Python, and the block of output right behind it if there is one.
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", TEXT, re.S)
FORMULAS = [code for code, _ in BLOCKS if code.startswith("def ")]
SESSION = [(c, out) for c, out in BLOCKS if not c.startswith("def ") and "@kernel" not in c]
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


def alike(printed, promised):
    """The same words, and numbers within a tenth: machines differ in last bits, and then more."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", promised).split()
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(promised), strict=True)
    for got, said in pairs:
        if "e-" not in said:  # a rounding error; the bounds on these are the report's own
            assert float(got) == pytest.approx(float(said), rel=0.1, abs=0.05)


@pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: the training takes minutes")
def test_the_session_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes files
    assert len(SESSION) == 10
    names = {}
    for code, promised in SESSION:
        assert promised, "a block without its output"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), names)
        alike(printed.getvalue(), promised)
    assert SESSION[0][0].count("\n") <= 20


@pytest.mark.parametrize("code", FORMULAS, ids=lambda c: c.split("(")[0][4:])
def test_formulas_are_the_shipped_ones(code):
    name = re.match(r"def (\w+)", code)[1]
    modules = [importlib.import_module(f"fastnn.kernels.{m}") for m in fnn.kernels.__all__]
    shipped = next(getattr(m, name) for m in modules if hasattr(m, name))
    assert textwrap.dedent(inspect.getsource(shipped)).strip() == code.strip()


def test_named_kernels_exist():
    named = set(re.findall(r"`(\w+_(?:forward|backward|gradient|step))`", TEXT))
    assert len(named) >= 10 and named <= set(KERNELS)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        assert (ROOT / target).is_file(), target


def test_an_activation_is_added_in_one_place():
    (code,) = [c for c, _ in BLOCKS if "@kernel" in c]
    before = set(KERNELS), set(OPS)
    try:
        names = vars(activations) | {"__name__": "readme"}  # not cached as one of ours
        exec(compile(code, "README.md", "exec"), names)
        x, y = np.linspace(-2, 2, 30).reshape(10, 3) + 0.01, np.ones((10, 2))
        layers = [fnn.Dense(4, activation="hard_tanh"), fnn.Dense(2)]
        net = fnn.Network(layers, input_shape=(3,), loss="mse", seed=0, dtype="float64")
        assert fnn.check(net, x, y).ok
        net.fit(x, y, epochs=2, verbose=0)
        assert "hard_tanh" in str(net.plan)
    finally:  # other tests walk the registries
        for registry, known in zip((KERNELS, OPS), before, strict=True):
            for name in set(registry) - known:
                del registry[name]
