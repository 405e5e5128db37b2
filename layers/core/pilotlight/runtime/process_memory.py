"""What a process holds in memory, in bytes, as the operating system tells."""

import resource
import sys
from pathlib import Path

KIB = 1024  # /proc and Linux's getrusage count in these


def resident_bytes(pid: int) -> int:
    """What another process holds now, as Lambda counts it: its own pages, and its files in memory, mapped or not.

    0 for one that has just ended, and where there is no /proc.
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
    """The most that this process has held.

    By /proc where there is one: there ru_maxrss also counts what its parent held when it was forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * KIB
    return read_max_rss(resource.RUSAGE_SELF)


def peak_child_bytes() -> int:
    """The most that any child that has ended held: all that systems without /proc tell of another process."""
    return read_max_rss(resource.RUSAGE_CHILDREN)


def read_max_rss(who: int) -> int:
    """The ru_maxrss of this process or of its children; macOS counts it in bytes."""
    max_rss = resource.getrusage(who).ru_maxrss
    return max_rss if sys.platform == "darwin" else max_rss * KIB
