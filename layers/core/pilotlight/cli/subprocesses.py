"""Run another program in place of this one: it gets the signals, and its exit code is returned.

It knows processes, not what they do.
"""

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_command(command: Sequence[str], environment: Mapping[str, str], *, quiet: bool = False) -> int:
    """Run a command and return its exit code, or as a shell does 128 + n if signal n ended it.

    It has its own process group, or the terminal would send it each Ctrl-C too. With `quiet`, its standard output is
    discarded.
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
    """Forward the signals of this process to another one."""

    def forward_signal(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward_signal) for number in FORWARDED_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
