"""One version, opened and asked in a process of its own: what it really takes.

The process is this module, `python -m pilotlight.runtime.load_benchmark STORE NAME VERSION MEMORY_MB`. Its parent reads
its memory from outside, since onnxruntime lets no other thread of its own process run while it opens a graph.
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

from pilotlight.contracts.manifest import Manifest, Reference, decode
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.registry.registry import Registry
from pilotlight.runtime import process_memory
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.golden import Golden, arrays
from pilotlight.runtime.model_cache import WarmModels
from pilotlight.runtime.model_files import fetched
from pilotlight.runtime.model_manager import Catalog
from pilotlight.runtime.session import Array
from pilotlight.storage.object_store import ObjectStore, open_store

LOOK = 0.004  # s between two looks at the process
RUNS = 20  # warm inferences, of which the median counts


class Report(Struct, frozen=True):
    """What the process says of itself."""

    load_seconds: float  # from the store to an open session
    warm_ms: float  # one inference: a golden request where there is one, else zeros


class Trial(Struct, frozen=True):
    """The same with the most memory that the process held at any time."""

    peak_bytes: int
    load_seconds: float
    warm_ms: float


def measure(url: str, manifest: Manifest, memory_mb: int) -> Trial:
    """Open a version in a fresh process and ask it a few times; `InvalidInputError` when that does not work."""
    arguments = [url, manifest.name, str(manifest.version), str(memory_mb)]
    command = [sys.executable, "-m", "pilotlight.runtime.load_benchmark", *arguments]
    with (
        TemporaryFile() as said,
        TemporaryFile() as wrong,
        subprocess.Popen(command, stdout=said, stderr=wrong) as process,
    ):
        peak = 0
        while process.poll() is None:
            peak = max(peak, process_memory.held(process.pid))
            time.sleep(LOOK)
        lines = lines_of(wrong if process.returncode else said)
    if process.returncode:
        why = lines[-1].decode() if lines else f"the process ended with {process.returncode}"
        raise InvalidInputError(f"{manifest.name}:{manifest.version} cannot be measured: {why}")
    report = decode(lines[-1], Report, "the trial's answer")
    return Trial(peak or process_memory.peak_of_children(), report.load_seconds, report.warm_ms)


def lines_of(file: IO[bytes]) -> list[bytes]:
    """What a process has written."""
    file.seek(0)
    return file.read().strip().splitlines()


def feeds(store: ObjectStore, manifest: Manifest) -> Mapping[str, Array]:
    """The inputs of one call: the first golden request, else zeros with each free dimension 1."""
    if manifest.golden is not None:
        with fetched(store, manifest, manifest.file(manifest.golden)) as path:
            return arrays(decode(Path(path).read_bytes(), Golden, manifest.golden).exchanges[0].request.inputs)
    return {
        spec.name: np.zeros([abs(size) for size in spec.free_shape], NUMPY_DTYPES[spec.datatype])
        if spec.datatype != "BYTES"
        else np.full([abs(size) for size in spec.free_shape], "", object)
        for spec in manifest.inputs
    }


def report(url: str, name: str, version: int, memory_mb: int) -> Report:
    """Open the version as a handler does, and ask it."""
    registry = Registry(open_store(url))
    catalog = Catalog(registry, WarmModels(memory_mb * 1_000_000), memory_mb=memory_mb, alias_seconds=3600)
    began = time.perf_counter()
    model = catalog.model(Reference(name, version))
    opened = time.perf_counter()
    given, seconds = feeds(registry.store, model.manifest), []
    for _ in range(RUNS):
        started = time.perf_counter()
        model.session.run(given)
        seconds.append(time.perf_counter() - started)
    return Report(opened - began, median(seconds) * 1e3)


if __name__ == "__main__":
    try:
        found = report(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    except PilotlightError as exc:
        sys.exit(str(exc))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
