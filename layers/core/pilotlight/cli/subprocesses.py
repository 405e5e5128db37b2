"""Another program run in place of this one: signals go on to it, and its exit code comes back.

It knows processes, not what they do.
"""

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_command(command: Sequence[str], environment: Mapping[str, str], *, quiet: bool = False) -> int:
    """Run a command and wait for it; gives its exit code, or as a shell does 128 + n where signal n ended it.

    It has a process group of its own, or the terminal would give it each Ctrl-C beside ours. With `quiet`, what it
    writes to standard output goes nowhere.
    """
    output = subprocess.DEVNULL if quiet else None
    with (
        subprocess.Popen(command, env=environment, process_group=0, stdout=output) as process,
        forward_signals(process),
    ):
        code = process.wait()
    return 128 - code if code < 0 else code


@contextmanager
def forward_signals(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Hand on to the process what this one is told, inside."""

    def forward_signal(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward_signal) for number in FORWARDED_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
