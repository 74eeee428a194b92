"""The house's rules: imports run downward only, few modules touch pixels, and nothing heavy is in the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from house import ROOT, House, calls, imports, run, within

from hsfuse.methods import METHODS

HOUSE = House()
TESTS = ROOT / "tests"
#: Room -> floor: a room imports from lower floors, and from its own.
FLOORS = {
    "core": 0, "physics": 1, "metrics": 2, "io": 2, "nets": 2, "calibration": 3, "pair": 4, "methods": 4,
    "fusion": 5, "training": 6, "assessment": 6, "benchmark": 7, "batch": 7, "cli": 8,
}  # fmt: skip
WITHOUT_TORCH = ("core",)
#: Third-party package -> where alone it may be imported.
ONLY_IN = {
    "click": ("cli",),
    "jinja2": ("assessment.report",),
    "matplotlib": ("assessment.report", "benchmark.page", "training.loop"),
    "h5py": ("io",),
    "zarr": ("io",),
    "pystac": ("io",),
    "xarray": ("io", "fusion.model"),
    "rioxarray": ("io",),
    "dask": ("core.cluster", "fusion.lazy", "batch.run"),
    "safetensors": ("nets.tensors", "training.kept"),
}
#: Rasterio's value types are shared; what reads, warps or masks pixels is not.
RASTERIO_TYPES = ("crs", "windows")
RASTERIO_WARPS = {"pair.warp": ("warp", "enums"), "pair.mapping": ("warp",), "assessment.report.facts": ("warp",)}
#: What only such a formula has -> the modules that have it.
FORMULAS = {r"(np|xp|torch|math)\.a(rc)?cos\(": {"core.cube", "pair.nesting"}, r"0\.03 ?\* ": {"core.cube"}}
LONGEST_FILE = 520
#: Modules of hsfuse that one plain fusion loads.
MOST_LOADED = 100
LARGEST_FILE = 20 * 2**20
WORDS_THAT_DONT_BELONG = ("/work" + "/", "/home" + "/", "/roo" + "t/")


@pytest.mark.parametrize("path", HOUSE.modules, ids=HOUSE.name)
def test_imports_run_downward(path):
    name = HOUSE.name(path)
    floor = FLOORS[name.split(".")[0]]
    upward = [other for other in HOUSE.own(imports(path)) if FLOORS[other.split(".")[0]] > floor]
    assert not upward, f"hsfuse.{name} (floor {floor}) imports {upward}"


def test_rooms_are_folders_on_few_floors():
    assert not HOUSE.loose
    assert set(HOUSE.rooms) - {"hsfuse", "__main__"} == set(FLOORS)
    assert not HOUSE.arrows_up
    assert HOUSE.floors <= 9


def test_no_module_imports_itself_through_others():
    graph = {}
    for path in HOUSE.modules:
        name = HOUSE.name(path)
        # `from hsfuse.io import x` loads the package; a package that re-exports its modules is no circle for them.
        graph[name] = {other for other in HOUSE.own(imports(path, top=True)) if not within(name, other)}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", ONLY_IN)
def test_packages_stay_in_their_place(package):
    users = [HOUSE.name(path) for path in HOUSE.files if any(within(name, package) for name in imports(path))]
    assert users
    assert not [user for user in users if not any(within(user, place) for place in ONLY_IN[package])]


def test_low_rooms_need_no_torch():
    low = [path for path in HOUSE.modules if HOUSE.name(path).split(".")[0] in WITHOUT_TORCH]
    assert len(low) > 3
    assert not [path for path in low if any(within(name, "torch") for name in imports(path))]


def test_only_io_opens_rasters():
    for path in HOUSE.modules:
        name = HOUSE.name(path)
        if within(name, "io"):
            continue
        assert "rasterio.open" not in calls(path) | imports(path), path
        kinds = (*RASTERIO_TYPES, *RASTERIO_WARPS.get(name, ()))
        used = {used for used in imports(path) if within(used, "rasterio")} - {"rasterio"}
        assert all(any(within(name, f"rasterio.{kind}") for kind in kinds) for name in used), (path, used)


def test_methods_are_known_by_what_all_methods_are():
    """What runs, measures and compares them takes a `Method` from the registry, whichever it is."""
    own = {module.partition(":")[0].removeprefix("hsfuse.") for module in METHODS.values()}
    above = [path for path in HOUSE.modules if FLOORS[HOUSE.name(path).split(".")[0]] > FLOORS["methods"]]
    for path in above:
        if not within(HOUSE.name(path), "training"):
            assert not HOUSE.own(imports(path)) & own, path
            assert "hsfuse.methods.SubspaceMethod" not in imports(path), path


@pytest.mark.parametrize(("formula", "places"), FORMULAS.items())
def test_a_formula_stands_once(formula, places):
    """Spectral angle and SSIM, which every room that compares images would write again; the great circle's arc isn't
    one of them."""
    assert {HOUSE.name(path) for path in HOUSE.modules if re.search(formula, path.read_text())} == places


def test_names_that_say_nothing_are_not_used():
    stems = {path.stem for path in HOUSE.files}
    assert not stems & {"utils", "util", "helpers", "misc", "common"}
    assert not (ROOT / "models" / "__init__.py").exists()


def test_tests_reach_no_higher_than_their_room():
    for path in TESTS.rglob("test_*.py"):
        if path.parent != TESTS:
            floor, used = int(path.parent.name[1]), HOUSE.own(imports(path)) - {""}
            higher = [name for name in used if FLOORS.get(name.split(".")[0], 9) > floor]
            assert not higher, f"{path.parent.name}/{path.name} imports {higher}"


def test_tests_lie_as_the_rooms_do_and_share_helpers_only():
    """In folders tFLOOR_ROOM, so that of several failures the first is nearest to the cause."""
    assert {path.name for path in TESTS.glob("t[0-9]*")} == {f"t{floor}_{room}" for room, floor in FLOORS.items()}
    files = sorted(TESTS.rglob("*.py"))
    modules = [path.stem for path in files if path.stem.startswith("test_")]
    assert len(set(modules)) == len(modules)
    shared = {(path.name, name) for path in files for name in imports(path) if name in {*modules, "conftest"}}
    assert not shared


def tracked_files() -> list[Path]:
    """What git has or would take; without git, everything but hidden folders."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    if (ROOT / ".git").exists():
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    found = []
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if not name.startswith(".")]
        found += [Path(folder) / name for name in names]
    return found


def test_no_large_files():
    assert not [str(path) for path in tracked_files() if path.stat().st_size > LARGEST_FILE]


def test_no_paths_of_one_machine():
    suffixes = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".csv", ".html", ".js", ".hdr", ""}
    for path in tracked_files():
        if path.suffix in suffixes and path.stat().st_size < 2**20:
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not [word for word in WORDS_THAT_DONT_BELONG if word in text], path


def test_files_stay_readable():
    long = {
        path.name: n for path in HOUSE.files if (n := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    }
    assert not long


@pytest.mark.parametrize(
    "code", ["import hsfuse", "import hsfuse; hsfuse.load_srf; hsfuse.open_cube; hsfuse.HsfuseError"]
)
def test_importing_needs_no_torch(code):
    code += "; import sys; print(*(name in sys.modules for name in ('torch', 'numba', 'matplotlib')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3


@pytest.mark.parametrize("arguments", [["--help"], ["srf", "list"]], ids=" ".join)
def test_light_commands_need_no_torch(arguments):
    code = (
        f"import sys, hsfuse.cli as c\ntry:\n    c.main({arguments})\nfinally:\n    assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_plain_method_loads_no_other_and_little_besides(tmp_path):
    data = ROOT / "examples" / "data"
    command = ["fuse", "--hsi", str(data / "lrhsi.hdr"), "--msi", str(data / "sentinel2.tif"), "--srf", "sentinel2"]
    command += ["--method", "bicubic", "-o", str(tmp_path / "fused.tif"), "--json"]
    loaded, _, _ = run(ROOT, *command)
    others = {module.partition(":")[0] for module in METHODS.values()} - {"hsfuse.methods.baselines"}
    assert not {*others, "hsfuse.methods.adapt", "hsfuse.methods.state", "hsfuse.nets"} & loaded
    assert {"hsfuse.fusion.stream", "hsfuse.io.writer"} < loaded
    assert not {"numba", "matplotlib", "scipy.signal", "scipy.stats"} & loaded  # 0.3 to 1 s of processor time each
    assert len(loaded) <= MOST_LOADED


def test_every_public_name_is_there():
    import hsfuse

    assert set(hsfuse.__all__) == {*hsfuse._PUBLIC, "__version__"}
    for name in hsfuse.__all__:
        assert getattr(hsfuse, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        hsfuse.nonsense  # noqa: B018


def test_the_public_names_are_documented():
    import hsfuse

    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    told = {line.split("`")[1].removeprefix("hsfuse.") for line in text.splitlines() if line.startswith("| `hsfuse.")}
    assert told == set(hsfuse.__all__)
    assert not [name for name in hsfuse.__all__ if not getattr(hsfuse, name).__doc__]
