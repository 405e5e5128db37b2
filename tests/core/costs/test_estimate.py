"""The month of a workload: the formula's derived checks (us-east-1, prices of 2026-09-19), and what cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilotlight.costs import prices
from pilotlight.costs.estimate import SECONDS_PER_MONTH, Workload, estimate_cost
from pilotlight.errors import InvalidInputError


def month(**more: Any) -> dict[str, float]:  # noqa: ANN401 - fields of a workload
    """The lines of a million calls."""
    million = {"rps": 1e6 / SECONDS_PER_MONTH, "ms": 20, "memory_mb": 1769, "architecture": "arm64"}
    return {line.what: line.usd for line in estimate_cost(Workload(**{**million, **more})).lines}


def of(service: str, lines: dict[str, float]) -> float:
    return sum(usd for what, usd in lines.items() if what.startswith(service))


@pytest.mark.parametrize(("ms", "function", "with_gateway"), [(20, 0.66, 4.16), (100, 2.50, 6.00)])
def test_a_million_calls(ms: float, function: float, with_gateway: float) -> None:
    lines = month(ms=ms)
    assert of("Lambda", lines) == pytest.approx(function, abs=0.005)
    assert of("Lambda", lines) + of("API Gateway", lines) == pytest.approx(with_gateway, abs=0.005)


def test_the_gateway_is_most_of_a_short_call() -> None:
    lines = month()
    gateway = of("API Gateway", lines)
    assert gateway / (gateway + of("Lambda", lines)) == pytest.approx(0.84, abs=0.01)


def test_what_is_watched_is_on_the_bill() -> None:
    lines = month()
    assert lines["CloudWatch, logs"] == pytest.approx(1e6 * 1200 / 1e9 * 0.5)
    assert lines["CloudWatch, metrics and alarms"] == pytest.approx(22 * 0.3 + 4 * 0.1)


def test_the_bill_is_the_sum_of_its_lines() -> None:
    bill = estimate_cost(Workload(rps=20, ms=20, memory_mb=1769))
    assert bill.usd == pytest.approx(sum(line.usd for line in bill.lines)) == pytest.approx(263.27, abs=0.005)
    assert bill.usd_per_million == pytest.approx(bill.usd / bill.requests * 1e6)
    assert {line.what for line in bill.lines if not line.grows} == {"CloudWatch, metrics and alarms"}


def test_cold_starts() -> None:
    lines = month(cold_share=0.01, init_ms=1300)
    assert lines["Lambda, cold starts"] == pytest.approx(0.30, abs=0.005)
    assert lines["Lambda, time"] == pytest.approx(month()["Lambda, time"])
    assert "Lambda, cold starts" not in month()


def test_tiers_are_for_what_lies_in_them() -> None:
    rest = prices.PRICE_LIST.prices["rest_api"]
    assert rest.compute_cost(333e6) == pytest.approx(333 * 3.50)
    assert rest.compute_cost(2e9) == pytest.approx(333 * 3.50 + 667 * 2.80 + 1000 * 2.38)
    assert prices.PRICE_LIST.prices["lambda_request"].compute_cost(10) == pytest.approx(2e-6)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"rps": 0}, "must be above 0"), ({"ms": float("nan")}, "must be above 0"), ({"cold_share": 5}, "a part of 1"),
        ({"memory_mb": 64}, "128 to 10240"),
    ],
)  # fmt: skip
def test_loads_that_cannot_be(load: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        month(**load)


def test_every_price_has_a_source_that_is_named() -> None:
    document = json.loads(Path(prices.PRICES_FILE).read_text())
    assert {entry["source"] for entry in document["prices"].values()} == set(document["sources"])
