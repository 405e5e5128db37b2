"""Read a process's memory from the operating system, in bytes."""

import resource
import sys
from pathlib import Path

KIB = 1024  # /proc and Linux's getrusage count in these
OWN_PAGES = Path("/proc/self/statm")  # pages: of addresses, resident, shared, text, libraries, data, dirty


def resident_bytes(pid: int) -> int:
    """Return another process's memory as Lambda counts it: its own pages, and its files in memory, mapped or not.

    It is 0 for a process that has just ended, and on systems without /proc.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        files = {
            (stat.st_dev, stat.st_ino): stat.st_size
            for link in Path(f"/proc/{pid}/fd").iterdir()
            if "memfd:" in str(link.readlink())
            for stat in [link.stat()]
        }
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    own = sum(int(fields[name].split()[0]) * KIB for name in ("RssAnon", "RssFile") if name in fields)
    return own + sum(files.values())


def measure_own_memory() -> tuple[int, int]:
    """Return this process's resident bytes, and the bytes that RLIMIT_DATA counts; the peak and 0 without /proc."""
    try:
        _, resident, _, _, _, data, _ = OWN_PAGES.read_bytes().split()
    except OSError:
        return read_max_rss(resource.RUSAGE_SELF), 0
    page = resource.getpagesize()
    return int(resident) * page, int(data) * page


def reset_peak() -> bool:
    """Let `peak_resident_bytes` begin anew at what is resident now; return False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_resident_bytes() -> int:
    """Return the peak memory of this process.

    Read from /proc if there is one: on Linux, ru_maxrss includes the parent's memory at the time of the fork.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * KIB
    return read_max_rss(resource.RUSAGE_SELF)


def peak_child_bytes() -> int:
    """Return the largest peak memory of the ended child processes, which is all that is known without /proc."""
    return read_max_rss(resource.RUSAGE_CHILDREN)


def read_max_rss(who: int) -> int:
    """Read ru_maxrss of this process or of its children; macOS counts it in bytes."""
    max_rss = resource.getrusage(who).ru_maxrss
    return max_rss if sys.platform == "darwin" else max_rss * KIB
