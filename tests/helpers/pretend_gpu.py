"""A GPU that isn't there: tensors that say they are on the device `pretend:0`, compute on the CPU, and mix with CPU
tensors no better than real ones do.

So what would stop with "expected all tensors to be on the same device" stops in tests on any machine. A real GPU's
arithmetic, speed, and kernels are not pretended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "pretend"
#: Operations that take tensors of two devices: copies between them, and indices on the CPU.
MIXED = (
    "aten::copy_",
    "aten::_to_copy",
    "aten::to.",
    "aten::index.Tensor",
    "aten::index_put_",
    "aten::_index_put_impl_",
)


class OnGpu(Tensor):
    """A tensor that claims to be on the GPU and holds its values in `inner`."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(NAME, 0), requires_grad=inner.requires_grad,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner.detach() if inner.requires_grad else inner

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner!r})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec)

    def tolist(self) -> Any:
        """Python numbers, by way of the CPU."""
        return self.detach().cpu().tolist()

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_as_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_as_index(index), value)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class PretendMode(TorchDispatchMode):
    """Also catches what makes tensors on the GPU out of nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _plain(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.inner if isinstance(x, OnGpu) else x


def _as_index(index: Any) -> Any:
    """Lists as tensors on the CPU: torch itself would make them on the GPU, past any mode."""
    parts = index if isinstance(index, tuple) else (index,)
    made = tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts)
    return made if isinstance(index, tuple) else made[0]


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    outer = {id(x.inner): x for x in tensors if isinstance(x, OnGpu)}
    strangers = [x for x in tensors if not isinstance(x, OnGpu) and x.dim() > 0]
    name = func._schema.name + (f".{func._schema.overload_name}" if func._schema.overload_name else "")
    if outer and strangers and not name.startswith(MIXED):
        shapes = [tuple(x.shape) for x in strangers]
        raise RuntimeError(f"expected all tensors to be on the same device, but {name} got some of {shapes} on the CPU")
    devices = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.device)]
    asked = devices[0] if devices else None
    on_gpu = bool(outer) if asked is None else asked.type == NAME
    if name.startswith("aten::copy_"):
        on_gpu = isinstance(args[0], OnGpu)
    plain_args, plain_kwargs = tree_map(_plain, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor) or not on_gpu:
            return x
        return outer.get(id(x)) if id(x) in outer else OnGpu(x)

    return tree_map(wrap, result)


#: Newer torch lets Python define a device.
_setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)


def register() -> None:
    """Make the device's name known to torch: once, and before the process's first backward pass."""
    if _setup is None:
        return

    class Backend(backend_registration._DummyBackendModule):
        """The module torch.pretend."""

        @staticmethod
        def get_amp_supported_dtype() -> list[torch.dtype]:
            return [torch.bfloat16]

    _setup(NAME, Backend())


def _in_two_steps(make: Any) -> Any:
    """torch.tensor and its like make tensors past any mode: here on the CPU first, then sent."""

    def made(data: Any, *args: Any, device: Any = None, **how: Any) -> Tensor:
        tensor = make(data, *args, **how)
        return tensor if device is None else tensor.to(device)

    return made


def _without_gradients(self: torch.inference_mode) -> None:
    """inference_mode as no_grad: tensors with an inner one can't be inference tensors."""
    self._inference_mode_context = torch.no_grad() if self.mode else nullcontext()
    self._inference_mode_context.__enter__()


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """The device, while it is pretended."""
    if _setup is None:
        pytest.skip("this torch knows no devices written in Python")
    new = lambda like, data: torch.tensor(data, dtype=like.dtype, device=like.device)  # noqa: E731
    with (
        patch.object(torch, "tensor", _in_two_steps(torch.tensor)),
        patch.object(torch, "as_tensor", _in_two_steps(torch.as_tensor)),
        patch.object(Tensor, "new_tensor", new),
        patch.object(torch.inference_mode, "__enter__", _without_gradients),
        patch.dict("os.environ", HSFUSE_SCAN="chunked"),
        PretendMode(),
    ):
        yield torch.device(NAME, 0)
