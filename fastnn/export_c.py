"""A network as one header of C99 or C++ that needs math.h alone.

``C`` has a text for each op that `Network.predict` can run. A function that gives a number is
called for each value; one that gives nothing is called for the sample, and finds what it needs by
the names of its parameters, as the kernel of the op does. In the texts ``REAL`` stands for float or
double, ``NAME`` for the user's prefix, and ``$`` for the f behind functions and numbers of float.

Elementary functions are those of math.h, not the polynomials of `fastnn.kernels.elementary`: they
are what a reader of C expects, and on the machine that runs the header nothing else may be as good.
But for gelu: the erfc of a math.h may be several units in the last place from the truth. On a
thousand random samples a value differs from `Network.predict` by at most 4 of them, whatever the
op: where numbers cancel (layer_norm) or a factor is below the normal range (silu, mish, gelu), both
keep their digits.
"""

from __future__ import annotations

import os
import re
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import files
from fastnn.export import Model, Step, lines_of, model_of, number_text, remark
from fastnn.kernels.elementary import DOUBLE

if TYPE_CHECKING:
    from fastnn.network import Network

__all__ = ["write_c"]

C = {
    "dense": """\
/* x @ weight + bias, times alpha where that is not above 0 */
static inline void NAME_dense(const REAL *x, const REAL *weight, const REAL *bias, REAL alpha,
                              int fan_in, int fan_out, REAL *out)
{
    for (int o = 0; o < fan_out; o++) out[o] = bias[o];
    for (int i = 0; i < fan_in; i++)
        for (int o = 0; o < fan_out; o++) out[o] += x[i] * weight[i * fan_out + o];
    for (int o = 0; o < fan_out; o++) out[o] = out[o] <= 0 ? alpha * out[o] : out[o];
}
""",
    "conv2d": """\
/* a window moves over an image, zeros around it; sums times alpha where they are not above 0 */
static inline void NAME_conv2d(const REAL *x, const REAL *weight, const REAL *bias, REAL alpha,
                               int channels, int height, int width, int filters, int out_height,
                               int out_width, int kernel_height, int kernel_width,
                               int stride_height, int stride_width, int padding_top,
                               int padding_left, REAL *out)
{
    for (int f = 0; f < filters; f++)
        for (int y = 0; y < out_height; y++)
            for (int k = 0; k < out_width; k++) {
                REAL total = bias[f];
                for (int c = 0; c < channels; c++)
                    for (int i = 0; i < kernel_height; i++)
                        for (int j = 0; j < kernel_width; j++) {
                            int row = y * stride_height - padding_top + i;
                            int column = k * stride_width - padding_left + j;
                            int tap = (c * kernel_height + i) * kernel_width + j;
                            if (row < 0 || row >= height || column < 0 || column >= width) continue;
                            total += x[(c * height + row) * width + column]
                                     * weight[tap * filters + f];
                        }
                out[(f * out_height + y) * out_width + k] = total <= 0 ? alpha * total : total;
            }
}
""",
    "max_pool2d": """\
/* the largest value of each window; NaN where there is one */
static inline void NAME_max_pool2d(const REAL *x, int channels, int height, int width,
                                   int out_height, int out_width, int kernel_height,
                                   int kernel_width, int stride_height, int stride_width, REAL *out)
{
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < out_height; y++)
            for (int k = 0; k < out_width; k++) {
                const REAL *line = x + (c * height + y * stride_height) * width;
                const REAL *window = line + k * stride_width;
                REAL best = window[0];
                for (int i = 0; i < kernel_height; i++)
                    for (int j = 0; j < kernel_width; j++) {
                        REAL value = window[i * width + j];
                        best = value <= best || best != best ? best : value;
                    }
                out[(c * out_height + y) * out_width + k] = best;
            }
}
""",
    "average_pool2d": """\
/* the mean of each window */
static inline void NAME_average_pool2d(const REAL *x, int channels, int height, int width,
                                       int out_height, int out_width, int kernel_height,
                                       int kernel_width, int stride_height, int stride_width,
                                       REAL *out)
{
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < out_height; y++)
            for (int k = 0; k < out_width; k++) {
                const REAL *line = x + (c * height + y * stride_height) * width;
                const REAL *window = line + k * stride_width;
                REAL total = 0;
                for (int i = 0; i < kernel_height; i++)
                    for (int j = 0; j < kernel_width; j++) total += window[i * width + j];
                out[(c * out_height + y) * out_width + k]
                    = total * (1 / (REAL)(kernel_height * kernel_width));
            }
}
""",
    "linear": """\
static inline REAL NAME_linear(REAL x) { return x; }
""",
    "step": """\
static inline REAL NAME_step(REAL x) { return x > 0 ? 1 : x <= 0 ? 0 : x; }
""",
    "sigmoid": """\
static inline REAL NAME_sigmoid(REAL x)
{
    REAL e = exp$(-fabs$(x)); /* at most 1, so nothing overflows */
    return (x < 0 ? e : 1) / (1 + e);
}
""",
    "tanh": """\
static inline REAL NAME_tanh(REAL x) { return tanh$(x); }
""",
    "softsign": """\
static inline REAL NAME_softsign(REAL x) { return x / (1 + fabs$(x)); }
""",
    "softplus": """\
/* log(1 + exp(x)) */
static inline REAL NAME_softplus(REAL x)
{
    return (x > 0 ? x : 0) + log1p$(exp$(-fabs$(x)));
}
""",
    "exponential": """\
static inline REAL NAME_exponential(REAL x) { return exp$(x); }
""",
    "softmax": """\
/* exp(x) / sum of exp(x) */
static inline void NAME_softmax(const REAL *x, int fan_in, REAL *out)
{
    REAL top = x[0];
    for (int i = 1; i < fan_in; i++) top = x[i] > top ? x[i] : top;
    for (int i = 0; i < fan_in; i++) out[i] = exp$(x[i] - top); /* at most 1: none overflows */
    double total = NAME_sum(out, fan_in);
    for (int i = 0; i < fan_in; i++) out[i] = (REAL)((double)out[i] / total);
}
""",
    "relu": """\
static inline REAL NAME_relu(REAL x) { return x <= 0 ? 0 : x; } /* NaN stays NaN */
""",
    "leaky_relu": """\
static inline REAL NAME_leaky_relu(REAL x, REAL alpha) { return x <= 0 ? alpha * x : x; }
""",
    "elu": """\
static inline REAL NAME_elu(REAL x, REAL alpha) { return x <= 0 ? alpha * expm1$(x) : x; }
""",
    "selu": """\
static inline REAL NAME_selu(REAL x)
{
    return x <= 0 ? 1.7580993408473766$ * expm1$(x) : 1.0507009873554805$ * x;
}
""",
    "gelu": """\
/* x times the normal distribution, whose tail is exp(-z * z / 2) / (2 + 2 * z * (1 + P(z) / Q(z)))
   beyond z = fabs(x): erfc may be further from the truth, and z * z loses digits in rounding */
static inline REAL NAME_gelu(REAL x)
{
    static const double P[] = {
        NORMAL_P};
    static const double Q[] = {
        NORMAL_Q};
    double z = fabs((double)x), p = P[0], q = Q[0];
    if (!(z > 0 && z < 40)) return x > 0 ? x : x < -1 ? 0 : x; /* 0 and NaN as they are */
    for (int i = 1; i < (int)(sizeof P / sizeof *P); i++) {
        p = p * z + P[i];
        q = q * z + Q[i];
    }
    /* exp(-z * z / 2) is e * (1 + more), far from 0 times exp(-211); h * h is exact */
    double h = (double)(float)z, e = exp((z < 30 ? 0 : 211) - 0.5 * h * h);
    double more = expm1(-0.5 * (z - h) * (z + h));
    /* -z / 2 * e * (1 + more) / (sum + lost), and what rounding has lost */
    double s = 1 + z, part = z * (p / q), sum = s + part;
    double lost = (part - (sum - s)) + (z < 1 ? z - (s - 1) : 1 - (s - z));
    double top = -0.5 * z * e, y = top / sum;
    y += (fma(-y, sum, top) + fma(-0.5 * z, e, -top) - y * lost) / sum + y * more;
    y *= z < 30 ? 1 : 2.3113425714217192e-92;
    return (REAL)(x > 0 ? (double)x + y : y);
}
""",
    "silu": """\
/* x * sigmoid(x) */
static inline REAL NAME_silu(REAL x)
{
    if (x < -40) return NAME_tail(x);
    REAL e = exp$(-fabs$(x)); /* at most 1, so nothing overflows */
    return x < 0 ? x * e / (1 + e) : x / (1 + e);
}
""",
    "mish": """\
/* x * tanh(log(1 + exp(x))) */
static inline REAL NAME_mish(REAL x)
{
    if (x < -40) return NAME_tail(x);
    REAL e = exp$(-fabs$(x)); /* at most 1, so nothing overflows */
    REAL most = x < 0 ? e : 1, less = x < 0 ? e * e + e : 2 * e * e;
    return x * (most - most * (less / (less + (x < 0 ? e + 2 : 2 * e + 1))));
}
""",
    "embedding": """\
/* a row of the table for each whole number of x */
static inline void NAME_embedding(const REAL *x, const REAL *weight, int weight_rows,
                                  int row_size, int fan_in, REAL *out)
{
    for (int i = 0; i < fan_in; i++) {
        int row = !(x[i] > 0) ? 0 : x[i] >= weight_rows ? weight_rows - 1 : (int)x[i];
        for (int k = 0; k < row_size; k++) out[i * row_size + k] = weight[row * row_size + k];
    }
}
""",
    "running_norm": """\
/* (x - mean) / sqrt(var + epsilon) * weight + bias: batch normalization after training */
static inline void NAME_running_norm(const REAL *x, const REAL *weight, const REAL *bias,
                                     const REAL *running_mean, const REAL *running_var,
                                     REAL epsilon, int fan_in, REAL *out)
{
    for (int i = 0; i < fan_in; i++) {
        REAL factor = weight[i] * (1 / sqrt$(running_var[i] + epsilon));
        out[i] = (x[i] - running_mean[i]) * factor + bias[i];
    }
}
""",
    "layer_norm": """\
/* (x - mean) / sqrt(var + epsilon) * weight + bias, mean and var those of the sample */
static inline void NAME_layer_norm(const REAL *x, const REAL *weight, const REAL *bias,
                                   REAL epsilon, int fan_in, REAL *out)
{
    REAL mean = (REAL)(NAME_sum(x, fan_in) / fan_in);
    for (int i = 0; i < fan_in; i++) out[i] = (x[i] - mean) * (x[i] - mean);
    REAL inverse = 1 / sqrt$((REAL)(NAME_sum(out, fan_in) / fan_in + (double)epsilon));
    for (int i = 0; i < fan_in; i++) out[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}
""",
    "standardize": """\
/* (x - mean) / deviation; bias is the mean, weight 1 over the deviation */
static inline void NAME_standardize(const REAL *x, const REAL *weight, const REAL *bias,
                                    int fan_in, REAL *out)
{
    for (int i = 0; i < fan_in; i++) out[i] = (x[i] - bias[i]) * weight[i];
}
""",
    "rescaling": """\
static inline REAL NAME_rescaling(REAL x, REAL scale, REAL offset) { return x * scale + offset; }
""",
}

for name, values in (("NORMAL_P", DOUBLE.normal), ("NORMAL_Q", DOUBLE.normal_below)):
    rows = textwrap.wrap(", ".join(map(number_text, values)), 88)
    C["gelu"] = C["gelu"].replace(name, "\n        ".join(rows))

SUM = """\
/* A sum; what rounding loses of it is added up beside it (Ogita, Rump and Oishi, 2005). */
static inline double NAME_sum(const REAL *x, int n)
{
    double total = 0, rest = 0;
    for (int i = 0; i < n; i++) {
        double more = (double)x[i], sum = total + more, part = sum - total;
        double lost = (total - (sum - part)) + (more - part);
        if (lost - lost == 0) rest += lost; /* inf loses none */
        total = sum;
    }
    return total + rest;
}
"""

TAIL = """\
/* x * exp(x) far below 0, where exp(x) may be too small to have all its digits */
static inline REAL NAME_tail(REAL x)
{
    REAL root = exp$(x / 2);
    return root > 0 ? x * root * root : 0;
}
"""

PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")  # no name that is reserved begins so

HEADER = """\
/* A neural network in C99 or C++, written by fastnn.
 *
{table}
 *
 *     {real} x[{NAME}_FAN_IN], out[{NAME}_FAN_OUT];
 *     {name}_predict(x, out);
 *
 * turns a sample x {in_shape} into the outputs {out_shape}. It needs math.h alone,
 * allocates nothing and keeps nothing between calls: threads may call it at the same time.
 * {constants:,} bytes of constants, {stack:,} of stack. Include it in one file of a program: each
 * file that does has the constants for itself.
 *
 * Test it: cc -x c -std=c99 -O2 -D{NAME}_MAIN FILE -lm && ./a.out
 */
#ifndef {NAME}_FASTNN_H
#define {NAME}_FASTNN_H

#include <math.h>

#define {NAME}_FAN_IN {fan_in}
#define {NAME}_FAN_OUT {fan_out}

{arrays}
{functions}
/* The outputs for one sample. */
static inline void {name}_predict(const {real} *x, {real} *out)
{{
{body}
}}

#ifdef {NAME}_MAIN
#include <stdio.h>

/* Samples, and what the network said to them when this was written. */
{test_x}{test_out}
int main(void)
{{
    {real} out[{NAME}_FAN_OUT], largest = 0;
    for (int row = 0; row < {rows}; row++) {{
        {name}_predict({name}_test_x + row * {NAME}_FAN_IN, out);
        for (int o = 0; o < {NAME}_FAN_OUT; o++) {{
            {real} difference = fabs{suffix}(out[o] - {name}_test_out[row * {NAME}_FAN_OUT + o]);
            if (!(difference <= largest)) largest = difference;
        }}
    }}
    printf("largest difference from the network: %g\\n", (double)largest);
    return !(largest <= {tolerance}{suffix});
}}
#endif

#endif
"""


def write_c(
    net: Network, path: str | os.PathLike[str], name: str | None = None, x: Any = None
) -> None:
    """Write a header; see `Network.export_c`."""
    name = files.named_file(path).stem if name is None else name
    if not isinstance(name, str) or not PREFIX.fullmatch(name):
        raise ValueError(
            "name must begin with a letter and have letters, digits and single underscores, "
            f"as names in C do, got {name!r}"
        )
    files.put(path, header(model_of(net, x), name).encode("ascii"))


def header(model: Model, name: str) -> str:
    """The text of the header."""
    missing = sorted({step.op for step in model.steps} - set(C))
    if missing:
        raise NotImplementedError(
            f"export_c has no text for {', '.join(missing)}; it has {', '.join(sorted(C))}"
        )
    real, suffix = ("float", "f") if model.dtype == np.float32 else ("double", "")
    widths = [int(step.numbers["fan_out"]) for step in model.steps[:-1]]
    widest = max(widths, default=0)
    texts = list({C[step.op]: None for step in model.steps})
    for name_used, text_used in (("NAME_sum", SUM), ("NAME_tail", TAIL)):
        if any(name_used in text for text in texts):
            texts.insert(0, text_used)
    functions = "\n".join(texts).replace("REAL", real).replace("NAME", name)
    arrays = {
        f"{name}_{array}_{step.layer}": values
        for step in model.steps
        for array, values in step.arrays.items()
    }
    constants = {key: _constant(key, values, real, suffix) for key, values in arrays.items()}
    return HEADER.format(
        name=name,
        NAME=name.upper(),
        real=real,
        suffix=suffix,
        table="\n".join(f" *     {remark(line)}" for line in model.table),
        in_shape=model.in_shape,
        out_shape=model.out_shape,
        fan_in=model.x.shape[1],
        fan_out=model.out.shape[1],
        rows=len(model.x),
        constants=sum(values.nbytes for values in arrays.values()),
        stack=min(2, len(widths)) * widest * model.dtype.itemsize,
        arrays="\n".join(constants.values()),
        functions=functions.replace("$", suffix),
        body="\n".join(_body(model, name, suffix, widest)),
        test_x=_constant(f"{name}_test_x", model.x, real, suffix),
        test_out=_constant(f"{name}_test_out", model.out, real, suffix),
        tolerance=number_text(float(f"{model.tolerance:.3g}")),
    )


def _constant(name: str, values: np.ndarray, real: str, suffix: str) -> str:
    size = " * ".join(map(str, values.shape))
    return f"static const {real} {name}[{size}] = {{\n    {lines_of(values, suffix)}\n}};\n"


def _body(model: Model, name: str, suffix: str, widest: int) -> list[str]:
    """The steps, each from one buffer to the other."""
    buffers = ["a", "b"][: len(model.steps) - 1]
    real = "float" if suffix else "double"
    lines = [f"    {real} {', '.join(f'{b}[{widest}]' for b in buffers)};"] if buffers else []
    source, title = "x", ""
    for place, step in enumerate(model.steps):
        last = place == len(model.steps) - 1
        target = "out" if last else buffers[place % 2]
        if step.title != title:
            title = step.title
            lines.append(f"    /* {remark(title)} */")
        signature = re.search(r"(\w+) NAME_\w+\((.*?)\)", C[step.op], re.S)
        assert signature is not None
        result, parameters = signature[1], re.findall(r"(\w+)(?:,|$)", signature[2])
        each = result == "REAL"
        given = {"x": f"{source}[i]" if each else source, "out": target}
        arguments = [
            given[p] if p in given else _argument(step, p, name, suffix) for p in parameters
        ]
        call = f"{name}_{step.op}({', '.join(arguments)});"
        if each:
            call = f"for (int i = 0; i < {step.numbers['fan_in']}; i++) {target}[i] = {call}"
        lines.append(
            textwrap.fill(
                call, 96, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False
            )
        )
        source = target
    return lines


def _argument(step: Step, parameter: str, name: str, suffix: str) -> str:
    if parameter in step.arrays:
        return f"{name}_{parameter}_{step.layer}"
    value = step.numbers[parameter]
    if isinstance(value, int):
        return str(value)
    return number_text(np.float32(value) if suffix else value) + suffix
