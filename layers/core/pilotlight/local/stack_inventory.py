"""Count what a stack of template.yaml has that costs something while nobody calls it, nested stacks included."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.costs.idle import ScheduledFunction, StackInventory, WarmFunction
from pilotlight.local.intrinsics import FUNCTION_TYPE, UnresolvedValue, read_deployed_template
from pilotlight.local.schedule_expression import parse_schedule_expression
from pilotlight.local.template import DEFAULT_MEMORY_MB

NESTED_TYPES = {"AWS::Serverless::Application": "Location", "AWS::CloudFormation::Stack": "TemplateURL"}
METRIC_ROW = re.compile(r'\["[\w/]+", "\w+"(?:, "[^"]*")*')  # of a dashboard: namespace, name, dimensions
KEY_ARN = re.compile(r"arn:[\w-]+:kms:[\w-]+:\d+:\w+/[\w-]+")


@dataclass(frozen=True)
class StackResource:
    """A resource of a stack or of one in it; `properties` are resolved as far as parameters decide them."""

    logical_id: str
    kind: str
    properties: Mapping[str, Any]


def count_inventory(template: Path, parameters: Mapping[str, Any] | None = None) -> StackInventory:
    """Count the resources of a stack with these parameters, else the defaults; `InvalidInputError` for unknown ones."""
    resources = list(iterate_resources(template, parameters))
    properties: dict[str, list[Mapping[str, Any]]] = {}
    for resource in resources:
        properties.setdefault(resource.kind, []).append(resource.properties)
    functions = properties.get(FUNCTION_TYPE, [])
    return StackInventory(
        alarm_metrics=sum(map(count_alarm_metrics, properties.get("AWS::CloudWatch::Alarm", []))),
        composite_alarms=len(properties.get("AWS::CloudWatch::CompositeAlarm", [])),
        dashboard_metrics=tuple(map(count_dashboard_metrics, properties.get("AWS::CloudWatch::Dashboard", []))),
        polled_queues=len(properties.get("AWS::Lambda::EventSourceMapping", [])),
        repositories=len(properties.get("AWS::ECR::Repository", [])),
        keys=tuple(sorted({arn for resource in resources for arn in KEY_ARN.findall(str(resource.properties))})),
        scheduled=tuple(found for function in functions for found in iterate_schedules(function)),
        warm=tuple(found for function in functions for found in iterate_warmth(function)),
    )


def iterate_resources(template: Path, parameters: Mapping[str, Any] | None = None) -> Iterator[StackResource]:
    """Iterate over the resources of a template and of those nested in it; functions have what Globals gives them."""
    document = read_deployed_template(template, parameters)
    shared = (document.get("Globals") or {}).get("Function") or {}
    for name, resource in document["Resources"].items():
        kind, own = str(resource.get("Type")), resource.get("Properties") or {}
        if kind == FUNCTION_TYPE:
            ignored = resource.get("IgnoreGlobals") or ()
            own = {key: value for key, value in shared.items() if key not in ignored} | own
        yield StackResource(name, kind, own)
        location = own.get(NESTED_TYPES.get(kind, ""))
        if isinstance(location, str) and "://" not in location:
            yield from iterate_resources(template.parent / location, known_text(own.get("Parameters") or {}))


def known_text(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give a nested stack its parameters; what only a deploy knows has the template's own text, which is not empty."""
    return {name: value.text if isinstance(value, UnresolvedValue) else value for name, value in parameters.items()}


def count_alarm_metrics(alarm: Mapping[str, Any]) -> int:
    """Count the metrics that an alarm reads."""
    return 1 if "MetricName" in alarm else sum("MetricStat" in each for each in alarm.get("Metrics") or ())


def count_dashboard_metrics(dashboard: Mapping[str, Any]) -> int:
    """Count the metrics that a dashboard names, and its searches, of which each shows one or more."""
    body = dashboard.get("DashboardBody")
    text = body.text if isinstance(body, UnresolvedValue) else str(body)
    return len(set(METRIC_ROW.findall(text))) + text.count("SEARCH(")


def iterate_schedules(function: Mapping[str, Any]) -> Iterator[ScheduledFunction]:
    """Iterate over the schedules of a function."""
    for event in (function.get("Events") or {}).values():
        if event.get("Type") == "Schedule":
            yield ScheduledFunction(
                handler=str(function.get("Handler")),
                every_s=parse_schedule_expression(str(event["Properties"]["Schedule"]))[0],
                memory_mb=int(function.get("MemorySize", DEFAULT_MEMORY_MB)),
                architecture=find_architecture(function),
                is_traced=function.get("Tracing") == "Active",
            )


def iterate_warmth(function: Mapping[str, Any]) -> Iterator[WarmFunction]:
    """Yield the function if it keeps environments or a snapshot."""
    environments = int((function.get("ProvisionedConcurrencyConfig") or {}).get("ProvisionedConcurrentExecutions", 0))
    has_snapshot = (function.get("SnapStart") or {}).get("ApplyOn") == "PublishedVersions"
    if environments or has_snapshot:
        yield WarmFunction(
            memory_mb=int(function.get("MemorySize", DEFAULT_MEMORY_MB)),
            architecture=find_architecture(function),
            environments=environments,
            has_snapshot=has_snapshot,
        )


def find_architecture(function: Mapping[str, Any]) -> str:
    """Find the processor architecture of a function; Lambda's default is x86_64."""
    return str((function.get("Architectures") or ["x86_64"])[0])
