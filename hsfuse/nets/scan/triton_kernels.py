"""Triton kernels of the four-direction scan, forward and backward, for GPUs without mamba-ssm.

One program advances a tile of N states by BD channels, which stays in registers, through one chunk of one direction;
chunks run side by side. So that they can, a first sweep finds the state that each chunk would end with from zero, and
`chain` turns these into the states that they start with. Gradients take the same road backwards; a chunk's states are
recomputed then, into scratch memory for as many chunks as run at once.

Letters: D channels in blocks of BD, N states (BN a power of two), R rank of the step size (BR), P = R + 2N numbers per
pixel and direction, L = H*W positions in chunks of STEPS. Position p runs along rows or columns; directions 2 and 3 go
through the positions of a chunk, and through the chunks, from the end. Decay A is in units of log2: decay exp2(dt A).
"""

# mypy: ignore-errors
# (Triton, not Python, gives these functions their types.)

import triton
from triton import language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _step(i, image, k, first, steps, u, proj, weights, biases, d, n, r, height, width, D, N, R):
    """The i-th step of a chunk of `steps` positions from `first` on, in direction k.

    Pixel, its row of numbers, low-rank step (BR, 1), dt, its derivative by what softplus is applied to, u and B. log1p
    is the polynomial of the CPU's kernel: hardware logarithms are too coarse near 1.
    """
    p = first + tl.where(k < 2, i, steps - 1 - i)
    pixel = image * height * width + tl.where(k % 2 == 1, (p % height) * width + p // height, p)
    row = proj + (pixel * 4 + k) * (R + 2 * N)
    low = tl.load(row + r, r < R, 0.0)[:, None]
    z = tl.sum(low * weights, 0) + biases
    w = tl.exp2(tl.abs(z) * -LOG2E)
    q = 0.005232688970863819 * w - 0.029505223035812378
    q = q * w + 0.07822593301534653
    q = q * w - 0.13663245737552643
    q = q * w + 0.19106006622314453
    q = q * w - 0.2484298199415207
    q = q * w + 0.3331909775733948
    q = q * w - 0.4999949336051941
    dt = tl.maximum(z, 0.0) + w * (q * w + 0.9999999403953552)
    slope = tl.where(z > 0, 1.0, w) / (1.0 + w)
    return pixel, row, low, dt, slope, tl.load(u + pixel * D + d, d < D, 0.0), tl.load(row + R + n, n < N, 0.0)


@triton.jit
def _tile(array, home, n, d, N, D):
    """(BN, BD) of an array (.., N, D) from `home` on, zeros outside."""
    inside = (n < N)[:, None] & (d < D)[None, :]
    return tl.load(array + home + n[:, None] * D + d[None, :], inside, 0.0)


@triton.jit
def _keep(array, home, n, d, N, D, value):
    """Write a tile back."""
    inside = (n < N)[:, None] & (d < D)[None, :]
    tl.store(array + home + n[:, None] * D + d[None, :], value, inside)


@triton.jit
def _where(chunk, L, STEPS: tl.constexpr):
    """First position of a chunk, and how many it has."""
    first = chunk * STEPS
    return first, tl.minimum(STEPS, L - first)


@triton.jit
def _parameters(weight, bias, a, k, r, n, d, R, N, D):
    """Tiles of dt_weight (BR, BD), dt_bias (BD) and A (BN, BD) of direction k."""
    return (
        _tile(weight, k * R * D, r, d, R, D),
        tl.load(bias + k * D + d, d < D, 0.0),
        _tile(a, k * N * D, n, d, N, D),
    )


@triton.jit
def ends(u, proj, weight, bias, a, grad_y, found, decays, height, width, D, N, R, chunks,
         STEPS: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr, ADJOINT: tl.constexpr):  # fmt: skip
    """State at the end of each chunk from zero, and the chunk's decay, both (B, 4, chunks, N, D).

    ADJOINT: what a chunk hands to the one before it in the backward pass; `decays` is left alone.
    """
    chunk, image, k = tl.program_id(0), tl.program_id(2) // 4, tl.program_id(2) % 4
    d, n, r = tl.program_id(1) * BD + tl.arange(0, BD), tl.arange(0, BN), tl.arange(0, BR)
    weights, biases, decay_rates = _parameters(weight, bias, a, k, r, n, d, R, N, D)
    first, steps = _where(chunk, height * width, STEPS)
    state, total = tl.zeros([BN, BD], tl.float32), tl.zeros([BD], tl.float32)
    i = 0
    while i < steps:
        j = steps - 1 - i if ADJOINT else i
        pixel, row, _low, dt, _slope, value, b = _step(
            j, image, k, first, steps, u, proj, weights, biases, d, n, r, height, width, D, N, R
        )
        decay = tl.exp2(dt[None, :] * decay_rates)
        if ADJOINT:
            grad = tl.load(grad_y + pixel * D + d, d < D, 0.0)
            c = tl.load(row + R + N + n, n < N, 0.0)
            state = decay * (state + c[:, None] * grad[None, :])
        else:
            state = decay * state + b[:, None] * (dt * value)[None, :]
            total += dt
        i += 1
    home = (tl.program_id(2) * chunks + chunk) * N * D
    _keep(found, home, n, d, N, D, state)
    if not ADJOINT:
        _keep(decays, home, n, d, N, D, tl.exp2(total[None, :] * decay_rates))


@triton.jit
def chain(found, decays, chunks, size, ROWS: tl.constexpr, BLOCK: tl.constexpr, ADJOINT: tl.constexpr):
    """Ends from zero -> true starts, in place: (B, 4, chunks, size); ROWS chunks are read at once, to hide latency."""
    descending = (tl.program_id(1) % 4 >= 2) != ADJOINT
    element, index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, ROWS)
    state = tl.zeros([BLOCK], tl.float32)
    begin = 0
    while begin < chunks:
        order = begin + index
        chunk = tl.where(descending, chunks - 1 - order, order)
        at = (tl.program_id(1) * chunks + chunk)[:, None] * size + element[None, :]
        inside = (order < chunks)[:, None] & (element < size)[None, :]
        decay, end = tl.load(decays + at, inside, 0.0), tl.load(found + at, inside, 0.0)
        starts = tl.zeros([ROWS, BLOCK], tl.float32)
        for i in tl.static_range(ROWS):
            here = (index == i)[:, None]
            starts = tl.where(here, state[None, :], starts)
            state = tl.sum(tl.where(here, decay, 0.0), 0) * state + tl.sum(tl.where(here, end, 0.0), 0)
        tl.store(found + at, starts, inside)
        begin += ROWS


@triton.jit
def outputs(u, proj, weight, bias, a, skip, starts, y, k, height, width, D, N, R, chunks,
            STEPS: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr):  # fmt: skip
    """Run direction k from each chunk's true start: y (B, H, W, D) is written (k = 0) or added to."""
    chunk, image = tl.program_id(0), tl.program_id(2)
    d, n, r = tl.program_id(1) * BD + tl.arange(0, BD), tl.arange(0, BN), tl.arange(0, BR)
    weights, biases, decay_rates = _parameters(weight, bias, a, k, r, n, d, R, N, D)
    skips = tl.load(skip + k * D + d, d < D, 0.0)
    first, steps = _where(chunk, height * width, STEPS)
    state = _tile(starts, ((image * 4 + k) * chunks + chunk) * N * D, n, d, N, D)
    i = 0
    while i < steps:
        pixel, row, _low, dt, _slope, value, b = _step(
            i, image, k, first, steps, u, proj, weights, biases, d, n, r, height, width, D, N, R
        )
        c = tl.load(row + R + N + n, n < N, 0.0)
        state = tl.exp2(dt[None, :] * decay_rates) * state + b[:, None] * (dt * value)[None, :]
        out = skips * value + tl.sum(state * c[:, None], 0)
        out += tl.load(y + pixel * D + d, (d < D) & (k > 0), 0.0)
        tl.store(y + pixel * D + d, out, d < D)
        i += 1


@triton.jit
def gradients(u, proj, weight, bias, a, skip, starts, carries, grad_y, history, grad_u, grad_proj, grad_a, grad_steps,
              begin, k, height, width, D, N, R, chunks,
              STEPS: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr):  # fmt: skip
    """Gradients of direction k, chunks `begin` and on. grad_u (B, H, W, D) is written (k = 0) or added to.

    `history` (programs, STEPS, BN, BD) is scratch. grad_proj (blocks, B, H, W, 4, P) is to be summed over blocks;
    grad_a (B, 4, chunks, N, D) and grad_steps (B, 4, chunks, R + 2, D), of dt_weight, dt_bias and skip, over images and
    chunks.
    """
    chunk, block, image = begin + tl.program_id(0), tl.program_id(1), tl.program_id(2)
    d, n, r = block * BD + tl.arange(0, BD), tl.arange(0, BN), tl.arange(0, BR)
    weights, biases, decay_rates = _parameters(weight, bias, a, k, r, n, d, R, N, D)
    skips = tl.load(skip + k * D + d, d < D, 0.0)
    first, steps = _where(chunk, height * width, STEPS)
    images, home = tl.num_programs(2), (image * 4 + k) * chunks + chunk
    state = _tile(starts, home * N * D, n, d, N, D)
    program = (image * tl.num_programs(1) + block) * tl.num_programs(0) + tl.program_id(0)
    scratch = history + program * STEPS * BN * BD + n[:, None] * BD + tl.arange(0, BD)[None, :]
    i = 0
    while i < steps:
        pixel, row, low, dt, slope, value, b = _step(
            i, image, k, first, steps, u, proj, weights, biases, d, n, r, height, width, D, N, R
        )
        tl.store(scratch + i * BN * BD, state)
        state = tl.exp2(dt[None, :] * decay_rates) * state + b[:, None] * (dt * value)[None, :]
        i += 1
    tl.debug_barrier()
    carry, grad_rates = _tile(carries, home * N * D, n, d, N, D), tl.zeros([BN, BD], tl.float32)
    grad_weight, grad_bias = tl.zeros([BR, BD], tl.float32), tl.zeros([BD], tl.float32)
    grad_skip = tl.zeros([BD], tl.float32)
    while i > 0:
        i -= 1
        pixel, row, low, dt, slope, value, b = _step(
            i, image, k, first, steps, u, proj, weights, biases, d, n, r, height, width, D, N, R
        )
        c = tl.load(row + R + N + n, n < N, 0.0)
        grad = tl.load(grad_y + pixel * D + d, d < D, 0.0)
        decay, before, push = tl.exp2(dt[None, :] * decay_rates), tl.load(scratch + i * BN * BD), (dt * value)[None, :]
        g = carry + c[:, None] * grad[None, :]
        into = grad_proj + ((block * images * height * width + pixel) * 4 + k) * (R + 2 * N)
        tl.store(into + R + N + n, tl.sum((decay * before + b[:, None] * push) * grad[None, :], 1), n < N)
        tl.store(into + R + n, tl.sum(g * push, 1), n < N)
        carry = decay * g
        through = carry * before
        grad_rates += dt[None, :] * through
        grad_push = tl.sum(g * b[:, None], 0)
        grad_z = (tl.sum(decay_rates * through, 0) * LN2 + grad_push * value) * slope
        tl.store(into + r, tl.sum(weights * grad_z[None, :], 1), r < R)
        grad_weight += low * grad_z[None, :]
        grad_bias += grad_z
        grad_skip += grad * value
        out = grad_push * dt + grad * skips + tl.load(grad_u + pixel * D + d, (d < D) & (k > 0), 0.0)
        tl.store(grad_u + pixel * D + d, out, d < D)
    _keep(grad_a, home * N * D, n, d, N, D, grad_rates * LN2)
    into = home * (R + 2) * D
    _keep(grad_steps, into, r, d, R, D, grad_weight)
    tl.store(grad_steps + into + R * D + d, grad_bias, d < D)
    tl.store(grad_steps + into + (R + 1) * D + d, grad_skip, d < D)
