"""Reading that fails is tried again at once in this room: hundreds of files here are damaged on purpose."""

import pytest


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    monkeypatch.setattr("hsfuse.io.reader.WAITS_S", (0.0, 0.0))
