"""What an interrupted output needs to go on: an unfinished file under a fixed hidden name, and how far it came."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def kept_network(output: Path) -> Path:
    """Where who fits a network for an output may keep it; it goes when the output is whole."""
    return output.with_name(f".{output.stem}.unfinished.safetensors")


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

    def finish(self) -> None:
        """Forget everything: the output is whole."""
        self.clear()
        kept_network(self.output).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget what was written."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".json.part").unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)
