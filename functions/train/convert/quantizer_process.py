"""Quantize in a process with limits of memory and time: `python -m functions.train.convert.quantizer_process`.

A quantizer may crash, never end, or write a graph that ends whoever opens it. The process reads a `QuantizationJob` as
a line of JSON from standard input, quantizes, opens the result, runs it once, and writes why that failed, as a line.
What libraries print is dropped. It is started with the first job and again after one that ended it.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Self, cast

import msgspec
import numpy as np
from msgspec import Struct

from functions.train.errors import QuantizationError
from functions.train.export.quantize import QuantizationPlan, quantize_graph
from pilotlight.errors import PilotlightError
from pilotlight.native import child_process
from pilotlight.runtime import onnx_header
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import open_session

MODULE = "functions.train.convert.quantizer_process"
BASE_BYTES, BYTES_PER_BYTE = 3_000_000_000, 10  # of memory: for any graph, and for each byte of graph and examples
BASE_SECONDS, BYTES_PER_SECOND = 60.0, 2_000_000  # for one way to quantize, and for reading, calibrating and writing


class QuantizationJob(Struct, frozen=True):
    """One way to quantize one graph."""

    graph: str
    path: str  # of the result
    plan: QuantizationPlan
    feeds: str = ""  # path of the examples, an npz with the arrays of each request


class JobResult(Struct, frozen=True):
    """Why a job failed: a clause without its full stop, empty if it did not."""

    failure: str = ""


class QuantizerProcess:
    """Starts the process when it is needed, and ends it when its time is over or it is not needed any more."""

    def __init__(self, graph: Path, feeds: Sequence[Feeds] = ()) -> None:
        self._graph = graph
        self._feeds = feeds
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        header = onnx_header.read_onnx_header(graph)
        files = (graph, *(graph.parent / name for name in header.external_files))
        size = sum(file.stat().st_size for file in files)
        size += sum(values.nbytes for feed in feeds for values in feed.values())
        self._memory_bytes, self._seconds = BASE_BYTES + BYTES_PER_BYTE * size, BASE_SECONDS + size / BYTES_PER_SECOND

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="pilotlight-quantizer-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_process()
        self._stack.close()

    def quantize(self, graph: Path, inputs: object, plan: QuantizationPlan, path: Path) -> None:
        """Write the smaller variant; `QuantizationError` if that fails, takes too long or too much memory.

        The examples are those of the process.
        """
        job = QuantizationJob(str(graph.absolute()), str(path.absolute()), plan, self._write_feeds())
        process = self._start_process()
        started = time.monotonic()
        timer = threading.Timer(self._seconds, process.kill)
        timer.start()
        try:
            answer = exchange_line(process, msgspec.json.encode(job))
        finally:
            timer.cancel()
            timer.join()
        if not answer and time.monotonic() - started >= self._seconds:
            self._end_process()
            raise QuantizationError(f"the quantizer did not end within {self._seconds:.0f} s")
        if not answer.endswith(b"\n"):
            raise QuantizationError(f"the quantizer's process {self._describe_end()}")
        if failure := msgspec.json.decode(answer, type=JobResult).failure:
            raise QuantizationError(failure)

    def _write_feeds(self) -> str:
        if not self._feeds:
            return ""
        path = self._folder / "feeds.npz"
        if not path.exists():
            arrays = {f"{place}:{name}": v for place, feed in enumerate(self._feeds) for name, v in feed.items()}
            plain = {key: v.astype(str) if v.dtype == object else v for key, v in arrays.items()}
            np.savez(path, allow_pickle=False, **plain)
        return str(path)

    def _start_process(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            command = child_process.build_command(MODULE, [], self._memory_bytes, child_process.UNLIMITED_CPU)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_process.build_environment(),
            )
        return self._process

    def _describe_end(self) -> str:
        process = cast("subprocess.Popen[bytes]", self._process)
        code = process.wait()
        self._end_process()
        return child_process.describe_failure(code, b"", self._memory_bytes).removeprefix("its process ") or "ended"

    def _end_process(self) -> None:
        if (process := self._process) is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):  # it ended before it read the last job
                cast("IO[bytes]", stream).close()
        process.wait()
        self._process = None


def exchange_line(process: "subprocess.Popen[bytes]", line: bytes) -> bytes:
    """Write a line to a process and read its answer; empty if it has ended."""
    stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    try:
        stdin.write(line + b"\n")
        stdin.flush()
    except OSError:
        return b""
    return stdout.readline()


def do_job(job: QuantizationJob) -> JobResult:
    """Quantize, open the result and run it once."""
    feeds = load_feeds(job.feeds) if job.feeds else []
    try:
        quantize_as_planned(job, feeds)
        session = open_session(job.path)
    except PilotlightError as exc:
        return JobResult(describe_refusal(exc))
    try:
        for feed in feeds[:1]:
            session.run(feed)
    except PilotlightError as exc:
        return JobResult(describe_refusal(exc))
    return JobResult()


def quantize_as_planned(job: QuantizationJob, feeds: Sequence[Feeds]) -> None:
    """Quantize by the plan, with or without examples."""
    from functions.train.convert import data_free_quantization

    graph, path = Path(job.graph), Path(job.path)
    if job.plan.scheme == "data-free":
        data_free_quantization.quantize_without_data(graph, "int8", path)
    elif job.plan.scheme == "weight-only":
        data_free_quantization.quantize_without_data(graph, "int4", path)
    else:
        quantize_graph(graph, feeds, job.plan, path)


def describe_refusal(exc: PilotlightError) -> str:
    """Describe in one clause why there is no candidate; of a graph that does not open or run, not in C++'s words."""
    if isinstance(exc, QuantizationError):
        return str(exc)
    text = " ".join(str(exc).split())
    node = text.partition("Node (")[2].partition(")")[0] or text.partition("Name:'")[2].partition("'")[0]
    return "onnxruntime does not run the quantized graph" + (f", for its node {node!r}" if node else "")


def load_feeds(path: str) -> list[Feeds]:
    """Load the requests that were written for the process."""
    feeds: dict[int, dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            place, _, name = key.partition(":")
            values = arrays[key]
            feeds.setdefault(int(place), {})[name] = values.astype(object) if values.dtype.kind == "U" else values
    return [feeds[place] for place in sorted(feeds)]


def main() -> None:
    """Do the jobs that come on standard input, one after the other; answer each with a line."""
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    for line in sys.stdin.buffer:
        result = do_job(msgspec.json.decode(line, type=QuantizationJob))
        answers.write(msgspec.json.encode(result) + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
