"""A fitted method that is applied to scenes in memory, kept in a folder, and sent to other processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hsfuse.core.cube import FloatArray, Spectrum
from hsfuse.core.errors import InputError, ModelError, OutputError, SettingError
from hsfuse.core.options import OPTIONS, FuseOptions, Pace
from hsfuse.core.package import __version__
from hsfuse.fusion.device import pick_device
from hsfuse.fusion.fitting import build_method, ensemble_turns, fit_method
from hsfuse.fusion.result import method_of, provenance_of
from hsfuse.fusion.stream import plan_tiles
from hsfuse.fusion.tiles import Blender, TileGrid, TileWorker
from hsfuse.io.files import write_whole
from hsfuse.io.lock import one_at_a_time
from hsfuse.methods import Method
from hsfuse.pair import ScenePair
from hsfuse.pair.sample import Filling, sample_scene

if TYPE_CHECKING:
    from xarray import DataArray

    from hsfuse.methods.state import State

log = logging.getLogger(__name__)

FORMAT = "hsfuse-model-1"
#: Files of a folder that a model is kept in.
ABOUT, METHOD = "model.json", "method.safetensors"
#: The array of the state that is the filling's; no attribute of a method is called so.
GAINS = "filling: gains"
#: Groups of options that `fit` takes, with `clip`; the pair has been told those of the others that are of use.
OWN_GROUPS = ("method", "running")
#: Options of these groups that are about files.
OF_FILES = ("save_model", "reuse_model", "dask", "resume", "dry_run", "overwrite")
#: Band centres of one sensor differ less between scenes, in nm.
SAME_BAND_NM = 1.0


@dataclass(frozen=True)
class Sensors:
    """The pair of sensors that a method was fitted to: what another scene must agree in."""

    ratio: int
    wavelengths_nm: tuple[float, ...]
    msi_bands: tuple[str, ...]

    @classmethod
    def of(cls, pair: ScenePair) -> Sensors:
        """Those of a pair, with the bands in use."""
        return cls(pair.ratio, tuple(pair.spectrum.wavelengths_nm or ()), pair.msi_names)

    def __repr__(self) -> str:
        told = Spectrum(self.wavelengths_nm).describe()
        return f"Sensors(ratio {self.ratio}, {told}, MSI {', '.join(self.msi_bands)})"

    def misfit(self, other: Sensors) -> str | None:
        """In what another pair differs, in words; None where it is of the same sensors."""
        if other.ratio != self.ratio:
            return f"the ratio {self.ratio}, this pair has {other.ratio}"
        if other.msi_bands != self.msi_bands:
            return f"the MSI bands {', '.join(self.msi_bands)}, this pair has {', '.join(other.msi_bands)}"
        if len(other.wavelengths_nm) != len(self.wavelengths_nm):
            return f"{len(self.wavelengths_nm)} HSI bands, this pair has {len(other.wavelengths_nm)} in use"
        apart = np.abs(np.subtract(self.wavelengths_nm, other.wavelengths_nm))
        if (apart > SAME_BAND_NM).any():
            worst = int(apart.argmax())
            own, found = self.wavelengths_nm[worst], other.wavelengths_nm[worst]
            return f"an HSI band at {own:g} nm, this pair's is at {found:g} nm"
        return None


def check_pair(pair: object) -> None:
    """InputError for what is no open pair."""
    if not isinstance(pair, ScenePair):
        raise InputError(f"the pair is a {type(pair).__name__}, wanted what hsfuse.open_pair(hsi, msi) gives")


@dataclass(frozen=True)
class FittedModel:
    """A method fitted to one scene, for that one and others of the same pair of sensors; it can be pickled.

    `gains` (C, c) fill invalid pixels (see `Filling`), `options` are those of the fit, the pair's among them.
    """

    method: Method
    gains: FloatArray
    options: FuseOptions
    sensors: Sensors
    device: str = "cpu"

    def __repr__(self) -> str:
        return f"FittedModel({self.method.id} on {self.device}, {self.sensors})"

    def worker(self, pair: ScenePair) -> TileWorker:
        """What fuses tiles of a pair; ModelError where that isn't of the sensors that the method was fitted to."""
        check_pair(pair)
        misfit = self.sensors.misfit(Sensors.of(pair))
        if misfit is not None:
            raise ModelError(f"the model was fitted to {misfit}; fit one to this pair")
        filling = Filling(pair.model.to(self.device), self.gains)
        return TileWorker(pair, self.method, self.device, None, filling, self.options.clip == "zero")

    def tiles(self, pair: ScenePair) -> TileGrid:
        """The tiles of a pair."""
        return plan_tiles(pair, self.method.requirements.halo, self.options.tile, self.options.overlap)

    def apply(self, pair: ScenePair) -> DataArray:
        """The fused cube of a pair as an `xarray.DataArray` (wavelength, y, x) float32, NaN where it isn't valid.

        Coordinates are `wavelength` and `fwhm` in nm, `x`, `y` and `spatial_ref`; attributes say how it was made. Where
        an image is a chunked DataArray it is lazy: Dask computes it tile by tile, from chunks of the inputs. The
        pixels are those that `hsfuse.fuse` writes as float32. ModelError for a pair of other sensors.
        """
        from hsfuse.fusion.lazy import chunked, lazy_cube
        from hsfuse.io.memory import data_array

        worker, tiles = self.worker(pair), self.tiles(pair)
        bands = len(pair.hsi_bands)
        lazy = chunked(pair.hsi) or chunked(pair.msi)
        fused = lazy_cube(worker, tiles, bands) if lazy else _fused(worker, tiles, bands)
        quantity = pair.quantity
        provenance = provenance_of(pair, self._options(pair), tiles, self.device) | method_of(self.method, self.device)
        told = {"HSFUSE_PROVENANCE": json.dumps(provenance, default=str)}
        if quantity != "unknown":
            told["HSFUSE_QUANTITY"] = quantity
        if quantity == "reflectance":
            told["units"] = "1"
        name = "fused" if quantity == "unknown" else quantity
        return data_array(fused, pair.alignment.hr_grid, pair.spectrum, told, name)

    def _options(self, pair: ScenePair) -> FuseOptions:
        return replace(self.options, **pair.options.of_pair())

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Keep the model in a folder: safetensors and JSON, nothing that executes; OutputError when it can't be.

        `hsfuse.load_model` reads it again, by the same version of hsfuse.
        """
        from hsfuse.methods.state import State, write_state

        folder = Path(folder)
        about = folder / ABOUT
        if about.exists() and not overwrite:
            raise OutputError(f"{folder} holds a model already; choose another folder or allow overwriting")
        state = self.method.state()
        told = {
            "format": FORMAT,
            "hsfuse": __version__,
            "method": self.method.id,
            "options": _told(self.options),
            "pace": asdict(self.options.pace),
            "sensors": asdict(self.sensors),
            "digest": state.digest(),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            about.unlink(missing_ok=True)  # a model is whole with its last file
            write_state(folder / METHOD, State(state.values, {**state.arrays, GAINS: torch.from_numpy(self.gains)}))
        except OSError as error:
            raise OutputError(f"the model can't be written to {folder}: {error.strerror}") from error
        write_whole(about, json.dumps(told, indent=1, allow_nan=False))
        return folder

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.method.state(), self.gains, self.options, self.sensors, self.device)


def fit(
    pair: ScenePair, method: str = FuseOptions.method, *, options: FuseOptions | None = None, **given: Any
) -> FittedModel:
    """Fit a method to a pair, to be applied to it, or to others of the same two sensors.

    `given` are `options` of `hsfuse.fuse` by name that say how to fuse: base, model, adapt_minutes, ensemble, seed,
    clip, tile, overlap, device. How the pair is to be understood is told to `open_pair`. The model depends on a bounded
    sample of the scene. SettingError for other options, ModelError for weights.

    >>> from hsfuse import fit, open_pair, simulate
    >>> files = simulate(reference, folder, srf="sentinel2", ratio=4)
    >>> with open_pair(files.lrhsi, files.msi, srf="sentinel2") as pair:
    ...     cube = fit(pair, "bicubic").apply(pair)
    >>> cube.dims, cube.shape, round(float(cube.wavelength[1]), 1)
    (('wavelength', 'y', 'x'), (40, 48, 48), 442.8)
    """
    check_pair(pair)
    known = [*(name for name, option in OPTIONS.items() if option.group in OWN_GROUPS and name not in OF_FILES), "clip"]
    strange = [name for name in given if name in OPTIONS and name not in known]
    if strange:
        told = "is told to open_pair" if strange[0] in FuseOptions().of_pair() else "is about files, of hsfuse.fuse"
        raise SettingError(f"fit has no option {strange[0]!r}: it {told}; known are {', '.join(known)}")
    settings = FuseOptions.of({**given, "method": method}, options)
    settings = replace(settings, **pair.options.of_pair())
    device = pick_device(settings.device)
    scene = sample_scene(pair).to(device)
    fitted = fit_method(build_method(settings, pair), pair, scene, device)
    gains = Filling.of(scene, pair.model).gains
    assert gains is not None
    return FittedModel(fitted, gains, settings, Sensors.of(pair), device)


def load_model(folder: str | Path, device: str = "auto") -> FittedModel:
    """A model that `FittedModel.save` has kept; ModelError when there is none, or it is of another version.

    >>> from hsfuse import fit, load_model, open_pair, simulate
    >>> files = simulate(reference, folder, srf="sentinel2", ratio=4)
    >>> with open_pair(files.lrhsi, files.msi, srf="sentinel2") as pair:
    ...     kept = fit(pair, "bicubic").save(folder / "model")
    ...     load_model(kept).apply(pair).shape
    (40, 48, 48)
    """
    from hsfuse.methods.state import State, read_state

    folder, place = Path(folder), pick_device(device)
    try:
        told = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if told["format"] != FORMAT or told["hsfuse"] != __version__:
            raise ModelError(f"{folder} holds a model of hsfuse {told['hsfuse']}, this is {__version__}: fit it again")
        options = FuseOptions.of({**told["options"], "pace": Pace(**told["pace"])})
        found = told["sensors"]
        sensors = Sensors(int(found["ratio"]), tuple(found["wavelengths_nm"]), tuple(found["msi_bands"]))
        digest = told["digest"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SettingError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{error} isn't as it was written".splitlines()[0]
        raise ModelError(f"{folder} holds no model that can be read ({ABOUT}: {why})") from error
    state, _ = read_state(folder / METHOD)
    arrays = dict(state.arrays)
    gains = arrays.pop(GAINS, None)
    state = State(state.values, arrays)
    if gains is None or state.digest() != digest:
        raise ModelError(f"{folder / METHOD} isn't the method that {ABOUT} was written with: fit it again")
    return _restored(state, gains.numpy(), options, sensors, place)


def reuse(
    pair: ScenePair, options: FuseOptions, device: str, fit: Callable[[], Method], gains: FloatArray
) -> tuple[Method, dict[str, Any]]:
    """A method from the folder `options.reuse_model`, else what `fit` makes, which is kept there; what is told of it.

    One is taken that was fitted in the same way to a pair of the same sensors. Of several processes that want the same
    one fits it and the others wait.
    """
    assert options.reuse_model is not None
    sensors, folder = Sensors.of(pair), options.reuse_model
    way = {name: value for name, value in options.of_groups("method").items() if name not in OF_FILES}
    turns = ensemble_turns(options, pair)
    coarse = [__version__, way, asdict(options.pace), turns, pair.response.name, sensors.ratio, sensors.msi_bands]
    name = f"{options.method}-{sha256(json.dumps(coarse, default=str, sort_keys=True).encode()).hexdigest()[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} for fitted models can't be made: {error.strerror}") from error
    with one_at_a_time(folder / name):
        for number in count():
            place = folder / f"{name}-{number}"
            try:
                model = load_model(place, device) if (place / ABOUT).exists() else None
            except ModelError as error:
                log.warning("%s", error)
                model = None
            if model is None:
                break
            if model.sensors.misfit(sensors) is None:
                log.info("nothing is fitted to this scene: the model in %s is of the same sensors and options", place)
                return model.method, {"model": place.name, "reused": True}
        method = fit()
        FittedModel(method, gains, options, sensors, device).save(place, overwrite=True)
        log.info("the fitted model is kept in %s, for other scenes of these sensors", place)
        return method, {"model": place.name, "reused": False}


def _restored(state: State, gains: FloatArray, options: FuseOptions, sensors: Sensors, device: str) -> FittedModel:
    from hsfuse.methods.state import restore_method

    return FittedModel(restore_method(state, device), gains, options, sensors, device)


def _told(options: FuseOptions) -> Mapping[str, Any]:
    """What differs from the defaults, in JSON's types."""
    plain = FuseOptions()
    changed = {f.name: getattr(options, f.name) for f in fields(options) if f.name in OPTIONS}
    changed = {name: value for name, value in changed.items() if value != getattr(plain, name)}
    return {
        name: str(v) if isinstance(v, Path) else dict(v) if isinstance(v, Mapping) else v for name, v in changed.items()
    }


def _fused(worker: TileWorker, tiles: TileGrid, bands: int) -> FloatArray:
    """All tiles, blended: (C, H, W), NaN where it isn't valid."""
    cube = np.empty((bands, *tiles.shape), np.float32)
    blender = Blender(tiles, bands)
    spans = [(rows, cols) for rows in tiles.spans(0) for cols in tiles.spans(1)]
    for tile in chain.from_iterable(worker.fuse_all(spans)):
        data, mask, _ = tile.finish()
        done = blender.add(tile.source.rows, tile.source.cols, data)
        done[:, ~mask[: done.shape[1], : done.shape[2]]] = np.nan
        cube[:, slice(*tile.source.rows.finished), slice(*tile.source.cols.finished)] = done
    return cube
