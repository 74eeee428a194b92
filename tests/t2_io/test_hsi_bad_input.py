"""Hyperspectral products that are incomplete, cut off or contradict themselves: one clear line each."""

from __future__ import annotations

from collections.abc import Callable

import h5py
import hsi_products as built
import numpy as np
import pytest
from hsi_products import Product
from rasters import integers, nm, write_envi, write_tif

from hsfuse.core.errors import InputError
from hsfuse.io import open_cube


def xml(old: str, new: str) -> Callable[[Product], None]:
    def change(product: Product) -> None:
        product.entry.write_text(product.entry.read_text().replace(old, new))

    return change


def cut(share: float) -> Callable[[Product], None]:
    def change(product: Product) -> None:
        raw = product.entry.read_bytes()
        product.entry.write_bytes(raw[: int(len(raw) * share)])

    return change


def attrs(**values: object) -> Callable[[Product], None]:
    """Attributes of the HDF5 file set, or deleted when None."""

    def change(product: Product) -> None:
        with h5py.File(product.entry, "r+") as file:
            for key, value in values.items():
                if value is None:
                    del file.attrs[key]
                else:
                    file.attrs[key] = value

    return change


def data(name: str, value: np.ndarray | None) -> Callable[[Product], None]:
    def change(product: Product) -> None:
        with h5py.File(product.entry, "r+") as file:
            del file[name]
            if value is not None:
                file[name] = value

    return change


def without(part: str) -> Callable[[Product], None]:
    return lambda product: [file.unlink() for file in product.folder.glob(f"*{part}*")] and None


def image(shape: tuple[int, ...], part: str = "-SPECTRAL_IMAGE.TIF") -> Callable[[Product], None]:
    def change(product: Product) -> None:
        write_tif(next(product.folder.glob(f"*{part}")), integers(shape=shape), nodata=-32768, **built.PLACE)

    return change


HCO = "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields"
BAD = [
    ("enmap", without("METADATA"), "lacks ENMAP01.*-METADATA.XML"),
    ("enmap", without("SPECTRAL"), "lacks ENMAP01.*-SPECTRAL_IMAGE"),
    ("enmap", cut(0.5), "isn't XML"),
    ("enmap", cut(0), "isn't XML"),
    ("enmap", xml("<level_X>", "<!DOCTYPE x [<!ENTITY a 'b'>]><level_X>"), "declares a document type"),
    ("enmap", xml("bandCharacterisation", "other"), "describes no bands: wanted bandCharacterisation"),
    ("enmap", xml("wavelengthCenterOfBand", "other"), "doesn't say wavelengthCenterOfBand of band 1"),
    ("enmap", xml("<wavelengthCenterOfBand>985.0", "<wavelengthCenterOfBand>nan"), "wavelengthCenterOfBand of band 3"),
    ("enmap", xml("<GainOfBand>0.0002<", "<GainOfBand>0<"), "GainOfBand = 0 and OffsetOfBand = 0.001 for band 1"),
    ("enmap", xml("wavelengthCenterOfBand>", "wavelengthCenterOfBand>9999"), "unknown units"),
    ("enmap", image((7, 60, 55)), "has 7 bands but .*METADATA.XML describes 8"),
    ("enmap", image((8, 60, 54)), "has 60 x 54 pixels but .*METADATA.XML says 60 x 55"),
    ("enmap", image((1, 30, 30), "QL_QUALITY_CLOUD.TIF"), "QL_QUALITY_CLOUD"),
    ("desis", without("METADATA"), "lacks DESIS.*-METADATA.XML"),
    ("desis", image((3, 50, 60), "QUALITY-2.tif"), "has 3 bands; wanted at least 4"),
    ("prisma", cut(0.6), "can't be read"),
    ("prisma", cut(0), "isn't HDF5"),
    ("prisma", lambda p: p.entry.write_text("<html>log in first</html>") and None, "isn't HDF5"),
    ("prisma", attrs(List_Cw_Vnir=None), "lacks the attribute List_Cw_Vnir"),
    ("prisma", attrs(List_Cw_Vnir=[400.0, 500.0]), "List_Cw_Vnir has 2 values; wanted 4"),
    ("prisma", attrs(List_Cw_Vnir=np.zeros(4), List_Cw_Swir=np.zeros(5)), "no band with a wavelength"),
    ("prisma", attrs(List_Fwhm_Swir=[np.nan] * 5), "List_Fwhm_Swir should be numbers"),
    ("prisma", attrs(L2ScaleSwirMax=None), "lacks the attribute L2ScaleSwirMax"),
    ("prisma", attrs(L2ScaleVnirMax=-1.0), "should be below"),
    ("prisma", attrs(Epsg_Code=1), "Epsg_Code 1 is no known CRS"),
    ("prisma", attrs(Product_LRcorner_easting=601000.0), "don't fit 30 x 40 pixels of 30 m"),
    ("prisma", data(f"{HCO}/SWIR_Cube", None), "lacks the dataset .*SWIR_Cube"),
    ("prisma", data(f"{HCO}/SWIR_Cube", np.ones((40, 5, 29), "u2")), "SWIR"),
    ("prisma", data(f"{HCO}/VNIR_Cube", np.ones((40, 30), "u2")), "wanted 3 dimensions"),
    ("prisma", data("HDFEOS/SWATHS/PRS_L2D_HCO", None), r"isn't PRISMA L2D .*wanted the orthorectified"),
    ("emit", cut(0.3), "can't be read"),
    ("emit", data("sensor_band_parameters/wavelengths", None), "lacks sensor_band_parameters/wavelengths"),
    ("emit", data("sensor_band_parameters/wavelengths", np.ones(3)), "has 3 values; wanted 4"),
    ("emit", data("location/glt_x", None), "lacks the dataset location/glt_x"),
    ("emit", data("location/glt_y", np.ones((3, 3), "i4")), "glt_x is .* but glt_y"),
    ("emit", data("location/glt_y", np.full((36, 44), 31, "i4")), "points at line 31.* of an image of 30 lines"),
    ("emit", attrs(geotransform=None), "lacks the attribute geotransform"),
    ("emit", attrs(geotransform=np.zeros(6)), "has no area"),
    ("emit", attrs(spatial_ref="nowhere"), "names no CRS: 'nowhere'"),
    ("gaofen", without("_SW.tif"), "lacks GF5B.*_SW.tif; wanted both"),
    ("gaofen", without("RadCal_SWIR"), r"lacks GF5\*_RadCal\*_SWIR.raw; wanted gain, offset"),
    ("gaofen", without("Spectralresponse_VNIR"), r"lacks GF5\*_Spectral\*_VNIR.raw; wanted centre, FWHM"),
    ("gaofen", image((3, 11, 10), "_SW.tif"), "aren't on one grid"),
    ("gaofen", image((2, 12, 10), "_SW.tif"), "has 3 lines of gain, offset; wanted 2"),
    ("airborne", lambda p: (p.folder / "ang20170228t170016_rdn_v2p5_glt").unlink(), "without its data file"),
    ("airborne", lambda p: p.entry.write_bytes(b"1234"), "disagree"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), BAD, ids=[f"{i}-{b[0]}" for i, b in enumerate(BAD)])
def test_bad_input_is_told_in_one_line(tmp_path, name, change, message):
    product = getattr(built, name)(tmp_path / "product")
    change(product)
    entry = product.entry if product.entry.exists() else product.folder
    with pytest.raises(InputError, match=message) as caught, open_cube(entry, role="HSI") as reader:
        reader.read()
    assert "\n" not in str(caught.value)


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match="folder"):
        open_cube(tmp_path, role="HSI")


def test_a_table_without_map_info_is_refused(tmp_path):
    product = built.airborne(tmp_path)
    header = tmp_path / "ang20170228t170016_rdn_v2p5_glt.hdr"
    header.write_text("\n".join(line for line in header.read_text().splitlines() if "map info" not in line))
    with pytest.raises(InputError, match="has no map info"):
        open_cube(product.entry)
    write_envi(tmp_path / "ang20170228t170016_rdn_v2p5_glt", integers("int32"), *nm(1, 2, 3), header=header)
    with pytest.raises(InputError, match="has 3 bands; a lookup table has two"):
        open_cube(product.entry)
