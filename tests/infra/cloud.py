"""The whole stack on moto's CloudFormation: the templates as SAM translates them, and what moto lacks, by its calls.

moto's CloudFormation knows some types of resources and passes over the others. `LACKING` names those of ours that it
passes over; `makers` makes most of them by the calls that AWS itself offers, so that their settings are looked at too.
What is left, `UNMADE`, is seen by cfn-lint and in the translated template alone.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import cfn_yaml
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from pilotlight.local.intrinsics import expand_includes
from tests.infra.makers import MAKERS, Properties

ROOT = Path(__file__).parents[2]
API = ROOT / "template.yaml"
# One that stands beside the stack, not in it, and a file that the stack's template includes.
OTHERS = {ROOT / "infra" / "tenant.yaml", ROOT / "infra" / "api.yaml"}
FILES = {"api": API} | {path.stem: path for path in sorted((ROOT / "infra").glob("*.yaml")) if path not in OTHERS}
NAMED = {"AWS::ECR::Repository": {"RepositoryName": "training"}}  # names that AWS makes up, and moto wrongly
Template = dict[str, Any]

LACKING = {
    "AWS::ApiGateway::Account", "AWS::ApiGateway::ApiKey", "AWS::ApiGateway::BasePathMapping",
    "AWS::AppConfig::Application", "AWS::AppConfig::ConfigurationProfile", "AWS::AppConfig::HostedConfigurationVersion",
    "AWS::ApiGateway::DomainName", "AWS::ApiGateway::Stage", "AWS::ApiGateway::UsagePlan",
    "AWS::ApiGateway::UsagePlanKey", "AWS::CloudWatch::Alarm", "AWS::CodeDeploy::Application",
    "AWS::CloudWatch::CompositeAlarm", "AWS::Logs::QueryDefinition", "AWS::SNS::Subscription", "AWS::SNS::TopicPolicy",
    "AWS::CodeDeploy::DeploymentGroup", "AWS::EC2::SecurityGroupEgress", "AWS::Lambda::Alias",
    "AWS::Logs::SubscriptionFilter", "AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy", "AWS::WAFv2::WebACLAssociation",
}  # fmt: skip
UNMADE = {  # and why: moto has no call for it either, or none that takes these settings
    "AWS::ApiGateway::Account", "AWS::CloudWatch::CompositeAlarm", "AWS::EC2::SecurityGroupEgress",
    "AWS::Logs::QueryDefinition",
}  # fmt: skip


def translated(name: str, parameters: Mapping[str, str]) -> Template:
    """A template as CloudFormation gets it: SAM's resources become AWS's own."""
    found: Template = json.loads(_translated(name, tuple(sorted(parameters.items()))))
    return found


@cache
def _translated(name: str, parameters: tuple[tuple[str, str], ...]) -> str:
    text = change_settings(FILES[name].read_text(), dict(parameters)) if name == "api" else FILES[name].read_text()
    template: Template = expand_includes(json.loads(json.dumps(cfn_yaml.loads(text))), FILES[name])
    for resource in template["Resources"].values():
        properties = resource.setdefault("Properties", {})
        properties |= NAMED.get(resource["Type"], {})
        for key in {"CodeUri", "ContentUri"} & properties.keys():
            properties[key] = "s3://artifacts/code.zip"
        for key in {"Location", "TemplateURL"} & properties.keys():
            properties[key] = f"https://s3.amazonaws.com/artifacts/{Path(properties[key]).stem}.json"
    if "Transform" not in template:
        return json.dumps(template)
    values = {key: declared.get("Default", "") for key, declared in template["Parameters"].items()}
    done = Translator({}, Parser(), boto_session=boto3.Session(region_name="us-east-1")).translate(
        template, values | {key: value for key, value in parameters if key in values}
    )
    return json.dumps(done)


def change_settings(text: str, values: Mapping[str, str]) -> str:
    """Edit the Settings in the text of the template, as somebody does who wants others."""
    start, end = text.index("\nMappings:"), text.index("\nRules:")
    settings = text[start:end]
    for name, value in values.items():
        settings = re.sub(rf"(?m)^( +{name}: (?:&\w+ )?)\S+", rf"\g<1>{json.dumps(value)}", settings)
    return text[:start] + settings + text[end:]


def nested() -> dict[str, str]:
    """The stacks in the stack: by logical id, the names of their templates."""
    resources: Template = cfn_yaml.load(str(API))["Resources"]
    places = {
        name: one["Properties"].get("Location") or one["Properties"].get("TemplateURL")
        for name, one in resources.items()
        if "Properties" in one
    }
    return {name: Path(place).stem for name, place in places.items() if isinstance(place, str)}


def types(template: Template) -> set[str]:
    """The types of a template's resources."""
    return {resource["Type"] for resource in template["Resources"].values()}


def lacking(template: Template) -> set[str]:
    """Those that moto's CloudFormation passes over."""
    return types(template) - {kind.cloudformation_type() for kind in CloudFormationModel.__subclasses__()}


# --- what moto lacks --------------------------------------------------------------------------------------------------


class Made(CloudFormationModel):
    """A resource that a maker has made; `physical_resource_id` is what `!Ref` gives."""

    kind = ""
    make: Callable[[Properties], Mapping[str, Any]]

    def __init__(self, identity: str, attributes: Mapping[str, Any]) -> None:
        self.physical_resource_id = identity
        self._attributes = attributes

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return True

    def get_cfn_attribute(self, name: str) -> Any:  # noqa: ANN401 - as moto has it
        return self._attributes.get(name, f"{self.physical_resource_id}.{name}")  # the latter of what is not made

    def is_created(self) -> bool:
        return True

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: object
    ) -> "Made":
        made = cls.make(cloudformation_json["Properties"])
        return cls(str(made.get("Ref", resource_name)), made)


class Nested(Made):
    """A stack in the stack; moto's own model does not tell its outputs."""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::CloudFormation::Stack"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: object
    ) -> "Made":
        properties, client = cloudformation_json["Properties"], boto3.client("cloudformation")
        given = [
            {"ParameterKey": key, "ParameterValue": text(value)} for key, value in properties["Parameters"].items()
        ]
        made = client.create_stack(StackName=resource_name, TemplateURL=properties["TemplateURL"], Parameters=given)
        (stack,) = client.describe_stacks(StackName=resource_name)["Stacks"]
        outputs = {f"Outputs.{one['OutputKey']}": one["OutputValue"] for one in stack.get("Outputs", ())}
        return cls(made["StackId"], outputs)


def text(value: object) -> str:
    """A parameter as CloudFormation passes it on."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def maker(kind: str, make: Callable[[Properties], Mapping[str, Any] | None]) -> type[CloudFormationModel]:
    """A model of that type for moto's CloudFormation."""
    members = {"cloudformation_type": staticmethod(lambda: kind), "make": staticmethod(lambda it: make(it) or {})}
    return type(kind.replace("::", ""), (Made,), members)


def telling(make: Callable[..., Any], told: list[str]) -> Callable[..., Any]:
    """moto's way to make a resource; what it raises is told with the logical id, since the server answers 500 alone."""

    def tell(logical: str, *more: Any, **named: Any) -> Any:  # noqa: ANN401 - moto's own
        try:
            return make(logical, *more, **named)
        except Exception as exc:
            told.append(f"{logical}: {type(exc).__name__}: {exc}")
            raise

    return tell


@contextmanager
def completed() -> Iterator[list[str]]:
    """moto's CloudFormation with the makers in it, while the context lasts; gives what went wrong in it."""
    made: dict[str, Any] = {kind: maker(kind, make) for kind, make in MAKERS.items()}
    made |= {kind: maker(kind, lambda _: None) for kind in UNMADE}  # moto would warn
    made["AWS::CloudFormation::Stack"] = Nested
    known = {**parsing.get_model_map(), **made}
    with pytest.MonkeyPatch.context() as patch:
        told: list[str] = []
        patch.setattr(parsing, "get_model_map", lambda: known)
        patch.setattr(parsing, "parse_and_create_resource", telling(parsing.parse_and_create_resource, told))
        yield told
