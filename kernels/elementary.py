"""Elementary functions, written so that a loop that calls them is vectorised.

numba calls libm for one number at a time. Here a function is arithmetic and bit patterns, with
no table and no branch that LLVM cannot turn into a blend, so a loop over an array becomes vector
code on any machine. ``exp_value(x)`` and its kin take a number inside a kernel; ``exp(x, out)``
and its kin are kernels over arrays.

=======  =================================================================  =======  =======
name     formula                                                            float32  float64
=======  =================================================================  =======  =======
exp      ``2^k e^r``, with ``x = k ln 2 + r`` and ``|r| <= ln 2 / 2``          0.92     0.92
expm1    ``2^k ((1 - 2^-k) + (e^r - 1))``                                     1.30     1.67
log      ``k ln 2 + 2 atanh(g / (2 + g))``, with ``x = 2^k (1 + g)``           0.96     0.95
log1p    log of the rounded ``1 + x``; what rounding lost is added to g        1.56     1.44
sigmoid  ``q = s / (s + e^r)``, with ``|x| = k ln 2 + r`` and ``s = 2^-k``;    2.00     2.00
         q where ``x < 0`` and ``1 - q`` elsewhere
tanh     ``x + x^3 P(x^2)`` where ``|x| < 0.55``, and elsewhere                1.37     1.34
         ``1 - 2 sigmoid(-2 |x|)`` with the sign of x
normal   Phi(x), ``e^(-z^2 / 2) / (2 + 2 z (1 + P(z) / Q(z)))`` where           3.34     3.49
         ``x = -z`` and 1 less that of ``-x`` where ``x >= 0``
=======  =================================================================  =======  =======

The columns are the largest errors found, in units in the last place (ULP): over all 2^32 numbers
of float32 and ten million of float64, and over fewer of both without fused multiply-add; those of
the normal distribution, whose tail keeps its digits far below 0, over a hundred million of float32.
Zeros keep their sign, results below the normal range are right, inf and NaN come out where they
should.

Sources: W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980), for k ln 2
in two parts; fdlibm (Sun Microsystems, 1993), for the arrangement of log and log1p; S. L. Moshier,
Cephes (1989), for the two ranges of tanh; W. J. Cody, Rational Chebyshev approximations for the
error function (1969), for the tail as a quotient. The coefficients are our own, by Remez exchange
and, for the quotient, by Lawson's weighted least squares.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype

from ._kernel import JIT, kernel, part

# A sum that is reordered here loses the digits it was arranged to keep. These flags stay with the
# code when it is inlined into a kernel, whose own loops may still be reordered.
accurate = part(inline=True)


def by_format(
    single: Callable, double: Callable, formats: tuple[type, type] = (np.float32, np.float64)
) -> Callable:
    """Make a function of one number that runs ``single`` on float32 and ``double`` on float64."""
    narrow = from_dtype(np.dtype(formats[0]))

    def chosen(x):
        return single(x) if isinstance(x, formats[0]) else double(x)

    if JIT:  # whoever is compiled takes one of the two
        chosen = part(chosen)

        def of(args):
            return single if args[0] == narrow else double

        chosen.get_call_template = lambda args, names: of(args).get_call_template(args, names)
        chosen.get_overload = lambda args: of(args).get_overload(args)
    return chosen


class Format(NamedTuple):
    """What depends on the width of a number: its limits, and polynomials long enough for it.

    The polynomials have their highest power first and are minimax in the relative error of the
    function they serve, which is given beside them after rounding the coefficients.
    """

    log2_e: Any
    ln2_high: Any  # so few bits that k * ln2_high is exact
    ln2_low: Any
    exp_shift: Any  # see `reduced` and `powers`
    exp_min: Any  # below it e^x, and x e^x, round to 0
    exp_max: Any  # above it e^x rounds to inf
    wide_shift: Any  # see `reduced` and `wide_power`
    narrow: Any  # undoes the factor in wide_power
    tanh_max: Any  # above it tanh x rounds to 1
    normal_max: Any  # above it the normal distribution's tail rounds to 0
    normal_grid: Any  # see `normal_value`
    expm1: Any  # (e^r - 1 - r) / r^2 in r, for |r| <= ln 2 / 2
    atanh: Any  # 2 (atanh s - s) / s^3 in s^2, for |s| <= (sqrt 2 - 1) / (sqrt 2 + 1)
    tanh: Any  # (tanh x - x) / x^3 in x^2, for |x| <= 0.55
    normal: Any  # (e^(-x^2 / 2) / (2 - 2 Phi(x)) - 1) / x - 1, for 0 <= x <= normal_max:
    normal_below: Any  # above the line, and below it


def constants_of(number: type, **values) -> Format:
    """Turn every value, and every coefficient, into a number of the given type."""
    return Format(
        **{
            name: tuple(map(number, value)) if isinstance(value, tuple) else number(value)
            for name, value in values.items()
        }
    )


SINGLE = constants_of(
    np.float32,
    log2_e=1.442695,
    ln2_high=float.fromhex("0x1.62e4p-1"),
    ln2_low=1.4286068e-06,
    exp_shift=1.5 * 2**23 + 2 * 127,
    exp_min=-112,
    exp_max=89,
    wide_shift=1.5 * 2**23 + 127 + 64,
    narrow=2.0**-64,
    tanh_max=10,
    normal_max=15,
    normal_grid=1.5 * 2**15,
    # 2^-25.8 of e^r - 1
    expm1=(0.0013882522, 0.0083665205, 0.0416672, 0.16666543, 0.49999997),
    # 2^-30.1 of atanh s
    atanh=(0.2987095, 0.39977574, 0.66666776),
    # 2^-27.8 of tanh x
    tanh=(-0.0062742424, 0.021071682, -0.053852312, 0.13332586, -0.33333316),
    # 2^-26.9 of the tail
    normal=(0.0020875144, 0.012374192, 0.021737507, -0.040659823, -0.20211515),
    normal_below=(0.008241264, 0.08135831, 0.3667922, 0.87710136, 1),
)
DOUBLE = constants_of(
    np.float64,
    log2_e=1.4426950408889634,
    ln2_high=float.fromhex("0x1.62e42feep-1"),
    ln2_low=1.9082149292705877e-10,
    exp_shift=1.5 * 2**52 + 2 * 1023,
    exp_min=-754,
    exp_max=710,
    wide_shift=1.5 * 2**52 + 1023 + 512,
    narrow=2.0**-512,
    tanh_max=20,
    normal_max=40,
    normal_grid=1.5 * 2**32,
    # 2^-54.7 of e^r - 1
    expm1=(
        *(2.505377573126157e-08, 2.7626037968640677e-07, 2.755740753921502e-06),
        *(2.4801505273584984e-05, 0.00019841269719012396, 0.0013888888931565054),
        *(0.008333333333389549, 0.04166666666657676, 0.16666666666666588, 0.5000000000000006),
    ),
    # 2^-59.2 of atanh s
    atanh=(
        *(0.14795483048883462, 0.15314098052392744, 0.1818356243538361, 0.22222198610212157),
        *(0.28571428742020927, 0.39999999999416347, 0.6666666666666734),
    ),
    # 2^-55.0 of tanh x
    tanh=(
        *(5.1021479664013964e-05, -0.0002103024022223612, 0.0005791370170798465),
        *(-0.0014532167565425133, 0.0035917196971428193, -0.008863194503965237),
        *(0.021869485974781482, -0.053968253876077475, 0.133333333331687, -0.33333333333332316),
    ),
    # 2^-57.4 of the tail
    normal=(
        *(1.1423931675327469e-07, 3.101092413552581e-06, 4.077103211889745e-05),
        *(0.0003322150868080634, 0.001799997975854211, 0.006407477995475126),
        *(0.012896008662372067, 0.0012674141449699856, -0.07263883003401947),
        *(-0.19824476895656795, -0.2021154391971345),
    ),
    normal_below=(
        *(4.5097884375520665e-07, 1.4022396439943308e-05, 0.00021407494653073093),
        *(0.002087193281241806, 0.014290629743222672, 0.07152126501269138),
        *(0.26464210495387336, 0.7158180926621713, 1.3606892266308945, 1.6567984249710406, 1),
    ),
)


@accurate
def constants_32(x):
    """Those of float32."""
    return SINGLE


@accurate
def constants_64(x):
    """Those of float64."""
    return DOUBLE


constants = by_format(constants_32, constants_64)


# bit patterns: numba takes `view` only behind a spelled-out type, so each comes in two widths


@accurate
def powers_32(n):
    """Two powers of two whose product is 2^k, from n = k + exp_shift."""
    bits = np.float32(n).view(np.uint32)
    half = bits >> np.uint32(1)
    return (
        np.uint32(half << np.uint32(23)).view(np.float32),
        np.uint32((bits - half) << np.uint32(23)).view(np.float32),
    )


@accurate
def powers_64(n):
    """Two powers of two whose product is 2^k, from n = k + exp_shift."""
    bits = np.float64(n).view(np.uint64)
    half = bits >> np.uint64(1)
    return (
        np.uint64(half << np.uint64(52)).view(np.float64),
        np.uint64((bits - half) << np.uint64(52)).view(np.float64),
    )


@accurate
def wide_power_32(n):
    """2^(k + 64) from n = k + wide_shift: a normal number where 2^k would be none."""
    return np.uint32(np.float32(n).view(np.uint32) << np.uint32(23)).view(np.float32)


@accurate
def wide_power_64(n):
    """2^(k + 512) from n = k + wide_shift: a normal number where 2^k would be none."""
    return np.uint64(np.float64(n).view(np.uint64) << np.uint64(52)).view(np.float64)


@accurate
def split_32(x):
    """K and m of x = 2^k m, with m from sqrt(1/2) to sqrt(2)."""
    root = np.uint32(0x3F3504F3)  # sqrt(1/2)
    tiny = x < np.float32(2.0**-126)
    normal = x * np.float32(2.0**23) if tiny else x
    # The sign is dropped only to keep the sum below 2^32: Python would warn.
    bits = np.float32(normal).view(np.uint32) & np.uint32(0x7FFFFFFF)
    bits = bits + (np.uint32(0x3F800000) - root)
    # The exponent becomes the last bits of a float near 2^23: no conversion from integer.
    k = np.uint32((bits >> np.uint32(23)) | np.uint32(0x4B000000)).view(np.float32)
    m = np.uint32((bits & np.uint32(0x7FFFFF)) + root).view(np.float32)
    return k - np.float32(2.0**23 + 127 + 23 if tiny else 2.0**23 + 127), m


@accurate
def split_64(x):
    """K and m of x = 2^k m, with m from sqrt(1/2) to sqrt(2)."""
    root = np.uint64(0x3FE6A09E667F3BCD)  # sqrt(1/2)
    tiny = x < np.float64(2.0**-1022)
    normal = x * np.float64(2.0**52) if tiny else x
    bits = np.float64(normal).view(np.uint64) & np.uint64(0x7FFFFFFFFFFFFFFF)
    bits = bits + (np.uint64(0x3FF0000000000000) - root)
    k = np.uint64((bits >> np.uint64(52)) | np.uint64(0x4330000000000000)).view(np.float64)
    m = np.uint64((bits & np.uint64(0xFFFFFFFFFFFFF)) + root).view(np.float64)
    return k - np.float64(2.0**52 + 1023 + 52 if tiny else 2.0**52 + 1023), m


@accurate
def place_32(x):
    """A whole number that is larger the larger x is, and largest for NaN without a sign."""
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ (np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@accurate
def place_64(x):
    """A whole number that is larger the larger x is, and largest for NaN without a sign."""
    bits = np.float64(x).view(np.int64)
    return np.int64(bits ^ ((bits >> np.int64(63)) & np.int64(0x7FFFFFFFFFFFFFFF)))


@accurate
def number_at_32(where):
    """The number at a place."""
    bits = np.int32(where ^ (np.int32(where >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    return bits.view(np.float32)


@accurate
def number_at_64(where):
    """The number at a place."""
    bits = np.int64(where ^ ((where >> np.int64(63)) & np.int64(0x7FFFFFFFFFFFFFFF)))
    return bits.view(np.float64)


powers = by_format(powers_32, powers_64)
wide_power = by_format(wide_power_32, wide_power_64)
split = by_format(split_32, split_64)
place = by_format(place_32, place_64)
number_at = by_format(number_at_32, number_at_64, (np.int32, np.int64))


# what the functions share


@accurate
def polynomial(x, coefficients):
    """Horner's rule, highest power first."""
    y = coefficients[0]
    for coefficient in coefficients[1:]:
        y = y * x + coefficient
    return y


@accurate
def rounded(x, grid):
    """X rounded to a multiple of the last bit of numbers about as large as ``grid``, and the rest.

    Numbers whose sizes together are at most a quarter of it add up without rounding, once they are
    rounded so (Rump, Ogita and Oishi, 2008).
    """
    multiple = (x + grid) - grid
    return multiple, x - multiple


@accurate
def in_two(total, rest):
    """Total + rest, as a number and what rounding it has lost."""
    number = total + rest
    return number, (total - number) + rest


@accurate
def inverse_in_two(total, rest):
    """``1 / (total + rest)``, as a number and what rounding it has lost."""
    one = type(total)(1)
    inverse = one / total
    return inverse, ((one - inverse * total) - inverse * rest) * inverse


@accurate
def product(x, factor, rest):
    """``x (factor + rest)``."""
    return x * factor + x * rest


@accurate
def parts(x, shift):
    """N, high and low of x = k ln 2 + high - low, with n = k + shift.

    The shift is so large that a float next to it has no bits for fractions: adding it rounds
    x / ln 2 to the integer k and leaves k, plus an exponent's bias, in the lowest bits of n.
    """
    c = constants(x)
    n = x * c.log2_e + shift
    k = n - shift
    return n, x - k * c.ln2_high, k * c.ln2_low


@accurate
def reduced(x, shift):
    """N and r of x = k ln 2 + r, with n = k + shift."""
    n, high, low = parts(x, shift)
    return n, high - low


@accurate
def expm1_near_0(r):
    """``e^r - 1`` for what `reduced` leaves."""
    return polynomial(r, constants(r).expm1) * (r * r) + r


@accurate
def exp_near_0(r):
    """``e^r`` for what `reduced` leaves: no less precise than 1 + `expm1_near_0`, and shorter."""
    number = type(r)
    return (polynomial(r, constants(r).expm1) * r + number(1)) * r + number(1)


@accurate
def tail(x):
    """``sigmoid(-x)`` for x >= 0, times 1 / narrow so that it is a normal number."""
    return product_with_tail(x, type(x)(1))


@accurate
def product_with_tail(x, factor):
    """``factor sigmoid(-x)`` for x >= 0, times 1 / narrow."""
    number, c = type(x), constants(x)
    n, r = reduced(-x, c.wide_shift)
    s = wide_power(n)
    return s * factor / (number(1) + (expm1_near_0(-r) + s * c.narrow))


@accurate
def log_of_parts(k, g):
    """``log(2^k (1 + g))``, with small terms added first."""
    number, c = type(g), constants(g)
    s = g / (number(2) + g)
    z = s * s
    low = k * c.ln2_low - s * (g - z * polynomial(z, c.atanh))
    return low + g + k * c.ln2_high


# the functions


@accurate
def exp_value(x):
    """``e^x`` of a number."""
    c = constants(x)
    x = c.exp_min if x < c.exp_min else x  # a comparison with NaN is false: NaN goes through
    x = c.exp_max if x > c.exp_max else x
    n, r = reduced(x, c.exp_shift)
    first, second = powers(n)  # 2^k alone can be too large or too small for a float
    return exp_near_0(r) * first * second


@accurate
def falling_exp(x):
    """``e^x`` for x <= 0 as two factors: one in the normal range, and a constant power of 2."""
    c = constants(x)
    x = c.exp_min if x < c.exp_min else x
    n, r = reduced(x, c.wide_shift)
    return exp_near_0(r) * wide_power(n), c.narrow


@kernel("x(n) out(n) -> out", reference=lambda x: np.exp(x))
def exp(x, out):
    """``out = e^x``."""
    for i in range(x.size):
        out[i] = exp_value(x[i])


@accurate
def expm1_value(x):
    """``e^x - 1`` of a number, precise near 0."""
    number, c = type(x), constants(x)
    y = number(-40) if x < number(-40) else x  # where the result is -1 in either format
    y = c.exp_max if y > c.exp_max else y
    n, r = reduced(y, c.exp_shift)
    first, second = powers(n)
    low, lower = powers(c.exp_shift + (c.exp_shift - n))  # 2^-k
    y = ((number(1) - low * lower) + r) + polynomial(r, c.expm1) * (r * r)
    return np.copysign(y * first * second, x)


@kernel("x(n) out(n) -> out", reference=lambda x: np.expm1(x))
def expm1(x, out):
    """``out = e^x - 1``, precise near 0."""
    for i in range(x.size):
        out[i] = expm1_value(x[i])


@accurate
def log_value(x):
    """``log x``, the natural logarithm of a number."""
    number = type(x)
    k, m = split(x)
    y = log_of_parts(k, m - number(1))
    y = y if x > number(0) else number(-np.inf) if x == number(0) else number(np.nan)
    return x if x == number(np.inf) else y


def positive(arguments, rng):
    """Arguments of a logarithm."""
    arguments["x"][...] = np.exp(arguments["x"])
    return arguments


@kernel("x(n) out(n) -> out", reference=lambda x: np.log(x), sample=positive)
def log(x, out):
    """``out = log x``, the natural logarithm."""
    for i in range(x.size):
        out[i] = log_value(x[i])


@accurate
def log1p_value(x):
    """``log(1 + x)`` of a number, precise near 0."""
    number, c = type(x), constants(x)
    u = number(1) + x
    lost = x - (u - number(1))
    k, m = split(u)
    g = m - number(1) + lost * wide_power(c.wide_shift - k) * c.narrow
    y = log_of_parts(k, g)
    y = y if x > number(-1) else number(-np.inf) if x == number(-1) else number(np.nan)
    return x if x == number(np.inf) else np.copysign(y, x)


def above_minus_1(arguments, rng):
    """Arguments of log1p."""
    arguments["x"][...] = np.expm1(arguments["x"])
    return arguments


@kernel("x(n) out(n) -> out", reference=lambda x: np.log1p(x), sample=above_minus_1)
def log1p(x, out):
    """``out = log(1 + x)``, precise near 0."""
    for i in range(x.size):
        out[i] = log1p_value(x[i])


@accurate
def sigmoid_value(x):
    """``1 / (1 + e^-x)`` of a number."""
    number, c = type(x), constants(x)
    size = abs(x)
    size = -c.exp_min if size > -c.exp_min else size
    q = tail(size) * c.narrow
    return q if x < number(0) else number(1) - q


@accurate
def sigmoid_product(x):
    """``x sigmoid(x)`` of a number: right also where sigmoid(x) is below the normal range."""
    number, c = type(x), constants(x)
    size = abs(x)
    size = -c.exp_min if size > -c.exp_min else size
    y = product_with_tail(size, size) * c.narrow
    return np.copysign(y, x) if x <= number(0) else x - y


@accurate
def tanh_value(x):
    """``tanh x`` of a number."""
    number, c = type(x), constants(x)
    size = abs(x)
    size = c.tanh_max if size > c.tanh_max else size
    z = size * size
    near_0 = polynomial(z, c.tanh) * z * size + size
    beyond = number(1) - tail(size + size) * (c.narrow + c.narrow)
    return np.copysign(near_0 if size < number(0.55) else beyond, x)


@accurate
def normal_tail(x):
    """What the normal distribution has beyond z = |x|: z, t, r and two powers of 2.

    The tail is ``t e^r`` times the powers, and keeps its digits however small it is, as long as
    it is in parts. t is twice the tail times e^(z^2 / 2), a function that changes slowly: 1 over
    1 + z (1 + P / Q), of which P / Q is so small a part that its rounding hardly counts.

    The square of z would lose digits in rounding. So z = h + rest, with h so short that its square
    is exact.
    """
    number, c = type(x), constants(x)
    half = number(-0.5)
    z = abs(x)
    z = c.normal_max if z > c.normal_max else z
    h = (z + c.normal_grid) - c.normal_grid
    n, high, low = parts(half * h * h, c.exp_shift - number(1))  # half of the power
    r = high + (half * (z - h) * (z + h) - low)
    first, second = powers(n)
    below = polynomial(z, c.normal_below)
    t = below / (z * (below + polynomial(z, c.normal)) + below)
    return z, t, r, first, second


@accurate
def normal_value(x):
    """Distribution and density at x of the normal distribution: Phi(x) and phi(x).

    Phi(x) is either the tail or 1 less the tail.
    """
    number = type(x)
    _, t, r, first, second = normal_tail(x)
    e = exp_near_0(r) * first * second
    tail = e * t
    return tail if x < number(0) else number(1) - tail, e * number(0.7978845608028654)


@accurate
def normal_product(x):
    """``x Phi(x)`` of a number: right also where Phi(x) is below the normal range."""
    z, t, r, first, second = normal_tail(x)
    y = z * t
    y = (y * expm1_near_0(r) + y) * first * second
    return np.copysign(y, x) if x <= type(x)(0) else x - y


normal_cdf = np.frompyfunc(lambda z: math.erfc(-z * math.sqrt(0.5)) / 2, 1, 1)


def normal_reference(x):
    """Phi(x), by the complement of the error function."""
    return normal_cdf(x).astype(float)


@kernel("x(n) out(n) -> out", reference=normal_reference)
def normal(x, out):
    """``out = Phi(x)``, how likely a normal random number is below x."""
    for i in range(x.size):
        distribution, _ = normal_value(x[i])
        out[i] = distribution
