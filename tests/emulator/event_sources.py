"""Event source mappings: a queue is read under the role of its function, as Lambda reads it."""

from typing import Any

from ministack.services import lambda_svc

from tests.emulator.permissions import is_role_allowed

ACTIONS = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")


def extend() -> None:
    """Add this to the running ministack."""
    lambda_svc._run_sqs_batch = _judge_before(lambda_svc._run_sqs_batch)


def _judge_before(run: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Leave messages to their visibility timeout if the role may not read them."""

    def run_batch(mapping: dict[str, Any], function: dict[str, Any], *more: Any) -> None:  # noqa: ANN401
        role, queue = function["config"]["Role"], mapping["EventSourceArn"]
        if all(is_role_allowed(role, action, queue) for action in ACTIONS):
            run(mapping, function, *more)

    return run_batch
