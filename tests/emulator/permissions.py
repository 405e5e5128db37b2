"""What ministack does itself where AWS does it under a role, or by the permission of a function: judged as calls are.

Without this, a rule, a state machine or a queue reached a function that no policy lets it reach.
"""

import logging
from typing import Any

from ministack import app
from ministack.core import iam_evaluator
from ministack.core.arn import parse_arn

from tests.emulator.iam import write_note

LOG = logging.getLogger("emulator")


def is_role_allowed(role: str, action: str, resource: str) -> bool:
    """Judge whether the policies of a role, by its ARN, allow an action on a resource."""
    spec = parse_arn(role)
    name = spec.resource.rpartition("/")[2]
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{spec.account_id}:assumed-role/{name}/service",
        principal_type="AssumedRole",
        principal_account=spec.account_id,
        action=action,
        resource_arn=resource,
        region=parse_arn(resource).region,
    )
    result = iam_evaluator.evaluate(context, iam_evaluator._gather_role_policies(name, spec.account_id))
    found = iam_evaluator._resource_policy(action.partition(":")[0], resource)
    if found is not None:
        result = iam_evaluator.combine_resource_policy(result, context, *found)
    return _decide(result, context)


def is_service_allowed(service: str, function: dict[str, Any], source: str) -> bool:
    """Judge whether the policy of a function lets a service invoke it for `source`, such as a rule."""
    arn = function["config"]["FunctionArn"]
    spec = parse_arn(arn)
    context = iam_evaluator.EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account="",
        action="lambda:InvokeFunction",
        resource_arn=arn,
        region=spec.region,
        service_context={"aws:sourcearn": source, "aws:sourceaccount": spec.account_id},
    )
    return _decide(iam_evaluator.evaluate_resource_policy(function.get("policy"), context, service=service), context)


def _decide(result: Any, context: Any) -> bool:  # noqa: ANN401 - ministack has no types
    allowed = not app.AUTH or result.decision == "Allow"
    write_note(context, allowed=allowed)
    if not allowed:
        LOG.error("%s may not %s on %s: %s", context.principal_arn, context.action, context.resource_arn, result.reason)
    return allowed
