import re
import time
from math import inf
from typing import Any

import pytest

from pilotlight.api.request_context import DEADLINE_MARGIN_S, GATEWAY_TIMEOUT_S, RequestContext


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 10_000


def received(seconds_ago: float) -> dict[str, Any]:
    return {"requestContext": {"requestTimeEpoch": int((time.time() - seconds_ago) * 1000)}}


def left(trace: RequestContext) -> float:
    return trace.deadline - time.monotonic()


def test_the_function_and_the_gateway_set_the_end() -> None:
    assert RequestContext.from_event({}, None).deadline == inf
    assert left(RequestContext.from_event({}, Context())) == pytest.approx(10 - DEADLINE_MARGIN_S, abs=1)
    assert left(RequestContext.from_event(received(5), None)) == pytest.approx(
        GATEWAY_TIMEOUT_S - 5 - DEADLINE_MARGIN_S, abs=1
    )
    assert left(RequestContext.from_event(received(5), Context())) == pytest.approx(10 - DEADLINE_MARGIN_S, abs=1)
    assert left(RequestContext.from_event(received(25), Context())) == pytest.approx(
        GATEWAY_TIMEOUT_S - 25 - DEADLINE_MARGIN_S, abs=1
    )


@pytest.mark.parametrize("seconds_ago", [-3600.0, 3600.0])
def test_clocks_that_differ_say_nothing(seconds_ago: float) -> None:
    trace = RequestContext.from_event(received(seconds_ago), None)
    assert (trace.queue_seconds, trace.deadline) == (None, inf)


def test_the_sam_cli_does_not_say_when_a_request_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requestTimeEpoch is the moment when `sam local start-api` began: 28.5 s later no request had time left."""
    monkeypatch.setenv("AWS_SAM_LOCAL", "true")
    trace = RequestContext.from_event(received(28.9), Context())
    assert trace.queue_seconds is None
    assert left(trace) == pytest.approx(10 - DEADLINE_MARGIN_S, abs=1)


def test_timing_names_what_was_marked() -> None:
    trace = RequestContext(queue_seconds=0.25)
    trace.mark_stage("load")
    trace.mark_stage("infer")
    number = r"\d+\.\d{3}"
    assert re.fullmatch(
        rf"queue;dur=250, load;dur={number}, infer;dur={number}, total;dur=1500\.000", trace.format_server_timing(1.5)
    )
