"""The memory of one execution environment: how much a request may still take, and a floor below which allocations fail.

Lambda ends an environment that exceeds its MemorySize, and the caller gets 502. So a request is weighed against what is
free, and what was not foreseen meets the `DataLimit`: then the allocation fails, the request is refused, and the
environment goes on.
"""

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pilotlight.runtime import malloc, process_memory

MIB = 1024 * 1024
USABLE_SHARE = 0.9  # share of MemorySize that requests may use; what is not counted takes some too
HARD_SHARE = 0.97  # share of MemorySize at which allocations fail; Lambda ends the environment at 1
UNLIMITED_BYTES = 1 << 62  # bytes; of a process that nobody limits, such as a command


class DataLimit:
    """The limit of this process's RLIMIT_DATA; none until `allowed_bytes` are set.

    RLIMIT_DATA counts what is allocated, touched or not, such as the stacks of threads (8 MB each) and weights that are
    mapped for writing. So the limit is set from what is counted and what is resident at the moment, and renewed.
    """

    def __init__(self) -> None:
        self.allowed_bytes: int | None = None  # resident bytes at which allocations are to fail
        self._suspensions = 0
        self._lock = threading.Lock()

    def renew(self) -> None:
        """Set the limit anew, unless it is suspended."""
        if self.allowed_bytes is not None:
            with self._lock:
                self._apply(self.allowed_bytes)

    def count_free_bytes(self) -> int:
        """Count the bytes that may still be taken before allocations are to fail, such as by a process of its own."""
        if self.allowed_bytes is None:
            return UNLIMITED_BYTES
        return max(0, self.allowed_bytes - process_memory.measure_own_memory()[0])

    def count_usable_bytes(self) -> int:
        """Count the bytes that a request may take, of this process's memory, and set the limit anew.

        Freed blocks are given back before, since a request may need them for others of another size.
        """
        if self.allowed_bytes is None:
            return UNLIMITED_BYTES
        malloc.return_all_freed_memory()
        self.renew()
        usable = int(self.allowed_bytes * USABLE_SHARE / HARD_SHARE)
        return max(0, usable - process_memory.measure_own_memory()[0])

    @contextmanager
    def suspend(self) -> Iterator[None]:
        """Set no limit in this context, in which a model is opened.

        Opening allocates much that is never touched, and its size is the publisher's and not a caller's.
        """
        if self.allowed_bytes is None:
            yield
            return
        self._change_suspensions(1)
        try:
            yield
        finally:
            self._change_suspensions(-1)

    def _change_suspensions(self, change: int) -> None:
        with self._lock:
            self._suspensions += change
            self._apply(self.allowed_bytes or 0)

    def _apply(self, allowed_bytes: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resident, data = process_memory.measure_own_memory()
        soft = hard if self._suspensions else data + max(0, allowed_bytes - resident)
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


DATA_LIMIT = DataLimit()  # the limit belongs to the process, as this does


class EnvironmentMemory:
    """The memory of this process within a function's MemorySize; without one, it is not limited."""

    def __init__(self, memory_mb: int | None = None, *, enforced: bool = False) -> None:
        """Create it for a function of `memory_mb`; if `enforced`, allocations beyond that fail."""
        self.total_bytes = memory_mb * MIB if memory_mb is not None else UNLIMITED_BYTES
        if enforced and memory_mb is not None and sys.platform == "linux":
            DATA_LIMIT.allowed_bytes = int(self.total_bytes * HARD_SHARE)
            DATA_LIMIT.renew()

    @property
    def free_bytes(self) -> int:
        """The bytes that a request may take now."""
        if self.total_bytes == UNLIMITED_BYTES:
            return UNLIMITED_BYTES
        return max(0, int(self.total_bytes * USABLE_SHARE) - process_memory.measure_own_memory()[0])
