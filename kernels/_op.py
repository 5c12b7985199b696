"""The plan's row, the buffers, and how compiled code reaches both.

An *op* is one line of a plan: a record of offsets and sizes (``OP``) and up
to three functions that read it, all of one form ``(op, net, lo, hi)``:

* ``forward`` and ``backward`` work on the rows ``lo..hi`` of the batch and on
  no others, so that threads can share a batch without meeting;
* ``gradient`` sums over the rows ``net.first..net.last`` of the batch for the weight
  rows ``lo..hi`` alone, so that threads can share the weights without meeting.

Each function cuts views out of the buffers and hands them to kernels, which
know arrays and nothing else. The interpreter (``run.py``) calls the functions
by address: it is compiled once and serves every network, and only the ops in
use are compiled at all.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, models, register_model

from ._kernel import JIT, Native, c_code, part
from ._memory import FUNCTIONS, matrix, vector

PREDICT, TRAIN, EVALUATE = 1, 2, 4
ALWAYS = PREDICT | TRAIN | EVALUATE
LOSS, METRIC = -1, -2  # in place of a layer's number


class Row(NamedTuple):
    """One op of a plan, as Python sees it; compiled code reads the same fields as an ``OP``."""

    forward: int = 0  # address of the compiled function (op, net, lo, hi)
    backward: int = 0  # likewise; 0 where nothing flows back
    gradient: int = 0  # likewise; 0 where there are no parameters
    kind: int = 0  # number of the op in OPS
    when: int = 0  # PREDICT | TRAIN | EVALUATE: the passes it takes part in
    layer: int = 0  # number of the layer it belongs to, or LOSS or METRIC
    x: int = 0  # input: values per batch row that lie before it in work and grad_work
    out: int = 0  # output: likewise
    prob: int = 0  # probabilities that a fused loss keeps for its backward pass: likewise
    target: int = 0  # what the output should have been: likewise
    sample_weight: int = 0  # what a row's loss counts: likewise
    weight: int = 0  # offset in params and grads
    bias: int = 0  # offset in params and grads
    fan_in: int = 0  # values per batch row going in
    fan_out: int = 0  # values per batch row coming out
    kept: int = 0  # what forward keeps for backward, as many values as fan_in: likewise
    # Of images: what goes in, what comes out, and the window that moves over it.
    channels: int = 0
    height: int = 0
    width: int = 0
    filters: int = 0
    out_height: int = 0
    out_width: int = 0
    kernel_height: int = 0
    kernel_width: int = 0
    stride_height: int = 0
    stride_width: int = 0
    padding_top: int = 0
    padding_left: int = 0
    # Rows of the parameters that threads share out, numbers in each, and numbers behind the
    # last one that go with it: of a dense layer fan_in, fan_out and its biases.
    weight_rows: int = 0
    row_size: int = 0
    tail: int = 0
    trainable: int = 0  # whether its parameters move
    columns: int = 0  # whether it needs all rows of a batch, for columns of its own
    running_mean: int = 0  # offset in params
    running_var: int = 0
    scale: float = 0.0  # of rescaling
    offset: float = 0.0
    rate: float = 0.0  # of dropout
    stddev: float = 0.0  # of noise
    momentum: float = 0.0  # share of the old value in a running mean
    epsilon: float = 0.0  # what a variance is made larger by
    alpha: float = 0.0  # slope below zero: of leaky_relu, or of a rectifier that a dense
    # layer applies itself, 1 where it applies none; elu's floor is -alpha
    alpha_x: float = 0.0  # likewise of the one that the layer before it has applied
    delta: float = 0.0  # of huber: the error from which on the loss is a straight line
    quantile: float = 0.0  # of quantile: the share of targets to lie below the output
    threshold: float = 0.0  # of binary_accuracy: what lies between no and yes
    top: int = 0  # of top_k_accuracy: how many of the largest outputs count


OP = np.dtype(
    [(k, np.float64 if v is float else np.int64) for k, v in Row.__annotations__.items()],
    align=True,
)
SOURCE = np.dtype(
    [
        ("gather", np.int64),  # address of the compiled function (source, net, lo, hi)
        ("array", np.int64),  # address of the user's array
        ("rows", np.int64),  # rows and columns of the user's array
        ("columns", np.int64),
        ("row_stride", np.int64),  # bytes from one row, and one column, to the next
        ("column_stride", np.int64),
        ("out", np.int64),  # where a gathered batch goes, as in OP
        ("width", np.int64),  # values per batch row there
        ("scale", np.float64),  # value = data * scale + offset
        ("offset", np.float64),
        ("sample", np.uint64),  # unused; see source_dtype
    ],
    align=True,
)


@cache
def source_dtype(dtype: np.dtype) -> np.dtype:
    """``SOURCE`` with a sample of the array's dtype: its type tells the compiler what to read."""
    fields = {name: SOURCE.fields[name][0] for name in SOURCE.names} | {"sample": dtype}
    return np.dtype([*fields.items()], align=True)


TERM = np.dtype(
    [
        ("start", np.int64),  # an array (rows, columns) of parameters, or (1, columns)
        ("rows", np.int64),
        ("columns", np.int64),
        ("l1", np.float64),  # l1 * sum |p| + l2 * sum p**2 is added to the loss
        ("l2", np.float64),
        ("max_norm", np.float64),  # of each column; 0 for any
        ("non_negative", np.int64),
        ("factor", np.float64),  # what its gradient is multiplied by in this step
    ],
    align=True,
)

RULE = np.dtype(
    [
        ("kind", np.int64),  # number of the rule in RULES
        # Addresses of the compiled functions (rule, net, lo, hi) that make up a step, in their
        # order, for the gradients or weights lo..hi; 0 for what the step does without.
        ("weigh", np.int64),  # sums up the penalties, of all weights
        ("penalize", np.int64),
        ("limit", np.int64),  # says by what to rescale, from all gradients
        ("rescale", np.int64),
        ("update", np.int64),
        ("constrain", np.int64),  # (rule, net, seat, members)
        ("average", np.int64),
        ("terms", np.int64),  # address of TERMs, and how many they are
        ("terms_count", np.int64),
        ("penalties", np.float64),  # the sum that weigh has found
        ("parameters", np.int64),  # how many there are
        ("step", np.int64),  # updates made so far, this one included
        ("learning_rate", np.float64),  # of this step
        ("momentum", np.float64),
        ("nesterov", np.int64),
        ("beta1", np.float64),
        ("beta2", np.float64),
        ("epsilon", np.float64),
        ("raw_epsilon", np.int64),  # where epsilon stands, see adam_step
        ("inside_epsilon", np.int64),  # likewise, see adagrad_step
        ("rho", np.float64),  # share of a running mean that is kept
        ("initial_total", np.float64),  # what sums of squares begin with
        ("weight_decay", np.float64),
        ("momentum_decay", np.float64),  # see nadam_step
        ("clip_value", np.float64),  # limits of the gradient, 0 where there is none: of a number,
        ("clip_norm", np.float64),  # of the length of each array,
        ("global_clip_norm", np.float64),  # of the length of all of them together
        ("ema", np.float64),  # share of the weights' moving average that is kept, -1 without one
        ("average_at", np.int64),  # where it begins in state
        ("seed", np.uint64),  # of what is random in a step
    ],
    align=True,
)


# Arrays of records as kernels read them. Without the compiler fields must be attributes; with it
# they need not, and a recarray's cost ten times as much, here and in numba's dispatcher.
RECORDS: type = np.ndarray if JIT else np.recarray


class Buffers(NamedTuple):
    """The flat arrays of a network, all of one dtype."""

    params: np.ndarray  # weights and biases of all layers, one after another
    grads: np.ndarray  # same map; behind it once more for each further part of a batch
    work: np.ndarray  # (values per batch row) x capacity: inputs, outputs, target, loss
    grad_work: np.ndarray  # same map: the loss's derivative with respect to each of them
    state: np.ndarray  # the optimizer's memory, vectors of the size of params; then their average
    scratch: np.ndarray  # packed panels of gemm


class Net(NamedTuple):
    """One batch as an op sees it: the buffers as typed pointers, and what is in them."""

    params: Any
    grads: Any
    work: Any
    grad_work: Any
    state: Any
    scratch: Any
    order: Any  # row numbers of this batch in the user's arrays
    batch: int  # rows in this batch
    capacity: int  # rows that work has room for
    first: int  # rows of the batch that gradients are summed over: first..last
    last: int
    key: Any  # of what is random in this batch
    learning: int  # whether running means move


class NetType(types.Type):
    """Numba's type of the address of a ``Net`` whose buffers hold ``dtype``.

    What is called by address gets all of a batch as this one number: the registers of a call do
    not hold as many as a ``Net`` has.
    """

    def __init__(self, dtype: types.Type) -> None:
        number, whole = types.CPointer(dtype), types.intp
        kinds = [*[number] * 6, types.CPointer(types.int64), *[whole] * 4, types.uint64, whole]
        self.value = types.NamedTuple(kinds, Net)
        self.kinds = dict(zip(Net._fields, kinds, strict=True))
        super().__init__(name=f"fastnn.NetType({dtype})")


@register_model(NetType)
class NetModel(models.PrimitiveModel):
    """The address of a struct."""

    def __init__(self, manager: Any, net: NetType) -> None:
        super().__init__(manager, net, manager.lookup(net.value).get_value_type().as_pointer())


@infer_getattr
class NetFields(AttributeTemplate):
    """``net.batch`` and so on."""

    key = NetType

    def generic_resolve(self, net: NetType, name: str) -> types.Type | None:
        """The type of a field."""
        return net.kinds.get(name)


@lower_getattr_generic(NetType)
def _read_field(context: Any, builder: Any, net: NetType, address: Any, name: str) -> Any:
    place = ir.Constant(ir.IntType(32), Net._fields.index(name))
    return builder.load(builder.gep(address, [ir.Constant(ir.IntType(32), 0), place]))


if JIT:

    @intrinsic
    def placed(typing, net):
        """A ``Net`` in memory, until the function returns that asks for it."""

        def generate(context, builder, signature, args):
            place = cgutils.alloca_once(builder, args[0].type)
            builder.store(args[0], place)
            return place

        return NetType(net.types[0].dtype)(net), generate

else:

    def placed(net):
        """The same ``Net``."""
        return net


@part(inline=True)
def rows(net, buffer, offset, width, lo, hi):
    """View of the batch rows ``lo..hi`` of a region, (hi - lo, width)."""
    return matrix(buffer, offset * net.capacity + lo * width, hi - lo, width)


@part(inline=True)
def row_values(net, buffer, offset, width, lo, hi):
    """The same view, flat: (hi - lo) * width values."""
    return vector(buffer, offset * net.capacity + lo * width, (hi - lo) * width)


@cache
def address(function: Callable, dtype: np.dtype, record: np.dtype = OP) -> int:
    """Compile a function (record, net, lo, hi) for one dtype, or load it, and say where it lies."""
    if not JIT:
        number = len(FUNCTIONS) + 1
        FUNCTIONS[number] = function
        return number
    signature = types.void(
        numba.from_dtype(record), NetType(numba.from_dtype(dtype)), types.intp, types.intp
    )
    callback = c_code(function, signature, Native)
    COMPILED.append(callback)
    return callback.address


COMPILED: list[
    CFunc
] = []  # keeps the code behind the addresses alive; its length counts compilations


# ---------------------------------------------------------------------------
# The table of ops.


class Op(NamedTuple):
    """A kind of plan row: what it is for and its functions ``(op, net, lo, hi)``."""

    name: str
    kind: int
    role: str
    forward: Callable
    backward: Callable | None
    gradient: Callable | None
    targets: str
    metric: str
    per_target: int


OPS: dict[str, Op] = {}
BY_KIND: list[Op] = []  # the same in their order


def op(
    name: str,
    role: str,
    *,
    forward: Callable,
    backward: Callable | None = None,
    gradient: Callable | None = None,
    targets: str = "",
    metric: str = "",
    per_target: int = 1,
) -> None:
    """Name the functions of an op so that a plan can hold it.

    The kernels they run must be called ``name_forward``, ``name_backward`` and
    ``name_gradient``: the numpy path finds the references by these names. A loss
    called ``activation_loss`` takes the place of that pair in every plan.

    Parameters
    ----------
    name : str
        What users write: ``activation="relu"``, ``loss="mse"``.
    role : {"layer", "activation", "loss", "weights", "metric"}
        Where the name may be used.
    forward, backward, gradient : callable
        Functions ``(op, net, lo, hi)``; see the module's docstring.
    targets : {"classes", "chances", "signs", "counts", "numbers"}
        Of a loss: rows that sum to 1, values from 0 to 1, values -1 and 1, values from 0,
        or any numbers.
    metric : str
        Of a loss: the op that says in plain terms how good the output is.
    per_target : int
        Of a loss: outputs that it takes for each target.
    """
    if name in OPS:
        raise TypeError(f"{name}: an op of this name is registered already")
    OPS[name] = Op(name, len(OPS), role, forward, backward, gradient, targets, metric, per_target)
    BY_KIND.append(OPS[name])


def op_of(row: Any) -> Op:
    """The op of a plan row."""
    return BY_KIND[row.kind]
