"""The month of a load: the formula's derived checks (us-east-1, prices of 2026-09-19), and what cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilotlight.costs import prices
from pilotlight.costs.estimate import SECONDS_PER_MONTH, CostEstimate, Workload, estimate_cost
from pilotlight.errors import InvalidInputError


def month(**more: Any) -> CostEstimate:  # noqa: ANN401 - fields of a load
    return estimate_cost(
        Workload(**{"rps": 1e6 / SECONDS_PER_MONTH, "ms": 20, "memory_mb": 1769, "architecture": "arm64", **more})
    )


@pytest.mark.parametrize(
    ("edge", "ms", "expected"),
    [
        ("url", 20, 0.66), ("url", 100, 2.50),
        ("http", 20, 1.66), ("http", 100, 3.50),
        ("rest", 20, 4.16), ("rest", 100, 6.00),
    ],
)  # fmt: skip
def test_a_million_calls(edge: str, ms: float, expected: float) -> None:
    assert month(edge=edge, ms=ms).usd_per_million == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(("ms", "expected"), [(20, 0.80), (100, 4.00)])
def test_sagemaker_serverless(ms: float, expected: float) -> None:
    other = month(ms=ms).alternatives[0]
    assert other.name == "SageMaker Serverless, 2 GB"
    assert other.usd == pytest.approx(expected, abs=0.005)


def test_an_instance_breaks_even() -> None:
    def even(edge: str) -> float | None:
        return next(other.break_even for other in month(edge=edge).alternatives if "m5.large" in other.name)

    assert even("http") == pytest.approx(51e6, rel=0.01)
    assert even("http") == pytest.approx(19 * SECONDS_PER_MONTH, rel=0.03)
    assert even("url") == pytest.approx(127e6, rel=0.01)


def test_the_gateway_is_most_of_a_short_call() -> None:
    def share(edge: str) -> float:
        bill = month(edge=edge)
        return sum(line.usd for line in bill.lines if "API Gateway" in line.what) / bill.usd

    assert share("http") == pytest.approx(0.60, abs=0.01)
    assert share("rest") == pytest.approx(0.84, abs=0.01)


def test_cold_starts_and_restores() -> None:
    base = month(edge="url").usd
    cold = month(edge="url", cold_share=0.01, init_ms=1300).usd - base
    assert cold == pytest.approx(0.30, abs=0.005)
    restored = next(line.usd for line in month(snapstart=True, cold_share=0.01).lines if "restores" in line.what)
    assert restored == pytest.approx(2.4, abs=0.02)
    cached = next(line.usd for line in month(snapstart=True, versions=10).lines if "cache" in line.what)
    assert cached == pytest.approx(67, rel=0.02)  # of 30 days there, of 730 hours here


@pytest.mark.parametrize(("architecture", "expected"), [("x86_64", 10.95), ("arm64", 8.76)])
def test_environments_that_are_kept_started(architecture: str, expected: float) -> None:
    lines = month(memory_mb=1024, provisioned=1, architecture=architecture).lines
    assert next(line.usd for line in lines if "kept" in line.what) == pytest.approx(expected, abs=0.005)


def test_tiers_are_for_what_lies_in_them() -> None:
    rest = prices.PRICE_LIST.prices["rest_api"]
    assert rest.compute_cost(333e6) == pytest.approx(333 * 3.50)
    assert rest.compute_cost(2e9) == pytest.approx(333 * 3.50 + 667 * 2.80 + 1000 * 2.38)
    assert prices.PRICE_LIST.prices["s3_put"].compute_cost(10) == pytest.approx(5e-5)


def test_large_requests_cost_an_http_api_more() -> None:
    assert month(edge="http", kb=513).usd - month(edge="http", kb=512).usd == pytest.approx(1.00)


def test_what_lambda_gives_is_taken_off_and_never_more() -> None:
    assert month(edge="url", free_tier=True).usd == 0
    lines = {line.what: line.usd for line in month(rps=10, free_tier=True).lines}
    assert lines["Lambda, requests"] == pytest.approx((10 * SECONDS_PER_MONTH - 1e6) * 0.2e-6)


def test_machines_are_as_many_as_the_load_keeps_busy() -> None:
    other = next(other for other in month(rps=250).alternatives if "m5.large" in other.name)  # 5 vCPUs' work
    assert (other.machines, round(other.busy, 3)) == (3, 0.833)
    assert other.usd == pytest.approx(3 * 83.95)


def test_a_machine_that_is_busy_before_never_pays() -> None:
    slow = next(other for other in month(edge="url", ms=900, memory_mb=512).alternatives if "m5.xlarge" in other.name)
    assert slow.break_even is None
    assert slow.why == "never: it is busy before"


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"rps": 0}, "must be above 0"), ({"ms": float("nan")}, "must be above 0"), ({"cold_share": 5}, "a part of 1"),
        ({"memory_mb": 64}, "128 to 10240"), ({"snapstart": True, "provisioned": 1}, "not both"),
        ({"snapstart": True, "disk_mb": 1024}, "no disk above"),
    ],
)  # fmt: skip
def test_loads_that_cannot_be(load: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        month(**load)


def test_every_price_has_a_source_that_is_named() -> None:
    document = json.loads(Path(prices.PRICES_FILE).read_text())
    entries = [*document["prices"].values(), *document["machines"], document["free_tier"]]
    assert {entry["source"] for entry in entries} == set(document["sources"])
