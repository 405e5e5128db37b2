"""The stack comes into being on moto's CloudFormation, nested stacks and all, with what it promises in it."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
import httpx2
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from pilotlight.api.routes import SCOPES
from pilotlight.local import intrinsics
from tests.conftest import aws_variables
from tests.infra.cloud import FILES, LACKING, UNMADE, completed, lacking, nested, translated
from tests.infra.makers import MAKERS

Resources = Mapping[str, Mapping[str, Any]]  # by logical id, those of nested stacks as Events.Queue
Answer = Mapping[str, Any]

# Every parameter and setting at once, but for those that shut each other out.
JWT = {
    "Auth": "jwt", "JwtIssuer": "https://issuer.example.com", "JwtAudience": "pilotlight", "JwtKeyClaim": "plan",
}  # fmt: skip
MUCH = {
    **JWT,
    "AccessLogs": "create",
    "CodeDeployment": "Canary10Percent5Minutes",
    "ProvisionedConcurrency": "2",
    "ReservedConcurrency": "10",
    "PromoteConcurrency": "2",
    "DomainName": "models.example.com",
    "Architecture": "arm64",
    "RateLimit": "50",
    "BurstLimit": "100",
    "DailyQuota": "1000",
    "MonitoringLevel": "full",
}
PRIVATE = {"VpcEndpoint": "vpce-0123456789abcdef0", "SnapStart": "PublishedVersions"}


def code() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("handler.py", "handle = None")
    return content.getvalue()


@contextmanager
def deployed(name: str, **parameters: str) -> Iterator[Resources]:
    """A stack of that name with those parameters; its resources and those of the stacks in it."""
    s3, cloud = boto3.client("s3"), boto3.client("cloudformation")
    s3.create_bucket(Bucket="artifacts")
    s3.put_object(Bucket="artifacts", Key="code.zip", Body=code())
    for inner in nested().values():
        s3.put_object(Bucket="artifacts", Key=f"{inner}.json", Body=json.dumps(translated(inner, {})))
    template = translated("api", parameters)
    given = [
        {"ParameterKey": key, "ParameterValue": value}
        for key, value in parameters.items()
        if key in template["Parameters"]  # the rest are Settings of the template
    ]
    with completed() as told:
        try:
            cloud.create_stack(
                StackName=name, TemplateBody=json.dumps(template), Parameters=given, Capabilities=["CAPABILITY_IAM"]
            )
        except (ResponseParserError, ClientError) as exc:
            raise AssertionError(told[:1] or str(exc)) from None
        yield found(cloud, name)


def found(cloud: Any, name: str) -> Resources:  # noqa: ANN401 - boto3 ships no types
    resources = {}
    for stack in cloud.describe_stacks()["Stacks"]:
        if stack["StackName"].startswith(name):
            assert stack["StackStatus"] == "CREATE_COMPLETE", stack
            of = "".join(f"{inner}." for inner in nested() if f"-{inner}-" in stack["StackName"])
            for one in cloud.list_stack_resources(StackName=stack["StackName"])["StackResourceSummaries"]:
                resources[of + one["LogicalResourceId"]] = one
    return resources


@pytest.fixture(scope="module")
def aws(weak_moto_url: str) -> Iterator[None]:
    """moto as AWS; a server that lets the makers call it while it makes a stack."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(weak_moto_url).items():
            patch.setenv(name, value)
        yield
    httpx2.post(f"{weak_moto_url}/moto-api/reset")  # its rules would hear the events of later tests in this process


@pytest.fixture(scope="module")
def stack(aws: None) -> Iterator[Resources]:
    network = boto3.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = boto3.client("ec2").create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    seen = {"SampledRequestsEnabled": False, "CloudWatchMetricsEnabled": False, "MetricName": "m"}
    rules = boto3.client("wafv2").create_web_acl(
        Name="rules", Scope="REGIONAL", DefaultAction={"Allow": {}}, VisibilityConfig=seen
    )
    certificate = boto3.client("acm").request_certificate(DomainName="models.example.com")["CertificateArn"]
    more = {"TrainingVpc": network, "TrainingSubnets": subnet, "Certificate": certificate}
    with deployed("much", **MUCH, **more, WebAcl=rules["Summary"]["ARN"]) as resources:
        yield resources


@pytest.fixture(scope="module")
def private(aws: None) -> Iterator[Resources]:
    with deployed("private", **PRIVATE) as resources:
        yield resources


@pytest.fixture
def name(stack: Resources) -> Callable[[str], str]:
    """The physical id behind a logical one."""
    return lambda logical: str(stack[logical]["PhysicalResourceId"])


# --- how far moto goes ------------------------------------------------------------------------------------------------


def test_the_lists_of_what_moto_lacks_are_right() -> None:
    found = {kind for template in FILES for kind in lacking(translated(template, MUCH))}
    assert found == LACKING, "tests/infra/cloud.py: LACKING is out of date"
    assert LACKING - MAKERS.keys() == UNMADE


def test_everything_else_is_made(stack: Resources) -> None:
    """Whatever stands in the templates under no condition, or one that holds; a deployment's name is the day's."""
    holds = {"TrainingEnabled", "HasWebAcl", "HasDomain", "CreatesLogRole", "UsesAuthorizer", "UsesOwnImage", None}
    wanted = {
        prefix + logical
        for prefix, template in {"": "api", **{f"{inner}.": file for inner, file in nested().items()}}.items()
        for logical, resource in translated(template, MUCH).get("Resources", {}).items()
        if resource["Type"] not in {*UNMADE, "AWS::ApiGateway::Deployment"} and resource.get("Condition") in holds
    }
    assert wanted - stack.keys() == set()


# --- rights -----------------------------------------------------------------------------------------------------------

FUNCTIONS = ("PredictFunction", "ModelsFunction", "PromoteFunction", "AuthorizeFunction", "Events.BatchFunction")


def test_each_function_has_a_role_of_its_own(name: Callable[[str], str]) -> None:
    client = boto3.client("lambda")
    roles = [client.get_function_configuration(FunctionName=name(each))["Role"] for each in FUNCTIONS]
    assert len(set(roles)) == len(FUNCTIONS)
    assert all(name(f"{each}Role") in role for each, role in zip(FUNCTIONS, roles, strict=True))


def test_the_authorizer_may_read_keys_and_nothing_else(name: Callable[[str], str]) -> None:
    role = translated("api", JWT)["Resources"]["AuthorizeFunctionRole"]["Properties"]
    assert role["ManagedPolicyArns"] == ["arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"]
    assert len(boto3.client("iam").list_role_policies(RoleName=name("AuthorizeFunctionRole"))["PolicyNames"]) == 1
    (policy,) = role["Policies"]
    statements = [one for one in policy["PolicyDocument"]["Statement"] if "Fn::If" not in one]  # the key of the data
    allowed = {one["Action"]: one["Resource"] for one in statements}
    assert set(allowed) == {"s3:GetObject", "s3:ListBucket"}
    assert allowed["s3:GetObject"] == {"Fn::Sub": "${ModelBucket.Arn}/keys/*"}


def test_functions_run_on_the_processors_that_were_asked_for() -> None:
    for parameters, processors in (({}, ["x86_64"]), (MUCH, ["arm64"])):
        for logical in FUNCTIONS[:-1]:
            assert decided(logical, **parameters)["Properties"]["Architectures"] == processors, logical
    for template, count in (("api", 3), ("events", 2)):
        layers = [one for one in translated(template, {})["Resources"].values() if "LayerVersion" in one["Type"]]
        assert [one["Properties"]["CompatibleArchitectures"] for one in layers] == [[{"Ref": "Architecture"}]] * count
    function = translated("events", {})["Resources"]["BatchFunction"]["Properties"]
    assert function["Architectures"] == [{"Ref": "Architecture"}]
    assert translated("api", {})["Resources"]["Events"]["Properties"]["Parameters"]["Architecture"] == {
        "Ref": "Architecture"
    }


def test_who_calls_a_function_is_named(name: Callable[[str], str]) -> None:
    policy = json.loads(boto3.client("lambda").get_policy(FunctionName=name("AuthorizeFunction"))["Policy"])
    (statement,) = policy["Statement"]
    assert statement["Principal"] in ("apigateway.amazonaws.com", {"Service": "apigateway.amazonaws.com"})
    assert f"{name('Api')}/authorizers/*" in json.dumps(statement)


# --- data -------------------------------------------------------------------------------------------------------------


def test_the_bucket_is_as_it_must_be(name: Callable[[str], str]) -> None:
    s3, bucket = boto3.client("s3"), name("ModelBucket")
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    over_tls, once = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert (over_tls["Effect"], over_tls["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert (once["Effect"], once["Principal"], once["Action"]) == ("Deny", "*", "s3:PutObject")
    assert all(bucket in json.dumps(one["Resource"]) for one in (over_tls, once))
    resource = decided("ModelBucket")  # moto's CloudFormation leaves out the rest
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert resource["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    assert list(resource["Properties"]["PublicAccessBlockConfiguration"].values()) == [True] * 4
    assert resource["Properties"]["NotificationConfiguration"] == {
        "EventBridgeConfiguration": {"EventBridgeEnabled": True}
    }


def test_messages_that_fail_lie_in_the_dead_letters(name: Callable[[str], str]) -> None:
    sqs = boto3.client("sqs")
    queue = sqs.get_queue_attributes(QueueUrl=name("Events.Queue"), AttributeNames=["All"])["Attributes"]
    dead = sqs.get_queue_attributes(QueueUrl=name("Events.DeadLetters"), AttributeNames=["All"])["Attributes"]
    assert json.loads(queue["RedrivePolicy"])["deadLetterTargetArn"] == dead["QueueArn"]
    for attributes in (queue, dead):
        assert "aws:SecureTransport" in attributes["Policy"]
    (mapping,) = boto3.client("lambda").list_event_source_mappings(FunctionName=name("Events.BatchFunction"))[
        "EventSourceMappings"
    ]
    assert mapping["EventSourceArn"] == queue["QueueArn"]
    assert mapping["BatchSize"] == 10


def test_logs_forget(stack: Resources) -> None:
    own = {one["PhysicalResourceId"] for one in stack.values() if one["ResourceType"] == "AWS::Logs::LogGroup"}
    pages = boto3.client("logs").get_paginator("describe_log_groups").paginate()
    groups = [group for page in pages for group in page["logGroups"] if group["logGroupName"] in own]
    kept = {group["logGroupName"]: group.get("retentionInDays") for group in groups}
    assert kept.keys() == own
    assert None not in kept.values()
    assert len(kept) >= len(FUNCTIONS)


# --- the API ----------------------------------------------------------------------------------------------------------


def methods(api: str) -> dict[str, Answer]:
    client = boto3.client("apigateway")
    items = client.get_resources(restApiId=api, limit=500)["items"]
    return {
        item["path"]: client.get_method(restApiId=api, resourceId=item["id"], httpMethod="ANY")
        for item in items
        if "ANY" in item.get("resourceMethods", {})
    }


def test_every_route_asks_the_authorizer_and_counts_by_its_key(name: Callable[[str], str]) -> None:
    client, api = boto3.client("apigateway"), name("Api")
    (authorizer,) = client.get_authorizers(restApiId=api)["items"]
    assert authorizer["authorizerUri"].endswith("/invocations")
    found = methods(api)
    assert set(found) == set(SCOPES)
    for path, method in found.items():
        assert (method["authorizationType"], method["authorizerId"]) == ("CUSTOM", authorizer["id"]), path
        assert method["apiKeyRequired"]
        assert "functions/arn:aws:lambda:" in method["methodIntegration"]["uri"]
    assert client.get_rest_api(restApiId=api)["apiKeySource"] == "AUTHORIZER"


def test_without_options_the_authorizer_is_asked_each_time_and_says_who_meters(private: Resources) -> None:
    api = str(private["Api"]["PhysicalResourceId"])
    (authorizer,) = boto3.client("apigateway").get_authorizers(restApiId=api)["items"]
    assert (authorizer["type"], authorizer["authorizerResultTtlInSeconds"]) == ("REQUEST", 0)
    assert not authorizer.get("identitySource")
    for path, method in methods(api).items():
        assert (method["authorizationType"], method["authorizerId"]) == ("CUSTOM", authorizer["id"]), path
        assert method["apiKeyRequired"], path
    assert boto3.client("apigateway").get_rest_api(restApiId=api)["apiKeySource"] == "AUTHORIZER"


def test_callers_are_throttled_by_the_meter_that_the_authorizer_names(name: Callable[[str], str]) -> None:
    client = boto3.client("apigateway")
    plan = client.get_usage_plan(usagePlanId=name("Gateway.Plan"))
    assert (plan["throttle"]["rateLimit"], plan["throttle"]["burstLimit"]) == (50, 100)
    assert (plan["quota"]["limit"], plan["quota"]["period"]) == (1000, "DAY")
    assert [key["id"] for key in client.get_usage_plan_keys(usagePlanId=plan["id"])["items"]] == [
        name("Gateway.MeterKey")
    ]
    value = client.get_api_key(apiKey=name("Gateway.MeterKey"), includeValue=True)["value"]
    function = boto3.client("lambda").get_function_configuration(FunctionName=name("AuthorizeFunction"))
    assert function["Environment"]["Variables"]["PILOTLIGHT_METER"] == value
    assert re.fullmatch("[a-z0-9]{20,128}", value)


def test_errors_of_the_gateway_have_our_words(name: Callable[[str], str]) -> None:
    client = boto3.client("apigateway")
    said = client.get_gateway_response(restApiId=name("Api"), responseType="UNAUTHORIZED")
    assert said["statusCode"] == "401"
    assert said["responseParameters"] == {"gatewayresponse.header.WWW-Authenticate": "'Bearer'"}
    large = client.get_gateway_response(restApiId=name("Api"), responseType="REQUEST_TOO_LARGE")
    assert "10,485,760 bytes" in json.loads(large["responseTemplates"]["application/json"])["message"]


def test_the_firewall_stands_before_the_stage(name: Callable[[str], str]) -> None:
    arn = f"arn:aws:apigateway:us-east-1::/restapis/{name('Api')}/stages/prod"
    assert boto3.client("wafv2").get_web_acl_for_resource(ResourceArn=arn)["WebACL"]["Name"] == "rules"


def test_the_domain_leads_to_the_stage(name: Callable[[str], str]) -> None:
    client = boto3.client("apigateway")
    assert client.get_domain_name(domainName="models.example.com")["securityPolicy"] == "TLS_1_2"
    (mapping,) = client.get_base_path_mappings(domainName="models.example.com")["items"]
    assert (mapping["restApiId"], mapping["stage"]) == (name("Api"), "prod")


def test_a_private_api_is_private(private: Resources, stack: Resources) -> None:
    client = boto3.client("apigateway")
    found = client.get_rest_api(restApiId=str(private["Api"]["PhysicalResourceId"]))
    assert found["endpointConfiguration"]["types"] == ["PRIVATE"]
    assert found["endpointConfiguration"]["vpcEndpointIds"] == [PRIVATE["VpcEndpoint"]]
    assert PRIVATE["VpcEndpoint"] in found["policy"]
    public = client.get_rest_api(restApiId=str(stack["Api"]["PhysicalResourceId"]))
    assert public["endpointConfiguration"]["types"] == ["REGIONAL"]
    assert "Gateway.Firewall" not in private
    assert "AuthorizeFunction" in private


# --- code that takes over ---------------------------------------------------------------------------------------------


def decided(logical: str, **parameters: str) -> Answer:
    """A resource of the translated template with these parameters, as CloudFormation decides its conditions."""
    template = translated("api", parameters)
    declared = {key: value.get("Default", "") for key, value in template["Parameters"].items()} | parameters
    template = intrinsics.look_up_mappings(template, declared)
    conditions = intrinsics.evaluate_conditions(template, declared)
    answer: Answer = intrinsics.resolve_intrinsics(template["Resources"][logical], declared, conditions)
    return answer


def test_snapstart_is_for_published_versions(private: Resources) -> None:
    assert decided("PredictFunction", **PRIVATE)["Properties"]["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert decided("PredictFunction")["Properties"]["SnapStart"] == {"ApplyOn": "None"}
    assert "PredictFunctionAliaslive" in private  # which leads to a version, as SnapStart wants


def test_environments_are_kept_started_where_that_is_asked_for(stack: Resources, name: Callable[[str], str]) -> None:
    kept = decided("PredictFunctionAliaslive", **MUCH)["Properties"]["ProvisionedConcurrencyConfig"]
    assert kept == {"ProvisionedConcurrentExecutions": "2"}
    assert "ProvisionedConcurrencyConfig" not in decided("PredictFunctionAliaslive")["Properties"]
    reserved = boto3.client("lambda").get_function_concurrency(FunctionName=name("PredictFunction"))
    assert int(reserved["ReservedConcurrentExecutions"]) == 10


def test_nothing_is_reserved_unasked_since_a_new_account_has_nothing_to_reserve() -> None:
    for function in ("PredictFunction", "PromoteFunction"):
        assert "ReservedConcurrentExecutions" not in decided(function)["Properties"]
    assert decided("PromoteFunction", **MUCH)["Properties"]["ReservedConcurrentExecutions"] == "2"


def test_requests_go_to_the_alias_that_new_code_takes_over(name: Callable[[str], str]) -> None:
    uri = methods(name("Api"))["/v2/models/{model}/infer"]["methodIntegration"]["uri"]
    assert name("PredictFunctionAliaslive") in uri
    assert name("PredictFunctionAliaslive").endswith(":live")


def test_new_code_takes_over_slowly_and_is_taken_back_on_the_alarm(name: Callable[[str], str]) -> None:
    group = boto3.client("codedeploy").get_deployment_group(
        applicationName=name("ServerlessDeploymentApplication"), deploymentGroupName="predict"
    )["deploymentGroupInfo"]
    assert group["deploymentConfigName"] == "CodeDeployDefault.LambdaCanary10Percent5Minutes"
    assert group["autoRollbackConfiguration"]["enabled"]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["autoRollbackConfiguration"]["events"]
    watched = decided("PredictFunctionDeploymentGroup", **MUCH)["Properties"]["AlarmConfiguration"]
    assert str(watched["Alarms"][0]["Name"]) == str(
        intrinsics.UnresolvedValue("!GetAtt ['Alarms', 'Outputs.CodeAlarm']")
    )
    policy = decided("PredictFunctionAliaslive", **MUCH)["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert "ServerlessDeploymentApplication" in str(policy["ApplicationName"])


def test_the_alarm_counts_failures_of_the_predict_function(name: Callable[[str], str]) -> None:
    (alarm,) = boto3.client("cloudwatch").describe_alarms(AlarmNames=[name("Alarms.PredictFailures")])["MetricAlarms"]
    assert alarm["Dimensions"] == [{"Name": "FunctionName", "Value": name("PredictFunction")}]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/Lambda", "Errors")


# --- training ---------------------------------------------------------------------------------------------------------


def test_jobs_wait_for_spot_machines_first(name: Callable[[str], str]) -> None:
    batch = boto3.client("batch")
    (queue,) = batch.describe_job_queues(jobQueues=[name("Training.Queue")])["jobQueues"]
    order = sorted(queue["computeEnvironmentOrder"], key=lambda one: one["order"])
    assert [one["computeEnvironment"] for one in order] == [
        name("Training.SpotMachines"),
        name("Training.OnDemandMachines"),
    ]
    found = batch.describe_compute_environments(computeEnvironments=[name("Training.SpotMachines")])
    machines = found["computeEnvironments"][0]["computeResources"]
    assert (machines["type"], machines["minvCpus"]) == ("SPOT", 0)
