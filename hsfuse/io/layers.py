"""One cube from bands that lie in several files and on grids of several GSDs, masked by quality layers.

The grid is the finest band's; coarser bands are brought to it as windows are read, by cubic convolution alone, so that
they hold no finer detail than before, or sharpened with the finest bands, whose detail they then share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from hsfuse.core.cube import BoolArray, FloatArray, Spectrum
from hsfuse.core.grid import with_unit
from hsfuse.core.notes import note
from hsfuse.io.reader import CubeReader, Role
from hsfuse.io.sharpen import (
    MARGIN,
    Place,
    blocks,
    coarse_view,
    detail,
    fine_window,
    gains,
    nearest,
    place_below,
    upsample,
)

#: Pixels to each side of the blocks that sharpening is fitted on.
SAMPLE = 128


@dataclass(frozen=True)
class Layer:
    """A band (0-based) of an open file: value = raw * scale + offset unless raw is nodata or one of `blank`."""

    source: CubeReader
    band: int
    name: str
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    blank: tuple[float, ...] = ()
    wavelength_nm: float | None = None
    fwhm_nm: float | None = None


@dataclass(frozen=True)
class MaskLayer:
    """Bands (0-based) of an open quality file; `valid` turns their raw pixels (n, h, w) into a mask (h, w)."""

    source: CubeReader
    bands: tuple[int, ...]
    valid: Callable[[NDArray], BoolArray]
    what: str


class LayeredReader(CubeReader):
    """Bands of several files as one cube (C, H, W) on the finest band's grid; closes the files.

    With `sharpen` coarser bands get detail from the finest ones (see `hsfuse.io.sharpen`).
    """

    def __init__(
        self,
        path: Path,
        layers: Sequence[Layer],
        masks: Sequence[MaskLayer] = (),
        role: Role = "raster",
        *,
        sharpen: bool = False,
    ) -> None:
        super().__init__(path, role)
        self._layers, self._masks = list(layers), list(masks)
        sources = list(dict.fromkeys([layer.source for layer in layers] + [mask.source for mask in masks]))
        self._sources = sources
        self.files = tuple(dict.fromkeys([path, *(file for source in sources for file in source.files)]))
        finest = min((layer.source for layer in layers), key=lambda source: source.grid.gsd[0] * source.grid.gsd[1])
        self.grid = finest.grid
        self._places = {source: place_below(source, finest) for source in sources}
        fine = [i for i, layer in enumerate(layers) if self._places[layer.source].ratio == 1]
        self._fine = fine if sharpen and len(fine) < len(layers) else []
        self._extent = self._whole()
        self._gains: dict[int, FloatArray] = {}
        self._last: tuple[tuple[Place, Window, Window], FloatArray] | None = None
        self._describe()

    @property
    def native_bands(self) -> list[int]:
        """The finest bands."""
        return [i for i, layer in enumerate(self._layers) if self._places[layer.source].ratio == 1]

    def focused(self, window: Window) -> LayeredReader:
        """The same, with what sharpening needs fitted on a window, the part that is going to be read."""
        return self._changed("focused", window, _extent=window, _gains={})

    def with_nodata(self, value: float | None) -> LayeredReader:
        """As of any reader; no other value of a layer is blank then."""
        layers = [replace(layer, nodata=value, blank=()) for layer in self._layers]
        return super().with_nodata(value)._changed(_layers=layers, _gains={}, _last=None)

    def without_fill(self, values: Sequence[float], together: Sequence[float], bands: Sequence[int]) -> LayeredReader:
        """As of any reader; coarser bands are brought to the finest grid without the fill."""
        layers = [
            replace(
                layer,
                nodata=values[0] if values and layer.nodata is None else layer.nodata,
                blank=(*layer.blank, *values),
            )
            for layer in self._layers
        ]
        nodata = [layer.nodata for layer in layers]
        return (
            super()
            .without_fill(values, together, bands)
            ._changed(_layers=layers, nodata_values=nodata, _gains={}, _last=None)
        )

    def _describe(self) -> None:
        layers = self._layers
        self.driver = layers[0].source.driver
        self.dtype = np.result_type(*(layer.source.dtype for layer in layers)).name
        self.scales = np.array([layer.scale for layer in layers], dtype=np.float64)
        self.offsets = np.array([layer.offset for layer in layers], dtype=np.float64)
        self.nodata_values = [layer.nodata for layer in layers]
        self.spectrum = Spectrum(
            _all_known(layer.wavelength_nm for layer in layers),
            _all_known(layer.fwhm_nm for layer in layers),
            tuple(layer.name for layer in layers),
        )
        if self._masks:
            self.tags["MASK"] = "; ".join(mask.what for mask in self._masks)
        coarse = {layer.name: layer.source.grid.gsd[0] for layer in layers if self._places[layer.source].ratio > 1}
        if coarse:
            how = f"sharpened with {', '.join(layers[i].name for i in self._fine)}: finer detail is estimated"
            told = {
                "bands": ", ".join(coarse),
                "gsd": with_unit(" and ".join(f"{gsd:g}" for gsd in sorted(set(coarse.values()))), self.grid.unit),
                "finest": with_unit(f"{self.grid.gsd[0]:g}", self.grid.unit),
                "how": how if self._fine else "by cubic convolution: no finer detail than before is in them",
            }
            self.notes.append(note("bands-sharpened", file=self.path.name, count=len(coarse), **told))

    def pixels(
        self, bands: Sequence[int], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray, BoolArray | None]:
        """As of any reader."""
        size = shape or (int(window.height), int(window.width))
        planes: dict[int, NDArray] = {}
        mask = np.ones(size, bool)
        for source in dict.fromkeys(self._layers[band].source for band in bands):
            own = [band for band in bands if self._layers[band].source is source]
            found, file_mask = self._from(source, own, window, shape)
            planes |= dict(zip(own, found, strict=True))
            mask &= True if file_mask is None else file_mask
        for layer in self._masks:
            mask &= self._quality(layer, window, shape)
        return np.stack([planes[band] for band in bands]), mask

    def _from(
        self, source: CubeReader, bands: Sequence[int], window: Window, shape: tuple[int, int] | None
    ) -> tuple[list[NDArray], BoolArray | None]:
        """Raw planes of bands that lie in one file, nodata where they are blank, and the file's mask."""
        place, layers = self._places[source], [self._layers[band] for band in bands]
        part = place.part(source.grid, window, margin=0 if shape else MARGIN)
        raw, mask = source.pixels([layer.band for layer in layers], part, shape)
        if shape is not None or place.ratio == 1:
            return [_blanked(plane, layer) for plane, layer in zip(raw, layers, strict=True)], mask
        rows, cols = place.centres(window, part)
        near = None if mask is None else mask[nearest(rows, part.height)][:, nearest(cols, part.width)]
        details = self._details(source, part, window) if self._fine else None
        extras = [None if details is None else np.tensordot(self._gain(band), details, 1) for band in bands]
        return [_finer(*one, rows, cols) for one in zip(raw, layers, extras, strict=True)], near

    def _details(self, source: CubeReader, part: Window, window: Window) -> FloatArray:
        """What the finest bands hold beyond a file's GSD (n, h, w) in a window."""
        place = self._places[source]
        key = place, part, window
        if self._last is None or self._last[0] != key:  # files on one grid follow each other
            around = fine_window(place, part, window, self.grid.shape)
            self._last = key, detail(*self._finest(around), around, place, part, window)
        return self._last[1]

    def _finest(self, window: Window) -> tuple[FloatArray, BoolArray]:
        """The finest bands (n, h, w), raw, and where all are valid."""
        found: dict[int, NDArray] = {}
        for source in dict.fromkeys(self._layers[band].source for band in self._fine):
            own = [band for band in self._fine if self._layers[band].source is source]
            found |= dict(zip(own, self._from(source, own, window, None)[0], strict=True))
        valid = ~np.any([_is_blank(found[band], self._layers[band]) for band in self._fine], axis=0)
        return np.stack([found[band] for band in self._fine]).astype(np.float32), valid

    def _gain(self, band: int) -> FloatArray:
        """Gains (n,) of a coarse band on the finest ones, fitted once on blocks of the extent in focus."""
        if band not in self._gains:
            place = self._places[self._layers[band].source]
            alike = [i for i, layer in enumerate(self._layers) if self._places[layer.source] == place]
            found = [self._pairs(place, alike, block) for block in blocks(self._extent, SAMPLE)]
            for i, pairs in zip(alike, zip(*found, strict=True), strict=True):
                coarse, fine = (np.concatenate(p, axis=-1, dtype=np.float64) for p in zip(*pairs, strict=True))
                self._gains[i] = gains(coarse, fine)
        return self._gains[band]

    def _pairs(self, place: Place, bands: Sequence[int], block: Window) -> list[tuple[NDArray, FloatArray]]:
        """For each coarse band of one grid, valid pixels (p,) and the finest bands as it would see them (n, p)."""
        fine, valid = self._finest(block)
        for mask in self._masks:
            valid &= self._quality(mask, block, None)
        pairs = []
        for layer in (self._layers[band] for band in bands):
            part = place.part(layer.source.grid, block)
            raw, _ = layer.source.pixels([layer.band], part)
            means, share = coarse_view(fine, valid, block, place, part)
            usable = (share > 1 - 1e-3) & ~_is_blank(raw[0], layer)
            pairs.append((raw[0][usable], means[:, usable]))
        return pairs

    def _quality(self, layer: MaskLayer, window: Window, shape: tuple[int, int] | None) -> BoolArray:
        place = self._places[layer.source]
        part = place.part(layer.source.grid, window)
        raw, _ = layer.source.pixels(layer.bands, part, shape)
        valid = layer.valid(raw)
        if shape is not None:
            return valid
        rows, cols = place.centres(window, part)
        return valid[nearest(rows, part.height)][:, nearest(cols, part.width)]

    def close(self) -> None:
        """Close all files."""
        for source in self._sources:
            source.close()


def _all_known(values: Iterable[float | None]) -> tuple[float, ...] | None:
    known = tuple(values)
    return None if None in known else known  # type: ignore[return-value]


def _is_blank(plane: NDArray, layer: Layer) -> BoolArray:
    blank = np.zeros(plane.shape, bool) if plane.dtype.kind in "iu" else ~np.isfinite(plane)
    with np.errstate(over="ignore"):
        for value in (layer.nodata, *layer.blank):
            if value is not None and not isnan(value):
                blank |= plane == value
    return blank


def _blanked(plane: NDArray, layer: Layer) -> NDArray:
    """The raw plane with the one value for blank pixels that the cube's nodata names."""
    if not layer.blank or layer.nodata is None:
        return plane
    out = plane.copy()
    out[_is_blank(plane, layer)] = layer.nodata
    return out


def _finer(
    plane: NDArray, layer: Layer, extra: FloatArray | None, rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> FloatArray:
    """A coarse raw plane on the finest grid, with extra detail, nodata where it is blank."""
    values, valid = upsample(plane.astype(np.float32), ~_is_blank(plane, layer), rows, cols)
    if extra is not None:
        values += extra
    blank = np.float32(np.nan if layer.nodata is None else layer.nodata)
    values[valid & (values == blank)] = np.nextafter(blank, np.float32(np.inf))  # a value, not nodata
    values[~valid] = blank
    return values
