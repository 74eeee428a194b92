"""Linear systems as scenes make them: symmetric, definite on paper, and singular wherever nothing is to be seen.

Everything that solves, inverts or factorises what was measured in images goes through here. Matrices are first brought
to a unit diagonal (Jacobi scaling: van der Sluis 1969, "Condition numbers and equilibration of matrices", Numerische
Mathematik 14), so that neither the images' unit nor that of single features matters; then a ridge of some roundings is
added, and more only where a Cholesky factor needs it. A row of zeros gets a solution of zeros. Finite matrices give
finite results: what would overflow is cut to the largest number.

torch computes on one thread, and what doesn't wait for each other beside each other. Within an operation a second
thread gains a tenth of the time for a third more of the processor's, as each waits for the last of them: where
something else has a core it takes many times as long. They also round sums differently, so that a scene's pixels, and a
seed's weights, would be others on another number of cores. Whole computations beside each other, each on one thread,
gain nearly all of a core and give the same bits on any number of them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

#: Threads that help in a process at most; whoever gets none does all by itself.
MOST_HELPERS = 64

#: Ridge on the unit diagonal, in roundings of the type; by what it grows where that isn't enough.
ROUNDINGS, GROWTH = 16.0, 100.0


def solve_spd(matrix: Tensor, rhs: Tensor, ridge: float = 0.0) -> Tensor:
    """x (..., n, m) with (A + ridge mean(diag A) I) x = rhs for symmetric A (..., n, n), rhs (..., n, m).

    >>> solve_spd(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[4.0], [0.0]])).round(decimals=3).tolist()
    [[2.0], [0.0]]
    """
    factor, length = _factor(matrix, ridge)
    scale, largest = _inverse_lengths(length)
    size = rhs.abs().amax(-2, keepdim=True)
    x = scale * torch.cholesky_solve(scale * torch.where(size > 0, rhs / size, 0.0), factor)
    return _finite(x * size * largest * largest)


def inverse_spd(matrix: Tensor, ridge: float = 0.0) -> Tensor:
    """The inverse (..., n, n) of A + ridge mean(diag A) I; rows and columns of zeros stay zeros."""
    factor, length = _factor(matrix, ridge)
    scale, largest = _inverse_lengths(length)
    return _finite(torch.cholesky_inverse(factor) * scale * scale.mT * largest * largest)


def root_spd(matrix: Tensor, ridge: float = 0.0) -> Tensor:
    """Lower L (..., n, n) with L L^T = A + ridge mean(diag A) I."""
    factor, length = _factor(matrix, ridge)
    return factor * length


def whitener_spd(matrix: Tensor, ridge: float = 0.0) -> Tensor:
    """The inverse (..., n, n) of `root_spd`, with zeros where that has a row of zeros."""
    factor, length = _factor(matrix, ridge)
    scale, largest = _inverse_lengths(length)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return _finite(torch.linalg.solve_triangular(factor, eye, upper=False) * scale.mT * largest)


def principal_axes(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., n), largest first and none below 0, and eigenvectors in the columns (..., n, n)."""
    size = matrix.abs().amax((-2, -1), keepdim=True)
    symmetric = torch.where(size > 0, matrix / size, 0.0)
    values, vectors = torch.linalg.eigh((symmetric + symmetric.mT) / 2)
    return values.flip(-1).clamp_min(0) * size[..., 0], vectors.flip(-1)


def _factor(matrix: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Cholesky factor (..., n, n) of the matrix at a unit diagonal, and the roots of its own diagonal (..., n, 1)."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1).clamp_min(0)
    diagonal = diagonal + ridge * diagonal.mean(-1, keepdim=True)
    length = diagonal.sqrt()[..., None]
    scale = torch.where(length > 0, 1 / length, 0.0)
    unit = (matrix * scale * scale.mT).clamp(-1, 1)
    unit = (unit + unit.mT) / 2
    n = matrix.shape[-1]
    eye = torch.eye(n, dtype=matrix.dtype, device=matrix.device)
    unit = torch.where(eye > 0, eye, unit)
    added = torch.full_like(unit[..., :1, :1], ROUNDINGS * torch.finfo(matrix.dtype).eps)
    factor, failed = torch.linalg.cholesky_ex(unit + added * eye)
    while bool(failed.any()):  # ends: with n on the diagonal, at most 1 beside it, any matrix has a factor
        added = torch.where(failed[..., None, None] > 0, (GROWTH * added).clamp_max(n), added)
        factor, failed = torch.linalg.cholesky_ex(unit + added * eye)
    return factor, length


def _inverse_lengths(length: Tensor) -> tuple[Tensor, Tensor]:
    """1 / length, 0 for 0, relative to its largest (..., n, 1), and that (..., 1, 1)."""
    scale = torch.where(length > 0, 1 / length, 0.0)
    largest = scale.amax(-2, keepdim=True)
    return torch.where(largest > 0, scale / largest, 0.0), largest


def _finite(x: Tensor) -> Tensor:
    most = torch.finfo(x.dtype).max
    return x.clamp(-most, most)


class _Here(threading.local):
    """What each thread knows of its own: the threads that may still help, counted with all that work for the same."""

    spare = threading.Semaphore(0)


_here = _Here()


@contextmanager
def one_thread(beside: int | None = None) -> Iterator[None]:
    """Let torch compute on one thread of the CPU, and `beside_each_other` on `beside` in all; None: as before.

    A thread that nobody has told has itself alone.
    """
    before, spare = torch.get_num_threads(), _here.spare
    torch.set_num_threads(1)
    if beside is not None:
        _here.spare = threading.Semaphore(beside - 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _here.spare = spare


def beside_each_other(*calls: Callable[[], T]) -> list[T]:
    """What they give, in their order; begun in their order, too, so that the longest is best the first.

    On this thread alone unless `one_thread` allows more. What has begun is waited for when one of them fails or is
    interrupted; nothing else begins then. It pays for calls whose operations take a tenth of a millisecond or more:
    between shorter ones threads wait for each other's Python.

    >>> with one_thread(beside=2):
    ...     beside_each_other(lambda: "a", lambda: "b", lambda: "c")
    ['a', 'b', 'c']
    """
    made: dict[int, T] = {}
    todo, spare = enumerate(calls), _here.spare  # shared: whoever is free takes the next one
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def work() -> None:
        try:
            for number, call in todo:
                made[number] = call()
        finally:
            deque(todo, maxlen=0)  # after an error nothing is left to begin

    def help_() -> None:
        _here.spare = spare
        torch.set_num_threads(1)
        try:
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                work()
        finally:
            spare.release()

    helping = [_pool().submit(help_) for _ in calls[1:] if spare.acquire(blocking=False)]
    try:
        work()
    finally:
        for one in helping:
            if one.cancel():  # it hasn't begun
                spare.release()
        wait(helping)
    for one in helping:
        if not one.cancelled():
            one.result()
    return [made[number] for number in range(len(calls))]


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay: what the libraries keep for each of them is made once."""
    return ThreadPoolExecutor(MOST_HELPERS, "beside")


if hasattr(os, "register_at_fork"):  # threads don't go with a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)
