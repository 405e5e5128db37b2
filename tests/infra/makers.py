"""What moto's CloudFormation lacks of our stacks, made by the calls that AWS itself offers: a function for each type.

Each takes a resource's properties and gives what its `!Ref` and `!GetAtt` say, where somebody asks.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import boto3

Properties = Mapping[str, Any]


def lower(properties: Properties, *names: str) -> dict[str, Any]:
    """Properties as the arguments of API Gateway's calls: `ApiStages` is `apiStages` there."""
    return {name[0].lower() + name[1:]: deeper(properties[name]) for name in names if name in properties}


def deeper(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, list):
        return [deeper(item) for item in value]
    if isinstance(value, dict):
        return {name[0].lower() + name[1:]: deeper(item) for name, item in value.items()}
    return value


def rest_api(properties: Properties) -> Mapping[str, Any]:
    """An API as its document says; moto's own model forgets the document, which is all that ours has."""
    document, client = properties["Body"], boto3.client("apigateway")
    made = client.create_rest_api(
        name=document["info"]["title"],
        apiKeySource=document["x-amazon-apigateway-api-key-source"],
        endpointConfiguration=deeper(properties["EndpointConfiguration"]),
        binaryMediaTypes=[str(kind).replace("~1", "/") for kind in document["x-amazon-apigateway-binary-media-types"]],
        policy=json.dumps(document.get("x-amazon-apigateway-policy", {})),
    )
    authorizers = dict(made_authorizers(client, made["id"], document))
    for path, item in document["paths"].items():
        method(client, made["id"], path, item["x-amazon-apigateway-any-method"], authorizers)
    for kind, response in document["x-amazon-apigateway-gateway-responses"].items():
        more = {name: response[name] for name in ("responseTemplates", "responseParameters") if response.get(name)}
        status = {"statusCode": str(response["statusCode"])} if "statusCode" in response else {}
        client.put_gateway_response(restApiId=made["id"], responseType=kind, **status, **more)
    return {"Ref": made["id"]}


def made_authorizers(client: Any, api: str, document: Properties) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - boto3
    """The names of security schemes with the ids of their authorizers."""
    for name, scheme in document["components"]["securitySchemes"].items():
        if found := scheme.get("x-amazon-apigateway-authorizer"):
            validated = found.get("identityValidationExpression")  # of a TOKEN authorizer
            source = f"method.request.header.{scheme['name']}" if validated else found.get("identitySource")
            authorizer = client.create_authorizer(
                restApiId=api,
                name=name,
                type=found["type"].upper(),
                authorizerUri=found["authorizerUri"],
                authorizerResultTtlInSeconds=int(found["authorizerResultTtlInSeconds"]),
                **({"identityValidationExpression": validated} if validated else {}),
                **({"identitySource": source} if source else {}),
            )
            yield name, authorizer["id"]


def method(client: Any, api: str, path: str, said: Properties, authorizers: Mapping[str, str]) -> None:  # noqa: ANN401
    """The resource of a path, with its one method and where it leads."""
    place = {"restApiId": api, "resourceId": resource(client, api, path), "httpMethod": "ANY"}
    needs = {name for need in said["security"] for name in need or ()}  # moto leaves None of AWS::NoValue in a list
    kind = "CUSTOM" if needs & authorizers.keys() else "AWS_IAM" if "signature" in needs else "NONE"
    client.put_method(
        **place,
        authorizationType=kind,
        apiKeyRequired="meter" in needs,
        authorizerId=next((authorizers[name] for name in needs & authorizers.keys()), ""),
    )
    leads = said["x-amazon-apigateway-integration"]
    client.put_integration(**place, type="AWS_PROXY", integrationHttpMethod=leads["httpMethod"], uri=leads["uri"])


def resource(client: Any, api: str, path: str) -> str:  # noqa: ANN401 - boto3
    """The id of a path's resource, made with those above it where it is not there."""
    known = {item["path"]: item["id"] for item in client.get_resources(restApiId=api, limit=500)["items"]}
    if path in known:
        return str(known[path])
    above, _, part = path.rpartition("/")
    parent = resource(client, api, above or "/")
    return str(client.create_resource(restApiId=api, parentId=parent, pathPart=part)["id"])


def deployment(properties: Properties) -> Mapping[str, Any]:
    return {"Ref": boto3.client("apigateway").create_deployment(restApiId=properties["RestApiId"])["id"]}


def stage(properties: Properties) -> Mapping[str, Any]:
    names = ("RestApiId", "StageName", "DeploymentId", "TracingEnabled")
    made = boto3.client("apigateway").create_stage(**lower(properties, *names))
    return {"Ref": made["stageName"]}


def usage_plan(properties: Properties) -> Mapping[str, Any]:
    arguments = lower(properties, "ApiStages", "Throttle", "Quota", "Description")
    for name in {"throttle", "quota"} & arguments.keys():  # a parameter's number is a text here
        arguments[name] = {key: int(value) if key != "period" else value for key, value in arguments[name].items()}
    made = boto3.client("apigateway").create_usage_plan(name=properties.get("UsagePlanName", "plan"), **arguments)
    return {"Ref": made["id"]}


def api_key(properties: Properties) -> Mapping[str, Any]:
    arguments = lower(properties, "Name", "Enabled", "Value", "Description")
    made = boto3.client("apigateway").create_api_key(**{"name": "first", **arguments})
    return {"Ref": made["id"], "APIKeyId": made["id"]}


def usage_plan_key(properties: Properties) -> None:
    boto3.client("apigateway").create_usage_plan_key(**lower(properties, "KeyId", "KeyType", "UsagePlanId"))


def domain(properties: Properties) -> Mapping[str, Any]:
    arguments = lower(properties, "DomainName", "RegionalCertificateArn", "SecurityPolicy", "EndpointConfiguration")
    made = boto3.client("apigateway").create_domain_name(**arguments)
    return {"Ref": made["domainName"], "RegionalDomainName": made.get("regionalDomainName", "d-1.example.com")}


def base_path(properties: Properties) -> None:
    boto3.client("apigateway").create_base_path_mapping(**lower(properties, "DomainName", "RestApiId", "Stage"))


def version(properties: Properties) -> Mapping[str, Any]:
    """Moto's own model does not know its number."""
    made = boto3.client("lambda").publish_version(FunctionName=properties["FunctionName"])
    return {"Ref": made["FunctionArn"], "Version": made["Version"]}


def alias(properties: Properties) -> Mapping[str, Any]:
    arguments = {name: properties[name] for name in ("FunctionName", "FunctionVersion", "Name")}
    return {"Ref": boto3.client("lambda").create_alias(**arguments)["AliasArn"]}


def settings_application(properties: Properties) -> Mapping[str, Any]:
    return {"Ref": boto3.client("appconfig").create_application(Name=properties["Name"])["Id"]}


def settings_profile(properties: Properties) -> Mapping[str, Any]:
    arguments = {name: properties[name] for name in ("ApplicationId", "Name", "LocationUri")}
    return {"Ref": boto3.client("appconfig").create_configuration_profile(**arguments)["Id"]}


def settings_version(properties: Properties) -> Mapping[str, Any]:
    arguments = {name: properties[name] for name in ("ApplicationId", "ConfigurationProfileId", "ContentType")}
    content = properties["Content"].encode()
    made = boto3.client("appconfig").create_hosted_configuration_version(**arguments, Content=content)
    return {"Ref": str(made["VersionNumber"])}


def bucket_policy(properties: Properties) -> None:
    policy = json.dumps(properties["PolicyDocument"])
    boto3.client("s3").put_bucket_policy(Bucket=properties["Bucket"], Policy=policy)


def queue_policy(properties: Properties) -> None:
    for url in properties["Queues"]:
        attributes = {"Policy": json.dumps(properties["PolicyDocument"])}
        boto3.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=attributes)


def alarm(properties: Properties) -> Mapping[str, Any]:
    arguments = dict(properties)
    name = arguments.setdefault("AlarmName", f"alarm-{uuid4().hex}")
    for whole in ("Period", "EvaluationPeriods", "DatapointsToAlarm"):
        arguments |= {whole: int(arguments[whole])} if whole in arguments else {}
    arguments |= {"Threshold": float(arguments["Threshold"])} if "Threshold" in arguments else {}
    boto3.client("cloudwatch").put_metric_alarm(**arguments)
    return {"Ref": name, "Arn": f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"}


def topic_policy(properties: Properties) -> None:
    for topic in properties["Topics"]:
        policy = json.dumps(properties["PolicyDocument"])
        boto3.client("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)


def topic_subscription(properties: Properties) -> Mapping[str, Any]:
    arguments = {key: properties[key] for key in ("TopicArn", "Protocol", "Endpoint")}
    return {"Ref": boto3.client("sns").subscribe(**arguments)["SubscriptionArn"]}


def subscription(properties: Properties) -> None:
    boto3.client("logs").put_subscription_filter(
        logGroupName=properties["LogGroupName"],
        filterName="promoter",
        filterPattern=properties["FilterPattern"],
        destinationArn=properties["DestinationArn"],
    )


def application(properties: Properties) -> Mapping[str, Any]:
    name = properties.get("ApplicationName", f"application-{uuid4().hex}")
    boto3.client("codedeploy").create_application(applicationName=name, computePlatform=properties["ComputePlatform"])
    return {"Ref": name}


def deployment_group(properties: Properties) -> Mapping[str, Any]:
    arguments = lower(
        properties,
        "ApplicationName",
        "AutoRollbackConfiguration",
        "DeploymentConfigName",
        "DeploymentStyle",
        "AlarmConfiguration",
    )
    arguments["serviceRoleArn"] = properties["ServiceRoleArn"]
    boto3.client("codedeploy").create_deployment_group(deploymentGroupName="predict", **arguments)
    return {"Ref": "predict"}


def machines(properties: Properties) -> Mapping[str, Any]:
    """A compute environment; moto asks for the role that AWS Batch has by itself."""
    iam, batch = boto3.client("iam"), boto3.client("batch")
    number = len(batch.describe_compute_environments()["computeEnvironments"])
    role = iam.create_role(RoleName=f"AWSServiceRoleForBatch-{number}", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    resources = lower(properties, "ComputeResources")["computeResources"]
    del resources["updateToLatestImageVersion"]  # of CloudFormation's, and of the call that updates
    for name in ("instanceTypes", "subnets"):  # moto leaves the default of a CommaDelimitedList as it is
        resources[name] = ",".join([resources[name]] if isinstance(resources[name], str) else resources[name]).split(
            ","
        )
    made = batch.create_compute_environment(
        computeEnvironmentName=f"machines-{number}", type="MANAGED", computeResources=resources, serviceRole=role
    )
    return {"Ref": made["computeEnvironmentArn"]}


def job(properties: Properties) -> Mapping[str, Any]:
    """A job definition, for one node or several; moto's own model knows the former."""
    arguments = lower(properties, "Type", "RetryStrategy", "Timeout", "ContainerProperties", "NodeProperties")
    arguments["parameters"] = properties.get("Parameters", {})
    for container in containers(arguments):  # CloudFormation makes texts of numbers, moto numbers of texts
        container["command"] = [str(word) for word in container["command"]]
        for need in container["resourceRequirements"]:
            need["value"] = str(need["value"])
    made = boto3.client("batch").register_job_definition(jobDefinitionName=f"job-{arguments['type']}", **arguments)
    return {"Ref": made["jobDefinitionArn"]}


def containers(job: Properties) -> Iterator[dict[str, Any]]:
    if "containerProperties" in job:
        yield job["containerProperties"]
    for nodes in job.get("nodeProperties", {}).get("nodeRangeProperties", []):
        yield nodes["container"]


def firewall(properties: Properties) -> None:
    boto3.client("wafv2").associate_web_acl(WebACLArn=properties["WebACLArn"], ResourceArn=properties["ResourceArn"])


MAKERS: dict[str, Callable[[Properties], Mapping[str, Any] | None]] = {
    "AWS::ApiGateway::RestApi": rest_api,
    "AWS::ApiGateway::Deployment": deployment,
    "AWS::ApiGateway::Stage": stage,
    "AWS::ApiGateway::UsagePlan": usage_plan,
    "AWS::ApiGateway::ApiKey": api_key,
    "AWS::ApiGateway::UsagePlanKey": usage_plan_key,
    "AWS::ApiGateway::DomainName": domain,
    "AWS::ApiGateway::BasePathMapping": base_path,
    "AWS::AppConfig::Application": settings_application,
    "AWS::AppConfig::ConfigurationProfile": settings_profile,
    "AWS::AppConfig::HostedConfigurationVersion": settings_version,
    "AWS::Batch::ComputeEnvironment": machines,
    "AWS::Batch::JobDefinition": job,
    "AWS::CloudWatch::Alarm": alarm,
    "AWS::SNS::Subscription": topic_subscription,
    "AWS::SNS::TopicPolicy": topic_policy,
    "AWS::CodeDeploy::Application": application,
    "AWS::CodeDeploy::DeploymentGroup": deployment_group,
    "AWS::Lambda::Version": version,
    "AWS::Lambda::Alias": alias,
    "AWS::Logs::SubscriptionFilter": subscription,
    "AWS::S3::BucketPolicy": bucket_policy,
    "AWS::SQS::QueuePolicy": queue_policy,
    "AWS::WAFv2::WebACLAssociation": firewall,
}
