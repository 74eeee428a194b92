"""Times as metadata write them."""

from __future__ import annotations

from datetime import datetime


def iso_time(value: str | None) -> str | None:
    """A time in ISO 8601 to the second, or a date; None when it is neither."""
    said = (value or "").strip()
    try:
        found = datetime.fromisoformat(said).replace(tzinfo=None, microsecond=0)
    except ValueError:
        return None
    return found.isoformat() if "T" in said.upper() or ":" in said else found.date().isoformat()
