"""The picture of the rooms in docs/architecture.md, made from the imports: `python docs/rooms.py` renews it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- rooms -->\n", "<!-- /rooms -->"


def arrows(package: Path) -> dict[str, set[str]]:
    """Room -> the rooms that it imports, those left out that it reaches through another one."""
    rooms = sorted(folder.name for folder in package.iterdir() if (folder / "__init__.py").is_file())
    direct = {room: set[str]() for room in rooms}
    for room in rooms:
        for path in (package / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                direct[room] |= {name.split(".")[1] for name in names if name.startswith("hsfuse.")}
        direct[room] = (direct[room] & set(rooms)) - {room}
    return {
        room: {o for o in own if not any(o in _below(direct, p) for p in own - {o})} for room, own in direct.items()
    }


def _below(direct: dict[str, set[str]], room: str) -> set[str]:
    return direct[room].union(*(_below(direct, other) for other in direct[room]))


def picture(package: Path = ROOT / "hsfuse") -> str:
    """A Mermaid graph: an arrow from a room to what it stands on."""
    lines = [f"  {room} --> {other}" for room, below in sorted(arrows(package).items()) for other in sorted(below)]
    return "\n".join(["```mermaid", "graph TD", *lines, "```", ""])


def renewed(text: str) -> str:
    """A text with the picture between its marks."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + picture() + END + rest.partition(END)[2]


if __name__ == "__main__":
    page = ROOT / "docs" / "architecture.md"
    page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{page}\n")
