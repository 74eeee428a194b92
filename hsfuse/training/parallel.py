"""Several processes that train one network: `torchrun --nproc-per-node N -m hsfuse train ...`.

Each process takes its part of every batch and the gradients are summed, which is what DistributedDataParallel does. It
isn't used because re-learning leaves parameters without a gradient in steps where no point is re-learned, in one
process and not in another; here such gradients stay absent, as they do in a single process, and the sum is one message.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Peers:
    """This process's number among `count`; the first is the one that writes."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @property
    def part(self) -> slice:
        """Which samples of a batch are this process's."""
        return slice(self.rank, None, self.count)

    def first_alone(self, make: Callable[[], T]) -> T:
        """`make()` in the first process, then in the others, which find on disk what the first has left there."""
        made = make() if self.first else None
        if self.count > 1:
            distributed.barrier()
        return make() if made is None else made

    def any(self, asked: bool, device: torch.device) -> bool:
        """Whether any process says so: all must leave the loop at the same step, or the others wait for ever."""
        if self.count == 1:
            return asked
        flag = torch.tensor(float(asked), device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Gradients summed over all processes; one that no process has stays absent."""
        if self.count == 1:
            return
        known = list(parameters)
        present = torch.tensor([float(p.grad is not None) for p in known], device=known[0].device)
        total = torch.cat([present, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in known)])
        distributed.all_reduce(total)
        present, *sums = total.split([len(known), *(p.numel() for p in known)])
        for p, there, gradient in zip(known, present.tolist(), sums, strict=True):
            p.grad = gradient.view_as(p) if there else None


def join_peers(device: torch.device) -> tuple[Peers, torch.device]:
    """This process's peers and its device, as torchrun's environment says; a process of its own without torchrun."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Peers(), device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Peers(distributed.get_rank(), count), device


def leave_peers() -> None:
    """End the processes' connection, where there is one."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
