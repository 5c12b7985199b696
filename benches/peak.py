"""The peak: how many multiply-adds a core makes where no memory is touched.

A loop of fused multiply-adds on sums that stay in registers, as many independent ones as hide
how long each takes. What a product does in float32 on the same machine is a share of that.
"""

from concurrent.futures import ThreadPoolExecutor

from llvmlite import ir
from numba import float32, int64, njit
from numba.extending import intrinsic

from fastnn.kernels._vectors import REGISTERS, VECTOR_BITS

SUMS = REGISTERS * 5 // 8  # the factors need registers as well
LANES = VECTOR_BITS // 32
STEPS = 10_000
FLOP = 2 * SUMS * LANES * STEPS  # in one block


@intrinsic
def multiply_adds(typing, steps, factor):
    """``sum = sum * factor + factor`` on all lanes of all sums, ``steps`` times."""

    def generate(context, builder, signature, args):
        steps, factor = args
        vector, lane = ir.VectorType(ir.FloatType(), LANES), ir.IntType(32)
        undefined = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(undefined, factor, ir.Constant(lane, 0))
        zeros = ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
        factors = builder.shuffle_vector(one, undefined, zeros)
        kind = ir.FunctionType(vector, [vector] * 3)
        multiply_add = ir.Function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")

        before = builder.block
        loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(steps.type)
        sums = [builder.phi(vector) for _ in range(SUMS)]
        results = [builder.call(multiply_add, [total, factors, factors]) for total in sums]
        step.add_incoming(steps, before)
        left = builder.sub(step, ir.Constant(step.type, 1))
        step.add_incoming(left, loop)
        for number, (total, result) in enumerate(zip(sums, results, strict=True)):
            # Each starts from a number of its own, or they would be one sum to the compiler.
            total.add_incoming(ir.Constant(vector, [float(number)] * LANES), before)
            total.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed(">", left, ir.Constant(left.type, 0)), loop, after)
        builder.position_at_end(after)
        total = results[0]
        for result in results[1:]:
            total = builder.fadd(total, result)
        return builder.extract_element(total, ir.Constant(lane, 0))

    return float32(steps, factor), generate


@njit(nogil=True)
def block(number):
    """So many blocks of multiply-adds; the sum keeps the compiler from leaving them out."""
    total = float32(0)
    for _ in range(number):
        total += multiply_adds(int64(STEPS), float32(0.5))
    return total


def peak(threads):
    """``call(number)``: so many blocks in each of the threads at once."""
    if threads == 1:
        return block
    pool = ThreadPoolExecutor(threads)
    return lambda number: list(pool.map(block, [number] * threads))


def gflops(seconds, threads):
    """Of one block in each thread."""
    return threads * FLOP / seconds / 1e9
