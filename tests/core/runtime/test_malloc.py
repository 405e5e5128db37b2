import multiprocessing
import resource
from pathlib import Path

import numpy as np
import pytest

from pilotlight.runtime import malloc


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def grown() -> list[int]:
    """By how many bytes the process has grown with 64 MB of blocks, and after they are gone."""
    with malloc.return_freed_memory():
        before = resident()
        blocks = [np.ones(1 << 20, np.uint8) for _ in range(64)]
        last = np.ones(1 << 10, np.uint8)  # keeps the end of the heap in use
        held = resident() - before
        del blocks
        left = resident() - before
        return [held, left, int(last.sum())]


@pytest.mark.skipif(malloc.load_glibc() is None, reason="only glibc has the habit")
def test_blocks_of_a_megabyte_go_back_at_once() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # where no other test has left free blocks
        held, left, last = pool.apply(grown)
    assert held > 50 << 20
    assert left < 10 << 20
    assert last == 1 << 10


def faults() -> tuple[int, int]:
    """How many pages 64 blocks of a megabyte take, one after the other, with the habit and without it."""
    found = []
    for habit in (malloc.reuse_freed_memory, malloc.return_freed_memory):
        with habit():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(64):
                np.ones(1 << 20, np.uint8)
            found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return found[0], found[1]


@pytest.mark.skipif(malloc.load_glibc() is None, reason="only glibc has the habit")
def test_blocks_one_after_the_other_are_the_same_memory() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        kept, fresh = pool.apply(faults)
    assert kept < fresh / 4


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(malloc, "load_glibc", lambda: None)
    with malloc.return_freed_memory(), malloc.reuse_freed_memory():
        assert np.ones(1 << 20, np.uint8).all()
