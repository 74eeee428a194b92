"""What an interrupted output needs to go on: an unfinished file under a fixed hidden name, and how far it came."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Journal:
    """The state of an unfinished output; `fingerprint` says what it is made from, and another one's isn't continued."""

    output: Path
    fingerprint: str

    @property
    def data(self) -> Path:
        """The unfinished file."""
        return self.output.with_name(f".{self.output.stem}.unfinished{self.output.suffix}")

    @property
    def path(self) -> Path:
        """The state."""
        return self.output.with_name(f".{self.output.stem}.unfinished.json")

    def load(self) -> dict[str, Any] | None:
        """The last state saved; None when there is none of this fingerprint, or its file is gone."""
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        fits = isinstance(state, dict) and state.pop("fingerprint", None) == self.fingerprint and self.data.is_file()
        return state if fits else None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state, whole or not at all."""
        temporary = self.path.with_suffix(".json.part")
        temporary.write_text(json.dumps({"fingerprint": self.fingerprint, **state}), encoding="utf-8")
        os.replace(temporary, self.path)

    def clear(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".json.part").unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)
