"""docs/architecture.md: its picture is that of the imports, and each of its recipes works."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from house import ROOT

from hsfuse import load_srf, make_method, open_cube
from hsfuse.io.products import PRODUCTS
from hsfuse.io.raster import RasterReader
from hsfuse.methods import METHODS, Method, Requirements
from hsfuse.methods.state import restore_method
from hsfuse.metrics.catalogue import MetricInfo
from hsfuse.physics.model import ObservationModel, gaussian_psf
from hsfuse.physics.sample import PairSample

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def recipe(title: str) -> str:
    """The block of code under a heading, which is to have few lines."""
    block = re.search(rf"## {title}\n.*?```\w+\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None
    assert len([line for line in block[1].splitlines() if line.strip()]) <= 10
    return block[1]


def module(monkeypatch, name, code, **known):
    made = ModuleType(name)
    vars(made).update(known)
    exec(code, vars(made))
    monkeypatch.setitem(sys.modules, name, made)
    return made


def test_the_picture_is_that_of_the_imports():
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    assert rooms.renewed(TEXT) == TEXT, "run python docs/rooms.py"
    assert "cli --> " in TEXT


def test_a_stage_is_where_it_is_said_to_be():
    """Every file of the table is there, and one of a row's files has each name that the row begins with."""
    rows = re.findall(r"^\| [^|`]+(?:`\w+`)? ?\| (`.*?) \| (`.*?) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 9
    for files, names in rows:
        code = "".join((ROOT / "hsfuse" / file).read_text(encoding="utf-8") for file in re.findall(r"`(.*?)`", files))
        for name in re.findall(r"`(.*?)`", names):
            assert re.search(rf"^(?:def|class) {name}\b", code, re.MULTILINE), (files, name)


def test_a_method(monkeypatch):
    module(monkeypatch, "mine", recipe("Adding a method"), Requirements=Requirements, Method=Method)
    monkeypatch.setitem(METHODS, "mean", "mine:Mean")
    model = ObservationModel(np.full((1, 3), 1 / 3), gaussian_psf(1.2, 2), 2)
    lrhsi, msi = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 16, 16)
    method = make_method("mean").fit(PairSample(lrhsi, msi, torch.ones(1, 8, 8, dtype=torch.bool)), model)
    assert method.predict(lrhsi, msi).shape == (1, 3, 16, 16)
    assert torch.equal(restore_method(method.state()).predict(lrhsi, msi), method.predict(lrhsi, msi))


def test_a_sensor(tmp_path):
    (tmp_path / "camera.csv").write_text(recipe("Adding a sensor"), encoding="utf-8")
    response = load_srf(tmp_path / "camera.csv")
    assert response.bands == ("green", "red")
    assert response.centres_nm == pytest.approx([550, 650], abs=1)


def test_a_product(monkeypatch, tmp_path):
    from rasters import write_tif

    module(monkeypatch, "mine", recipe("Adding a product"), RasterReader=RasterReader)
    monkeypatch.setitem(PRODUCTS, "Mine", "mine")
    with open_cube(write_tif(tmp_path / "a.mine.tif", np.ones((2, 8, 8), np.float32))) as reader:
        assert reader.count == 2


def test_a_metric(monkeypatch):
    made = module(monkeypatch, "mine", recipe("Adding a metric"), MetricInfo=MetricInfo, np=np)
    assert made.INFO.direction == "lower"
    assert made.mae(np.ones((2, 3, 3)), np.zeros((2, 3, 3))) == 1
