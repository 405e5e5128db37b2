from pathlib import Path

import numpy as np
import pytest

from pilotlight.runtime import heap


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(heap.glibc() is None, reason="only glibc has the habit")
def test_blocks_of_a_megabyte_go_back_at_once() -> None:
    with heap.returning():
        before = resident()
        blocks = [np.ones(1 << 20, np.uint8) for _ in range(64)]
        last = np.ones(1 << 10, np.uint8)  # keeps the end of the heap in use
        assert resident() - before > 50 << 20
        del blocks
        assert resident() - before < 10 << 20
        assert last.sum() == 1 << 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "glibc", lambda: None)
    with heap.returning():
        assert np.ones(1 << 20, np.uint8).all()
