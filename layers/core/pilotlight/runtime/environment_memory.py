"""The memory of one execution environment: how much a request may still take, and a floor below which allocations fail.

Lambda ends an environment that exceeds its MemorySize, and the caller gets 502. So a request is weighed against what is
free, and what was not foreseen meets the limit of `enforce_limit`: then the allocation fails, the request is refused,
and the environment goes on.
"""

import resource
import sys

from pilotlight.runtime import process_memory

MIB = 1024 * 1024
USABLE_SHARE = 0.9  # share of MemorySize that requests may use; what is not counted takes some too
HARD_SHARE = 0.97  # share of MemorySize at which allocations fail; Lambda ends the environment at 1
UNLIMITED_BYTES = 1 << 62  # bytes; of a process that nobody limits, such as a command


class EnvironmentMemory:
    """The memory of this process within a function's MemorySize; without one, it is not limited."""

    def __init__(self, memory_mb: int | None = None, *, enforced: bool = False) -> None:
        """Create it for a function of `memory_mb`; if `enforced`, allocations beyond that fail."""
        self.total_bytes = memory_mb * MIB if memory_mb is not None else UNLIMITED_BYTES
        self._enforced = enforced and memory_mb is not None and sys.platform == "linux"
        self.enforce_limit()

    @property
    def free_bytes(self) -> int:
        """The bytes that a request may take now."""
        if self.total_bytes == UNLIMITED_BYTES:
            return UNLIMITED_BYTES
        return max(0, int(self.total_bytes * USABLE_SHARE) - process_memory.measure_own_memory()[0])

    def enforce_limit(self) -> None:
        """Let allocations fail once this process would take more than `HARD_SHARE` of its memory.

        RLIMIT_DATA counts what is allocated, touched or not, such as the stacks of threads (8 MB each), and no mapped
        files. So the limit is set from both counts as they are now, and again when models were opened.
        """
        if not self._enforced:
            return
        resident, data = process_memory.measure_own_memory()
        limit = data + max(0, int(self.total_bytes * HARD_SHARE) - resident)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
