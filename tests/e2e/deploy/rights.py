"""What the roles of deployed stacks may do, beside what they did: by the emulator's notes of each judged call."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import boto3

ASSUMED = re.compile(r"arn:aws:sts::\d+:assumed-role/(?P<role>[^/]+)/")
KEY = re.compile(r"kms:key/[0-9a-f-]{36}")  # not the stack's, but given to it
ARN = re.compile(r"arn:aws:(\w+):[\w-]*:\d*:")


class Right(NamedTuple):
    """An action that a role may call on resources of a pattern."""

    role: str
    action: str
    resource: str


class Call(NamedTuple):
    """A call that was judged."""

    role: str
    action: str
    resource: str
    allowed: bool


@dataclass(frozen=True)
class Report:
    """What the roles did with their rights."""

    used: Counter[Right]  # how many calls each right allowed
    unused: set[Right]
    denied: Counter[Call]


def find_name(physical_id: str) -> str:
    """Find the name by which ARNs have a resource in its physical id, which may be an ARN or a queue's URL."""
    if physical_id.startswith("arn:aws:cloudformation:"):
        return physical_id.split("/")[1]
    if physical_id.startswith(("arn:", "http")):
        return re.split("[:/]", physical_id)[-1]
    return physical_id


@dataclass
class DeployedRoles:
    """The roles of all stacks of a session, with their rights; the same ones of several stacks are one."""

    logical_ids: dict[str, str] = field(default_factory=dict)  # by the physical id
    rights: set[Right] = field(default_factory=set)

    def add(self, stack: str) -> None:
        """Add the roles of a stack, and of the stacks in it."""
        listed = boto3.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        names = {find_name(one["PhysicalResourceId"]): one["LogicalResourceId"] for one in listed}
        self.logical_ids |= {name: logical for name, logical in names.items() if not name.isdigit()}  # no versions
        for one in listed:
            if one["ResourceType"] == "AWS::CloudFormation::Stack":
                self.add(one["PhysicalResourceId"])
        roles = (one for one in listed if one["ResourceType"] == "AWS::IAM::Role")
        self.rights.update(right for role in roles for right in self._read_role(role["PhysicalResourceId"]))

    def _read_role(self, name: str) -> Iterator[Right]:
        iam = boto3.client("iam")
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            for statement in document["Statement"]:
                if statement["Effect"] == "Allow":
                    yield from self._read_statement(name, statement)

    def _read_statement(self, role: str, statement: dict[str, Any]) -> Iterator[Right]:
        actions, resources = statement["Action"], statement["Resource"]
        for action in [actions] if isinstance(actions, str) else actions:
            for resource in [resources] if isinstance(resources, str) else resources:
                yield Right(self.logical_ids[role], action, self.shorten(resource))

    def shorten(self, resource: str) -> str:
        """Write an ARN without what differs between stacks."""
        short = KEY.sub("kms:key/KEY", ARN.sub(r"\1:", resource))
        for physical in sorted(self.logical_ids, key=len, reverse=True):
            short = short.replace(physical, self.logical_ids[physical])
        return short

    def read_calls(self, notes: Path) -> Iterator[Call]:
        """Read the calls of these roles from the emulator's notes."""
        for line in notes.read_text().splitlines():
            noted = json.loads(line)
            found = ASSUMED.match(noted["principal"])
            if found and found["role"] in self.logical_ids:
                role = self.logical_ids[found["role"]]
                yield Call(role, noted["action"], self.shorten(noted["resource"]), noted["allowed"])


def compare(rights: set[Right], calls: Iterable[Call]) -> Report:
    """Count what each right allowed, and what no right did."""
    used: Counter[Right] = Counter()
    denied: Counter[Call] = Counter()
    for call in calls:
        if not call.allowed:
            denied[call] += 1
            continue
        used.update(right for right in rights if covers(right, call))
    return Report(used, {right for right in rights if not used[right]}, denied)


def covers(right: Right, call: Call) -> bool:
    """Whether a call is of the role, the action and the resources of a right."""
    same = (right.role, right.action.lower()) == (call.role, call.action.lower())
    return same and fnmatchcase(call.resource, right.resource)


def describe(report: Report) -> Iterator[str]:
    """Tell it role by role, a line for each right."""
    for role in sorted({right.role for right in (*report.used, *report.unused)}):
        yield role
        for right, count in sorted(report.used.items()):
            if right.role == role:
                yield f"  {count:6}  {right.action}  {right.resource}"
        for right in sorted(report.unused):
            if right.role == role:
                yield f"  unused  {right.action}  {right.resource}"
    for call, count in sorted(report.denied.items()):
        yield f"denied  {call.role}  {call.action}  {call.resource}  ({count})"
