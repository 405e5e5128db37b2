"""CloudWatch's alarms: over their own dimensions and periods, over sums of metrics, and about queues.

ministack's own add up the metrics of all functions, know no sums, and are evaluated when somebody puts a metric.
"""

import logging
import operator
import threading
import time
from collections.abc import Mapping
from typing import Any

from ministack.services import cloudwatch, sns, sqs
from ministack.services.cloudformation import provisioners

from tests.emulator.cloudformation import ACCOUNT, Created

LOG = logging.getLogger("emulator")
TICK_S = 2  # between evaluations, where AWS takes a minute
COMPARISONS = {"GreaterThanThreshold": operator.gt, "GreaterThanOrEqualToThreshold": operator.ge}
SUM = "SUM(METRICS())"  # the only expression of our templates
Metric = tuple[str, str, Mapping[str, str]]  # namespace, name, dimensions


def extend() -> None:
    """Add all of this to the running ministack."""
    handlers = provisioners._RESOURCE_HANDLERS
    handlers["AWS::CloudWatch::Alarm"]["create"] = _create_with(provisioners._cw_metric_alarm_create)
    handlers["AWS::CloudWatch::CompositeAlarm"] = {"create": create_composite, "delete": delete_composite}
    cloudwatch._evaluate_alarm = evaluate_alarm
    cloudwatch._dispatch_alarm_actions = _judge_before(cloudwatch._dispatch_alarm_actions)
    threading.Thread(target=_evaluate_forever, daemon=True, name="emulator-alarms").start()


def _create_with(create: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Create an alarm over a sum of metrics as one over the first of them, which knows the others."""

    def create_alarm(logical_id: str, props: dict[str, Any], stack_name: str) -> Created:
        expressions = [one["Expression"] for one in props.get("Metrics", ()) if "Expression" in one]
        summed = [one["MetricStat"] for one in props.get("Metrics", ()) if "MetricStat" in one]
        if expressions not in ([], [SUM]):
            raise ValueError(f"{logical_id} is over {expressions}; the emulator knows {SUM} alone.")
        if summed:
            first = {"Period": summed[0]["Period"], "Statistic": summed[0]["Stat"], **summed[0]["Metric"]}
            props = {**{name: value for name, value in props.items() if name != "Metrics"}, **first}
        created: Created = create(logical_id, props, stack_name)
        alarm = cloudwatch._alarms[created[0]]
        alarm["Summed"] = [read_metric(one["Metric"]) for one in summed] or [read_metric(alarm)]
        alarm["IgnoresFew"] = props.get("EvaluateLowSampleCountPercentile") == "ignore"
        return created

    return create_alarm


def read_metric(described: Mapping[str, Any]) -> Metric:
    """Read which metric an alarm or a part of one is about."""
    dimensions = {one["Name"]: one["Value"] for one in described.get("Dimensions", ())}
    return described["Namespace"], described["MetricName"], dimensions


def create_composite(logical_id: str, props: dict[str, Any], stack_name: str) -> Created:
    """Create a composite alarm, which ministack has and its CloudFormation does not."""
    name = provisioners._physical_name(stack_name, logical_id)
    status, _, body = cloudwatch._put_composite_alarm({}, {**props, "AlarmName": name}, False, is_json=True)
    if status != 200:
        raise ValueError(f"{logical_id} is no composite alarm: {body!r}")
    return name, {"Arn": cloudwatch._composite_alarms[name]["AlarmArn"]}


def delete_composite(physical_id: str, *_: Any, **__: Any) -> None:  # noqa: ANN401 - ministack's own
    """Delete a composite alarm."""
    cloudwatch._composite_alarms.pop(physical_id, None)


def evaluate_alarm(alarm: dict[str, Any]) -> None:
    """Set the state of an alarm by as many of its last periods as have data; without any, all is well."""
    if "Summed" not in alarm:  # its creation is not over
        return
    now, seconds, count = time.time(), alarm["Period"], alarm["EvaluationPeriods"]
    points = [point for metric in alarm["Summed"] for point in find_points(metric)]
    values = [
        compute_value(
            alarm, [one for one in points if now - (age + 1) * seconds <= one["Timestamp"] < now - age * seconds]
        )
        for age in range(count)
    ]
    exceeds, threshold = COMPARISONS[alarm["ComparisonOperator"]], alarm["Threshold"]
    breaching = [value for value in values if value is not None and exceeds(value, threshold)]
    state = "ALARM" if len(breaching) >= alarm.get("DatapointsToAlarm", count) else "OK"
    if state != alarm["StateValue"]:
        set_state(alarm, state, f"{breaching} of {values} exceed {threshold}")


def find_points(metric: Metric) -> list[dict[str, Any]]:
    """Find what was recorded of a metric."""
    namespace, name, dimensions = metric
    return list(cloudwatch._metrics.get((namespace, name, cloudwatch._dims_key(dict(dimensions)))) or ())


def compute_value(alarm: dict[str, Any], points: list[dict[str, Any]]) -> float | None:
    """Compute the statistic of a period; None without data, or with too little for a percentile."""
    percentile = alarm["ExtendedStatistic"]
    is_too_few = percentile and alarm["IgnoresFew"] and len(points) < 10 / (1 - float(percentile[1:]) / 100)
    if not points or is_too_few:
        return None
    found: float | None = cloudwatch._stat_value(
        cloudwatch._calc_stats(points), percentile or alarm["Statistic"], points
    )
    return found


def set_state(alarm: dict[str, Any], state: str, reason: str) -> None:
    """Set the state of an alarm, with everything that follows from it."""
    name, old = alarm["AlarmName"], alarm["StateValue"]
    alarm.update(StateValue=state, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
    cloudwatch._record_history(name, old, state, reason)
    cloudwatch._dispatch_alarm_actions(alarm, old, state, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def _judge_before(dispatch: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Publish to the topics alone that let CloudWatch do so."""

    def dispatch_actions(alarm: dict[str, Any], *more: Any) -> None:  # noqa: ANN401 - ministack's own
        topics = [*alarm["AlarmActions"], *alarm["OKActions"]]
        if all(sns.topic_policy_allows(one, "cloudwatch.amazonaws.com", alarm["AlarmArn"], ACCOUNT) for one in topics):
            dispatch(alarm, *more)
        else:
            LOG.error("CloudWatch may not publish %s to %s", alarm["AlarmName"], topics)

    return dispatch_actions


def _evaluate_forever() -> None:
    while True:
        time.sleep(TICK_S)
        try:
            measure_queues()
            for alarm in list(cloudwatch._alarms.values()):
                evaluate_alarm(alarm)
        except Exception:  # whatever it is, the alarms go on being evaluated, and the log says it
            LOG.exception("The alarms are not evaluated this time")


def measure_queues() -> None:
    """Record how many messages wait in each queue, and how long the oldest has."""
    now = time.time()
    for queue in list(sqs._queues.values()):
        waiting = [message for message in list(queue["messages"]) if message["visible_at"] <= now]
        dimensions = {"QueueName": queue["attributes"]["QueueArn"].rpartition(":")[2]}
        oldest = max((now - message["sent_at"] for message in waiting), default=0)
        cloudwatch.record_metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", len(waiting), "Count", dimensions)
        cloudwatch.record_metric("AWS/SQS", "ApproximateAgeOfOldestMessage", oldest, "Seconds", dimensions)
