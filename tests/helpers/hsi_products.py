"""Hyperspectral products for tests, small but laid out and named as the public specifications say.

None of the agencies' products is at hand here: what these builders write (with rasterio, h5py and XML, not with
hsfuse) follows the specifications named in hsfuse/io/products/*.py. Each gives what must be read back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from affine import Affine
from rasters import nm, write_envi, write_tif

UTM33 = Affine(30, 0, 300000, 0, -30, 5800000)
PLACE = {"crs": "EPSG:32633", "transform": UTM33}
ENMAP = "ENMAP01-____L2A-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z"
DESIS = "DESIS-HSI-L2A-DT0483531728_001-20200804T234520-V0210"
PRISMA = "PRS_L2D_STD_20201107101404_20201107101408_0001.he5"
EMIT = "20220903T163129_2224611_012"
GAOFEN = "GF5B_AHSI_E111.6_N35.8_20231031_011422_L10000412729"


@dataclass
class Product:
    """Where it is, and what its pixels are: values (C, H, W) where `mask` (H, W), centres in nm."""

    folder: Path
    entry: Path
    values: np.ndarray
    mask: np.ndarray
    centres: list[float]


def noise(shape: tuple[int, ...], low: int, high: int, dtype: str, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


# EnMAP and DESIS: images and XML


ENMAP_CENTRES = [418.24, 650.0, 985.0, 993.083, 902.257, 982.851, 1004.21, 2445.0]


def enmap_xml(centres: list[float], shape: tuple[int, int], gain: float = 1e-4, extra: str = "") -> str:
    bands = "".join(
        f'<bandID number="{i}"><wavelengthCenterOfBand>{c}</wavelengthCenterOfBand>'
        f"<FWHMOfBand>{6.5 + i / 8}</FWHMOfBand>"
        f"<GainOfBand>{gain * (1 + i % 2)}</GainOfBand><OffsetOfBand>{0.001 * i}</OffsetOfBand></bandID>"
        for i, c in enumerate(centres, 1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<level_X><base><temporalCoverage>'
        "<startTime>2022-07-24T10:45:26.123Z</startTime><stopTime>2022-07-24T10:45:30Z</stopTime></temporalCoverage>"
        f"</base><specific><heightOfOrthoScene>{shape[0]}</heightOfOrthoScene>"
        f"<widthOfOrthoScene>{shape[1]}</widthOfOrthoScene><backgroundValue>-32768</backgroundValue>"
        f"<bandCharacterisation>{bands}</bandCharacterisation>{extra}</specific></level_X>\n"
    )


def enmap(folder: Path, name: str = ENMAP, shape: tuple[int, int] = (60, 55), suffix: str = ".TIF") -> Product:
    """L2A with one band that holds nothing, background in a corner, and a pixel or two with each flag."""
    folder.mkdir(exist_ok=True)
    centres = ENMAP_CENTRES
    raw = noise((len(centres), *shape), 0, 9000, "int16")
    raw[3] = -32768
    raw[:, :5, :5] = -32768
    gains = np.array([1e-4 * (1 + i % 2) for i in range(1, len(centres) + 1)])
    values = raw * gains[:, None, None] + np.array([0.001 * i for i in range(1, len(centres) + 1)])[:, None, None]
    mask = np.ones(shape, bool)
    mask[:5, :5] = False
    if suffix == ".TIF":
        write_tif(folder / f"{name}-SPECTRAL_IMAGE.TIF", raw, nodata=-32768, **PLACE)
    else:
        info = "map info = {UTM, 1, 1, 300000, 5800000, 30, 30, 33, North, WGS-84, units=Meters}"
        header = folder / f"{name}-SPECTRAL_IMAGE.HDR"
        write_envi(folder / f"{name}-SPECTRAL_IMAGE{suffix}", raw, info, interleave=suffix[1:].lower(), header=header)
    layers = {
        "CLASSES": (noise(shape, 1, 3, "uint8"), (0, 0), 3, True),
        "CLOUD": (np.zeros(shape, "uint8"), (10, 10), 1, True),
        "CLOUDSHADOW": (np.zeros(shape, "uint8"), (11, 10), 1, True),
        "HAZE": (np.zeros(shape, "uint8"), (12, 10), 1, True),
        "CIRRUS": (np.ones(shape, "uint8"), (13, 10), 2, True),
        "SNOW": (np.zeros(shape, "uint8"), (14, 10), 1, False),
        "TESTFLAGS": (np.full(shape, 0b1001101, "uint8"), (15, 10), 0b100000, True),
    }
    for layer, (pixels, at, value, masks) in layers.items():
        pixels[at] = value
        mask[at] &= not masks
        write_tif(folder / f"{name}-QL_QUALITY_{layer}.TIF", pixels[None], **PLACE)
    entry = folder / f"{name}-METADATA.XML"
    entry.write_text(enmap_xml(centres, shape))
    return Product(folder, entry, values, mask, centres)


def desis_xml(centres: list[float]) -> str:
    bands = "".join(
        f"<band><bandNumber>{i}</bandNumber><wavelengthCenterOfBand>{c}</wavelengthCenterOfBand>"
        f"<wavelengthWidthOfBand>3.5</wavelengthWidthOfBand><gainOfBand>0.0001</gainOfBand><offsetOfBand>0</offsetOfBand>"
        "<response>0.1,0.9</response></band>"
        for i, c in reversed(list(enumerate(centres, 1)))
    )
    decoy = "<interiorOrientation><band><bandNumber>1</bandNumber></band></interiorOrientation>"
    return (
        '<hsi_doc xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><base><temporalCoverage>'
        "<startTime>2020-08-04T23:45:20.5Z</startTime></temporalCoverage></base>"
        f"<specific>{decoy}<bandCharacterisation>{bands}</bandCharacterisation></specific></hsi_doc>"
    )


def desis(folder: Path, name: str = DESIS, shape: tuple[int, int] = (50, 60)) -> Product:
    """L2A whose bands are listed last first, with each band of the quality layer set somewhere."""
    folder.mkdir(exist_ok=True)
    centres = [401.5, 550.2, 700.9, 999.5]
    raw = noise((len(centres), *shape), -20, 9000, "int16")
    raw[:, -6:] = -32768
    mask = np.ones(shape, bool)
    mask[-6:] = False
    quality = np.zeros((10, *shape), "uint8")
    quality[1] = 1
    quality[8:] = 40
    for band in range(8):
        quality[band, 5 + band, 7] = 1
    mask[[5, 8, 9, 10, 11], 7] = False
    write_tif(folder / f"{name}-SPECTRAL_IMAGE.tif", raw, nodata=-32768, interleave="pixel", **PLACE)
    write_tif(folder / f"{name}-QL_QUALITY-2.tif", quality, photometric="minisblack", alpha="unspecified", **PLACE)
    write_tif(folder / f"{name}-QL_QUALITY.tif", quality[:4], **PLACE)
    entry = folder / f"{name}-METADATA.xml"
    entry.write_text(desis_xml(centres))
    (folder / f"{name}-HISTORY.xml").write_text("<hsi_doc/>")
    return Product(folder, entry, raw * 1e-4, mask, centres)


# PRISMA and EMIT: HDF5


def prisma(folder: Path, name: str = PRISMA, shape: tuple[int, int] = (40, 30)) -> Product:
    """L2D with falling wavelengths, a band that isn't there in each detector, two overlapping SWIR bands, padding."""
    folder.mkdir(exist_ok=True)
    vnir, swir = [0.0, 977.3, 700.1, 406.9], [2497.1, 1500.5, 970.0, 943.3, 0.0]
    raw = [noise((shape[0], len(c), shape[1]), 1, 65535, "uint16", seed) for seed, c in enumerate((vnir, swir))]
    outside = np.zeros(shape, bool)
    outside[:4, :6] = True
    errors = [np.zeros(r.shape, "uint8") for r in raw]
    errors[0][10, 2, 10], errors[0][11, 1, 10], errors[1][12, 0, 10] = 1, 2, 3
    errors[1][:, 1] = 3  # a water vapour band
    with h5py.File(folder / name, "w") as file:
        data = file.create_group("HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields")
        for detector, cube, matrix in zip(("VNIR", "SWIR"), raw, errors, strict=True):
            cube.transpose(0, 2, 1)[outside] = 0
            data[f"{detector}_Cube"] = cube
            data[f"{detector}_PIXEL_L2_ERR_MATRIX"] = matrix
        file["HDFEOS/SWATHS/PRS_L2D_HCO/Geometric Fields/Solar_Zenith_Angle"] = np.where(outside, 0, 35).astype("f4")
        for detector, centres, low, high in (("Vnir", vnir, 0.0, 0.9), ("Swir", swir, -0.1, 0.8)):
            file.attrs[f"List_Cw_{detector}"] = np.array(centres, "f4")
            file.attrs[f"List_Cw_{detector}_Flags"] = np.array([c > 0 for c in centres], "u1")
            file.attrs[f"List_Fwhm_{detector}"] = np.array([10.5 if c else 0 for c in centres], "f4")
            file.attrs[f"L2Scale{detector}Min"], file.attrs[f"L2Scale{detector}Max"] = low, high
        file.attrs["Epsg_Code"] = np.uint32(32633)
        file.attrs["Processing_Level"] = np.bytes_("2D")
        file.attrs["Product_StartTime"] = np.bytes_("2020-11-07T10:14:04.123")
        rows, cols = shape
        for corner, row, col in (("UL", 0, 0), ("LR", rows - 1, cols - 1)):
            file.attrs[f"Product_{corner}corner_easting"] = 600000.0 + 30 * col
            file.attrs[f"Product_{corner}corner_northing"] = 5000000.0 - 30 * row
    cubes = [raw[0] * (0.9 / 65535), raw[1] * (0.9 / 65535) - 0.1]
    kept = [(0, 3), (0, 2), (0, 1), (1, 1), (1, 0)]
    values = np.stack([cubes[d][:, b] for d, b in kept])
    mask = ~outside
    mask[10, 10] = mask[12, 10] = False
    return Product(folder, folder / name, values, mask, [406.9, 700.1, 977.3, 1500.5, 2497.1])


def emit(folder: Path, scene: str = EMIT, with_mask: bool = True, kind: str = "L2A_RFL") -> Product:
    """L2A RFL whose map grid turns the sensor's image, with negative (filled) table entries and a companion mask."""
    folder.mkdir(exist_ok=True)
    lines, samples, centres = 30, 20, [381.0, 700.5, 1380.2, 2493.0]
    cube = np.random.default_rng(3).random((lines, samples, len(centres)), dtype=np.float32)
    cube[4, 5] = -9999
    rows, cols = np.mgrid[0:36, 0:44]
    line, sample = (rows * 3 + cols) // 4, (cols * 2 - rows) // 3 + 4
    found = (line >= 0) & (line < lines) & (sample >= 0) & (sample < samples)
    sign = np.where((rows + cols) % 5 == 0, -1, 1)
    glt_x, glt_y = (np.where(found, sign * (part + 1), 0).astype("i4") for part in (sample, line))
    entry = folder / f"EMIT_{kind}_001_{scene}.nc"
    with h5py.File(entry, "w") as file:
        name = "reflectance" if kind == "L2A_RFL" else "radiance"
        file.create_dataset(name, data=cube).attrs["_FillValue"] = np.float32(-9999)
        file["sensor_band_parameters/wavelengths"] = np.array(centres, "f4")
        file["sensor_band_parameters/fwhm"] = np.full(4, 8.4, "f4")
        if kind == "L2A_RFL":
            file["sensor_band_parameters/good_wavelengths"] = np.array([1, 1, 0, 1], "u1")
        file["location/glt_x"], file["location/glt_y"] = glt_x, glt_y
        file.attrs["geotransform"] = np.array([13.0, 0.00054, 0, 52.5, 0, -0.00054])
        file.attrs["spatial_ref"] = np.bytes_(WGS84)
        file.attrs["time_coverage_start"] = np.bytes_("2022-09-03T16:31:29+0000")
    flags = np.zeros((lines, samples, 8), "f4")
    flags[8, 9, 0], flags[9, 9, 2], flags[10, 9, 4] = 1, 1, 1  # cloud, water, dilated cloud
    flags[..., 5:7] = 0.3
    flags[0, 0] = -9999
    if with_mask:
        with h5py.File(folder / f"EMIT_L2A_MASK_001_{scene}.nc", "w") as file:
            file["mask"] = flags
            names = ["Cloud flag", "Cirrus flag", "Water flag", "Spacecraft Flag", "Dilated Cloud Flag", "AOD550"]
            file["sensor_band_parameters/mask_bands"] = np.array([*names, "H2O (g cm-2)", "Aggregate Flag"], dtype="S")
    at = np.where(found, line, 0), np.where(found, sample, 0)
    masked = (flags[..., [0, 4]] > 0).any(axis=2) if with_mask else np.zeros((lines, samples), bool)
    mask = found & (cube[at][..., 0] != -9999) & ~masked[at]
    return Product(folder, entry, cube[at].transpose(2, 0, 1), mask, centres)


WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433],AUTHORITY["EPSG","4326"]]'
)


# ENVI with a lookup table, and Gaofen-5


def airborne(folder: Path, stem: str = "ang20170228t170016_rdn_v2p5", rotation: float = -50) -> Product:
    """A radiance image in sensor geometry with its GLT on a rotated map grid."""
    folder.mkdir(exist_ok=True)
    centres = [376.8, 381.8, 2500.1]
    cube = np.random.default_rng(5).random((3, 12, 9), dtype=np.float32)
    entry = folder / f"{stem}_img"
    write_envi(entry, cube, *nm(*centres), "fwhm = {5.5, 5.5, 5.6}", header=folder / f"{stem}_img.hdr")
    rows, cols = np.mgrid[0:10, 0:14]
    line, sample = rows + cols // 3, cols - 2
    found = (line < 12) & (sample >= 0) & (sample < 9)
    glt = np.stack([np.where(found, part + 1, 0) for part in (sample, line)]).astype("int32")
    glt[:, 3, 4] *= -1
    info = f"map info = {{UTM, 1, 1, 600000, 4000000, 5, 5, 11, North, WGS-84, units=Meters, rotation={rotation}}}"
    write_envi(folder / f"{stem}_glt", glt, info, header=folder / f"{stem}_glt.hdr")
    values = cube[:, np.where(found, line, 0), np.where(found, sample, 0)]
    return Product(folder, entry, values, found, centres)


def gaofen(folder: Path, name: str = GAOFEN, shape: tuple[int, int] = (12, 10)) -> Product:
    """L1, orthorectified, with the tables that lie beside it; the SWIR's first band is within the VNIR's range."""
    folder.mkdir(exist_ok=True)
    centres = {"VNIR": [390.3, 700.1, 1029.4], "SWIR": [1004.8, 1500.2, 2513.0]}
    raw = {"VN": noise((3, *shape), 1, 4000, "uint16"), "SW": noise((3, *shape), 1, 4000, "uint16", 2)}
    for part, detector in (("VN", "VNIR"), ("SW", "SWIR")):
        write_tif(folder / f"{name}_{part}.tif", raw[part], **PLACE)
        (folder / f"GF5B_AHSI_RadCal_{detector}.raw").write_text("".join(f"0.0{i + 1},{i / 10}\n" for i in range(3)))
        table = "".join(f"{c}, 5.2\n" for c in centres[detector])
        (folder / f"GF5B_AHSI_Spectralresponse_{detector}.raw").write_text(table)
    (folder / f"{name}.xml").write_text("<ProductMetaData/>")
    gain, offset = np.array([0.01, 0.02, 0.03])[:, None, None], np.array([0, 0.1, 0.2])[:, None, None]
    values = np.concatenate([raw["VN"] * gain + offset, (raw["SW"] * gain + offset)[1:]])
    chosen = centres["VNIR"] + centres["SWIR"][1:]
    return Product(folder, folder / f"{name}_VN.tif", values, np.ones(shape, bool), chosen)
