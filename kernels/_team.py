"""Threads that run the same compiled code, each on its part, and wait for one another.

Every thread of a *team* has a *seat*, a number from 0 on, and calls the same
function. It first ``join``s, then takes its share (``_shares.py``) of what is to be done, and
``meet``s the others wherever it needs what they have computed. A meeting is a few
atomic operations on memory that the team shares: no lock, and no system
call where every thread has a processor. Where they have not, those who wait for long
offer theirs to the others.

Source: the barrier counts rounds, so that a thread may arrive at the next meeting before
the last one has left this: Hensgen, Finkel and Manber (1988), "Two algorithms for barrier
synchronization", International Journal of Parallel Programming 17.
"""

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ._kernel import JIT, part
from ._memory import vector

# Numbers of numpy, not of Python: for each of those numba would compile anew what takes them.
# Places in a team's array of int64, 64 bytes apart: threads that write to one cache line hinder
# each other.
WANTED, PRESENT, MEMBERS, WAITING, ROUND, NEXT = (np.int64(8 * place) for place in range(6))
FIRST, ALONE, NOBODY = (np.int64(number) for number in (0, 1, 0))
TEAM = 48  # size of the array, all zeros before the team joins
CALLED_OFF = -1  # in place of the number of members: go home
PATIENCE = 3_000_000  # looks for a thread that does not come, a second or more
SPINS = 200  # looks before a thread that waits offers its processor to others, about 10 us

_YIELDS = [  # of the C library, of Windows
    name for name in ("sched_yield", "SwitchToThread") if llvmlite.binding.address_of_symbol(name)
]
AVAILABLE = JIT and bool(_YIELDS)  # whether a team may have more than one member


if AVAILABLE:
    _yield = types.ExternalFunction(_YIELDS[0], types.int32())
    _X86 = cpu_target.target_context.codegen().magic_tuple()[0].startswith(("x86", "i"))

    def _at(builder, team, place):
        return builder.gep(team, [place])

    @intrinsic
    def _read(typing, team, place):
        """The number at a place, and with it all that its writer had written before."""

        def generate(context, builder, signature, args):
            return builder.load_atomic(_at(builder, *args), "acquire", 8)

        return types.int64(team, types.intp), generate

    @intrinsic
    def _write(typing, team, place, value):
        """Set the number at a place, for all to see after what was written before."""

        def generate(context, builder, signature, args):
            builder.store_atomic(args[2], _at(builder, *args[:2]), "release", 8)
            return context.get_dummy_value()

        return types.void(team, types.intp, types.int64), generate

    @intrinsic
    def _add(typing, team, place, value):
        """Add to the number at a place; returns what it was."""

        def generate(context, builder, signature, args):
            return builder.atomic_rmw("add", _at(builder, *args[:2]), args[2], "seq_cst")

        return types.int64(team, types.intp, types.int64), generate

    @intrinsic
    def _pause(typing):
        """Tell the processor that this thread only waits."""

        def generate(context, builder, signature, args):
            if _X86:
                nothing = ir.FunctionType(ir.VoidType(), [])
                name = "llvm.x86.sse2.pause"
                builder.call(cgutils.get_or_insert_function(builder.module, nothing, name), [])
            return context.get_dummy_value()

        return types.void(), generate

    @part
    def _after(team, place, value):
        """The number at a place once it is another than ``value``."""
        spins = 0
        while _read(team, place) == value:
            spins += 1
            if spins < SPINS:
                _pause()
            else:
                _yield()
        return _read(team, place)

    @part
    def join(team, seat):
        """Begin; returns how many members there are, or ``CALLED_OFF``.

        The first seat waits for all the others. If one does not come, whatever happened to it,
        nobody begins.
        """
        if seat > 0:
            _add(team, PRESENT, 1)
            return _after(team, MEMBERS, NOBODY)
        wanted, looks = _read(team, WANTED), 0
        while _read(team, PRESENT) < wanted - 1 and looks < PATIENCE:
            looks += 1
            if looks < SPINS:
                _pause()
            else:
                _yield()
        complete = _read(team, PRESENT) == wanted - 1
        _write(team, MEMBERS, wanted if complete else CALLED_OFF)
        return _read(team, MEMBERS)

    @part
    def meet(team, members):
        """Wait until every member is here."""
        if members > 1:
            number = _read(team, ROUND)
            if _add(team, WAITING, 1) == members - 1:
                _write(team, WAITING, 0)
                _write(team, ROUND, number + 1)
            else:
                _after(team, ROUND, number)

    @part
    def claim(team):
        """The number of the next piece of work, from 0 on: whoever asks first gets it."""
        return _add(team, NEXT, 1)

else:

    @part
    def join(team, seat):
        """Begin alone."""
        return 1

    @part
    def meet(team, members):
        """Nobody to wait for."""

    @part
    def claim(team):
        """The number of the next piece of work, from 0 on."""
        pieces = vector(team, NEXT, 1)
        pieces[0] += 1
        return pieces[0] - 1
