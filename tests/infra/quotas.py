"""How much of AWS's limits the stack uses: `python -m tests.infra.quotas`; with --markdown, the table of deploy.md.

It measures the templates as SAM's transform leaves them, for both architectures, with every condition true, and with
values as long as they sensibly get (`LONGEST`). Sizes of code are measured where `make package` has built it. The
limits are those of the services' pages on quotas; what an account may raise is not among them.
"""

import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pilotlight.local.intrinsics import look_up_mappings
from tests.infra.cloud import FILES, Template, translated

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".aws-sam" / "build"
ARCHITECTURES = ("x86_64", "arm64")
ALLOWED_SHARE = 0.9  # of a limit, above which the test fails
STACK_NAME = "pilotlight"  # that of samconfig.toml
NESTED_SUFFIX = 13  # characters that CloudFormation appends to the name of a nested stack
INLINE = "template as a body, bytes"  # without a bucket; `sam deploy` always has one, so that this limit stops nobody
NAME_LIMITS = {  # of names that we choose, in characters
    ("AWS::StepFunctions::StateMachine", "StateMachineName"): 80,
    ("AWS::CloudWatch::Dashboard", "DashboardName"): 255,
    ("AWS::Logs::QueryDefinition", "Name"): 255,
    ("AWS::ApiGateway::RestApi", "Name"): 1024,
}


def text(length: int) -> str:
    """A value of so many characters."""
    return "x" * length


ROLE_NAME, FUNCTION_NAME, BUCKET_NAME = text(64), text(64), text(63)
ARN = "arn:aws-us-gov:states:us-gov-west-1:123456789012:stateMachine:" + text(80)  # the longest kind among ours
KEY_ARN = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-" + text(32)
LONGEST: dict[str, str] = {
    "AWS::Partition": "aws-us-gov",
    "AWS::Region": "ap-southeast-2",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com.cn",
    "AWS::StackName": STACK_NAME,
    "AWS::StackId": ARN,
    "JwtIssuer": text(256),
    "JwtAudience": text(256),
    "JwtKeys": text(256),
    "Preload": " ".join([f"{text(64)}@champion"] * 10),  # ten models with the longest names
    "Promotion": "canary:12.5:1440m",
    "SigningKey": KEY_ARN,
    "SigningPublicKey": text(736),  # base64 of a key of 4,096 bits, the longest that KMS signs with
    "DataKey": KEY_ARN,
    "ModelBucket": BUCKET_NAME,
    "InvocationsModel": f"{text(64)}@{text(64)}",
    "ReplyQueues": ",".join([f"arn:aws-us-gov:sqs:us-gov-west-1:123456789012:{text(80)}"] * 5),
    "AlarmTopic": ARN,
    "PredictFunction.Alias": FUNCTION_NAME,
    "GenerateFunction.Alias": FUNCTION_NAME,
}


@dataclass(frozen=True)
class Usage:
    """How much of a limit something uses; `what` names the kind of limit, `where` the thing."""

    what: str
    where: str
    used: int
    limit: int

    @property
    def share(self) -> float:
        """The used share of the limit, 0 to 1."""
        return self.used / self.limit


# --- values at their longest ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LongestValues:
    """Values of a template's intrinsic functions, as long as they get."""

    template: Template

    def expand(self, node: Any) -> Any:  # noqa: ANN401 - a YAML tree
        """Replace intrinsic functions by their longest values, and drop what is AWS::NoValue."""
        if isinstance(node, list):
            return [value for value in map(self.expand, node) if value is not None]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._expand_intrinsic(name, argument)
        found = {key: self.expand(value) for key, value in node.items()}
        return {key: value for key, value in found.items() if value is not None}

    def _expand_intrinsic(self, name: str, argument: Any) -> Any:  # noqa: ANN401 - as above
        match name, argument:
            case "Ref", "AWS::NoValue":
                return None
            case "Ref", str():
                return self._expand_reference(argument)
            case "Fn::GetAtt", _:
                return self._expand_attribute(argument if isinstance(argument, str) else ".".join(argument))
            case "Fn::Sub", _:
                return self._substitute(*(argument if isinstance(argument, list) else (argument, {})))
            case "Fn::If", [_, *branches]:
                return max(map(self.expand, branches), key=lambda value: len(json.dumps(value)))
            case "Fn::Join", [str() as separator, parts]:
                expanded = self.expand(parts)
                return separator.join(map(str, expanded)) if isinstance(expanded, list) else expanded
            case (("Fn::Select" | "Fn::Split"), _):
                return text(36)  # a part of an id, such as a UUID
        raise AssertionError(f"The longest value of {name} is not known: {argument}")

    def _expand_reference(self, name: str) -> str:
        if name in LONGEST:
            return LONGEST[name]
        declared = self.template.get("Parameters", {}).get(name)
        if declared is None:
            return self._expand_attribute(name) if self._find_type(name) == "AWS::SNS::Topic" else text(64)
        values = [*declared.get("AllowedValues", ()), declared.get("Default", text(64)), declared.get("MaxValue", "")]
        return max(map(str, values), key=len)

    def _expand_attribute(self, name: str) -> str:
        if name in LONGEST:
            return LONGEST[name]
        is_bucket = self._find_type(name.partition(".")[0]) == "AWS::S3::Bucket"
        return f"arn:aws-us-gov:s3:::{BUCKET_NAME}" if is_bucket else ARN

    def _find_type(self, name: str) -> str:
        return str(self.template["Resources"].get(name, {}).get("Type"))

    def _substitute(self, written: str, own: Mapping[str, Any]) -> str:
        def replace(place: re.Match[str]) -> str:
            name = place[1]
            if name in own:
                return str(self.expand(own[name]))
            return self._expand_attribute(name) if "." in name else self._expand_reference(name)

        return re.sub(r"\$\{([\w.:]+)\}", replace, written).replace("${!", "${")


@cache
def load(name: str, architecture: str) -> Template:
    """Load a template as CloudFormation gets it, with its mappings looked up."""
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    template: Template = look_up_mappings(translated(name, {"Architecture": architecture}), {})
    return template


# --- measuring --------------------------------------------------------------------------------------------------------


def measure() -> list[Usage]:
    """Measure every limit, for the architecture that uses more of it."""
    found: dict[tuple[str, str], Usage] = {}
    for architecture in ARCHITECTURES:
        for name in FILES:
            for usage in measure_template(name, load(name, architecture)):
                key = usage.what, usage.where
                found[key] = max(found.get(key, usage), usage, key=lambda each: each.used)
    return [*found.values(), *measure_names(), *measure_code()]


def measure_template(name: str, template: Template) -> Iterator[Usage]:
    """Measure a template and what is in it."""
    file = str(FILES[name].relative_to(ROOT))
    yield Usage(INLINE, file, FILES[name].stat().st_size, 51_200)
    yield Usage("template in S3, bytes", file, len(compact(template)), 1_000_000)
    for section, limit in (("Resources", 500), ("Parameters", 200), ("Outputs", 200), ("Mappings", 200)):
        yield Usage(f"{section.lower()} of a template", file, len(template.get(section, {})), limit)
    values = LongestValues(template)
    for logical_id, resource in template["Resources"].items():
        for measured in MEASURES.get(resource["Type"], ()):
            yield from measured(logical_id, values.expand(resource.get("Properties", {})))
    yield from measure_permissions(template, values)
    yield from measure_subscriptions(template)


def measure_role(name: str, role: Template) -> Iterator[Usage]:
    """Measure a role: IAM counts its inline policies together, without white space."""
    inline = sum(len(compact(policy["PolicyDocument"])) for policy in role.get("Policies", ()))
    yield Usage("inline policies of a role, characters", name, inline, 10_240)
    yield Usage("managed policies of a role", name, len(role.get("ManagedPolicyArns", ())), 10)
    yield Usage("trust policy of a role, characters", name, len(compact(role["AssumeRolePolicyDocument"])), 2_048)


def measure_function(name: str, function: Template) -> Iterator[Usage]:
    """Measure a function: the names and values of its variables together, and its layers."""
    variables = function.get("Environment", {}).get("Variables", {})
    size = sum(len(str(key).encode()) + len(str(value).encode()) for key, value in variables.items())
    yield Usage("variables of a function, bytes", name, size, 4_096)
    yield Usage("layers of a function", name, len(function.get("Layers", ())), 5)


def measure_rule(name: str, rule: Template) -> Iterator[Usage]:
    """Measure a rule of EventBridge."""
    if "EventPattern" in rule:
        yield Usage("pattern of a rule, characters", name, len(compact(rule["EventPattern"])), 2_048)
    yield Usage("targets of a rule", name, len(rule.get("Targets", ())), 5)


def measure_state_machine(name: str, machine: Template) -> Iterator[Usage]:
    """Measure the definition of a state machine."""
    definition = machine.get("DefinitionString") or compact(machine["Definition"])
    yield Usage("definition of a state machine, bytes", name, len(definition), 1_048_576)


def measure_api(name: str, api: Template) -> Iterator[Usage]:
    """Measure a REST API: every part of a path is a resource of it."""
    parts = {path[:end] for path in api["Body"]["paths"] for end in find_ends(path)}
    yield Usage("resources of a REST API", name, len(parts), 300)
    yield Usage("definition of a REST API, bytes", name, len(compact(api["Body"])), 6 * 1024 * 1024)


def find_ends(path: str) -> list[int]:
    """Find where the parts of a path end: `/v2/models` is one resource below `/v2`, which is one below `/`."""
    return [1, *(place.end() for place in re.finditer(r"/[^/]+", path))]


def measure_dashboard(name: str, dashboard: Template) -> Iterator[Usage]:
    """Measure a dashboard."""
    yield Usage("widgets of a dashboard", name, len(json.loads(dashboard["DashboardBody"])["widgets"]), 500)


def measure_composite_alarm(name: str, alarm: Template) -> Iterator[Usage]:
    """Measure the rule of an alarm that holds others together."""
    yield Usage("rule of a composite alarm, characters", name, len(alarm["AlarmRule"]), 10_240)


def measure_alarm(name: str, alarm: Template) -> Iterator[Usage]:
    """Measure an alarm on several metrics."""
    if "Metrics" in alarm:
        yield Usage("metrics of an alarm", name, len(alarm["Metrics"]), 10)


def measure_bucket_policy(name: str, policy: Template) -> Iterator[Usage]:
    """Measure the policy of a bucket."""
    yield Usage("policy of a bucket, bytes", name, len(compact(policy["PolicyDocument"])), 20_480)


def measure_alarms_of_deployment(name: str, group: Template) -> Iterator[Usage]:
    """Measure how many alarms take new code back."""
    yield Usage("alarms of a deployment", name, len(group["AlarmConfiguration"]["Alarms"]), 10)


MEASURES: dict[str, tuple[Callable[[str, Template], Iterator[Usage]], ...]] = {
    "AWS::IAM::Role": (measure_role,),
    "AWS::Lambda::Function": (measure_function,),
    "AWS::Events::Rule": (measure_rule,),
    "AWS::StepFunctions::StateMachine": (measure_state_machine,),
    "AWS::ApiGateway::RestApi": (measure_api,),
    "AWS::CloudWatch::Dashboard": (measure_dashboard,),
    "AWS::CloudWatch::CompositeAlarm": (measure_composite_alarm,),
    "AWS::CloudWatch::Alarm": (measure_alarm,),
    "AWS::S3::BucketPolicy": (measure_bucket_policy,),
    "AWS::CodeDeploy::DeploymentGroup": (measure_alarms_of_deployment,),
}


def measure_permissions(template: Template, values: LongestValues) -> Iterator[Usage]:
    """Measure each function's own policy: a statement of 400 bytes and its ARNs for each permission."""
    sizes: dict[str, int] = {}
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Permission":
            function = re.sub(r"\W+", " ", str(resource["Properties"]["FunctionName"])).split()[-1]
            sizes[function] = sizes.get(function, 0) + 400 + len(compact(values.expand(resource["Properties"])))
    for function, size in sizes.items():
        yield Usage("policy of a function, bytes", function, size, 20_480)


def measure_subscriptions(template: Template) -> Iterator[Usage]:
    """Measure how many subscriptions each log group has."""
    groups = Counter(
        str(resource["Properties"]["LogGroupName"]["Ref"])
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Logs::SubscriptionFilter"
    )
    for group, count in groups.items():
        yield Usage("subscriptions of a log group", group, count, 2)


def measure_names() -> Iterator[Usage]:
    """Measure the names that contain the stack's."""
    for name in FILES:
        nested = 0 if name == "api" else len(f"-{name}-") + NESTED_SUFFIX
        template = load(name, ARCHITECTURES[0])
        for logical_id, resource in template["Resources"].items():
            for (kind, field), limit in NAME_LIMITS.items():
                written = resource.get("Properties", {}).get(field)
                if resource["Type"] == kind and "AWS::StackName" in str(written):
                    used = len(str(LongestValues(template).expand(written))) + nested
                    yield Usage(f"name under the stack {STACK_NAME}, characters", logical_id, used, limit)


def find_longest_stack_name() -> int:
    """Find how many characters the name of a stack may have, so that all names fit that contain it."""
    return min(usage.limit - usage.used for usage in measure_names()) + len(STACK_NAME)


def measure_code() -> Iterator[Usage]:
    """Measure what `make package` has built: a function's own code with its layers, unzipped."""
    layers = sum(measure_folder(BUILT / name) for name in ("DepsLayer", "CoreLayer"))
    if not layers:
        return
    for folder in sorted([*BUILT.glob("*Function"), *BUILT.glob("*/*Function")]):
        size = measure_folder(folder) + layers
        yield Usage("code of a function with its layers, bytes", folder.name, size, 262_144_000)


def measure_folder(folder: Path) -> int:
    """Sum up the bytes of the files in a folder; 0 if there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compact(document: object) -> str:
    """Write JSON without white space."""
    return json.dumps(document, separators=(",", ":"))


# --- telling ----------------------------------------------------------------------------------------------------------


def find_largest(usages: list[Usage]) -> list[Usage]:
    """Find what uses most of each kind of limit, the nearest to its limit first."""
    largest: dict[str, Usage] = {}
    for usage in usages:
        largest[usage.what] = max(largest.get(usage.what, usage), usage, key=lambda each: each.share)
    return sorted(largest.values(), key=lambda each: -each.share)


def format_usage(usage: Usage) -> str:
    """Format a line of the table for a terminal."""
    return f"{usage.share:6.1%}  {usage.used:>11,} of {usage.limit:>11,}  {usage.what}: {usage.where}"


def format_markdown(usages: list[Usage]) -> str:
    """Format the nearest of each kind as the table of infra/docs/deploy.md."""
    rows = [f"| {each.what} | `{each.where}` | {each.used:,} | {each.limit:,} |" for each in find_largest(usages)]
    return "\n".join(["| limit | nearest to it | uses | of |", "|---|---|---|---|", *rows])


def format_stack_name() -> str:
    """Format what the names of a stack's resources leave for its own."""
    return f"The name of a stack may have {find_longest_stack_name()} characters, so that all names fit."


if __name__ == "__main__":
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    measured = measure()
    lines = [format_usage(usage) for usage in sorted(measured, key=lambda each: -each.share)]
    told = [format_markdown(measured)] if "--markdown" in sys.argv[1:] else [*lines, format_stack_name()]
    sys.stdout.write("\n".join(told) + "\n")
