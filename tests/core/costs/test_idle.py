"""The bill of a month without a call: the prices of what there is, and what the free tier takes off."""

import pytest
from msgspec.structs import replace

from pilotlight.costs.idle import ScheduledFunction, StackInventory, WarmFunction, estimate_idle_cost
from pilotlight.errors import InvalidInputError

CLOCK = ScheduledFunction(
    handler="functions.promote.handler.handle", every_s=300, memory_mb=1024, architecture="x86_64", is_traced=True
)


def lines(inventory: StackInventory) -> dict[str, tuple[float, float]]:
    """What each line costs, without the free tier and with it."""
    return {line.what: (line.usd, line.usd_after_free_tier) for line in estimate_idle_cost(inventory).lines}


def test_a_stack_of_nothing_costs_nothing() -> None:
    bill = estimate_idle_cost(StackInventory())
    assert (bill.lines, bill.usd, bill.usd_after_free_tier) == ((), 0, 0)


def test_an_alarm_costs_for_each_metric_and_an_account_has_ten_free() -> None:
    found = lines(StackInventory(alarm_metrics=12, composite_alarms=2))
    assert found["CloudWatch, metrics of alarms"] == pytest.approx((1.2, 0.2))
    assert found["CloudWatch, composite alarms"] == pytest.approx((1.0, 1.0))


def test_a_dashboard_is_free_if_it_shows_few_metrics() -> None:
    found = lines(StackInventory(dashboard_metrics=(50, 51)))
    assert found["CloudWatch, dashboards"] == (3, 0)
    assert found["CloudWatch, dashboards of over 50 metrics"] == (3, 3)


def test_an_idle_queue_is_polled_15_times_a_minute() -> None:
    """Five connections that each wait 20 s: 657,000 requests, of a million that are free for the account."""
    assert lines(StackInventory(polled_queues=1))["SQS, polls of idle queues"] == pytest.approx((0.2628, 0))
    assert lines(StackInventory(polled_queues=2))["SQS, polls of idle queues"] == pytest.approx((0.5256, 0.1256))


def test_a_schedule_costs_requests_time_listings_and_traces() -> None:
    found = lines(StackInventory(scheduled=(CLOCK,)))
    runs = 730 * 12
    assert found["Lambda, scheduled runs"] == pytest.approx((runs * 2e-7, 0))
    assert found["Lambda, GB-s of scheduled runs"] == pytest.approx((runs * 0.4 * 0.0000166667, 0))
    assert found["S3, listings of scheduled runs"] == pytest.approx((runs * 5e-6, runs * 5e-6))
    assert found["X-Ray, traces of scheduled runs"] == pytest.approx((runs * 5e-6, 0))
    untraced = lines(StackInventory(scheduled=(replace(CLOCK, is_traced=False, architecture="arm64"),)))
    assert "X-Ray, traces of scheduled runs" not in untraced
    assert untraced["Lambda, GB-s of scheduled runs"][0] == pytest.approx(runs * 0.4 * 0.0000133334)


def test_what_is_kept_warm_is_billed_by_the_second() -> None:
    seconds = 730 * 3600
    kept = WarmFunction(memory_mb=2048, architecture="arm64", environments=3)
    assert lines(StackInventory(warm=(kept,))) == {
        "Lambda, GB-s of provisioned environments": pytest.approx((2 * 3 * seconds * 0.0000033334,) * 2)
    }
    snapshot = WarmFunction(memory_mb=2048, architecture="x86_64", has_snapshot=True)
    assert lines(StackInventory(warm=(snapshot,))) == {
        "Lambda, GB-s of a snapshot": pytest.approx((2 * seconds * 0.0000015046,) * 2)
    }


def test_a_schedule_of_which_nobody_knows_what_a_run_costs_is_refused() -> None:
    unknown = replace(CLOCK, handler="functions.new.handler.handle")
    with pytest.raises(InvalidInputError, match=r"functions\.new\.handler\.handle costs is not known; measure one"):
        estimate_idle_cost(StackInventory(scheduled=(unknown,)))
