import json
import logging
import threading

import pytest
from awslambdaric.lambda_runtime_log_utils import JsonFormatter

from pilotlight.observability import correlation


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-correlation-id": "order-17", "x-request-id": "other"}, "order-17"),
        ({"x-request-id": "other"}, "other"),
        ({}, "gateway"),
        ({"x-correlation-id": 'a","usd":1,"b":"'}, "gateway"),
        ({"x-correlation-id": "a\nb"}, "gateway"),
        ({"x-correlation-id": "x" * 129}, "gateway"),
        ({"x-correlation-id": ""}, "gateway"),
        ({"x-correlation-id": "a b"}, "gateway"),
        ({"x-correlation-id": "a\\nb"}, "gateway"),
        ({"x-correlation-id": "ž"}, "gateway"),
        ({"x-correlation-id": "{6F9619FF-8B86-D011-B42D-00CF4FC964FF}"}, "{6F9619FF-8B86-D011-B42D-00CF4FC964FF}"),
        ({"x-correlation-id": "|7e3a.1_2.", "x-request-id": "other"}, "|7e3a.1_2."),  # .NET's hierarchical ids
        ({"x-request-id": "urn:uuid:f81d4fae?a=1&b=2#%20~'(x)*!,$"}, "urn:uuid:f81d4fae?a=1&b=2#%20~'(x)*!,$"),
    ],
)
def test_the_callers_id_goes_first_unless_it_could_forge_a_line(headers: dict[str, str], expected: str) -> None:
    assert correlation.get_correlation_id(headers, "gateway") == expected


def test_the_trace_is_better_than_nothing() -> None:
    assert correlation.get_correlation_id({"x-amzn-trace-id": "Root=1-5"}, "") == "Root=1-5"


def test_every_line_of_lambdas_log_names_the_call() -> None:
    kept = logging.getLogRecordFactory()
    correlation.install_log_record_factory()
    try:
        correlation.set_correlation_id("order-17")
        record = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "said %s", ("it",), None)
        line = json.loads(JsonFormatter().format(record))
        found = []
        thread = threading.Thread(target=lambda: found.append(correlation.CURRENT_CORRELATION_ID.get()))
        thread.start()
        thread.join()
    finally:
        logging.setLogRecordFactory(kept)
        correlation.set_correlation_id("")
    assert (line["message"], line["correlation_id"]) == ("said it", "order-17")
    assert found == [""]  # a thread of its own works for nobody in particular
