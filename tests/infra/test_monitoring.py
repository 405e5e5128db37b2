"""What is measured is watched, and what is watched is measured: templates against the code, in both directions."""

import ast
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from pilotlight.api.usage_log import UsageKey, build_line_template
from pilotlight.costs import estimate
from pilotlight.local import intrinsics
from pilotlight.local.stack_inventory import StackResource, count_inventory, iterate_resources
from pilotlight.processing.tabular import UNKNOWN_METRIC

ROOT = Path(__file__).parents[2]
STAGES = ("queue", "load", "decode", "infer", "encode", "store")  # of Trace.mark, and the gateway's queue
TOLD_BY_CODE = ("layers/core/pilotlight", "functions")


STACK = intrinsics.load_raw_template(ROOT / "template.yaml")
EVENTS = intrinsics.load_raw_template(ROOT / "infra/events.yaml")
ROLLBACK = intrinsics.load_raw_template(ROOT / "infra/alarms.yaml")
MONITORING = intrinsics.load_raw_template(ROOT / "infra/monitoring.yaml")
ALARMS = {
    name: resource["Properties"]
    for template in (ROLLBACK, MONITORING)
    for name, resource in template["Resources"].items()
    if resource["Type"] == "AWS::CloudWatch::Alarm"
}
TEXT, WORDS = MONITORING["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]


def dashboard() -> dict[str, Any]:
    """The body as CloudWatch gets it, with parameters' names for their values."""
    told = {**WORDS, "UntrainedArn": ', "arn"', "Trainings": "-"}
    text = TEXT
    for name, value in told.items():
        value = re.sub(r"\$\{(\w+)\}", r"\1", value["Fn::Sub"] if isinstance(value, dict) else value)
        text = text.replace(f"${{{name}}}", value)
    return dict(json.loads(re.sub(r"\$\{([\w.:]+)\}", r"\1", text).replace("${!", "${")))


WIDGETS = dashboard()["widgets"]


def emitted() -> set[str]:
    """The names of our metrics, by the code: what is counted, stages that are marked, fields of the ledger's lines."""
    found: set[str] = set()
    for folder in TOLD_BY_CODE:
        for path in (ROOT / folder).rglob("*.py"):
            found.update(counted(ast.parse(path.read_text())))
    lines = [
        build_line_template(UsageKey("r", "m", 1, cold=False, status=status, tenant="", stages=STAGES))
        for status in (200, 400, 500)
    ]
    for line in lines:
        directives = json.loads(re.sub(r"%\w|%\.\d?\w", "0", line.replace(",%s,", ",")))["_aws"]["CloudWatchMetrics"]
        found |= {metric["Name"] for directive in directives for metric in directive["Metrics"]}
    return found | {"LinesAnswered", "LinesFailed", UNKNOWN_METRIC}


def counted(tree: ast.AST) -> Iterator[str]:
    """First arguments of `count`, both sides of a choice."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "count" and node.args:
            names = [node.args[0].body, node.args[0].orelse] if isinstance(node.args[0], ast.IfExp) else [node.args[0]]
            yield from (name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str))


def marked() -> set[str]:
    """The stages that the code marks."""
    calls = chain.from_iterable(
        ast.walk(ast.parse(path.read_text())) for folder in TOLD_BY_CODE for path in (ROOT / folder).rglob("*.py")
    )
    return {
        node.args[0].value
        for node in calls
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "mark_stage"
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    }


def watched() -> set[str]:
    """The names of our metrics in alarms and panels."""
    found = set()
    for alarm in ALARMS.values():
        for metric in metrics(alarm):
            if metric["Namespace"] == "Pilotlight":
                found.add(metric["MetricName"])
        found.update(re.findall(r"SELECT \w+\((\w+)\)", json.dumps(alarm)))
    for widget in WIDGETS:
        for row in widget["properties"].get("metrics", []):
            if row[0] == "Pilotlight":
                found.add(row[1])
            elif isinstance(row[0], dict):
                for group in re.findall(r"MetricName=(\([^)]*\)|\"\w+\")", row[0]["expression"]):
                    found.update(re.findall(r'"(\w+)"', group))
    return found


def metrics(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that an alarm is about."""
    if "MetricName" in alarm:
        return [alarm]
    return [each["MetricStat"]["Metric"] for each in alarm["Metrics"] if "MetricStat" in each]


def functions() -> set[str]:
    """All functions, by logical id, but the authorizer: its errors are refusals, its failures the gateway's own 5xx."""
    resources = {**STACK["Resources"], **EVENTS["Resources"]}
    found = {name for name, each in resources.items() if each["Type"] == "AWS::Serverless::Function"}
    return found - {"AuthorizeFunction"}


def test_what_is_watched_is_measured() -> None:
    assert watched() - emitted() == set()


def test_what_is_measured_is_watched() -> None:
    assert emitted() - watched() == set()


def test_the_stages_of_this_test_are_those_of_the_code() -> None:
    assert {"queue", *marked()} == set(STAGES)


def test_every_function_is_watched_for_failures_throttles_and_time() -> None:
    shown = {
        (row[1], row[3])
        for widget in WIDGETS
        for row in widget["properties"].get("metrics", [])
        if row[0] == "AWS/Lambda"
    }
    for name in functions():
        assert {("Invocations", name), ("Errors", name), ("Throttles", name), ("Duration", name)} <= shown
    throttles, failures = (
        {str(metric["Dimensions"][0]["Value"]["Ref"]) for metric in metrics(ALARMS[name])}
        for name in ("Throttled", "Failing")
    )
    assert throttles == functions()
    assert failures | {"PredictFunction"} == functions()
    assert ALARMS["PredictFailures"]["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": "PredictFunction"}}]


def make_resources(level: str) -> dict[str, StackResource]:
    """What a stack with trainings has of CloudWatch at a level of monitoring, by name."""
    parameters = {"MonitoringLevel": level, "TrainingSubnets": "subnet-1,subnet-2", "TrainingVpc": "vpc-1"}
    found = iterate_resources(ROOT / "template.yaml", parameters)
    return {each.logical_id: each for each in found if each.kind.startswith("AWS::CloudWatch::")}


@pytest.mark.parametrize("level", ["basic", "full"])
def test_every_alarm_tells_somebody(level: str) -> None:
    """Itself, or by the alarm that holds it together with others, which only the level `full` has."""
    resources = make_resources(level)
    rule = str(resources["Serving"].properties["AlarmRule"]) if level == "full" else ""
    names = {"PredictFailures": "CodeAlarm", "PredictAnswers": "AnswerAlarm"}
    silent = {
        name
        for name, resource in resources.items()
        if resource.kind == "AWS::CloudWatch::Alarm" and "AlarmActions" not in resource.properties
    }
    untold = {name for name in silent if f"${{{names.get(name, name)}}}" not in rule}
    assert untold == ({"Untrained"} if level == "full" else set())  # the rule of training.yaml tells more than an alarm
    assert silent - untold == (set() if level == "basic" else {*names, "Slow", "GatewayErrors", "Throttled"})


def test_the_basic_level_has_the_alarms_for_what_callers_notice() -> None:
    """And for messages, which have no caller; everything else is for the level `full`, as deploy.md says."""
    assert make_resources("basic").keys() == {"PredictFailures", "PredictAnswers", "GatewayErrors", "Dead"}
    assert len(make_resources("full")) == len(ALARMS) + len({"Serving", "Dashboard"})


def test_every_alarm_is_on_the_dashboard_and_says_what_to_do() -> None:
    alarms = next(widget for widget in WIDGETS if widget["type"] == "alarm")["properties"]["alarms"]
    assert len(alarms) == len(ALARMS) + 1  # and the one that holds others together
    assert all(len(alarm["AlarmDescription"]) > 40 for alarm in ALARMS.values())
    assert all(alarm["TreatMissingData"] == "notBreaching" for alarm in ALARMS.values())


def test_new_code_is_taken_back_by_alarms_that_are_about_it() -> None:
    preference = STACK["Resources"]["PredictFunction"]["Properties"]["DeploymentPreference"]
    assert preference["Alarms"] == [{"Fn::GetAtt": f"Alarms.Outputs.{name}"} for name in ("CodeAlarm", "AnswerAlarm")]
    assert [ROLLBACK["Outputs"][name]["Value"] for name in ("CodeAlarm", "AnswerAlarm")] == [
        {"Ref": "PredictFailures"}, {"Ref": "PredictAnswers"},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["Monitoring", "Training", "Gateway", "Alarms"])
def test_nested_stacks_get_the_parameters_that_they_have(name: str) -> None:
    nested = STACK["Resources"][name]["Properties"]
    parameters = intrinsics.load_raw_template(ROOT / nested["TemplateURL"])["Parameters"]
    required = {parameter for parameter, each in parameters.items() if "Default" not in each}
    assert required <= set(nested["Parameters"]) <= set(parameters)


def test_services_may_write_to_the_topic_and_nobody_else() -> None:
    policy = ROLLBACK["Resources"]["TopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert [(each["Principal"], each["Action"]) for each in policy] == [
        ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish"),
        ({"Service": "events.amazonaws.com"}, "sns:Publish"),
    ]


def test_a_message_is_stuck_later_than_a_failed_one_comes_again() -> None:
    visibility = EVENTS["Resources"]["Queue"]["Properties"]["VisibilityTimeout"]
    assert MONITORING["Parameters"]["StuckSeconds"]["Default"] > visibility


def test_panels_do_not_lie_upon_each_other() -> None:
    taken = [
        (x, y)
        for widget in WIDGETS
        for x in range(widget["x"], widget["x"] + widget["width"])
        for y in range(widget["y"], widget["y"] + widget["height"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23


def test_the_sums_by_tenant_ask_for_fields_that_lines_have() -> None:
    query = MONITORING["Resources"]["Bill"]["Properties"]["QueryString"]
    line = build_line_template(UsageKey("r", "m", 1, cold=False, status=200, tenant="t", stages=()))
    for name in re.findall(r"sum\((\w+)\)|by ([\w, ]+)", query):
        for each in re.split(r", *", "".join(name)):
            assert f'"{each}"' in line or each in ("usd", "calls", "gb_seconds")


def test_the_estimate_knows_how_much_is_watched() -> None:
    assert count_inventory(ROOT / "template.yaml").alarm_metrics == estimate.ALARM_METRICS
    line = build_line_template(UsageKey("r", "m", 1, cold=False, status=500, tenant="", stages=STAGES[:-1]))
    of_version = json.loads(re.sub(r"%\w|%\.\d?\w", "0", line.replace(",%s,", ",")))["_aws"]["CloudWatchMetrics"][1]
    assert 2 * len(of_version["Metrics"]) == estimate.METRICS_PER_VERSION
