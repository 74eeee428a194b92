"""Build examples/data from the AVIRIS Indian Pines cube that the PyPI package tensorly ships.

    pip download --no-deps tensorly
    python examples/make_example_data.py tensorly-*.whl

Origin, terms and meaning of the data are in README.md beside this file.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from hsfuse.benchmark.simulate import simulate
from hsfuse.core.cube import Spectrum
from hsfuse.core.grid import Grid
from hsfuse.io import CubeWriter, Storage

ARRAY = "tensorly/datasets/data/Indian_pines_corrected.npy"
FOLDER = Path(__file__).parent / "data"

SIDE = 144  # of 145 rows and columns: a multiple of the scale
SCALE = 4
MSI_BANDS = ("B2", "B3", "B4", "B8")
COUNT = 1e-4  # digital numbers up to 9604 become numbers up to 0.96

#: Nominal: north up, 20 m, near the test site. Not the real georeference, which the package doesn't have.
GRID = Grid((SIDE, SIDE), Affine(20, 0, 499400, 0, -20, 4479440), CRS.from_epsg(32616))

#: Channels (1-based, of 220) that the 200-band cube leaves out: water vapour, and the last one.
LEFT_OUT = {*range(104, 109), *range(150, 164), 220}

#: Centres of the 220 channels in nm, spectral calibration of November 1992, published at
#: https://engineering.purdue.edu/~biehl/MultiSpec/aviris_documentation.html. They step back where one of the four
#: spectrometers takes over from another. Channels 191 and 192 are published as 2260.22 and 2270.15, which doesn't fit
#: between 190 and 193: here 48 nm less, an even step like all others.
CENTRES_NM = """
400.02 409.82 419.62 429.43 439.25 449.07 458.90 468.73 478.57 488.41 498.26 508.12 517.98 527.85 537.72 547.60 557.49
567.38 577.28 587.18 597.09 607.01 616.93 626.85 636.78 646.72 656.67 666.61 676.57 686.53 696.50 686.91 696.55 706.19
715.83 725.47 735.11 744.74 754.38 764.01 773.64 783.27 792.91 802.53 812.21 821.79 831.41 841.04 850.66 860.28 869.91
879.53 889.14 898.76 908.38 917.99 927.61 937.22 946.83 956.45 966.06 975.66 985.27 994.88 1004.48 1014.09 1023.69
1033.29 1042.89 1052.49 1062.09 1071.69 1081.29 1090.88 1100.48 1110.07 1119.66 1129.25 1138.84 1148.43 1158.02
1167.61 1177.19 1186.77 1196.36 1205.94 1215.52 1225.10 1234.68 1244.26 1253.83 1263.41 1272.98 1282.55 1273.00
1282.96 1292.93 1302.89 1312.85 1322.81 1332.77 1342.73 1352.68 1362.64 1372.59 1382.54 1392.49 1402.44 1412.39
1422.34 1432.28 1442.23 1452.17 1462.11 1472.05 1481.99 1491.92 1501.86 1511.79 1521.73 1531.66 1541.59 1551.52
1561.44 1571.37 1581.30 1591.22 1601.14 1611.06 1620.98 1630.90 1640.81 1650.73 1660.64 1670.56 1680.47 1690.38
1700.28 1710.19 1720.10 1730.00 1739.90 1749.81 1759.71 1769.60 1779.50 1789.40 1799.29 1809.19 1819.08 1828.97
1838.86 1848.75 1858.63 1868.52 1878.40 1888.28 1883.24 1893.25 1903.26 1913.26 1923.27 1933.27 1943.27 1953.26
1963.25 1973.24 1983.23 1993.22 2003.20 2013.18 2023.16 2033.13 2043.10 2053.07 2063.04 2073.00 2082.97 2092.92
2102.88 2112.83 2122.78 2132.73 2142.68 2152.62 2162.56 2172.50 2182.43 2192.37 2202.30 2212.22 2222.15 2232.07
2241.99 2251.90 2261.82 2271.73 2281.64 2291.54 2301.45 2311.35 2321.25 2331.14 2341.03 2350.92 2360.81 2370.70
2380.58 2390.46 2400.33 2410.21 2420.08 2429.95 2439.81 2449.68 2459.54 2469.40 2479.25 2489.11 2498.96
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the tensorly wheel, or the folder that holds the installed package")
    reference = FOLDER / "indian_pines_reference.tif"
    write_reference(read_array(parser.parse_args().package), reference)
    with tempfile.TemporaryDirectory() as work:
        pair = simulate(
            reference, work, srf="sentinel2", ratio=SCALE, msi_bands=MSI_BANDS, snr_hsi=35, snr_msi=40, seed=0
        )
        shutil.copy(pair.lrhsi, FOLDER / "lrhsi.dat")
        shutil.copy(pair.lrhsi.with_suffix(".hdr"), FOLDER / "lrhsi.hdr")
        shutil.copy(pair.msi, FOLDER / "sentinel2.tif")
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.stat().st_size / 1e6:6.2f} MB  {file.name}")


def read_array(package: Path) -> np.ndarray:
    """Digital numbers (200, 145, 145) from a wheel or an installed package."""
    if package.is_dir():
        return np.load(package / ARRAY).transpose(2, 0, 1)
    with zipfile.ZipFile(package) as wheel:
        return np.load(io.BytesIO(wheel.read(ARRAY))).transpose(2, 0, 1)


def write_reference(numbers: np.ndarray, path: Path) -> None:
    """The upper left 144 x 144 pixels as uint16 with a scale factor."""
    centres = [float(text) for i, text in enumerate(CENTRES_NM.split(), start=1) if i not in LEFT_OUT]
    data = numbers[:, :SIDE, :SIDE].astype(np.float32) * np.float32(COUNT)
    tags = {
        "origin": "AVIRIS, Indian Pine Test Site 3, 12 June 1992; doi:10.4231/R7RX991C",
        "values": "radiance-like counts times 1e-4, not reflectance; radiance = (count - 1000) / 500",
        "georeference": "nominal, not the real one",
    }
    FOLDER.mkdir(exist_ok=True)
    whole = Window(0, 0, SIDE, SIDE)
    with CubeWriter(
        path, GRID, Spectrum(tuple(centres)), Storage(dtype="uint16", scale=COUNT), tags=tags, overwrite=True
    ) as writer:
        writer.write(whole, data, np.ones((SIDE, SIDE), bool))


if __name__ == "__main__":
    main()
