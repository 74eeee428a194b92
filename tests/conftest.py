"""What all tests have: a device that is only pretended, and tiny scenes that are made once."""

from __future__ import annotations

import hypothesis
import pretend_gpu
import pytest
from scenes import MemoryScene, Pair, memory_scene, save_pair

from hsfuse.methods.srlf import FROM_SCRATCH

pretend_gpu.register()
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def tiny() -> MemoryScene:
    """24 x 20 LR pixels at ratio 3."""
    return memory_scene()


@pytest.fixture
def one_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that starts from scratch has a quarter of its stages: how many has no part in what is looked at."""
    monkeypatch.setattr("hsfuse.methods.srlf.FROM_SCRATCH", (1, FROM_SCRATCH[1]))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, tiny: MemoryScene) -> Pair:
    """The tiny scene on disk; not to be changed."""
    return save_pair(tmp_path_factory.mktemp("pair"), tiny)
