"""The lines of a function's log, beside those of AWS's own client."""

import json
import logging
import sys

import pytest

from pilotlight.runtime_client.log_records import JsonFormatter, RequestIdFilter, set_up_logging

bootstrap = pytest.importorskip("awslambdaric.lambda_runtime_log_utils", reason="awslambdaric is for Linux only")


def make_record(**fields: object) -> logging.LogRecord:
    record = logging.LogRecord("pilotlight.api", logging.WARNING, "a.py", 7, "%s is flat", ("it",), None)
    vars(record).update(fields)
    filter_ = RequestIdFilter()
    filter_.request_id = "id-1"
    assert filter_.filter(record)
    return record


@pytest.mark.parametrize("fields", [{}, {"correlation_id": "abc", "attempts": [1, 2]}])
def test_a_line_is_that_of_awss_client(fields: dict[str, object]) -> None:
    ours, theirs = JsonFormatter(), bootstrap.JsonFormatter()
    theirs.converter = ours.converter
    line = json.loads(ours.format(make_record(**fields)))
    expected = json.loads(theirs.format(make_record(**fields)))
    assert line.pop("timestamp")[:4] == expected.pop("timestamp")[:4]
    assert line == expected


def test_an_exception_is_described() -> None:
    try:
        json.loads("flat")
    except ValueError:
        record = make_record(exc_info=sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert (line["errorType"], line["errorMessage"][:9]) == ("JSONDecodeError", "Expecting")
    assert line["stackTrace"]


@pytest.fixture
def root_logger() -> logging.Logger:
    return logging.getLogger()


@pytest.mark.parametrize(("environ", "level"), [({}, None), ({"AWS_LAMBDA_LOG_LEVEL": "trace"}, logging.DEBUG)])
def test_the_level_is_that_of_the_template(
    environ: dict[str, str], level: int | None, monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger
) -> None:
    before = root_logger.level
    monkeypatch.setattr(root_logger, "handlers", [])
    set_up_logging({**environ, "AWS_LAMBDA_LOG_FORMAT": "JSON"})
    try:
        assert root_logger.level == (before if level is None else level)
        (handler,) = root_logger.handlers
        assert isinstance(handler.formatter, JsonFormatter)
    finally:
        root_logger.setLevel(before)
