"""Where fastnn meets numba: the compile options, and the table of kernels.

A *kernel* is a compiled function on arrays that stands beside the numpy
formula it must agree with::

    @kernel("x(n) out(n) -> out", reference=lambda x: np.maximum(x, 0))
    def relu_forward(x, out): ...

The string names every argument with its shape, then the arguments that are
written. It is documentation, it is checked against the parameters at import,
and tests and benches make their arguments from it. ``()`` is a scalar and a
number is a fixed size.
"""

import gc
import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from numba import config, njit, types
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import AnalysisPass, PassManager, register_pass
from numba.core.typed_passes import NopythonTypeInference

from ._cache import SYMBOLS, KernelCache

JIT = (
    not config.DISABLE_JIT
)  # NUMBA_DISABLE_JIT=1: every kernel runs as plain Python, for debuggers and coverage

if JIT and hasattr(os, "register_at_fork"):
    # A fork waits for the function that another thread is compiling, or loading. Its lock would
    # stay locked in the child, which has no such thread, and could never compile anything.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )

# Multiply and add may be one instruction. Nothing else: an element must come out the same in a
# vector and in the rest behind the last one, however the array was cut for threads or batches.
FASTMATH = frozenset({"contract"})
# For sums within a row, which only vectorise in another order: a row is never cut. Without "nnan"
# and "ninf", so that NaN and inf stay visible.
SUMS = FASTMATH | {"reassoc", "nsz"}
# error_model="numpy": a division that must check for zero is not vectorised.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}

# Arguments of an inlined part that LLVM is to know, of a type that numba does not: it would compile
# the part anew for each literal number.
TWO, THREE = np.int64(2), np.int64(3)


# Passes of numba's compiler that are left out. They look for closures and list comprehensions,
# array expressions, ``with``, `literal_unroll` and functions to be inlined by numba: a kernel has
# none of these, and to look takes a tenth of its compilation.
UNUSED = (
    "WithLifting InlineClosureLikes RewriteDynamicRaises MakeFunctionToJitFunction "
    "InlineInlinables FindLiterallyCalls LiteralUnroll LiteralPropagationSubPipelinePass "
    "InlineOverloads NopythonRewrites DumpParforDiagnostics"
).split()
COUNTING = ["IRLegalization"]  # says where each variable ends, for what it refers to


class Kernel(NamedTuple):
    """A compiled function, the numpy function it must agree with, and its argument shapes."""

    run: Callable
    reference: Callable
    shapes: dict[str, tuple[str, ...]]
    writes: tuple[str, ...]
    sample: Callable | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments that the reference takes."""
        return tuple(inspect.signature(self.reference).parameters)


KERNELS: dict[str, Kernel] = {}


def compiled(
    function: Callable | None = None, *, fastmath: frozenset[str] = FASTMATH, nogil: bool = True
) -> Any:
    """Compile a function that Python calls; nothing is registered."""
    if function is None:
        return lambda function: compiled(function, fastmath=fastmath, nogil=nogil)
    if not JIT:
        return function
    options = {"fastmath": set(fastmath), **OPTIONS, "nogil": nogil}
    dispatcher = njit(pipeline_class=KernelCompiler, **options)(function)
    dispatcher._cache = KernelCache(function)
    return dispatcher


class Code(JITCodeLibrary):
    """Code that LLVM optimises once, when all that it calls is there.

    numba has each function optimised alone as well, and the whole twice, so that counts of
    references cancel out.
    """

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager()
        with self._recorded_timings.record("Module passes", builder):
            passes.run(self._final_module, builder)


class Fragment(Code):
    """Code that is only ever linked into other code, and optimised and translated there."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        for function in self.get_defined_functions():
            function.linkage = "linkonce_odr"  # others need no copy of their own to say so
        self._finalized = True


@register_pass(mutates_CFG=False, analysis_only=True)
class Uncounted(AnalysisPass):
    """From here on no code is written that counts references to arrays.

    A kernel allocates nothing, and whoever calls it holds what it is given. numba would count at
    every view, and find out after that it need not: a quarter of what LLVM has to read.
    """

    _name = "fastnn_uncounted"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        """Exchange the context that the code is written in."""
        state.targetctx = state.targetctx.subtarget(enable_nrt=False)
        return False


@contextmanager
def uncollected() -> Iterator[None]:
    """Compile without the garbage collector, which would go through all that is made and stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class KernelCompiler(Compiler):
    """Compiles as numba does, without the passes in ``UNUSED``."""

    library, allocates = Code, False

    def compile_extra(self, function: Any) -> Any:
        """Compile a function, and all that it calls."""
        codegen = self.state.targetctx.codegen()
        self.state.library = self.library(codegen, function.__qualname__)
        self.state.library.enable_object_caching()
        with uncollected():
            return super().compile_extra(function)

    def define_pipelines(self) -> list[PassManager]:
        """The passes, in their order."""
        (manager,) = super().define_pipelines()
        unused = UNUSED if self.allocates else [*UNUSED, *COUNTING]
        manager.passes = [step for step in manager.passes if step[0].__name__ not in unused]
        if not self.allocates:
            manager.add_pass_after(Uncounted, NopythonTypeInference)
        manager.finalize()
        return [manager]


class AllocatingCompiler(KernelCompiler):
    """Compiles functions that make arrays."""

    allocates = True


class FragmentCompiler(KernelCompiler):
    """Compiles into a `Fragment`."""

    library = Fragment


class AllocatingFragmentCompiler(FragmentCompiler):
    """Compiles functions that make arrays into a `Fragment`."""

    allocates = True


def part(
    function: Callable | None = None,
    *,
    inline: bool = False,
    allocates: bool = False,
    fastmath: frozenset[str] = FASTMATH,
) -> Any:
    """Compile a function that other compiled functions call, and Python never does.

    It becomes part of their code and has none of its own: no entry for Python, no place in
    the cache, half the time to compile. ``inline`` has LLVM inline the function into its
    callers, where it keeps its own flags. What does not ``allocate`` counts no references: views
    of its arguments that it returns are good as long as those are.
    """
    if function is None:
        return lambda function: part(
            function, inline=inline, allocates=allocates, fastmath=fastmath
        )
    if not JIT:
        return function
    options = {"fastmath": set(fastmath), "forceinline": inline, **OPTIONS}
    compiler = AllocatingFragmentCompiler if allocates else FragmentCompiler
    dispatcher = njit(pipeline_class=compiler, **options)(function)

    def without_code(flags: Any) -> Any:
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        return flags

    def without_entry(result: Any) -> None:
        key = object()  # what callers find the function by, in place of its entry point
        result.target_context.insert_user_function(key, result.fndesc, [result.library])
        dispatcher.overloads[tuple(result.signature.args)] = result._replace(entry_point=key)

    dispatcher._compiler._customize_flags = without_code
    dispatcher.add_overload = without_entry
    return dispatcher


def c_code(
    function: Callable,
    signature: Any,
    kind: type[CFunc] = CFunc,
    compiler: type[KernelCompiler] = KernelCompiler,
) -> CFunc:
    """Compile a function that C can call, or load it."""
    options = {"fastmath": set(FASTMATH), **OPTIONS}
    given = signature.args, signature.return_type
    code = kind(function, given, {}, options, pipeline_class=compiler)
    code._cache = KernelCache(function)
    code.compile()
    return code


class Native(CFunc):
    """A compiled function by its address, called as numba's own functions are.

    C's way would be a second function around it, which copies the arguments once more.
    """

    @property
    def address(self) -> int:
        """Where the code lies."""
        return self._library.get_pointer_to_function(self._wrapper_name.removeprefix("cfunc."))


def jump(context: Any, builder: Any, address: Any, kinds: Sequence[Any], arguments: Any) -> Any:
    """Write the call of a `Native` that returns nothing."""
    convention, intp = context.call_conv, context.get_value_type(types.intp)
    kind = convention.get_function_type(types.void, kinds).as_pointer()
    code = builder.inttoptr(address, kind) if address.type == intp else address
    status, _ = convention.call_function(builder, code, types.void, kinds, arguments)
    with cgutils.if_unlikely(builder, status.is_error):  # an index out of bounds, where they are
        convention.return_status_propagate(builder, status)  # checked: kernels do not raise
    return context.get_dummy_value()


def on_its_own(name: str, function: Callable, signature: Any) -> None:
    """Give a function code of its own, that others call by a symbol and do not hold.

    For functions that are long to compile and have many callers. There is no code until the
    entry in ``SYMBOLS`` is called, by a caller's compilation or by the cache that loads a caller.
    """

    @cache
    def compile_it() -> CFunc:
        code = c_code(function, signature, Native)
        llvmlite.binding.add_symbol(name, code.address)
        return code  # which must stay alive

    SYMBOLS[name] = compile_it


def called(name: str, signature: Any) -> Any:
    """What an intrinsic returns that calls a function which is `on_its_own`."""
    SYMBOLS[name]()

    def generate(context: Any, builder: Any, types_: Any, args: Any) -> Any:
        kind = context.call_conv.get_function_type(types.void, signature.args)
        code = cgutils.get_or_insert_function(builder.module, kind, name)
        return jump(context, builder, code, signature.args, args)

    return signature, generate


def kernel(
    signature: str,
    *,
    reference: Callable,
    sample: Callable | None = None,
    fastmath: frozenset[str] = FASTMATH,
) -> Callable:
    """Compile a function and record it in ``KERNELS`` with its reference.

    Parameters
    ----------
    signature : str
        Arguments with their shapes, then the written ones, as in
        ``"x(batch,fan_in) weight(fan_in,fan_out) out(batch,fan_out) -> out"``.
    reference : callable
        Takes the arguments it names and returns the written ones, in order.
    sample : callable, optional
        ``sample(arguments, rng)`` changes random arguments into ones of the
        kernel's domain, where random normal numbers are not.
    fastmath : set of str, default FASTMATH
        ``SUMS`` for a kernel that sums within a row.
    """
    arguments, _, writes = signature.partition("->")
    shapes = {
        name: tuple(filter(None, dims.split(",")))
        for name, dims in re.findall(r"(\w+)\((.*?)\)", arguments)
    }

    def register(function: Callable) -> Callable:
        name = function.__name__
        if list(inspect.signature(function).parameters) != list(shapes):
            raise TypeError(f"{name}: signature {signature!r} does not match its parameters")
        if not callable(reference):
            raise TypeError(f"{name}: a kernel needs a numpy reference, got {reference!r}")
        if name in KERNELS:
            raise TypeError(f"{name}: a kernel of this name is registered already")
        run = compiled(function, fastmath=fastmath)
        if JIT:  # whoever is compiled takes it as a part, without an entry for Python
            inner = part(function, fastmath=fastmath)
            run.get_call_template, run.get_overload = inner.get_call_template, inner.get_overload
        KERNELS[name] = Kernel(run, reference, shapes, tuple(writes.split()), sample)
        return KERNELS[name].run

    return register
