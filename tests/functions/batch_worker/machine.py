"""infra/events.yaml's state machine in moto's interpreter of the States Language, the real handler as its Lambda."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.core.config import default_user_config

from pilotlight.local import intrinsics
from tests.conftest import Serial, aws_variables, moto_server

TEMPLATE = Path(__file__).parents[3] / "infra" / "events.yaml"
INVOKE = re.compile(r"/2015-03-31/functions/[^/]+/invocations")
ROLE = "arn:aws:iam::123456789012:role/spread"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:batch"
Handler = Callable[[dict[str, Any], object], dict[str, Any]]


class Aws(Serial):
    """moto, with a handler where it would start Docker for Lambda; what the handler raises is a function's error."""

    handler: Handler

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ANN401 - WSGI's own
        if not INVOKE.fullmatch(environ["PATH_INFO"]):
            return super().__call__(environ, start_response)
        event = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        headers = [("content-type", "application/json")]
        try:
            body = json.dumps(self.handler(event, None)).encode()
        except Exception as exc:  # noqa: BLE001 - as Lambda does
            body = json.dumps({"errorType": type(exc).__name__, "errorMessage": str(exc)}).encode()
            headers.append(("x-amz-function-error", "Unhandled"))
        start_response("200 OK", [*headers, ("content-length", str(len(body)))])
        return [body]


class Machine:
    """The state machine, once it is created."""

    def __init__(self, dead_letters: str) -> None:
        self._client = boto3.client("stepfunctions")
        self.arn = self._client.create_state_machine(
            name=f"spread-{time.time_ns()}", definition=json.dumps(definition(dead_letters)), roleArn=ROLE
        )["stateMachineArn"]

    def ended(self) -> dict[str, Any]:
        """The newest execution, once it has ended."""
        while True:
            newest = self._client.list_executions(stateMachineArn=self.arn)["executions"][0]
            found = self._client.describe_execution(executionArn=newest["executionArn"])
            if found["status"] != "RUNNING":
                return dict(found)
            time.sleep(0.05)

    @property
    def count(self) -> int:
        """How many executions there have been."""
        return len(self._client.list_executions(stateMachineArn=self.arn)["executions"])


def definition(dead_letters: str) -> dict[str, Any]:
    """The definition as a deploy would make it; retries wait for nobody."""
    return dict(
        deployed(
            intrinsics.load_raw_template(TEMPLATE)["Resources"]["Spread"]["Properties"]["Definition"], dead_letters
        )
    )


def deployed(node: Any, dead_letters: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(node, list):
        return [deployed(each, dead_letters) for each in node]
    if not isinstance(node, dict):
        return node
    if "Fn::GetAtt" in node:
        return FUNCTION
    if "Ref" in node:
        return dead_letters
    if "Fn::Sub" in node:
        return node["Fn::Sub"].replace("${AWS::Partition}", "aws")
    fast = {"IntervalSeconds": 1, "MaxDelaySeconds": 2} if "IntervalSeconds" in node else {}
    return {key: deployed(value, dead_letters) for key, value in node.items()} | fast


@contextmanager
def running(handler: Handler, patch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """An AWS of S3, SQS and Step Functions for this process."""
    made: list[Aws] = []

    def wrap(application: Any) -> Aws:  # noqa: ANN401 - moto is not typed
        made.append(Aws(application))
        made[0].handler = handler
        return made[0]

    with moto_server(wrap) as url:
        for name, value in (aws_variables(url) | {"MOTO_PORT": url.rpartition(":")[2]}).items():
            patch.setenv(name, value)
        patch.setitem(default_user_config, "stepfunctions", {"execute_state_machine": True})
        before = set(threading.enumerate())
        yield made[0]
        for thread in set(threading.enumerate()) - before:  # of executions that have ended
            thread.join(10)
