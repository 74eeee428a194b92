"""What a file of hsfuse's says of its own making."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Dataset tag in which `hsfuse fuse` writes what was done, as JSON.
PROVENANCE_TAG = "HSFUSE_PROVENANCE"


def read_provenance(tags: Mapping[str, str]) -> dict[str, Any]:
    """What the dataset tags say of the file's making; {} when nothing; what isn't JSON is kept as text."""
    text = next((value for key, value in tags.items() if key.upper() == PROVENANCE_TAG), None)
    others = {k: v for k, v in tags.items() if k.upper().startswith("HSFUSE_") and k.upper() != PROVENANCE_TAG}
    if text is None:
        return dict(others)
    try:
        record = json.loads(text)
    except json.JSONDecodeError:
        record = {"provenance": text}
    return {**others, **(record if isinstance(record, dict) else {"provenance": record})}
