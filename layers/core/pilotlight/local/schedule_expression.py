"""When EventBridge starts something: the forms of its schedule expressions that the templates use."""

import re

from pilotlight.errors import UnsupportedError

UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_DAILY = re.compile(r"cron\((\d+) (\d+) \* \* \? \*\)")
_RATE = re.compile(r"rate\((\d+) (second|minute|hour|day)s?\)")


def parse_schedule_expression(words: str) -> tuple[int, int | None]:
    """Parse the seconds between two times and, of a daily one, those from midnight UTC to the first.

    `UnsupportedError` for a form that is not known here.
    """
    if daily := _DAILY.fullmatch(words):
        return UNITS_S["day"], 60 * int(daily[1]) + 3600 * int(daily[2])
    if rate := _RATE.fullmatch(words):
        return int(rate[1]) * UNITS_S[rate[2]], None
    raise UnsupportedError(
        f"{words!r} is not run here; rate(5 minutes) is, and cron(15 2 * * ? *), every day at 02:15."
    )
