"""The correlation id of a call: in its answer, in every line that is logged for it, in a batch's result.

It is the caller's own id if one is sent, else the gateway's. A caller's id is accepted only in a form that cannot forge
a line of a log.
"""

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar

CORRELATION_HEADER = "x-correlation-id"
REQUEST_ID_HEADER = "x-request-id"
CORRELATION_ID_PATTERN = re.compile(r"[!#-\[\]-~]{1,128}")  # ASCII, but blanks, quotes and backslashes
CURRENT_CORRELATION_ID: ContextVar[str] = ContextVar("correlation", default="")


def get_correlation_id(headers: Mapping[str, str], default: str) -> str:
    """Return the caller's id, from x-correlation-id or x-request-id; else the default. Header names are lower case."""
    caller_id = headers.get(CORRELATION_HEADER) or headers.get(REQUEST_ID_HEADER)
    return (
        caller_id
        if caller_id and CORRELATION_ID_PATTERN.fullmatch(caller_id)
        else default or headers.get("x-amzn-trace-id", "")
    )


def set_correlation_id(correlation_id: str) -> str:
    """Set the correlation id of the call that this thread handles from now on."""
    CURRENT_CORRELATION_ID.set(correlation_id)
    return correlation_id


class CorrelationLogRecord(logging.LogRecord):
    """A log record with the field `correlation_id`, which Lambda's JSON lines show like any field of a record."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]  # as logging calls it
        if correlation_id := CURRENT_CORRELATION_ID.get():
            self.correlation_id = correlation_id


def install_log_record_factory() -> None:
    """Make every logger of this process create such records; may be called more than once."""
    logging.setLogRecordFactory(CorrelationLogRecord)
