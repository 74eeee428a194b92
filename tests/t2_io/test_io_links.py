"""Files that lead to others: VRTs of local files are opened, the network, archives and code are not."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import hsi_products as built
import numpy as np
import pytest
import rasterio
from rasters import integers, write_envi, write_tif

from hsfuse.core.errors import InputError
from hsfuse.io import open_cube


def vrt(path: Path, *bands: str, size: tuple[int, int] = (4, 5), extra: str = "") -> Path:
    """A VRT with a band for each element that says where its pixels are."""
    told = "".join(
        f'<VRTRasterBand dataType="Int16" band="{i}"><SimpleSource>{source}<SourceBand>1</SourceBand></SimpleSource>'
        f"{extra}</VRTRasterBand>"
        for i, source in enumerate(bands, 1)
    )
    path.write_text(f'<VRTDataset rasterXSize="{size[0]}" rasterYSize="{size[1]}">{told}</VRTDataset>')
    return path


def source(place: object, relative: int = 0) -> str:
    return f'<SourceFilename relativeToVRT="{relative}">{place}</SourceFilename>'


def test_a_vrt_of_bands_in_a_sibling_folder_is_read(tmp_path):
    for name in ("bands", "mine"):
        (tmp_path / name).mkdir()
    pixels = integers(shape=(2, 5, 4))
    files = [write_tif(tmp_path / "bands" / f"B0{i}.tif", pixels[i : i + 1]) for i in (0, 1)]
    inner = vrt(tmp_path / "mine" / "inner.vrt", source("../bands/B00.tif", 1), source(files[1]))
    for path in (inner, vrt(tmp_path / "mine" / "outer.vrt", source("inner.vrt", 1))):
        with open_cube(path) as reader:
            np.testing.assert_array_equal(reader.read().data, pixels[: reader.count])


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/vsicurl/http://127.0.0.1:1/a.tif", "leads to"),
        ("http://127.0.0.1:1/a.tif", "leads to"),
        ("vrt:///a.tif?bands=1", "leads to"),
        ("&lt;GDAL_WMS/&gt;", "leads to"),
        ("/vsizip/a.zip/a.tif", "leads to"),
        ("nowhere.tif", "isn't there"),
        ("wms.xml", "names places of pixels"),
        ("items.json", "names places of pixels"),
        ("tiles.gti.gpkg", "index of tiles"),
        ("a.vrt", "VRT of VRTs"),
    ],
)
def test_a_vrt_that_leads_elsewhere_is_refused(tmp_path, place, said):
    (tmp_path / "wms.xml").write_text("<GDAL_WMS><Service/></GDAL_WMS>")
    (tmp_path / "items.json").write_text('{"type": "FeatureCollection"}')
    (tmp_path / "tiles.gti.gpkg").write_bytes(b"SQLite format 3\0")
    with pytest.raises(InputError, match=said):
        open_cube(vrt(tmp_path / "a.vrt", source(place, int("/" not in place))))


@pytest.mark.parametrize(
    "extra",
    [
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage>",
        '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">b.tif</MDI></Metadata>',
        '<MaskBand><VRTRasterBand><SimpleSource><SourceFilename shared="/vsicurl/x"/></SimpleSource></VRTRasterBand>'
        "</MaskBand>",
        "<Overview><SourceFilename>/vsis3/bucket/a.tif</SourceFilename></Overview>",
    ],
)
def test_code_and_other_ways_out_of_a_vrt_are_refused(tmp_path, extra):
    write_tif(tmp_path / "b.tif", integers())
    with pytest.raises(InputError, match=r"isn't run or followed|leads to"):
        open_cube(vrt(tmp_path / "a.vrt", source("b.tif", 1), extra=extra))


def test_a_web_address_in_what_a_vrt_only_tells_is_no_place(tmp_path):
    write_tif(tmp_path / "b.tif", integers())
    told = '<Metadata><MDI key="TIFFTAG_COPYRIGHT">https://example.org/licence</MDI></Metadata>'
    with open_cube(vrt(tmp_path / "a.vrt", source("b.tif", 1), extra=told)) as reader:
        assert reader.count == 1


def test_a_vrt_that_claims_more_than_its_sources_hold(tmp_path):
    write_tif(tmp_path / "b.tif", integers())
    with pytest.raises(InputError, match="is the file damaged"):
        open_cube(vrt(tmp_path / "a.vrt", source("b.tif", 1), size=(2_000_000, 2_000_000)))


def test_a_services_description_is_no_raster(tmp_path):
    (tmp_path / "a.tif").write_text("<GDAL_WMS><Service/></GDAL_WMS>")
    with pytest.raises(InputError, match="names places of pixels"):
        open_cube(tmp_path / "a.tif")


def test_pixels_that_happen_to_be_letters_are_no_text(tmp_path):
    cube = np.frombuffer(b'<a>{"b": "c"}<d/>' * 8, "uint8")[:120].reshape(2, 6, 10)
    header = write_envi(tmp_path / "a.dat", cube)
    with open_cube(header) as reader:
        np.testing.assert_array_equal(reader.read().data, cube)


def test_a_list_behind_other_bytes_is_one(tmp_path):
    path = vrt(tmp_path / "a.tif", source("/vsicurl/http://127.0.0.1:1/a.tif"))
    path.write_bytes(b"\0\1" + path.read_bytes())
    with pytest.raises(InputError, match="isn't XML"):
        open_cube(path)


def test_a_vrt_in_the_place_of_a_products_image_is_refused(tmp_path):
    product = built.enmap(tmp_path / "e")
    (image,) = product.folder.glob("*SPECTRAL_IMAGE.TIF")
    elsewhere = tmp_path / "elsewhere.tif"
    image.rename(elsewhere)
    vrt(image, *[source(elsewhere)] * len(product.centres), size=(55, 60))
    archive = tmp_path / f"{product.entry.name.split('-METADATA')[0]}.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in product.folder.iterdir():
            packed.write(file, file.name)
    for path in (product.entry, archive):
        with pytest.raises(InputError, match="isn't a raster that can be read"):
            open_cube(path)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("ending", [".aux.xml", ".msk", ".ovr"])
def test_what_lies_beside_a_raster_does_not_lead_elsewhere(tmp_path, ending, given):
    if given:
        image = entry = write_tif(tmp_path / "a.tif", integers())
    else:
        entry = built.enmap(tmp_path / "e").entry
        (image,) = entry.parent.glob("*SPECTRAL_IMAGE.TIF")
    other = write_tif(tmp_path / "b.tif", integers())
    beside = Path(f"{image}{ending}")
    vrt(beside, source(other))
    if ending == ".aux.xml":
        told = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{other}</MDI></Metadata>'
        beside.write_text(f"<PAMDataset>{told}</PAMDataset>")
    with pytest.raises(InputError, match="elsewhere"):
        open_cube(entry)


def test_a_mask_beside_an_image_in_an_archive_leads_nowhere(tmp_path):
    product = built.enmap(tmp_path / "e")
    (image,) = product.folder.glob("*SPECTRAL_IMAGE.TIF")
    none = write_tif(tmp_path / "none.tif", np.zeros((1, 60, 55), "uint8"))
    vrt(Path(f"{image}.msk"), source(none), size=(55, 60),
        extra='<Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>')  # fmt: skip
    archive = tmp_path / f"{product.entry.name.split('-METADATA')[0]}.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in product.folder.iterdir():
            packed.write(file, file.name)
    with open_cube(archive) as reader:
        np.testing.assert_array_equal(reader.read().mask, product.mask)


def test_chunks_of_a_netcdf_file_are_looked_at_before_gdal_does(tmp_path):
    path = tmp_path / "a.nc"
    with h5py.File(path, "w") as file:
        file.create_dataset("reflectance", (4, 20_000, 20_000), "u2", chunks=(4, 20_000, 20_000), compression="gzip")
    for name in (path, f"NETCDF:{path}:reflectance", f"HDF5:{path}://reflectance"):
        with pytest.raises(InputError, match="lies in chunks of 3200000000 bytes"):
            open_cube(name)


def test_a_plain_netcdf_file_is_read(tmp_path):
    path, pixels = tmp_path / "a.nc", integers(shape=(3, 5, 4))
    with h5py.File(path, "w") as file:
        file["reflectance"] = pixels
    with open_cube(f"HDF5:{path}://reflectance") as reader:
        np.testing.assert_array_equal(reader.read().data, pixels)


def test_an_image_in_an_archive_that_claims_more_than_the_archive_holds(tmp_path):
    image = tmp_path / "a.tif"
    with rasterio.open(image, "w", driver="GTiff", width=900_000, height=900_000, count=1, dtype="uint8", crs=4326,
                       transform=rasterio.Affine(1e-5, 0, 0, 0, -1e-5, 9), sparse_ok=True, bigtiff="yes", tiled=True,
                       blockxsize=8192, blockysize=8192):  # fmt: skip
        pass
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(image, "a.tif")
    with pytest.raises(InputError, match="is the file damaged"):
        open_cube(f"/vsizip/{tmp_path}/a.zip/a.tif")
