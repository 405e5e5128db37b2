"""The log of a function, as AWS's client writes it: by Lambda's variables, as JSON or text, with the request's id.

Source: awslambdaric 4.2.2, lambda_runtime_log_utils.py. It writes frames to a descriptor of its own; lines of stdout
are taken as well, and each record is one line here.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

TEXT_FORMAT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "aws_request_id", "message", "asctime"}


class RequestIdFilter(logging.Filter):
    """Adds the id of the request that is being handled to each record."""

    def __init__(self) -> None:
        super().__init__()
        self.request_id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the id."""
        record.aws_request_id = self.request_id
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as a line of JSON, with the fields that were added to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        added = {name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS}
        fields: dict[str, Any] = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            "requestId": getattr(record, "aws_request_id", None),
            **describe_exception(record),
            **added,
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None}, default=str)


def describe_exception(record: logging.LogRecord) -> dict[str, Any]:
    """Describe the exception that a record has, in AWS's fields."""
    kind, exc, trace = record.exc_info or (None, None, None)
    if kind is None:
        return {}
    return {
        "stackTrace": traceback.format_tb(trace),
        "errorType": kind.__name__,
        "errorMessage": str(exc),
        "location": f"{record.pathname}:{record.funcName}:{record.lineno}",
    }


def set_up_logging(environ: Mapping[str, str]) -> RequestIdFilter:
    """Let all loggers write to stdout; return the filter that is told each request's id."""
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter(TEXT_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(JsonFormatter() if environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON" else formatter)
    request_ids = RequestIdFilter()
    handler.addFilter(request_ids)
    logging.getLogger().addHandler(handler)
    level = environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper().replace("TRACE", "DEBUG")
    if level in logging.getLevelNamesMapping():
        logging.getLogger().setLevel(level)
    return request_ids
