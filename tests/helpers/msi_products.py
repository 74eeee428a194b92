"""Small multispectral products for tests, built after the agencies' public specifications (no sample is at hand).

Sentinel-2: Products Specification Document, SAFE compact format; Landsat: Collection 2 Data Format Control Books;
PlanetScope: Product Specifications. Names, folders, metadata elements, special values and quality codes are theirs;
sizes and values are small and made up.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy.ndimage import gaussian_filter

X, Y, EPSG = 600000, 5000040, 32633
S2_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
S2_TEN, S2_TWENTY = ("B2", "B3", "B4", "B8"), ("B5", "B6", "B7", "B8A", "B11", "B12")
S2_CENTRES = (442.7, 492.7, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 945.1, 1373.5, 1613.7, 2202.4)
S2_NAME = "S2A_MSIL{level}_20220724T101559_N0400_R065_T33UUU_20220724T164454.SAFE"


def write_raster(path: Path, data: np.ndarray, gsd: float, corner=(X, Y), epsg: int | None = EPSG, **how) -> Path:
    """A raster (h, w) or (c, h, w) by plain rasterio; JP2 without loss."""
    data = data[None] if data.ndim == 2 else data
    options = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"} if path.suffix == ".jp2" else {}
    place = {"crs": f"EPSG:{epsg}", "transform": Affine(gsd, 0, corner[0], 0, -gsd, corner[1])} if epsg else {}
    names = how.pop("names", None)
    options |= {"count": len(data), "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype.name, **place}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **(options | how)) as ds:
        ds.write(data)
        if names is not None:
            ds.descriptions = names
    return path


def counts(shape: tuple[int, int], seed: int, dtype: str = "uint16") -> np.ndarray:
    """Smooth digital numbers between about 1,500 and 4,000."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return np.round(2500 + 600 * field / field.std()).clip(1100, 4500).astype(dtype)


def sentinel2(folder: Path, level: str = "2A", size: int = 48, offsets: bool = True, mask: bool = True) -> Path:
    """A .SAFE folder of one tile, `size` pixels of 10 m wide; in B2 DN 0 and 65535, in B5 DN 0, clouds in the mask."""
    safe = folder / S2_NAME.format(level=level)
    granule = safe / "GRANULE" / f"L{level}_T33UUU_A037011_20220724T101600"
    for i, band in enumerate(S2_BANDS):
        gsd = 10 if band in S2_TEN else 20 if band in S2_TWENTY else 60
        data = counts((size * 10 // gsd,) * 2, i)
        if band == "B2":
            data[0, 0], data[0, 1] = 0, 65535
        if band == "B5":
            data[-1, -1] = 0
        number = band[1:].zfill(2)
        name = f"T33UUU_20220724T101559_B{number}"
        if level == "1C":
            write_raster(granule / "IMG_DATA" / f"{name}.jp2", data, gsd)
        elif band != "B10":
            write_raster(granule / "IMG_DATA" / f"R{gsd}m" / f"{name}_{gsd}m.jp2", data, gsd)
    if mask:
        _s2_mask(granule, level, size)
    (granule / "MTD_TL.xml").write_text(_s2_tile(level, size))
    (safe / f"MTD_MSIL{level}.xml").write_text(_s2_product(level, offsets))
    return safe


def _s2_mask(granule: Path, level: str, size: int) -> None:
    """Scene classification of 20 m with one pixel of each class in its first row; or cloud classes of 60 m."""
    if level == "2A":
        scl = np.full((size // 2, size // 2), 4, np.uint8)
        scl[1, :12] = range(12)
        write_raster(granule / "IMG_DATA" / "R20m" / "T33UUU_20220724T101559_SCL_20m.jp2", scl, 20)
    else:
        classes = np.zeros((3, size // 6, size // 6), np.uint8)
        classes[0, 1, 1] = classes[1, 1, 2] = classes[2, 1, 3] = 1  # opaque cloud, cirrus, snow
        write_raster(granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", classes, 60)


def _s2_tile(level: str, size: int) -> str:
    sizes = "".join(
        f'<Geoposition resolution="{gsd}"><ULX>{X}</ULX><ULY>{Y}</ULY><XDIM>{gsd}</XDIM><YDIM>-{gsd}</YDIM>'
        "</Geoposition>"
        for gsd in (10, 20, 60)
    )
    return (
        f'<?xml version="1.0"?><n1:Level-{level}_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/'
        f'S2_PDI_Level-{level}_Tile_Metadata.xsd"><n1:General_Info><SENSING_TIME metadataLevel="Standard">'
        "2022-07-24T10:20:48.758475Z</SENSING_TIME></n1:General_Info><n1:Geometric_Info><Tile_Geocoding>"
        f"<HORIZONTAL_CS_CODE>EPSG:{EPSG}</HORIZONTAL_CS_CODE>{sizes}</Tile_Geocoding></n1:Geometric_Info>"
        f"</n1:Level-{level}_Tile_ID>"
    )


def _s2_product(level: str, offsets: bool) -> str:
    """Offsets of -1000, of B3 -900 so that a mix-up shows; a triangular response of FWHM 20 nm for each band."""
    kind, key = ("BOA_", "BOA") if level == "2A" else ("", "RADIO")
    told = "".join(
        f'<{key}_ADD_OFFSET band_id="{i}">{-900 if band == "B3" else -1000}</{key}_ADD_OFFSET>'
        for i, band in enumerate(S2_BANDS)
    )
    lists = {"BOA": "BOA_ADD_OFFSET_VALUES_LIST", "RADIO": "Radiometric_Offset_List"}[key]
    triangle = " ".join(f"{1 - abs(i - 20) / 20:.3f}" for i in range(1, 40))
    bands = "".join(
        f'<Spectral_Information bandId="{i}" physicalBand="{band}"><Wavelength><CENTRAL unit="nm">{centre}</CENTRAL>'
        f'</Wavelength><Spectral_Response><STEP unit="nm">1</STEP><VALUES>{triangle}</VALUES></Spectral_Response>'
        "</Spectral_Information>"
        for i, (band, centre) in enumerate(zip(S2_BANDS, S2_CENTRES, strict=True))
    )
    return (
        f'<?xml version="1.0"?><n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/'
        f'User_Product_Level-{level}.xsd"><n1:General_Info><Product_Info><PRODUCT_START_TIME>2022-07-24T10:15:59.024Z'
        f"</PRODUCT_START_TIME><PROCESSING_BASELINE>{'04.00' if offsets else '03.01'}</PROCESSING_BASELINE>"
        "<Datatake><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME></Datatake></Product_Info>"
        "<Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST>"
        f'<{kind}QUANTIFICATION_VALUE unit="none">10000</{kind}QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>'
        f"{f'<{lists}>{told}</{lists}>' if offsets else ''}<Spectral_Information_List>{bands}"
        "</Spectral_Information_List></Product_Image_Characteristics></n1:General_Info>"
        f"</n1:Level-{level}_User_Product>"
    )


def s2_raw(safe: Path, band: str, gsd: int) -> np.ndarray:
    """DN of a band as written."""
    number = band[1:].zfill(2)
    (file,) = [*safe.glob(f"GRANULE/*/IMG_DATA/R{gsd}m/*_B{number}_{gsd}m.jp2"), *safe.glob(
        f"GRANULE/*/IMG_DATA/*_B{number}.jp2"
    )]  # fmt: skip
    with rasterio.open(file) as ds:
        return ds.read(1)


def landsat(folder: Path, craft: int = 9, level: int = 2, spelling: str = "txt", size: int = 40) -> Path:
    """A scene's folder: DN 0 in band 2, the first eight bits of QA_PIXEL in row 1, band 3 saturated in row 2."""
    letter = {5: "LT05", 7: "LE07", 8: "LC08", 9: "LC09"}[craft]
    scene = f"{letter}_L{level}{'SP' if level == 2 else 'TP'}_193024_20220724_20220730_02_T1"
    folder = folder / scene
    bands = (1, 2, 3, 4, 5, 6, 7) if craft >= 8 else (1, 2, 3, 4, 5, 7)
    extra = () if level == 2 else (8, 9, 10) if craft >= 8 else (6, 8)
    names = {f"FILE_NAME_BAND_{b}": f"{scene}{'_SR' if level == 2 else ''}_B{b}.TIF" for b in (*bands, *extra)}
    for band in (*bands, *extra):
        data = counts((size, size), band) * 4
        data[0, 0] = 0 if band == 2 else data[0, 0]
        pan = band == 8
        data = np.kron(data, np.ones((2, 2), "uint16")) if pan else data
        write_raster(folder / names[f"FILE_NAME_BAND_{band}"], data, 15 if pan else 30)
    names |= _landsat_quality(folder, scene, size)
    group, mult, add = (
        ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", 2.75e-05, -0.2) if level == 2
        else ("LEVEL1_RADIOMETRIC_RESCALING", 2.0e-05, -0.1)
    )  # fmt: skip
    reflective = [b for b in (*bands, *extra) if b not in (6, 10) or (craft >= 8 and b == 6)]
    factors = {f"REFLECTANCE_MULT_BAND_{b}": mult for b in reflective} | {
        f"REFLECTANCE_ADD_BAND_{b}": add for b in reflective
    }
    groups = {
        "PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": scene, "PROCESSING_LEVEL": scene[5:9], **names},
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": f"LANDSAT_{craft}", "DATE_ACQUIRED": "2022-07-24",
            "SCENE_CENTER_TIME": "09:52:34.3964289Z", "SUN_ELEVATION": 30.0,
        },
        group: factors,
    }  # fmt: skip
    if level == 2:  # the Level-1 record has the same keys with other values
        groups["LEVEL1_RADIOMETRIC_RESCALING"] = dict.fromkeys(factors, 9.9)
        groups["LEVEL1_PROCESSING_RECORD"] = {key: f"of_level_1_{name}" for key, name in names.items()}
    (folder / f"{scene}_MTL.{spelling}").write_text(mtl_text(groups, spelling))
    return folder


def _landsat_quality(folder: Path, scene: str, size: int) -> dict[str, str]:
    pixel, saturation = np.full((size, size), 21824, np.uint16), np.zeros((size, size), np.uint16)
    pixel[1, :8] = [1 << bit for bit in range(8)]
    saturation[2, :3] = [1 << 2, 1 << 11, 1 << 8]  # band 3, terrain occlusion, band 9
    names = {"QUALITY_L1_PIXEL": "QA_PIXEL", "QUALITY_L1_RADIOMETRIC_SATURATION": "QA_RADSAT"}
    for data, name in zip((pixel, saturation), names.values(), strict=True):
        write_raster(folder / f"{scene}_{name}.TIF", data, 30)
    return {f"FILE_NAME_{key}": f"{scene}_{name}.TIF" for key, name in names.items()}


def mtl_text(groups: dict, spelling: str) -> str:
    """The groups as ODL text, JSON or XML."""
    root = "LANDSAT_METADATA_FILE"
    if spelling == "json":
        return json.dumps({root: {g: {k: str(v) for k, v in keys.items()} for g, keys in groups.items()}})
    if spelling == "xml":
        inner = "".join(
            f"<{g}>{''.join(f'<{k}>{v}</{k}>' for k, v in keys.items())}</{g}>" for g, keys in groups.items()
        )
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{inner}</{root}>'
    lines = [f"GROUP = {root}"]
    for group, keys in groups.items():
        lines += [f"  GROUP = {group}"]
        lines += [f'    {k} = "{v}"' if isinstance(v, str) else f"    {k} = {v}" for k, v in keys.items()]
        lines += [f"  END_GROUP = {group}"]
    return "\n".join([*lines, f"END_GROUP = {root}", "END"])


def planet(folder: Path, bands: int = 8, surface: bool = True, size: int = 40, metadata: bool = True) -> Path:
    """An image with UDM2 and metadata beside it; one pixel of row 1 isn't clear, one of row 0 is nodata."""
    scene, kind = "20220724_101559_68_2479_3B", "_8b" if bands == 8 else ""
    data = np.stack([counts((size, size), i) for i in range(bands)])
    data[:, 0, 0] = 0
    image = write_raster(folder / f"{scene}_AnalyticMS{'_SR' if surface else ''}{kind}.tif", data, 3)
    udm = np.zeros((8, size, size), np.uint8)
    udm[0], udm[0, 1, 1], udm[5, 1, 1] = 1, 0, 1
    write_raster(folder / f"{scene}_udm2.tif", udm, 3)
    if metadata:
        (folder / f"{scene}_AnalyticMS{kind}_metadata.xml").write_text(_planet_xml(bands))
    return image


def _planet_xml(bands: int) -> str:
    told = "".join(
        f"<ps:bandSpecificMetadata><ps:bandNumber>{i}</ps:bandNumber><ps:radiometricScaleFactor>0.01"
        f"</ps:radiometricScaleFactor><ps:reflectanceCoefficient>{2e-5 + i * 1e-6:.7g}</ps:reflectanceCoefficient>"
        "</ps:bandSpecificMetadata>"
        for i in range(1, bands + 1)
    )
    return (
        '<?xml version="1.0"?><ps:EarthObservation xmlns:ps="http://schemas.planet.com/ps/v1/planet_product_metadata_'
        'geocorrected_level" xmlns:eop="http://earth.esa.int/eop" xmlns:gml="http://www.opengis.net/gml"><gml:using>'
        "<eop:EarthObservationEquipment><eop:instrument><eop:Instrument><eop:shortName>"
        f"{'PSB.SD' if bands == 8 else 'PS2'}</eop:shortName></eop:Instrument></eop:instrument>"
        "<eop:acquisitionParameters><ps:Acquisition><ps:acquisitionDateTime>2022-07-24T10:15:59+00:00"
        "</ps:acquisitionDateTime></ps:Acquisition></eop:acquisitionParameters></eop:EarthObservationEquipment>"
        f"</gml:using><gml:resultOf><ps:EarthObservationResult>{told}</ps:EarthObservationResult></gml:resultOf>"
        "</ps:EarthObservation>"
    )


def maxar(folder: Path, enhancement: str = "Off", size: int = 20) -> Path:
    """A WorldView-2 image of eight bands with its .IMD."""
    names = ("C", "B", "G", "Y", "R", "RE", "N", "N2")
    data = np.stack([counts((size, size), i) for i in range(8)])
    data[:, 0, 0] = 0
    image = write_raster(folder / "22JUL24101559-M2AS-01_P001.TIF", data, 2)
    lines = ['version = "28.3";', 'bandId = "Multi";', 'productLevel = "LV2A";']
    lines += ['radiometricLevel = "Corrected";', f'radiometricEnhancement = "{enhancement}";']
    for i, name in enumerate(names):
        lines += [f"BEGIN_GROUP = BAND_{name}", f"\tabsCalFactor = {1e-2 + i * 1e-3:.6e};"]
        lines += ["\teffectiveBandwidth = 5.000000e-02;", f"END_GROUP = BAND_{name}"]
    lines += ["BEGIN_GROUP = IMAGE_1", '\tsatId = "WV02";', "\tfirstLineTime = 2022-07-24T10:15:59.287350Z;"]
    image.with_suffix(".IMD").write_text("\n".join([*lines, "END_GROUP = IMAGE_1", "END;"]))
    return image
