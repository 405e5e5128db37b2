"""What all handlers have in common."""

import pytest

from pilotlight.runtime import process_memory

IDLE_BYTES = 120_000_000  # resident bytes of a function that has a small model open


@pytest.fixture(autouse=True)
def process_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests be weighed as in a function's own process: pytest's holds torch, and much of earlier tests."""
    monkeypatch.setattr(process_memory, "measure_own_memory", lambda: (IDLE_BYTES, IDLE_BYTES))
