"""Files that claim or unpack to far more than they are: one line, at once. And products in other clothes."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import hsi_products as built
import msi_products as made
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import scipy.io
from rasterio.crs import CRS
from rasters import NORTH_UP, integers, write_cube, write_envi, write_tif

from hsfuse.core.errors import HsfuseError, InputError, ModelError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io import open_cube
from hsfuse.io.arrays import read_reference
from hsfuse.io.bug_report import bug_report
from hsfuse.io.toml import read_toml
from hsfuse.nets.weights import read_card

#: Seconds and bytes that a refusal may take beyond the idle process.
SECONDS, BYTES = 2.0, 300 * 2**20
SCENE = "LC08_L2SP_193024_20220724_20220802_02_T1"
ENMAP = "ENMAP01-____L2A-DT0000000001_20220724T104526Z_001_V010110_20221118T145147Z"
MEASURE = """
import resource, sys, time
from pathlib import Path
from hsfuse.core.errors import HsfuseError
from hsfuse.io import open_cube
from hsfuse.io.arrays import read_reference
import hsfuse.io.products.landsat, hsfuse.io.products.enmap, h5py, zarr
def peak(fresh=False):
    # Bytes of this program alone: what getrusage tells begins with those of the process that started it.
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    told = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(told.split()[1]) * 1024
for path in sys.argv[1:]:
    before, start = peak(fresh=True), time.process_time()
    try:
        if path.endswith((".mat", ".npz", ".png")):
            read_reference(Path(path))
        else:
            with open_cube(path) as reader:
                reader.read()
        said = "read"
    except HsfuseError as error:
        said = str(error).replace(chr(10), "<newline>")
    print(peak() - before, time.process_time() - start, said)
"""


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def packed(byte: bytes, mebibytes: int) -> bytes:
    """Raw deflate of so many MiB of one byte, packed once and repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(byte * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)) * mebibytes + b"\x03\0"


def swollen_zip(path: Path, name: str, mebibytes: int) -> Path:
    """A zip with one member of so many MiB of blanks."""
    content, named = packed(b" ", mebibytes), name.encode()
    facts = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, 0, len(content), mebibytes * 2**20, len(named), 0)
    member = b"PK\3\4" + facts + named + content
    listed = b"PK\1\2\x14\0" + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0) + named
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(listed), len(member), 0)
    path.write_bytes(member + listed + end)
    return path


def tar(path: Path, members: dict[str, bytes], mode: str = "w", links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def bomb_xml_in_zip(folder: Path) -> Path:
    return swollen_zip(folder / f"{ENMAP}.zip", f"{ENMAP}/{ENMAP}-METADATA.XML", 1024)


def bomb_of_elements(folder: Path) -> Path:
    write_tif(folder / f"{ENMAP}-SPECTRAL_IMAGE.TIF", integers())
    path = folder / f"{ENMAP}-METADATA.XML"
    path.write_text("<a>" + "<b/>" * 3_000_000 + "</a>")
    return path


def bomb_of_depth(folder: Path) -> Path:
    write_tif(folder / f"{ENMAP}-SPECTRAL_IMAGE.TIF", integers())
    path = folder / f"{ENMAP}-METADATA.XML"
    path.write_text("<a>" * 1_000_000)
    return path


def bomb_xml_in_folder(folder: Path) -> Path:
    write_tif(folder / f"{ENMAP}-SPECTRAL_IMAGE.TIF", integers())
    path = folder / f"{ENMAP}-METADATA.XML"
    path.write_text("<a>" + " " * 40_000_000 + "</a>")
    return path


def bomb_tar_gz(folder: Path) -> Path:
    path, info = folder / f"{SCENE}.tar.gz", tarfile.TarInfo("x_MTL.txt")
    info.size = 2**30
    zeros = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed(b"\0", 1024) + struct.pack("<II", 0, 2**30)
    path.write_bytes(gzip.compress(info.tobuf()) + zeros)
    return path


def many_members(folder: Path) -> Path:
    with zipfile.ZipFile(folder / f"{ENMAP}.zip", "w") as archive:
        for i in range(25_000):
            archive.writestr(f"{i:06}", b"")
    return folder / f"{ENMAP}.zip"


def many_members_tar(folder: Path) -> Path:
    return tar(folder / f"{SCENE}.tar", {f"{i}": b"" for i in range(21_000)})


def outside_zip(folder: Path) -> Path:
    return zipped(folder / f"{ENMAP}.zip", {f"../{ENMAP}-METADATA.XML": b"<a/>", f"{ENMAP}-SPECTRAL_IMAGE.TIF": b""})


def absolute_tar(folder: Path) -> Path:
    return tar(folder / f"{SCENE}.tar", {f"/etc/{SCENE}_MTL.txt": b"GROUP = a"})


def link_in_tar(folder: Path) -> Path:
    return tar(folder / f"{SCENE}.tar", {}, links={f"{SCENE}_MTL.txt": "/etc/passwd"})


def long_name_in_tar(folder: Path) -> Path:
    path = folder / f"{SCENE}.tar"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**29
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**29 + 2048)
    return path


def huge_header(folder: Path) -> Path:
    header = write_envi(folder / "a.dat", integers())
    header.write_text(header.read_text() + "x = {" + "1, " * 3_000_000 + "}\n")
    return header


def braces_that_never_close(folder: Path) -> Path:
    header = write_envi(folder / "a.dat", integers())
    header.write_text(header.read_text() + "a={\n" * 200_000 + "bands = 99")
    return header


def blanks_without_end(folder: Path) -> Path:
    header = write_envi(folder / "a.dat", integers())
    header.write_text(header.read_text() + "a " * 1_000_000 + "\nbands = 99")
    return header


def huge_tiff(folder: Path) -> Path:
    path = folder / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", width=2_000_000, height=2_000_000, count=8, dtype="uint16",
                       tiled=True, sparse_ok=True, bigtiff="yes", blockxsize=32768, blockysize=32768):  # fmt: skip
        pass
    return path


def huge_block(folder: Path) -> Path:
    path = folder / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", width=30_000, height=30_000, count=1, dtype="float32", sparse_ok=True,
                       tiled=True, blockxsize=30_000 // 16 * 16, blockysize=30_000 // 16 * 16):  # fmt: skip
        pass
    return path


def huge_hdf5(folder: Path) -> Path:
    product = built.prisma(folder, shape=(14, 12))
    with h5py.File(product.entry, "r+") as file:
        name = "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube"
        old = file[name]
        shape, dtype = old.shape, old.dtype
        del file[name]
        file.create_dataset(name, (shape[0] * 100_000, shape[1], shape[2] * 1000), dtype, chunks=(64, shape[1], 64))
    return product.entry


def huge_chunks(folder: Path) -> Path:
    product = built.prisma(folder, shape=(14, 12))
    with h5py.File(product.entry, "r+") as file:
        name = "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube"
        bands = file[name].shape[1]
        del file[name]
        file.create_dataset(name, (8000, bands, 8000), "u2", chunks=(8000, bands, 8000), compression="gzip")
    return product.entry


def swollen_mat(folder: Path) -> Path:
    scipy.io.savemat(folder / "a.mat", {"cube": np.zeros((3, 4, 5))})
    raw = b"\x78\xda" + packed(b"\0", 1024)
    path = folder / "b.mat"
    path.write_bytes((folder / "a.mat").read_bytes() + struct.pack("<II", 15, len(raw)) + raw)
    return path


def swollen_npz(folder: Path) -> Path:
    return swollen_zip(folder / "a.npz", "a.npy", 1024)


def swollen_png(folder: Path) -> Path:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side = struct.pack(">IIBBBBB", 2**15 - 1, 2**15, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", side) + chunk(b"IDAT", b"\x78\xda" + packed(b"\0", 1024)) + chunk(b"IEND", b"")
    path = folder / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def zarr_group(folder: Path, **facts: object) -> Path:
    array = folder / "a.zarr" / "reflectance"
    array.mkdir(parents=True)
    (array.parent / ".zgroup").write_text('{"zarr_format": 2}')
    told = {"zarr_format": 2, "shape": [3, 8, 8], "chunks": [3, 8, 8], "dtype": "<u2", "compressor": None,
            "fill_value": 0, "order": "C", "filters": None}  # fmt: skip
    (array / ".zarray").write_text(json.dumps(told | facts))
    return array.parent


def huge_zarr(folder: Path) -> Path:
    return zarr_group(folder, shape=[300, 10**6, 10**6])


def huge_zarr_chunks(folder: Path) -> Path:
    return zarr_group(folder, shape=[3, 80_000, 80_000], chunks=[3, 80_000, 80_000])


def zarr_of_code(folder: Path) -> Path:
    return zarr_group(folder, filters=[{"id": "pickle"}])


def zarr_that_nests(folder: Path) -> Path:
    path = zarr_group(folder)
    (path / ".zattrs").write_text("[" * 200_000)
    return path


BOMBS = [
    bomb_xml_in_zip, bomb_of_elements, bomb_of_depth, bomb_xml_in_folder, bomb_tar_gz, many_members, many_members_tar,
    outside_zip, absolute_tar, link_in_tar, long_name_in_tar, huge_header, huge_tiff, huge_block, huge_hdf5,
    huge_chunks, swollen_mat, swollen_npz, swollen_png, huge_zarr, huge_zarr_chunks, zarr_of_code, zarr_that_nests,
]  # fmt: skip


@pytest.fixture(scope="module")
def refusals(tmp_path_factory) -> dict[str, tuple[int, float, str]]:
    """Of each bomb the bytes and seconds that opening it took, and what was said: all in one process."""
    paths = [make(tmp_path_factory.mktemp(make.__name__)) for make in BOMBS]
    asked = [sys.executable, "-c", MEASURE, *map(str, paths)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    told = [(int(more), float(seconds), said) for more, seconds, said in lines]
    return {make.__name__: one for make, one in zip(BOMBS, told, strict=True)}


@pytest.mark.parametrize("bomb", [make.__name__ for make in BOMBS])
def test_bombs_and_liars_are_refused_at_once_in_little_memory(refusals, bomb):
    more, seconds, said = refusals[bomb]
    assert said != "read"
    assert "<newline>" not in said
    assert more < BYTES
    assert seconds < SECONDS


@pytest.mark.parametrize("make", [braces_that_never_close, blanks_without_end])
def test_headers_are_parsed_in_one_pass(tmp_path, make):
    path, start = make(tmp_path), time.process_time()
    with pytest.raises(InputError, match="x 99 "):
        open_cube(path)
    assert time.process_time() - start < SECONDS


def test_a_zip_that_lies_of_its_directory(tmp_path):
    path = zipped(tmp_path / f"{ENMAP}.zip", {"a": b""})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, len(raw) - 22 + 12, 2**31)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="too many for an archive of any product"):
        open_cube(path)


def test_json_that_nests_without_end(tmp_path):
    folder = made.landsat(tmp_path)
    root = folder if folder.is_dir() else folder.parent
    for file in root.glob("*_MTL.*"):
        file.unlink()
    (root / f"{SCENE}_MTL.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="isn't JSON that can be read"):
        open_cube(root / f"{SCENE}_MTL.json")


@pytest.mark.parametrize("content", ["a = " + "[" * 100_000, "a = 1\n" * 100_000])
def test_toml_of_any_size_or_depth(tmp_path, content):
    path = tmp_path / "a.toml"
    path.write_text(content)
    with pytest.raises(SettingError):
        read_toml(path)


def test_arrays_that_claim_more_than_they_are(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        claim = {"descr": "<f8", "fortran_order": False, "shape": (99_999, 99_999, 99)}
        np.lib.format.write_array_header_1_0(file, claim)
    with pytest.raises(InputError):
        read_reference(path)
    path.write_bytes(path.read_bytes().replace(b"99)", b"(( "))
    with pytest.raises(InputError):
        read_reference(path)
    swollen_zip(tmp_path / "b.npz", "a.npy", 1)
    with pytest.raises(InputError):
        read_reference(tmp_path / "b.npz")


def test_a_checkpoint_whose_header_claims_gigabytes(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**33) + b"{}")
    with pytest.raises(ModelError, match="its header claims"):
        read_card(path)


# Mutated archives


def hyperspectral(folder: Path, make: Callable[[Path], built.Product], ending: str) -> Path:
    product = make(folder / "p")
    files = {f"p/{file.name}": file.read_bytes() for file in product.folder.iterdir()}
    return packed_as(folder / f"delivery{ending}", files)


def multispectral(folder: Path, make: Callable[[Path], Path], ending: str) -> Path:
    product = make(folder / "p")
    root = product if product.is_dir() else product.parent
    files = {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    stem = next((name.split("_MTL")[0] for name in files if "_MTL" in name), root.stem)
    inside = {f"{root.name}/{name}": content for name, content in files.items()} if stem == root.stem else files
    return packed_as(folder / f"{stem}{ending}", inside)


def packed_as(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        return zipped(path, files)
    return tar(path, files, "w" if path.suffix == ".tar" else "w:gz")


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "enmap.zip": lambda folder: hyperspectral(folder, built.enmap, ".zip"),
    "enmap.tar.gz": lambda folder: hyperspectral(folder, built.enmap, ".tar.gz"),
    "bare enmap.zip": lambda folder: hyperspectral(folder, bare_enmap, ".zip"),
    "desis.tar": lambda folder: hyperspectral(folder, built.desis, ".tar"),
    "landsat.tar": lambda folder: multispectral(folder, made.landsat, ".tar"),
    "landsat.tar.gz": lambda folder: multispectral(folder, made.landsat, ".tar.gz"),
    "sentinel2.zip": lambda folder: multispectral(folder, made.sentinel2, ".zip"),
}


def mutants(whole: bytes, seeds: range) -> Iterator[tuple[int, bytes]]:
    """Cut off or with some bytes changed, also near the end, where a zip has its directory."""
    for seed in seeds:
        rng = random.Random(seed)
        raw = bytearray(whole)
        if seed % 4 == 0:
            raw = raw[: rng.randrange(len(raw))]
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(max(1, len(raw))) if seed % 2 else max(0, len(raw) - rng.randrange(1, 400))
            raw[at : at + 1] = bytes([rng.randrange(256)])
        yield seed, bytes(raw)


def fuzz_bytes(path: Path, read: Callable[[Path], object], seeds: range) -> None:
    """Each mutant is read or refused in one line, and some are refused."""
    whole = path.read_bytes()
    read(path)
    outcomes = []
    for seed, raw in mutants(whole, seeds):
        path.write_bytes(raw)
        try:
            read(path)
            outcomes.append(True)
        except HsfuseError as error:
            outcomes.append("\n" in str(error) and pytest.fail(f"mutant {seed} of {path.name}: {error}"))
        except Exception as error:
            raise AssertionError(f"mutant {seed} of {path.name}: {error!r}") from error
    assert not all(outcomes)


def read_cube(path: Path) -> None:
    with open_cube(path) as reader:
        reader.read()


def few_and_many(few: int, many: int) -> pytest.MarkDecorator:
    """`seeds` of a test that is quick, and of one that isn't."""
    return pytest.mark.parametrize(
        "seeds", [pytest.param(range(few), id="few"), pytest.param(range(few, many), id="many", marks=pytest.mark.slow)]
    )


@few_and_many(8, 300)
@pytest.mark.parametrize("kind", ARCHIVES)
def test_mutated_archives_give_clean_errors(tmp_path, kind, seeds):
    fuzz_bytes(ARCHIVES[kind](tmp_path), read_cube, seeds)


def array_file(folder: Path, ending: str) -> Path:
    cube, path = np.random.default_rng(0).random((3, 9, 8)), folder / f"a{ending}"
    if ending == ".mat":
        scipy.io.savemat(path, {"cube": cube, "cells": np.array([{"a": 1}], object)}, do_compression=True)
    elif ending == ".npz":
        np.savez_compressed(path, cube=cube)
    else:
        np.save(path, cube)
    return path


@few_and_many(60, 3000)
@pytest.mark.parametrize("ending", [".mat", ".npz", ".npy"])
def test_mutated_arrays_give_clean_errors(tmp_path, ending, seeds):
    fuzz_bytes(array_file(tmp_path, ending), read_reference, seeds)


def image_file(folder: Path, ending: str) -> Path:
    image, path = write_tif(folder / "a.tif", integers("uint8", (3, 40, 30)), tiled=True, compress="deflate",
                            blockxsize=16, blockysize=16), folder / f"b{ending}"  # fmt: skip
    if ending == ".tif":
        return image
    rasterio.shutil.copy(image, path, driver="PNG" if ending == ".png" else "JP2OpenJPEG")
    return path


@few_and_many(40, 1500)
@pytest.mark.parametrize("ending", [".tif", ".png", ".jp2"])
def test_mutated_images_give_clean_errors(tmp_path, ending, seeds):
    fuzz_bytes(image_file(tmp_path, ending), read_cube, seeds)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zarr.json", "reflectance/zarr.json", "wavelength/zarr.json",
                                  "reflectance/c/0/0/0"])  # fmt: skip
def test_much_mutated_zarr_gives_clean_errors(tmp_path, name):
    data = np.random.default_rng(0).random((3, 40, 30), dtype=np.float32)
    write_cube(tmp_path / "a.zarr", data, np.ones((40, 30), bool), Grid((40, 30), NORTH_UP, CRS.from_epsg(32633)))
    group = tmp_path / "a.zarr" / "zarr.json"
    told = json.loads(group.read_text())
    del told["consolidated_metadata"]  # which would be read in place of the arrays' own
    group.write_text(json.dumps(told))
    fuzz_bytes(tmp_path / "a.zarr" / name, lambda _: read_cube(tmp_path / "a.zarr"), range(400))


# Products in other clothes


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar"])
def test_landsat_in_the_archive_it_comes_in(tmp_path, ending):
    landsat = made.landsat(tmp_path / "l")
    root = landsat if landsat.is_dir() else landsat.parent
    scene = {file.name: file.read_bytes() for file in root.iterdir()}
    stem = next(key.split("_MTL")[0] for key in scene if "_MTL" in key)
    path = tar(tmp_path / f"{stem}{ending}", scene, "w" if ending == ".tar" else "w:gz")
    with open_cube(path) as packed, open_cube(root) as plain:
        np.testing.assert_array_equal(packed.read().data, plain.read().data)
        assert packed.tags["SENSOR"] == plain.tags["SENSOR"]


def bare_enmap(folder: Path) -> built.Product:
    """A product whose files lack the scene's name; its level is in the metadata."""
    product = built.enmap(folder)
    for file in list(folder.iterdir()):
        file.rename(folder / file.name.removeprefix(f"{built.ENMAP}-"))
    metadata = folder / "METADATA.XML"
    metadata.write_text(metadata.read_text().replace("<base>", "<base><level>L2A</level>"))
    return product


@pytest.mark.parametrize("entry", [".", "METADATA.XML", "SPECTRAL_IMAGE.TIF"])
def test_enmap_without_the_scenes_name(tmp_path, entry):
    bare = bare_enmap(tmp_path / "bare")
    with open_cube(bare.folder / entry) as reader:
        assert reader.quantity == "reflectance"
        assert reader.tags["PRODUCT"].startswith("EnMAP L2A")
        assert reader.spectrum.wavelengths_nm == tuple(bare.centres)
        np.testing.assert_array_equal(reader.read().mask, bare.mask)
        np.testing.assert_allclose(reader.read(bands=[0]).data[0][bare.mask], bare.values[0][bare.mask], atol=1e-6)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tgz"])
@pytest.mark.parametrize("make", [bare_enmap, built.enmap, built.desis], ids=["bare", "enmap", "desis"])
@pytest.mark.parametrize("top", ["", "./", "dims_op_oc_1/scene/"])
def test_hyperspectral_products_in_archives(tmp_path, make, ending, top):
    product = make(tmp_path / "p")
    files = {f"{top}{file.name}": file.read_bytes() for file in product.folder.iterdir()}
    files["__MACOSX/._METADATA.XML"] = b"\0"
    path = tmp_path / f"delivery{ending}"
    if ending == ".zip":
        zipped(path, {name.removeprefix("./"): content for name, content in files.items()})
    else:
        tar(path, files, "w" if ending == ".tar" else "w:gz")
    with open_cube(path, role="HSI") as packed, open_cube(product.folder) as plain:
        cube = packed.read()
        np.testing.assert_array_equal(cube.data, plain.read().data)
        np.testing.assert_array_equal(cube.mask, product.mask)
        assert packed.spectrum == plain.spectrum


def test_a_tar_whose_long_names_gdal_does_not_read(tmp_path):
    product = built.enmap(tmp_path / "p")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(product.folder, "scene")
    with pytest.raises(InputError, match="unpack it first"):
        open_cube(tmp_path / "a.tar")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_an_archive_of_no_known_product_says_how_to_name_a_raster_in_it(tmp_path, ending):
    image = write_tif(tmp_path / "a.tif", integers())
    path, files = tmp_path / f"b{ending}", {"x/a.tif": image.read_bytes()}
    zipped(path, files) if ending == ".zip" else tar(path, files, "w:gz")
    with pytest.raises(InputError, match=r"name a raster in it, such as (/vsi\w+/.*/x/a.tif)") as told:
        open_cube(path)
    with open_cube(str(told.value).split("such as ")[1]) as reader:
        assert reader.count == 3
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(InputError, match="is the download complete"):
        open_cube(path)


NOMINAL_NM = {1: 418.24, 91: 993.083, 92: 902.257, 126: 1283.29, 142: 1530.64, 160: 1728.4, 168: 1977.37, 224: 2445.53}


@pytest.mark.parametrize(("count", "numbers"), [(224, range(1, 225)), (202, [*range(1, 127), *range(142, 161),
                                                                              *range(168, 225)])])  # fmt: skip
def test_enmap_tiles_without_metadata_have_nominal_wavelengths(tmp_path, count, numbers):
    """As those of HySpecNet-11k; 202 bands are those that its users keep."""
    name = f"{ENMAP}-Y01460273_X03110438"
    pixels = integers(shape=(count, 5, 4))
    path = write_tif(tmp_path / f"{name}-SPECTRAL_IMAGE.TIF", pixels, nodata=-32768)
    classes = np.ones((1, 5, 4), "uint8")
    classes[0, 2, 1] = 3
    write_tif(tmp_path / f"{name}-QL_QUALITY_CLASSES.TIF", classes)
    for entry in (path, tmp_path):
        with open_cube(entry, role="HSI") as reader:
            found = dict(zip(numbers, reader.spectrum.wavelengths_nm, strict=True))
            assert {number: found[number] for number in NOMINAL_NM} == NOMINAL_NM
            assert len(reader.spectrum.fwhm_nm) == count
            cube = reader.read()
            np.testing.assert_allclose(cube.data, pixels * (cube.mask * 1e-4), rtol=1e-6)
            np.testing.assert_array_equal(cube.mask, classes[0] != 3)
            assert reader.tags["ACQUIRED"] == "2022-07-24T10:45:26"
            assert any("nominal ones" in note.text and "lacks METADATA.XML" in note.text for note in reader.notes)


@pytest.mark.parametrize(
    ("count", "dtype", "scene"),
    [(223, "int16", ENMAP), (224, "float32", ENMAP), (224, "int16", ENMAP.replace("L2A", "L1C")),
     (224, "int16", "tile"), (235, "int16", built.DESIS)],
)  # fmt: skip
def test_wavelengths_are_guessed_for_no_other_image(tmp_path, count, dtype, scene):
    path = write_tif(tmp_path / f"{scene}-SPECTRAL_IMAGE.TIF", integers(dtype, (count, 3, 4)))
    with open_cube(path) as reader:
        assert reader.spectrum.wavelengths_nm is None
    with pytest.raises(InputError, match="no wavelengths"):
        open_cube(path, role="HSI")


def test_an_enmap_image_alone_is_a_raster_with_a_note(tmp_path):
    path = write_tif(tmp_path / f"{ENMAP}-SPECTRAL_IMAGE.TIF", integers())
    with rasterio.open(path, "r+") as ds:
        ds.descriptions = ["band 1 (450 Nanometers)", "band 2 (550.5 Nanometers)", "band 3 (650 Nanometers)"]
    with open_cube(path, role="HSI") as reader:
        assert reader.spectrum.wavelengths_nm == (450, 550.5, 650)
        assert any("EnMAP image without its METADATA.XML" in note.text for note in reader.notes)


def test_sentinel2_bands_named_alone_ask_for_their_offset(tmp_path):
    folder = tmp_path / "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA_20220706T153419"
    folder.mkdir()
    paths = [write_tif(folder / f"B0{i}.tif", integers("uint16", (1, 5, 4))) for i in (2, 3)]
    with open_cube(paths) as reader:
        assert any("offset of -1000" in note.text for note in reader.notes)


def test_the_response_of_an_instrument_that_did_not_take_the_image_is_not_used(tmp_path):
    landsat = made.landsat(tmp_path)
    root = landsat if landsat.is_dir() else landsat.parent
    (mtl,) = root.glob("*_MTL.txt")
    lines = mtl.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "SPACECRAFT_ID" in line)
    lines[at : at + 1] = ['SPACECRAFT_ID = "LANDSAT_5"', 'SENSOR_ID = "MSS"']
    mtl.write_text("\n".join(line for line in lines if "SENSOR_ID" not in line or "MSS" in line))
    with open_cube(root) as reader:
        assert "SENSOR" not in reader.tags


def test_one_file_in_another_unit_is_converted_alone(tmp_path):
    cube = np.random.default_rng(1).integers(800, 3000, (4, 20, 24))
    paths = [write_tif(tmp_path / f"s_B0{i + 2}.tif", cube[i : i + 1].astype("uint16")) for i in range(3)]
    paths.append(write_tif(tmp_path / "s_B08.tif", (cube[3:] / 10_000).astype("float32")))
    with open_cube(paths) as reader:
        np.testing.assert_allclose(reader.read().data, cube, rtol=1e-5)
        (note,) = [one.text for one in reader.notes if "it alone is multiplied by 10000" in one.text]
        assert note.startswith("s_B08.tif")


def test_dark_and_bright_bands_are_no_other_unit(tmp_path):
    cube = np.random.default_rng(1).integers(800, 3000, (4, 20, 24)).astype("uint16")
    cube[1] = cube[1] // 20
    paths = [write_tif(tmp_path / f"s_B0{i + 2}.tif", cube[i : i + 1]) for i in range(4)]
    with open_cube(paths) as reader:
        np.testing.assert_array_equal(reader.read().data, cube)


# Bug reports


def test_a_bug_report_tells_structure_and_attributes_but_no_pixels(tmp_path):
    product = built.prisma(tmp_path / "p", shape=(14, 12))
    text = bug_report(product.entry)
    assert "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube (14," in text
    assert "List_Cw_Vnir = " in text
    assert "PrismaReader" in text
    header = write_envi(tmp_path / "a.dat", integers(), "wavelength = {450, 550, 650}", "sensor type = mine")
    assert "sensor type = mine" in bug_report(header)
    enmap = built.enmap(tmp_path / "e")
    assert "wavelengthCenterOfBand" in bug_report(enmap.entry)
    assert max(map(len, bug_report(enmap.folder).splitlines())) < 200


def test_a_bug_report_on_what_cannot_be_read(tmp_path):
    (tmp_path / "a.he5").write_bytes(b"no HDF5")
    text = bug_report(tmp_path / "a.he5")
    assert "isn't HDF5" in text
