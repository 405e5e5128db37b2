"""What is read of a version's `report.json` outside of training: the verdict and the numbers behind it.

Trained models and those that were brought in have reports of one form; every field that former forms lack has a
default.
"""

from msgspec import Struct


class TriedCandidate(Struct, frozen=True):
    """A way to quantize that was tried, and what became of it."""

    plan: str
    holds: bool
    why: str


class ReportSummary(Struct, frozen=True):
    """The comparison of a version's variants, in short."""

    serve: str
    verdict: str
    size_ratio: float = 1.0  # of the smaller variant to fp32
    latency_ratio: float | None = None  # of the smaller variant to fp32
    agreement: float | None = None  # share of the answers that are the same in both variants, or their R2
    metric: str | None = None
    points_lost: float | None = None  # of the metric
    rungs: tuple[TriedCandidate, ...] = ()
