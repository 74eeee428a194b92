"""Broken multispectral products: one clear line each, whatever is missing, cut off or damaged."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import msi_products as made
import numpy as np
import pytest

from hsfuse.core.errors import InputError
from hsfuse.io import open_cube


def whole(path):
    with open_cube(path) as reader:
        return reader.read(), reader


def edited(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def told(product: Path) -> Path:
    """Its metadata file."""
    return next(f for pattern in ("MTD_MSI*.xml", "*MTL.txt", "*.xml") for f in sorted(product.glob(pattern)))


def imd(image: Path) -> Path:
    return image.with_suffix(".IMD")


def cut(file: Path, share: float = 0.5) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * share)])


S2_HARM = {
    "no metadata": (lambda safe: (safe / "MTD_MSIL2A.xml").unlink(), "lacks its metadata file"),
    "cut metadata": (lambda safe: cut(told(safe)), "isn't XML"),
    "no band": (lambda safe: next(safe.rglob("*_B08_10m.jp2")).unlink(), "lacks the image of B8"),
    "one 20 m band gone": (lambda safe: next(safe.rglob("*_B11_20m.jp2")).unlink(), "lacks the image of B11"),
    "cut band": (lambda safe: cut(next(safe.rglob("*_B04_10m.jp2"))), "B04_10m.jp2 .*(can't be read|isn't a raster)"),
    "empty band": (lambda safe: next(safe.rglob("*_B04_10m.jp2")).write_bytes(b""), "empty"),
    "no granule": (lambda safe: next(safe.glob("GRANULE")).rename(safe / "OTHER"), "no GRANULE"),
    "no offsets": (lambda safe: edited(told(safe), "BOA_ADD_OFFSET", "BOA_ADD"), "lacks the offsets"),
    "no quantification": (lambda safe: edited(told(safe), ">10000<", "><"), "doesn't say a quantification"),
    "zero quantification": (lambda safe: edited(told(safe), ">10000<", ">0<"), "more than 0"),
    "strange offset": (lambda safe: edited(told(safe), ">-900<", ">many<"), "'many'; wanted a number"),
    "two tiles": (
        lambda safe: made.write_raster(safe / "GRANULE/L2A_T33UVV_A1/IMG_DATA/x.tif", made.counts((4, 4), 1), 10),
        "2 tiles",
    ),
}  # fmt: skip
LANDSAT_HARM = {
    "no metadata": (lambda folder: next(folder.glob("*MTL.txt")).unlink(), r"lacks its metadata file \*_MTL.txt"),
    "cut metadata": (lambda folder: cut(told(folder)), "ends inside the group"),
    "no band": (lambda folder: next(folder.glob("*SR_B3.TIF")).unlink(), "SR_B3.TIF, which isn't there"),
    "no factor": (lambda f: edited(told(f), "_ADD_BAND_3 = -0.2", "_ADD = 1"), "doesn't say .*ADD_BAND_3"),
    "no level": (lambda f: edited(told(f), "PROCESSING_LEVEL", "LEVEL"), "PROCESSING_LEVEL"),
    "collection 1": (lambda f: edited(told(f), "LANDSAT_METADATA_FILE", "L1_METADATA_FILE"), "Collection 1"),
    "no bands": (lambda f: edited(told(f), "FILE_NAME_BAND", "NAME_BAND"), "names no band"),
    "empty": (lambda folder: next(folder.glob("*MTL.txt")).write_text(""), "nothing known"),
}  # fmt: skip
PLANET_HARM = {
    "no coefficient": (lambda f: edited(told(f), "reflectanceCoefficient", "coefficient"), "reflectanceCoeff"),
    "a band without": (lambda f: edited(told(f), "Number>4<", "Number>5<"), "of band 4"),
    "cut metadata": (lambda folder: cut(told(folder)), "isn't XML"),
    "cut image": (lambda folder: cut(next(folder.glob("*AnalyticMS.tif")), 0.05), "AnalyticMS.tif"),
    "mask elsewhere": (
        lambda f: made.write_raster(next(f.glob("*udm2*")), made.counts((8, 40, 40), 1, "uint8"), 3, (0, 0)), "doesn't"
    ),
    "two scenes": (
        lambda f: made.write_raster(f / "20220725_101559_68_2479_3B_AnalyticMS.tif", made.counts((4, 4), 1), 3),
        "2 scenes",
    ),
}  # fmt: skip


MAXAR_HARM = {
    "cut": (lambda image: cut(imd(image), 0.6), "ends .* is the download complete"),
    "a band less": (lambda image: edited(imd(image), "BAND_N2", "BAND_X"), "8 bands but .* describes 7"),
    "no factor": (lambda image: edited(imd(image), "absCalFactor", "calFactor"), "doesn't say absCalFactor"),
    "no width": (lambda image: edited(imd(image), "5.000000e-02", "0"), "more than 0"),
}


def check_refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        whole(path)
    assert "\n" not in str(caught.value)


def planet(folder: Path) -> Path:
    made.planet(folder, 4, surface=False)
    return folder


#: Product -> what makes it and gives its path, what may be wrong with it.
PRODUCTS = {
    "sentinel2": (made.sentinel2, S2_HARM),
    "landsat": (made.landsat, LANDSAT_HARM),
    "planet": (planet, PLANET_HARM),
    "imd": (made.maxar, MAXAR_HARM),
}


@pytest.mark.parametrize(("product", "harm"), [(name, harm) for name, (_, harms) in PRODUCTS.items() for harm in harms])
def test_a_broken_product_is_told_in_one_line(tmp_path, product, harm):
    make, harms = PRODUCTS[product]
    path = make(tmp_path)
    do, message = harms[harm]
    do(path)
    check_refused(path, message)


def test_broken_json_and_xml_of_landsat(tmp_path):
    for craft, spelling, message in ((8, "json", "isn't JSON"), (9, "xml", "isn't XML")):
        folder = made.landsat(tmp_path, craft, spelling=spelling)
        cut(next(folder.glob("*MTL*")))
        check_refused(folder, message)
    folder = made.landsat(tmp_path, 5, spelling="json")
    next(folder.glob("*MTL*")).write_text(json.dumps({"LANDSAT_METADATA_FILE": [1], "b": 2}))
    check_refused(folder, "nothing known")


def test_products_open_in_the_archives_that_are_delivered(tmp_path):
    safe, folder = made.sentinel2(tmp_path / "a"), made.landsat(tmp_path / "b")
    for product, archive in (
        (safe, shutil.make_archive(str(safe), "zip", safe.parent, safe.name)),
        (folder, shutil.make_archive(str(folder), "tar", folder)),
    ):
        wanted, _ = whole(product)
        cube, reader = whole(archive)
        np.testing.assert_array_equal(cube.data, wanted.data)
        np.testing.assert_array_equal(cube.mask, wanted.mask)
        assert Path(archive) in reader.files
        cut(Path(archive))
        check_refused(Path(archive), "archive that can't be read|can't be read")


def test_other_archives_and_folders_are_no_products(tmp_path):
    for name in (made.S2_NAME.format(level="2A") + ".zip", "LC09_L2SP_193024_20220724_20220730_02_T1.tar"):
        (tmp_path / name).write_bytes(b"x")
        check_refused(tmp_path / name, "is an archive that can't be read")
    (tmp_path / "empty").mkdir()
    check_refused(tmp_path / "empty", "is a folder")
    check_refused(tmp_path / "MTD_MSIL2A.xml", "doesn't exist")
    (tmp_path / "a.SAFE").mkdir()
    check_refused(tmp_path / "a.SAFE", "holds no GRANULE")


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """One byte, number or stretch of a metadata file changed."""
    out, at = bytearray(raw), rng.randrange(len(raw))
    numbers = [match.span() for match in re.finditer(rb"-?\d+(?:\.\d+)?", raw)]
    kind = rng.randrange(5)
    if kind == 0:
        out[at] = rng.randrange(256)
    elif kind == 1:
        del out[at : at + rng.randint(1, 60)]
    elif kind == 2:
        out[at:at] = rng.choice([b"<", b"&", b"\x00", b"}", b"GROUP = X\n", b"END_GROUP\n", b"\xff\xfe"])
    else:
        start, end = rng.choice(numbers)
        out[start:end] = rng.choice([b"nan", b"-1", b"0", b"1e400", b"", b"abc", b"9" * 20, b"1e-320"])
    return bytes(out)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_metadata_give_clean_errors_only(tmp_path, count):
    rng = random.Random(count)
    safe, image = made.sentinel2(tmp_path / "s", size=24), made.planet(tmp_path / "p", 4, surface=False, size=8)
    scenes = [made.landsat(tmp_path, craft, level, spelling, size=8)
              for craft, level, spelling in ((9, 2, "txt"), (8, 1, "json"), (5, 2, "xml"))]  # fmt: skip
    cases = [(safe, told(safe)), (safe, next(safe.rglob("MTD_TL.xml"))), (image, told(image.parent))]
    worldview = made.maxar(tmp_path / "m", size=8)
    cases += [(worldview, imd(worldview))]
    cases += [(scene, next(scene.glob("*_MTL.*"))) for scene in scenes]
    opened, errors = 0, []
    for _ in range(count):
        product, file = rng.choice(cases)
        raw = file.read_bytes()
        file.write_bytes(mutated(raw, rng))
        try:
            whole(product)
            opened += 1
        except InputError as error:
            errors.append(str(error))
        file.write_bytes(raw)
    assert opened > 0
    assert len(errors) > 0
    assert not any("\n" in error for error in errors)
