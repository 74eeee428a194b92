"""What the numbers of an image are, and a pair brought to one unit only where that's needed."""

from __future__ import annotations

from pathlib import Path

import msi_products as made
import numpy as np
import pytest

from hsfuse.core.errors import InputError
from hsfuse.core.grid import align
from hsfuse.io import open_cube
from hsfuse.pair.quantity import (
    Settled,
    different_dates,
    follow_quantity,
    guess_scale,
    name_quantity,
    settle_quantity,
)


def image(path: Path, values: np.ndarray, gsd: float = 30, bands: int = 3, **how):
    """An open image of `bands` bands with these values (h, w)."""
    return open_cube(made.write_raster(path, np.stack([values] * bands), gsd, **how))


def reflectance(shape=(60, 60), seed: int = 1) -> np.ndarray:
    """Smooth reflectance of about 0.08 to 0.4."""
    return (made.counts(shape, seed).astype(np.float32) - 1000) / 8000


def test_figures_tell_reflectance_from_other_numbers(tmp_path):
    r = reflectance()
    for name, values, quantity, scale in (
        ("float", r, "reflectance", 1.0),
        ("ten thousandths", np.round(r * 1e4).astype("int16"), "reflectance", 1e-4),
        ("the same as float", np.float32(r * 1e4), "reflectance", 1e-4),
        ("percent or radiance", np.float32(r * 100), "unknown", 1.0),
        ("bytes", np.round(r * 500).astype("uint8"), "unknown", 1.0),
        ("counts with an offset", np.round(r * 1e4 + 5000).astype("uint16"), "unknown", 1.0),
        ("large counts", np.round(r * 2e5).astype("uint16"), "unknown", 1.0),
        ("blank", np.full((60, 60), np.nan, np.float32), "unknown", 1.0),
    ):
        with image(tmp_path / f"{name}.tif", values) as reader:
            guess = guess_scale(reader)
            assert (guess.quantity, guess.scale) == (quantity, scale), name
            assert guess.note
            assert reader.nonfinite == 0


def test_metadata_are_believed_before_figures(tmp_path):
    with open_cube(made.landsat(tmp_path)) as reader:
        other = reader.rescaled(1000)  # whatever the figures are
        assert guess_scale(other).quantity == "reflectance"
        assert not guess_scale(other).note
    with image(tmp_path / "a.tif", reflectance()) as reader:
        assert guess_scale(reader.holding("radiance")).quantity == "radiance"


@pytest.mark.parametrize("power", [2, 3, 4])
@pytest.mark.parametrize("free", ["HSI", "MSI"])
def test_the_image_without_metadata_follows_the_other(tmp_path, power, free):
    values = reflectance()
    other = values * np.float32(10**power)
    hsi_values, msi_values = (other, values) if free == "HSI" else (values, other)
    with image(tmp_path / "h.tif", hsi_values) as hsi, image(tmp_path / "m.tif", msi_values, 10) as msi:
        said = (hsi, msi.holding("reflectance")) if free == "HSI" else (hsi.holding("reflectance"), msi)
        found = settle_quantity(*said)
        (note,) = found.notes
        assert f"the {free}, which doesn't say its own, is multiplied by {10.0**-power:g}" in note.text
        np.testing.assert_allclose(found.hsi.read().data, found.msi.read().data, rtol=1e-5)
        assert settle_quantity(found.hsi, found.msi).notes == ()  # once is enough
        assert hsi.scale == msi.scale == 1  # what was opened stays as it is


def test_a_scale_in_the_file_counts_as_metadata(tmp_path):
    r = reflectance()
    with image(tmp_path / "h.tif", r) as hsi, image(tmp_path / "m.tif", np.round(r * 1e4).astype("uint16")) as msi:
        msi = msi.rescaled(2e-4)
        assert settle_quantity(hsi, msi) == Settled(hsi, msi)  # twice as high: no matter of units
        (warning,) = settle_quantity(hsi.rescaled(1e-4), msi).warnings
        assert "both say their units" in warning.text


def test_a_pair_that_agrees_is_left_alone(tmp_path):
    rng = np.random.default_rng(5)
    for i, factor in enumerate((1.0, 1e4, 120.0)):
        values = reflectance() * np.float32(factor)
        for share in (0.4, 1.0, 2.5):
            msi_values = values * np.float32(share) * rng.uniform(0.9, 1.1, values.shape).astype(np.float32)
            with (
                image(tmp_path / f"h{i}.tif", values) as hsi,
                image(tmp_path / f"m{i}{share}.tif", msi_values, 10) as msi,
            ):
                assert settle_quantity(hsi, msi) == Settled(hsi, msi)


def test_when_neither_says_the_reflectance_is_kept_else_the_hsi(tmp_path):
    r = reflectance()
    for low, high, follows in ((r, r * 1e4, "MSI"), (r * 1e4, r, "HSI"), (r * 1e4, r * 1e2, "MSI")):
        with (
            image(tmp_path / "h.tif", np.float32(low)) as hsi,
            image(tmp_path / "m.tif", np.float32(high), 10) as msi,
        ):
            found = settle_quantity(hsi, msi)
            assert f"the {follows}, which" in found.notes[0].text
            np.testing.assert_allclose(found.hsi.read().data, found.msi.read().data, rtol=1e-5)


def test_a_tenfold_difference_is_told_but_not_touched(tmp_path):
    with image(tmp_path / "h.tif", reflectance()) as hsi, image(tmp_path / "m.tif", reflectance() * 8, 10) as msi:
        found = settle_quantity(hsi, msi)
        assert "check both images" in found.notes[0].text
        assert (found.hsi, found.msi) == (hsi, msi)


def test_more_than_any_two_units_differ_by_is_warned_of(tmp_path):
    with image(tmp_path / "h.tif", reflectance()) as hsi, image(tmp_path / "m.tif", reflectance() * 7e4, 10) as msi:
        found = settle_quantity(hsi, msi)
        assert "more than any two units differ by" in found.warnings[0].text
        assert "about 7e+04 times" in found.warnings[0].text
        assert (found.hsi, found.msi, found.notes) == (hsi, msi, ())


def test_radiance_and_reflectance_need_matched_radiometry(tmp_path):
    with image(tmp_path / "h.tif", reflectance() * 300) as hsi, image(tmp_path / "m.tif", reflectance(), 10) as msi:
        hsi, msi = hsi.holding("radiance"), msi.holding("reflectance")
        found = settle_quantity(hsi, msi)
        assert "the HSI holds radiance, the MSI reflectance" in found.notes[0].text
        assert found.msi is msi
        with pytest.raises(InputError, match="can't be fused without matching"):
            settle_quantity(hsi, msi, matched=False)


def test_levels_are_those_of_the_common_extent_seen_through_the_response(tmp_path):
    """Outside the common extent the MSI is 100 times as bright; the HSI's other bands are 100 times as bright, too."""
    msi_values = np.full((120, 120), 20.0, np.float32)
    msi_values[:60, :60] = 0.2
    cube = np.stack([np.full((20, 20), v, np.float32) for v in (0.2, 20.0, 20.0)])
    hsi_path = made.write_raster(tmp_path / "h.tif", cube, 30)
    with open_cube(hsi_path) as hsi, image(tmp_path / "m.tif", msi_values, 10) as msi:
        alignment = align(hsi.grid, msi.grid)
        weights = np.array([[1.0, 0.0, 0.0]] * 3)
        assert settle_quantity(hsi, msi, alignment, weights=weights).notes == ()
        assert settle_quantity(hsi, msi, alignment, hsi_bands=[0]).notes == ()
        assert settle_quantity(hsi, msi, alignment).notes


def test_figures_name_what_the_metadata_do_not(tmp_path):
    r = reflectance()
    for i, (values, factor, quantity) in enumerate(((r, 1.0, "reflectance"), (np.round(r * 1e4).astype("int16"), 1e-4,
                                                    "reflectance"), (r * 120, 1.0, "unknown"))):  # fmt: skip
        with image(tmp_path / f"h{i}.tif", values) as hsi, image(tmp_path / f"m{i}.tif", values, 10) as msi:
            assert settle_quantity(hsi, msi).notes == ()
            named = name_quantity(hsi, msi)
            assert "doesn't say what its numbers are; 99 % of the numbers are below" in named.notes[0].text
            assert ("both images are multiplied by 0.0001" in named.notes[0].text) == (factor != 1)
            assert named.hsi.quantity == quantity
            assert named.hsi.scale == named.msi.scale == factor
            assert not name_quantity(named.hsi, named.msi).notes or quantity == "unknown"


def test_metadata_are_not_overruled_by_figures(tmp_path):
    values = np.round(reflectance() * 1e4).astype("int16")
    with image(tmp_path / "h.tif", values) as hsi, image(tmp_path / "m.tif", values, 10) as msi:
        assert name_quantity(hsi.holding("radiance"), msi).notes == ()
        named = name_quantity(hsi, msi.holding("reflectance"))
        assert "multiplied" not in named.notes[0].text
        assert named.hsi.scale == named.msi.scale == 1


def test_one_image_follows_the_unit_of_another(tmp_path):
    r = reflectance()
    with image(tmp_path / "a.tif", np.float32(r * 1e4)) as a, image(tmp_path / "b.tif", r) as b:
        followed, power = follow_quantity(a, b)
        assert power == 4
        np.testing.assert_allclose(followed.read().data, b.read().data, rtol=1e-5)
        assert follow_quantity(followed, b) == (followed, 0)
        assert follow_quantity(followed, b.rescaled(1e-3)) == (followed, 3)  # it has been given a scale


def test_nothing_is_settled_without_a_valid_pixel(tmp_path):
    blank = np.full((60, 60), np.nan, np.float32)
    with image(tmp_path / "h.tif", blank) as hsi, image(tmp_path / "m.tif", reflectance(), 10) as msi:
        assert settle_quantity(hsi, msi) == Settled(hsi, msi)
        assert hsi.nonfinite == 0


def test_days_of_acquisition_are_compared(tmp_path):
    with image(tmp_path / "h.tif", reflectance()) as hsi, image(tmp_path / "m.tif", reflectance()) as msi:
        assert different_dates(hsi, msi) is None
        hsi.tags["ACQUIRED"] = "2022-07-24T10:20:48.758475Z"
        assert different_dates(hsi, msi) is None
        msi.tags["ACQUIRED"] = "2022-07-24"
        assert different_dates(hsi, msi) is None
        msi.tags["ACQUIRED"] = "2022-08-01T00:00:00+02:00"
        assert "on 2022-07-24, the MSI on 2022-08-01, 8 days apart" in str(different_dates(hsi, msi))
        msi.tags["ACQUIRED"] = "last summer"
        assert different_dates(hsi, msi) is None
