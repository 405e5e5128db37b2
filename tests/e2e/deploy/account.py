"""Everything that an account has in a region, as its own services list it."""

from collections.abc import Callable, Iterator
from typing import Any

import boto3

Listed = Iterator[str]
OF_SAM = "aws-sam-cli-managed-default"  # the stack of the bucket to which every `sam deploy` of the account uploads


def list_resources() -> set[str]:
    """List what stacks can create, each as its service and name, but for the stacks' own records."""
    found = {f"{kind} {name}" for kind, listed in LISTINGS.items() for name in listed()}
    return {one for one in found if OF_SAM not in one}


def _names(service: str, operation: str, items: str, name: str, **asked: Any) -> Callable[[], Listed]:  # noqa: ANN401
    """List all pages of an operation; items and name are keys of its answer."""

    def list_names() -> Listed:
        client = boto3.client(service)
        pages = (
            client.get_paginator(operation).paginate(**asked)
            if client.can_paginate(operation)
            else [getattr(client, operation)(**asked)]
        )
        for page in pages:
            for item in page.get(items) or []:
                yield item[name] if name else item

    return list_names


def _list_versions() -> Listed:
    for name in _names("lambda", "list_functions", "Functions", "FunctionName")():
        for version in boto3.client("lambda").list_versions_by_function(FunctionName=name)["Versions"]:
            if version["Version"] != "$LATEST":
                yield version["FunctionArn"]


def _list_layer_versions() -> Listed:
    for name in _names("lambda", "list_layers", "Layers", "LayerName")():
        for version in boto3.client("lambda").list_layer_versions(LayerName=name)["LayerVersions"]:
            yield version["LayerVersionArn"]


def _list_queues() -> Listed:
    for url in _names("sqs", "list_queues", "QueueUrls", "")():
        yield url.rpartition("/")[2]


LISTINGS: dict[str, Callable[[], Listed]] = {
    "function": _names("lambda", "list_functions", "Functions", "FunctionName"),
    "function version": _list_versions,
    "layer": _list_layer_versions,
    "event source mapping": _names("lambda", "list_event_source_mappings", "EventSourceMappings", "UUID"),
    "role": _names("iam", "list_roles", "Roles", "RoleName"),
    "policy": _names("iam", "list_policies", "Policies", "Arn", Scope="Local"),
    "instance profile": _names("iam", "list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
    "log group": _names("logs", "describe_log_groups", "logGroups", "logGroupName"),
    "metric filter": _names("logs", "describe_metric_filters", "metricFilters", "filterName"),
    "rule": _names("events", "list_rules", "Rules", "Name"),
    "queue": _list_queues,
    "topic": _names("sns", "list_topics", "Topics", "TopicArn"),
    "alarm": _names("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    "dashboard": _names("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    "state machine": _names("stepfunctions", "list_state_machines", "stateMachines", "name"),
    "API": _names("apigateway", "get_rest_apis", "items", "id"),
    "API key": _names("apigateway", "get_api_keys", "items", "id"),
    "usage plan": _names("apigateway", "get_usage_plans", "items", "id"),
    "domain": _names("apigateway", "get_domain_names", "items", "domainName"),
    "bucket": _names("s3", "list_buckets", "Buckets", "Name"),
    "image repository": _names("ecr", "describe_repositories", "repositories", "repositoryName"),
    "configuration": _names("appconfig", "list_applications", "Items", "Name"),
    "launch template": _names("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateName"),
    "security group": _names("ec2", "describe_security_groups", "SecurityGroups", "GroupId"),
}
