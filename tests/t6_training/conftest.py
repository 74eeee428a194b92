"""Training of tiny scenes."""

import pytest

from hsfuse.training import sources


@pytest.fixture(autouse=True)
def short_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch in place of eight: how many there are has no part in what the tests prove."""
    monkeypatch.setattr(sources, "VALIDATION_BATCHES", 1)
