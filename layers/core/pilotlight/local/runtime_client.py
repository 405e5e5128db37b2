"""A Lambda runtime client of the standard library alone, for machines without wheels of AWS's own client.

    python -m pilotlight.local.runtime_client HANDLER

It imports the handler, then asks the Runtime API for one event after the other, as AWS's does: with the same names of
errors and the same exits. It runs in an environment's process and knows nothing of the gateway but the Runtime API.
"""

import http.client
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "/2018-06-01/runtime"
Handler = Callable[[Any, "LambdaContext"], Any]
ErrorReport = dict[str, Any]


class RuntimeApiError(Exception):
    """The Runtime API refused what it was sent; the client can only exit."""


@dataclass(frozen=True)
class LambdaContext:
    """The context that a handler gets with its invocation; the names are AWS's."""

    aws_request_id: str
    invoked_function_arn: str
    function_name: str
    function_version: str
    memory_limit_in_mb: str
    log_group_name: str
    log_stream_name: str
    deadline_ms: int  # since the epoch
    client_context: None = None
    identity: None = None

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function's Timeout."""
        return max(self.deadline_ms - int(time.time() * 1000), 0)

    @classmethod
    def from_headers(cls, headers: http.client.HTTPMessage, environ: Mapping[str, str]) -> "LambdaContext":
        """Create the context from an invocation's headers and the environment's variables."""
        return cls(
            aws_request_id=headers["Lambda-Runtime-Aws-Request-Id"],
            invoked_function_arn=headers["Lambda-Runtime-Invoked-Function-Arn"],
            deadline_ms=int(headers["Lambda-Runtime-Deadline-Ms"]),
            function_name=environ["AWS_LAMBDA_FUNCTION_NAME"],
            function_version=environ["AWS_LAMBDA_FUNCTION_VERSION"],
            memory_limit_in_mb=environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"],
            log_group_name=environ["AWS_LAMBDA_LOG_GROUP_NAME"],
            log_stream_name=environ["AWS_LAMBDA_LOG_STREAM_NAME"],
        )


class RuntimeClient:
    """One connection to the Runtime API at `address`, host:port."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address)

    def next_event(self) -> tuple[bytes, http.client.HTTPMessage]:
        """Return the next event and the headers that describe it; wait as long as there is none."""
        self._connection.request("GET", f"{PREFIX}/invocation/next")
        response = self._connection.getresponse()
        return response.read(), response.headers

    def post(self, path: str, body: str) -> None:
        """Post to the Runtime API; `RuntimeApiError` if it does not accept the body."""
        self._connection.request("POST", f"{PREFIX}/{path}", body.encode(), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read().decode(errors="replace")
        if response.status != http.client.ACCEPTED:
            raise RuntimeApiError(f"The Runtime API answered {response.status} to {path}: {text}")


def load_handler(handler: str) -> Handler:
    """Load the function that `module.function` names; raises whatever its import raises."""
    module, _, function = handler.rpartition(".")
    found: Handler = getattr(importlib.import_module(module), function)
    return found


def report_error(exc: BaseException, error_type: str, message: str) -> ErrorReport:
    """Build an error report for the Runtime API; print it to stdout too, as AWS's client does."""
    stack = traceback.format_tb(exc.__traceback__)
    found = {"errorType": error_type, "errorMessage": message, "stackTrace": stack}
    print(json.dumps({"level": "ERROR", **found}), flush=True)  # noqa: T201  # stdout is the function's log
    return found


def report_init_error(exc: Exception, handler: str) -> ErrorReport:
    """Report why a handler could not be loaded, under the names that AWS uses."""
    module, _, function = handler.rpartition(".")
    if not module or not function:
        return report_error(exc, "Runtime.MalformedHandlerName", f"Bad handler '{handler}': write module.function")
    if isinstance(exc, ImportError):
        return report_error(exc, "Runtime.ImportModuleError", f"Unable to import module '{module}': {exc}")
    if isinstance(exc, SyntaxError):
        return report_error(exc, "Runtime.UserCodeSyntaxError", f"Syntax error in module '{module}': {exc}")
    if isinstance(exc, AttributeError) and module in sys.modules and not hasattr(sys.modules[module], function):
        return report_error(exc, "Runtime.HandlerNotFound", f"Handler '{function}' missing on module '{module}'")
    return report_error(exc, type(exc).__name__, str(exc))


def handle_next_event(client: RuntimeClient, handler: Handler, environ: Mapping[str, str]) -> None:
    """Take one event and post the handler's result; SystemExit and the like end the environment."""
    event, headers = client.next_event()
    context = LambdaContext.from_headers(headers, environ)
    try:
        result = handler(json.loads(event), context)
    except Exception as exc:  # noqa: BLE001  # whatever the handler raises goes to the caller
        failure = report_error(exc, type(exc).__name__, str(exc))
        return client.post(f"invocation/{context.aws_request_id}/error", json.dumps(failure))
    try:
        body = json.dumps(result, ensure_ascii=False)  # as AWS's client from python 3.12 on
    except (TypeError, ValueError) as exc:
        failure = report_error(exc, "Runtime.MarshalError", f"Unable to marshal response: {exc}")
        return client.post(f"invocation/{context.aws_request_id}/error", json.dumps(failure))
    return client.post(f"invocation/{context.aws_request_id}/response", body)


def main(name: str, environ: Mapping[str, str]) -> None:
    """Load the handler and serve it until the process ends."""
    client = RuntimeClient(environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        handler = load_handler(name)
    except Exception as exc:  # noqa: BLE001  # as above
        client.post("init/error", json.dumps(report_init_error(exc, name)))
        sys.exit(1)
    while True:
        handle_next_event(client, handler, environ)


if __name__ == "__main__":
    main(sys.argv[1], os.environ)
