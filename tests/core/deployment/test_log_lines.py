"""Lines of the log, as Lambda, Powertools, the usage log and the gateway write them."""

import json

import pytest

from pilotlight.deployment.log_events import LogEvent
from pilotlight.deployment.log_lines import MAX_FIELD, describe_message, format_event

RECORD = {
    "timestamp": "2026-11-30T10:00:00Z",
    "level": "WARN",
    "message": "digits:2 is swapped in",
    "logger": "pilotlight.runtime",
    "requestId": "r-1",
    "correlation_id": "c-1",
    "version": 2,
}
FAILED = {
    "level": "ERROR",
    "message": "no such model",
    "errorType": "KeyError",
    "requestId": "r-2",
    "stackTrace": ['  File "/var/task/a.py", line 1, in f\n', "    x()\n"],
}
FAILED_TEXT = 'no such model  errorType=KeyError\n      File "/var/task/a.py", line 1, in f\n        x()'
CALL = {
    "_aws": {"Timestamp": 1}, "function": "predict", "model": "digits", "status": 200, "usd": 2.5e-7, "request": "g-1",
    "correlation_id": "c-2", "TotalMs": [0.5], "tenant": "",
}  # fmt: skip
REPORT = {
    "time": "2026-11-30T10:00:00Z",
    "type": "platform.report",
    "record": {"requestId": "r-3", "status": "success", "metrics": {"durationMs": 4.1, "maxMemoryUsedMB": 91}},
}
REPORT_TEXT = "platform.report: status=success metrics.durationMs=4.1 metrics.maxMemoryUsedMB=91"


@pytest.mark.parametrize(
    ("message", "level", "said", "call"),
    [
        (json.dumps(RECORD), "WARN", "digits:2 is swapped in  version=2", "c-1"),
        (json.dumps(FAILED), "ERROR", FAILED_TEXT, "r-2"),
        (json.dumps(CALL), "INFO", "function=predict model=digits status=200 usd=2.5e-7 TotalMs=0.5", "c-2"),
        (json.dumps(REPORT), "INFO", REPORT_TEXT, "r-3"),
        ('{"request":"g-2","status":"503","path":"/prod/v2","key":"-"}', "ERROR", "status=503 path=/prod/v2", "g-2"),
        ('{"request":"g-3","status":"401"}', "WARN", "status=401", "g-3"),
        ("[ERROR] KeyError: 'x'\tat\n", "ERROR", "KeyError: 'x' at", ""),
        ("epoch 1\n", "INFO", "epoch 1", ""),
        ("[1, 2]", "INFO", "[1, 2]", ""),
        ('{"record": "half', "INFO", '{"record": "half', ""),
    ],
)  # fmt: skip
def test_a_line_says_level_text_and_call(message: str, level: str, said: str, call: str) -> None:
    assert describe_message(message) == (level, said, call)


def test_an_event_is_one_readable_line() -> None:
    event = LogEvent(1_796_032_800_123, "Predict", json.dumps(RECORD))
    assert format_event(event, 9) == "10:00:00.123  Predict    WARN   digits:2 is swapped in  version=2  [c-1]"


def test_a_long_field_is_cut() -> None:
    _, said, _ = describe_message(json.dumps({"body": "x" * 1000}))
    assert len(said) == len("body=...") + MAX_FIELD
