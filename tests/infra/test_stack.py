"""The stack comes into being on moto's CloudFormation, nested stacks and all, with what it promises in it."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from tests.conftest import aws_variables
from tests.infra.cloud import FILES, LACKING, MAKERS, UNMADE, completed, lacking, translated, types

EVERYTHING = {
    "Auth": "jwt",
    "JwtIssuer": "https://issuer.example.com",
    "JwtAudience": "pilotlight",
    "JwtKeyClaim": "plan",
    "AccessLogs": "create",
    "CodeDeployment": "Canary10Percent5Minutes",
    "ProvisionedConcurrency": "2",
    "ReservedConcurrency": "10",
    "DomainName": "models.example.com",
}


def code() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("handler.py", "handle = None")
    return content.getvalue()


@contextmanager
def deployed(**parameters: str) -> Iterator[dict[str, dict[str, Any]]]:
    """The outputs of the stack, and each logical id of all three with its resource."""
    s3, cloud = boto3.client("s3"), boto3.client("cloudformation")
    s3.create_bucket(Bucket="artifacts")
    s3.put_object(Bucket="artifacts", Key="code.zip", Body=code())
    for name in ("events", "training"):
        s3.put_object(Bucket="artifacts", Key=f"{name}.json", Body=json.dumps(translated(name, {})))
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    template = json.dumps(translated("api", parameters))
    with completed():
        cloud.create_stack(
            StackName="pilotlight", TemplateBody=template, Parameters=given, Capabilities=["CAPABILITY_IAM"]
        )
        yield found(cloud)


def found(cloud: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - boto3 ships no types
    resources = {}
    for stack in cloud.describe_stacks()["Stacks"]:
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        for one in cloud.list_stack_resources(StackName=stack["StackName"])["StackResourceSummaries"]:
            resources[one["LogicalResourceId"]] = one
    return resources


@pytest.fixture(scope="module")
def stack(weak_moto_url: str) -> Iterator[dict[str, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(weak_moto_url).items():
            patch.setenv(name, value)
        network = boto3.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = boto3.client("ec2").create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        rules = boto3.client("wafv2").create_web_acl(
            Name="rules", Scope="REGIONAL", DefaultAction={"Allow": {}},
            VisibilityConfig={"SampledRequestsEnabled": False, "CloudWatchMetricsEnabled": False, "MetricName": "m"},
        )["Summary"]["ARN"]  # fmt: skip
        certificate = boto3.client("acm").request_certificate(DomainName="models.example.com")["CertificateArn"]
        more = {"TrainingVpc": network, "TrainingSubnets": subnet, "WebAcl": rules, "Certificate": certificate}
        with deployed(**EVERYTHING, **more) as resources:
            yield resources


def test_it(stack):
    print(len(stack))
