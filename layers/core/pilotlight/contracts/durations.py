"""Durations as people write them: 90s, 30m, 2h, 1d."""

import re
from datetime import UTC, datetime, timedelta

from pilotlight.errors import InvalidInputError

SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds


def parse_duration(text: str) -> timedelta:
    """Parse a duration; raise `InvalidInputError` for anything else."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        raise InvalidInputError(f"{text!r} is not a duration such as 90s, 30m, 2h or 1d.")
    return timedelta(seconds=int(match[1]) * SECONDS_PER_UNIT[match[2]])


def compute_end(duration: str) -> datetime:
    """Return the time after a duration from now, in UTC; raise `InvalidInputError` beyond the year 9999."""
    try:
        return datetime.now(UTC) + parse_duration(duration)
    except OverflowError as exc:
        raise InvalidInputError(f"{duration!r} ends after the year 9999; write a shorter duration.") from exc
