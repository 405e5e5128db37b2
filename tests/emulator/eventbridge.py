"""EventBridge: rules that invoke a function by its permission, asynchronously, with Lambda's retries and dead letters.

ministack's own rules ask no permission, and invoke a function once, however that ends.
"""

import json
from contextvars import ContextVar
from typing import Any

from ministack.services import eventbridge, lambda_svc, sqs

from tests.emulator.permissions import LOG, is_role_allowed, is_service_allowed

_rule: ContextVar[str] = ContextVar("rule", default="")  # the ARN of the rule whose target is invoked


def extend() -> None:
    """Add all of this to the running ministack."""
    eventbridge._invoke_target = _name_rule_for(eventbridge._invoke_target)
    eventbridge._dispatch_to_lambda = invoke_function
    lambda_svc._route_async_failure = _judge_before(lambda_svc._route_async_failure)


def _name_rule_for(invoke: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def invoke_target(target: Any, event: Any, rule: dict[str, Any], *more: Any) -> None:  # noqa: ANN401
        _rule.set(rule["Arn"])
        invoke(target, event, rule, *more)

    return invoke_target


def invoke_function(arn: str, payload: str) -> None:
    """Invoke a function as a rule does."""
    function, config, name = lambda_svc._get_func_record_for_ref(arn)
    if function is None:
        LOG.error("The rule %s has no function %s to invoke", _rule.get(), name)
    elif is_service_allowed("events.amazonaws.com", function, _rule.get()):
        lambda_svc.invoke_async_with_retry(
            lambda_svc._execution_record_for_config(function, config), json.loads(payload)
        )


def _judge_before(route: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Send what failed for good where the role of its function may; to a queue of dead letters, the event itself."""

    def route_failure(target: str, name: str, event: Any, result: dict[str, Any]) -> None:  # noqa: ANN401
        config = lambda_svc._functions[name]["config"]
        if not is_role_allowed(config["Role"], "sqs:SendMessage", target):
            return
        if target == (config.get("DeadLetterConfig") or {}).get("TargetArn"):
            send_dead_letter(target, event, result)
        else:
            route(target, name, event, result)

    return route_failure


def send_dead_letter(queue: str, event: Any, result: dict[str, Any]) -> None:  # noqa: ANN401 - of any kind
    """Send an event to a queue as Lambda does, with its error in attributes; ministack's own is in an envelope."""
    body = result.get("body")
    said = str(body.get("errorMessage") if isinstance(body, dict) else body)[:1000] or "none"
    attributes = {"ErrorCode": ("Number", "200"), "ErrorMessage": ("String", said)}
    letter = {
        "MessageBody": json.dumps(event),
        "MessageAttributes": {
            name: {"DataType": kind, "StringValue": text} for name, (kind, text) in attributes.items()
        },
    }
    sqs._act_send_message(letter, sqs._queue_url(queue.rpartition(":")[2]))
