"""CloudWatch Logs: patterns over JSON, a filter's permission to invoke, and metrics in the embedded metric format.

ministack looks for the words of a pattern, so that `{ $.CanaryStopped = * }` never matches; it makes no metrics of
lines, and counts the errors of such invocations alone that came by Lambda's API.
"""

import json
import re
from fnmatch import fnmatchcase
from typing import Any

from ministack.services import cloudwatch, cloudwatch_logs, lambda_svc

from tests.emulator.permissions import is_service_allowed

FIELD_PATTERN = re.compile(r"\{\s*\$\.(\w+)\s*=\s*(\S+)\s*\}")  # the only form of them that our templates have
EMBEDDED = '"_aws"'


def extend() -> None:
    """Add all of this to the running ministack."""
    cloudwatch_logs._subscription_pattern_matches = _match_with(cloudwatch_logs._subscription_pattern_matches)
    cloudwatch_logs._put_subscription_filter = _judge_before(cloudwatch_logs._put_subscription_filter)
    lambda_svc._emit_lambda_logs = _measure_after(lambda_svc._emit_lambda_logs)
    lambda_svc._emit_lambda_metrics = count_throttle


def _match_with(matches: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def pattern_matches(pattern: str, message: str) -> bool:
        form = FIELD_PATTERN.fullmatch(pattern.strip())
        if form is None:
            return bool(matches(pattern, message))
        document = parse_line(message)
        return form[1] in document and fnmatchcase(str(document[form[1]]), form[2])

    return pattern_matches


def parse_line(line: str) -> dict[str, Any]:
    """Parse a line of JSON; of any other, return nothing."""
    try:
        document = json.loads(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _judge_before(put: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Refuse a filter whose function does not let the log group invoke it, as PutSubscriptionFilter does."""

    def put_filter(data: dict[str, Any]) -> Any:  # noqa: ANN401 - ministack has no types
        function, _, name = lambda_svc._get_func_record_for_ref(data["destinationArn"])
        source = cloudwatch_logs._make_group_arn(data["logGroupName"])
        if function is None or not is_service_allowed("logs.amazonaws.com", function, source):
            said = f"Could not execute the lambda function {name}. Make sure you have given CloudWatch Logs permission."
            return cloudwatch_logs.error_response_json("InvalidParameterException", said, 400)
        return put(data)

    return put_filter


def _measure_after(emit: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Count each invocation, and make metrics of what it printed."""

    def emit_logs(function: dict[str, Any], request: str, text: str, error: bool, ms: int, **more: Any) -> None:  # noqa: ANN401
        emit(function, request, text, error, ms, **more)
        dimensions = {"FunctionName": (function.get("config") or function)["FunctionName"]}
        cloudwatch.record_metric("AWS/Lambda", "Invocations", 1, "Count", dimensions)
        cloudwatch.record_metric("AWS/Lambda", "Errors", int(error), "Count", dimensions)
        cloudwatch.record_metric("AWS/Lambda", "Duration", ms, "Milliseconds", dimensions)
        for line in (text or "").splitlines():
            if EMBEDDED in line:
                record_embedded_metrics(parse_line(line))

    return emit_logs


def count_throttle(name: str, *, throttle: bool, **_: Any) -> None:  # noqa: ANN401 - ministack's own
    """Count an invocation that was turned away, of which nothing is logged."""
    cloudwatch.record_metric("AWS/Lambda", "Throttles", int(throttle), "Count", {"FunctionName": name})


def record_embedded_metrics(document: dict[str, Any]) -> None:
    """Record each metric of a line under each set of dimensions that it names."""
    for directive in document.get("_aws", {}).get("CloudWatchMetrics", ()):
        for names in directive["Dimensions"]:
            dimensions = {name: str(document[name]) for name in names}
            for metric in directive["Metrics"]:
                found = document[metric["Name"]]
                for value in found if isinstance(found, list) else [found]:
                    unit = metric.get("Unit", "None")
                    cloudwatch.record_metric(directive["Namespace"], metric["Name"], value, unit, dimensions)
