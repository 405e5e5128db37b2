"""Estimate how long opening a model takes: as measured in this environment, else by a formula from its bytes.

The formula's numbers are those of a Lambda sandbox (AWS, Lambda quotas; infra/decisions/0019).
"""

from collections.abc import Hashable

FETCH_BYTES_PER_S = 78e6  # bytes/s; network of a Lambda environment, 625 Mbit/s
OPEN_BYTES_PER_S = 500e6  # bytes/s; how fast onnxruntime opens a graph on one vCPU: 225 ms for 110 MB
FIXED_SECONDS = 0.05  # s; requests to the store, and opening the smallest graph
MIN_RATED_BYTES = 1_000_000  # bytes; fixed costs dominate smaller models, so their speed does not apply to larger ones


def predict_load_seconds(size: int) -> float:
    """Return the seconds to fetch and open `size` bytes on Lambda."""
    return FIXED_SECONDS + size / FETCH_BYTES_PER_S + size / OPEN_BYTES_PER_S


class LoadTimeEstimator:
    """The seconds that versions took to open, and estimates for those that were not opened yet."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}
        self._bytes_per_second: float | None = None  # bytes/s, of the last model of `MIN_RATED_BYTES` or more

    def record_load(self, key: Hashable, size: int, seconds: float) -> None:
        """Record the seconds that opening took."""
        self._seconds[key] = seconds
        if size >= MIN_RATED_BYTES and seconds > 0:
            self._bytes_per_second = size / seconds

    def estimate_seconds(self, key: Hashable, size: int) -> float:
        """Estimate the seconds that opening this version takes."""
        if key in self._seconds:
            return self._seconds[key]
        return (
            predict_load_seconds(size)
            if self._bytes_per_second is None
            else FIXED_SECONDS + size / self._bytes_per_second
        )
