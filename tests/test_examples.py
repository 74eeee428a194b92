"""The scripts in examples/ that need no download run as they are."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_from_two_data_arrays_to_a_plot(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rioxarray")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "argv", ["in_memory.py", str(tmp_path / "plot.png"), "bicubic"])
    runpy.run_path(str(EXAMPLES / "in_memory.py"))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "MSI bands by description" in capsys.readouterr().out
