"""Tenants: each a stack of its own, with a key and limits that nobody else has."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from cfnlint.decode import cfn_yaml

from tests.conftest import aws_variables
from tests.infra.cloud import ROOT, completed

TEMPLATE: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(ROOT / "infra" / "tenant.yaml"))))


@pytest.fixture
def api(weak_moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An API with a stage, to which tenants come."""
    for name, value in aws_variables(weak_moto_url).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("apigateway")
    made = client.create_rest_api(name="pilotlight")["id"]
    root = client.get_resources(restApiId=made)["items"][0]["id"]
    client.put_method(restApiId=made, resourceId=root, httpMethod="ANY", authorizationType="NONE")
    client.put_integration(restApiId=made, resourceId=root, httpMethod="ANY", type="MOCK")
    client.create_deployment(restApiId=made, stageName="prod")
    with completed():
        yield made


def arrive(tenant: str, api: str, **more: str) -> dict[str, str]:
    """The outputs of a new tenant's stack."""
    client = boto3.client("cloudformation")
    given = {"Tenant": tenant, "Api": api, **more}
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    client.create_stack(StackName=f"tenant-{tenant}", TemplateBody=json.dumps(TEMPLATE), Parameters=parameters)
    (stack,) = client.describe_stacks(StackName=f"tenant-{tenant}")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def test_tenants_have_keys_and_limits_of_their_own(api: str) -> None:
    client = boto3.client("apigateway")
    acme = arrive("acme", api, RateLimit="5", BurstLimit="7", Quota="1000", QuotaPeriod="DAY")
    other = arrive("other", api)
    plans = [client.get_usage_plan(usagePlanId=tenant["Plan"]) for tenant in (acme, other)]
    assert [plan["throttle"] for plan in plans] == [
        {"rateLimit": 5.0, "burstLimit": 7}, {"rateLimit": 50.0, "burstLimit": 100},
    ]  # fmt: skip
    assert [(plan["quota"]["limit"], plan["quota"]["period"]) for plan in plans] == [(1000, "DAY"), (1000000, "MONTH")]
    for tenant, name in ((acme, "acme"), (other, "other")):
        (key,) = client.get_usage_plan_keys(usagePlanId=tenant["Plan"])["items"]
        assert (key["id"], key["name"]) == (tenant["Key"], name)
        assert client.get_usage_plan(usagePlanId=tenant["Plan"])["apiStages"] == [{"apiId": api, "stage": "prod"}]
    values = [client.get_api_key(apiKey=tenant["Key"], includeValue=True)["value"] for tenant in (acme, other)]
    assert len(set(values)) == 2


def test_a_key_may_be_given_and_a_tenant_locked_out(api: str) -> None:
    made = arrive("late", api, KeyValue="k" * 20, Enabled="false")
    key = boto3.client("apigateway").get_api_key(apiKey=made["Key"], includeValue=True)
    assert (key["value"], key["enabled"]) == ("k" * 20, False)


def test_the_key_is_nowhere_to_be_read() -> None:
    assert TEMPLATE["Parameters"]["KeyValue"]["NoEcho"] is True
    assert "KeyValue" not in json.dumps(TEMPLATE["Outputs"])
