"""What an exported njit file has in place of kernels and parts that need more than numba.

Elementary functions by libm instead of polynomials, arrays instead of typed pointers, the matrix
product as three loops. Their source is copied into the file by `fastnn.export.write_njit`; a
function here takes the place of the one of the same name.
"""

# mypy: disallow-untyped-defs=False

import math

import numpy as np


def exp_value(x):
    """``e^x`` of a number."""
    return math.exp(x)


def falling_exp(x):
    """``e^x`` for x <= 0 as two factors: one in the normal range, and a constant power of 2."""
    return math.exp(x), type(x)(1)


def expm1_value(x):
    """``e^x - 1`` of a number, precise near 0."""
    return math.expm1(x)


def log1p_value(x):
    """``log(1 + x)`` of a number, precise near 0."""
    return math.log1p(x)


def sigmoid_value(x):
    """``1 / (1 + e^-x)`` of a number."""
    one, e = type(x)(1), math.exp(-abs(x))
    return (e if x < 0 else one) / (one + e)


def sigmoid_product(x):
    """``x sigmoid(x)`` of a number."""
    return x * sigmoid_value(x)


def tanh_value(x):
    """``tanh x`` of a number."""
    return math.tanh(x)


def normal_value(x):
    """Distribution and density at x of the normal distribution."""
    wide = np.float64(x)
    density = math.exp(-wide * wide / 2) * 0.3989422804014327
    return type(x)(0.5 * math.erfc(-wide * 0.7071067811865476)), type(x)(density)


def normal_product(x):
    """``x Phi(x)`` of a number."""
    wide = np.float64(x)
    return type(x)(0.5 * wide * math.erfc(-wide * 0.7071067811865476))


def largest(x, b):
    """The largest value of a row."""
    return x[b].max()


def pointer(array):
    """The array, as one row of numbers."""
    return array.reshape(-1)


def vector(array, offset, size):
    """View of ``size`` numbers from ``array[offset]`` on."""
    return array[offset : offset + size]


def conv2d_forward(
    x, weight, bias, stride_height, stride_width, padding_top, padding_left, alpha, out
):
    """``out = bias + sum of weight * x`` under the window, times ``alpha`` where not above 0."""
    channels, kernel_height, kernel_width, filters = weight.shape
    slope = x.dtype.type(alpha)
    for b in range(out.shape[0]):
        for f in range(filters):
            for y in range(out.shape[2]):
                for k in range(out.shape[3]):
                    total = bias[f]
                    for c in range(channels):
                        for i in range(kernel_height):
                            for j in range(kernel_width):
                                row = y * stride_height - padding_top + i
                                column = k * stride_width - padding_left + j
                                if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                                    total += x[b, c, row, column] * weight[c, i, j, f]
                    out[b, f, y, k] = slope * total if total <= 0 else total


def halve(rows, columns, width, x, out):
    """The largest of each two by two values of an image that is ``width`` wide; NaN wins."""
    for y in range(rows):
        for k in range(columns):
            first = 2 * y * width + 2 * k
            best = x[first]
            for place in (first + 1, first + width, first + width + 1):
                best = best if x[place] <= best or best != best else x[place]
            out[y * columns + k] = best


def dense_forward(x, weight, bias, alpha, out):
    """``out = x @ weight + bias``, times ``alpha`` where it is not above 0."""
    slope = x.dtype.type(alpha)
    for b in range(x.shape[0]):
        for o in range(out.shape[1]):
            out[b, o] = bias[o]
        for i in range(x.shape[1]):
            for o in range(out.shape[1]):
                out[b, o] += x[b, i] * weight[i, o]
        for o in range(out.shape[1]):
            out[b, o] = slope * out[b, o] if out[b, o] <= 0 else out[b, o]
