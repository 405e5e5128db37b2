"""Step Functions: what a state machine does is judged by its role, and a map's limit may be a path.

ministack's own asks no policy, and starts as many children of a map as there are items if `MaxConcurrencyPath` names
the limit.
"""

from contextvars import ContextVar
from typing import Any

from ministack.services import lambda_svc, sqs, stepfunctions

from tests.emulator.permissions import is_role_allowed
from tests.emulator.s3 import find_key

_machine: ContextVar[dict[str, Any]] = ContextVar("machine")  # whose execution it is


def extend() -> None:
    """Add all of this to the running ministack."""
    stepfunctions._run_execution = _name_machine_for(stepfunctions._run_execution)
    stepfunctions._run_distributed_map = _limit_with(stepfunctions._run_distributed_map)
    stepfunctions._call_lambda = _judge_before(stepfunctions._call_lambda, find_function)
    stepfunctions._s3_object_text = _judge_before(stepfunctions._s3_object_text, find_object)
    stepfunctions._invoke_sqs_send_message = _judge_before(stepfunctions._invoke_sqs_send_message, find_queue)


def _name_machine_for(run: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def run_execution(arn: str) -> None:
        _machine.set(stepfunctions._state_machines[stepfunctions._executions[arn]["stateMachineArn"]])
        run(arn)

    return run_execution


def _limit_with(run: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Start children under the machine's role, as many at once as the path says."""

    def run_map(state: dict[str, Any], raw: Any, effective: Any, *more: Any) -> Any:  # noqa: ANN401 - ministack's own
        check("states:StartExecution", _machine.get()["stateMachineArn"])
        if "MaxConcurrencyPath" in state:
            state = {**state, "MaxConcurrency": stepfunctions._resolve_path(state["MaxConcurrencyPath"], effective)}
        return run(state, raw, effective, *more)

    return run_map


def _judge_before(call: Any, find: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def call_judged(*given: Any) -> Any:  # noqa: ANN401 - ministack's own
        for action, resource in find(*given):
            check(action, resource)
        return call(*given)

    return call_judged


def check(action: str, resource: str) -> None:
    """Fail the state if the machine's role may not do this."""
    if not is_role_allowed(_machine.get()["roleArn"], action, resource):
        said = f"{_machine.get()['roleArn']} is not authorized to perform: {action} on resource: {resource}"
        raise stepfunctions._ExecutionError("States.TaskFailed", said)


def find_function(reference: str, _: object) -> list[tuple[str, str]]:
    """Find what invoking a function needs."""
    _, config, _ = lambda_svc._get_func_record_for_ref(reference)
    return [("lambda:InvokeFunction", config["FunctionArn"])]


def find_object(bucket: str, key: str) -> list[tuple[str, str]]:
    """Find what reading an object needs, its bucket's key included."""
    encryption = find_key(bucket)
    return [("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}"), *([("kms:Decrypt", encryption)] if encryption else [])]


def find_queue(_: object, given: dict[str, Any]) -> list[tuple[str, str]]:
    """Find what sending a message needs."""
    return [("sqs:SendMessage", sqs._queues[given["QueueUrl"]]["attributes"]["QueueArn"])]
