"""What is no measurement in one band alone: bright pixels cut off at one number, dead lines and blocks."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from scenes import mixture

from hsfuse.io import open_cube
from hsfuse.io.fill import settle_bands

BANDS = ("B2", "B3", "B4", "B8")


def settled(tmp_path, image: np.ndarray, dtype: str = "uint16", nodata: str | None = None, declared=None):
    """Warnings of an MSI (4, H, W), and where it is valid then."""
    size = {"width": image.shape[2], "height": image.shape[1], "count": 4, "dtype": dtype, "nodata": declared}
    with rasterio.open(tmp_path / "msi.tif", "w", "GTiff", **size) as file:
        file.write(image.astype(dtype))
    with open_cube(tmp_path / "msi.tif", role="MSI") as reader:
        reader, warnings = settle_bands(reader, range(4), BANDS, Window(0, 0, *image.shape[:0:-1]), nodata)
        return warnings, reader.read().mask


def image(scale: float = 10_000.0) -> np.ndarray:
    return np.round(scale * mixture((90, 80))[[4, 9, 15, 25]])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "dead",
    [np.s_[1, 40], np.s_[1, 40:43], np.s_[1, :, 7], np.s_[1, 20:40, 30:60], np.s_[1, :, :25]],
    ids=["row", "rows", "column", "block", "edge"],
)
def test_what_is_dead_in_one_band_is_masked_and_told(tmp_path, dead):
    msi = image()
    msi[dead] = 0
    (told,), mask = settled(tmp_path, msi)
    assert told.code == "band-dead"
    assert f"{(msi[1] == 0).sum()} pixels of 0 in B3" in told.text
    assert (mask == (msi[1] != 0)).all()
    assert settled(tmp_path, msi, nodata="none")[0] == []


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("dtype", "blank"), [("uint16", 0), ("float32", -9999)])
def test_declared_nodata_of_all_bands_is_not_dead_in_any(tmp_path, dtype, blank):
    msi = np.maximum(image(), 1)
    msi[:, 20:40, 30:60] = blank
    assert settled(tmp_path, msi, dtype, declared=blank)[0] == []


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("dtype", ["uint16", "float32", "uint8"])
def test_dark_ground_is_not_dead_and_bright_ground_not_cut_off(tmp_path, dtype):
    msi = image(300.0 if dtype == "uint8" else 10_000.0)
    dark = msi - np.percentile(msi, 5, axis=(1, 2), keepdims=True)
    dark[3, :10] = np.minimum(dark[3, :10], 3) // 2  # water in rows of the near infrared alone
    for one in (msi, np.maximum(dark, 0)):
        assert settled(tmp_path, np.minimum(one, 255) if dtype == "uint8" else one, dtype)[0] == []


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_bright_pixels_cut_off_at_one_number_are_told_by_band_and_share(tmp_path, dtype):
    msi = image()
    top = np.percentile(msi, 98, axis=(1, 2), keepdims=True)
    stretched = np.minimum(msi / top, 1) * 255
    stretched[0] = msi[0] / msi[0].max() * 255
    (told,), mask = settled(tmp_path, np.round(stretched) if dtype == "uint8" else stretched, dtype)
    assert told.code == "msi-cut-off"
    assert told.values["bands"].startswith("B3 (2.")
    assert "B2" not in told.values["bands"]
    assert mask.all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_wild_values_are_gaps_and_told(tmp_path, dtype):
    msi = image(4000.0)
    places = [(0, 5, 6), (1, 0, 40), (1, 89, 79), (3, 40, 7)]
    for place, value in zip(places, (-25_536, 32_000, 30_000, -5000), strict=True):
        msi[place] = value
    (told,), mask = settled(tmp_path, msi, dtype)
    assert (told.code, told.values["count"], told.values["bands"]) == ("values-wild", 4, "B2, B3, B8")
    assert not mask[tuple(zip(*(place[1:] for place in places), strict=True))].any()
    assert mask.sum() == mask.size - 4
    assert told.text.endswith("lamps of one spectral line, --msi-nodata none keeps them")
    assert settled(tmp_path, msi, dtype, nodata="none")[0] == []


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_shines_is_no_wild_value(tmp_path):
    msi = image(1000.0)
    msi[:, 20, 30] = 30_000  # a glint in all bands
    blurred = np.outer((0.15, 1, 0.15), (0.15, 1, 0.15))
    msi[3, 50:53, 10:13] += 20_000 * blurred  # a fire in one, as optics show it
    msi[2, 70:72, 60:62] = 25_000  # lamps
    msi[2:, 40, 44] = 20_000, 30_000  # a fire in two, as no optics blurred it
    assert settled(tmp_path, msi)[0] == []
