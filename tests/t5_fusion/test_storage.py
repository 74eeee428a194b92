"""Numbers on disk: steps that hold the values, values that don't fit told, and refusals before the fit."""

from __future__ import annotations

import numpy as np
import pytest
from fusing import read, run
from scenes import BANDS, FWHM_NM, WAVELENGTHS_NM, memory_scene, save, save_pair

from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import HsfuseError, OutputError, SettingError
from hsfuse.fusion import run as fusion_run
from hsfuse.fusion.stream import Streamer
from hsfuse.io import open_cube

MSI, HSI = Spectrum(None, None, BANDS), Spectrum(tuple(WAVELENGTHS_NM), tuple(FWHM_NM))


def pair_of(folder, scene, factor: float, dtype: str = "float32"):
    """The scene in other units, without a word about them."""
    pair = save_pair(folder, scene)
    save(pair.hsi, scene.lrhsi[0].numpy() * factor, pair.hsi_grid(), HSI, dtype=dtype)
    save(pair.msi, scene.msi[0].numpy() * factor, pair.hr_grid, MSI, dtype=dtype)
    return pair


@pytest.mark.parametrize(("factor", "kind", "dtype", "step"), [
    (100, "float32", "int16", 5e-3), (100, "float32", "uint16", 2e-3), (90_000, "uint16", "int16", 5.0),
    (1, "float32", "int16", 1e-4), (1, "float32", "uint8", 5e-3), (300, "float32", "uint8", 2.0),
])  # fmt: skip
def test_integers_hold_the_values_whatever_their_unit(files, tmp_path, factor, kind, dtype, step):
    pair = pair_of(tmp_path, files.scene, factor, kind)
    plain, small = (run(pair, tmp_path / f"{name}.tif", dtype=name, method="bicubic") for name in ("float32", dtype))
    with open_cube(small.output) as reader:
        assert reader.scale == pytest.approx(step)
    np.testing.assert_allclose(read(small.output).data, read(plain.output).data, atol=0.51 * step)
    assert f"stored as {dtype} in steps of {step:g}" in small.notes
    assert not [text for text in small.warnings if "clipped" in text]


def test_values_that_do_not_fit_are_counted_and_told(files, tmp_path):
    plain = read(run(files, tmp_path / "a.tif", dtype="float32").output).data
    result = run(files, tmp_path / "b.tif", scale=1e-5)
    beyond = int((plain > 32767.5e-5).sum())
    assert 0 < beyond < plain.size
    (told,) = (text for text in result.warnings if "clipped" in text)
    assert f"{plain.size} values" in told
    assert abs(int(told.split()[0]) - beyond) < 1e-3 * beyond
    assert "--scale" in told


@pytest.mark.parametrize(("name", "options", "said"), [
    ("a.tif", {"bands": "9999"}, "no bands 9999"),
    ("a.dat", {"resume": True}, "only GeoTIFF can go on"),
    ("a.tif", {"resume": True, "qa": "qa.dat"}, "only GeoTIFF can go on"),
    ("a.dat", {"creation_options": {"COMPRESS": "LZW"}}, "creation options are for GeoTIFF"),
    ("a.tif", {"creation_options": {"NODATA": "0"}}, "NODATA can't be given"),
    ("a.tif", {"creation_options": {"blockxsize": "7", "blockysize": "7"}}, "can't be written this way"),
    ("a.tif", {"creation_options": {"BLOCKSIZE": "7"}, "format": "COG"}, "can't be written this way: .*7"),
    ("a.tif", {"creation_options": {"NBITS": "12"}, "dtype": "uint16"}, "NBITS=12 can't hold uint16"),
    ("a.tif", {"creation_options": {"NBITS": "24"}, "dtype": "float32"}, "this way: a.tif: Only NBITS=16"),
    ("a.tif", {"scale": 1e-300}, "scale 1e-300 .* wanted a positive scale"),
    ("a.tif", {"dtype": "int8"}, "can't have the type int8; choose one with --dtype: float32, int16, uint16$"),
    ("a.tif", {"scale": -1.0}, "wanted a number above 0"), ("a.tif", {"scale": 0.0}, "wanted a number above 0"),
])  # fmt: skip
def test_what_cannot_be_written_is_told_before_the_fit(files, tmp_path, monkeypatch, name, options, said):
    def never(*arguments):
        raise AssertionError("it was fitted first")

    monkeypatch.setattr(fusion_run, "fit_method", never)
    options = {key: tmp_path / value if key == "qa" else value for key, value in options.items()}
    with pytest.raises(SettingError, match=said) as caught:
        run(files, tmp_path / name, **options)
    assert "\n" not in str(caught.value)
    assert "trial" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_zarr_without_its_package_is_told_before_the_fit(files, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    monkeypatch.setattr(fusion_run, "fit_method", lambda *arguments: pytest.fail("it was fitted first"))
    with pytest.raises(HsfuseError, match="pip install"):
        run(files, tmp_path / "a.zarr")


def test_a_scene_too_small_to_learn_its_error_has_a_quality_raster_all_the_same(tmp_path):
    pair = save_pair(tmp_path, memory_scene((9, 9)))
    run(pair, tmp_path / "a.tif", qa=tmp_path / "qa.tif")
    with open_cube(tmp_path / "qa.tif") as reader:
        assert reader.spectrum.good == (True,) * 4 + (False,)
        cube = reader.read()
    assert cube.mask.all()
    assert cube.data[0].any()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OutputError("the second file can't be made")])
def test_what_stops_it_between_two_outputs_is_what_is_raised(files, tmp_path, monkeypatch, error):
    opened = []
    make = Streamer._destination

    def second_fails(*arguments, **how):
        opened.append(1)
        if len(opened) == 2:
            raise error
        return make(*arguments, **how)

    monkeypatch.setattr(Streamer, "_destination", second_fails)
    with pytest.raises(type(error)) as caught:
        run(files, tmp_path / "a.tif", qa=tmp_path / "qa.tif")
    assert caught.value is error
    assert not list(tmp_path.iterdir())
