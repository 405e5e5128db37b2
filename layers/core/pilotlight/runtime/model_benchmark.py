"""Measure the memory and the times of one version, opened and run in a separate process.

The process runs this module, `python -m pilotlight.runtime.model_benchmark STORE NAME VERSION MEMORY_MB`. The parent
process reads its memory, since onnxruntime lets no other thread of a process run while it opens a graph.
"""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import IO

import msgspec
import numpy as np
from msgspec import Struct

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.registry.registry import Registry
from pilotlight.runtime import process_memory
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from pilotlight.runtime.golden import GoldenDocument, to_arrays
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_files import open_model_files
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.storage.object_store import ObjectStore, open_store

POLL_SECONDS = 0.004  # s between two readings of the process's memory
WARM_RUNS = 20  # warm inferences, of which the median counts


class LoadTimings(Struct, frozen=True):
    """The times that the process reports."""

    load_seconds: float  # from the store to an open session
    warm_ms: float  # one inference of a golden request if there is one, else of zeros


class LoadMeasurement(Struct, frozen=True):
    """The process's times, and its peak memory."""

    peak_bytes: int
    load_seconds: float
    warm_ms: float


def measure_load(url: str, manifest: Manifest, memory_mb: int) -> LoadMeasurement:
    """Open a version in a new process and run it a few times; `InvalidInputError` if that fails."""
    arguments = [url, manifest.name, str(manifest.version), str(memory_mb)]
    command = [sys.executable, "-m", "pilotlight.runtime.model_benchmark", *arguments]
    with (
        TemporaryFile() as stdout,
        TemporaryFile() as stderr,
        subprocess.Popen(command, stdout=stdout, stderr=stderr) as process,
    ):
        peak_bytes = 0
        while process.poll() is None:
            peak_bytes = max(peak_bytes, process_memory.resident_bytes(process.pid))
            time.sleep(POLL_SECONDS)
        lines = read_output_lines(stderr if process.returncode else stdout)
    if process.returncode:
        reason = lines[-1].decode() if lines else f"the process ended with {process.returncode}"
        raise InvalidInputError(f"{manifest.name}:{manifest.version} cannot be measured: {reason}")
    timings = decode_document(lines[-1], LoadTimings, "the trial's answer")
    return LoadMeasurement(peak_bytes or process_memory.peak_child_bytes(), timings.load_seconds, timings.warm_ms)


def read_output_lines(file: IO[bytes]) -> list[bytes]:
    """Read the lines that a process has written."""
    file.seek(0)
    return file.read().strip().splitlines()


def build_feeds(store: ObjectStore, manifest: Manifest) -> Mapping[str, Array]:
    """Build the inputs of one call: the first golden request, else zeros with each free dimension 1."""
    if manifest.golden is not None:
        with open_model_files(store, manifest, manifest.get_file(manifest.golden)) as path:
            return to_arrays(
                decode_document(Path(path).read_bytes(), GoldenDocument, manifest.golden).exchanges[0].request.inputs
            )
    return {
        spec.name: np.zeros([abs(size) for size in spec.v2_shape], NUMPY_DTYPES[spec.datatype])
        if spec.datatype != "BYTES"
        else np.full([abs(size) for size in spec.v2_shape], "", object)
        for spec in manifest.inputs
    }


def run_benchmark(url: str, name: str, version: int, memory_mb: int) -> LoadTimings:
    """Open the version as a handler does, run it, and return the times."""
    registry = Registry(open_store(url))
    model_manager = ModelManager(registry, ModelCache(memory_mb * 1_000_000), memory_mb=memory_mb, alias_seconds=3600)
    load_start = time.perf_counter()
    model = model_manager.get_model(ModelReference(name, version))
    load_end = time.perf_counter()
    feeds, seconds = build_feeds(registry.store, model.manifest), []
    for _ in range(WARM_RUNS):
        run_start = time.perf_counter()
        model.session.run(feeds)
        seconds.append(time.perf_counter() - run_start)
    return LoadTimings(load_end - load_start, median(seconds) * 1e3)


if __name__ == "__main__":
    try:
        found = run_benchmark(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    except PilotlightError as exc:
        sys.exit(str(exc))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
