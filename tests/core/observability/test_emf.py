"""Lines that CloudWatch makes metrics of: checked by what the embedded metric format asks of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pilotlight.observability import emf

Lines = Callable[[], list[dict[str, Any]]]


def directives(line: dict[str, Any]) -> list[tuple[list[str], list[str]]]:
    """Names and dimensions of a line, once it is what the specification asks for."""
    assert isinstance(line["_aws"]["Timestamp"], int)
    found = []
    for directive in line["_aws"]["CloudWatchMetrics"]:
        assert directive["Namespace"] == "Pilotlight"
        names = [metric["Name"] for metric in directive["Metrics"]]
        for name in names:
            values = line[name] if isinstance(line[name], list) else [line[name]]
            assert 1 <= len(values) <= 100
            assert all(isinstance(value, int | float) for value in values)
        for dimensions in directive["Dimensions"]:
            assert all(isinstance(line[dimension], str) and line[dimension] for dimension in dimensions)
            found.append((names, dimensions))
    return found


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Lines:
    """What was written to the log since the last look."""
    monkeypatch.setattr(emf, "FUNCTION", "stack-Predict-1")
    return lambda: [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_a_count_is_told_by_model_and_by_function(lines: Lines) -> None:
    emf.count("SwapFailed", {"why": "a\nb", "version": 3}, model="digits")
    (line,) = lines()
    assert directives(line) == [(["SwapFailed"], ["function"]), (["SwapFailed"], ["function", "model"])]
    assert (line["SwapFailed"], line["model"], line["function"]) == (1, "digits", "stack-Predict-1")
    assert (line["why"], line["version"]) == ("a\nb", 3)


def test_properties_never_hide_what_is_counted(lines: Lines) -> None:
    emf.count("SwapFailed", {"model": "x", "_aws": {}, "SwapFailed": 9}, model="digits")
    (line,) = lines()
    assert (line["SwapFailed"], line["model"]) == (1, "digits")
    assert directives(line)


def test_lines_of_calls_are_for_a_functions_log_alone(capfd: pytest.CaptureFixture[str]) -> None:
    emf.write_line("x\n")
    assert capfd.readouterr().out == ""
