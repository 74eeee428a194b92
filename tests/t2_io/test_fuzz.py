"""Whatever is wrong in a header or in metadata, there is a clean error or a cube; what is written is read again.

Mutations are drawn from numbered seeds, so each failure can be had again. HDF5 is mutated through h5py and cut off, not
overwritten with random bytes: libhdf5 itself can crash or hang over those.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from math import hypot
from pathlib import Path

import h5py
import hsi_products as built
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window
from rasters import nm, write_cube, write_envi, write_tif

from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import HsfuseError, InputError
from hsfuse.core.grid import Grid
from hsfuse.io import open_cube

#: Mutants of each kind of metadata, in the default run and in the slow one.
FEW, MANY = 45, 700
ODD = [
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e999",
    "9" * 40,
    "0x10",
    "1,5",
    "é",
    "\x00",
    "{",
    "}",
    "<",
    "&x;",
    "none",
    "1 2",
    "²",
]


def attempt(path: Path, seed: int) -> bool:
    """Whether the cube opens and can be read; any error but HsfuseError, and any warning, fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with open_cube(path, role="HSI") as reader:
                cube = reader.read()
                reader.read(Window(0, 0, 1, 1), bands=[reader.count - 1])
                reader.sample([0], (2, 2))
                assert cube.data.shape == (reader.count, *reader.grid.shape)
                assert np.isfinite(cube.data).all()
                reader.grid.describe()
    except HsfuseError as error:
        return "\n" in str(error) and pytest.fail(f"mutant {seed} of {path.name}: {error}")
    except Exception as error:
        raise AssertionError(f"mutant {seed} of {path.name}: {error!r}") from error
    return True


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to three things wrong."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((1, 3, 20, 200)))
        kind = rng.randrange(7)
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + text[at:end] + text[at:]
        elif kind == 2:
            text = text[:at]
        elif kind == 3:
            text = text[:at] + rng.choice(ODD) + text[end:]
        elif kind == 4:
            text = text[:at] + chr(rng.choice((0, 10, 44, 61, 255, 0x20AC))) + text[at:]
        else:
            text = _one_value_odd(text, rng)
    return text


def _one_value_odd(text: str, rng: random.Random) -> str:
    """A number in the text replaced."""
    ends = [i for i in range(1, len(text)) if text[i - 1].isdigit() and not text[i].isdigit()]
    if not ends:
        return text
    end = rng.choice(ends)
    start = end
    while start and (text[start - 1].isdigit() or text[start - 1] in ".-"):
        start -= 1
    return text[:start] + rng.choice([*ODD, str(rng.randint(-5, 300)), f"{rng.random():.3g}"]) + text[end:]


# Text: XML and ENVI headers


def dlr_metadata(folder: Path, kind: str) -> Path:
    """The metadata file of a product without quality layers, quickly read."""
    product = getattr(built, kind)(folder)
    for file in folder.glob("*-QL_*"):
        file.unlink()
    return product.entry


def envi_header(folder: Path, _: str) -> Path:
    cube = np.random.default_rng(0).integers(0, 200, (4, 6, 5)).astype("int16")
    fields = [
        "description = {made {for} tests}", "sensor type = none", *nm(450, 550.5, 650, 850), "fwhm = {5, 5, 6, 6}",
        "bbl = {1, 1, 0, 1}", "band names = {a, b, c, d}", "data ignore value = -9999", "default bands = {3, 2, 1}",
        "reflectance scale factor = 10000",
        "map info = {UTM, 1, 1, 600000, 5000000, 10, 10, 33, North, WGS-84, units=Meters, rotation=20}",
        'coordinate system string = {PROJCS["x",GEOGCS["y",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137,298.257]],'
        'PRIMEM["Greenwich",0],UNIT["Degree",0.0174]],PROJECTION["Transverse_Mercator"],UNIT["Meter",1]]}',
        "hsfuse method = glp", "acquisition time = 2020-01-01",
    ]  # fmt: skip
    return write_envi(folder / "a.dat", cube, *fields)


def glt_header(folder: Path, _: str) -> Path:
    return built.airborne(folder).folder / "ang20170228t170016_rdn_v2p5_glt.hdr"


def gaofen_table(folder: Path, _: str) -> Path:
    return built.gaofen(folder).folder / "GF5B_AHSI_Spectralresponse_SWIR.raw"


def vrt(folder: Path, _: str) -> Path:
    """Bands of two files, with wavelengths, a mask and a scale."""
    cube = np.random.default_rng(0).integers(0, 200, (2, 6, 5)).astype("int16")
    write_tif(folder / "a.tif", cube)
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{i}"><NoDataValue>-9999</NoDataValue><Scale>0.01</Scale><Description>'
        f'{400 + i}.5 nm</Description><SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
        f'<SourceBand>{i}</SourceBand><SrcRect xOff="0" yOff="0" xSize="5" ySize="6"/><DstRect xOff="0" yOff="0" '
        f'xSize="5" ySize="6"/></SimpleSource></VRTRasterBand>'
        for i in (1, 2)
    )
    path = folder / "a.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="5" rasterYSize="6"><SRS>EPSG:32633</SRS><GeoTransform>0,10,0,0,0,-10</GeoTransform>'
        f"{bands}</VRTDataset>"
    )
    return path


TEXTS: dict[str, tuple[Callable[[Path, str], Path], str]] = {
    "enmap": (dlr_metadata, ""), "desis": (dlr_metadata, ""), "envi": (envi_header, ""),
    "vrt": (vrt, ""), "glt": (glt_header, "ang20170228t170016_rdn_v2p5_img"),
    "gaofen": (gaofen_table, f"{built.GAOFEN}_VN.tif"),
}  # fmt: skip


def fuzz_text(folder: Path, kind: str, seeds: range) -> None:
    make, name = TEXTS[kind]
    file = make(folder, kind)
    entry = folder / name if name else file
    whole = file.read_text()
    assert attempt(entry, -1)
    outcomes = []
    for seed in seeds:
        file.write_bytes(mutated(whole, random.Random(seed)).encode("utf-8", "replace"))
        outcomes.append(attempt(entry, seed))
    assert not all(outcomes)


@pytest.mark.parametrize("kind", TEXTS)
def test_mutated_text_gives_clean_errors(tmp_path, kind):
    fuzz_text(tmp_path, kind, range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEXTS)
def test_much_mutated_text_gives_clean_errors(tmp_path, kind):
    fuzz_text(tmp_path, kind, range(FEW, FEW + MANY))


def test_entities_are_not_expanded(tmp_path):
    entry = dlr_metadata(tmp_path, "enmap")
    laughs = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    entry.write_text(f'<!DOCTYPE x [<!ENTITY a0 "ha">{laughs}]><level_X>&a11;</level_X>')
    with pytest.raises(InputError, match="DOCTYPE"):
        open_cube(entry)


# HDF5


def fuzz_hdf5(folder: Path, kind: str, seeds: range) -> None:
    product = built.prisma(folder, shape=(14, 12)) if kind == "prisma" else built.emit(folder)
    whole = product.entry.read_bytes()
    assert attempt(product.entry, -1)
    outcomes = []
    for seed in seeds:
        rng = random.Random(seed)
        product.entry.write_bytes(whole if seed % 4 else whole[: rng.randrange(len(whole))])
        if seed % 4:
            with h5py.File(product.entry, "r+") as file:
                for _ in range(rng.randint(1, 2)):
                    (mutate_attribute if rng.random() < 0.5 else mutate_dataset)(file, rng)
        outcomes.append(attempt(product.entry, seed))
    assert not all(outcomes)


def mutate_attribute(file: h5py.File, rng: random.Random) -> None:
    name = rng.choice(sorted(file.attrs))
    old = np.asarray(file.attrs[name])
    del file.attrs[name]
    values = [
        None, np.nan, np.inf, -1, 0, 10**9, "text", b"\xff\xfe", "", np.zeros(0), np.arange(3), np.ones(2, "S3"),
        np.full(old.shape, np.nan), np.full(old.shape, -5.0), np.full((2, 2), 7), h5py.Empty("f4"), True, 1e30,
    ]  # fmt: skip
    value = rng.choice(values)
    if value is not None:
        file.attrs[name] = value


def mutate_dataset(file: h5py.File, rng: random.Random) -> None:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    if not names:
        return
    name = rng.choice(sorted(names))
    old = np.zeros(()) if file[name].shape is None else np.asarray(file[name][()])
    del file[name]
    shape = tuple(max(0, n + rng.choice((-1, 0, 0, 1))) for n in old.shape)
    values = [
        None, np.zeros(shape, old.dtype), np.transpose(old), np.zeros(0), np.ones((2, 2, 2, 2)),
        *(np.full(old.shape, value) for value in (np.nan, 2**31 - 1, -(2**31), 1 + 2j)), 5.0, "text",
        np.ones(2, "S3"), h5py.Empty("f4"),
    ]  # fmt: skip
    value = rng.choice(values)
    if value is None:
        return
    if isinstance(value, np.ndarray) and rng.random() < 0.1:
        file.create_group(name)
    else:
        file[name] = value


@pytest.mark.parametrize("kind", ["prisma", "emit"])
def test_mutated_hdf5_gives_clean_errors(tmp_path, kind):
    fuzz_hdf5(tmp_path, kind, range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prisma", "emit"])
def test_much_mutated_hdf5_gives_clean_errors(tmp_path, kind):
    fuzz_hdf5(tmp_path, kind, range(FEW, FEW + MANY))


# Reading after writing is identity

finite = st.floats(allow_nan=False, allow_infinity=False)
CODES = (32633, 32755, 3857, 4326, 3035, 2154, 5514, 27700, 3031, 26918)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any place, size of pixels, rotation and orientation (north up, south up, mirrored), with one of many CRS."""
    turn = Affine.rotation(draw(st.sampled_from((0, 0, 0, 12.5, -50, 89.75, 180, 271))))
    size = draw(st.floats(0.05, 5000)), draw(st.floats(0.05, 5000))
    signs = draw(st.sampled_from(((1, -1), (1, 1), (-1, -1), (-1, 1))))
    place = Affine.translation(draw(st.floats(-9e6, 9e6)), draw(st.floats(-9e6, 9e6)))
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    code = draw(st.none() | st.sampled_from(CODES))
    return Grid(
        shape, place @ turn @ Affine.scale(size[0] * signs[0], size[1] * signs[1]), code and CRS.from_epsg(code)
    )


@st.composite
def spectra(draw: st.DrawFn) -> Spectrum:
    centres = draw(st.none() | st.lists(st.floats(201, 19_000), min_size=1, max_size=5))
    count = draw(st.integers(1, 5)) if centres is None else len(centres)
    named = st.text("abc-_/µ ,{}=;0", min_size=1, max_size=8).filter(str.strip)
    return Spectrum(
        None if centres is None else tuple(float(f"{c:.9g}") for c in centres),
        None if centres is None else draw(st.none() | st.just((8.25,) * count)),
        tuple(draw(st.lists(named, min_size=count, max_size=count))) if centres is None else None,
        draw(st.none() | st.just(tuple(i % 2 == 0 for i in range(count)))),
    )


@given(grid=grids(), spectrum=spectra(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_geotiff_gives_back_what_was_written(grid, spectrum, seed):
    count = next(len(v) for v in (spectrum.wavelengths_nm, spectrum.names) if v is not None)
    rng = np.random.default_rng(seed)
    data, mask = rng.normal(size=(count, *grid.shape)).astype(np.float32), rng.random(grid.shape) > 0.2
    with tempfile.TemporaryDirectory() as folder:
        write_cube(Path(folder) / "a.tif", data, mask, grid, spectrum)
        with open_cube(Path(folder) / "a.tif") as reader:
            cube = reader.read()
    np.testing.assert_array_equal(cube.mask, mask)
    np.testing.assert_array_equal(cube.data, data * mask)
    assert same_place(cube.grid, grid)
    assert cube.spectrum.wavelengths_nm == spectrum.wavelengths_nm
    assert (cube.spectrum.fwhm_nm, cube.spectrum.good) == (spectrum.fwhm_nm, spectrum.good)


def same_place(found: Grid, wanted: Grid) -> bool:
    """The same CRS and, to a thousandth of a pixel, the same corners."""
    corners = [(0, 0), (wanted.shape[1], 0), (0, wanted.shape[0])]
    pairs = [(found.transform @ corner, wanted.transform @ corner) for corner in corners]
    off = max(hypot(a[0] - b[0], a[1] - b[1]) for a, b in pairs)
    return found.shape == wanted.shape and found.crs == wanted.crs and off <= 1e-3 * min(wanted.gsd)


@given(grid=grids(), dtype=st.sampled_from(("int16", "uint16", "float32")), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_envi_gives_back_what_was_written_or_refuses(grid, dtype, seed):
    rng = np.random.default_rng(seed)
    data, mask = rng.random((2, *grid.shape), dtype=np.float32), rng.random(grid.shape) > 0.2
    spectrum = Spectrum((450.25, 899.5), (5.0, 6.5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dat"
        try:
            write_cube(path, data, mask, grid, spectrum, dtype=dtype, scale=1e-4)
        except HsfuseError:
            assert not list(Path(folder).iterdir())
            return
        with open_cube(path, role="HSI") as reader:
            cube = reader.read()
    np.testing.assert_array_equal(cube.mask, mask)
    assert np.abs(cube.data - data * mask).max() <= (0.5e-4 if dtype != "float32" else 1e-6) + 3e-7
    assert same_place(cube.grid, grid)
    assert cube.spectrum == replace(spectrum, names=("band 1", "band 2"))


@given(
    centres=st.lists(st.floats(300, 2500), min_size=1, max_size=6), factor=st.sampled_from((1, 1000)),
    rotation=st.floats(-179.9, 179.9), reference=st.sampled_from(((1, 1), (1.5, 1.5), (2, 3))),
    interleave=st.sampled_from(("bsq", "bil", "bip")), big=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_envi_header_is_understood(centres, factor, rotation, reference, interleave, big):
    """Turned by 180 degrees is how GDAL writes an image with its south up, so that is what it reads it as."""
    cube = np.random.default_rng(len(centres)).integers(1, 999, (len(centres), 4, 3)).astype("int16")
    unit = {1: "Nanometers", 1000: "Micrometers"}[factor]
    x, y = reference
    info = f"map info = {{UTM, {x}, {y}, 6e5, 5e6, 10, 10, 33, North, WGS-84, units=Meters, rotation={rotation!r}}}"
    with tempfile.TemporaryDirectory() as folder:
        said = nm(*(f"{c / factor:.9g}" for c in centres), units=unit)
        header = write_envi(Path(folder) / "a.img", cube, info, *said, interleave=interleave, big=big)
        with open_cube(header, role="HSI") as reader:
            np.testing.assert_array_equal(reader.read().data, cube.astype(np.float32))
            assert reader.spectrum.wavelengths_nm == pytest.approx(centres, rel=1e-8)
            assert reader.grid.gsd == pytest.approx((10, 10))
            assert reader.grid.crs.to_epsg() == 32633
            turned = np.degrees(np.arctan2(reader.grid.transform.d, reader.grid.transform.a))
            assert (turned - rotation + 180) % 360 == pytest.approx(180, abs=1e-5)
