"""Addresses, views and calls: the only place where compiled code handles raw memory.

Compiled code reaches the buffers of a network through typed pointers and cuts
views from them. A view cut from a pointer owns nothing, so no reference is
counted: counters that threads share would cost more than a small layer.

Without the compiler (``NUMBA_DISABLE_JIT=1``) the same names work on numpy
arrays, so the whole interpreter can be stepped through in a debugger.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

from ._kernel import JIT, jump

ROOM = 64  # numbers of an array that a function has for itself


class Pointer(NamedTuple):
    """A position in a flat array: what stands for a typed pointer when nothing is compiled."""

    array: np.ndarray
    position: int

    def view(self, offset: int, size: int) -> np.ndarray:
        """``size`` elements that start ``offset`` elements further on."""
        return self.array[self.position + offset : self.position + offset + size]


def at_address(address: int, shape: tuple, strides: tuple, dtype: np.dtype) -> np.ndarray:
    """The memory at an address as an array: for runs without the compiler."""

    class Memory:
        __array_interface__ = {  # noqa: RUF012 (numpy's protocol, not state)
            "data": (int(address), False),
            "shape": tuple(int(n) for n in shape),
            "strides": tuple(int(n) for n in strides),
            "typestr": np.dtype(dtype).str,
            "version": 3,
        }

    return np.asarray(Memory()).view(dtype)  # what the string of a record says is its size


def borrowed(context, builder, array_type, data, shape, strides):
    """An array struct over memory that it does not own."""
    from numba.np.arrayobj import populate_array  # which only what compiles has a use for: 50 ms

    array = context.make_array(array_type)(context, builder)
    itemsize = context.get_constant(
        types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype))
    )
    if strides is None:
        strides, step = [], itemsize
        for length in reversed(shape):
            strides.insert(0, step)
            step = builder.mul(step, length)
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()


if JIT:

    @intrinsic
    def pointer(typing, array):
        """Typed pointer to the first element of an array."""

        def generate(context, builder, signature, args):
            return context.make_array(array)(context, builder, args[0]).data

        return types.CPointer(array.dtype)(array), generate

    @intrinsic
    def lent(typing, array):
        """The same array for whoever is called: nobody counts references to it.

        Counting is atomic, and costs more than a small layer. For arguments alone, which whoever
        calls holds: what a function made itself would be gone after its last mention.
        """

        def generate(context, builder, signature, args):
            given = context.make_array(array)(context, builder, args[0])
            nobody = cgutils.get_null_value(given.meminfo.type)
            given.meminfo, given.parent = nobody, cgutils.get_null_value(given.parent.type)
            return given._getvalue()

        return array(array), generate

    @intrinsic
    def tiny_of(typing, array):
        """The smallest normal number of an array's dtype: `numpy.finfo` is long to compile."""

        def generate(context, builder, signature, args):
            smallest = np.finfo(as_dtype(array.dtype)).tiny
            return context.get_constant(array.dtype, smallest)

        return array.dtype(array), generate

    @intrinsic
    def room_like(typing, item):
        """An array of ``ROOM`` numbers of the type of ``item``, as long as the function runs."""

        def generate(context, builder, signature, args):
            place = cgutils.alloca_once(builder, context.get_data_type(item), size=ROOM)
            size = context.get_constant(types.intp, ROOM)
            return borrowed(context, builder, signature.return_type, place, [size], None)

        return types.Array(item, 1, "C")(item), generate

    @intrinsic
    def shifted(typing, base, elements):
        """The pointer a number of elements further on."""

        def generate(context, builder, signature, args):
            return builder.gep(args[0], [args[1]])

        return base(base, types.intp), generate

    @intrinsic
    def vector(typing, base, offset, size):
        """View of ``size`` elements from ``base[offset]`` on."""

        def generate(context, builder, signature, args):
            data = builder.gep(args[0], [args[1]])
            return borrowed(context, builder, signature.return_type, data, [args[2]], None)

        return types.Array(base.dtype, 1, "C")(base, types.intp, types.intp), generate

    @intrinsic
    def matrix(typing, base, offset, rows, columns):
        """View (rows, columns) of the elements from ``base[offset]`` on."""

        def generate(context, builder, signature, args):
            data = builder.gep(args[0], [args[1]])
            return borrowed(context, builder, signature.return_type, data, [*args[2:]], None)

        return types.Array(base.dtype, 2, "C")(base, types.intp, types.intp, types.intp), generate

    @intrinsic
    def cube(typing, base, offset, rows, columns, depth):
        """View (rows, columns, depth) of the elements from ``base[offset]`` on."""

        def generate(context, builder, signature, args):
            data = builder.gep(args[0], [args[1]])
            return borrowed(context, builder, signature.return_type, data, [*args[2:]], None)

        return types.Array(base.dtype, 3, "C")(base, *[types.intp] * 4), generate

    @intrinsic
    def strided(typing, address, item, rows, columns, row_stride, column_stride):
        """Read-only view of memory at an address; strides are bytes, ``item`` lends its dtype."""

        def generate(context, builder, signature, args):
            array_type = signature.return_type
            data = builder.inttoptr(args[0], context.get_data_type(array_type.dtype).as_pointer())
            return borrowed(context, builder, array_type, data, [*args[2:4]], [*args[4:6]])

        result = types.Array(item, 2, "A", readonly=True)
        return result(types.intp, item, *[types.intp] * 4), generate

    @intrinsic
    def pointer_at(typing, address, item):
        """Typed pointer to what lies at an address; ``item`` lends its type."""
        kind = item.dtype if isinstance(item, types.Array) else item

        def generate(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_data_type(kind).as_pointer())

        return types.CPointer(kind)(types.intp, item), generate

    @intrinsic
    def exchanged(typing, base, expected, value):
        """What a number was; where it was what is expected it has become another, atomically."""

        def generate(context, builder, signature, args):
            pair = builder.cmpxchg(*args, "seq_cst", "seq_cst")
            return builder.extract_value(pair, 0)

        return types.int64(base, types.int64, types.int64), generate

    @intrinsic
    def call(typing, address, record, net, lo, hi):
        """Call the function (record, net, lo, hi) that was compiled at an address."""

        def generate(context, builder, signature, args):
            return jump(context, builder, args[0], signature.args[1:], args[1:])

        return types.void(types.intp, record, net, types.intp, types.intp), generate

else:

    def _anywhere(address, dtype):
        """Stand-in for a pointer whose memory goes on in both directions, who knows how far."""
        far = 1 << 39
        memory = at_address(address - far * dtype.itemsize, (2 * far,), (dtype.itemsize,), dtype)
        return Pointer(memory, far)

    def pointer(array):
        """Stand-in for the pointer to the first element."""
        if array.flags.c_contiguous:
            return Pointer(array.reshape(-1), 0)
        return _anywhere(array.__array_interface__["data"][0], array.dtype)

    def lent(array):
        """The same array."""
        return array

    def tiny_of(array):
        """The smallest normal number of an array's dtype."""
        return np.finfo(array.dtype).tiny

    def room_like(item):
        """An array of ``ROOM`` numbers of the type of ``item``."""
        return np.empty(ROOM, type(item))

    def shifted(base, elements):
        """The pointer a number of elements further on."""
        return Pointer(base.array, base.position + int(elements))

    def vector(base, offset, size):
        """View of ``size`` elements from ``base[offset]`` on."""
        return base.view(int(offset), int(size))

    def matrix(base, offset, rows, columns):
        """View (rows, columns) of the elements from ``base[offset]`` on."""
        return base.view(int(offset), int(rows * columns)).reshape(rows, columns)

    def cube(base, offset, rows, columns, depth):
        """View (rows, columns, depth) of the elements from ``base[offset]`` on."""
        size = int(rows * columns * depth)
        return base.view(int(offset), size).reshape(rows, columns, depth)

    def strided(address, item, rows, columns, row_stride, column_stride):
        """View of the memory at an address; strides are bytes, ``item`` lends its dtype."""
        return at_address(
            address, (rows, columns), (row_stride, column_stride), np.asarray(item).dtype
        )

    def pointer_at(address, item):
        """Stand-in for a pointer to what lies at an address."""
        return _anywhere(int(address), np.asarray(item).dtype)

    def exchanged(base, expected, value):
        """What a number was; where it was what is expected it has become another."""
        before = int(base.array[base.position])
        if before == expected:
            base.array[base.position] = value
        return before

    def call(address, record, net, lo, hi):
        """Call the function (record, net, lo, hi) that has this number."""
        FUNCTIONS[address](record, net, lo, hi)


FUNCTIONS: dict[int, Callable] = {}  # without the compiler: number -> function
