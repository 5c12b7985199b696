"""Networks as source code: what every export shares, and the two that are Python.

`write_numpy` and `write_njit` write one file each, with the weights, the steps of `predict` and a
test. They invent no code: the numpy file has the reference formulas that every kernel is held to,
the njit file the kernels themselves, both as they stand in the source, so that a new op is exported
as soon as it exists. What needs more than numba (elementary functions by polynomials, the tiled
matrix product, typed pointers) has a plain function in its place, from `fastnn.stand_ins`.
`fastnn.export_c` writes C, by texts of its own.
"""

from __future__ import annotations

import builtins
import inspect
import os
import re
import symtable
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn import files, stand_ins
from fastnn.explain import source_of
from fastnn.kernels._kernel import KERNELS
from fastnn.kernels._op import PREDICT, op_of
from fastnn.shapes import Embedding

if TYPE_CHECKING:
    from fastnn.network import Network

__all__ = ["write_njit", "write_numpy"]

ROWS = 3  # of the test in a file, unless the caller gives some
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # of a test, relative to the largest output
PER_LINE = 6  # numbers


class Step(NamedTuple):
    """One op of `predict`, with all that it needs."""

    op: str
    layer: int
    title: str  # the layer
    numbers: dict[str, int | float]  # sizes and hyper-parameters, by the names in the plan
    arrays: dict[str, np.ndarray]  # parameters, likewise


class Model(NamedTuple):
    """A network as the exporters see it."""

    steps: list[Step]
    dtype: np.dtype
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    x: np.ndarray  # rows to test with, (rows, fan_in)
    out: np.ndarray  # and what the network says to them, (rows, fan_out)

    @property
    def tolerance(self) -> float:
        """How far a test may be off."""
        return TOLERANCE[self.dtype.name] * float(np.abs(self.out).max())

    @property
    def table(self) -> list[str]:
        """The steps, a line for each."""
        return [f"{step.title}: {_sizes(step)}" for step in self.steps]


def model_of(net: Network, x: Any = None) -> Model:
    """What there is to export.

    Parameters
    ----------
    net : Network
        Its parameters must be finite.
    x : array (n, fan_in), optional
        Rows to test with; by default three of random normal numbers, or of random categories for
        an `Embedding` in front.

    Raises
    ------
    AttributeError, TypeError, ValueError
        Where the network knows no input shape yet, a parameter or an output is no finite number,
        or ``x`` does not fit.
    """
    plan = net.plan
    for parameter in plan.parameters:
        if not np.isfinite(parameter.of(net.params)).all():
            raise ValueError(f"{parameter.title} must hold finite numbers to be exported")
    if x is None:
        rng, first = np.random.default_rng(0), net.layers[0]
        x = rng.standard_normal((ROWS, *plan.in_shape))
        if isinstance(first, Embedding):
            x = rng.integers(0, first.vocabulary, x.shape)
    out = net.predict(x)
    if not np.isfinite(out).all():
        raise ValueError("x must have finite outputs to test an export with; give other rows as x")
    return Model(
        list(_steps(net)),
        net.dtype,
        plan.in_shape,
        plan.out_shape,
        np.asarray(x, net.dtype).reshape(len(out), plan.fan_in),
        out.reshape(len(out), plan.fan_out),
    )


def _steps(net: Network) -> Iterable[Step]:
    """The ops that `predict` runs, but for those that let everything pass."""
    plan, at, width, moved = net.plan, 0, net.plan.fan_in, False
    source = net._input
    if source is not None and (source.scale, source.offset) != (1, 0):
        numbers = {"fan_in": width, "scale": source.scale, "offset": source.offset}
        yield Step("rescaling", -1, repr(source), numbers | {"fan_out": width}, {})
        moved = True
    for row in plan.rows:
        op = op_of(row).name
        if not row.when & PREDICT:
            continue
        if row.x != at:
            raise NotImplementedError(f"an export takes each op's input from the one before: {op}")
        at = row.out
        if op == "linear":
            continue
        takes = KERNELS[f"{op}_forward"].shapes
        arrays = {
            p.name: p.of(net.params)
            for p in plan.parameters
            if p.layer == row.layer and p.name in takes and p.offset == getattr(row, p.name)
        }
        if "bias" in takes and "bias" not in arrays:  # the layer has none
            arrays["bias"] = np.zeros(row.row_size, net.dtype)
        sizes = {dim for dims in takes.values() for dim in dims if hasattr(row, dim)}
        names = [*sizes, *(name for name, dims in takes.items() if not dims), "fan_in", "fan_out"]
        fields: dict[str, int | float] = {name: getattr(row, name) for name in names}
        number = row.layer
        yield Step(op, number, f"{number} {net.layers[number]!r}", fields, arrays)
        moved = True
    if not moved:
        yield Step("linear", -1, "nothing", {"fan_in": width, "fan_out": width}, {})


def _sizes(step: Step) -> str:
    return f"{step.op}, {step.numbers['fan_in']} -> {step.numbers['fan_out']}"


def number_text(value: Any) -> str:
    """A number in decimals that give back its every bit, in C as well as in Python.

    Nine digits tell any two float32 apart, also where they are read as float64 first; of float64
    ``repr`` has as many as it takes.
    """
    text = f"{value:.9g}" if isinstance(value, np.float32) else repr(float(value))
    return text if set(text) & set(".en") else f"{text}.0"


def lines_of(array: np.ndarray, suffix: str = "") -> str:
    """The numbers of an array, some in each line."""
    texts = [number_text(value) + suffix for value in array.ravel()]
    lines = [", ".join(texts[i : i + PER_LINE]) for i in range(0, len(texts), PER_LINE)]
    return ",\n    ".join(lines)


def remark(text: str) -> str:
    """A text as it may stand in a comment of C or Python: one line, ASCII, no end of a comment.

    Nor the beginning of one, nor a trigraph, of both of which compilers warn.
    """
    plain = " ".join(text.split()).encode("ascii", "backslashreplace").decode()
    return re.sub(r"(?<=[*/?])(?=[*/?])", " ", plain)


PLAIN = {n: f for n, f in vars(stand_ins).items() if inspect.isfunction(f)}


def sources(function: Any, name: str, found: dict[str, str], plain: Mapping[str, Callable]) -> None:
    """Add the source of a function, behind those of all that it uses, to what is found.

    Functions and numbers of other modules become part of the file; ``np`` and ``math`` it imports.
    """
    if name in found:
        return
    function = plain.get(name, getattr(function, "py_func", function))
    text = source_of(function, name)
    for used in sorted(_globals_of(text)):
        value = plain.get(used, function.__globals__.get(used))
        if isinstance(value, int | float | np.generic):
            found.setdefault(used, f"{used} = {value!r}")
        elif isinstance(value, np.ufunc):
            found.setdefault(used, _assignment(inspect.getmodule(function), used))
        elif value is not None and not isinstance(value, ModuleType):
            sources(value, used, found, plain)
        elif value is None and not hasattr(builtins, used):
            raise LookupError(f"{name} uses {used}, which is nowhere to be found")
    found[name] = text


def _assignment(module: Any, name: str) -> str:
    """The line of a module that gives a name its value."""
    whole = inspect.getsource(module)
    made = re.search(rf"^{name} = .*(?:\n[ )].*)*", whole, re.M)
    assert made is not None
    return made[0]


def _globals_of(text: str) -> set[str]:
    """Names that a source takes from outside."""
    names, tables = set(), [symtable.symtable(text, "export", "exec")]
    for table in tables:
        tables += table.get_children()
        names |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return names


def write_numpy(net: Network, path: str | os.PathLike[str], x: Any = None) -> None:
    """Write a Python file that needs numpy alone; see `Network.export_numpy`."""
    model = model_of(net, x)
    found: dict[str, str] = {}
    lines = [
        "x = np.asarray(x, DTYPE)",
        f"if x.shape[1:] != {model.in_shape}:",
        f'    raise ValueError(f"x must have shape {_shape(model.in_shape)}, got {{x.shape}}")',
        f"x = x.reshape(len(x), {model.x.shape[1]})",
    ]
    for step in model.steps:
        kernel = KERNELS[f"{step.op}_forward"]
        lambda_name = kernel.reference.__name__ == "<lambda>"
        name = f"{step.op}_forward" if lambda_name else kernel.reference.__name__
        sources(kernel.reference, name, found, {})
        values = []
        for argument in kernel.inputs:
            sizes = ", ".join(_size(step, d, "len(x)") for d in kernel.shapes[argument])
            value = _argument(step, argument)
            if argument == "out":  # for its shape
                value = f"np.empty(({sizes}))"
            elif argument not in step.arrays and len(kernel.shapes[argument]) > 2:
                value = f"{value}.reshape({sizes})"
            values.append(value)
        result = f"{name}({', '.join(values)})"
        if len(kernel.writes) > 1:
            result += f"[{kernel.writes.index('out')}]"
        lines += [f"# {remark(step.title)}", f"x = row_values({result}, {step.numbers['fan_out']})"]
    lines.append(f"return x.reshape(len(x), {', '.join(map(str, model.out_shape))})")
    functions = [
        *found.values(),
        'def row_values(out, width):\n    """What a step gives, one row for each sample."""\n'
        "    return np.asarray(out, DTYPE).reshape(-1, width)",
        _predict(lines, model),
    ]
    _write_python(model, path, "numpy", "", functions)


def write_njit(net: Network, path: str | os.PathLike[str], x: Any = None) -> None:
    """Write a Python file that needs numpy and numba; see `Network.export_njit`."""
    model = model_of(net, x)
    found: dict[str, str] = {}
    width = model.x.shape[1]
    lines = [
        "n = x.shape[0]",
        f"if x.size != n * {width}:",
        f'    raise ValueError("x must have shape {_shape(model.in_shape)}")',
        f"x = np.ascontiguousarray(x).reshape((n, {width})).astype(DTYPE)",
    ]
    for step in model.steps:
        name = f"{step.op}_forward"
        kernel = KERNELS[name]
        sources(kernel.run, name, found, PLAIN)
        lines += [
            f"# {remark(step.title)}",
            f"out = np.empty((n, {step.numbers['fan_out']}), DTYPE)",
        ]
        values = []
        for argument in inspect.signature(PLAIN.get(name, kernel.run)).parameters:
            dims = kernel.shapes[argument]
            value = _argument(step, argument)
            if argument == "kept":
                lines.append(f"kept = np.empty((n, {step.numbers['fan_in']}), DTYPE)")
            if dims == ("n",):
                value = f"{value}.reshape(-1)"
            elif len(dims) > 2:
                value = f"{value}.reshape(({', '.join(_size(step, d, 'n') for d in dims)}))"
            values.append(value)
        lines += [f"{name}({', '.join(values)})", "x = out"]
    lines[-1] = f"return out.reshape((n, {', '.join(map(str, model.out_shape))}))"
    functions = [*found.values(), _predict(lines, model)]
    functions = [f"@compiled\n{text}" if text.startswith("def") else text for text in functions]
    head = (
        "from numba import njit\n\n"
        "# Multiply and add may be one instruction; a division by 0 gives inf, as in numpy.\n"
        'compiled = njit(fastmath={"contract"}, error_model="numpy")\n'
    )
    _write_python(model, path, "numpy and numba", head, functions)


def _argument(step: Step, name: str) -> str:
    """What a step's function is called with."""
    if name in step.arrays:
        return f"{name}_{step.layer}"
    value = step.numbers.get(name, name)
    return number_text(value) if isinstance(value, float) else str(value)


def _size(step: Step, dim: str, samples: str) -> str:
    """The size of a dimension of a kernel's argument."""
    return dim if dim.isdigit() else str(step.numbers.get(dim, samples))


def _shape(shape: tuple[int, ...]) -> str:
    return f"(n, {', '.join(map(str, shape))})"


def _predict(lines: list[str], model: Model) -> str:
    body = "\n    ".join(lines)
    says = f"Outputs {_shape(model.out_shape)} for samples ``x`` {_shape(model.in_shape)}."
    return f'def predict(x):\n    """{says}"""\n    {body}'


def _write_python(
    model: Model, path: str | os.PathLike[str], needs: str, head: str, functions: list[str]
) -> None:
    arrays = {
        f"{name}_{step.layer}": array for step in model.steps for name, array in step.arrays.items()
    } | {"TEST_X": model.x, "TEST_OUT": model.out}
    constants = [
        f"{name} = np.array([\n    {lines_of(array)},\n], DTYPE).reshape({array.shape})"
        for name, array in arrays.items()
    ]
    says = "\n".join(f"    {remark(line)}" for line in model.table).replace("\\", "\\\\")
    says = says.replace('"', "'")
    test = (
        'if __name__ == "__main__":\n'
        "    difference = abs(predict(TEST_X.reshape(-1, "
        f"{', '.join(map(str, model.in_shape))})).reshape(TEST_OUT.shape) - TEST_OUT).max()\n"
        '    print(f"largest difference from the network: {difference:g}")\n'
        f"    raise SystemExit(not difference <= {model.tolerance:.3g})\n"
    )
    imports = "import numpy as np\n"
    if any("math." in function for function in functions):
        imports = f"import math\n\n{imports}"
    text = "\n\n\n".join(
        [
            f'"""A neural network that needs {needs} alone: ``predict(x)``.\n\n'
            f"Written by fastnn. ``python`` on this file runs its test.\n\n{says}\n"
            f'"""\n\n{imports}{head}\nDTYPE = np.{model.dtype}',
            *functions,
            "\n".join(constants),
            test,
        ]
    )
    files.put(path, text.encode())
