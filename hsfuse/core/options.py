"""Every option of `fuse`, once: default, what it may be, help, and how the command line spells it.

From the fields of `FuseOptions` the command line is generated; the opening of a pair, the methods, the storage,
`assess`, Wald's protocol and the benchmark are handed the whole and take what they need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from hsfuse.core.errors import SettingError
from hsfuse.core.values import Range, check_value, check_values

#: Groups of options, in the order in which the help shows them.
GROUPS = ("inputs", "sensors", "method", "output", "running")
OnOff = Literal["on", "off"]
#: Rows and columns of a PSF's taps: far more than the GSDs' ratios call for, and few enough to compute with.
MOST_TAPS = 257
#: MTF at Nyquist that is assumed where neither the user nor the pair tells it.
DEFAULT_MTF = 0.3
#: Values of `psf` that have the PSF estimated from the pair.
ESTIMATED = ("auto", "gaussian", "free")


@dataclass(frozen=True)
class Option:
    """How an option is told and spelled; those `common` are in the short help.

    `name` is its name on the command line where that isn't the field's, `also` further ones that aren't shown, `words`
    what the command line takes where the function takes more, `default` the default in words.
    """

    group: str
    help: str
    common: bool = False
    name: str = ""
    also: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    metavar: str | None = None
    default: str = ""


@dataclass(frozen=True)
class Pace:
    """How a network adapts to a scene; not on the command line.

    It is held against the held-out cells every `check_every` steps, and ends after `patience` such checks without
    progress. `consistency` and `angle` are weights in the loss.
    """

    check_every: int = 20
    patience: int = 5
    learning_rate: float = 2e-3
    consistency: float = 0.3
    angle: float = 0.5


def parse_nodata(text: str | float, option: str) -> float | None:
    """A raw number, None for "none"; SettingError for anything else."""
    if str(text).strip().lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"{option} {text!r} is no number; wanted the raw nodata value, or none") from None


@dataclass(frozen=True)
class FuseOptions:
    """All that `fuse` can be told beyond the files: each field with its default and, as the help, its meaning.

    Values are checked when it is made; SettingError says what one is and what is wanted.
    """

    drop_absorption: Annotated[
        bool, Option("inputs", "Leave out bands at 1350-1450 and 1800-1950 nm (water vapour).")
    ] = False

    hsi_nodata: Annotated[
        str | None,
        Option("inputs", "Raw number that means no data in the HSI, or none.", metavar="VALUE", default="as it says"),
    ] = None
    msi_nodata: Annotated[
        str | None,
        Option("inputs", "Raw number that means no data in the MSI, or none.", metavar="VALUE", default="as it says"),
    ] = None

    srf: Annotated[
        str,
        Option(
            "sensors",
            "Sensor of the MSI (see `hsfuse srf list`) or a CSV; auto: as file or pair tell; estimate: from the pair.",
            common=True,
        ),
    ] = "auto"
    msi_bands: Annotated[
        tuple[str, ...] | None,
        Option("sensors", "Bands of the MSI, such as B2,B3,B4,B8.", common=True, metavar="NAMES"),
    ] = None
    mtf: Annotated[
        float | None,
        Range(0, 1, above=True, below=True),
        Option("sensors", "MTF of the LRHSI at its Nyquist frequency, where it is known.", common=True),
    ] = None
    psf_sigma: Annotated[
        float | None,
        Range(0.1, MOST_TAPS // 8),  # taps reach four sigma to each side
        Option("sensors", "Gaussian PSF in MSI pixels, in place of --mtf."),
    ] = None
    psf_size: Annotated[
        int | None,
        Range(1, MOST_TAPS),
        Option("sensors", "Taps of the Gaussian PSF along each axis.", default="four sigma each way"),
    ] = None
    psf: Annotated[
        str,
        Option(
            "sensors",
            "PSF as the pair tells it unless it is given (auto); given, or an MTF of 0.3 (assumed); fitted to the pair "
            "as a Gaussian (gaussian) or any kernel (free); or a file of its taps.",
            common=True,
            metavar="KIND",
        ),
    ] = "auto"
    phase: Annotated[
        float | None, Range(0), Option("sensors", "Centre of LR pixel 0 in MSI pixels.", default="centred")
    ] = None
    register: Annotated[
        Literal["auto", "off", "report"],
        Option("sensors", "Correct a shift between the two images, don't look, or only tell it.", common=True),
    ] = "auto"
    register_limit: Annotated[float, Range(0), Option("sensors", "Largest shift in LR pixels.")] = 3.0
    destripe: Annotated[
        Literal["auto", "off"],
        Option("sensors", "Take stripes, dead detectors and wild values out of the LRHSI where they clearly are."),
    ] = "auto"
    smile: Annotated[
        Literal["auto", "off"],
        Option("sensors", "Bring the LRHSI's spectra to common wavelengths where its columns' clearly differ."),
    ] = "auto"
    haze: Annotated[
        Literal["auto", "off"],
        Option(
            "sensors",
            "Take thin cloud, haze and uneven light out of the MSI where both images clearly differ smoothly.",
        ),
    ] = "auto"
    match_radiometry: Annotated[
        Literal["auto", "off"],
        Option("sensors", "Bring the MSI's bands to the HSI's radiometry where they clearly differ."),
    ] = "auto"

    method: Annotated[
        str, Option("method", "srlf, or a training-free method such as glp-ens.", common=True, metavar="NAME")
    ] = "srlf"
    model: Annotated[
        str,
        Option(
            "method",
            "Weights to start from: auto (what fits), none (from scratch), a name of `hsfuse models list`, or a file.",
        ),
    ] = "auto"
    base: Annotated[str, Option("method", "Training-free method that SRLF-Net corrects.", metavar="NAME")] = "blend"
    effort: Annotated[
        Literal["fast", "normal", "best"],
        Option(
            "method",
            "fast: the base alone; normal: corrected by what the scene teaches at reduced resolution; best: and by a "
            "network trained on the scene, which takes minutes.",
            common=True,
        ),
    ] = "normal"
    adapt: Annotated[
        OnOff | None,
        Option("method", "Train on the scene.", default="as --effort, --base, --model and a budget for it say"),
    ] = None
    adapt_steps: Annotated[
        int | None, Range(0), Option("method", "Training steps at most.", default="160, from scratch 300")
    ] = None
    adapt_minutes: Annotated[
        float | None, Range(0), Option("method", "Training time at most.", common=True, default="3")
    ] = None
    consistency: Annotated[
        OnOff,
        Option("method", "End with steps that bring the fused cube nearer to both inputs, as far as their noise says."),
    ] = "on"
    ensemble: Annotated[
        int,
        Range(0, 8),
        Option(
            "method",
            "Average over this many turned and mirrored runs.",
            default="1; 8 when it trains on a scene of up to 1024 x 1024 MSI pixels",
        ),
    ] = 0
    seed: Annotated[int, Range(0), Option("method", "Seed of all randomness.")] = 0
    save_model: Annotated[Path | None, Option("method", "Keep the fitted weights in this .safetensors file.")] = None
    reuse_model: Annotated[
        Path | None,
        Option(
            "method",
            "Take a fitted model from this folder, if it is of the same pair of sensors and the same options; "
            "else fit one and keep it there.",
            metavar="FOLDER",
        ),
    ] = None

    clip: Annotated[Literal["none", "zero"], Option("output", "zero: raise negative fused values to 0.")] = "none"
    dtype: Annotated[
        str | None,
        Option("output", "Type on disk.", common=True, words=("float32", "int16", "uint16"), default="the HSI's"),
    ] = None
    scale: Annotated[
        float | None, Range(0, above=True), Option("output", "Reflectance per number on disk, such as 1e-4.")
    ] = None
    format: Annotated[
        str,
        Option("output", "Format.", also=("-of",), words=("auto", "GTiff", "COG", "ENVI", "Zarr"), default="by suffix"),
    ] = "auto"
    creation_options: Annotated[
        Mapping[str, str], Option("output", "GDAL's creation option.", name="--co", metavar="KEY=VALUE")
    ] = field(default_factory=dict)
    overviews: Annotated[bool, Option("output", "Add overviews to a GeoTIFF; a COG has them always.")] = False
    bands: Annotated[
        str | None,
        Option("output", "Write only these bands of the HSI, such as 1-50,120 or 450-900nm.", metavar="LIST"),
    ] = None
    bad_bands: Annotated[
        Literal["drop", "nodata"], Option("output", "Leave bad bands out, or write them as nodata.")
    ] = "drop"
    qa: Annotated[
        Path | None,
        Option("output", "Write a raster of quality layers, too: distortion and expected error.", common=True),
    ] = None
    stac: Annotated[bool, Option("output", "Write a STAC item beside the output.")] = False

    tile: Annotated[int, Range(1), Option("running", "Side of a tile in MSI pixels.")] = 192
    overlap: Annotated[int, Range(0), Option("running", "MSI pixels over which tiles blend.")] = 16
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("running", "Where to compute.", common=True)] = "auto"
    dask: Annotated[
        str | None,
        Option(
            "running",
            "Compute on Dask, without --qa: local or local:N processes, a scheduler's tcp://..., or its .json file.",
            metavar="WHERE",
        ),
    ] = None
    resume: Annotated[
        bool,
        Option(
            "running",
            "Keep what is done when interrupted, and go on with it (GeoTIFF); leave alone what is finished.",
            common=True,
        ),
    ] = False
    dry_run: Annotated[bool, Option("running", "Say what would be done, and stop.", common=True)] = False
    overwrite: Annotated[bool, Option("running", "Replace outputs that exist.", common=True)] = False

    #: The command line as it was given, for the provenance.
    command: str = ""
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        for name in OPTIONS:  # frozen: only here a value is put into the type of its field
            object.__setattr__(self, name, _as_kept(name, getattr(self, name)))
        if isinstance(self.scale, Integral) and int(self.scale) >= 2:
            raise SettingError(
                f"scale is the storage step (reflectance per number on disk), got {self.scale}; the ratio of the GSDs "
                f"is found from the grids: leave scale out, or give {float(self.scale)} where steps of that are meant"
            )
        check_values("", {name: getattr(self, name) for name in OPTIONS}, FuseOptions, None)
        for name in ("hsi_nodata", "msi_nodata"):
            if (told := getattr(self, name)) is not None:
                parse_nodata(told, f"--{name.replace('_', '-')}")
        if self.tile < self.overlap != FuseOptions.overlap:
            raise SettingError(
                f"--overlap is {self.overlap} and --tile {self.tile}: tiles can't overlap by more than all"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any], base: Self | None = None) -> Self:
        """`base` (default: the defaults) with what is given by name; SettingError for a name that is none."""
        if base is not None and not isinstance(base, cls):
            raise SettingError(f"options is {base!r}, wanted FuseOptions; GDAL's creation options are creation_options")
        known = [f.name for f in fields(cls)]
        changes: dict[str, Any] = {}
        for name, value in given.items():
            current = FORMER.get(name, name)
            if current not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise SettingError(f"fuse has no option {name!r}; {hint}")
            changes[current] = value
        return replace(base or cls(), **changes)

    def of_groups(self, *groups: str) -> dict[str, Any]:
        """The options of some groups, by name."""
        return {name: getattr(self, name) for name, option in OPTIONS.items() if option.group in groups}

    def of_pair(self) -> dict[str, Any]:
        """What says how the two images are to be understood, by name: what `open_pair` looks at."""
        return self.of_groups("inputs", "sensors")

    @property
    def psf_kind(self) -> str:
        """How the PSF is come by: "assumed", "auto", "gaussian", "free" or "file"."""
        told = any(value is not None for value in (self.mtf, self.psf_sigma, self.psf_size))
        if self.psf in ("assumed", "mtf") or (self.psf == "auto" and told):
            return "assumed"
        return {"estimate": "gaussian"}.get(self.psf, self.psf if self.psf in ESTIMATED else "file")

    @property
    def psf_file(self) -> Path | None:
        """The file of the PSF's taps, where `psf` names one; SettingError where that isn't there."""
        if self.psf_kind != "file":
            return None
        if not Path(self.psf).is_file():
            known = "auto, assumed, gaussian, free"
            raise SettingError(
                f"--psf is {self.psf!r}, wanted {known} or a file of the kernel's taps, and there is none"
            )
        return Path(self.psf)

    @property
    def psf_told(self) -> bool:
        """Whether the options themselves say what the PSF is."""
        return self.psf_kind == "file" or (self.mtf, self.psf_sigma) != (None, None)

    @property
    def adapts(self) -> bool:
        """Whether a network is trained on the scene: as told, else where effort, base, weights or budget ask for it."""
        if self.adapt is not None or self.adapt_steps == 0:
            return self.adapt == "on" and self.adapt_steps != 0
        budget = self.adapt_steps is not None or self.adapt_minutes is not None
        return budget or self.effort == "best" or self.model == "none" or self.base != FuseOptions.base

    @property
    def steps(self) -> int | None:
        """Steps of adaptation at most; None: as many as usual."""
        return self.adapt_steps if self.adapts else 0

    def adapting(self) -> dict[str, Any]:
        """All that says how a network adapts to the scene, for provenance."""
        budget = {"steps": self.steps, "minutes": self.adapt_minutes}
        return {**budget, **asdict(self.pace), "consistency_step": self.consistency == "on", "seed": self.seed}


#: Names that options had in the Python functions before.
FORMER = {
    "steps": "adapt_steps",
    "minutes": "adapt_minutes",
    "consistency_step": "consistency",
}
_HINTS: dict[str, Any] = get_type_hints(FuseOptions, include_extras=True)
#: All options by the names of their fields.
OPTIONS: dict[str, Option] = {
    name: part for name, hint in _HINTS.items() for part in get_args(hint) if isinstance(part, Option)
}


def kind_of(name: str) -> tuple[Any, Range | None, tuple[str, ...]]:
    """Of an option: its type (int, float, str, bool, Path, tuple, Mapping), its range, and the words it may be."""
    hint, *parts = get_args(_HINTS[name])
    if get_origin(hint) in (Union, UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not NoneType)
    if get_origin(hint) is Literal:
        return str, None, get_args(hint)
    range_ = next((part for part in parts if isinstance(part, Range)), None)
    return get_origin(hint) or hint, range_, OPTIONS[name].words


def kept_value(name: str, value: Any, told: str) -> Any:
    """An option's value in the type of its field; SettingError, by the name it is `told` by, for another kind."""
    kept = _as_kept(name, value)
    check_value(told, kept, _HINTS[name], None)
    return kept


def _as_kept(name: str, value: Any) -> Any:
    """A value in the type of its field where a caller may write it otherwise."""
    kind, _, words = kind_of(name)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is str and isinstance(value, Path | int | float) and not isinstance(value, bool):
        return str(value)
    if kind is tuple and isinstance(value, str | list):
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() if isinstance(part, str) else part for part in parts)
    if words == get_args(OnOff) and isinstance(value, bool):
        return "on" if value else "off"
    return value
