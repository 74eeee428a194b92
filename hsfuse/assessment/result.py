"""What an assessment holds: figures, curves, maps, spectra and pictures, small enough for a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsfuse.core.grid import Grid
from hsfuse.core.notes import Note, records, texts
from hsfuse.io.reader import CubeReader, Quantity

if TYPE_CHECKING:  # an assessment is shown without torch
    from hsfuse.calibration import Shift
    from hsfuse.physics.model import Psf

#: Uncertainty in LR pixels above which a shift isn't known, and fewest windows that can tell it.
MAX_SD, MIN_WINDOWS = 0.25, 3

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Curve:
    """One value a band: `values` (n,) at `wavelengths_nm` (n,); `metric` names its entry in the metrics catalogue."""

    name: str
    metric: str
    title: str
    unit: str
    wavelengths_nm: Floats
    values: Floats
    band_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class MapLayer:
    """A map (rows, columns) of block means, NaN where nothing is valid; one pixel covers step x step of the source."""

    name: str
    title: str
    unit: str
    values: Floats
    step: int


@dataclass(frozen=True)
class Picture:
    """Three display bands (3, rows, columns) of an image, red first, as block means; NaN where nothing is valid."""

    image: str
    kind: str
    values: Floats
    labels: tuple[str, str, str]


@dataclass(frozen=True)
class SampledSpectra:
    """Spectra of all images at n points: HR `rows`, `cols` (n,); per image wavelengths (C,) and values (n, C).

    `chosen` are the indices of the few points that stand for the scene, most common kind of surface first.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    wavelengths_nm: dict[str, Floats]
    values: dict[str, Floats]
    chosen: tuple[int, ...]


@dataclass(frozen=True)
class IndexCheck:
    """A spectral index in the cube `against` (its mean), and how far the fused cube's is off: bias and RMSE.

    All of them over the `share` of the pixels where it is defined in both.
    """

    name: str
    formula: str
    against: str
    mean: float
    bias: float
    rmse: float
    share: float = 1.0


def uses_msi(provenance: Mapping[str, Any]) -> bool:
    """Whether a cube has detail of the MSI's, as far as its file records the method."""
    return provenance.get("uses_msi") is not False


@dataclass(frozen=True)
class ResponseCurves:
    """Weights R (c, C) of the MSI bands over the HSI's bands, and the share of each that the HSI covers; its name.

    `estimated`: the pair itself told it.
    """

    bands: tuple[str, ...]
    wavelengths_nm: Floats
    weights: Floats
    coverage: tuple[float, ...]
    name: str = ""
    estimated: bool = False

    @property
    def listed(self) -> str:
        """The bands in words; those without a name by their numbers."""
        return ", ".join(band.removeprefix("band ") for band in self.bands)


@dataclass(frozen=True)
class Registration:
    """Shift of the LRHSI against the MSI in LR pixels: as the files have it, and what a correction left of it.

    `told` is what the fusion said of `found`, its words and amounts, where it corrected that: measured again, it
    differs by a little.
    """

    found: Shift
    left: Shift | None = None
    told: tuple[str, str] | None = None

    @property
    def found_words(self) -> str:
        """What was found, in a line."""
        return self.found.describe() if self.told is None else self.told[0]

    @property
    def amounts(self) -> str:
        """How large what was found is, in a phrase."""
        return self.found.amounts if self.told is None else self.told[1]

    @property
    def now(self) -> Shift:
        """The shift with which the images are compared."""
        return self.left or self.found

    @property
    def known(self) -> bool:
        """Whether enough windows agree for the shift to mean something."""
        return self.now.sd <= MAX_SD and self.now.windows >= MIN_WINDOWS


@dataclass(frozen=True)
class BandGain:
    """What was taken out of an MSI band: MSI = gain (R x) + offset; `correlation` of the two."""

    band: str
    gain: float
    offset: float
    correlation: float


@dataclass(frozen=True)
class Expected:
    """Mean of the error that a quality raster expects, of the error found, and their rank correlation (Spearman)."""

    mean: float
    found: float | None = None
    rank_correlation: float | None = None


@dataclass(frozen=True)
class Check:
    """One thing that speaks for a cube ("good"), against it ("poor") or is to be kept in mind ("look"), in words.

    `code` says which check it is, `limits` where good ends and poor begins ("" where no figure decides), `care` what to
    be careful of where it isn't good.
    """

    topic: str
    verdict: Literal["good", "look", "poor"]
    text: str
    code: str = ""
    limits: str = ""
    care: str = ""


@dataclass(frozen=True)
class Unit:
    """What values are: a quantity and, where it isn't known, whose numbers; "" where that can't be told."""

    quantity: Quantity
    numbers_of: str = ""

    @property
    def words(self) -> str:
        """What errors are in."""
        return "unit of the data" if self.quantity == "unknown" else self.quantity


@dataclass(frozen=True)
class ImageFacts:
    """A file of an assessment: where it is and lies, and what it says of its bands, sensor and day ("" if nothing)."""

    path: str
    grid: Grid
    bands: int
    sensor: str = ""
    acquired: str = ""

    @classmethod
    def of(cls, reader: CubeReader) -> ImageFacts:
        """From the open file's tags."""
        sensor = next((str(reader.tags[tag]) for tag in ("SENSOR", "PRODUCT") if reader.tags.get(tag)), "")
        day = reader.tags.get("ACQUIRED", "")[: len("2022-07-24")]
        return cls(str(reader.path), reader.grid, reader.count, sensor, day)


@dataclass(frozen=True)
class Assessment:
    """All that is known of one fused cube; `metrics` maps catalogue names to values (None: not defined here).

    Without wavelengths all `wavelengths_nm` are band numbers. `ratio` is the ratio of the GSDs, `shift_px` by how many
    of its pixels the MSI lies (down, right) of where the LRHSI has it; None where that can't be told. `lrhsi_misfit` is
    the relative RMSE to the LRHSI without bands of noise. `radiometry` is empty where the MSI was taken as it is;
    `msi_gains` are the factors by which it is brighter than the fused cube has it. `sensors` is what the pair told of
    its sensors, as the fused file records it, else as found now; `psf` is that which the cube is held against the LRHSI
    with; `masked` is the share that either image masks, where pixels are; `angles` to the reference are edges (n + 1,)
    in degrees and counts. `expected` is what a quality raster says.
    `reduced` is the same at reduced resolution, where the LRHSI is the
    truth (Wald's protocol).
    """

    fused: str
    shape: tuple[int, int, int]
    metrics: dict[str, float | None]
    has_wavelengths: bool = True
    inputs: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    maps: tuple[MapLayer, ...] = ()
    pictures: tuple[Picture, ...] = ()
    spectra: SampledSpectra | None = None
    angles: tuple[Floats, NDArray[np.int64]] | None = None
    indices: tuple[IndexCheck, ...] = ()
    ratio: int | None = None
    shift_px: tuple[float, float] | None = None
    registration: Registration | None = None
    lrhsi_misfit: float | None = None
    radiometry: tuple[BandGain, ...] = ()
    msi_gains: dict[str, float] = field(default_factory=dict)
    expected: Expected | None = None
    response: ResponseCurves | None = None
    sensors: dict[str, Any] = field(default_factory=dict)
    psf: Psf | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    unit: Unit = Unit("unknown")
    images: dict[str, ImageFacts] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    pair_warnings: tuple[Note, ...] = ()
    checks: tuple[Check, ...] = ()
    valid_pixels: int = 0
    masked: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reduced: Assessment | None = None

    @property
    def uses_msi(self) -> bool:
        """Of its own provenance."""
        return uses_msi(self.provenance)

    @property
    def warnings(self) -> tuple[Note, ...]:
        """What of the notes speaks against the cube."""
        return tuple(one for one in self.notes if one.severity == "warning")

    def to_dict(self) -> dict[str, Any]:
        """Figures, curves and text as plain JSON values; NaN and infinity become null and "inf". Maps stay out."""
        return {
            "fused": self.fused,
            "bands": self.shape[0],
            "rows": self.shape[1],
            "columns": self.shape[2],
            "valid_pixels": self.valid_pixels,
            "masked": self.masked,
            "inputs": self.inputs,
            "quantity": self.unit.quantity,
            "settings": self.settings,
            "metrics": {name: None if value is None else _plain(value) for name, value in self.metrics.items()},
            "curves": {curve.name: _curve(curve) for curve in self.curves},
            "indices": [asdict(check) for check in self.indices],
            "scale": self.ratio,
            "shift_px": None if self.shift_px is None else list(self.shift_px),
            "registration": None if self.registration is None else _plain_all(asdict(self.registration)),
            "radiometry": [asdict(band) for band in self.radiometry],
            "msi_gains": _plain_all(self.msi_gains),
            "sensors": _plain_all(self.sensors),
            "expected_error": None if self.expected is None else _plain_all(asdict(self.expected)),
            "checks": [asdict(check) for check in self.checks],
            "notes": texts(self.notes, "note"),
            "warnings": [*(f"The pair: {told}" for told in texts(self.pair_warnings)), *texts(self.warnings)],
            "records": _plain_all(records((*self.pair_warnings, *self.notes))),
            "provenance": _plain_all(self.provenance),
            "seconds": round(self.seconds, 3),
            **({} if self.reduced is None else {"reduced": self.reduced.to_dict()}),
        }


def _curve(curve: Curve) -> dict[str, Any]:
    out: dict[str, Any] = {
        "metric": curve.metric,
        "unit": curve.unit,
        "wavelengths_nm": [round(float(v), 3) for v in curve.wavelengths_nm],
        "values": [_plain(float(v)) for v in curve.values],
    }
    return out if curve.band_names is None else {**out, "bands": list(curve.band_names)}


def _plain_all(value: Any) -> Any:
    """The same with every number of it as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_all(item) for item in value]
    return _plain(value) if isinstance(value, float) else value


def _plain(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return ("inf" if value > 0 else "-inf") if math.isinf(value) else float(value)
