"""exp2, softplus and its derivative on vectors of lanes, to float32 accuracy.

Polynomials by weighted least squares, reweighted until the relative error is level.
"""

# mypy: ignore-errors

from numba import njit

from hsfuse.nets.scan.lanes import absolute, choose_positive, fma, maximum, splat, times_power

_MAGIC = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, left in the low bits
_LOG2E = 1.4426950408889634


@njit(forceinline=True)
def exp2(x):
    """2^x for x < 128, at least 2^-126: 2^f on [-1/2, 1/2] as 1 + f q(f), relative error 9e-8, times 2^n."""
    x = maximum(x, splat(-126.0))
    whole = x + splat(_MAGIC)
    f = x - (whole - splat(_MAGIC))
    power = fma(splat(0.001326472731307149), f, splat(0.009671512991189957))
    power = fma(power, f, splat(0.05550733581185341))
    power = fma(power, f, splat(0.24022242426872253))
    power = fma(power, f, splat(0.6931470036506653))
    return times_power(fma(power, f, splat(1.0)), whole)


@njit(forceinline=True)
def _log1p(w):
    """log(1 + w) on [0, 1] as 2 artanh(s), s = w / (2 + w): a polynomial in s^2, relative error 4e-9, times s."""
    s = w / (w + splat(2.0))
    square = s * s
    ratio = fma(splat(0.28178393840789795), square, splat(0.2796058654785156))
    ratio = fma(ratio, square, splat(0.4002491235733032))
    ratio = fma(ratio, square, splat(0.6666631698608398))
    return s * fma(ratio, square, splat(2.0))


@njit(forceinline=True)
def softplus(x):
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|))."""
    return maximum(x, splat(0.0)) + _log1p(exp2(absolute(x) * splat(-_LOG2E)))


@njit(forceinline=True)
def logistic(x):
    """Derivative of softplus, 1 / (1 + exp(-x))."""
    w = exp2(absolute(x) * splat(-_LOG2E))
    upper = splat(1.0) / (w + splat(1.0))
    return choose_positive(x, upper, w * upper)
