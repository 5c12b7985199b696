"""Rectifiers: relu and its kin, which let large numbers through and hold small ones back.

The smooth ones are x times a number from 0 to 1 (gelu, silu, mish) or bend to a floor (elu,
selu). See `activations` for what is common to all.
"""

import numpy as np

from ._kernel import kernel, part
from ._op import op
from .activations import backward_views, backward_views_of_input, forward_views, sigmoid_reference
from .elementary import (
    exp_value,
    expm1_value,
    falling_exp,
    normal_product,
    normal_reference,
    normal_value,
    sigmoid_product,
    sigmoid_value,
)

# relu: out = max(x, 0). The comparisons are written so that NaN stays NaN.


@kernel("x(n) out(n) -> out", reference=lambda x: np.maximum(x, 0))
def relu_forward(x, out):
    """``out = max(x, 0)``. Source: Nair and Hinton (2010), ICML."""
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = zero if x[i] <= zero else x[i]


@kernel(
    "grad_out(n) out(n) grad_x(n) -> grad_x",
    reference=lambda grad_out, out: np.where(out <= 0, 0, grad_out),
)
def relu_backward(grad_out, out, grad_x):
    """``grad_x = grad_out where out > 0``; 0 at 0."""
    zero = out.dtype.type(0)
    for i in range(out.size):
        grad_x[i] = zero if out[i] <= zero else grad_out[i]


def relu(op, net, lo, hi):
    """Forward."""
    relu_forward(*forward_views(op, net, lo, hi))


def relu_grad(op, net, lo, hi):
    """Backward."""
    relu_backward(*backward_views(op, net, lo, hi))


op("relu", "activation", forward=relu, backward=relu_grad)


# leaky_relu: out = x above 0, alpha * x below


@kernel("x(n) alpha() out(n) -> out", reference=lambda x, alpha: np.where(x <= 0, alpha * x, x))
def leaky_relu_forward(x, alpha, out):
    """``out = x above 0, alpha * x below``. Source: Maas, Hannun and Ng (2013), ICML."""
    zero = x.dtype.type(0)
    slope = x.dtype.type(alpha)
    for i in range(x.size):
        out[i] = slope * x[i] if x[i] <= zero else x[i]


@kernel(
    "grad_out(n) x(n) alpha() grad_x(n) -> grad_x",
    reference=lambda grad_out, x, alpha: np.where(x <= 0, alpha * grad_out, grad_out),
)
def leaky_relu_backward(grad_out, x, alpha, grad_x):
    """``grad_x = grad_out above 0, alpha * grad_out below``; alpha at 0."""
    zero = x.dtype.type(0)
    slope = x.dtype.type(alpha)
    for i in range(x.size):
        grad_x[i] = slope * grad_out[i] if x[i] <= zero else grad_out[i]


def leaky_relu(op, net, lo, hi):
    """Forward."""
    x, out = forward_views(op, net, lo, hi)
    leaky_relu_forward(x, op.alpha, out)


def leaky_relu_grad(op, net, lo, hi):
    """Backward."""
    grad_out, x, grad_x = backward_views_of_input(op, net, lo, hi)
    leaky_relu_backward(grad_out, x, op.alpha, grad_x)


op("leaky_relu", "activation", forward=leaky_relu, backward=leaky_relu_grad)


# elu: out = x above 0, alpha * (exp(x) - 1) below


def elu_reference(x, alpha):
    return np.where(x <= 0, alpha * np.expm1(np.where(x <= 0, x, 0)), x)


def elu_slope_reference(x, alpha):
    return np.where(x <= 0, alpha * np.exp(np.minimum(x, 0)), 1)


@kernel("x(n) alpha() out(n) -> out", reference=elu_reference)
def elu_forward(x, alpha, out):
    """``out = x above 0, alpha * (exp(x) - 1) below``: a floor at -alpha.

    Source: Clevert, Unterthiner and Hochreiter (2016), ICLR.
    """
    zero = x.dtype.type(0)
    floor = x.dtype.type(alpha)
    for i in range(x.size):
        out[i] = floor * expm1_value(x[i]) if x[i] <= zero else x[i]


@kernel(
    "grad_out(n) x(n) alpha() grad_x(n) -> grad_x",
    reference=lambda grad_out, x, alpha: grad_out * elu_slope_reference(x, alpha),
)
def elu_backward(grad_out, x, alpha, grad_x):
    """``grad_x = grad_out above 0, alpha * exp(x) * grad_out below``; alpha at 0."""
    zero = x.dtype.type(0)
    floor = x.dtype.type(alpha)
    for i in range(x.size):
        grad_x[i] = floor * exp_value(x[i]) * grad_out[i] if x[i] <= zero else grad_out[i]


def elu(op, net, lo, hi):
    """Forward."""
    x, out = forward_views(op, net, lo, hi)
    elu_forward(x, op.alpha, out)


def elu_grad(op, net, lo, hi):
    """Backward."""
    grad_out, x, grad_x = backward_views_of_input(op, net, lo, hi)
    elu_backward(grad_out, x, op.alpha, grad_x)


op("elu", "activation", forward=elu, backward=elu_grad)


# selu: elu with the two numbers that keep mean 0 and variance 1 from layer to layer

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@kernel("x(n) out(n) -> out", reference=lambda x: SELU_SCALE * elu_reference(x, SELU_ALPHA))
def selu_forward(x, out):
    """``out = scale * (x above 0, alpha * (exp(x) - 1) below)``.

    Begin its weights with ``lecun_normal``, for which the two numbers were found. Source:
    Klambauer, Unterthiner, Mayr and Hochreiter (2017), NIPS 30, eq. 14.
    """
    zero, scale = x.dtype.type(0), x.dtype.type(SELU_SCALE)
    floor = x.dtype.type(SELU_SCALE * SELU_ALPHA)
    for i in range(x.size):
        out[i] = floor * expm1_value(x[i]) if x[i] <= zero else scale * x[i]


@kernel(
    "grad_out(n) x(n) grad_x(n) -> grad_x",
    reference=lambda grad_out, x: grad_out * SELU_SCALE * elu_slope_reference(x, SELU_ALPHA),
)
def selu_backward(grad_out, x, grad_x):
    """``grad_x = scale * (grad_out above 0, alpha * exp(x) * grad_out below)``."""
    zero, scale = x.dtype.type(0), x.dtype.type(SELU_SCALE)
    floor = x.dtype.type(SELU_SCALE * SELU_ALPHA)
    for i in range(x.size):
        slope = floor * exp_value(x[i]) if x[i] <= zero else scale
        grad_x[i] = grad_out[i] * slope


def selu(op, net, lo, hi):
    """Forward."""
    selu_forward(*forward_views(op, net, lo, hi))


def selu_grad(op, net, lo, hi):
    """Backward."""
    selu_backward(*backward_views_of_input(op, net, lo, hi))


op("selu", "activation", forward=selu, backward=selu_grad)


# gelu: out = x * Phi(x), Phi being the normal distribution


@kernel("x(n) out(n) -> out", reference=lambda x: x * normal_reference(x))
def gelu_forward(x, out):
    """``out = x * Phi(x)``, exactly; the formula with tanh is an approximation of it.

    ``(1 + erf(x / sqrt 2)) / 2`` loses its digits below 0 and is 0 below -8, Phi keeps them.
    Source: Hendrycks and Gimpel (2016), arXiv:1606.08415.
    """
    for i in range(x.size):
        out[i] = normal_product(x[i])


def gelu_backward_reference(grad_out, x):
    return grad_out * (normal_reference(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi))


@kernel("grad_out(n) x(n) grad_x(n) -> grad_x", reference=gelu_backward_reference)
def gelu_backward(grad_out, x, grad_x):
    """``grad_x = grad_out * (Phi(x) + x * phi(x))``, phi being the normal density."""
    for i in range(x.size):
        distribution, density = normal_value(x[i])
        grad_x[i] = grad_out[i] * (distribution + x[i] * density)


def gelu(op, net, lo, hi):
    """Forward."""
    gelu_forward(*forward_views(op, net, lo, hi))


def gelu_grad(op, net, lo, hi):
    """Backward."""
    gelu_backward(*backward_views_of_input(op, net, lo, hi))


op("gelu", "activation", forward=gelu, backward=gelu_grad)


# silu: out = x * sigmoid(x), also known as swish


@kernel("x(n) out(n) -> out", reference=lambda x: x * sigmoid_reference(x))
def silu_forward(x, out):
    """``out = x * sigmoid(x)``, also known as swish.

    Source: Elfwing, Uchibe and Doya (2018), Neural Networks 107; Ramachandran, Zoph and Le
    (2017), arXiv:1710.05941.
    """
    for i in range(x.size):
        out[i] = sigmoid_product(x[i])


def silu_backward_reference(grad_out, x):
    share = sigmoid_reference(x)
    return grad_out * share * (1 + x * (1 - share))


@kernel("grad_out(n) x(n) grad_x(n) -> grad_x", reference=silu_backward_reference)
def silu_backward(grad_out, x, grad_x):
    """``grad_x = grad_out * s * (1 + x * (1 - s))`` with ``s = sigmoid(x)``."""
    one = x.dtype.type(1)
    for i in range(x.size):
        share = sigmoid_value(x[i])
        grad_x[i] = grad_out[i] * share * (one + x[i] * (one - share))


def silu(op, net, lo, hi):
    """Forward."""
    silu_forward(*forward_views(op, net, lo, hi))


def silu_grad(op, net, lo, hi):
    """Backward."""
    silu_backward(*backward_views_of_input(op, net, lo, hi))


op("silu", "activation", forward=silu, backward=silu_grad)


# mish: out = x * tanh(softplus(x))


# With ``e = exp(x)`` the tanh is ``((1 + e)^2 - 1) / ((1 + e)^2 + 1)``; above 0 both are divided by
# ``e^2``, so that no exponential is ever larger than 1.


@kernel("x(n) out(n) -> out", reference=lambda x: x * np.tanh(np.logaddexp(0, x)))
def mish_forward(x, out):
    """``out = x * tanh(softplus(x))``. Source: Misra (2020), BMVC.

    The tanh is e below 0 and 1 above, less a smaller part of it: of that digits may be lost.
    """
    zero, one, two = x.dtype.type(0), x.dtype.type(1), x.dtype.type(2)
    lowest = x.dtype.type(-1000)  # from there on it is 0, but x times a factor may be none
    for i in range(x.size):
        value = lowest if x[i] < lowest else x[i]
        power, scale = falling_exp(-abs(value))
        w = power * scale
        less = w * w + w if value < zero else two * w * w
        most = power if value < zero else one
        share = most - most * (less / (less + (w + two if value < zero else two * w + one)))
        out[i] = value * share * (scale if value < zero else one)


@part(inline=True)
def mish_share(x):
    """``tanh(softplus(x))`` of a number, and its slope."""
    zero, one, two, four = type(x)(0), type(x)(1), type(x)(2), type(x)(4)
    power, scale = falling_exp(-abs(x))
    w = power * scale
    above = w * (w + two) if x < zero else one + two * w
    below = above + (two if x < zero else two * w * w)
    slope = four * (one + w) * (w if x < zero else w * w) / (below * below)
    return above / below, slope


def mish_backward_reference(grad_out, x):
    share = np.tanh(np.logaddexp(0, x))
    return grad_out * (share + x * (1 - share**2) * sigmoid_reference(x))


@kernel("grad_out(n) x(n) grad_x(n) -> grad_x", reference=mish_backward_reference)
def mish_backward(grad_out, x, grad_x):
    """``grad_x = grad_out * (t + x * (1 - t**2) * sigmoid(x))``, ``t = tanh(softplus(x))``."""
    for i in range(x.size):
        share, slope = mish_share(x[i])
        grad_x[i] = grad_out[i] * (share + x[i] * slope)


def mish(op, net, lo, hi):
    """Forward."""
    mish_forward(*forward_views(op, net, lo, hi))


def mish_grad(op, net, lo, hi):
    """Backward."""
    mish_backward(*backward_views_of_input(op, net, lo, hi))


op("mish", "activation", forward=mish, backward=mish_grad)
