"""Vector registers in LLVM's own terms, for code that plain loops do not become.

``Vectors`` writes the instructions at a builder's position: loads and stores, whole or of the lanes
that exist, a number in every lane, one multiply-add.
"""

import os

from llvmlite import ir
from numba.core.registry import cpu_target


def _machine() -> tuple[int, int]:
    """Width of a vector register in bits, and how many there are."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    flags = set(features.split(","))
    registers = 32 if "+avx512f" in flags or not triple.startswith(("x86", "i")) else 16
    bits = 512 if "+avx512f" in flags else 256 if "+avx" in flags else 128
    return int(os.environ.get("FASTNN_VECTOR_BITS", bits)), registers


VECTOR_BITS, REGISTERS = _machine()
# Every instruction of AVX-512 can take a mask, which costs a load as much as arithmetic.
MASKS_ARE_CHEAP = VECTOR_BITS == 512


def lanes(itemsize: int) -> int:
    """Numbers of this many bytes in one vector."""
    return VECTOR_BITS // (8 * itemsize)


class Vectors:
    """Writes instructions on vectors of ``count`` numbers of LLVM's type ``element``."""

    index, lane = ir.IntType(64), ir.IntType(32)

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, count: int) -> None:
        self.builder, self.element, self.count = builder, element, count
        self.kind = ir.VectorType(element, count)
        self.itemsize = {"float": 4, "double": 8}[str(element)]
        self.suffix = f"v{count}f{8 * self.itemsize}"
        self.zero = ir.Constant(self.kind, [0.0] * count)

    def number(self, value: int) -> ir.Constant:
        """A whole number, as of offsets."""
        return ir.Constant(self.index, value)

    def function(self, name: str, result: ir.Type, parameters: list[ir.Type]) -> ir.Function:
        """One of LLVM's functions."""
        known = self.builder.module.globals
        signature = ir.FunctionType(result, parameters)
        return known[name] if name in known else ir.Function(self.builder.module, signature, name)

    def shuffled(self, first: ir.Value, second: ir.Value | None, picked: list[int]) -> ir.Value:
        """Lanes of two vectors, those of the second counted on."""
        second = ir.Constant(first.type, ir.Undefined) if second is None else second
        mask = ir.Constant(ir.VectorType(self.lane, len(picked)), picked)
        return self.builder.shuffle_vector(first, second, mask)

    def joined(self, parts: list[ir.Value]) -> ir.Value:
        """Vectors one behind another, as many as a power of two."""
        while len(parts) > 1:
            both = list(range(2 * parts[0].type.count))
            parts = [
                self.shuffled(first, second, both)
                for first, second in zip(parts[::2], parts[1::2], strict=True)
            ]
        return parts[0]

    def splat(self, value: ir.Value, kind: ir.Type | None = None) -> ir.Value:
        """All lanes of a vector set to one number."""
        undefined = ir.Constant(kind or self.kind, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(self.lane, 0))
        return self.shuffled(one, undefined, [0] * self.count)

    def first(self, number: ir.Value) -> ir.Value:
        """Which lanes exist where so many do."""
        wide = ir.VectorType(self.index, self.count)
        every = ir.Constant(wide, list(range(self.count)))
        return self.builder.icmp_signed("<", every, self.splat(number, wide))

    def load(self, pointer: ir.Value, offset: ir.Value, exist: ir.Value | None = None) -> ir.Value:
        """The numbers from ``pointer[offset]`` on, 0 in lanes that do not exist."""
        at = self._place(pointer, offset, self.kind)
        if exist is None:
            value = self.builder.load(at)
            value.align = self.itemsize
            return value
        masked = self.function(
            f"llvm.masked.load.{self.suffix}.p0",
            self.kind,
            [at.type, self.lane, exist.type, self.kind],
        )
        align = ir.Constant(self.lane, self.itemsize)
        return self.builder.call(masked, [at, align, exist, self.zero])

    def store(
        self, value: ir.Value, pointer: ir.Value, offset: ir.Value, exist: ir.Value | None = None
    ) -> None:
        """Write the lanes that exist of a vector, of any length where all do."""
        at = self._place(pointer, offset, value.type)
        if exist is None:
            self.builder.store(value, at).align = self.itemsize
            return
        masked = self.function(
            f"llvm.masked.store.{self.suffix}.p0",
            ir.VoidType(),
            [self.kind, at.type, self.lane, exist.type],
        )
        self.builder.call(masked, [value, at, ir.Constant(self.lane, self.itemsize), exist])

    def _place(self, pointer: ir.Value, offset: ir.Value, kind: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(pointer, [offset]), kind.as_pointer())

    def multiply_add(self, factor: ir.Value, other: ir.Value, total: ir.Value) -> ir.Value:
        """``factor * other + total``: one rounding where the machine has that, else two."""
        fmuladd = self.function(f"llvm.fmuladd.{self.suffix}", self.kind, [self.kind] * 3)
        return self.builder.call(fmuladd, [factor, other, total])

    def added_up(self, value: ir.Value) -> ir.Value:
        """Sum of all lanes, in an order that is the machine's."""
        name = f"llvm.vector.reduce.fadd.{self.suffix}"
        add = self.function(name, self.element, [self.element, self.kind])
        none = ir.Constant(self.element, -0.0)
        return self.builder.call(add, [none, value], fastmath=("reassoc",))

    def bent(self, value: ir.Value, side: ir.Value, slopes: ir.Value) -> ir.Value:
        """``value * slopes`` where ``side <= 0``; ``value`` elsewhere, and where side is NaN."""
        below = self.builder.fcmp_ordered("<=", side, self.zero)
        return self.builder.select(below, self.builder.fmul(slopes, value), value)
