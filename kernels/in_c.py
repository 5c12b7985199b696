"""A network as a C function: ``int f(double *x, intptr_t count, double *out, void *desk)``.

What C programs, and scipy's ``LowLevelCallable``, call; the last argument is the address of the
network's desk (`desk.DESK`).
"""

from functools import cache

import numpy as np
from numba import types

from ._kernel import AllocatingCompiler, c_code, part
from ._memory import pointer, vector
from .desk import desk_at, fill, room_for


@part
def answer(desk, x, count, out, room):
    """Write the output for ``count`` numbers to ``out``; whether they were as many as go in."""
    if count != desk.fan_in:
        return np.intc(0)
    result = room[room.size - desk.fan_out :]
    fill(desk, vector(x, 0, count), 1, room, result)
    target = vector(out, 0, desk.fan_out)
    for o in range(desk.fan_out):
        target[o] = result[o]
    return np.intc(1)


@part(inline=True)
def numbers_for(desk):
    """Room for a prediction of one row, and for its output."""
    return room_for(desk.row_size, desk.packs, 1) + desk.fan_out


def write_float32(x, count, out, desk):
    """``int f(double *x, intptr_t count, double *out, void *desk)``."""
    where = desk_at(desk)
    return answer(where, x, count, out, np.empty(numbers_for(where), np.float32))


def write_float64(x, count, out, desk):
    """Likewise, of a network of float64."""
    where = desk_at(desk)
    return answer(where, x, count, out, np.empty(numbers_for(where), np.float64))


def value_float32(count, x, desk):
    """``double f(int count, double *x, void *desk)``, of one output; NaN for another count."""
    result = np.full(1, np.nan)
    write_float32_part(x, np.intp(count), pointer(result), desk)
    return result[0]


def value_float64(count, x, desk):
    """Likewise, of a network of float64."""
    result = np.full(1, np.nan)
    write_float64_part(x, np.intp(count), pointer(result), desk)
    return result[0]


write_float32_part = part(write_float32, allocates=True)
write_float64_part = part(write_float64, allocates=True)
_DOUBLES = types.CPointer(types.float64)
# What C programs and scipy know such functions by: how numba has them, and the Python functions.
SIGNATURES = {
    "int (double *, intptr_t, double *, void *)": (
        types.intc(_DOUBLES, types.intp, _DOUBLES, types.intp),
        {"float32": write_float32, "float64": write_float64},
    ),
    "double (int, double *, void *)": (
        types.float64(types.intc, _DOUBLES, types.intp),
        {"float32": value_float32, "float64": value_float64},
    ),
}


@cache
def c_function(signature, dtype):
    """A compiled C function; it must stay alive as long as anybody has its address."""
    numba_signature, functions = SIGNATURES[signature]
    return c_code(functions[dtype], numba_signature, compiler=AllocatingCompiler)
