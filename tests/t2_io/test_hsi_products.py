"""Hyperspectral products as agencies deliver them; hsi_products.py builds small ones after the specifications."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import h5py
import hsi_products as built
import numpy as np
import pytest
import rasterio
from hsi_products import Product
from rasterio.windows import Window
from rasters import integers, write_envi, write_tif

from hsfuse.core.errors import InputError
from hsfuse.io import open_cube
from hsfuse.io.envi import find_pair
from hsfuse.io.gdal import map_transform
from hsfuse.io.products import hdf5, ortho
from hsfuse.io.products.ortho import merged

Builder = Callable[[Path], Product]
BUILDERS: dict[str, Builder] = {
    f.__name__: f for f in (built.enmap, built.desis, built.prisma, built.emit, built.airborne, built.gaofen)
}
#: What the metadata say: quantity, EPSG, first row of the transform, acquisition.
SAID = {
    "enmap": ("reflectance", 32633, (30, 0, 300000), "2022-07-24T10:45:26"),
    "desis": ("reflectance", 32633, (30, 0, 300000), "2020-08-04T23:45:20"),
    "prisma": ("reflectance", 32633, (30, 0, 599985), "2020-11-07T10:14:04"),
    "emit": ("reflectance", 4326, (0.00054, 0, 13), "2022-09-03T16:31:29"),
    "airborne": ("radiance", 32611, (3.213938, -3.830222, 600000), "2017-02-28T17:00:16"),
    "gaofen": ("radiance", 32633, (30, 0, 300000), "2023-10-31"),
}


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Product]:
    """One of each; not to be changed."""
    return {name: build(tmp_path_factory.mktemp(name) / "product") for name, build in BUILDERS.items()}


def entries(product: Product) -> list[Path]:
    """Folder, metadata and data files that a user may name."""
    named = [product.folder, product.entry]
    kinds = ("-SPECTRAL_IMAGE.TIF", "-SPECTRAL_IMAGE.tif", "_SW.tif", "_img.hdr", "L10000412729.xml")
    return named + [file for file in product.folder.iterdir() if file.name.endswith(kinds)]


# What all have in common


@pytest.mark.parametrize("name", BUILDERS)
def test_pixels_mask_and_metadata_come_from_the_product(products, name):
    product, (quantity, epsg, transform, acquired) = products[name], SAID[name]
    for entry in entries(product):
        with open_cube(entry, role="HSI") as reader:
            cube = reader.read()
            assert reader.spectrum.wavelengths_nm == pytest.approx(product.centres)
            assert min(reader.spectrum.fwhm_nm) > 3
            assert (reader.quantity, reader.grid.crs.to_epsg()) == (quantity, epsg)
            assert tuple(reader.grid.transform)[:3] == pytest.approx(transform)
            assert reader.tags["ACQUIRED"] == acquired
            assert set(reader.files) <= {product.folder, *product.folder.iterdir()}
            good = reader.spectrum.good or [True] * reader.count
            np.testing.assert_array_equal(cube.mask, product.mask)
            for band in np.flatnonzero(good):
                found, wanted = cube.data[band][cube.mask], product.values[band][product.mask]
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BUILDERS)
def test_windows_and_bands_give_the_same_as_the_whole(products, name):
    with open_cube(products[name].folder, role="HSI") as reader:
        whole = reader.read()
        rows, cols = reader.grid.shape
        for r in range(0, rows, 7):
            for c in range(0, cols, 6):
                window = Window(c, r, min(6, cols - c), min(7, rows - r))
                part = reader.read(window)
                own = np.s_[r : r + window.height, c : c + window.width]
                np.testing.assert_array_equal(part.data, whole.data[:, *own])
                np.testing.assert_array_equal(part.mask, whole.mask[own])
        order = [reader.count - 1, 0]
        both = reader.read(bands=order)
        kept = whole.mask  # of two bands more pixels may be valid
        np.testing.assert_array_equal(both.data[:, kept], whole.data[order][:, kept])


@pytest.mark.parametrize("name", BUILDERS)
def test_a_decimated_look_takes_pixels_of_the_whole(products, name):
    with open_cube(products[name].folder, role="HSI") as reader:
        data, _ = reader.sample(range(reader.count), reader.grid.shape)
        whole = reader.read()
        np.testing.assert_array_equal(data[0][whole.mask], whole.data[0][whole.mask])
        small, valid = reader.sample([0], (5, 4))
        assert small.shape == valid.shape == (1, 5, 4)
        assert set(small[valid].tolist()) <= set(data[0].ravel().tolist())


@pytest.mark.parametrize("name", ["enmap", "desis", "prisma", "emit", "gaofen", "airborne"])
def test_two_products_in_a_folder_are_told_apart_by_name(tmp_path, name):
    others = {
        "enmap": built.ENMAP.replace("_008_", "_009_"), "desis": built.DESIS.replace("_001-", "_002-"),
        "prisma": "PRS_L2D_STD_2.he5", "emit": "20220903T163141_2224611_013",
        "gaofen": built.GAOFEN.replace("422_", "423_"), "airborne": "ang20170228t180000_rfl_v2",
    }  # fmt: skip
    first, second = BUILDERS[name](tmp_path), BUILDERS[name](tmp_path, others[name])
    with pytest.raises(InputError, match=r"holds 2 .*name one") as caught:
        open_cube(tmp_path, role="HSI")
    assert others[name].split("_")[0] in str(caught.value)
    for product in (first, second):
        with open_cube(product.entry, role="HSI") as reader:
            np.testing.assert_array_equal(reader.read().mask, product.mask)


@pytest.mark.parametrize("name", ["prisma", "emit"])
def test_without_h5py_the_extra_is_named(products, name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install 'hsfuse\[products\]'"):
        open_cube(products[name].entry)


# EnMAP and DESIS


def test_enmap_says_what_it_found(products):
    with open_cube(products["enmap"].folder, role="HSI") as reader:
        assert reader.spectrum.good == (True, True, True, False, True, True, True, True)
        told = " ".join(map(str, reader.notes))
        assert "band 4 of 8: no values" in told
        assert "bands 5 to 6 of the SWIR repeat the range of the VNIR, 902.257 to 993.083 nm" in told
        assert "cloud shadow" in reader.tags["MASK"]
        assert (reader.dtype, reader.nodata) == ("int16", -32768)
        assert reader.scales[:2] == pytest.approx([2e-4, 1e-4])
        assert reader.offsets[:2] == pytest.approx([0.001, 0.002])


@pytest.mark.parametrize("suffix", [".BSQ", ".BIL", ".BIP"])
def test_enmap_as_envi(tmp_path, suffix):
    product = built.enmap(tmp_path, suffix=suffix)
    for entry in (tmp_path, tmp_path / f"{built.ENMAP}-SPECTRAL_IMAGE.HDR"):
        with open_cube(entry, role="HSI") as reader:
            np.testing.assert_array_equal(reader.read().mask, product.mask)
            assert reader.nodata == -32768  # the metadata's: the header names none


@pytest.mark.parametrize("name", ["enmap", "desis"])
def test_archives_and_cloud_optimised_copies(products, name, tmp_path):
    product = products[name]
    stem = {"enmap": built.ENMAP, "desis": built.DESIS}[name]
    with ZipFile(tmp_path / f"{stem}.zip", "w") as archive:
        for file in product.folder.iterdir():
            archive.write(file, f"{stem}/{file.name}")
            if file.is_file():
                copy = file.name.replace(".TIF", "_COG.TIF").replace("QUALITY-2.tif", "QUALITY-2_COG.tif")
                shutil.copy(file, tmp_path / copy)
    for entry in (tmp_path / f"{stem}.zip", tmp_path):
        with open_cube(entry, role="HSI") as reader:
            np.testing.assert_array_equal(reader.read().mask, product.mask)
    (tmp_path / "cut").mkdir()
    cut = tmp_path / "cut" / f"{stem}.zip"
    cut.write_bytes((tmp_path / f"{stem}.zip").read_bytes()[:4000])
    with pytest.raises(InputError, match="can't be read"):
        open_cube(cut)


def test_enmap_l1c_is_radiance_and_l1b_is_refused(tmp_path):
    built.enmap(tmp_path / "c", built.ENMAP.replace("L2A", "L1C"))
    with open_cube(tmp_path / "c", role="HSI") as reader:
        assert reader.quantity == "radiance"
    built.enmap(tmp_path / "b", built.ENMAP.replace("L2A", "L1B"))
    with pytest.raises(InputError, match="L1B, whose detectors aren't on one grid; wanted L2A"):
        open_cube(tmp_path / "b")


def test_quality_layers_that_are_missing_are_told(tmp_path):
    product = built.enmap(tmp_path)
    (tmp_path / f"{built.ENMAP}-QL_QUALITY_HAZE.TIF").unlink()
    with open_cube(tmp_path) as reader:
        assert "lacks QL_QUALITY_HAZE" in " ".join(map(str, reader.notes))
        assert reader.read().mask.sum() == product.mask.sum() + 1
    desis = built.desis(tmp_path / "d")
    (desis.folder / f"{built.DESIS}-QL_QUALITY-2.tif").unlink()
    with open_cube(desis.folder) as reader:
        assert "clouds, haze and shadow aren't masked" in " ".join(map(str, reader.notes))


def test_bands_are_put_in_the_order_of_their_numbers(tmp_path):
    product = built.enmap(tmp_path)
    head, bands = product.entry.read_text().split("<bandCharacterisation>")
    bands, tail = bands.split("</bandCharacterisation>")
    turned = "".join(f"<bandID{band}" for band in reversed(bands.split("<bandID")[1:]))
    product.entry.write_text(f"{head}<bandCharacterisation>{turned}</bandCharacterisation>{tail}")
    with open_cube(tmp_path) as reader:
        assert list(reader.spectrum.wavelengths_nm) == product.centres


def test_a_background_that_nobody_names_is_the_specifications_and_it_is_said(tmp_path):
    product = built.enmap(tmp_path, suffix=".BSQ")
    product.entry.write_text(product.entry.read_text().replace("<backgroundValue>-32768", "<backgroundValue>none"))
    with open_cube(tmp_path) as reader:
        assert "product specification's -32768 is used" in " ".join(map(str, reader.notes))
        np.testing.assert_array_equal(reader.read().mask, product.mask)


def test_background_other_than_the_metadata_say_is_masked_too(tmp_path):
    product = built.enmap(tmp_path, suffix=".BSQ")
    product.entry.write_text(product.entry.read_text().replace("<backgroundValue>-32768", "<backgroundValue>-999"))
    with open_cube(tmp_path) as reader:
        assert reader.nodata == -999
        np.testing.assert_array_equal(reader.read().mask, product.mask)


def test_a_quality_layer_or_a_plain_tile_is_an_ordinary_raster(products, tmp_path):
    layer = products["enmap"].folder / f"{built.ENMAP}-QL_QUALITY_CLOUD.TIF"
    with open_cube(layer) as reader:
        assert (reader.count, reader.driver, reader.quantity) == (1, "GTiff", "unknown")
    with open_cube(write_tif(tmp_path / "GF5_AHSI_result.tif", integers())) as reader:
        assert reader.count == 3
    with rasterio.open(write_tif(tmp_path / "enmap_tile.tif", integers()), "r+") as ds:
        for band in ds.indexes:
            ds.update_tags(band, wavelength=str(400 + 50 * band), wavelength_units="Nanometers", bbl="1")
        ds.scales = (1e-4,) * 3
    with open_cube(tmp_path / "enmap_tile.tif", role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (450, 500, 550)
        assert reader.scale == 1e-4


# PRISMA


def test_prisma_detectors_are_merged_without_overlap(products):
    with open_cube(products["prisma"].folder, role="HSI") as reader:
        assert reader.scales == pytest.approx([0.9 / 65535] * 5)
        assert reader.offsets == pytest.approx([0, 0, 0, -0.1, -0.1])
        assert reader.spectrum.good == (True, True, True, False, True)
        told = " ".join(map(str, reader.notes))
        assert "left out because the detectors overlap there: 2" in told
        assert "over 10% of their pixels are in the error matrix: 1" in told


@pytest.mark.parametrize(("centres", "wanted"), [
    ([[0, 970, 700, 400], [2500, 1500, 960, 0]], [(0, 3), (0, 2), (0, 1), (1, 1), (1, 0)]),
    ([[2500, 1500, 960], [970, 700]], [(1, 1), (1, 0), (0, 1), (0, 0)]),  # the detectors in the wrong order
    ([[400, 700, 970], [960, 1500]], [(0, 0), (0, 1), (0, 2), (1, 1)]),  # rising
    ([[400, 500], []], [(0, 0), (0, 1)]), ([[0, 0], [0]], []),
])  # fmt: skip
def test_detectors_in_any_order_give_one_rising_spectrum(centres, wanted):
    assert merged(centres) == wanted


def test_prisma_detectors_under_each_others_names(tmp_path):
    product = built.prisma(tmp_path)
    with h5py.File(product.entry, "r+") as file:
        data = file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields"]
        for part in ("Cube", "PIXEL_L2_ERR_MATRIX"):
            data.move(f"VNIR_{part}", "held")
            data.move(f"SWIR_{part}", f"VNIR_{part}")
            data.move("held", f"SWIR_{part}")
        for name in ("List_Cw_{}", "List_Cw_{}_Flags", "List_Fwhm_{}", "L2Scale{}Min", "L2Scale{}Max"):
            vnir, swir = file.attrs[name.format("Vnir")], file.attrs[name.format("Swir")]
            file.attrs[name.format("Vnir")], file.attrs[name.format("Swir")] = swir, vnir
    with open_cube(product.entry, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == pytest.approx(product.centres)
        np.testing.assert_allclose(reader.read().data[2][product.mask], product.values[2][product.mask], atol=1e-6)


def test_prisma_without_its_optional_layers(tmp_path):
    product = built.prisma(tmp_path)
    with h5py.File(product.entry, "r+") as file:
        for detector in ("VNIR", "SWIR"):
            del file[f"HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/{detector}_PIXEL_L2_ERR_MATRIX"]
        del file["HDFEOS/SWATHS/PRS_L2D_HCO/Geometric Fields"]
    with open_cube(product.entry, role="HSI") as reader:
        mask = reader.read().mask
        assert not mask[:4, :6].any()  # every band is 0 beyond the swath
        assert mask[4:].all()


# EMIT and lookup tables


def test_emit_lookup_takes_negative_entries_and_masks_what_it_lacks(products):
    with h5py.File(products["emit"].entry, locking=False) as file:
        glt = file["location/glt_x"][:]
    with open_cube(products["emit"].entry) as reader:
        mask = reader.read().mask
        assert mask[glt < 0].any()
        assert not mask[glt == 0].any()
        assert reader.spectrum.good == (True, True, False, True)
        assert "dilated cloud flag" in reader.tags["MASK"]
        assert "water" not in reader.tags["MASK"]


def test_emit_radiance_and_a_mask_with_another_order_of_flags(tmp_path):
    product = built.emit(tmp_path, kind="L1B_RAD")
    with h5py.File(tmp_path / f"EMIT_L2A_MASK_001_{built.EMIT}.nc", "r+") as file:
        mask = file["mask"][:]
        names = ["Cloud Flag", "Water Flag", "Dilated Cloud Flag", "SpecTf-Cloud Probability", "SpecTf-Cloud Flag"]
        del file["mask"], file["sensor_band_parameters/mask_bands"]
        file["mask"] = np.concatenate([mask[..., [0, 2, 4, 5]], np.zeros_like(mask[..., :1])], axis=2)
        file["sensor_band_parameters/mask_bands"] = names  # text of any length, as netCDF writes it
    with open_cube(product.entry, role="HSI") as reader:
        assert (reader.quantity, reader.spectrum.good) == ("radiance", None)
        np.testing.assert_array_equal(reader.read().mask, product.mask)


def test_emit_without_its_mask_file_says_so(tmp_path):
    product = built.emit(tmp_path, with_mask=False)
    with open_cube(tmp_path, role="HSI") as reader:
        np.testing.assert_array_equal(reader.read().mask, product.mask)
        assert f"no EMIT_L2A_MASK_*_{built.EMIT}.nc lies beside it; clouds aren't masked" in " ".join(
            map(str, reader.notes)
        )


def test_lookups_in_small_steps_give_the_same(products, monkeypatch):
    sizes: list[int] = []

    def noted(cube, axes, read=hdf5.slab):
        sizes.append(read(cube, axes).nbytes)
        return read(cube, axes)

    with open_cube(products["emit"].entry) as reader:
        whole = reader.read()
        monkeypatch.setattr(hdf5, "slab", noted)
        monkeypatch.setattr(hdf5, "_GAP", 1)  # bands between those asked aren't read
        monkeypatch.setattr(ortho, "_BUDGET", 700)
        np.testing.assert_array_equal(reader.read().data, whole.data)
        assert len(sizes) > 20
        assert max(sizes) <= 700


@pytest.mark.parametrize("reference", [(1, 1), (1.5, 1.5), (3, 2)])
def test_a_rotated_image_turns_about_its_reference_pixel(tmp_path, reference):
    x, y = reference
    info = f"map info = {{UTM, {x}, {y}, 600000, 5000000, 10, 10, 33, North, WGS-84, units=Meters, rotation=30}}"
    write_envi(tmp_path / "a.dat", integers(), info)
    with rasterio.open(tmp_path / "a.dat") as ds:
        transform = map_transform(ds, find_pair(tmp_path / "a.dat"))
    assert transform @ (x - 1, y - 1) == pytest.approx((600000, 5000000))
    assert (transform.a, transform.b) == pytest.approx((10 * np.cos(np.pi / 6), 5))


def test_an_image_on_a_map_is_not_orthorectified_again(tmp_path):
    product = built.airborne(tmp_path)
    header = product.entry.with_name(product.entry.name + ".hdr")
    info = "map info = {UTM, 1, 1, 500000, 4000000, 5, 5, 11, North, WGS-84, units=Meters, rotation=20}\n"
    header.write_text(header.read_text() + info)
    with open_cube(tmp_path, role="HSI") as reader:
        assert reader.grid.shape == (12, 9)
        assert reader.quantity == "radiance"
        assert reader.read().mask.all()


def test_hyspex_in_sensor_geometry_with_its_table(tmp_path):
    turns = {0: "VNIR", 45: "SWIR"}
    scenes = {turn: built.airborne(tmp_path, f"Kaufbeuren_{name}_rad", turn) for turn, name in turns.items()}
    for turn, wanted in scenes.items():  # each by its own table and not the other detector's
        with open_cube(wanted.entry, role="HSI") as reader:
            assert reader.quantity == "unknown"
            assert reader.grid.transform.b == pytest.approx(5 * np.sin(np.deg2rad(turn)))
            np.testing.assert_array_equal(reader.read().mask, wanted.mask)
    with open_cube(tmp_path / "Kaufbeuren_SWIR_rad_glt") as reader:
        assert (reader.count, reader.dtype) == (2, "int32")
