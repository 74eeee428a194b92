"""Which sensor of the library a pair bears out where the one that was taken is another."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from scenes import WAVELENGTHS_NM, mixture

from hsfuse.calibration.spectra import SharedPixels
from hsfuse.pair.sensors import SensorCheck, of_as_many
from hsfuse.physics import load_srf
from hsfuse.physics.model import ObservationModel, gaussian_psf

BANDS = ("B2", "B3", "B4", "B8")


def test_of_bands_without_names_a_sensor_with_as_many_is_named():
    """The MSI is Sentinel-2's; taken in another sensor's order it is told, with names or rightly taken it isn't."""
    model = ObservationModel(load_srf("sentinel2a").select(BANDS).matrix(WAVELENGTHS_NM)[0], gaussian_psf(1.8, 4), 4)
    images = model(torch.from_numpy(mixture((144, 144)))[None].double())
    rng = torch.Generator().manual_seed(0)
    lrhsi, msi = (x + 0.01 * x.std() * torch.randn(x.shape, generator=rng, dtype=x.dtype) for x in images)
    shared = SharedPixels(lrhsi, msi, torch.ones(lrhsi[:, 0].shape, dtype=torch.bool), model)

    def named(srf: str, bands: tuple[str, ...], names: tuple[str, ...] | None = None) -> str:
        spectrum = SimpleNamespace(wavelengths_nm=WAVELENGTHS_NM, fwhm_nm=None)
        msi = SimpleNamespace(count=4, spectrum=SimpleNamespace(names=names))
        pair = SimpleNamespace(spectrum=spectrum, msi=msi, response=load_srf(srf), msi_names=bands, msi_bands=range(4))
        return of_as_many(pair, shared)

    taken = ("B1", "B2", "B3", "PAN")
    assert named("spot1", taken).startswith("sentinel2")
    assert named("spot1", taken, taken) == ""
    assert named("spot1", ("B2", "B1", "B3", "PAN")) == ""
    assert named("sentinel2a", BANDS) == ""
    quiet = SimpleNamespace(is_loud=lambda resampled: False)
    (told,) = SensorCheck(quiet, (), None, "spot1", "", False, "sentinel2a").warnings
    assert told.severity == "warning"
    assert told.text == (
        "the pair contradicts the response of spot1: its bands were taken in their order, for the MSI's have no names; "
        "--srf sentinel2a fits"
    )
