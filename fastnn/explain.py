"""Pages on everything that has a name: formula, numpy reference, kernel, chapters, mistakes.

Nothing is written down twice: formulas are the docstrings of classes and kernels, the code is the
code that runs. Only chapters and mistakes stand in a table of their own, `fastnn._notes`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fastnn import initializers, losses, metrics, optimizers
from fastnn._check import one_of
from fastnn._notes import NOTES, Note
from fastnn.kernels._kernel import KERNELS, Kernel
from fastnn.kernels._op import OPS
from fastnn.kernels.optimizers import RULES
from fastnn.layers import Layer

__all__ = ["explain", "page", "topics"]

WIDTH = 88
NNFS = "Neural Networks from Scratch (nnfs.io)"
NIELSEN = "Nielsen, Neural Networks and Deep Learning"


class Topic(NamedTuple):
    """Something with a page: its kind, the public thing if there is one, and its ops or rules."""

    kind: str
    thing: Any = None
    stems: tuple[str, ...] = ()

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Its kernels: ``relu`` has ``relu_forward`` and ``relu_backward``."""
        return {n: k for s in self.stems for n, k in KERNELS.items() if n.rpartition("_")[0] == s}


def topics() -> dict[str, Topic]:
    """Everything that has a page, by the name that users write, in lower case.

    Returns
    -------
    dict of str to Topic
        Activations, losses, metrics, optimizers, initializers and layers.

    Examples
    --------
    >>> topics()["adam"].kind, list(topics()["relu"].kernels)
    ('optimizer', ['relu_forward', 'relu_backward'])
    """
    face = vars(importlib.import_module("fastnn"))
    classes = public(vars(losses))
    fused = fused_ops()
    found: dict[str, Topic] = {}
    for op in OPS.values():
        if op.name not in fused and op.role != "layer":
            pair = [name for name, loss in fused.items() if loss == op.name]
            kind = op.role if op.role in ("activation", "loss", "metric") else "op"
            found[op.name] = Topic(kind, classes.get(op.name), (*pair, op.name))
    for name, optimizer in optimizers.OPTIMIZERS.items():
        rules = named_in(optimizer.rule.fget, RULES)  # type: ignore[attr-defined]
        own = tuple(r for r in rules if r == name or r not in optimizers.OPTIMIZERS)
        found[name] = Topic("optimizer", optimizer, own)
    for name in metrics.__all__:
        found.setdefault(name, Topic("metric", getattr(metrics, name)))  # mae and mse: the losses
    for name in initializers.__all__:
        thing = getattr(initializers, name)
        if inspect.isfunction(thing) and name not in ("get", "default_for"):
            found[name] = Topic("initializer", thing)
    of_layers = [op.name for op in OPS.values() if op.role == "layer"]
    for name, layer in public(face).items():
        if issubclass(layer, Layer):
            found[name] = Topic("layer", layer, named_in(layer, of_layers))
    return dict(sorted(found.items()))


def public(names: dict[str, Any]) -> dict[str, type]:
    """Classes of a module, by their names as an argument would spell them: ``batch_norm``."""
    found = {name: thing for name, thing in names.items() if inspect.isclass(thing)}
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", n).lower(): thing for n, thing in found.items()}


def named_in(thing: Any, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that stand in quotes in a source."""
    source = inspect.getsource(thing)
    return tuple(name for name in names if f'"{name}"' in source)


def fused_ops() -> dict[str, str]:
    """Ops that are an activation and a loss in one, and the loss that each computes."""
    roles: dict[str, list[str]] = {}
    for op in OPS.values():
        roles.setdefault(op.role, []).append(op.name)
    pairs = {f"{first}_{loss}": loss for first in roles["activation"] for loss in roles["loss"]}
    return {name: loss for name, loss in pairs.items() if name in OPS}


def explain(name: str | None = None) -> None:
    """Print a page: formula, numpy reference, kernel, chapters of the books, mistakes to avoid.

    Parameters
    ----------
    name : str, optional
        A layer, activation, loss, metric, optimizer or initializer, in any case: ``"adam"``,
        ``"relu"``, ``"BatchNorm"`` or ``"batch_norm"``. Without one, the names that there are.

    Raises
    ------
    TypeError, ValueError
        Where there is no such page; the text lists those there are, nearest first.

    Examples
    --------
    >>> import fastnn as fnn
    >>> fnn.explain("relu")  # doctest: +ELLIPSIS
    relu: an activation
    <BLANKLINE>
    Formula
        relu_forward: out = max(x, 0). Source: Nair and Hinton (2010), ICML.
        relu_backward: grad_x = grad_out where out > 0; 0 at 0.
    <BLANKLINE>
    In the books
        ...
    """
    print(index() if name is None else page(name))


def index() -> str:
    """The names that have a page, by kind."""
    kinds: dict[str, list[str]] = {}
    for name, topic in topics().items():
        kinds.setdefault(topic.kind, []).append(name)
    plural = {"loss": "losses"}
    return "\n".join(
        wrapped(f"{plural.get(kind, kind + 's')}: {', '.join(kinds[kind])}", 4)
        for kind in sorted(kinds)
    )


def page(name: str) -> str:
    """The text that `explain` prints for a name.

    Parameters
    ----------
    name : str
        As in `explain`.

    Returns
    -------
    str
        Lines of at most some 100 characters.

    Raises
    ------
    TypeError, ValueError
        As in `explain`.
    """
    known = topics()
    if isinstance(name, str):
        # Ops and rules lead to the page of the loss, layer or optimizer that they are part of.
        owners = {stem: key for key, topic in known.items() for stem in topic.stems}
        plain = {key.replace("_", ""): owner for key, owner in owners.items()}
        plain |= {key.replace("_", ""): key for key in known}
        name = plain.get(re.sub(r"[\W_]", "", name).lower(), name)
    name = one_of("name", name, known)
    topic = known[name]
    article = "an" if topic.kind[0] in "aio" else "a"
    sections = [f"{name}: {article} {topic.kind}"]
    for title, text in parts(topic, NOTES.get(name, Note())):
        sections.append(f"{title}\n{textwrap.indent(text, '    ')}")
    return "\n\n".join(sections)


def parts(topic: Topic, note: Note) -> Iterator[tuple[str, str]]:
    """Titles and texts of a page."""
    kernels = topic.kernels
    says = [f"{name}: {summary(kernel)}" for name, kernel in kernels.items()]
    if topic.thing is not None:
        says.insert(0, summary(topic.thing))
    yield "Formula", "\n".join(wrapped(text, 4) for text in says)
    books = (
        f"{NNFS}: {note.nnfs or 'not in nnfs'}",
        f"{NIELSEN}: {note.nielsen or 'not in Nielsen'}",
    )
    yield "In the books", "\n".join(wrapped(book, 4) for book in books)
    listed = [wrapped(f"- {mistake}", 2) for mistake in note.mistakes]
    yield "Mistakes to avoid", "\n".join(listed) or "None that we know of."
    if topic.thing is not None:
        yield "How it is used", used(topic.thing)
    if kernels:
        references = {
            source_of(kernel.reference, f"{name}_reference"): None
            for name, kernel in kernels.items()
        }
        yield "The formula in numpy, which the kernel must agree with", "\n\n".join(references)
        yield "The kernel, which runs", "\n\n".join(source_of(k.run) for k in kernels.values())
    else:
        yield "Its source", source_of(topic.thing)


def wrapped(text: str, hang: int) -> str:
    """A paragraph, its later lines set in."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False
    )


def summary(thing: Any) -> str:
    """What stands before the parameters in a docstring, without the marks for code."""
    thing = getattr(thing, "run", thing)
    text = inspect.getdoc(getattr(thing, "py_func", thing)) or ""
    text = re.split(r"\n\n\w[\w ]*\n-{3,}\n", text)[0]
    return " ".join(text.replace("``", "").split())


def used(thing: Any) -> str:
    """Call and parameters, as the docstring of a class or a function says them."""
    text = inspect.getdoc(thing) or ""
    found = re.search(r"Parameters\n-+\n(.*?)(?=\n\n\w[\w ]*\n-{3,}\n|\Z)", text, re.S)
    signature = inspect.signature(thing)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    called = signature.replace(parameters=plain, return_annotation=signature.empty)
    return wrapped(f"{thing.__name__}{called}", 4) + (f"\n{found[1]}" if found else "")


def source_of(function: Callable, name: str = "") -> str:
    """Source of a function or class, without decorators; a lambda as a function of that name."""
    function = getattr(function, "py_func", function)
    module = importlib.import_module(function.__module__)
    whole = inspect.getsource(module)
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", 0)
    for node in ast.walk(ast.parse(whole)):
        if isinstance(node, ast.Lambda):
            if node.lineno == line and function.__name__ == "<lambda>":
                return f"def {name}({ast.unparse(node.args)}):\n    return {ast.unparse(node.body)}"
        elif getattr(node, "name", None) == function.__name__:
            text = ast.get_source_segment(whole, node, padded=True)
            return textwrap.dedent(text or "")
    raise LookupError(f"{function.__name__} is not in {module.__name__}")
