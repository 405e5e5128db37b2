"""How much memory there is to train in."""

from pathlib import Path

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
UNKNOWN = 4 * 2**30  # bytes, where the system does not say
NO_LIMIT = 2**62  # bytes


def measure_available_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Measure the bytes of memory that are free, those of the container if it has less than the machine."""
    return min(measure_free_memory(meminfo), measure_container_memory(cgroup))


def measure_free_memory(meminfo: Path) -> int:
    """Measure the bytes that the machine has free, caches included."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return UNKNOWN
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), UNKNOWN)


def measure_container_memory(cgroup: Path) -> int:
    """Measure the bytes that a container may use, in either version of control groups.

    What it uses already is not subtracted, since most of that are files that the system can forget.
    """
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return int((cgroup / name).read_text())
        except (OSError, ValueError):  # not this version; or "max", which is no limit
            continue
    return NO_LIMIT
