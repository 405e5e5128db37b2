"""Run one of Pilotlight's modules in a process of its own, within limits of memory, processor time and time.

For what may end its process: a graph, a tokenizer or a table that somebody else has made. The process runs
`python -m pilotlight.native.child_process MEMORY_BYTES CPU_SECONDS MODULE ARGUMENTS...`, which sets the limits and then
runs the module. That of memory is RLIMIT_DATA: what a process may write, without mapped files; macOS does not enforce
it. A panic of Rust for lack of memory prints a backtrace, for which it takes memory while it holds a lock that it then
waits for; so a process that has announced its end and still lives is ended.
"""

import os
import re
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from threading import Event, Thread
from typing import BinaryIO, cast

from pilotlight.errors import PilotlightError

CHUNK_BYTES = 1_000_000  # of what is yielded at once
MAX_LAST_WORDS = 500  # characters of the line on standard error that tells why a process has failed
WATCH_S = 0.1  # between two looks at what a process says and how long it takes
UNLIMITED_CPU = 0.0  # as the processor time of a process: it is not limited
LAST_GASP = re.compile(rb"memory allocation of \d+ bytes failed|panic in a function that cannot unwind")


@dataclass(frozen=True)
class ChildOutcome:
    """What a process has written, and why it failed: a clause without its full stop, empty if it did not."""

    output: bytes
    failure: str = ""


def run_module(
    module: str, arguments: Sequence[str], *, memory_bytes: int, seconds: float, stdin: bytes = b""
) -> ChildOutcome:
    """Run a module to its end, or until it has taken `seconds`; the last line on its standard error is its reason."""
    command = build_command(module, arguments, memory_bytes, UNLIMITED_CPU)
    with start_process(command, subprocess.PIPE) as (process, stderr), watch_process(process, stderr, seconds) as watch:
        output, _ = process.communicate(stdin)
        if watch.is_overdue.is_set():
            return ChildOutcome(b"", f"it did not end within {seconds:g} s")
        return ChildOutcome(output, describe_failure(process.returncode, read_start(stderr), memory_bytes))


class ChildError(PilotlightError):
    """A process of one's own has failed; the text is a clause without its full stop."""


class OverdueError(ChildError):
    """It has taken longer than it may."""


def stream_module(
    module: str,
    arguments: Sequence[str],
    *,
    memory_bytes: int,
    seconds: float,
    cpu_seconds: float = UNLIMITED_CPU,
) -> Iterator[bytes]:
    """Run a module, and yield what it writes as it comes; raise `ChildError` when it fails.

    What is yielded before it fails is not to be kept.
    """
    command = build_command(module, arguments, memory_bytes, cpu_seconds)
    with (
        start_process(command, subprocess.DEVNULL) as (process, stderr),
        watch_process(process, stderr, seconds) as watch,
    ):
        yield from iter(partial(cast("BinaryIO", process.stdout).read, CHUNK_BYTES), b"")
        code = process.wait()
        if watch.is_overdue.is_set():
            raise OverdueError(f"it did not end within {seconds:g} s")
        if code == -signal.SIGPROF:
            raise OverdueError(f"it did not end within {cpu_seconds:.1f} s of processor time")
        if failure := describe_failure(code, read_start(stderr), memory_bytes):
            raise ChildError(failure)


@contextmanager
def start_process(command: Sequence[str], stdin: int) -> Iterator[tuple["subprocess.Popen[bytes]", BinaryIO]]:
    """Start a process; yield it and what it writes to standard error."""
    with (
        TemporaryFile() as stderr,
        subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=build_environment()
        ) as process,
    ):
        yield process, cast("BinaryIO", stderr)


class ProcessWatch(Thread):
    """Kills a process when its time is over, and when it has announced that it aborts and does not end."""

    def __init__(self, process: "subprocess.Popen[bytes]", stderr: BinaryIO, seconds: float) -> None:
        super().__init__(daemon=True)
        self.is_overdue = Event()
        self.is_over = Event()
        self._process = process
        self._stderr = stderr
        self._end = time.monotonic() + seconds

    def run(self) -> None:
        """Look at the process until it has ended or is killed."""
        while not self.is_over.wait(max(0.0, min(WATCH_S, self._end - time.monotonic()))):
            if time.monotonic() >= self._end:
                self.is_overdue.set()
            elif LAST_GASP.search(read_start(self._stderr)) is None:
                continue
            elif self.is_over.wait(WATCH_S):  # it may write its last line yet, and abort by itself
                return
            self._process.kill()
            return


@contextmanager
def watch_process(process: "subprocess.Popen[bytes]", stderr: BinaryIO, seconds: float) -> Iterator[ProcessWatch]:
    """Kill a process after `seconds`, when it hangs, and when the context is left."""
    watch = ProcessWatch(process, stderr, seconds)
    watch.start()
    try:
        yield watch
    finally:
        process.kill()
        watch.is_over.set()
        watch.join()  # before the file is closed that it reads


def read_start(stderr: BinaryIO) -> bytes:
    """Read what a process has written to standard error, without moving the place at which it writes on."""
    return os.pread(stderr.fileno(), CHUNK_BYTES, 0)


def build_command(module: str, arguments: Sequence[str], memory_bytes: int, cpu_seconds: float) -> list[str]:
    """Build the command of a process that sets its limits and runs a module."""
    limits = [str(memory_bytes), str(cpu_seconds)]
    return [sys.executable, "-m", "pilotlight.native.child_process", *limits, module, *arguments]


def build_environment() -> dict[str, str]:
    """Build the environment of a process that finds the modules which this one finds."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "ORT_DISABLE_TELEMETRY": "1",
        "RUST_BACKTRACE": "0",  # a panic for lack of memory that prints one waits for itself for ever
    }


def describe_failure(code: int, stderr: bytes, memory_bytes: int) -> str:
    """Describe how a process has ended; empty for exit code 0."""
    if code == 0:
        return ""
    last_words = stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1][-MAX_LAST_WORDS:].rstrip(".")
    if code > 0:
        return last_words or f"its process ended with {code} and said nothing"
    limit = f"it may use {memory_bytes / 1e6:,.0f} MB"
    return f"its process was ended by {signal.Signals(-code).name} ({limit}): {last_words or 'it said nothing'}"


def exit_with_failure(find_failure: Callable[[], str]) -> None:
    """Do the work of such a process, and end it with what has failed, if anything, in one line on standard error."""
    try:
        failure = find_failure()
    except PilotlightError as exc:
        failure = str(exc)
    if failure:
        sys.exit(" ".join(failure.split()))


def main() -> None:
    """Set the limits, then run the module as if it had been started itself."""
    _, memory_bytes, cpu_seconds, module, *arguments = sys.argv
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash that is expected writes no file of GBs
    signal.setitimer(signal.ITIMER_PROF, float(cpu_seconds))  # SIGPROF ends it; RLIMIT_CPU counts whole seconds
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
