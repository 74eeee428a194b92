"""Files of tensors (safetensors) with texts in their header: written whole or not at all, read without executing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from hsfuse.core.errors import ModelError

if TYPE_CHECKING:  # the header is read without torch
    from torch import Tensor

#: Bytes of a file's header: names, shapes and the texts.
MOST_HEADER_BYTES = 4 * 2**20


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write tensors and texts, complete or not at all."""
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, header)
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path, with_tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header's texts, and the tensors where they are wanted; ModelError for what isn't such a file."""
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint")
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > MOST_HEADER_BYTES:
            raise ModelError(f"{path}: its header claims {header_bytes} bytes; at most {MOST_HEADER_BYTES} make sense")
        with safe_open(path, framework="pt" if with_tensors else "numpy") as archive:
            names = archive.keys() if with_tensors else ()
            return archive.metadata() or {}, {key: archive.get_tensor(key) for key in names}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
