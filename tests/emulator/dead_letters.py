"""Lambda's dead letters: events on which a function failed for good, sent under its role as they were.

ministack's CloudFormation passes over the queue that a function names for them, and Lambda's own form of them is not
that of a destination.
"""

import json
from typing import Any

from ministack.services import lambda_svc, sqs
from ministack.services.cloudformation import provisioners

from tests.emulator.permissions import is_role_allowed

QUEUE = "DeadLetterConfig"


def extend() -> None:
    """Add all of this to the running ministack."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    handlers["create"] = _name_queue_after(handlers["create"])
    handlers["update"] = _keep_queue_after(handlers["update"])
    lambda_svc._route_async_failure = _judge_before(lambda_svc._route_async_failure)


def _name_queue_after(create: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def create_function(logical_id: str, props: dict[str, Any], *more: Any) -> Any:  # noqa: ANN401 - ministack's own
        created = create(logical_id, props, *more)
        lambda_svc._functions[created[0]]["config"][QUEUE] = props.get(QUEUE)
        return created

    return create_function


def _keep_queue_after(update: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def update_function(name: str, old: Any, new: dict[str, Any], *more: Any, **options: Any) -> Any:  # noqa: ANN401
        updated = update(name, old, new, *more, **options)
        lambda_svc._functions[name]["config"][QUEUE] = new.get(QUEUE)
        return updated

    return update_function


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
