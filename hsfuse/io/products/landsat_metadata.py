"""Landsat's metadata file MTL in its three spellings: ODL text, JSON and XML."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hsfuse.errors import InputError
from hsfuse.io.products.xml import parse_xml, plain_name

#: Group -> key -> value, as text.
Groups = dict[str, dict[str, str]]

_LINE = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*$")
_ROOT = "LANDSAT_METADATA_FILE"


def read_mtl(raw: bytes, path: Path) -> Groups:
    """The groups of a Collection 2 MTL file's bytes; InputError when it is broken or of another collection."""
    readers = {".json": _read_json, ".xml": _read_xml}
    root, groups = readers.get(path.suffix.lower(), _read_odl)(raw, path)
    if root != _ROOT:
        why = "Collection 1" if root == "L1_METADATA_FILE" else f"{root or 'nothing known'}"
        raise InputError(f"{path} is metadata of {why}; wanted {_ROOT}, as Collection 2 has it")
    return groups


def _read_odl(raw: bytes, path: Path) -> tuple[str, Groups]:
    """GROUP = name, key = value, END_GROUP = name; the outermost group is the root."""
    open_groups: list[str] = []
    root, groups = "", Groups()
    for line in raw.decode(errors="replace").splitlines():
        found = _LINE.match(line)
        key, value = (found[1], found[2].strip('"')) if found else ("", "")
        if key == "GROUP":
            root = root or value
            open_groups.append(value)
        elif key == "END_GROUP" and open_groups:
            open_groups.pop()
        elif key and len(open_groups) == 2:
            groups.setdefault(open_groups[-1], {})[key] = value
    if open_groups:
        raise InputError(f"{path} ends inside the group {open_groups[-1]}; is the download complete?")
    return root, groups


def _read_json(raw: bytes, path: Path) -> tuple[str, Groups]:
    try:
        tree = json.loads(raw.decode(errors="replace"))
    except ValueError as error:
        raise InputError(f"{path} isn't JSON that can be read ({error}); is the download complete?") from error
    if not isinstance(tree, dict) or len(tree) != 1:
        return "", {}
    root, content = next(iter(tree.items()))
    groups = content.items() if isinstance(content, dict) else ()
    return root, {name: {k: str(v) for k, v in group.items()} for name, group in groups if isinstance(group, dict)}


def _read_xml(raw: bytes, path: Path) -> tuple[str, Groups]:
    root = parse_xml(raw, path)
    return plain_name(root), {
        plain_name(group): {plain_name(e): (e.text or "").strip() for e in group} for group in root
    }
