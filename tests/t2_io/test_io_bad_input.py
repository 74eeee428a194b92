"""Bad input: one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from rasters import integers, write_envi, write_tif

from hsfuse.core.errors import InputError
from hsfuse.io import open_cube


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """A file of each kind that can't be read, with what the error must say."""
    text, empty, tif = (
        folder / "a.txt",
        folder / "empty.tif",
        write_tif(folder / "cut.tif", integers(shape=(3, 400, 400))),
    )
    text.write_text("not a raster")
    empty.touch()
    tif.write_bytes(tif.read_bytes()[:150])
    headers = {
        name: write_envi(folder / f"{name}.dat", integers())
        for name in ("short", "long", "alone", "library", "odd", "marked")
    }
    (folder / "short.dat").write_bytes(b"1" * 119)
    (folder / "long.dat").write_bytes(b"1" * 121)
    (folder / "alone.dat").unlink()
    headers["library"].write_text(headers["library"].read_text().replace("Standard", "Spectral Library"))
    headers["odd"].write_text(headers["odd"].read_text().replace("= 4\n", "= four\n"))
    headers["marked"].write_text(headers["marked"].read_text(), encoding="utf-8-sig")
    foreign, lacking = folder / "foreign.hdr", folder / "lacking.hdr"
    foreign.write_text("BYTEORDER I\nLAYOUT BIL\n")
    lacking.write_text("ENVI\nsamples = 3\n")
    (folder / "lacking.dat").write_bytes(b"1")
    bare = folder / "bare.img"
    bare.write_bytes(b"1" * 120)
    complex_ = write_tif(folder / "complex.tif", np.ones((1, 2, 2), np.complex64))
    return {
        "missing": (folder / "nope.tif", "doesn't exist"),
        "folder": (folder, "is a folder"),
        "text": (text, "isn't a raster"),
        "empty": (empty, "empty"),
        "cut": (tif, "can't|isn't"),
        "short": (headers["short"], "4 x 5 x 3.* make 120 bytes.* has 119"),
        "long": (folder / "long.dat", "make 120 bytes.* has 121"),
        "alone": (headers["alone"], "without its data file"),
        "bare": (bare, "need their header, bare.hdr, beside them"),
        "library": (folder / "library.dat", "spectral library"),
        "odd": (headers["odd"], "samples = four"),
        "marked": (folder / "marked.dat", r"marked.hdr begins with a byte order mark \(BOM\)"),
        "foreign": (foreign, "isn't an ENVI header"),
        "lacking": (lacking, "lacks the field 'lines'"),
        "complex": (complex_, "complex"),
        "no wavelengths": (write_tif(folder / "plain.tif", integers()), "no wavelengths"),
    }


def test_bad_input_is_told_in_one_line(tmp_path):
    for path, message in bad_files(tmp_path).values():
        with pytest.raises(InputError, match=message) as caught:
            open_cube(path, role="HSI")
        assert "\n" not in str(caught.value)
        assert path.stem in str(caught.value)
        assert str(caught.value).count("cut.tif") <= 1  # GDAL begins with the file's name, too


def test_pixels_cut_off_are_told_when_read(tmp_path):
    path = write_tif(tmp_path / "a.tif", integers(shape=(3, 300, 300)), compress="deflate", tiled=True)
    path.write_bytes(path.read_bytes()[:-2000])
    with open_cube(path) as reader, pytest.raises(InputError, match="can't be read") as caught:
        reader.read()
    assert str(caught.value).count("a.tif") == 1


def test_a_window_outside_is_refused(tmp_path):
    with (
        open_cube(write_tif(tmp_path / "a.tif", integers())) as reader,
        pytest.raises(InputError, match="isn't inside"),
    ):
        reader.read(Window(0, 4, 4, 2))


@pytest.mark.parametrize("field", ["interleave = xyz", "byte order = 7"])
def test_a_layout_that_there_is_not_is_refused(tmp_path, field):
    header = write_envi(tmp_path / "a.dat", integers())
    name = field.split(" =")[0]
    lines = [field if line.startswith(name) else line for line in header.read_text().splitlines()]
    header.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"says {field}; wanted"):
        open_cube(header)


@pytest.mark.parametrize("transform", [(40, 0, 0, 0, 0, 0), (float("nan"), 0, 0, 0, -40, 0)])
def test_a_map_transform_without_sense_is_not_used(tmp_path, transform):
    path = write_tif(tmp_path / "a.tif", integers(), transform=rasterio.Affine(*transform))
    with open_cube(path) as reader:
        assert not reader.grid.georeferenced
        assert any("makes no sense and isn't used" in note.text for note in reader.notes)


def test_bands_of_different_types_are_read_as_the_type_that_holds_all(tmp_path):
    write_tif(tmp_path / "a.tif", integers("int16", (1, 5, 4)))
    write_tif(tmp_path / "b.tif", integers("float32", (1, 5, 4)) / 3)
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><SimpleSource><SourceFilename relativeToVRT="1">{name}.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for i, (kind, name) in enumerate((("Int16", "a"), ("Float32", "b")), 1)
    )
    (tmp_path / "c.vrt").write_text(f'<VRTDataset rasterXSize="4" rasterYSize="5">{bands}</VRTDataset>')
    with open_cube(tmp_path / "c.vrt") as reader:
        cube = reader.read().data
    for band, name in enumerate("ab"):
        with rasterio.open(tmp_path / f"{name}.tif") as ds:
            np.testing.assert_array_equal(cube[band], ds.read(1).astype("float32"))
