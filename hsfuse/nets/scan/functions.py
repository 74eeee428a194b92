"""exp2, softplus and its derivative on vectors of lanes, to float32 accuracy.

Polynomials by weighted least squares, reweighted until the relative error is level.
"""

# mypy: ignore-errors

from numba import njit

from hsfuse.nets.scan.lanes import absolute, choose_positive, fma, fraction, maximum, splat, times_power

_LOG2E = 1.4426950408889634


@njit(forceinline=True)
def exp2(x):
    """2^x for x < 128, zero or tiny below -126: 2^f on [-1/2, 1/2] as 1 + f q(f), relative error 9e-8, times 2^n."""
    f = fraction(x)
    power = fma(splat(0.001326472731307149), f, splat(0.009671512991189957))
    power = fma(power, f, splat(0.05550733581185341))
    power = fma(power, f, splat(0.24022242426872253))
    power = fma(power, f, splat(0.6931470036506653))
    return times_power(fma(power, f, splat(1.0)), x - f)


@njit(forceinline=True)
def _log1p(w):
    """log(1 + w) on [0, 1] as w q(w), relative error 2e-7; a division would take longer than the polynomial."""
    ratio = fma(splat(0.005232688970863819), w, splat(-0.029505223035812378))
    ratio = fma(ratio, w, splat(0.07822593301534653))
    ratio = fma(ratio, w, splat(-0.13663245737552643))
    ratio = fma(ratio, w, splat(0.19106006622314453))
    ratio = fma(ratio, w, splat(-0.2484298199415207))
    ratio = fma(ratio, w, splat(0.3331909775733948))
    ratio = fma(ratio, w, splat(-0.4999949336051941))
    return w * fma(ratio, w, splat(0.9999999403953552))


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
