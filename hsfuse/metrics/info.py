"""What a metric is, as data: the entry that every result, table and report goes by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class MetricInfo:
    """One metric, described. `note` says which variant of the literature's it is, and what that does to figures."""

    key: str
    title: str
    formula: str
    source: str
    range: str
    unit: str
    direction: Direction
    note: str = ""
