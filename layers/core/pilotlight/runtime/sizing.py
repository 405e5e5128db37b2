"""Estimate a version's memory, load time, smallest MemorySize, and the price of a million calls.

The numbers come from a measurement if there is one, else from formulas over the manifest that were calibrated on
measurements (decision 0019).
"""

from collections.abc import Sequence
from math import ceil
from typing import Literal

from msgspec import Struct

from pilotlight.contracts.manifest import Manifest
from pilotlight.costs import prices
from pilotlight.runtime.load_time import predict_load_seconds
from pilotlight.runtime.model_benchmark import LoadMeasurement
from pilotlight.runtime.request_cost import compute_slowdown

BASE_BYTES = 72_500_000  # bytes; python, numpy, onnxruntime and obstore with a tiny model
PEAK_FACTOR = 2.2  # of the graph's bytes: the file in memory, and onnxruntime's copy of its weights
HANDLER_BYTES = 10_000_000  # bytes; headroom for a request and for Lambda's runtime client
USABLE_SHARE = 0.9  # share of MemorySize that may be used; Lambda kills a function that uses all of it
BYTES_PER_MS = 3.3e6  # bytes of weights that one vCPU processes per ms: an estimate for models without a measurement
OVERHEAD_MS = 0.2  # ms of a warm call outside the inference (goal P3)
MIB = 1024 * 1024
MEMORY_STEP_MB = 64  # MB to which a MemorySize is rounded up
MIN_MEMORY_MB, MAX_MEMORY_MB = 512, 10_240  # MB; of the template's parameter ModelMemory
MAX_LOAD_SECONDS = 25.0  # s; no request can wait longer for a load


class SizingReport(Struct, frozen=True):
    """The resources that a version needs. `usd_per_million` is for warm calls of Lambda and REST API at `memory_mb`."""

    model: str
    version: str
    source: Literal["measured", "formula"]
    model_bytes: int
    peak_bytes: int
    load_seconds: float  # on Lambda, by formula
    warm_ms: float  # one call at `memory_mb`
    memory_mb: int | None  # the smallest safe MemorySize; None if no function is large enough
    usd_per_million: float | None
    architecture: str
    prices_as_of: str = prices.AS_OF
    warnings: tuple[str, ...] = ()


def build_sizing_report(
    manifest: Manifest, measurement: LoadMeasurement | None = None, architecture: str = "x86_64"
) -> SizingReport:
    """Build the report from a measurement, or else by formula."""
    size = manifest.served_bytes
    peak_bytes = measurement.peak_bytes if measurement else round(BASE_BYTES + PEAK_FACTOR * size)
    load_seconds = predict_load_seconds(size)
    memory_mb = choose_memory_mb(peak_bytes, size)
    warm_ms = (measurement.warm_ms if measurement else estimate_inference_ms(manifest)) * compute_slowdown(
        memory_mb or MAX_MEMORY_MB
    ) + OVERHEAD_MS
    return SizingReport(
        model=manifest.name,
        version=str(manifest.version),
        source="measured" if measurement else "formula",
        model_bytes=size,
        peak_bytes=peak_bytes,
        load_seconds=round(load_seconds, 3),
        warm_ms=round(warm_ms, 3),
        memory_mb=memory_mb,
        usd_per_million=round(estimate_usd_per_million(memory_mb, warm_ms, architecture), 2) if memory_mb else None,
        architecture=architecture,
        warnings=tuple(list_warnings(memory_mb, load_seconds)),
    )


def choose_memory_mb(peak_bytes: int, model_bytes: int) -> int | None:
    """Choose the smallest MemorySize in MB that holds the peak with headroom, and whose half holds the model."""
    needed = max((peak_bytes + HANDLER_BYTES) / MIB / USABLE_SHARE, 2 * model_bytes / 1e6)
    rounded = max(MIN_MEMORY_MB, MEMORY_STEP_MB * ceil(needed / MEMORY_STEP_MB))
    return rounded if rounded <= MAX_MEMORY_MB else None


def estimate_inference_ms(manifest: Manifest) -> float:
    """Estimate the ms of one inference: as measured in the manifest, else one pass over the weights."""
    measured = manifest.variants[manifest.serve].metrics.get("latency_ms")
    return measured if measured is not None else manifest.served_bytes / BYTES_PER_MS


def estimate_usd_per_million(memory_mb: int, warm_ms: float, architecture: str) -> float:
    """Estimate the price of a million warm calls through the REST API."""
    call = prices.compute_invocation_usd(memory_mb, prices.round_to_billed_ms(warm_ms / prices.MS_PER_S), architecture)
    return 1e6 * (call + prices.REST_API_REQUEST)


def list_warnings(memory_mb: int | None, load_seconds: float) -> Sequence[str]:
    """List the reasons why the version cannot be served well."""
    messages = []
    if memory_mb is None:
        messages.append(f"No function is large enough: Lambda ends at {MAX_MEMORY_MB:,} MB.")
    if load_seconds > MAX_LOAD_SECONDS:
        messages.append(
            f"Loading takes {load_seconds:.0f} s, and a request waits {MAX_LOAD_SECONDS:.0f} s at most: quantize the "
            "model."
        )
    return messages
