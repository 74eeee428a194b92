"""Training of tiny scenes."""

from collections.abc import Iterator

import pytest

from hsfuse.training import sources


@pytest.fixture(scope="module", autouse=True)
def short_validation() -> Iterator[None]:
    """One batch in place of eight: how many there are has no part in what the tests prove."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "VALIDATION_BATCHES", 1)
        yield
