"""Roles of Batch's jobs: the job's own, whose credentials its container gets, and the one that starts the container."""

import hashlib
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager

from ministack import app
from ministack.core import iam_evaluator
from ministack.core.responses import request_scope
from ministack.services import sts

from tests.emulator.cloudformation import ACCOUNT, REGION
from tests.emulator.iam import write_note


def account_scope() -> AbstractContextManager[None]:
    """Work in the account and region, which threads of our own must name."""
    scope: AbstractContextManager[None] = request_scope(ACCOUNT, REGION)
    return scope


def build_arn(service: str, resource: str) -> str:
    """Build the ARN of a resource in the account and region."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def find_denied(role: str, checks: Iterable[tuple[str, str]]) -> str:
    """Say which of some actions a role may not do; empty if it may do all, or if nothing is judged."""
    name = role.rpartition("/")[2]
    if not app.AUTH:
        return ""
    policies = iam_evaluator._gather_role_policies(name, ACCOUNT)
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/ecs-agent"
    for action, resource in checks:
        context = iam_evaluator.EvalContext(session, "AssumedRole", ACCOUNT, action, resource, REGION)
        allowed = iam_evaluator.evaluate(context, policies).decision == "Allow"
        write_note(context, allowed=allowed)
        if not allowed:
            return f"AccessDeniedException: {session} is not authorized to perform: {action} on resource: {resource}"
    return ""


def find_credentials(role: str, task: str) -> dict[str, str]:
    """Open a session of a job's role for its container, and return the credentials as variables; none without a role.

    On ECS a container gets an address to ask for them. Without IAM they are the account's own.
    """
    if not app.AUTH:
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return {name: os.environ[name] for name in keys}
    if not role:
        return {}
    name = role.rpartition("/")[2]
    digests = [hashlib.sha256(f"{kind}:{task}:{role}".encode()).hexdigest() for kind in ("key", "secret", "token")]
    key = f"ASIA{digests[0][:16].upper()}"
    session = {
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{task}",
        "UserId": f"{name}:{task}",
        "SecretAccessKey": digests[1],
        "SessionToken": digests[2],
    }
    sts.register_session(key, session)
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": digests[1], "AWS_SESSION_TOKEN": digests[2]}
