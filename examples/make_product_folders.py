"""Two folders laid out as products are delivered, EnMAP L2A and Sentinel-2 L2A of the same ground, for the tutorial.

    python examples/make_product_folders.py FOLDER

Not real products: those may not be given on. Both are simulated from the example's AVIRIS scene of 12 June 1992 (origin
and terms: examples/README.md), called 10 m a pixel, so that the ratio is 3. Radiance becomes reflectance at the top of
the atmosphere by the sun as a black body, so water vapour shows in it. Names, folders, metadata and quality layers are
as the format specifications have them, as far as hsfuse reads them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy.constants import c, h, k

import hsfuse
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter, open_cube

REFERENCE = Path(__file__).resolve().parent / "data" / "indian_pines_reference.tif"
#: Pixels of 10 m in one of the LRHSI's, and what both products' grids are multiples of.
RATIO, WHOLE = 3, 6
BANDS_M = {"B2": 10, "B3": 10, "B4": 10, "B8": 10, "B5": 20, "B6": 20, "B7": 20, "B8A": 20, "B11": 20, "B12": 20}
#: Sun: temperature K, radius and distance m, cosine of the zenith angle.
SUN_K, SUN_M, AWAY_M, COSINE = 5772.0, 6.957e8, 1.518e11, 0.88
#: AVIRIS's bands are about this wide (nm).
FWHM_NM = 10
#: The copy's numbers: (1000 + 500 x radiance in uW / (cm2 nm sr)) x 1e-4.
ZERO, PER_UNIT = 0.1, 0.05
TIME = "19920612T160000"
ENMAP = f"ENMAP01-____L2A-DT0000000000_{TIME}Z_001_V010400_19920612T200000Z"
SAFE = f"S2A_MSIL2A_{TIME}_N0400_R000_T16TDL_19920612T200000.SAFE"
LAYERS = ("CLASSES", "CLOUD", "CLOUDSHADOW", "HAZE", "CIRRUS", "TESTFLAGS")


def irradiance(nm: np.ndarray) -> np.ndarray:
    """Of the sun as a black body, in uW / (cm2 nm): pi B (R / d)^2 by Planck's law."""
    m = nm * 1e-9
    radiance = 2 * h * c**2 / m**5 / np.expm1(h * c / (m * k * SUN_K))  # W / (m2 sr m)
    return np.pi * radiance * (SUN_M / AWAY_M) ** 2 * 1e-7


def write_reference(path: Path) -> Path:
    """The scene as reflectance at the top of the atmosphere, pi L / (E cos), on pixels of 10 m."""
    with open_cube(REFERENCE) as reader:
        cube, nm = reader.read(), reader.spectrum.wavelengths_nm
    radiance = (cube.data - ZERO) / PER_UNIT
    reflectance = np.pi * radiance / (irradiance(np.array(nm)) * COSINE)[:, None, None]
    rows, cols = (size // WHOLE * WHOLE for size in reflectance.shape[1:])
    t = cube.grid.transform
    grid = Grid((rows, cols), Affine(10, 0, t.c, 0, -10, t.f), cube.grid.crs)
    with CubeWriter(path, grid, Spectrum(nm)) as writer:
        pixels = reflectance[:, :rows, :cols].astype(np.float32)
        writer.write(rasterio.windows.Window(0, 0, cols, rows), pixels, np.ones((rows, cols), bool))
    return path


def write_raster(path: Path, pixels: np.ndarray, crs: object, transform: Affine, **how: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"} if path.suffix == ".jp2" else {}
    size = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", crs=crs, transform=transform, **size, **lossless, **how) as out:
        out.write(pixels)


def write_enmap(lrhsi: Path, folder: Path) -> None:
    """SPECTRAL_IMAGE, METADATA.XML and quality layers (nothing is flagged)."""
    with open_cube(lrhsi) as reader:
        cube, nm = reader.read(), reader.spectrum.wavelengths_nm
    raw = np.round(cube.data * 10000).clip(-32767, 32767).astype(np.int16)
    place = (cube.grid.crs, cube.grid.transform)
    write_raster(folder / f"{ENMAP}-SPECTRAL_IMAGE.TIF", raw, *place, nodata=-32768)
    for layer in LAYERS:
        flags = np.full((1, *raw.shape[1:]), 1 if layer == "CLASSES" else 0, np.uint8)
        write_raster(folder / f"{ENMAP}-QL_QUALITY_{layer}.TIF", flags, *place)
    bands = "".join(
        f'<bandID number="{i}"><wavelengthCenterOfBand>{centre}</wavelengthCenterOfBand>'
        f"<FWHMOfBand>{FWHM_NM}</FWHMOfBand><GainOfBand>0.0001</GainOfBand><OffsetOfBand>0</OffsetOfBand></bandID>\n"
        for i, centre in enumerate(nm, 1)
    )
    (folder / f"{ENMAP}-METADATA.XML").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<level_X><base><temporalCoverage><startTime>1992-06-12T16:00:00Z'
        "</startTime></temporalCoverage></base><specific><backgroundValue>-32768</backgroundValue>\n"
        f"<bandCharacterisation>\n{bands}</bandCharacterisation></specific></level_X>\n",
        encoding="utf-8",
    )


def write_sentinel2(msi: Path, safe: Path) -> None:
    """Bands of 10 and 20 m as JP2 with the offset of baseline 04.00, the scene classification, and both metadata."""
    with open_cube(msi) as reader:
        cube, names = reader.read(), reader.spectrum.names
    granule, crs, fine = safe / "GRANULE" / f"L2A_T16TDL_A000000_{TIME}", cube.grid.crs, cube.grid.transform
    images = granule / "IMG_DATA"
    for band, values in zip(names, cube.data, strict=True):
        gsd = BANDS_M[band]
        step = gsd // 10
        rows, cols = (size // step for size in values.shape)
        mean = values.reshape(rows, step, cols, step).mean((1, 3))
        raw = np.round(mean * 10000 + 1000).clip(1, 65534).astype(np.uint16)[None]
        file = images / f"R{gsd}m" / f"T16TDL_{TIME}_B{band[1:].zfill(2)}_{gsd}m.jp2"
        write_raster(file, raw, crs, fine @ Affine.scale(step))
    half = tuple(size // 2 for size in cube.data.shape[1:])
    scl = np.full((1, *half), 4, np.uint8)  # vegetation
    write_raster(images / "R20m" / f"T16TDL_{TIME}_SCL_20m.jp2", scl, crs, fine @ Affine.scale(2))
    corner = f"<ULX>{fine.c:g}</ULX><ULY>{fine.f:g}</ULY>"
    places = "".join(
        f'<Geoposition resolution="{g}">{corner}<XDIM>{g}</XDIM><YDIM>-{g}</YDIM></Geoposition>' for g in (10, 20, 60)
    )
    (granule / "MTD_TL.xml").write_text(
        '<?xml version="1.0"?>\n<Level-2A_Tile_ID><General_Info><SENSING_TIME>1992-06-12T16:00:00Z</SENSING_TIME>'
        f"</General_Info><Geometric_Info><Tile_Geocoding><HORIZONTAL_CS_CODE>{crs}</HORIZONTAL_CS_CODE>{places}"
        "</Tile_Geocoding></Geometric_Info></Level-2A_Tile_ID>\n",
        encoding="utf-8",
    )
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{i}">-1000</BOA_ADD_OFFSET>' for i in range(13))
    (safe / "MTD_MSIL2A.xml").write_text(
        '<?xml version="1.0"?>\n<Level-2A_User_Product><General_Info><Product_Info><PRODUCT_START_TIME>'
        "1992-06-12T16:00:00Z</PRODUCT_START_TIME><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE><Datatake>"
        "<SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME></Datatake></Product_Info><Product_Image_Characteristics>"
        "<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>"
        f"</QUANTIFICATION_VALUES_LIST><BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST>"
        "</Product_Image_Characteristics></General_Info></Level-2A_User_Product>\n",
        encoding="utf-8",
    )


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        reference = write_reference(Path(place) / "reference.tif")
        bands = tuple(BANDS_M)
        pair = hsfuse.simulate(
            reference, Path(place) / "pair", srf="sentinel2a", ratio=RATIO, msi_bands=bands, snr_hsi=35, snr_msi=40
        )
        write_enmap(pair.lrhsi, folder / ENMAP)
        write_sentinel2(pair.msi, folder / SAFE)
    print(f"{folder / ENMAP}\n{folder / SAFE}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "products"))
