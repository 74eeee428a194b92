"""The scripts in examples/ that need no download run as they are."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_from_two_data_arrays_to_a_plot(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rioxarray")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "argv", ["in_memory.py", str(tmp_path / "plot.png"), "bicubic"])
    runpy.run_path(str(EXAMPLES / "in_memory.py"))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "MSI bands by description" in capsys.readouterr().out


def test_the_picture_of_the_example_is_drawn_from_its_data(tmp_path):
    """LRHSI and truth as they are, and a fused cube that is near to the truth, here in its place, but isn't it."""
    truth = EXAMPLES / "data" / "indian_pines_reference.tif"
    made = runpy.run_path(str(EXAMPLES / "draw_example.py"))
    made["draw"](truth, tmp_path / "example.png")
    drawn, kept = (imread(folder / "example.png")[..., :3] for folder in (tmp_path, EXAMPLES))
    assert drawn.shape == kept.shape
    inch, (width, height) = 100, made["SIZE"]
    rows = slice(int((height - 0.45 - made["SIDE"]) * inch) + 2, int((height - 0.45) * inch) - 2)
    off = []
    for i in range(3):
        left = int((0.06 + 2.53 * i) * inch) + 2
        panel = np.s_[rows, left : left + int(made["SIDE"] * inch) - 4]
        assert drawn[panel].std() > 0.1
        off.append(float(np.abs(drawn[panel] - kept[panel]).mean()))
    lrhsi, fused, reference = off
    assert max(lrhsi, reference) < 1e-3
    assert 0.005 < fused < 0.06
    assert round(width * inch) == kept.shape[1]
