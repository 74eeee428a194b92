"""What a benchmark is made of: a case is one method on one simulated pair."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hsfuse.benchmark.mismatch import Mismatch
from hsfuse.core.errors import ModelError
from hsfuse.core.options import DEFAULT_MTF
from hsfuse.core.package import __version__
from hsfuse.io.envi import siblings


def stamp(path: Path) -> list[Any]:
    """A name; of a file with size and time, of an ENVI header and its data file both, of a folder a digest of all."""
    if path.is_dir():
        files = [_stamp(file) for file in sorted(path.rglob("*")) if file.is_file()]
        return [str(path.resolve()), len(files), digest(files)]
    if not path.is_file():
        return [str(path)]
    own, *others = siblings(path)
    return [*_stamp(own), *map(_stamp, others)]


def _stamp(file: Path) -> list[Any]:
    facts = file.stat()
    return [str(file.resolve()), facts.st_size, facts.st_mtime_ns]


def weights(method: str, model: str, ratio: int) -> list[Any]:
    """The stamps of the trained weights that a method may use: of those named, else of all that fit kind and ratio."""
    from hsfuse.methods import method_class
    from hsfuse.nets.weights import find_model, list_models

    cls = method_class(method)
    if not cls.kinds or model == "none":
        return []
    if model == "auto":
        return [stamp(r.path) for r in list_models() if cls.detect(r.card) and r.card.scale == ratio]
    try:
        return [stamp(find_model(model).path)]
    except ModelError:
        return [model]


def digest(facts: Any) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


#: Options of `hsfuse fuse` that belong to a method.
METHOD_OPTIONS = (
    "base",
    "model",
    "effort",
    "adapt",
    "adapt_steps",
    "adapt_minutes",
    "consistency",
    "ensemble",
    "tile",
    "overlap",
)


#: What the label of a method ends with that is told the truth about a mismatch.
TOLD_TRUTH = ", told the truth"


@dataclass(frozen=True)
class Method:
    """A method by name with its options of `hsfuse fuse`; `label` is its row in the tables.

    `told`: of a pair that departs from what is said of it, what a "user" knows, or the "truth".
    """

    name: str
    label: str
    options: tuple[tuple[str, str | float], ...] = ()
    told: str = "user"

    def arguments(self) -> list[str]:
        """For the command line."""
        pairs = ((f"--{key.replace('_', '-')}", str(value)) for key, value in self.options)
        return ["--method", self.name, *(word for pair in pairs for word in pair)]


@dataclass(frozen=True)
class Scene:
    """A reference cube, or a `window` (row, column, rows, columns) of it, its values times `value_scale`.

    `wavelengths_nm` (first, last) spaces the bands evenly for a file that doesn't know its own; `peak` is the highest
    possible value, for PSNR and SSIM (None: 1 for reflectance, else the reference's maximum).
    """

    name: str
    reference: Path
    window: tuple[int, int, int, int] | None = None
    value_scale: float | Literal["maximum"] = 1.0
    wavelengths_nm: tuple[float, float] | None = None
    peak: float | None = None

    def facts(self) -> dict[str, Any]:
        """What its pixels depend on."""
        return {
            "reference": stamp(self.reference),
            "window": self.window,
            "value_scale": self.value_scale,
            "wavelengths_nm": self.wavelengths_nm,
        }


@dataclass(frozen=True)
class Sensor:
    """The MSI: a response of the library or a CSV, and which of its bands (None: all that the reference covers)."""

    srf: str
    msi_bands: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """For headings."""
        return " ".join([Path(self.srf).stem, *(self.msi_bands or ())])


@dataclass(frozen=True)
class Noise:
    """Signal-to-noise ratios in dB; None: no noise."""

    snr_hsi: float | None = None
    snr_msi: float | None = None

    @property
    def text(self) -> str:
        """For headings."""
        if self.snr_hsi is None and self.snr_msi is None:
            return "no noise"
        parts = (
            (name, "none" if v is None else f"{v:g}") for name, v in (("HSI", self.snr_hsi), ("MSI", self.snr_msi))
        )
        return "SNR " + ", ".join(f"{name} {value}" for name, value in parts) + " dB"


@dataclass(frozen=True)
class Psf:
    """A Gaussian by its MTF at the LR Nyquist frequency, or by `sigma` in LR pixels where that is given."""

    mtf: float = DEFAULT_MTF
    sigma: float | None = None

    def settings(self, ratio: int) -> dict[str, Any]:
        """As `simulate`, `fuse` and `assess` take it."""
        if self.sigma is not None:
            return {"psf_sigma": self.sigma * ratio}
        return {"mtf": self.mtf}

    @property
    def text(self) -> str:
        """For headings."""
        if self.sigma is not None:
            return f"PSF sigma {self.sigma:g} LR pixels"
        return f"MTF {self.mtf:g}"


@dataclass(frozen=True)
class Case:
    """One method on one simulated pair."""

    scene: Scene
    ratio: int
    sensor: Sensor
    noise: Noise
    psf: Psf
    seed: int
    method: Method
    device: str = "auto"
    mismatch: Mismatch | None = None

    @property
    def group(self) -> str:
        """Heading of the table in which the case is a row."""
        return ", ".join((self.scene.name, f"x{self.ratio}", self.sensor.text, self.noise.text, self.departure))

    @property
    def departure(self) -> str:
        """The PSF, or how the pair departs from what is told of it, for headings."""
        return self.psf.text if self.mismatch is None else self.mismatch.name

    def facts(self) -> dict[str, Any]:
        """All that the result depends on."""
        options = dict(self.method.options)
        used = weights(self.method.name, str(options.get("model", "auto")), self.ratio)
        return {**self._pair(), "peak": self.scene.peak, "method": self.method.name, "options": options,
                "device": self.device, **({"weights": used} if used else {}),
                **({"told": self.method.told} if self.mismatch else {})}  # fmt: skip

    def _pair(self) -> dict[str, Any]:
        return {
            "hsfuse": __version__,
            **self.scene.facts(),
            "scale": self.ratio,
            "srf": stamp(Path(self.sensor.srf)),
            "msi_bands": self.sensor.msi_bands,
            "snr": (self.noise.snr_hsi, self.noise.snr_msi),
            "psf": self.psf.settings(self.ratio),
            "seed": self.seed,
            **({"mismatch": asdict(self.mismatch)} if self.mismatch else {}),
        }

    @property
    def pair_key(self) -> str:
        """The same for all methods on one simulated pair."""
        return digest(self._pair())

    @property
    def key(self) -> str:
        """Changes with every setting and file that the result depends on, and with hsfuse's version."""
        return digest(self.facts())
