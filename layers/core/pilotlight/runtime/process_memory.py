"""Read a process's memory from the operating system, in bytes."""

import resource
import sys
from pathlib import Path

KIB = 1024  # /proc and Linux's getrusage count in these


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
