"""Any number of stacks in one account and region: what one has or hears, no other has or hears.

Rules over the templates, and for each a change that breaks it. Two stacks side by side are in tests/e2e/deploy.
"""

import re
from collections.abc import Iterator
from typing import Any

from tests.infra.templates import Change, Rule, Template, Templates, changed, listed

# Properties by which a resource gets a name that no other of its account and region may have.
NAMES = {
    "AlarmName", "BucketName", "ComputeEnvironmentName", "DashboardName", "DBInstanceIdentifier", "FunctionName",
    "GroupName", "InstanceProfileName", "JobDefinitionName", "JobQueueName", "LaunchTemplateName", "LogGroupName",
    "ManagedPolicyName", "Name", "QueueName", "RepositoryName", "RoleName", "StateMachineName", "TableName",
    "TopicName", "UsagePlanName",
}  # fmt: skip
OWN = ("ModelBucket", "Queue", "NodesQueue", "Training.Outputs.Queue", "Training.Outputs.NodesQueue")


def is_of_the_stack(value: object) -> bool:
    """Whether a name holds the stack's, or that of something in it, which AWS makes of the stack's."""
    return bool(re.search(r"AWS::StackName|'Ref': '(?!AWS::)[\w.]+'|'Fn::GetAtt'|\$\{(?!AWS::|!)\w+", str(value)))


def resources(templates: Templates) -> Iterator[tuple[str, Template]]:
    for file, template in templates.items():
        for name, resource in template["Resources"].items():
            yield f"{file}.{name}", resource


def names_are_of_the_stack(templates: Templates) -> Iterator[str]:
    for place, resource in resources(templates):
        for name, value in resource.get("Properties", {}).items():
            if name in NAMES and not is_of_the_stack(value):
                yield f"{place} has the {name} {value} in every stack"
    for file, template in templates.items():
        for name, output in template.get("Outputs", {}).items():
            if "Export" in output and not is_of_the_stack(output["Export"]):
                yield f"{file} exports {name} under one name for all stacks"


def patterns(templates: Templates) -> Iterator[tuple[str, Template]]:
    """What is heard on the bus: the patterns of rules, and of functions' events."""
    for place, resource in resources(templates):
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Events::Rule":
            yield place, properties.get("EventPattern", {})
        for name, event in properties.get("Events", {}).items() if "Events" in properties else ():
            if event["Type"] == "EventBridgeRule":
                yield f"{place}.{name}", event["Properties"]["Pattern"]


def one_stack_hears_its_own_events(templates: Templates) -> Iterator[str]:
    for place, pattern in patterns(templates):
        told = [*listed(pattern.get("resources", [])), *values(pattern.get("detail", {}))]
        if not any(name in own_names(value) for value in told for name in OWN):
            yield f"{place} hears the events of other stacks"


def values(node: Any) -> Iterator[Any]:  # noqa: ANN401 - a YAML tree
    """The leaves of a pattern, functions of CloudFormation as they are."""
    if isinstance(node, dict) and not node.keys() & {"Ref", "Fn::Sub", "Fn::GetAtt"}:
        for value in node.values():
            yield from values(value)
    elif isinstance(node, list):
        for value in node:
            yield from values(value)
    else:
        yield node


def own_names(value: object) -> set[str]:
    """What a function of CloudFormation refers to."""
    if not isinstance(value, dict):
        return set()
    (name, argument), *_ = value.items()
    return set(re.findall(r"\$\{([\w.]+)\}", str(argument))) if name == "Fn::Sub" else {str(argument)}


def who_sends_says_of_which_stack(templates: Templates) -> Iterator[str]:
    for place, resource in resources(templates):
        variables = resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
        if "events:PutEvents" in str(resource) and "ModelBucket" not in str(variables.get("PILOTLIGHT_EVENT_RESOURCE")):
            yield f"{place} sends events that do not say of which stack they are"


def metrics_are_of_the_stack(templates: Templates) -> Iterator[str]:
    for place, resource in resources(templates):
        if resource["Type"] != "AWS::CloudWatch::Alarm":
            continue
        properties = resource["Properties"]
        stats = [one["MetricStat"]["Metric"] for one in properties.get("Metrics", []) if "MetricStat" in one]
        for metric in [properties] if "MetricName" in properties else stats:
            if not any(is_of_the_stack(one.get("Value")) for one in metric.get("Dimensions", [])):
                yield f"{place} counts the {metric['MetricName']} of all stacks"
        for one in properties.get("Metrics", []):
            if re.search(r"SELECT|SEARCH", str(one.get("Expression"))):
                yield f"{place} searches the metrics of all stacks"


def the_dashboard_shows_the_stack(templates: Templates) -> Iterator[str]:
    text, words = templates["monitoring"]["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    for search in re.findall(r"SEARCH\('(\S+)", text):
        asked = str(words.get(search.strip("${}"), search)) if search.startswith("${") else search
        if not re.search(r"function=.*\$\{\w+Function\}", asked):
            yield f"the dashboard searches {asked}, which all stacks have"
    for namespace, dimensions in re.findall(r'\["(AWS/\w+|Pilotlight)", "\w+", ([^\]]*)', text):
        if not re.search(r'"\$\{\w+\}"', dimensions):
            yield f"the dashboard shows metrics of {namespace} of all stacks"


def topics_hear_their_account(templates: Templates) -> Iterator[str]:
    for place, resource in resources(templates):
        if resource["Type"] in ("AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy"):
            for one in resource["Properties"]["PolicyDocument"]["Statement"]:
                if one["Effect"] == "Allow" and not re.search(r"aws:Source(Account|Arn)", str(one.get("Condition"))):
                    yield f"{place} lets {one['Principal']} of every account {one['Action']}"


RULES: list[Rule] = [
    names_are_of_the_stack, one_stack_hears_its_own_events, who_sends_says_of_which_stack, metrics_are_of_the_stack,
    the_dashboard_shows_the_stack, topics_hear_their_account,
]  # fmt: skip


# --- and each rule, broken on purpose ---------------------------------------------------------------------------------

EVENTS = "events.Resources.BatchFunction.Properties"
STATEMENTS = "alarms.Resources.TopicPolicy.Properties.PolicyDocument.Statement"
DASHBOARD = "monitoring.Resources.Dashboard.Properties"
SENDERS = ("api.Resources.BatchesFunction.Properties", EVENTS)
ALL_MODELS = {"Id": "all", "Expression": 'SELECT SUM(Drift) FROM SCHEMA("Pilotlight", model)', "Period": 3600}


def set_word(name: str, text: str) -> Change:
    """Another word of the dashboard's text."""
    return changed(f"{DASHBOARD}.DashboardBody.Fn::Sub.1.{name}", text)


def show(of: str, instead: str) -> Change:
    """Another name in the dashboard's text."""

    def change(templates: Templates) -> None:
        body = templates["monitoring"]["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
        assert of in body[0], f"{of} is out of date"
        body[0] = body[0].replace(of, instead)

    change.__doc__ = f"{DASHBOARD}: {of} -> {instead}"
    return change


MUTATIONS: list[tuple[Rule, Change]] = [
    (names_are_of_the_stack, changed("api.Resources.Api.Properties.Name", "pilotlight")),
    (names_are_of_the_stack, changed("events.Resources.Spread.Properties.StateMachineName", "spread")),
    (names_are_of_the_stack, changed("events.Resources.Queue.Properties.QueueName", "messages")),
    (names_are_of_the_stack, changed("training.Resources.Repository.Properties.RepositoryName", "training")),
    (names_are_of_the_stack, changed("training.Resources.TrainerRole.Properties.RoleName", "trainer")),
    (names_are_of_the_stack, changed("training.Resources.Queue.Properties.JobQueueName", {"Ref": "AWS::Region"})),
    (names_are_of_the_stack, changed(f"{DASHBOARD}.DashboardName", {"Fn::Sub": "pilotlight-${AWS::Region}"})),
    (names_are_of_the_stack, changed("monitoring.Resources.Bill.Properties.Name", "usd by tenant")),
    (names_are_of_the_stack, changed("api.Resources.PredictLogs.Properties.LogGroupName", "/aws/lambda/predict")),
    (names_are_of_the_stack, changed("monitoring.Resources.Dead.Properties.AlarmName", "dead letters")),
    (names_are_of_the_stack, changed("api.Resources.TrainingEnded.Properties.Name", "training-ended")),
    (names_are_of_the_stack, changed("api.Outputs.Bucket.Export", {"Name": "models"})),
    (one_stack_hears_its_own_events, changed(f"{EVENTS}.Events.Asked.Properties.Pattern.resources", None)),
    (
        one_stack_hears_its_own_events,
        changed(f"{EVENTS}.Events.Asked.Properties.Pattern.resources", ["arn:aws:s3:::models"]),
    ),
    (one_stack_hears_its_own_events, changed(f"{EVENTS}.Events.Uploaded.Properties.Pattern.detail.bucket", {})),
    (
        one_stack_hears_its_own_events,
        changed("api.Resources.PromoteFunction.Properties.Events.Published.Properties.Pattern.detail.bucket", {}),
    ),
    (
        one_stack_hears_its_own_events,
        changed("api.Resources.TrainingEnded.Properties.EventPattern.detail.jobQueue", [{"exists": True}]),
    ),
    (one_stack_hears_its_own_events, changed("training.Resources.Failed.Properties.EventPattern.detail.jobQueue", [])),
    (one_stack_hears_its_own_events, changed("training.Resources.Blocked.Properties.EventPattern.resources", [])),
    *(
        (who_sends_says_of_which_stack, changed(f"{sender}.Environment.Variables.PILOTLIGHT_EVENT_RESOURCE", None))
        for sender in SENDERS
    ),
    (metrics_are_of_the_stack, changed("monitoring.Resources.Drifted.Properties.Dimensions", [])),
    (metrics_are_of_the_stack, changed("monitoring.Resources.Failing.Properties.Metrics", [ALL_MODELS])),
    (metrics_are_of_the_stack, changed("monitoring.Resources.Dead.Properties.Dimensions.0.Value", "messages")),
    (metrics_are_of_the_stack, changed("alarms.Resources.PredictAnswers.Properties.Dimensions.0.Value", "predict")),
    (the_dashboard_shows_the_stack, set_word("Models", "{Pilotlight,model}")),
    (the_dashboard_shows_the_stack, set_word("Versions", "{Pilotlight,cold,function,model,version}")),
    (the_dashboard_shows_the_stack, show('"QueueName", "${DeadLetters}"', '"QueueName", "dead"')),
    (the_dashboard_shows_the_stack, show("SEARCH('${Models}", "SEARCH('{Pilotlight,model}")),
    (topics_hear_their_account, changed(f"{STATEMENTS}.0.Condition", None)),
    (topics_hear_their_account, changed(f"{STATEMENTS}.1.Condition", None)),
]  # fmt: skip
