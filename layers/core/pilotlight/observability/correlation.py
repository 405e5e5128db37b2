"""The one id by which a call is found again: in its answer, in every line that is logged for it, in a batch's result.

It is the caller's own where one is sent, else the gateway's. What a caller sends is taken only in a form that cannot
forge a line of a log.
"""

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar

HEADER = "x-correlation-id"
REQUEST_ID = "x-request-id"
FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:;=/+@-]{0,127}")
CURRENT: ContextVar[str] = ContextVar("correlation", default="")


def of(headers: Mapping[str, str], default: str) -> str:
    """The caller's id, by x-correlation-id or x-request-id; else the default. Header names are in lower case."""
    given = headers.get(HEADER) or headers.get(REQUEST_ID)
    return given if given and FORM.fullmatch(given) else default or headers.get("x-amzn-trace-id", "")


def begin(correlation: str) -> str:
    """From here on, this thread works on that call."""
    CURRENT.set(correlation)
    return correlation


class Record(logging.LogRecord):
    """A record with the field `correlation_id`, which Lambda's JSON lines show as any field that a record has."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # as logging calls it
        if correlation := CURRENT.get():
            self.correlation_id = correlation


def install() -> None:
    """Have every logger of this process make such records; once or more."""
    logging.setLogRecordFactory(Record)
