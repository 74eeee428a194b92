"""The site's links to files of the repository: `[...](../examples/in_memory.py)` works there as in a checkout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
#: Where on the site these files are.
FOLDER = "files"
LINK = re.compile(r"(\]\(|src=\")\.\./([^)\"#]+)")


def linked(pages: list[Path]) -> list[str]:
    """Files of the repository outside docs/ that the pages link to, from its root."""
    return sorted({found[2] for page in pages for found in LINK.finditer(page.read_text(encoding="utf-8"))})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put what is linked onto the site; what isn't there is left for mkdocs to complain about."""
    from mkdocs.structure.files import File

    for name in linked(sorted(Path(config.docs_dir).glob("*.md"))):
        if (ROOT / name).is_file():
            files.append(File.generated(config, f"{FOLDER}/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead the links there."""
    return LINK.sub(rf"\1{FOLDER}/\2", markdown)
