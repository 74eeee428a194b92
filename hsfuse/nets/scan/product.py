"""Small products and sums over lanes: what the kernels need beside vectors of lanes, each as one piece of LLVM."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hsfuse.nets.scan.lanes import _BITS, _VECTOR, LANES, _broadcast, _fma, _pointer

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
