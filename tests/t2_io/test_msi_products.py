"""Multispectral products as agencies deliver them, and lists of band files, as one reflectance cube.

The products are built here after the public specifications (see `msi_products`); no sample of the agencies' is used.
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.sax.saxutils import escape

import msi_products as made
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from hsfuse.core.errors import GridError, InputError
from hsfuse.io import open_cube, usable_bands
from hsfuse.io.files import split_paths
from hsfuse.io.sharpen import Place, coarse_view, upsample
from hsfuse.physics import load_srf, match_bands


def whole(path, **how):
    with open_cube(path, **how) as reader:
        return reader.read(), reader


# A coarser band on a finer grid


def centres(count: int, ratio: int) -> np.ndarray:
    return (np.arange(count * ratio) + 0.5) / ratio - 0.5


@pytest.mark.parametrize("ratio", [2, 3, 6])
def test_upsampling_keeps_planes_and_parabolas(ratio):
    at = centres(12, ratio)
    y, x = np.mgrid[:12, :12].astype(np.float32)
    for surface in (lambda y, x: 3 + 0 * x, lambda y, x: 2 * y - x, lambda y, x: y * y - 0.5 * x * x + x * y):
        found, valid = upsample(surface(y, x).astype(np.float32), np.ones((12, 12), bool), at, at)
        inner = slice(2 * ratio, -2 * ratio)
        wanted = surface(*np.meshgrid(at, at, indexing="ij"))
        np.testing.assert_allclose(found[inner, inner], wanted[inner, inner], rtol=1e-5, atol=1e-3)
        assert valid.all()


def test_invalid_pixels_touch_nothing_but_their_own_place():
    values = made.counts((10, 10), 1).astype(np.float32)
    valid = np.ones((10, 10), bool)
    valid[4, 5] = valid[0, 0] = False
    at = centres(10, 2)
    found, ok = upsample(values, valid, at, at)
    other, _ = upsample(np.where(valid, values, np.float32(1e6)), valid, at, at)
    np.testing.assert_array_equal(found[ok], other[ok])
    np.testing.assert_array_equal(ok, np.kron(valid, np.ones((2, 2), bool)))
    assert values.min() - 1 <= found[7:12, 9:14][ok[7:12, 9:14]].min()  # linear there: no overshoot
    flat, _ = upsample(np.where(valid, np.float32(7), np.float32(0)), valid, at, at)
    np.testing.assert_allclose(flat[ok], 7, rtol=1e-6)


# Detail for coarser bands


def fine_and_coarse(folder: Path, weights=(0.5, -0.25)) -> tuple[list[Path], np.ndarray]:
    """Two bands of 10 m and a mixture of them at 20 m, as a Gaussian MTF of 0.3 sees it; the mixture at 10 m."""
    bands = np.stack([made.counts((60, 44), seed).astype(np.float32) for seed in (1, 2)])
    truth = np.tensordot(np.float32(weights), bands, 1) + 3000
    place = Place(2, 0.0, 0.0)
    means, share = coarse_view(
        truth[None], np.ones(truth.shape, bool), Window(0, 0, 44, 60), place, Window(0, 0, 22, 30)
    )
    assert share.min() > 0.5
    paths = [
        made.write_raster(folder / f"{name}.tif", band, 10) for name, band in zip(("red", "nir"), bands, strict=True)
    ]
    return [*paths, made.write_raster(folder / "swir16.tif", means[0], 20)], truth


def test_a_mixture_of_the_fine_bands_is_sharpened_to_itself(tmp_path):
    paths, truth = fine_and_coarse(tmp_path)
    with open_cube(paths) as reader:
        whole_band = reader.read(bands=[2]).data[0]
        part = reader.read(Window(5, 7, 11, 13), bands=[2]).data[0]
    np.testing.assert_allclose(whole_band, truth, atol=0.02 * truth.std())
    np.testing.assert_allclose(part, whole_band[7:20, 5:16], rtol=1e-5)
    coarse = whole(paths[2])[0].data[0]
    at = [centres(count, 2) for count in (30, 22)]
    smooth, _ = upsample(coarse, np.ones(coarse.shape, bool), *at)
    assert np.abs(smooth - truth).mean() > 20 * np.abs(whole_band - truth).mean()


def test_sharpening_knows_where_the_coarse_file_begins(tmp_path):
    """The same on fine bands that begin 3 columns and 1 row inside the coarse file."""
    paths, truth = fine_and_coarse(tmp_path)
    for path in paths[:2]:
        with rasterio.open(path) as ds:
            band = ds.read(1)
        made.write_raster(path, band[1:, 3:], 10, (made.X + 30, made.Y - 10))
    found = whole(paths)[0].data[2]
    np.testing.assert_allclose(found[6:-6, 6:-6], truth[7:-6, 9:-6], atol=0.03 * truth.std())


def test_what_the_fine_bands_do_not_know_stays_smooth(tmp_path):
    """A coarse band that has nothing to do with the fine ones gets next to no detail of theirs."""
    paths, _ = fine_and_coarse(tmp_path)
    other = made.counts((30, 22), 9).astype(np.float32)
    made.write_raster(paths[2], other, 20)
    found = whole(paths)[0].data[2]
    smooth, _ = upsample(other, np.ones(other.shape, bool), centres(30, 2), centres(22, 2))
    assert np.abs(found - smooth).std() < 0.1 * other.std()


def test_invalid_fine_pixels_give_no_detail(tmp_path):
    paths, truth = fine_and_coarse(tmp_path)
    with rasterio.open(paths[0], "r+") as ds:
        band = ds.read(1)
        band[20:24, 20:24] = -9999
        ds.nodata = -9999
        ds.write(band, 1)
    with open_cube(paths) as reader:
        cube = reader.read(bands=[2])
    assert cube.mask.all()  # the coarse band itself is valid there
    assert np.abs(cube.data[0] - truth).max() < 2 * truth.std()
    np.testing.assert_allclose(cube.data[0][:10], truth[:10], atol=0.02 * truth.std())


def test_gains_are_fitted_on_the_part_in_focus(tmp_path):
    """Left and right halves with opposite gains: fitted on one half, that half comes out right."""
    paths, truth = fine_and_coarse(tmp_path)
    with rasterio.open(paths[2], "r+") as ds:
        band = ds.read(1)
        band[:, 11:] = 6000 - band[:, 11:]
        ds.write(band, 1)
    with open_cube(paths) as reader:
        mixed = reader.read(Window(0, 0, 16, 60), bands=[2]).data[0]
        found = reader.focused(Window(0, 0, 18, 60)).read(Window(0, 0, 16, 60), bands=[2]).data[0]
    np.testing.assert_allclose(found, truth[:, :16], atol=0.03 * truth.std())
    assert np.abs(mixed - truth[:, :16]).mean() > 5 * np.abs(found - truth[:, :16]).mean()


# Sentinel-2


@pytest.mark.parametrize("level", ["2A", "1C"])
@pytest.mark.parametrize("offsets", [True, False])
def test_sentinel2_is_reflectance_by_its_own_metadata(tmp_path, level, offsets):
    safe = made.sentinel2(tmp_path, level, offsets=offsets)
    cube, reader = whole(safe)
    assert reader.spectrum.names == ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
    assert reader.spectrum.wavelengths_nm[0] == 492.7
    np.testing.assert_allclose(reader.spectrum.fwhm_nm, 20, atol=1e-6)
    for band, offset in (("B2", -1000), ("B3", -900), ("B8", -1000)):
        raw = made.s2_raw(safe, band, 10).astype(float)
        wanted = (raw + (offset if offsets else 0)) / 10000
        found = cube.data[reader.spectrum.names.index(band)]
        np.testing.assert_allclose(found[cube.mask], wanted[cube.mask], atol=1e-6)
    assert reader.quantity == "reflectance"
    assert reader.grid.gsd == (10, 10)
    assert (reader.grid.transform.c, reader.grid.transform.f, reader.grid.crs.to_epsg()) == (made.X, made.Y, made.EPSG)
    assert reader.tags["ACQUIRED"].startswith("2022-07-24T10:20:48")
    assert "B5, B6, B7, B8A, B11, B12 have a GSD of 20 m and are" in " ".join(map(str, reader.notes))
    assert len(match_bands(load_srf(reader.tags["SENSOR"]), reader.spectrum.names, reader.count).indices) == 10


def test_sentinel2_masks_clouds_shadows_nodata_and_saturation(tmp_path):
    cube, reader = whole(made.sentinel2(tmp_path))
    assert cube.mask[2:4, :24].reshape(2, 12, 2).all(axis=(0, 2)).tolist() == [
        scene_class not in (0, 1, 3, 8, 9, 10) for scene_class in range(12)
    ]
    invalid = np.argwhere(~cube.mask)
    others = {tuple(p) for p in invalid.tolist() if p[0] not in (2, 3)}
    assert others == {(0, 0), (0, 1), (46, 46), (46, 47), (47, 46), (47, 47)}  # B2's nodata, saturation; B5's nodata
    assert "SCL classes 0, 1, 3, 8, 9, 10" in reader.tags["MASK"]
    cube, _ = whole(made.sentinel2(tmp_path, "1C"))
    assert cube.mask[6:12, 6:24].reshape(6, 3, 6).all(axis=(0, 2)).tolist() == [False, False, True]  # snow is kept


def test_every_part_of_a_safe_folder_opens_the_product(tmp_path):
    safe = made.sentinel2(tmp_path)
    wanted, _ = whole(safe)
    granule = next(safe.glob("GRANULE/*"))
    for part in (
        safe / "MTD_MSIL2A.xml", granule, granule / "MTD_TL.xml", next(granule.glob("IMG_DATA/R20m/*_B05_20m.jp2")),
    ):  # fmt: skip
        cube, reader = whole(part)
        np.testing.assert_array_equal(cube.data, wanted.data)
        assert safe / "MTD_MSIL2A.xml" in reader.files


def test_windows_and_band_choices_agree_with_the_whole(tmp_path):
    with open_cube(made.sentinel2(tmp_path)) as reader:
        cube = reader.read()
        for window in (Window(0, 0, 48, 48), Window(7, 5, 9, 11), Window(47, 47, 1, 1), Window(0, 30, 5, 18)):
            part = reader.read(window, bands=[8, 0, 4])
            rows, cols = window.toslices()
            own = cube.mask[rows, cols]
            for found, band in zip(part.data, (8, 0, 4), strict=True):
                np.testing.assert_allclose(found[own], cube.data[band, rows, cols][own], atol=2e-6)
        data, valid = reader.sample([0, 5], (12, 12))
        assert data.shape == valid.shape == (2, 12, 12)
        assert usable_bands(reader).all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_granule_says_where_images_without_georeference_lie(tmp_path):
    safe = made.sentinel2(tmp_path)
    for file in safe.glob("GRANULE/*/IMG_DATA/R*/*.jp2"):
        with rasterio.open(file) as ds:
            data = ds.read()
        made.write_raster(file, data, 10, epsg=None)
    cube, reader = whole(safe)
    assert reader.grid.crs.to_epsg() == made.EPSG
    assert reader.grid.gsd == (10, 10)
    assert (~cube.mask).sum() == 30


def test_sentinel2_without_20_m_bands_or_mask_says_so(tmp_path):
    safe = made.sentinel2(tmp_path)
    for file in safe.glob("GRANULE/*/IMG_DATA/R20m/*"):
        file.unlink()
    _, reader = whole(safe)
    assert reader.spectrum.names == ("B2", "B3", "B4", "B8")
    assert "20 m aren't there" in " ".join(map(str, reader.notes))
    assert "not masked" in " ".join(map(str, reader.notes))


# Landsat


@pytest.mark.parametrize(("craft", "spelling"), [(5, "txt"), (7, "json"), (8, "xml"), (9, "txt")])
@pytest.mark.parametrize("level", [2, 1])
def test_landsat_is_reflectance_by_its_mtl(tmp_path, craft, spelling, level):
    folder = made.landsat(tmp_path, craft, level, spelling)
    cube, reader = whole(folder)
    bands = [1, 2, 3, 4, 5, 6, 7] if craft >= 8 else [1, 2, 3, 4, 5, 7]
    assert reader.spectrum.names == tuple(f"B{band}" for band in bands)
    mult, add = (2.75e-5, -0.2) if level == 2 else (2e-5 / math.sin(math.radians(30)), -0.1 / 0.5)
    with rasterio.open(next(folder.glob("*_B4.TIF"))) as ds:
        raw = ds.read(1).astype(float)
    np.testing.assert_allclose(cube.data[3][cube.mask], (raw * mult + add)[cube.mask], atol=1e-6)
    assert reader.quantity == "reflectance"
    assert reader.tags["ACQUIRED"].startswith("2022-07-24T09:52:34")
    assert reader.tags["SENSOR"] == f"landsat{craft}"
    assert len(match_bands(load_srf(reader.tags["SENSOR"]), reader.spectrum.names, reader.count).indices) == len(bands)


def test_landsat_masks_by_its_quality_bits(tmp_path):
    cube, reader = whole(made.landsat(tmp_path))
    assert cube.mask[1, :8].tolist() == [False] * 5 + [True] * 3  # fill, dilated cloud, cirrus, cloud, shadow
    assert cube.mask[2, :3].tolist() == [
        False,
        True,
        True,
    ]  # band 3 saturated; terrain occlusion and band 9 don't count
    assert not cube.mask[0, 0]
    assert (~cube.mask).sum() == 7
    assert "QA_PIXEL" in reader.tags["MASK"]


def test_every_part_of_a_landsat_scene_opens_it(tmp_path):
    folder = made.landsat(tmp_path)
    wanted, _ = whole(folder)
    for part in (next(folder.glob("*MTL.txt")), next(folder.glob("*SR_B5.TIF"))):
        np.testing.assert_array_equal(whole(part)[0].data, wanted.data)


# PlanetScope


@pytest.mark.parametrize("bands", [4, 8])
@pytest.mark.parametrize("surface", [True, False])
def test_planet_is_reflectance_with_its_usable_data_mask(tmp_path, bands, surface):
    image = made.planet(tmp_path, bands, surface)
    for path in (image, tmp_path):
        cube, reader = whole(path)
        with rasterio.open(image) as ds:
            raw = ds.read(3).astype(float)
        factor = 1e-4 if surface else 2e-5 + 3e-6
        np.testing.assert_allclose(cube.data[2][cube.mask], (raw * factor)[cube.mask], rtol=1e-5)
        assert np.argwhere(~cube.mask).tolist() == [[0, 0], [1, 1]]
        match = match_bands(load_srf(reader.tags["SENSOR"]), reader.spectrum.names, reader.count)
        assert match.bands == tuple(f"B{i}" for i in range(1, bands + 1))
        assert reader.tags["ACQUIRED"].startswith("2022-07-24T10:15:59")


def test_planet_needs_metadata_for_radiance_only(tmp_path):
    _, reader = whole(made.planet(tmp_path / "a", metadata=False))
    assert reader.tags["ACQUIRED"] == "2022-07-24T10:15:59"
    with pytest.raises(InputError, match="AnalyticMS_metadata"):
        open_cube(made.planet(tmp_path / "b", 8, surface=False, metadata=False))


# WorldView


def test_worldview_is_radiance_by_its_imd(tmp_path):
    image = made.maxar(tmp_path)
    cube, reader = whole(image)
    with rasterio.open(image) as ds:
        raw = ds.read(3).astype(float)
    np.testing.assert_allclose(cube.data[2][cube.mask], (raw * 1.2e-2 / 5e-2)[cube.mask], rtol=1e-5)
    assert np.argwhere(~cube.mask).tolist() == [[0, 0]]
    assert reader.quantity == "radiance"
    assert reader.tags["ACQUIRED"] == "2022-07-24T10:15:59"
    match = match_bands(load_srf(reader.tags["SENSOR"]), reader.spectrum.names, reader.count)
    assert match.bands == tuple(f"B{i}" for i in range(1, 9))
    _, reader = whole(made.maxar(tmp_path, "ACOMP"))
    assert reader.quantity == "unknown"
    assert (reader.scales == 1).all()


# Lists of files


def cogs(folder: Path) -> list[Path]:
    """Red and blue at 10 m, both without detail, swir16 at 20 m on a larger extent, as a STAC item lists them."""
    return [
        made.write_raster(folder / "S_red_x.tif", np.full((20, 30), 1500, "uint16"), 10),
        made.write_raster(folder / "S_blue_x.tif", np.full((20, 30), 900, "uint16"), 10),
        made.write_raster(folder / "S_swir16_x.tif", made.counts((14, 18), 3), 20, (made.X - 30, made.Y + 10)),
    ]


def test_files_of_several_gsds_make_one_image(tmp_path):
    paths = cogs(tmp_path)
    cube, reader = whole(paths)
    assert reader.spectrum.names == ("red", "blue", "swir16")
    assert reader.grid.shape == (20, 30)
    assert (cube.data[1] == 900).all()
    # The coarse file begins 3 fine columns to the left and 1 fine row above: fine (1, 1) and (1, 2) are its (1, 2).
    coarse = made.counts((14, 18), 3).astype(np.float32)
    rows, cols = (np.arange(20) + 1.5) / 2 - 0.5, (np.arange(30) + 3.5) / 2 - 0.5
    np.testing.assert_allclose(cube.data[2], upsample(coarse, np.ones(coarse.shape, bool), rows, cols)[0], rtol=1e-6)
    assert "swir16 has a GSD of 20 m and is brought to 10 m, sharpened with red, blue" in " ".join(
        map(str, reader.notes)
    )
    assert set(paths) <= set(reader.files)
    assert len(match_bands(load_srf("sentinel2a"), reader.spectrum.names, 3).indices) == 3


def test_bands_of_a_safe_folder_keep_its_scale_and_mask(tmp_path):
    safe = made.sentinel2(tmp_path)
    images = next(safe.glob("GRANULE/*/IMG_DATA"))
    paths = [next(images.glob(pattern)) for pattern in ("R10m/*B03*", "R60m/*B01*", "R20m/*B11_20m*", "R20m/*SCL*")]
    cube, reader = whole(paths)
    product, whole_reader = whole(safe)
    assert reader.spectrum.names == ("B3", "B1", "B11")
    both = cube.mask & product.mask
    np.testing.assert_allclose(cube.data[0][both], product.data[1][both])
    apart = np.abs(cube.data[2] - product.data[whole_reader.spectrum.names.index("B11")])[both]
    assert np.median(apart) < 0.01  # sharpened with B3 alone, with four bands
    assert reader.quantity == "reflectance"
    assert not cube.mask[2:4, 0:4].any()


def test_landsat_bands_without_their_mtl_have_level_2_factors(tmp_path):
    folder = made.landsat(tmp_path)
    wanted, _ = whole(folder)
    next(folder.glob("*MTL*")).unlink()
    paths = [next(folder.glob(pattern)) for pattern in ("*SR_B4*", "*SR_B5*", "*QA_PIXEL*")]
    cube, reader = whole(paths)
    both = cube.mask & wanted.mask
    np.testing.assert_allclose(cube.data[:, both], wanted.data[3:5, both], atol=1e-6)
    assert "no *_MTL file beside it" in " ".join(map(str, reader.notes))
    level1 = made.landsat(tmp_path, 8, 1)
    next(level1.glob("*MTL*")).unlink()
    with pytest.raises(InputError, match="Level-1 without"):
        open_cube([next(level1.glob("*_B4*")), next(level1.glob("*_B5*"))])


def test_bands_that_do_not_belong_together_are_refused(tmp_path):
    red, blue, _ = cogs(tmp_path)
    for name, gsd, corner, epsg, shape, message in (
        ("crs", 20, (made.X, made.Y), 32632, (10, 15), "EPSG:32633.*EPSG:32632.*share a CRS"),
        ("off", 20, (made.X + 4, made.Y), 32633, (10, 15), "0.40 of a pixel off"),
        ("ratio", 25, (made.X, made.Y), 32633, (10, 15), "2.5 x 2.5"),
        ("small", 20, (made.X + 40, made.Y), 32633, (10, 15), "doesn't cover.* 2 of its pixels"),
    ):
        other = made.write_raster(tmp_path / f"{name}.tif", made.counts(shape, 1), gsd, corner, epsg)
        with pytest.raises(GridError, match=message) as caught:
            open_cube([red, blue, other])
        assert "\n" not in str(caught.value)
        assert f"{name}.tif" in str(caught.value)
    twice = made.write_raster(tmp_path / "T33UUU_B04_20m.tif", made.counts((10, 15), 1), 20)
    again = made.write_raster(tmp_path / "T33UUU_B04_10m.tif", made.counts((20, 30), 1), 10)
    with pytest.raises(InputError, match="are both band B4"):
        open_cube([twice, again])
    with pytest.raises(InputError, match="only masks"):
        open_cube([made.write_raster(tmp_path / f"{i}_SCL.tif", made.counts((9, 9), 1), 20) for i in "ab"])
    with pytest.raises(InputError, match="no file"):
        open_cube([])


def test_files_of_several_bands_keep_their_descriptions(tmp_path):
    colours = made.write_raster(tmp_path / "rgb.tif", np.stack([made.counts((8, 8), i) for i in range(3)]), 10,
                                names=("red", "green", "blue"))  # fmt: skip
    others = made.write_raster(tmp_path / "more.tif", np.stack([made.counts((8, 8), i) for i in range(2)]), 10)
    _, reader = whole([colours, others])
    assert reader.spectrum.names == ("red", "green", "blue", "more 1", "more 2")


def test_a_vrt_of_band_files_is_named_after_them(tmp_path):
    paths = [
        made.write_raster(tmp_path / f"X_{b}.tif", made.counts((6, 6), i), 10) for i, b in enumerate(("B08", "B03"))
    ]
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><SimpleSource><SourceFilename relativeToVRT="1">'
        f"{escape(path.name)}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for i, path in enumerate(paths, start=1)
    )
    vrt = tmp_path / "stack.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="6" rasterYSize="6">{bands}</VRTDataset>')
    cube, reader = whole(vrt)
    assert reader.spectrum.names == ("B8", "B3")
    np.testing.assert_array_equal(cube.data[1], made.counts((6, 6), 1))


def test_one_path_in_a_list_is_that_path(tmp_path):
    red = cogs(tmp_path)[0]
    np.testing.assert_array_equal(whole([red])[0].data, whole(red)[0].data)


@pytest.mark.parametrize("kind", ["mask", "alpha"])
def test_masks_inside_the_files_of_a_list_count_together(tmp_path, kind):
    """One file hides a corner, the other another one, by GDAL's mask or by an alpha band."""
    paths = []
    for name, place in (("B02", np.s_[:3, :2]), ("B03", np.s_[5:, 4:])):
        valid = np.full((8, 9), 255, "uint8")
        valid[place] = 0
        paths.append(tmp_path / f"x_{name}.tif")
        count = 1 if kind == "mask" else 2
        with rasterio.open(
            paths[-1], "w", driver="GTiff", count=count, height=8, width=9, dtype="uint8", crs="EPSG:32633",
            transform=Affine(10, 0, 5e5, 0, -10, 5e6),
        ) as ds:  # fmt: skip
            ds.write(made.counts((8, 9), 1).astype("uint8"), 1)
            if kind == "mask":
                ds.write_mask(valid)
            else:
                ds.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
                ds.write(valid, 2)
    cube, reader = whole(paths)
    assert reader.spectrum.names == ("B2", "B3")
    wanted = np.ones((8, 9), bool)
    wanted[:3, :2] = wanted[5:, 4:] = False
    np.testing.assert_array_equal(cube.mask, wanted)


def test_paths_are_split_at_commas_unless_they_exist(tmp_path):
    (tmp_path / "a,b.tif").touch()
    assert split_paths(tmp_path / "a,b.tif") == [tmp_path / "a,b.tif"]
    assert split_paths("c.tif, d.tif,") == [Path("c.tif"), Path("d.tif")]
    many = [f"T32TQM_20220724T101031_B{i:02d}_10m.jp2" for i in range(12)]  # together too long for a file's name
    assert split_paths(",".join(many)) == [Path(name) for name in many]
