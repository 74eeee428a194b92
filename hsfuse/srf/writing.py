"""A response as a CSV that `load_srf` reads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from hsfuse.errors import OutputError, SettingError
from hsfuse.srf.response import SpectralResponse


def check_csv(path: str | Path, *, overwrite: bool = False) -> Path:
    """A path that `write_srf` can write to; OutputError when it can't, SettingError unless it ends in .csv."""
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise SettingError(f"{path}: a response is written as CSV; give a name that ends in .csv")
    if not path.parent.is_dir():
        raise OutputError(f"the output folder {path.parent} doesn't exist; make it first")
    if path.is_dir() or (os.path.lexists(path) and not overwrite):
        raise OutputError(f"{path} exists already; choose another name or allow overwriting (--overwrite)")
    return path


def write_srf(
    response: SpectralResponse, path: str | Path, *, about: Mapping[str, str] | None = None, overwrite: bool = False
) -> Path:
    """Write a table of wavelengths in nm and one column a band, with `about` as further comments; give back the path.

    Errors as for `check_csv`, and OutputError where the file can't be written.
    """
    path = check_csv(path, overwrite=overwrite)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part.csv")
    try:
        part.write_text("\n".join(_lines(response, about or {})) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _lines(response: SpectralResponse, about: Mapping[str, str]) -> list[str]:
    facts = {"sensor": response.sensor, "source": response.source, "terms": response.terms, **about}
    if response.weights:
        facts["values"] = "weights of the HSI's bands at these centres"
    lines = [f"# {key}: {' '.join(value.split())}" for key, value in facts.items() if value]
    lines.append(",".join(["wavelength_nm", *response.bands]))
    table = zip(response.wavelengths_nm, response.response.T, strict=True)
    return lines + [",".join([f"{nm:.10g}", *(f"{value:.6g}" for value in row)]) for nm, row in table]
