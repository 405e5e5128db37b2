"""What a version needs of a function: memory, time to load, MemorySize, and the price of a million calls.

From a trial where there is one, else from the manifest by formulas that were calibrated on trials (decision 0019).
"""

from collections.abc import Sequence
from math import ceil
from typing import Literal

from msgspec import Struct

from pilotlight.contracts.manifest import Manifest
from pilotlight.costs import prices
from pilotlight.runtime.load_benchmark import Trial
from pilotlight.runtime.load_time import predicted
from pilotlight.runtime.session import MB_PER_VCPU

EMPTY = 72_500_000  # bytes; python, numpy, onnxruntime and obstore with a model of next to nothing
TIMES = 2.2  # of the graph's bytes: the file in memory, and onnxruntime's copy of its weights
HANDLER = 10_000_000  # bytes; headroom for a request and for Lambda's runtime client
SPARE = 0.9  # share of MemorySize that may be used; Lambda kills a function that needs all of it
PER_MS = 3.3e6  # bytes of weights that one vCPU computes with per ms: an estimate for models without a measurement
OVERHEAD_MS = 0.2  # ms of a warm call outside the inference (goal P3)
MIB = 1024 * 1024
STEP = 64  # MB to which a MemorySize is rounded up
LEAST, MOST = 512, 10_240  # MB; of the template's parameter ModelMemory
LONGEST = 25.0  # s; a load that takes longer cannot be waited for by any request


class Fit(Struct, frozen=True):
    """The needs of a version. `usd_per_million` is at `memory_mb`, by Lambda and REST API, all calls warm."""

    model: str
    version: str
    source: Literal["measured", "formula"]
    model_bytes: int
    peak_bytes: int
    load_seconds: float  # on Lambda: the network's part by its quota, the rest as measured or by formula
    warm_ms: float  # one call at `memory_mb`
    memory_mb: int | None  # the smallest safe MemorySize; None where no function is large enough
    usd_per_million: float | None
    architecture: str
    prices_as_of: str = prices.AS_OF
    warnings: tuple[str, ...] = ()


def fit(manifest: Manifest, trial: Trial | None = None, architecture: str = "x86_64") -> Fit:
    """The needs of a version, from a trial or by formula."""
    size = manifest.bytes
    peak = trial.peak_bytes if trial else round(EMPTY + TIMES * size)
    load = predicted(size)
    memory_mb = smallest(peak, size)
    warm = (trial.warm_ms if trial else guessed_ms(manifest)) * slowdown(memory_mb or MOST) + OVERHEAD_MS
    return Fit(
        model=manifest.name,
        version=str(manifest.version),
        source="measured" if trial else "formula",
        model_bytes=size,
        peak_bytes=peak,
        load_seconds=round(load, 3),
        warm_ms=round(warm, 3),
        memory_mb=memory_mb,
        usd_per_million=round(usd_per_million(memory_mb, warm, architecture), 2) if memory_mb else None,
        architecture=architecture,
        warnings=tuple(warnings(memory_mb, load)),
    )


def smallest(peak: int, size: int) -> int | None:
    """The smallest MemorySize in MB that holds the peak with some to spare, and whose half holds the model."""
    needed = max((peak + HANDLER) / MIB / SPARE, 2 * size / 1e6)
    rounded = max(LEAST, STEP * ceil(needed / STEP))
    return rounded if rounded <= MOST else None


def slowdown(memory_mb: int) -> float:
    """How much longer one thread takes where the function has less than a whole vCPU."""
    return max(1.0, MB_PER_VCPU / memory_mb)


def guessed_ms(manifest: Manifest) -> float:
    """The inference time that the report measured, else one pass over the weights."""
    measured = manifest.variants[manifest.serve].metrics.get("latency_ms")
    return measured if measured is not None else manifest.bytes / PER_MS


def usd_per_million(memory_mb: int, warm_ms: float, architecture: str) -> float:
    """A million warm calls through the REST API."""
    call = prices.lambda_usd(memory_mb, prices.billed_ms(warm_ms / prices.MS_PER_S), architecture)
    return 1e6 * (call + prices.REST_API_REQUEST)


def warnings(memory_mb: int | None, load: float) -> Sequence[str]:
    """What stands in the way of serving it."""
    found = []
    if memory_mb is None:
        found.append(f"No function is large enough: Lambda ends at {MOST:,} MB.")
    if load > LONGEST:
        found.append(f"Loading takes {load:.0f} s, and a request waits {LONGEST:.0f} s at most: quantize the model.")
    return found
