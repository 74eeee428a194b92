"""Explicit SIMD for Numba: a vector of LANES floats with + - * / and the few operations the scan needs.

Numba's own vectoriser doesn't keep the scan's state in vector registers; an LLVM vector type does, and LLVM lowers it
to whatever the machine has (AVX-512, AVX2, SSE, NEON). Buffers are flat float32 arrays, positions count floats; nothing
checks them.
"""
# mypy: ignore-errors

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_BITS = ir.VectorType(ir.IntType(32), LANES)
_MAGIC = 1.5 * 2**23  # adding it rounds to a whole number, left in the low bits


class Lanes(types.Type):
    """Numba type of a vector of LANES floats."""

    def __init__(self) -> None:
        super().__init__(name=f"Lanes{LANES}")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, value)] * LANES)


def _broadcast(builder: Any, scalar: Any) -> Any:
    single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    kind = ir.FunctionType(result, [x.type for x in args])
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), args)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fmuladd.v{LANES}f32", _VECTOR, [a, b, c])


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _elementwise(count: int, build: Callable[..., Any]) -> Any:
    """Intrinsic of `count` vectors giving one vector, emitted by build(builder, *vectors)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return build(builder, *args)

    signature = lanes(*[lanes] * count)
    if count == 1:
        return intrinsic(lambda typingctx, a: (signature, codegen))
    if count == 2:
        return intrinsic(lambda typingctx, a, b: (signature, codegen))
    return intrinsic(lambda typingctx, a, b, c: (signature, codegen))


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _has_avx512(context: Any) -> bool:
    """Whether the code is for a machine with AVX-512's reduction and scaling of 16 floats."""
    return LANES == 16 and "+avx512dq" in context.codegen().magic_tuple()[2]


def _avx512(builder: Any, name: str, a: Any, b: Any) -> Any:
    """One of the AVX-512 intrinsics of two operands, no lane masked, in the current rounding mode."""
    everywhere, current = ir.Constant(ir.IntType(16), -1), ir.Constant(ir.IntType(32), 4)
    return _call(builder, f"llvm.x86.avx512.mask.{name}.ps.512", _VECTOR, [a, b, _constant(0.0), everywhere, current])


def _whole(context: Any, builder: Any, x: Any) -> Any:
    """x rounded to whole numbers, |x| < 2^22: adding 1.5 * 2^23 leaves no bits behind the point."""
    magic = _constant(_MAGIC)
    return builder.fsub(builder.fadd(x, magic), magic)


@intrinsic
def fraction(typingctx: Any, x: Any) -> Any:
    """x less the nearest whole number, in [-1/2, 1/2], for |x| < 2^22."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _has_avx512(context):
            return _avx512(builder, "reduce", args[0], ir.Constant(ir.IntType(32), 0))
        return builder.fsub(args[0], _whole(context, builder, args[0]))

    return lanes(x), codegen


@intrinsic
def times_power(typingctx: Any, a: Any, n: Any) -> Any:
    """a 2^n for whole numbers -126 <= n < 128 and a near 1; smaller n give a tiny number or zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _has_avx512(context):
            return _avx512(builder, "scalef", args[0], args[1])
        exponent = builder.fadd(_maximum(builder, args[1], _constant(-126.0)), _constant(_MAGIC))
        shifted = builder.shl(builder.bitcast(exponent, _BITS), ir.Constant(_BITS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(args[0], _BITS), shifted), _VECTOR)

    return lanes(a, n), codegen


def _absolute(builder: Any, a: Any) -> Any:
    bits = builder.and_(builder.bitcast(a, _BITS), ir.Constant(_BITS, [0x7FFFFFFF] * LANES))
    return builder.bitcast(bits, _VECTOR)


def _choose_positive(builder: Any, a: Any, positive: Any, negative: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, _constant(0.0)), positive, negative)


fma = _elementwise(3, _fma)
maximum = _elementwise(2, _maximum)
absolute = _elementwise(1, _absolute)
choose_positive = _elementwise(3, _choose_positive)
_add = _elementwise(2, lambda builder, a, b: builder.fadd(a, b))
_sub = _elementwise(2, lambda builder, a, b: builder.fsub(a, b))
_mul = _elementwise(2, lambda builder, a, b: builder.fmul(a, b))
_div = _elementwise(2, lambda builder, a, b: builder.fdiv(a, b))


def _operator(symbol: Any, function: Any) -> None:
    def typed(a, b):  # type: ignore[no-untyped-def]
        if isinstance(a, Lanes) and isinstance(b, Lanes):
            return lambda a, b: function(a, b)
        return None

    overload(symbol)(typed)


for _symbol, _function in ((operator.add, _add), (operator.sub, _sub), (operator.mul, _mul), (operator.truediv, _div)):
    _operator(_symbol, _function)


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """Vector of one float32 in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _broadcast(builder, context.cast(builder, args[0], signature.args[0], types.float32))

    return lanes(value), codegen


@intrinsic
def splat_at(typingctx: Any, array: Any, index: Any) -> Any:
    """Vector of the one float at position `index` of a flat array, unchecked."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return _broadcast(builder, builder.load(builder.gep(data, [args[1]])))

    return lanes(array, types.intp), codegen


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """LANES floats of a flat array from position `index`, unchecked."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *args), align=4)

    return lanes(array, types.intp), codegen


def _mask(context: Any, builder: Any, count: Any) -> Any:
    """True in the first `count` lanes."""
    zeros = ir.Constant(_BITS, [0] * LANES)
    narrow = context.cast(builder, count, types.intp, types.int32)
    wide = builder.insert_element(zeros, narrow, ir.Constant(ir.IntType(32), 0))
    wide = builder.shuffle_vector(wide, zeros, zeros)
    return builder.icmp_signed("<", ir.Constant(_BITS, list(range(LANES))), wide)


@intrinsic
def load_first(typingctx: Any, array: Any, index: Any, count: Any) -> Any:
    """`count` floats of a flat array from position `index` in the first lanes, zeros in the others."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        operands = [pointer, ir.Constant(ir.IntType(32), 4), _mask(context, builder, args[2]), _constant(0.0)]
        return _call(builder, f"llvm.masked.load.v{LANES}f32.p0", _VECTOR, operands)

    return lanes(array, types.intp, types.intp), codegen


@intrinsic
def store_first(typingctx: Any, array: Any, index: Any, count: Any, value: Any) -> Any:
    """Write the first `count` lanes to a flat array at position `index`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        operands = [args[3], pointer, ir.Constant(ir.IntType(32), 4), _mask(context, builder, args[2])]
        _call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), operands)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector to a flat array at position `index`, unchecked."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line at position `index`, into the second-level cache."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        read_second_level_data = [ir.Constant(ir.IntType(32), value) for value in (0, 2, 1)]
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *read_second_level_data])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


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


PIXELS, VECTORS = 8, 2  # of one tile of a product: 16 accumulators, which hide the latency of a multiply-add


@intrinsic
def store_row_sums(typingctx: Any, target: Any, position: Any, stride: Any, rows: Any, start: Any) -> Any:
    """Sum each of LANES consecutive vectors of `rows`, from `start`; write the sums `stride` apart from `position`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out, position, stride, rows, start = args
        pointer = _pointer(context, builder, signature.args[3], rows, start)
        index = [ir.Constant(ir.IntType(32), i) for i in range(LANES)]
        vectors = [builder.load(builder.gep(pointer, [i]), align=4) for i in index]
        even, odd = (ir.Constant(_BITS, list(range(first, 2 * LANES, 2))) for first in (0, 1))
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [
                builder.fadd(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd)) for a, b in pairs
            ]
        data = context.make_array(signature.args[0])(context, builder, out).data
        for i in index:
            builder.store(builder.extract_element(vectors[0], i), builder.gep(data, [position]))
            position = builder.add(position, stride)
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp, rows, types.intp), codegen


def _along(builder: Any, start: Any, i: Any, stride: Any) -> Any:
    """The index start + i stride, for i a number or a value."""
    return builder.add(start, builder.mul(ir.Constant(stride.type, i) if isinstance(i, int) else i, stride))


def _vectors(context: Any, builder: Any, kind: Any, array: Any, start: Any) -> list[Any]:
    """Pointers to the VECTORS vectors of an array from `start` on."""
    starts = [builder.add(start, ir.Constant(start.type, j * LANES)) for j in range(VECTORS)]
    return [_pointer(context, builder, kind, array, index) for index in starts]


@intrinsic
def product(
    typingctx: Any, x: Any, at: Any, pixel: Any, step: Any, count: Any, weights: Any, first: Any, stride: Any,
    bias: Any, out: Any, into: Any, apart: Any,
) -> Any:  # fmt: skip
    """PIXELS rows of a matrix product, VECTORS vectors of it: out = x weights + bias.

    x[at + p pixel + k step] for p < PIXELS, k < count; weights[first + k stride + lane]; bias[lane] from `bias` on;
    written to out[into + p apart + lane].
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        x, at, pixel, step, count, weights, first, stride, bias, out, into, apart = args
        begin = [builder.load(v, align=4) for v in _vectors(context, builder, kinds[8], bias, first)]
        sums = [[cgutils.alloca_once_value(builder, v) for v in begin] for _ in range(PIXELS)]
        data = context.make_array(kinds[0])(context, builder, x).data
        with cgutils.for_range(builder, count) as loop:
            row = _along(builder, first, loop.index, stride)
            factors = [builder.load(v, align=4) for v in _vectors(context, builder, kinds[5], weights, row)]
            place = _along(builder, at, loop.index, step)
            for p in range(PIXELS):
                single = builder.load(builder.gep(data, [_along(builder, place, p, pixel)]))
                value = _broadcast(builder, single)
                for slot, factor in zip(sums[p], factors, strict=True):
                    builder.store(_fma(builder, value, factor, builder.load(slot)), slot)
        for p in range(PIXELS):
            places = _vectors(context, builder, kinds[9], out, _along(builder, into, p, apart))
            for slot, place in zip(sums[p], places, strict=True):
                builder.store(builder.load(slot), place, align=4)
        return context.get_dummy_value()

    intp = types.intp
    signature = types.void(x, intp, intp, intp, intp, weights, intp, intp, bias, out, intp, intp)
    return signature, codegen


@intrinsic
def total(typingctx: Any, x: Any) -> Any:
    """Sum over the lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, width = args[0], LANES
        while width > 1:
            width //= 2
            upper = ir.Constant(_BITS, [(i + width) % LANES for i in range(LANES)])
            vector = builder.fadd(vector, builder.shuffle_vector(vector, ir.Constant(_VECTOR, ir.Undefined), upper))
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return types.float32(x), codegen
