"""One quantity for all files: the same pixels in any encoding get the same figures; where that can't be, no rank."""

import json

import numpy as np
import pytest
from assessed_scene import make_scene, write_cube

from hsfuse.assessment import assess, check, comparison, text_table
from hsfuse.assessment.table import rows, unranked
from hsfuse.io import open_cube


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A truth and a flawed cube in whole ten-thousandths of reflectance, as float, integers and percent."""
    made = make_scene(tmp_path_factory.mktemp("units"), 48)
    truth = np.round(made.truth * 1e4).clip(0) / 1e4
    noise = np.random.default_rng(0).standard_normal(truth.shape) * 0.01
    flawed = np.round((truth + noise) * 1e4).clip(0) / 1e4
    for name, values in (("ref", truth), ("a", flawed)):
        write_cube(made.path(f"{name}_float.tif"), values.astype("float32"))
        write_cube(made.path(f"{name}_int.tif"), np.round(values * 1e4).astype("uint16"))
        write_cube(made.path(f"{name}_percent.tif"), (100 * values).astype("float32"))
        write_cube(made.path(f"{name}_odd.tif"), (7.3e5 * values).astype("float32"))
    return made, truth, flawed


def measured(made, fused, reference, **settings):
    return assess(made.path(f"{fused}.tif"), reference=made.path(f"{reference}.tif"), ratio=4, window=8, **settings)


@pytest.mark.parametrize("reference", ["ref_int", "ref_float", "ref_percent"])
@pytest.mark.parametrize("fused", ["a_int", "a_float", "a_percent"])
def test_the_same_pixels_in_any_encoding_get_the_same_figures(scene, fused, reference):
    made, truth, flawed = scene
    found = measured(made, fused, reference)
    if fused == reference.replace("ref", "a") == "a_percent":
        assert found.unit.quantity == "unknown"  # two files of percent: nothing tells that it isn't radiance
        return
    error = flawed - truth
    psnr = np.mean([10 * np.log10(1 / np.mean(band**2)) for band in error])
    assert found.metrics["psnr"] == pytest.approx(psnr, abs=1e-3)
    assert found.metrics["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
    assert found.unit.quantity == "reflectance"
    assert found.settings["peak"].startswith("1 (reflectance)")


def test_what_hsfuse_itself_has_made_says_what_it_holds(scene):
    """Its provenance does, where the HSI was only guessed at and the file therefore names no quantity."""
    made, _, flawed = scene
    for record, asked in (({"hsfuse": "1"}, True), ({"hsfuse": "1", "quantity": "reflectance"}, False)):
        write_cube(made.path("own.tif"), flawed.astype("float32"), provenance=json.dumps(record))
        found = measured(made, "own", "ref_int")
        assert any("fused cube doesn't say" in one.text for one in found.notes) == asked
        assert found.unit.quantity == "reflectance"


def test_files_side_by_side_are_ranked_in_one_quantity(scene):
    made, *_ = scene
    both = [measured(made, name, "ref_int") for name in ("a_int", "a_float")]
    assert unranked(both) == ""
    for row in rows(both, ["psnr", "ssim", "rmse", "sam"]):
        assert row.values[0] == pytest.approx(row.values[1], rel=1e-4)
    limit = both[0].metrics["rmse"] * 1.01
    assert check(both, {"psnr": both[0].metrics["psnr"] - 0.1, "rmse": limit}) == []
    assert len(check(both, {"rmse": limit / 2})) == 2


def test_columns_of_unknown_units_are_not_ranked_and_it_says_so(scene):
    made, *_ = scene
    mixed = [measured(made, "a_float", "ref_float"), measured(made, "a_odd", "ref_odd")]
    assert unranked(mixed).startswith("The columns aren't ranked")
    assert not any(row.best for row in rows(mixed, ["psnr", "rmse"]))
    assert "aren't ranked" in text_table(mixed)
    assert "**" not in comparison(mixed, "markdown")


def test_files_in_the_numbers_of_one_reference_are_ranked(scene):
    made, truth, _ = scene
    write_cube(made.path("b_odd.tif"), (7.3e5 * truth * 1.02).astype("float32"))
    two = [measured(made, name, "ref_odd") for name in ("a_odd", "b_odd")]
    assert {a.unit.quantity for a in two} == {"unknown"}
    assert unranked(two) == ""
    assert any(row.best for row in rows(two, ["rmse"]))


def test_a_peak_in_numbers_of_the_file_is_brought_along(scene):
    made, *_ = scene
    plain = measured(made, "a_float", "ref_float", peak=1)
    numbers = measured(made, "a_int", "ref_int", peak=10000)
    assert numbers.metrics["psnr"] == pytest.approx(plain.metrics["psnr"], abs=1e-3)
    assert "peak-rescaled" in [one.code for one in numbers.notes]


def test_files_stay_as_they_are(scene):
    made, *_ = scene
    measured(made, "a_int", "ref_int")
    with open_cube(made.path("a_int.tif")) as reader:
        assert reader.scale == 1


def test_figures_that_differ_by_rounding_alone_are_both_best(scene):
    made, *_ = scene
    both = [measured(made, name, "ref_int") for name in ("a_int", "a_float")]
    assert all(row.best == {0, 1} for row in rows(both, ["psnr", "rmse", "sam"]))
