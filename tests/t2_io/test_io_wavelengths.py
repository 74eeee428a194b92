"""Wavelengths wherever files put them, in whatever unit."""

from __future__ import annotations

import pytest
import rasterio
from rasters import integers, nm, write_envi, write_tif

from hsfuse.core.errors import InputError
from hsfuse.io import open_cube
from hsfuse.io.spectral_tags import to_nm, unit_factor, widths_to_nm

# Wavelengths in GeoTIFF


@pytest.mark.parametrize(
    ("texts", "aloud"),
    [
        (["band 1 (418.24 Nanometers)", "band 2 (500 Nanometers)"], False),
        (["418.24 nm", "500 nm"], False),
        (["0.41824 um", "0.5 µm"], True),
        (["0.41824 um", "0.5 um"], False),
        (["4.1824e-01 um", "5E-1 um"], False),
        ([".41824 um", ".5 um"], False),
        (["4.1824e2", "5e+02"], True),
        (["B1 418.24", "B2 500"], True),
        (["refl_418.24nm_v2", "refl_500nm_v2"], False),
    ],
)
def test_wavelengths_in_band_descriptions(tmp_path, texts, aloud):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        ds.descriptions = texts
    with open_cube(path, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == pytest.approx((418.24, 500))
        assert reader.spectrum.names == tuple(texts)
        assert any("taken as" in note.text for note in reader.notes) == aloud


@pytest.mark.parametrize("texts", [["B2", "B3"], ["Band 2", "Band 3"], ["Blue", "Green"], ["x 418", None]])
def test_band_names_are_no_wavelengths(tmp_path, texts):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        ds.descriptions = texts
    with pytest.raises(InputError, match="wavelengths"):
        open_cube(path, role="HSI")
    with open_cube(path, role="MSI") as reader:
        assert reader.spectrum.wavelengths_nm is None
        assert reader.spectrum.names == tuple(text or "" for text in texts)


def test_band_tags_come_before_imagery_tags_and_stale_lists(tmp_path):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        ds.update_tags(wavelength="{400, 450, 500}", wavelength_units="nm")
        for band, value in ((1, 418.24), (2, 500.5)):
            ds.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{value / 1e3:.3f}", FWHM_UM="0.0065")
            ds.update_tags(band, wavelength=str(value), wavelength_units="Nanometers", bbl=str(band - 1))
    with open_cube(path, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (418.24, 500.5)
        assert reader.spectrum.fwhm_nm == (6.5, 6.5)
        assert reader.spectrum.good == (False, True)


@pytest.mark.parametrize(("texts", "said"), [
    (["450", "nan"], "the band tags: band 2 has 'nan', no number;"), (["", "550"], "the band tags: band 1 has none;"),
    (["450,5", "550,5"], "the band tags: band 1 has '450,5', no number, as in 1 more;"),
])  # fmt: skip
def test_a_wavelength_that_cannot_be_read_is_named(tmp_path, texts, said):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        for band, text in enumerate(texts, 1):
            ds.update_tags(band, wavelength=text, wavelength_units="nm")
    with pytest.raises(InputError, match=f"no wavelengths that can be read: {said}"):
        open_cube(path, role="HSI")


@pytest.mark.parametrize("where", ["imagery", "dataset"])
def test_wavelengths_in_other_tags(tmp_path, where):
    path = write_tif(tmp_path / "a.tif", integers("uint16", (2, 3, 3)))
    with rasterio.open(path, "r+") as ds:
        if where == "dataset":
            ds.update_tags(Wavelength="{0.45, 0.55}", wavelength_units="Micrometers", fwhm="{0.01, 0.012}")
        else:
            for band, (centre, width) in enumerate([("0.45", "0.01"), ("0.55", "0.012")], start=1):
                ds.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=centre, FWHM_UM=width)
    with open_cube(path, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (450, 550)
        assert reader.spectrum.fwhm_nm == (10, 12)
        assert not reader.notes[:-1]  # the last one tells of the missing scale factor


# Units


@pytest.mark.parametrize("unit", ["nm", "Nanometers", "nanometre", " NANOMETERS ", "[nm]"])
def test_nanometres(unit):
    assert to_nm([400, 500.5], unit) == ((400, 500.5), 1, None)


@pytest.mark.parametrize("unit", ["um", "µm", "μm", "Micrometers", "micrometre", "microns", "Micron"])
def test_micrometres(unit):
    assert to_nm([0.41824, 2.5], unit) == ((418.24, 2500), 1e3, None)


@pytest.mark.parametrize(
    ("values", "unit", "wanted"),
    [
        ([0.46, 2.4], "Nanometers", 460),
        ([460, 2400], "um", 460),
        ([0.46, 2.4], None, 460),
        ([460, 2400], "Unknown", 460),
    ],
)
def test_values_are_believed_before_the_unit_and_it_is_said(values, unit, wanted):
    found, _, note = to_nm(values, unit)
    assert found[0] == wanted
    assert "taken as" in note


@pytest.mark.parametrize(
    ("values", "unit"), [([1, 4, 9], None), ([1, 224], "Unknown"), ([1, 100], "nm"), ([-1, 5e5], "furlongs")]
)
def test_values_that_fit_no_unit_are_refused(values, unit):
    with pytest.raises(InputError, match="unknown units"):
        to_nm(values, unit)


@pytest.mark.parametrize("unit", ["Wavenumber", "cm-1", "GHz", "MHz", "Index"])
def test_units_that_are_no_length_are_refused(tmp_path, unit):
    with pytest.raises(InputError, match="can't be used"):
        unit_factor(unit)
    header = write_envi(tmp_path / "a.dat", integers(), *nm(450, 550, 650, units=unit))
    with pytest.raises(InputError, match=unit):
        open_cube(header, role="HSI")
    with open_cube(header, role="MSI") as reader:
        assert reader.spectrum.wavelengths_nm is None


def test_fwhm_in_another_unit_or_nonsense():
    assert widths_to_nm([6.5, 7], 1) == ((6.5, 7), None)
    widths, note = widths_to_nm([6.5, 7], 1e3)  # wavelengths in um, FWHM in nm
    assert widths == (6.5, 7)
    assert "nanometres" in note
    widths, note = widths_to_nm([0.0065, 0.007], 1)
    assert widths == (6.5, 7)
    assert widths_to_nm([0, 7], 1)[0] is None
