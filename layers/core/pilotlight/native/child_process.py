"""Run one of Pilotlight's modules in a process of its own, within limits of memory and time.

For what may end its process: a graph, a tokenizer or a table that somebody else has made. The process runs
`python -m pilotlight.native.child_process MEMORY_BYTES MODULE ARGUMENTS...`, which sets the limit and then runs the
module. The limit is RLIMIT_DATA: memory that a process may write, without mapped files; macOS does not enforce it.
"""

import os
import resource
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from threading import TIMEOUT_MAX, Event, Timer
from typing import BinaryIO, cast

from pilotlight.errors import PilotlightError

CHUNK_BYTES = 1_000_000  # of what is yielded at once
MAX_LAST_WORDS = 500  # characters of the line on standard error that tells why a process has failed


@dataclass(frozen=True)
class ChildOutcome:
    """What a process has written, and why it failed: a clause without its full stop, empty if it did not."""

    output: bytes
    failure: str = ""


def run_module(
    module: str, arguments: Sequence[str], *, memory_bytes: int, seconds: float, stdin: bytes = b""
) -> ChildOutcome:
    """Run a module to its end, or until it has taken `seconds`; the last line on its standard error is its reason."""
    try:
        done = subprocess.run(
            build_command(module, arguments, memory_bytes),
            input=stdin,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=build_environment(),
        )
    except subprocess.TimeoutExpired:
        return ChildOutcome(b"", f"it did not end within {seconds:g} s")
    return ChildOutcome(done.stdout, describe_failure(done.returncode, done.stderr, memory_bytes))


class ChildError(PilotlightError):
    """A process of one's own has failed; the text is a clause without its full stop."""


class OverdueError(ChildError):
    """It has taken longer than it may."""


def stream_module(module: str, arguments: Sequence[str], *, memory_bytes: int, seconds: float) -> Iterator[bytes]:
    """Run a module, and yield what it writes as it comes; raise `ChildError` when it fails.

    What is yielded before it fails is not to be kept.
    """
    with (
        TemporaryFile() as stderr,
        subprocess.Popen(
            build_command(module, arguments, memory_bytes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=build_environment(),
        ) as process,
        end_after(process, seconds) as is_overdue,
    ):
        yield from iter(partial(cast("BinaryIO", process.stdout).read, CHUNK_BYTES), b"")
        code = process.wait()
        if is_overdue.is_set():
            raise OverdueError(f"it did not end within {seconds:g} s")
        stderr.seek(0)
        if failure := describe_failure(code, stderr.read(), memory_bytes):
            raise ChildError(failure)


@contextmanager
def end_after(process: "subprocess.Popen[bytes]", seconds: float) -> Iterator[Event]:
    """Kill a process after `seconds`, and when the context is left; the event tells that its time was over."""
    is_overdue = Event()

    def end_process() -> None:
        is_overdue.set()
        process.kill()

    timer = Timer(min(seconds, TIMEOUT_MAX), end_process)
    timer.daemon = True
    timer.start()
    try:
        yield is_overdue
    finally:
        timer.cancel()
        process.kill()


def build_command(module: str, arguments: Sequence[str], memory_bytes: int) -> list[str]:
    """Build the command of a process that sets its limit and runs a module."""
    return [sys.executable, "-m", "pilotlight.native.child_process", str(memory_bytes), module, *arguments]


def build_environment() -> dict[str, str]:
    """Build the environment of a process that finds the modules which this one finds."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ORT_DISABLE_TELEMETRY": "1"}


def describe_failure(code: int, stderr: bytes, memory_bytes: int) -> str:
    """Describe how a process has ended; empty for exit code 0."""
    if code == 0:
        return ""
    last_words = stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1][-MAX_LAST_WORDS:].rstrip(".")
    if code > 0:
        return last_words or f"its process ended with {code} and said nothing"
    limit = f"it may use {memory_bytes / 1e6:,.0f} MB"
    return f"its process was ended by {signal.Signals(-code).name} ({limit}): {last_words or 'it said nothing'}"


def main() -> None:
    """Set the limit, then run the module as if it had been started itself."""
    _, memory_bytes, module, *arguments = sys.argv
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash that is expected writes no file of GBs
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
