"""Properties hold on a slow machine too, and a command leaves no logging behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that runs in the test's process logs to streams that are closed after it."""
    yield
    structlog.reset_defaults()
