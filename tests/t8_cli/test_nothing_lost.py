"""Nothing is lost in writing, and what can't be fused is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.enums import ColorInterp
from rasters import GRID, write_cube

from hsfuse.cli import main
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid

PLACE = {"crs": "EPSG:32633"}
NM = np.linspace(440, 900, 20)
RESPONSE = "wavelength_nm,B2,B3,B4,B8\n" + "\n".join(
    f"{nm},{int(450 <= nm <= 520)},{int(530 <= nm <= 590)},{int(640 <= nm <= 690)},{int(780 <= nm <= 890)}"
    for nm in range(430, 911, 5)
)


def scene(folder: Path, level: float = 0.0, dtype: str = "float32") -> tuple[Path, Path]:
    """An HSI of 16 x 16 and an MSI of 64 x 64 pixels of one smooth scene, raised by `level`."""
    rows, cols = np.mgrid[:64, :64] / 64
    shades = 0.05 + 0.15 * (np.sin(9 * rows + 2) * np.cos(7 * cols) + 1)
    steep = 0.1 * (np.sin(15 * cols) * np.sin(11 * rows) + 1)
    cube = np.stack([shades + (nm - 440) / 460 * steep for nm in NM]) + level
    low = cube.reshape(20, 16, 4, 16, 4).mean((2, 4))
    msi = np.stack([cube[abs(NM - at).argmin()] for at in (485, 560, 665, 840)])
    return (
        write(folder / "hsi.tif", low, 40, dtype, [f"{nm:.1f} nm" for nm in NM]),
        write(folder / "msi.tif", msi, 10, "float32", ["B2", "B3", "B4", "B8"]),
    )


def write(path: Path, cube: np.ndarray, gsd: float, dtype: str, names: list[str]) -> Path:
    size = {"count": len(cube), "height": cube.shape[1], "width": cube.shape[2], "dtype": dtype}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(gsd, 0, 500000, 0, -gsd, 5000000)}
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as ds:
        ds.write(cube.astype(dtype))
        ds.descriptions = names
    return path


def fuse(folder: Path, *more: str, msi: str = "msi.tif", output: str = "o.tif"):
    (folder / "srf.csv").write_text(RESPONSE)
    named = ["--hsi", str(folder / "hsi.tif"), "--msi", str(folder / msi), "--srf", str(folder / "srf.csv")]
    return CliRunner().invoke(main, ["fuse", *named, "-o", str(folder / output), "--method", "glp-reg", *more])


def test_negative_reflectance_stays_unless_it_is_to_be_clipped(tmp_path):
    scene(tmp_path, level=-0.08)
    assert fuse(tmp_path).exit_code == 0
    assert fuse(tmp_path, "--clip", "zero", output="clipped.tif").exit_code == 0
    with rasterio.open(tmp_path / "o.tif") as kept, rasterio.open(tmp_path / "clipped.tif") as clipped:
        values, raised = kept.read(), clipped.read()
    assert (values < -0.005).mean() > 0.01
    np.testing.assert_array_equal(raised, np.maximum(values, 0))


def test_negative_values_that_an_unsigned_type_loses_are_told(tmp_path):
    scene(tmp_path, level=-0.08)
    result = fuse(tmp_path, "--dtype", "uint16")
    assert result.exit_code == 0
    assert "don't fit uint16" in result.stderr


@pytest.mark.parametrize(("dtype", "scale", "coarse"), [
    ("int16", "1", True), ("uint16", "0.1", True), ("int16", "0.02", True), ("int16", "1e-4", False),
    ("float32", "1", False),
])  # fmt: skip
def test_coarse_steps_are_warned_of_before_fitting(tmp_path, dtype, scale, coarse):
    scene(tmp_path)
    result = fuse(tmp_path, "--dtype", dtype, "--scale", scale, "--dry-run")
    assert result.exit_code == 0
    assert ("on disk are coarse" in result.stderr) == coarse


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_an_unknown_creation_option_is_refused(tmp_path, driver):
    scene(tmp_path)
    result = fuse(tmp_path, "--format", driver, "--co", "FOO=BAR", "-q")
    assert result.exit_code == 1
    assert "does not support creation option FOO" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "o.tif").exists()
    assert fuse(tmp_path, "--format", driver, "--co", "COMPRESS=ZSTD").exit_code == 0


@pytest.mark.parametrize("value", [0.0, 0.2])
@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_a_constant_hsi_is_refused(tmp_path, value, quiet):
    hsi, _ = scene(tmp_path)
    with rasterio.open(hsi, "r+") as ds:
        ds.write(np.full((20, 16, 16), value, np.float32))
    result = fuse(tmp_path, *quiet)
    assert result.exit_code == 1
    assert "every band of the HSI" in result.stderr
    assert "is constant over the common area" in result.stderr


def test_all_bands_marked_bad_is_said(tmp_path):
    hsi, _ = scene(tmp_path)
    with rasterio.open(hsi, "r+") as ds:
        for band in ds.indexes:
            ds.update_tags(band, bbl="0")
    result = fuse(tmp_path)
    assert result.exit_code == 1
    assert "all 20 bands are marked bad" in result.stderr


@pytest.mark.parametrize("bare", ["hsi", "msi"])
def test_an_image_without_crs_is_to_be_assigned_one(tmp_path, bare):
    scene(tmp_path)
    with rasterio.open(tmp_path / f"{bare}.tif") as ds:
        cube, profile, names = ds.read(), {**ds.profile, "crs": None}, ds.descriptions
    with rasterio.open(tmp_path / f"{bare}.tif", "w", **profile) as ds:
        ds.write(cube)
        ds.descriptions = names
    result = fuse(tmp_path)
    assert result.exit_code == 1
    assert f"the {bare.upper()} is on a map but names no CRS" in result.stderr
    assert "gdal_edit.py -a_srs EPSG:32633" in result.stderr
    assert "reproject the HSI" not in result.stderr


def test_fill_is_told_by_fuse_and_info_and_can_be_kept(tmp_path):
    hsi, _ = scene(tmp_path)
    with rasterio.open(hsi, "r+") as ds:
        cube = ds.read()
        cube[:, 4:6, 7:9] = -9999
        ds.write(cube)
    result = fuse(tmp_path, "-q")
    assert "4 of 256 pixels hold -9999 in all bands" in result.stderr
    with rasterio.open(tmp_path / "o.tif") as ds:
        data = ds.read()
    assert np.isnan(data).all(axis=0).sum() == 4 * 16
    assert np.nanmin(data) > -1
    told = CliRunner().invoke(main, ["info", str(hsi)]).output
    assert "4 of 256 pixels hold -9999 in all bands" in told
    assert "pixels hold" not in CliRunner().invoke(main, ["info", "--nodata", "none", str(hsi)]).output
    declared = fuse(tmp_path, "--hsi-nodata", "-9999", "-q", output="declared.tif")
    assert "hold" not in declared.stderr
    with rasterio.open(tmp_path / "declared.tif") as ds:
        np.testing.assert_array_equal(ds.read(), data)


# As other programs show it


def natural(path: Path, wavelengths: tuple[float, ...]) -> list[ColorInterp]:
    grid = Grid((20, 30), GRID.transform, GRID.crs)
    data = np.random.default_rng(0).random((len(wavelengths), 20, 30), dtype=np.float32)
    write_cube(path, data, np.ones((20, 30), bool), grid, Spectrum(wavelengths))
    with rasterio.open(path) as ds:
        return list(ds.colorinterp)


def test_a_cube_opens_in_natural_colour(tmp_path):
    found = natural(tmp_path / "a.tif", (443.0, 490.0, 560.0, 665.0, 842.0))
    assert found[1:4] == [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    natural(tmp_path / "a.dat", (443.0, 490.0, 560.0, 665.0, 842.0))
    assert "default bands = {4, 3, 2}" in (tmp_path / "a.hdr").read_text()


def test_no_natural_colour_without_bands_for_it(tmp_path):
    found = natural(tmp_path / "a.tif", (900.0, 1000.0, 1100.0))
    assert not {ColorInterp.red, ColorInterp.green, ColorInterp.blue} & set(found)


@pytest.mark.parametrize("names", [None, ("450 nm", "red (550.5 nm)", "nir")])
def test_a_wavelength_stands_once_in_a_band_name(tmp_path, names):
    spectrum = Spectrum((450.0, 550.5, 801.0), names=names)
    grid = Grid((20, 30), GRID.transform, GRID.crs)
    for name in ("a.dat", "a.tif"):
        write_cube(tmp_path / name, np.ones((3, 20, 30), np.float32), np.ones((20, 30), bool), grid, spectrum)
        with rasterio.open(tmp_path / name) as ds:
            told = ds.descriptions
        assert [text.count("450") + text.count("550.5") for text in told[:2]] == [1, 1]
