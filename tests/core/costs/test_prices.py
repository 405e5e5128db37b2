import pytest

from pilotlight.costs import prices


@pytest.mark.parametrize(("seconds", "expected"), [(0, 1), (0.0001, 1), (0.001, 1), (0.0011, 2), (1.5, 1500)])
def test_each_begun_millisecond_is_billed(seconds: float, expected: int) -> None:
    assert prices.round_to_billed_ms(seconds) == expected


def test_a_call_costs_its_request_and_its_duration() -> None:
    # AWS's own pricing example: 3 million calls of 120 ms at 1,536 MB on x86 are $9.60 less the free tier's part
    assert prices.compute_gb_seconds(1536, 120) * 3e6 == pytest.approx(540_000)
    assert 3e6 * prices.compute_invocation_usd(1536, 120, "x86_64") == pytest.approx(540_000 * 0.0000166667 + 0.60)
    assert prices.compute_invocation_usd(1536, 120, "arm64") < prices.compute_invocation_usd(1536, 120, "x86_64")


@pytest.mark.parametrize(
    ("machine", "expected"), [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64")]
)
def test_machines_are_called_as_lambda_calls_them(machine: str, expected: str) -> None:
    assert prices.to_lambda_architecture(machine) == expected
