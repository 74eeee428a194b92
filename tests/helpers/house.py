"""What the package's architecture looks like in figures: `python tests/helpers/house.py [--tree FOLDER]`.

A room is a folder of the package, or a file beside the folders. Imports inside functions count as well, unless it says
otherwise.
"""

from __future__ import annotations

import argparse
import ast
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The room of hsfuse/__init__.py.
TOP = "hsfuse"
#: Lines that stand twice are told from this many on.
REPEATED = 6


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, top: bool = False) -> frozenset[str]:
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

    visit(_tree(path))
    return frozenset(found)


def calls(path: Path) -> set[str]:
    """What a file calls, as it is written."""
    return {ast.unparse(node.func) for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)}


def within(name: str, package: str) -> bool:
    """Whether a dotted name is the package or lies in it."""
    return name == package or name.startswith(f"{package}.")


class House:
    """The modules of hsfuse in the tree at `root`, their rooms, and who imports whom."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root, self.package = root, root / "hsfuse"
        self.files = sorted(self.package.rglob("*.py"))
        #: Without the two files that stand above all rooms.
        self.modules = [path for path in self.files if self.name(path) not in ("", "__main__")]

    def name(self, path: Path) -> str:
        """Dotted name below hsfuse; "" for hsfuse/__init__.py."""
        parts = path.relative_to(self.package).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def _names(self) -> set[str]:
        return {self.name(file) for file in self.files}

    def own(self, names: Iterable[str]) -> set[str]:
        """Those of the names that are modules of hsfuse, dotted below it."""
        below = {name.removeprefix("hsfuse.") for name in names if name.startswith("hsfuse.")}
        return below & self._names

    @cached_property
    def imported(self) -> dict[str, set[str]]:
        """Module -> the modules of hsfuse that it imports; a package is no user of what it re-exports."""
        found = {}
        for path in self.modules:
            name = self.name(path)
            inside = path.name == "__init__.py"
            found[name] = {o for o in self.own(imports(path)) if not (within(name, o) or (inside and within(o, name)))}
        return found

    @cached_property
    def rooms(self) -> dict[str, set[str]]:
        """Room -> the other rooms that its modules import."""
        found: dict[str, set[str]] = defaultdict(set)
        for path in self.files:
            room, names = self.name(path).split(".")[0] or TOP, imports(path)
            found[room] |= {other.split(".")[0] for other in self.own(names)} - {room}
            public = {name for name in names if name.count(".") == 1 and within(name, TOP)}
            if len(self.own(public)) < len(public):
                found[room] |= {TOP} - {room}
        return dict(found)

    @property
    def loose(self) -> list[str]:
        """Files beside the rooms' folders."""
        return sorted(path.name for path in self.modules if path.parent == self.package)

    @property
    def floors(self) -> int:
        """Rooms on the longest way down; all rooms of a circle lie on the way."""
        return longest_way(self.rooms)

    @property
    def arrows_up(self) -> list[tuple[str, str]]:
        """Imports between two rooms that reach one another: one of their arrows runs up."""
        reach = reachable(self.rooms)
        return [(a, b) for a, below in self.rooms.items() for b in below if a < b and a in reach[b]]

    @property
    def dataclasses(self) -> int:
        """Classes with the decorator."""
        classes = [node for path in self.files for node in ast.walk(_tree(path)) if isinstance(node, ast.ClassDef)]
        return sum(any("dataclass" in ast.unparse(d) for d in node.decorator_list) for node in classes)

    @property
    def imported_once(self) -> list[str]:
        """Modules that exactly one other module imports."""
        users = Counter(other for others in self.imported.values() for other in others)
        return sorted(name for name, count in users.items() if count == 1)

    @property
    def lines(self) -> list[int]:
        """Lines of each file, ascending."""
        return sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in self.files)

    @property
    def repeated(self) -> list[tuple[str, str]]:
        """Pairs of places (FILE:LINE) that begin the same lines of code, without imports, comments and blank ones."""
        seen: dict[tuple[str, ...], tuple[Path, int]] = {}
        found: dict[tuple[Path, int], tuple[str, str]] = {}
        for path in self.files:
            code = [(i, line.strip()) for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
            code = [(i, line) for i, line in code if len(line) > 1 and not line.startswith(("#", "import ", "from "))]
            for start in range(len(code) - REPEATED + 1):
                part = code[start : start + REPEATED]
                first = seen.setdefault(tuple(line for _, line in part), (path, part[0][0]))
                if first != (path, part[0][0]):
                    places = [f"{p.relative_to(self.root)}:{i}" for p, i in (first, (path, part[0][0]))]
                    found[path, start] = (places[0], places[1])
        # Of lines that go on being the same, the first six are told.
        return [pair for (path, start), pair in found.items() if (path, start - 1) not in found]


def reachable(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Node -> all nodes that a way leads to."""
    found = {}
    for start in graph:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = graph.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        found[start] = seen
    return found


def longest_way(graph: Mapping[str, set[str]]) -> int:
    """Nodes on the longest way; of a circle, every node counts once."""
    reach = reachable(graph)
    circle = {node: {node} | {other for other in reach[node] if node in reach.get(other, set())} for node in graph}

    @cache
    def depth(node: str) -> int:
        below = {other for member in circle[node] for other in graph[member]} - circle[node]
        return len(circle[node]) + max((depth(other) for other in below), default=0)

    return max(map(depth, graph))


MEASURE = """
import sys
from hsfuse.cli import main
try:
    main(sys.argv[1:])
finally:
    loaded = [name for name in sys.modules if name.split(".")[0] == "hsfuse"]
    heavy = {"torch", "numba", "matplotlib", "scipy.signal", "scipy.stats"}
    print("LOADED", *loaded, *heavy & sys.modules.keys(), file=sys.stderr)
"""


def run(root: Path, *arguments: str) -> tuple[set[str], bool, float]:
    """Modules of hsfuse and heavy ones that a command loads, whether torch is loaded, and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("LOADED")]
    loaded = set(line.split()[1:])
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return loaded - {"torch"}, "torch" in loaded, seconds


def figures(root: Path) -> dict[str, str]:
    """What is told of a tree: figure -> value."""
    house = House(root)
    lines = house.lines
    told = {
        "folders": f"{len(house.rooms) - len(house.loose) - 2}",
        "files beside them, without __init__ and __main__": f"{len(house.loose)}",
        "floors of imports": f"{house.floors}",
        "arrows between rooms": f"{sum(map(len, house.rooms.values()))}",
        "pairs of rooms that import one another": f"{len(house.arrows_up)}",
        "files": f"{len(house.files)}",
        "lines": f"{sum(lines)}; half of the files have up to {lines[len(lines) // 2]}, the longest {lines[-1]}",
        "dataclasses": f"{house.dataclasses}",
        "modules imported by one other": f"{len(house.imported_once)}",
        f"places where {REPEATED} lines stand twice": f"{len(house.repeated)}",
    }
    data = ["--hsi", "examples/data/lrhsi.hdr", "--msi", "examples/data/sentinel2.tif", "--srf", "sentinel2"]
    missing = ["--hsi", "missing.tif", *data[2:]]
    with tempfile.TemporaryDirectory() as folder:
        out = ["-o", f"{folder}/fused.tif", "-q"]
        for said, arguments in {
            "fuse --method bicubic": ["fuse", *data, "--method", "bicubic", *out],
            "--help": ["--help"],
            "fuse, a file is missing": ["fuse", *missing, *out],
        }.items():
            loaded, torch, seconds = run(root, *arguments)
            told[f"hsfuse {said}"] = (
                f"{len(loaded)} modules, {'with' if torch else 'without'} torch, {seconds:.2f} s of processor time"
            )
    return told


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="root of another checkout")
    parser.add_argument("--list", action="store_true", help="also names what could be less")
    asked = parser.parse_args()
    for figure, value in figures(asked.tree.resolve()).items():
        print(f"{figure:50} {value}")
    if asked.list:
        house = House(asked.tree.resolve())
        print("\nloose:", *house.loose, "\nimported by one other:", *house.imported_once)
        print("\n".join(["\nstanding twice:", *map("  ".join, house.repeated)]))


if __name__ == "__main__":
    main()
