"""How long single requests to variants take: in one process, warm, in turn, so that other load slows all alike."""

import time
from collections.abc import Mapping
from statistics import median

from pilotlight.contracts.manifest import Precision
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import Session

ROUNDS = 200  # single requests to each variant
MIN_ROUNDS = 5
WARM_UP_ROUNDS = 3  # are not counted
MAX_SECONDS = 2.0  # for all rounds, after which there are fewer


def measure_request_times(
    sessions: Mapping[Precision, Session], feed: Feeds, max_seconds: float = MAX_SECONDS
) -> dict[Precision, float]:
    """Measure the median time of a request to each session in ms."""
    seconds: dict[Precision, list[float]] = {precision: [] for precision in sessions}
    end = float("inf")
    for place in range(WARM_UP_ROUNDS + ROUNDS):
        if place == WARM_UP_ROUNDS:
            seconds = {precision: [] for precision in sessions}
            end = time.perf_counter() + max_seconds
        if place >= WARM_UP_ROUNDS + MIN_ROUNDS and time.perf_counter() > end:
            break
        for precision, session in sessions.items():
            started = time.perf_counter()
            session.run(feed)
            seconds[precision].append(time.perf_counter() - started)
    return {precision: 1000 * median(times) for precision, times in seconds.items()}
