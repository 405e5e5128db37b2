"""A stack of CloudFormation: its state and outputs, its resources with those of nested stacks, and why it failed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pilotlight.deployment.aws_clients import translate_aws_errors
from pilotlight.errors import InvalidInputError, NotFoundError, PilotlightError

# CloudFormation takes 128 characters; the state machine in the nested stack Events is called after it, and takes 80.
STACK_NAME_PATTERN = r"[A-Za-z][A-Za-z0-9-]{0,51}"
STACK_TYPE = "AWS::CloudFormation::Stack"
OWN_PARAMETERS = {"Auth", "ModelMemory", "Promotion"}  # by which a stack is known to be Pilotlight's
UNMADE = "REVIEW_IN_PROGRESS"  # the state of a stack whose first change was never carried out
ROLLED_BACK = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"}  # after a first deploy that failed
VERBS = {"CREATE": "created", "UPDATE": "updated", "DELETE": "deleted"}
CANCELLED = re.compile(r"(resource|operation) (creation|update|deletion)?\s*cancell?ed", re.IGNORECASE)
# How CloudFormation wraps the reason of a service: in quotes, then with ids for AWS's support.
WRAPPING = re.compile(r'^Resource handler returned message: "(?P<said>.*?)"? ?\(RequestToken: .*$', re.DOTALL)
REQUEST_IDS = re.compile(r"\s*\(Service: [^()]*(\([^()]*\)[^()]*)*\)")
HINTS = {
    "CloudWatch Logs role ARN must be set": "Deploy with --parameter AccessLogs=create, or off.",
    "below its minimum value": "Ask for more in Service Quotas: Lambda, Concurrent executions.",
    "is not authorized to perform": "Deploy with credentials that may create all that the stack has.",
}
BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class CloudFormationStack:
    """A stack as CloudFormation describes it."""

    name: str
    id: str
    status: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def is_ours(self) -> bool:
        """Return whether it is a stack of Pilotlight, or one that has come to nothing yet."""
        return self.parameters.keys() >= OWN_PARAMETERS or self.status == UNMADE

    @property
    def is_busy(self) -> bool:
        """Return whether somebody is changing it."""
        return self.status.endswith("_IN_PROGRESS") and self.status != UNMADE


@dataclass(frozen=True)
class DeployedResource:
    """A resource of a stack or of one nested in it; `stack` is the id of that one."""

    logical_id: str
    physical_id: str
    type: str
    stack: str


@dataclass(frozen=True)
class StackEvent:
    """A change of a resource's state; `at` by AWS's clock."""

    at: datetime
    stack: str  # the id of the stack in which it is
    logical_id: str
    physical_id: str
    type: str
    status: str
    reason: str


def is_stack_name(text: str) -> bool:
    """Return whether a text has the form of a stack's name."""
    return re.fullmatch(STACK_NAME_PATTERN, text) is not None


def check_stack_name(name: str) -> str:
    """Return the name, or raise `InvalidInputError` for what is no name of a stack."""
    if not is_stack_name(name):
        raise InvalidInputError(f"{name!r} is no name of a stack: 1 to 52 of A-Z a-z 0-9 -, the first a letter.")
    return name


def find_stack(cloudformation: Any, name: str) -> CloudFormationStack | None:  # noqa: ANN401 - boto3 ships no types
    """Find a stack by its name or id; None if there is none."""
    from botocore.exceptions import ClientError

    with translate_aws_errors(f"the stack {name!r}"):
        try:
            (found,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        except ClientError as exc:
            if "does not exist" in exc.response["Error"].get("Message", ""):
                return None
            raise
    return CloudFormationStack(
        found["StackName"],
        found["StackId"],
        found["StackStatus"],
        {one["ParameterKey"]: one.get("ParameterValue", "") for one in found.get("Parameters", [])},
        {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])},
    )


def get_stack(cloudformation: Any, name: str) -> CloudFormationStack:  # noqa: ANN401
    """Get a stack; raise `NotFoundError` if there is none."""
    found = find_stack(cloudformation, name)
    if found is None:
        raise NotFoundError(f"There is no stack {name!r} in this account and region; `pilotlight deploy` makes one.")
    return found


def list_resources(cloudformation: Any, stack: str) -> Iterator[DeployedResource]:  # noqa: ANN401
    """List the resources of a stack that are there, and of the stacks nested in it."""
    with translate_aws_errors(f"the stack {stack!r}"):
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
        found = [one for page in pages for one in page["StackResourceSummaries"]]
    for one in found:
        if not (physical := one.get("PhysicalResourceId")) or one["ResourceStatus"] == "DELETE_COMPLETE":
            continue
        yield DeployedResource(one["LogicalResourceId"], physical, one["ResourceType"], stack)
        if one["ResourceType"] == STACK_TYPE:
            yield from list_resources(cloudformation, physical)


def list_events(cloudformation: Any, stack: str, after: datetime = BEGINNING) -> list[StackEvent]:  # noqa: ANN401
    """List what happened after a time to a stack and those nested in it, the oldest first; none for no stack."""
    own = list(read_events(cloudformation, stack, after))
    nested = {one.physical_id for one in own if one.type == STACK_TYPE} - {"", *(one.stack for one in own)}
    for each in sorted(nested):
        own += list_events(cloudformation, each, after)
    return sorted(own, key=lambda one: one.at)


def read_events(cloudformation: Any, stack: str, after: datetime) -> Iterator[StackEvent]:  # noqa: ANN401
    """Read the events of one stack after a time, the newest first."""
    from botocore.exceptions import ClientError

    with translate_aws_errors(f"the stack {stack!r}"):
        try:
            for page in cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack):
                for one in page["StackEvents"]:
                    if one["Timestamp"] <= after:
                        return
                    yield parse_event(one)
        except ClientError as exc:
            if "does not exist" not in exc.response["Error"].get("Message", ""):
                raise


def parse_event(event: Mapping[str, Any]) -> StackEvent:
    """Parse an event as CloudFormation writes it."""
    return StackEvent(
        event["Timestamp"],
        event["StackId"],
        event["LogicalResourceId"],
        event.get("PhysicalResourceId", ""),
        event["ResourceType"],
        event.get("ResourceStatus", ""),
        event.get("ResourceStatusReason", ""),
    )


def find_last_event(cloudformation: Any, stack: str) -> datetime:  # noqa: ANN401
    """Find the time of a stack's last event, by AWS's clock, which may differ from this machine's."""
    return max((one.at for one in list_events(cloudformation, stack)), default=BEGINNING)


def describe_progress(cloudformation: Any, stack: str, after: datetime) -> str:  # noqa: ANN401
    """Describe how far a change is that began after a time; empty before its first event."""
    try:
        events = list_events(cloudformation, stack, after)
    except PilotlightError:  # of one look among many: what is wrong for good, the change itself will tell
        return "CloudFormation does not answer"
    if not events:
        return ""
    states = {(one.stack, one.logical_id): one.status for one in events}
    done = sum(status.endswith("_COMPLETE") for status in states.values())
    return f"{done} resources done, {events[-1].logical_id} {events[-1].status.lower().replace('_', ' ')}"


def explain_failure(events: Iterable[StackEvent]) -> str | None:
    """Explain in one sentence why a deploy failed, by the first resource that did; None if none did.

    A nested stack fails because of a resource in it, and most resources only because another one had failed.
    """
    failed = [one for one in events if one.status.endswith("_FAILED") and not CANCELLED.search(one.reason)]
    first = next((one for one in failed if one.type != STACK_TYPE), failed[0] if failed else None)
    if first is None:
        return None
    verb = VERBS.get(first.status.removesuffix("_FAILED"), "changed")
    reason = clean_reason(first.reason) or "AWS gives no reason"
    hint = next((f" {advice}" for mark, advice in HINTS.items() if mark in reason), "")
    return f"{first.logical_id} ({first.type}) could not be {verb}: {reason}.{hint}"


def clean_reason(reason: str) -> str:
    """Return what a service said, without CloudFormation's wrapping and the ids of requests."""
    wrapped = WRAPPING.match(reason.strip())
    said = wrapped["said"] if wrapped else reason
    return " ".join(REQUEST_IDS.sub("", said).split()).rstrip(".")
