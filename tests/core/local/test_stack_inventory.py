"""What is counted of the real template, by its parameters."""

from pathlib import Path
from typing import Any

import pytest

from pilotlight.costs.idle import estimate_idle_cost
from pilotlight.errors import InvalidInputError
from pilotlight.local.stack_inventory import count_inventory

TEMPLATE = Path(__file__).parents[3] / "template.yaml"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
OTHER_KEY = KEY.replace("1111", "2222")
TRAINING = {"TrainingVpc": "vpc-1", "TrainingSubnets": "subnet-1,subnet-2"}


def count(**parameters: str) -> Any:  # noqa: ANN401 - any field of the inventory
    return count_inventory(TEMPLATE, parameters)


def test_by_default_a_stack_costs_less_than_a_dollar_without_the_free_tier() -> None:
    """The promise of decision 0080, with a margin of 5 % for dearer regions."""
    found = count()
    assert (found.alarm_metrics, found.composite_alarms, found.dashboard_metrics) == (4, 0, ())
    assert (found.polled_queues, found.repositories, found.keys, found.warm) == (1, 0, (), ())
    bill = estimate_idle_cost(found)
    assert 0.5 < bill.usd < 0.95
    assert bill.usd_after_free_tier < 0.10


def test_full_monitoring_has_the_other_alarms_and_the_dashboard() -> None:
    found = count(MonitoringLevel="full")
    assert (found.alarm_metrics, found.composite_alarms) == (27, 1)
    assert [metrics > 50 for metrics in found.dashboard_metrics] == [True]


def test_nested_stacks_get_their_parameters() -> None:
    """The alarm of failed trainings needs a rule that only a deploy can name."""
    found = count(MonitoringLevel="full", **TRAINING)
    assert (found.alarm_metrics, found.repositories) == (28, 1)


def test_schedules_have_the_memory_and_the_machine_of_their_function() -> None:
    clock, nightly = sorted(count(ModelMemory="3008", Architecture="arm64").scheduled, key=lambda each: each.every_s)
    assert (clock.every_s, clock.memory_mb, clock.architecture, clock.is_traced) == (300, 3008, "arm64", True)
    assert (nightly.every_s, nightly.memory_mb) == (86_400, 1024)


def test_a_key_is_counted_once_wherever_it_is_used() -> None:
    assert count(DataKey=KEY).keys == (KEY,)
    assert count(DataKey=KEY, SigningKey=KEY).keys == (KEY,)
    assert count(DataKey=KEY, SigningKey=OTHER_KEY).keys == tuple(sorted((KEY, OTHER_KEY)))


def test_what_is_kept_warm_is_counted() -> None:
    (kept,) = count(ProvisionedConcurrency="2").warm
    assert (kept.environments, kept.has_snapshot, kept.memory_mb) == (2, False, 1769)
    snapshots = count(SnapStart="PublishedVersions").warm
    assert [(each.environments, each.has_snapshot) for each in snapshots] == [(0, True), (0, True)]
    assert sorted(each.memory_mb for each in snapshots) == [1769, 3538]


def test_a_parameter_that_the_template_lacks_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="has no parameter Monitoring; see its Parameters"):
        count(Monitoring="full")


def test_a_template_without_resources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text("Resources: []")
    with pytest.raises(InvalidInputError, match="is not a CloudFormation template: Resources is no mapping"):
        count_inventory(tmp_path / "template.yaml")
