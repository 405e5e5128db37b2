import re
import time
from math import inf
from typing import Any

import pytest

from pilotlight.api.request_context import GATEWAY_S, MARGIN_S, Bill, Trace


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 10_000


def received(seconds_ago: float) -> dict[str, Any]:
    return {"requestContext": {"requestTimeEpoch": int((time.time() - seconds_ago) * 1000)}}


def left(trace: Trace) -> float:
    return trace.ends - time.monotonic()


def test_the_function_and_the_gateway_set_the_end() -> None:
    assert Trace.of({}, None).ends == inf
    assert left(Trace.of({}, Context())) == pytest.approx(10 - MARGIN_S, abs=1)
    assert left(Trace.of(received(5), None)) == pytest.approx(GATEWAY_S - 5 - MARGIN_S, abs=1)
    assert left(Trace.of(received(5), Context())) == pytest.approx(10 - MARGIN_S, abs=1)
    assert left(Trace.of(received(25), Context())) == pytest.approx(GATEWAY_S - 25 - MARGIN_S, abs=1)


@pytest.mark.parametrize("seconds_ago", [-3600.0, 3600.0])
def test_clocks_that_differ_say_nothing(seconds_ago: float) -> None:
    trace = Trace.of(received(seconds_ago), None)
    assert (trace.queue, trace.ends) == (None, inf)


def test_the_sam_cli_does_not_say_when_a_request_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requestTimeEpoch is the moment when `sam local start-api` began: 28.5 s later no request had time left."""
    monkeypatch.setenv("AWS_SAM_LOCAL", "true")
    trace = Trace.of(received(28.9), Context())
    assert trace.queue is None
    assert left(trace) == pytest.approx(10 - MARGIN_S, abs=1)


def test_timing_names_what_was_marked() -> None:
    trace = Trace(queue=0.25)
    trace.mark("load")
    trace.mark("infer")
    number = r"\d+\.\d{3}"
    assert re.fullmatch(
        rf"queue;dur=250, load;dur={number}, infer;dur={number}, total;dur=1500\.000", trace.timing(1.5)
    )


def test_the_first_call_pays_for_the_init() -> None:
    bill = Bill(2048, {})
    bill._init = 2.0
    first, second = (bill.charge(Trace()).headers(Trace()) for _ in range(2))
    assert (first["x-pilotlight-cold"], second["x-pilotlight-cold"]) == ("true", "false")
    assert int(first["x-pilotlight-billed-ms"]) >= 2000
    assert float(first["x-pilotlight-gb-seconds"]) >= 4
    assert float(first["x-pilotlight-usd"]) > float(second["x-pilotlight-usd"]) > 2e-7


def test_an_init_that_aws_bills_otherwise_is_left_out() -> None:
    assert Bill(2048, {"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"})._init == 0
    assert Bill(2048, {"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"})._init > 0
