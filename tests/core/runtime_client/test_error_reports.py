"""What our runtime client does beside what the tests of the gateway see of it."""

import sys
from http.client import HTTPMessage
from pathlib import Path

import pytest

from pilotlight.runtime_client import error_reports
from pilotlight.runtime_client.invocation import LambdaContext

ENVIRON = {
    "AWS_LAMBDA_FUNCTION_NAME": "F",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
    "AWS_LAMBDA_LOG_GROUP_NAME": "group",
    "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
}


def context(deadline_ms: int) -> LambdaContext:
    headers = HTTPMessage()
    headers["Lambda-Runtime-Aws-Request-Id"] = "id-1"
    headers["Lambda-Runtime-Invoked-Function-Arn"] = "arn:f"
    headers["Lambda-Runtime-Deadline-Ms"] = str(deadline_ms)
    return LambdaContext.from_headers(headers, ENVIRON)


def test_remaining_time_is_never_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert context(1_002_500).get_remaining_time_in_millis() == 2500
    assert context(999_000).get_remaining_time_in_millis() == 0


@pytest.mark.parametrize(
    ("source", "handler", "error_type", "says"),
    [
        (None, "absent_module.handle", "Runtime.ImportModuleError", "Unable to import module 'absent_module'"),
        ("import absent_one", "of.handle", "Runtime.ImportModuleError", "No module named 'absent_one'"),
        ("def", "of.handle", "Runtime.UserCodeSyntaxError", "Syntax error in module 'of'"),
        ("x = 1", "of.handle", "Runtime.HandlerNotFound", "Handler 'handle' missing on module 'of'"),
        ("None.x", "of.handle", "AttributeError", "'NoneType' object has no attribute 'x'"),
        ("x = 1", "handle", "Runtime.MalformedHandlerName", "Bad handler 'handle'"),
        ("1 / 0", "of.handle", "ZeroDivisionError", "division by zero"),
    ],
)
def test_failed_init_has_awss_names(
    source: str | None, handler: str, error_type: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source is not None:
        (tmp_path / "of.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "of", raising=False)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # any kind, that is the point
        error_reports.load_handler(handler)
    report = error_reports.report_init_error(caught.value, handler)
    assert report["errorType"] == error_type
    assert says in report["errorMessage"]


def test_error_goes_to_the_functions_log_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error_reports.report_error(ValueError(), "ValueError", "a\nb")
    assert capsys.readouterr().out.count("\n") == 1
