"""The package's version, and where its data folders are: inside an installed wheel, or in a checkout."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

_PACKAGE = Path(__file__).resolve().parent.parent


def data_folder(name: str) -> Path:
    """Folder `srf` or `models`: `hsfuse/_data/NAME` of an installed wheel, else the checkout's own NAME."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
