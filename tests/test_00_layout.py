"""The house's rules: imports run downward only, few modules touch pixels, and nothing heavy is in the tree."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hsfuse"
FILES = sorted(PACKAGE.rglob("*.py"))

#: Module or package (dotted, below hsfuse) -> layer; the longest name that fits counts.
LAYERS = {
    "core": 0, "physics": 1, "metrics": 2, "io": 2, "nets": 2, "calibration": 3, "pair": 4, "methods": 5,
    "fusion": 6, "training": 7, "assessment": 7, "benchmark": 8, "cli": 9,
}  # fmt: skip
WITHOUT_TORCH = {0}
#: Third-party package -> where alone it may be imported.
ONLY_IN = {
    "click": ("cli",),
    "jinja2": ("assessment.report",),
    "matplotlib": ("assessment.report", "training.curves"),
    "spectral": ("io",),
    "h5py": ("io",),
    "zarr": ("io",),
    "pystac": ("io",),
    "safetensors": ("nets.weights", "training.kept"),
}
LARGEST_FILE = 20 * 2**20
WORDS_THAT_DONT_BELONG = ("/work" + "/", "/home" + "/", "/roo" + "t/")


def name_of(path: Path) -> str:
    """Dotted name below hsfuse; "" for hsfuse/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def layer(name: str) -> int:
    fitting = [known for known in LAYERS if within(name, known)]
    assert fitting, f"hsfuse.{name} has no layer: add it to LAYERS"
    return LAYERS[max(fitting, key=len)]


def imports(path: Path, top: bool = False) -> set[str]:
    """Full names of everything a file imports (`from a import b` gives a and a.b); `top`: only when it is loaded."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.update([str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)])
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (top and (lazy or typing)):
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def own_modules(names: set[str]) -> set[str]:
    """Those of the names that are modules of hsfuse, dotted below it."""
    known = {name_of(file) for file in FILES} - {""}
    return {name.removeprefix("hsfuse.") for name in names if name.removeprefix("hsfuse.") in known and "." in name}


MODULES = [file for file in FILES if name_of(file) not in ("", "__main__")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downward(path):
    name = name_of(path)
    upward = [other for other in own_modules(imports(path)) if layer(other) > layer(name)]
    assert not upward, f"hsfuse.{name} (layer {layer(name)}) imports {upward}"


def test_no_module_imports_itself_through_others():
    graph = {}
    for path in MODULES:
        name = name_of(path)
        # `from hsfuse.io import x` loads the package; a package that re-exports its modules is no cycle for them.
        graph[name] = {other for other in own_modules(imports(path, top=True)) if not within(name, other)}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", ONLY_IN)
def test_packages_stay_in_their_place(package):
    users = [name_of(path) for path in FILES if any(within(name, package) for name in imports(path))]
    assert not [user for user in users if not any(within(user, place) for place in ONLY_IN[package])]


def test_low_layers_need_no_torch():
    low = [path for path in MODULES if layer(name_of(path)) in WITHOUT_TORCH]
    assert len(low) > 3
    assert not [name_of(path) for path in low if any(within(name, "torch") for name in imports(path))]


def test_only_io_opens_rasters():
    for path in FILES:
        if within(name_of(path), "io"):
            continue
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert "rasterio.open" not in calls, path
        assert "rasterio.open" not in imports(path), path
        # Value types are shared; what reads, warps or masks pixels is not.
        used = {name for name in imports(path) if within(name, "rasterio")}
        kinds = ("crs", "windows", "warp", "enums") if within(name_of(path), "pair") else ("crs", "windows")
        assert all(any(within(name, f"rasterio.{kind}") for kind in kinds) or name == "rasterio"
                   for name in used), (path, used)  # fmt: skip


def test_names_that_say_nothing_are_not_used():
    stems = {path.stem for path in FILES}
    assert not stems & {"utils", "util", "helpers", "misc", "common"}
    assert not (ROOT / "models" / "__init__.py").exists()


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
    long = {name_of(path): n for path in FILES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 520}
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


def test_every_public_name_is_there():
    import hsfuse

    assert set(hsfuse.__all__) == {*hsfuse._PUBLIC, "__version__"}
    for name in hsfuse.__all__:
        assert getattr(hsfuse, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        hsfuse.nonsense  # noqa: B018
