"""From two DataArrays to a plot, in cells as notebooks and editors know them (# %%).

pip install 'hsfuse[xarray]'
python examples/in_memory.py [PICTURE.png] [METHOD]
"""

# %% Open both images with xarray. Of the HSI hsfuse wants wavelengths (a coordinate along the bands), of both the CRS.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import rioxarray

import hsfuse

DATA = Path(__file__).resolve().parent / "data"
picture = sys.argv[1] if len(sys.argv) > 1 else "in_memory.png"
method = sys.argv[2] if len(sys.argv) > 2 else "glp-ens"

hsi = rioxarray.open_rasterio(DATA / "lrhsi.dat").load()
msi = rioxarray.open_rasterio(DATA / "sentinel2.tif").load()

# %% One aligned pair: grids nested, bands matched, PSF and shift estimated. What was decided is in its notes.
pair = hsfuse.open_pair(hsi, msi, srf="sentinel2")
print(*pair.notes, sep="\n")

# %% Fit once, then apply: to this pair, or to any other of the same two sensors.
model = hsfuse.fit(pair, method=method)
cube = model.apply(pair)

# %% Chunked inputs give a lazy cube: computed tile by tile, and only where it is looked at.
later = hsfuse.open_pair(hsi.chunk(y=12, x=12), msi.chunk(y=48, x=48), srf="sentinel2")
lazy = model.apply(later)
part = lazy.isel(x=slice(40, 60), y=slice(40, 60)).compute()
assert part.identical(cube.isel(x=slice(40, 60), y=slice(40, 60)).assign_attrs(part.attrs))

# %% How good is it, and where?
truth = rioxarray.open_rasterio(DATA / "indian_pines_reference.tif")
truth = truth.assign_coords(wavelength=("band", cube.wavelength.values))
found = hsfuse.assess(cube, reference=truth, hsi=hsi, msi=msi)
print({name: round(value, 4) for name, value in found.metrics.items() if value is not None})

# %% Plot a band, and a field's spectrum. This sensor's bands overlap where its spectrometers meet: sort them first.
cube = cube.sortby("wavelength")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
cube.sel(wavelength=850, method="nearest").plot.imshow(
    ax=left, robust=True, cmap="viridis", cbar_kwargs={"label": "reflectance"}
)
left.set(aspect="equal", title="fused cube at 850 nm", xlabel="easting (m)", ylabel="northing (m)")
left.locator_params(axis="x", nbins=4)
cube.isel(x=60, y=80).plot.line(ax=right, x="wavelength")
right.set(title="spectrum of one pixel", ylabel="reflectance")
figure.savefig(picture, dpi=100)
