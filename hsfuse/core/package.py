"""The package's version, where its data folders are (in an installed wheel or a checkout), and imports put off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import file_digest
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_PACKAGE = Path(__file__).resolve().parent.parent


def data_folder(name: str) -> Path:
    """Folder `srf` or `models`: `hsfuse/_data/NAME` of an installed wheel, else the checkout's own NAME."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def when_used(package: str, names: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """A package's `__getattr__` that imports each module with its `names` only when one of them is used.

    So that what needs only a part of a package, such as a command that ends with an error, doesn't wait for torch.
    """

    def attribute(name: str) -> Any:
        for module, given in names.items():
            if name in given:
                return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
