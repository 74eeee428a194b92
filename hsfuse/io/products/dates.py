"""Times as metadata write them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(value: str | None) -> str | None:
    """A time in UTC, in ISO 8601 to the second, or a date; None when it is neither.

    A time without an offset is taken as UTC.
    """
    said = (value or "").strip()
    try:
        found = datetime.fromisoformat(said).replace(microsecond=0)
    except ValueError:
        return None
    if found.tzinfo is not None:
        found = found.astimezone(UTC).replace(tzinfo=None)
    return found.isoformat() if "T" in said.upper() or ":" in said else found.date().isoformat()
